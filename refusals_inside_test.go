package quota

import (
	"log/slog"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// A stoppedClock never lets a timer go off.
type stoppedClock struct{ at time.Time }

func (c *stoppedClock) Now() time.Time { return c.at }
func (c *stoppedClock) AfterFunc(time.Duration, func()) func() bool {
	return func() bool { return true }
}

func TestARefusalOfAPastDayCountsOnceAlsoWhereTheStateCannotBeSaved(t *testing.T) {
	ctx, path := t.Context(), filepath.Join(t.TempDir(), "quota_state.json")
	clock := &stoppedClock{time.Date(2026, time.January, 5, 23, 0, 0, 0, time.UTC)}
	open := func() (*JSONFile, *QuotaTracker) {
		f := NewJSONFile(path)
		tr, err := New(ctx, Config{Persistence: f, Clock: clock, Logger: slog.New(slog.DiscardHandler),
			Quotas: []Quota{{Name: "calls", Limits: []Limit{{Max: 1}}}}})
		require.NoError(t, err)
		t.Cleanup(func() { _ = tr.Close() })
		return f, tr
	}
	f, one := open()
	_, other := open()
	require.NoError(t, other.RecordUsage(ctx, "calls"))
	_, err := one.Reserve(ctx, "calls")
	require.ErrorIs(t, err, ErrExceeded)
	clock.at = clock.at.Add(2 * time.Hour)
	require.NoError(t, other.RecordUsage(ctx, "calls"), "the day is turned by another tracker")

	good := f.files
	f.files.rename = func(a, b string) error {
		if b == f.target {
			return syscall.EIO
		}
		return good.rename(a, b)
	}
	for range 5 {
		require.ErrorIs(t, one.RecordUsage(ctx, "calls"), ErrNotSaved)
	}
	f.files = good
	require.NoError(t, one.RecordUsage(ctx, "calls"))
	days := one.History("calls")
	require.Len(t, days, 1)
	require.EqualValues(t, 1, days[0].Denied)
}
