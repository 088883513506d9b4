package quotatest_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/quota"
	"example.com/quota/quotatest"
)

// witness is a testing.TB that notes what would have happened to a test.
type witness struct {
	testing.TB
	failures []string
	cleanups []func()
}

func (w *witness) Helper()          {}
func (w *witness) Cleanup(f func()) { w.cleanups = append(w.cleanups, f) }
func (w *witness) Errorf(format string, args ...any) {
	w.failures = append(w.failures, fmt.Sprintf(format, args...))
}
func (w *witness) Fatalf(format string, args ...any) {
	w.Errorf(format, args...)
	runtime.Goexit()
}

// test runs f as a test and then its cleanups.
func (w *witness) test(f func(testing.TB)) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		f(w)
	}()
	<-done
	for i := len(w.cleanups) - 1; i >= 0; i-- {
		w.cleanups[i]()
	}
}

func TestNewTrackerLivesByItsClock(t *testing.T) {
	tracker, clock := quotatest.New(t, quota.Quota{Name: "small", Limits: []quota.Limit{{Max: 2}}})
	require.Equal(t, time.Date(2026, time.January, 5, 0, 0, 0, 0, time.UTC), clock.Now())
	require.Equal(t, time.Monday, clock.Now().Weekday())

	require.NoError(t, tracker.RecordUsage(t.Context(), "small", quota.Requests(2)))
	require.False(t, tracker.CanUse("small"))
	clock.Advance(24*time.Hour - 1)
	require.False(t, tracker.CanUse("small"))
	clock.Advance(1)
	require.True(t, tracker.CanUse("small"))
}

func TestNewTrackerExpiresHoldsWhileTheClockMoves(t *testing.T) {
	tracker, clock := quotatest.New(t, quota.Quota{Name: "one", Limits: []quota.Limit{{Max: 1, Window: quota.InFlight()}}})
	hold, err := tracker.Reserve(t.Context(), "one")
	require.NoError(t, err)
	clock.Set(hold.ExpiresAt())
	require.ErrorIs(t, hold.Extend(t.Context(), time.Hour), quota.ErrSettled)
	require.True(t, tracker.CanUse("one"))
}

func TestNewTrackerHasTheDefaultQuotasOnlyIfNoneAreGiven(t *testing.T) {
	tracker, _ := quotatest.New(t)
	require.Len(t, tracker.Summary().Quotas, len(quota.DefaultQuotas()))
	tracker, _ = quotatest.New(t, quota.Quota{Name: "only"})
	require.Len(t, tracker.Summary().Quotas, 1)
}

func TestNewTrackerSharesNothingWithAnother(t *testing.T) {
	one, _ := quotatest.New(t)
	require.NoError(t, one.RecordUsage(t.Context(), "gemini_cli", quota.Requests(1)))
	other, _ := quotatest.New(t)
	status, ok := other.Status("gemini_cli")
	require.True(t, ok)
	require.Zero(t, status.Today.Calls)
}

func TestNewTrackerLogsNothing(t *testing.T) {
	var log bytes.Buffer
	before := slog.Default()
	t.Cleanup(func() { slog.SetDefault(before) })
	slog.SetDefault(slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug})))
	tracker, _ := quotatest.New(t, quota.Quota{Name: "small", Limits: []quota.Limit{{Max: 2}}})
	require.NoError(t, tracker.RecordUsage(t.Context(), "small", quota.Requests(5)))
	status, _ := tracker.Status("small")
	require.Equal(t, []int{50, 80, 90}, status.Limits[0].AlertsFired)
	require.Empty(t, log.String())
}

func TestNewTrackerIsClosedWhenTheTestEnds(t *testing.T) {
	for name, ending := range map[string]func(*quota.QuotaTracker) error{
		"left open":      func(*quota.QuotaTracker) error { return nil },
		"closed earlier": (*quota.QuotaTracker).Close,
	} {
		t.Run(name, func(t *testing.T) {
			w := &witness{TB: t}
			var tracker *quota.QuotaTracker
			var err error
			w.test(func(tb testing.TB) {
				tracker, _ = quotatest.New(tb)
				_, err = tracker.Reserve(context.Background(), "gemini_cli")
				if err == nil {
					err = ending(tracker)
				}
			})
			require.NoError(t, err)
			require.Empty(t, w.failures)
			_, err = tracker.Reserve(context.Background(), "gemini_cli")
			require.ErrorIs(t, err, quota.ErrClosed)
		})
	}
}

func TestNewTrackerEndsTheTestIfTheQuotasCannotBeUsed(t *testing.T) {
	w := &witness{TB: t}
	w.test(func(tb testing.TB) {
		quotatest.New(tb, quota.Quota{Name: "twice"}, quota.Quota{Name: "twice"})
		t.Error("New has returned")
	})
	require.Len(t, w.failures, 1)
	require.Contains(t, w.failures[0], "quotatest: no tracker: quota: ")
}
