package quota

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
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
