package quota_test

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/quota"
	"example.com/quota/quotatest"
)

// Whether an expired hold is remembered must not depend on when the book was last swept. The second hold is kept behind the
// first, whose images are part of a lifetime, until that is settled.
func TestWhetherAnExpiredHoldIsForgottenIsTheSameInMemoryAndOnAStore(t *testing.T) {
	charged := func(store quota.Persistence) int64 {
		clock := quotatest.NewClock(time.Date(2026, time.January, 5, 9, 0, 0, 0, time.UTC))
		tracker, err := quota.New(t.Context(), quota.Config{
			Persistence: store, Clock: clock, OnExpiry: quota.ReleaseExpired, OnAlert: func(quota.Alert) {},
			Quotas: []quota.Quota{{Name: "calls", Limits: []quota.Limit{
				{Max: 100}, {Unit: "images", Max: 100, Window: quota.Lifetime()},
			}}},
		})
		require.NoError(t, err)
		defer func() { require.NoError(t, tracker.Close()) }()
		first, err := tracker.Reserve(t.Context(), "calls", quota.Amount{Unit: "images", N: 1})
		require.NoError(t, err)
		second, err := tracker.Reserve(t.Context(), "calls", quota.Tokens(40))
		require.NoError(t, err)
		clock.Advance(3 * 24 * time.Hour) // the day of the second hold has turned, and a day has passed
		require.NoError(t, first.Release(t.Context()))
		require.NoError(t, second.Commit(t.Context(), quota.Tokens(10)))
		status, _ := tracker.Status("calls")
		return status.Limits[0].Used
	}
	inMemory := charged(quota.InMemory())
	onFile := charged(quota.NewJSONFile(filepath.Join(t.TempDir(), "state.json")))
	require.Equal(t, onFile, inMemory, "the request that the second hold was for is charged by one and not by the other")
}
