package quota

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// A tallying Persistence looks at each state it is given.
type tallying struct{ look func(*State) error }

func (p *tallying) Load(context.Context) (*State, error)   { return nil, nil }
func (p *tallying) Save(_ context.Context, s *State) error { return p.look(s) }

func TestASaveHasAllOfAChangeOfSeveralBooksOrNothingOfIt(t *testing.T) {
	t.Parallel()
	var saves, torn atomic.Int64
	store := &tallying{look: func(s *State) error {
		saves.Add(1)
		if a, b := s.Books["a"], s.Books["b"]; (a == nil) != (b == nil) || a != nil && a.tally() != b.tally() {
			torn.Add(1)
		}
		return nil
	}}
	for _, interval := range []time.Duration{0, time.Millisecond} {
		limits := []Limit{{Max: 1 << 40}}
		tracker, err := New(t.Context(), Config{
			Persistence: store, FlushInterval: interval, Quotas: []Quota{{Name: "a", Limits: limits}, {Name: "b", Limits: limits}},
		})
		require.NoError(t, err)
		var group sync.WaitGroup
		for range 8 {
			group.Go(func() {
				for range 300 {
					r, err := tracker.ReserveAll(t.Context(), []string{"a", "b"})
					if err != nil || r.Commit(t.Context()) != nil {
						t.Error("refused")
						return
					}
				}
			})
		}
		group.Wait()
		require.NoError(t, tracker.Close())
	}
	require.Positive(t, saves.Load())
	require.Zero(t, torn.Load(), "of %d", saves.Load())
}

// A scriptedPersistence is one that is its tracker's alone, of which a test decides what becomes of each save.
type scriptedPersistence struct {
	saves  int
	script func(ctx context.Context, save int) error
	state  *State // that was saved last
}

func (p *scriptedPersistence) Load(context.Context) (*State, error) { return nil, nil }

func (p *scriptedPersistence) Save(ctx context.Context, s *State) error {
	p.saves++
	if err := p.script(ctx, p.saves); err != nil {
		return err
	}
	p.state = &State{Books: map[string]*Book{}}
	for name, book := range s.Books {
		p.state.Books[name] = book.clone()
	}
	return nil
}

func TestNothingIsSavedAfterClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &scriptedPersistence{script: func(context.Context, int) error { return errScript }}
		tracker := beginOn(t, store, Quota{Name: "q"})
		require.ErrorIs(t, tracker.RecordUsage(t.Context(), "q"), ErrPending)
		require.ErrorIs(t, tracker.Close(), ErrNotSaved)
		saves := store.saves
		<-time.After(10 * pause)
		synctest.Wait()
		require.Equal(t, saves, store.saves)
		require.ErrorIs(t, tracker.perform(t.Context(), &recording{name: "q", list: *amounting(Requests(1))}), ErrClosed, "nobody will save it")
	})
}

func TestCloseSavesWhatCameWhileItSaved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var tracker *QuotaTracker
		late := make(chan error, 1)
		store := &scriptedPersistence{script: func(ctx context.Context, save int) error {
			if save == 1 { // a call that has begun before comes to the end of what it does
				go func() { late <- tracker.perform(t.Context(), &recording{name: "q", list: *amounting(Requests(1))}) }()
				synctest.Wait()
				return nil
			}
			select {
			case <-time.After(time.Millisecond):
			case <-ctx.Done():
			}
			return ctx.Err()
		}}
		tracker, err := New(t.Context(), Config{Persistence: store, FlushInterval: time.Hour, Quotas: []Quota{{Name: "q", Limits: []Limit{{Max: 10}}}}})
		require.NoError(t, err)
		require.NoError(t, tracker.RecordUsage(t.Context(), "q"))
		require.NoError(t, tracker.saver.close(t.Context()))
		require.NoError(t, <-late)
		require.NoError(t, tracker.Close())
		require.EqualValues(t, 2, store.state.Books["q"].accounts[0].used)
	})
}

func TestCloseEndsASaveThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &scriptedPersistence{script: func(ctx context.Context, _ int) error {
			<-ctx.Done()
			<-time.After(lastGrace / 2) // it takes a moment to give up
			return ctx.Err()
		}}
		tracker := beginOn(t, store, Quota{Name: "q"})
		go func() { _ = tracker.RecordUsage(context.Background(), "q") }()
		synctest.Wait()
		began := time.Now()
		require.ErrorIs(t, tracker.Close(), ErrNotSaved)
		require.LessOrEqual(t, time.Since(began), closeGrace+lastGrace)
		require.False(t, tracker.saver.running)
	})
}
