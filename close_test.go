package quota_test

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/quota"
	"example.com/quota/quotatest"
)

func TestAlertsThatHaveNotBegunAtCloseAreLeftToTheNextTracker(t *testing.T) {
	for name, store := range map[string]quota.Persistence{
		"plain": &plainStore{}, "shared": newSharedStore(), "file": quota.NewJSONFile(filepath.Join(t.TempDir(), "state.json")),
	} {
		var first, second alertLog
		var tracker *quota.QuotaTracker
		tracker, err := openOn(store, withAlerts(func(a quota.Alert) {
			first.note(a)
			require.NoError(t, tracker.Close(), name) // from the callback
		}))
		require.NoError(t, err, name)
		require.NoError(t, tracker.RecordUsage(t.Context(), "calls", quota.Requests(95)), name)
		require.Equal(t, []int{50}, first.thresholds(), name)

		next := startOn(t, store, withAlerts(second.note))
		require.NoError(t, next.RecordUsage(t.Context(), "calls"), name)
		require.Equal(t, []int{80, 90}, second.thresholds(), "%s: at once, and those alone", name)
		require.NoError(t, next.Close(), name)
	}
}

func TestACallbackMayCloseTheTrackerThatClosesAlready(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newSharedStore()
		var tracker *quota.QuotaTracker
		begun := make(chan struct{})
		tracker, err := openOn(store, withAlerts(func(quota.Alert) {
			close(begun)
			require.NoError(t, tracker.Close())
		}))
		require.NoError(t, err)
		go func() { require.NoError(t, tracker.RecordUsage(t.Context(), "calls", quota.Requests(60))) }()
		<-begun
		require.NoError(t, tracker.Close())
	})
}

func TestWhatCloseRacesWithIsSavedOrRefusedNeverBoth(t *testing.T) {
	for range 300 {
		store := &plainStore{}
		tracker, err := openOn(store, withQuotas(calls(1<<40), quota.Quota{Name: "other", Limits: []quota.Limit{{Max: 1 << 40}}}))
		require.NoError(t, err)
		var group sync.WaitGroup
		var mu sync.Mutex
		var used, held int64
		started := make(chan struct{}, 1)
		for range 4 {
			group.Go(func() {
				for {
					err := tracker.RecordUsage(context.Background(), "calls")
					if err != nil {
						return
					}
					mu.Lock()
					used++
					mu.Unlock()
					select {
					case started <- struct{}{}:
					default:
					}
				}
			})
			group.Go(func() {
				for {
					if _, err := tracker.ReserveAll(context.Background(), []string{"calls", "other"}); err != nil {
						return
					}
					mu.Lock()
					held++
					mu.Unlock()
				}
			})
		}
		<-started
		require.NoError(t, tracker.Close())
		group.Wait()
		next, err := openOn(store, withQuotas(calls(1<<40), quota.Quota{Name: "other", Limits: []quota.Limit{{Max: 1 << 40}}}))
		require.NoError(t, err)
		require.Equal(t, stand{used, held}, standOf(t, next, "calls"))
		require.Equal(t, stand{0, held}, standOf(t, next, "other"), "a reservation is saved in both quotas or in neither")
		require.NoError(t, next.Close())
	}
}

func TestNewThatFailsLeavesNothingAtWork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newSharedStore()
		clock := quotatest.NewClock(morning)
		first := startOn(t, store, withClock(clock))
		_, err := first.Reserve(t.Context(), "calls", quota.Requests(60))
		require.NoError(t, err)
		require.NoError(t, first.Close())

		store.gate = make(chan struct{})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		var log alertLog
		_, err = quota.New(ctx, quota.Config{
			Persistence: store, Clock: clock, Quotas: []quota.Quota{calls(100)}, OnAlert: log.note,
			Logger: slog.New(slog.DiscardHandler),
		})
		require.ErrorIs(t, err, context.DeadlineExceeded)
		close(store.gate)
		synctest.Wait()
		updates := store.count()
		clock.Advance(16 * time.Minute) // its reservation expires, and crosses a threshold
		synctest.Wait()
		require.Equal(t, updates, store.count())
		require.Empty(t, log.thresholds())
	})
}

func TestASlowCallbackHoldsUpNoOtherExpiry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		block := make(chan struct{})
		tracker, err := quota.New(t.Context(), quota.Config{
			Persistence: quota.InMemory(), OnAlert: func(quota.Alert) { <-block },
			Quotas: []quota.Quota{
				{Name: "a", Limits: []quota.Limit{{Max: 1}}},
				{Name: "b", Limits: []quota.Limit{{Max: 1, Window: quota.InFlight()}}},
			},
		})
		require.NoError(t, err)
		for name, ttl := range map[string]time.Duration{"a": time.Minute, "b": 2 * time.Minute} {
			_, err := tracker.Acquire(t.Context(), quota.Request{All: []string{name}, TTL: ttl})
			require.NoError(t, err)
		}
		began := time.Now()
		_, err = tracker.Acquire(t.Context(), quota.Request{All: []string{"b"}, MaxWait: time.Hour})
		require.NoError(t, err)
		require.Equal(t, 2*time.Minute, time.Since(began))
		close(block)
		require.NoError(t, tracker.Close())
	})
}

