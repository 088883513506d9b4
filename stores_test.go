package quota_test

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/quota"
	"example.com/quota/quotatest"
)

// A Monday, far from midnight.
var morning = time.Date(2026, time.January, 5, 9, 0, 0, 0, time.UTC)

var errStore = errors.New("the store is out of order")

// calls is a quota of so many requests a day.
func calls(limit int64) quota.Quota {
	return quota.Quota{Name: "calls", Limits: []quota.Limit{{Max: limit}}}
}

// startOn returns a tracker on a store, with a clock that stands at morning unless changed. It is verified and closed
// at the end, if the test has not closed it.
func startOn(t *testing.T, store quota.Persistence, change ...func(*quota.Config)) *quota.QuotaTracker {
	t.Helper()
	tracker, err := openOn(store, change...)
	require.NoError(t, err)
	t.Cleanup(func() {
		require.NoError(t, tracker.Verify())
		_ = tracker.Close() // where it matters the test looks at it
	})
	return tracker
}

func openOn(store quota.Persistence, change ...func(*quota.Config)) (*quota.QuotaTracker, error) {
	cfg := quota.Config{
		Persistence: store,
		Quotas:      []quota.Quota{calls(100)},
		Clock:       quotatest.NewClock(morning),
		OnAlert:     func(quota.Alert) {},
		Logger:      slog.New(slog.DiscardHandler),
	}
	for _, f := range change {
		f(&cfg)
	}
	return quota.New(context.Background(), cfg)
}

func withClock(clock quota.Clock) func(*quota.Config) {
	return func(cfg *quota.Config) { cfg.Clock = clock }
}

func withQuotas(quotas ...quota.Quota) func(*quota.Config) {
	return func(cfg *quota.Config) { cfg.Quotas = quotas }
}

func withFlushInterval(d time.Duration) func(*quota.Config) {
	return func(cfg *quota.Config) { cfg.FlushInterval = d }
}

func withAlerts(f func(quota.Alert)) func(*quota.Config) {
	return func(cfg *quota.Config) { cfg.OnAlert = f }
}

// stand is what the first limit of a quota has used and reserved.
type stand struct{ used, reserved int64 }

func standOf(t *testing.T, tracker *quota.QuotaTracker, name string) stand {
	t.Helper()
	status, ok := tracker.Status(name)
	require.True(t, ok)
	return stand{status.Limits[0].Used, status.Limits[0].Reserved}
}

// standIn is what somebody finds who opens the store now.
func standIn(t *testing.T, store quota.Persistence, change ...func(*quota.Config)) stand {
	t.Helper()
	tracker, err := openOn(store, change...)
	require.NoError(t, err)
	found := standOf(t, tracker, "calls")
	require.NoError(t, tracker.Close())
	return found
}

// An alertLog is an OnAlert that remembers.
type alertLog struct {
	mu     sync.Mutex
	alerts []quota.Alert
}

func (l *alertLog) note(a quota.Alert) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.alerts = append(l.alerts, a)
}

func (l *alertLog) thresholds() []int {
	l.mu.Lock()
	defer l.mu.Unlock()
	var list []int
	for _, a := range l.alerts {
		list = append(list, a.Threshold)
	}
	return list
}

func (l *alertLog) ids() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var list []string
	for _, a := range l.alerts {
		list = append(list, a.ID)
	}
	return list
}

// A plainStore is what a user may write: Load and Save, and no more. It keeps the state as JSON.
type plainStore struct {
	gate   chan struct{}            // nil: open; else each Save takes one from it, or waits for its context
	script func(save int) error     // nil: every Save succeeds; counted from 1
	look   func(state *quota.State) // sees what Save is given

	mu    sync.Mutex
	saves int
	state []byte
	wrong error // what a Save must never see

	busy atomic.Bool
}

func (s *plainStore) Load(context.Context) (*quota.State, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.state == nil {
		return nil, nil
	}
	state := new(quota.State)
	return state, json.Unmarshal(s.state, state)
}

func (s *plainStore) Save(ctx context.Context, state *quota.State) error {
	if !s.busy.CompareAndSwap(false, true) {
		s.note(errors.New("two Saves overlap"))
	}
	defer s.busy.Store(false)
	s.mu.Lock()
	s.saves++
	n := s.saves
	s.mu.Unlock()
	before, err := json.Marshal(state)
	if err != nil {
		return err
	}
	if s.look != nil {
		s.look(state)
	}
	if s.gate != nil {
		select {
		case <-s.gate:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	after, err := json.Marshal(state)
	if err != nil {
		return err
	}
	if string(before) != string(after) {
		s.note(errors.New("the state has changed while it was saved"))
	}
	if s.script != nil {
		if err := s.script(n); err != nil {
			return err
		}
	}
	s.mu.Lock()
	s.state = after
	s.mu.Unlock()
	return nil
}

func (s *plainStore) note(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.wrong = errors.Join(s.wrong, err)
}

func (s *plainStore) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.saves
}

func (s *plainStore) complaint() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.wrong
}

// copied returns a store with what has been saved so far: what a crash at this moment leaves.
func (s *plainStore) copied() *plainStore {
	s.mu.Lock()
	defer s.mu.Unlock()
	return &plainStore{state: slices.Clone(s.state)}
}

// failing returns a script in which the saves with these numbers fail.
func failing(numbers ...int) func(int) error {
	return func(n int) error {
		if slices.Contains(numbers, n) {
			return errStore
		}
		return nil
	}
}

func alwaysFailing(int) error { return errStore }
