package quota

import (
	"context"
	"time"
)

// A Persistence keeps one tracker's state. Calls never overlap. Save must not keep or change s; Load's result belongs
// to the tracker.
type Persistence interface {
	// Load returns the state last saved; nil, nil when nothing has been saved yet.
	Load(ctx context.Context) (*State, error)
	// Save is all or nothing, and durable on return. After an error either generation may stand.
	Save(ctx context.Context, s *State) error
}

// A SharedPersistence is a Persistence that several trackers change at once. The tracker then never calls Save.
//
// Update runs fn on the newest books of the named quotas (names nil: of all) and makes what fn changed durable, or
// nothing of it. It may run fn several times, each time on fresh books; fn leaves nothing behind but its changes to the
// Tx. Two Updates that name a common quota never both succeed from the same state. The books of the last Tx belong to
// the caller once Update has returned; the persistence keeps copies of its own.
type SharedPersistence interface {
	Persistence
	Update(ctx context.Context, names []string, fn func(*Tx) error) error
}

// A Tx is what fn sees of a shared state.
type Tx struct {
	Now   time.Time        // the store's time; zero: it has none, the tracker's clock counts
	Books map[string]*Book // absent: none yet; delete: drop; names nil: all
	Until time.Time        // set by fn: what it decided holds while the store's time is before Until, else run fn again
}

// A State is everything a tracker remembers. Its JSON form is stable.
type State struct {
	Version    int                     `json:"version"`
	Generation uint64                  `json:"generation"` // rises with every save
	UpdatedAt  time.Time               `json:"updated_at"`
	Books      map[string]*Book        `json:"books"`
	History    map[string][]DaySummary `json:"history,omitempty"` // finished days, oldest first
}

const stateVersion = 2

// InMemory is a Persistence that keeps nothing: a tracker that forgets when its process ends.
func InMemory() Persistence { return inMemory{} }

type inMemory struct{}

func (inMemory) Load(context.Context) (*State, error) { return nil, nil }
func (inMemory) Save(context.Context, *State) error   { return nil }