func TestWhatWasOpenBeforeARestartExpiresWithoutAFurtherCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &plainStore{}
		inFlight := withQuotas(quota.Quota{Name: "calls", Limits: []quota.Limit{{Max: 1, Window: quota.InFlight()}}})
		first, err := openOn(store, inFlight, withClock(nil))
		require.NoError(t, err)
		_, err = first.Reserve(t.Context(), "calls")
		require.NoError(t, err)
		require.NoError(t, first.Close())

		next := startOn(t, store, inFlight, withClock(nil))
		began := time.Now()
		_, err = next.Acquire(t.Context(), quota.Request{All: []string{"calls"}, MaxWait: time.Hour})
		require.NoError(t, err)
		require.LessOrEqual(t, time.Since(began), 15*time.Minute)
		require.NoError(t, next.Close())
	})
}

func TestACrossingThatARefusedCallHasFoundIsDelivered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &plainStore{}
		clock := &stillClock{now: morning}
		var log alertLog
		tracker := startOn(t, store, withClock(clock), withAlerts(log.note))
		_, err := tracker.Reserve(t.Context(), "calls", quota.Requests(60))
		require.NoError(t, err)
		clock.set(morning.Add(time.Hour)) // it has expired, and nobody has noticed
		_, err = tracker.Reserve(t.Context(), "calls", quota.Requests(60))
		require.ErrorIs(t, err, quota.ErrExceeded)
		synctest.Wait()
		require.Equal(t, []int{50}, log.thresholds())
	})
}

// A stillClock is a clock whose timers never go off.
type stillClock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *stillClock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *stillClock) set(now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = now
}

func (c *stillClock) AfterFunc(time.Duration, func()) func() bool { return func() bool { return true } }

func TestATimeoutOfTheStoreIsNotTakenForTheCallers(t *testing.T) {
	failing := false
	store := &plainStore{script: func(int) error {
		if failing {
			return fmt.Errorf("driver: %w", context.DeadlineExceeded)
		}
		return nil
	}}
	tracker := startOn(t, store)
	failing = true
	err := tracker.RecordUsage(t.Context(), "calls")
	require.ErrorIs(t, err, quota.ErrNotSaved)
	require.ErrorIs(t, err, quota.ErrPending)
	failing = false
	require.NoError(t, tracker.Flush(t.Context()))
}

func TestASaveThatHangsIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &plainStore{gate: make(chan struct{})}
		tracker := startOn(t, store)
		began := time.Now()
		err := tracker.RecordUsage(t.Context(), "calls")
		require.ErrorIs(t, err, quota.ErrPending)
		require.LessOrEqual(t, time.Since(began), 30*time.Second)
		close(store.gate)
		require.NoError(t, tracker.Flush(t.Context()))
	})
}

func TestTheHandlerOfTheLogMayAskTheTracker(t *testing.T) {
	for name, store := range map[string]quota.Persistence{"memory": quota.InMemory(), "shared": newSharedStore()} {
		var tracker *quota.QuotaTracker
		logged := make(chan string, 10)
		tracker, err := openOn(store, func(cfg *quota.Config) {
			cfg.Logger = slog.New(handlerFunc(func(r slog.Record) {
				_ = tracker.RecordUsage(context.Background(), "calls")
				logged <- tracker.DisplayStatus() + r.Message
			}))
		})
		require.NoError(t, err, name)
		for range 2 {
			require.NoError(t, tracker.RecordUsage(t.Context(), "calls", quota.Tokens(math.MaxInt64)), name)
		}
		require.Contains(t, <-logged, "more has been used", name)
		require.NoError(t, tracker.Close(), name)
	}
}

// A handlerFunc is a handler of logs.
type handlerFunc func(slog.Record)

func (f handlerFunc) Enabled(context.Context, slog.Level) bool { return true }
func (f handlerFunc) WithAttrs([]slog.Attr) slog.Handler       { return f }
func (f handlerFunc) WithGroup(string) slog.Handler            { return f }
func (f handlerFunc) Handle(_ context.Context, r slog.Record) error {
	f(r)
	return nil
}

func TestWhatIsDueAtOnceIsSavedTogether(t *testing.T) {
	const many = 200
	store := &plainStore{}
	clock := quotatest.NewClock(morning)
	tracker := startOn(t, store, withClock(clock), withQuotas(quota.Quota{Name: "u:*", Limits: []quota.Limit{{Max: 10}}}))
	for i := range many {
		_, err := tracker.Acquire(t.Context(), quota.Request{All: []string{fmt.Sprint("u:", i)}, TTL: time.Minute})
		require.NoError(t, err)
	}
	saves := store.count()
	clock.Advance(time.Minute)
	require.NoError(t, tracker.Flush(t.Context()))
	require.LessOrEqual(t, store.count()-saves, 3, "%d reservations expired at the same time", many)
}
