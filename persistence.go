package quota

import (
	"context"
	"time"

	"example.com/quota/internal/form"
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
// nothing of it. It may run fn several times, each time on fresh books and a new Tx; fn leaves nothing behind but its
// changes to the Tx. When fn returns an error, Update changes nothing and returns that error, or one that wraps it. The
// books of the last Tx belong to the caller once Update has returned; the persistence keeps copies of its own.
//
// A tracker relies on this:
//
//   - The commit compares and writes in one atomic step: two Updates that name a common quota never both succeed from the
//     same state. It is enough to compare the books that were named: all of them, those that fn has not changed, those that
//     it drops and those that there were none of included. Books that were not named are neither shown nor touched.
//   - Of the books that fn leaves in Tx.Books, those that stand there under the pointer that was handed out have not
//     changed and need not be written. What has changed, or is new, stands under another pointer: no book has to be
//     encoded to find out. An Update after which nothing has changed, none was added and none deleted, as after a refusal
//     or a look, needs no write at all.
//   - A store has a time in every Update or in none. It is one for all trackers, the server's and never that of a process:
//     unless the server's clock is set back, the last run of fn in an Update of a book is shown no time before that at which
//     the book was changed last, whoever has changed it.
//   - Where the store has a time (Tx.Now), the commit checks, atomically with the write, that Tx.Until has not come. When
//     it has, fn is run again on fresh books, at the new time. After a bounded number of runs Update gives up, writes
//     nothing and returns an error.
//   - After an error of Update itself the change stands as a whole or not at all, and that is decided before anybody is
//     shown one of its books in another Update: it never takes effect later, nor a second time. fn is not run after Update
//     has returned. A reply that was lost does no harm, for each book knows the last batch of each tracker, and a tracker
//     repeats what it could not save under the old number, until one Update succeeds.
//   - A context that is done ends Update soon. A call is bounded to half a minute by the tracker.
//   - Updates of a tracker follow each other. names is nil only in an Update that changes nothing.
//
// quotatest.TestPersistence tries all of it that can be tried from within one process.
//
// Finished days stay in the books, for 90 days, unless the store is the library's own JSONFile, which moves them into a
// file of their own. Update never touches State.History.
type SharedPersistence interface {
	Persistence
	Update(ctx context.Context, names []string, fn func(*Tx) error) error
}

// A Tx is what fn sees of a shared state.
type Tx struct {
	Now time.Time // the store's time; zero: it has none, the tracker's clock counts
	// Books are those named that there are, never nil. fn adds a book, deletes one from the map to drop it, and puts one
	// that it has changed there under another pointer.
	Books map[string]*Book
	Until time.Time // set by fn, after Now: what it decided holds while the store's time is before Until, else run fn again
}

// A State is everything a tracker remembers. Its JSON form is stable.
type State struct {
	Version    int                     `json:"version"`
	Generation uint64                  `json:"generation"` // rises with every save
	UpdatedAt  time.Time               `json:"updated_at"`
	Books      map[string]*Book        `json:"books"`
	History    map[string][]DaySummary `json:"history,omitempty"` // finished days, oldest first
}

const stateVersion = form.Version

// InMemory is a Persistence that keeps nothing: a tracker that forgets when its process ends.
func InMemory() Persistence { return inMemory{} }

type inMemory struct{}

func (inMemory) Load(context.Context) (*State, error) { return nil, nil }
func (inMemory) Save(context.Context, *State) error   { return nil }
