package quota_test

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/quota"
	"example.com/quota/quotatest"
)

func TestAFullDiskStopsReservationsAndLosesNoUsage(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=256k"); err != nil {
		require.Empty(t, os.Getenv("CI"), "a small disk cannot be mounted: %v", err)
		t.Skip("a small disk cannot be mounted, run as root:", err)
	}
	t.Cleanup(func() { require.NoError(t, syscall.Unmount(dir, syscall.MNT_DETACH)) })
	ctx := t.Context()
	path := filepath.Join(dir, "quota_state.json")
	clock := quotatest.NewClock(morning)
	tracker := startOn(t, quota.NewJSONFile(path), withClock(clock))
	require.NoError(t, tracker.RecordUsage(ctx, "calls", quota.Requests(5)))
	before, err := os.ReadFile(path)
	require.NoError(t, err)

	// Whatever is left of the disk, to the last byte.
	filler, err := os.Create(filepath.Join(dir, "filler"))
	require.NoError(t, err)
	for err == nil {
		_, err = filler.Write(make([]byte, 512))
	}
	require.ErrorIs(t, err, syscall.ENOSPC)
	require.NoError(t, filler.Close())

	err = tracker.RecordUsage(ctx, "calls", quota.Requests(60))
	require.ErrorIs(t, err, quota.ErrPending)
	require.ErrorIs(t, err, syscall.ENOSPC)
	require.ErrorContains(t, err, dir)
	_, err = tracker.Reserve(ctx, "calls")
	require.ErrorIs(t, err, quota.ErrNotSaved)
	require.False(t, tracker.CanUse("calls", quota.Requests(36)))
	after, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, before, after, "the state before stands as it was")
	for _, name := range besides(t, path) {
		require.NotRegexp(t, `^\.`, name, "a leftover")
	}

	require.NoError(t, os.Remove(filler.Name()))
	clock.Advance(time.Second)
	require.NoError(t, tracker.Close())
	require.Equal(t, stand{65, 0}, standIn(t, quota.NewJSONFile(path)))
}
