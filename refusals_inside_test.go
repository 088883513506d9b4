package quota

import (
	"log/slog"
	"os"
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
			Quotas: []Quota{{Name: "calls", Limits: []Limit{{Max: 1}, {Unit: UnitTokens, Max: 1}}}}})
		require.NoError(t, err)
		t.Cleanup(func() { _ = tr.Close() })
		return f, tr
	}
	f, one := open()
	_, other := open()
	require.NoError(t, other.RecordUsage(ctx, "calls", Requests(1), Tokens(1)))
	_, err := one.Reserve(ctx, "calls")
	require.ErrorIs(t, err, ErrExceeded)
	_, err = one.Reserve(ctx, "calls", Requests(0), Tokens(1))
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
	require.Equal(t, map[string]int64{"requests per day": 1, "tokens per day": 1}, days[0].DeniedBy)
}

func TestARefusalCountsOnceWhereSavesFailAtTheirLastStep(t *testing.T) {
	ctx, f := t.Context(), NewJSONFile(statePath(t))
	clock := &stoppedClock{time.Date(2026, time.January, 5, 12, 0, 0, 0, time.UTC)}
	one, err := New(ctx, Config{Persistence: f, Clock: clock, Logger: slog.New(slog.DiscardHandler),
		Quotas: []Quota{{Name: "calls", Limits: []Limit{{Max: 1}}}}})
	require.NoError(t, err)
	t.Cleanup(func() { _ = one.Close() })
	require.NoError(t, one.RecordUsage(ctx, "calls"))
	_, err = one.Reserve(ctx, "calls")
	require.ErrorIs(t, err, ErrExceeded)
	good := f.files
	f.files.syncDir = func(*os.File) error { return syscall.EIO }
	for range 5 {
		require.ErrorIs(t, one.RecordUsage(ctx, "calls"), ErrNotSaved)
	}
	f.files = good
	require.NoError(t, one.RecordUsage(ctx, "calls"))
	status, _ := one.Status("calls")
	require.EqualValues(t, 7, status.Today.Calls)
	require.EqualValues(t, 1, status.Today.Denied)
}
