package quotatest

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"time"

	"example.com/quota"
)

// New returns a tracker that keeps its state in memory, logs nothing, and lives by the clock returned, which stands at
// midnight UTC of Monday, 5 January 2026. Without quotas it has quota.DefaultQuotas. When the test ends, the tracker's
// books are verified, and it is closed; tb fails if either finds something wrong. The test may close it earlier.
//
// New itself must be called in tb's own goroutine: it ends the test when the quotas cannot be used.
func New(tb testing.TB, quotas ...quota.Quota) (*quota.QuotaTracker, *Clock) {
	tb.Helper()
	clock := NewClock(start())
	if len(quotas) == 0 {
		quotas = quota.DefaultQuotas()
	}
	tracker, err := quota.New(context.Background(), quota.Config{
		Persistence: quota.InMemory(),
		Quotas:      quotas,
		Clock:       clock,
		Logger:      slog.New(slog.DiscardHandler),
	})
	if err != nil {
		tb.Fatalf("quotatest: no tracker: %v", err)
	}
	tb.Cleanup(func() {
		if err := tracker.Verify(); err != nil && !errors.Is(err, quota.ErrClosed) {
			tb.Errorf("quotatest: the tracker's books are wrong: %v", err)
		}
		if err := tracker.Close(); err != nil {
			tb.Errorf("quotatest: the tracker cannot be closed: %v", err)
		}
	})
	return tracker, clock
}

// start is a Monday, the first of its week, and no day on which clocks change anywhere.
func start() time.Time { return time.Date(2026, time.January, 5, 0, 0, 0, 0, time.UTC) }
