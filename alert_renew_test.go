package quota_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/quota"
)

// hanging is a store in memory that, once told, answers nobody until his ctx ends.
type hanging struct {
	mu    sync.Mutex
	books map[string]*quota.Book
	hangs atomic.Bool
}

func (s *hanging) Load(context.Context) (*quota.State, error) { return nil, nil }
func (s *hanging) Save(context.Context, *quota.State) error   { return nil }
func (s *hanging) Update(ctx context.Context, names []string, fn func(*quota.Tx) error) error {
	if s.hangs.Load() {
		<-ctx.Done()
		return fmt.Errorf("%w: %w", quota.ErrNotSaved, ctx.Err())
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if names == nil {
		for name := range s.books {
			names = append(names, name)
		}
	}
	handed := map[string]*quota.Book{}
	for _, name := range names {
		if b := s.books[name]; b != nil {
			handed[name] = b.Clone()
		}
	}
	tx := &quota.Tx{Books: maps.Clone(handed)}
	if err := fn(tx); err != nil {
		return err
	}
	for name, b := range tx.Books {
		if b != handed[name] {
			s.books[name] = b.Clone()
		}
	}
	return nil
}

func TestACallWhoseContextHasEndedIsNotHeldUpByAlertsBehindItAndAStoreThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &hanging{books: map[string]*quota.Book{}}
		tracker, err := quota.New(t.Context(), quota.Config{
			Persistence: store, Logger: slog.New(slog.NewTextHandler(io.Discard, nil)),
			AlertThresholds: []int{10, 20, 30, 40, 50, 60, 70, 80, 90},
			OnAlert: func(quota.Alert) {
				store.hangs.Store(true)
				<-time.After(1100 * time.Millisecond)
			},
			Quotas: []quota.Quota{{Name: "calls", Limits: []quota.Limit{{Max: 10}}}},
		})
		require.NoError(t, err)
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		begun := time.Now()
		require.NoError(t, tracker.RecordUsage(ctx, "calls", quota.Requests(10)), "it was saved before the store hung")
		took := time.Since(begun)
		store.hangs.Store(false)
		if err := tracker.Close(); err != nil && !errors.Is(err, quota.ErrNotSaved) {
			t.Error(err)
		}
		require.Less(t, took, 30*time.Second, "nine callbacks take ten seconds")
	})
}
