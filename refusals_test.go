package quota_test

import (
	"fmt"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"example.com/quota"
)

func TestRefusalsInVeryManyQuotasAreSavedInBetween(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newSharedStore()
		tracker := startOn(t, store, withQuotas(quota.Quota{Name: "user:*", Limits: []quota.Limit{{Max: 0}}}))
		refuse := func(from, to int) {
			for i := from; i < to; i++ {
				_, err := tracker.Reserve(t.Context(), fmt.Sprint("user:", i))
				require.ErrorIs(t, err, quota.ErrExceeded)
			}
			synctest.Wait()
		}
		refuse(0, 1024)
		require.Zero(t, store.writes, "a refusal alone saves nothing")
		refuse(1024, 1025)
		require.Equal(t, 1025, store.writes)
		status, _ := tracker.Status("user:0")
		require.EqualValues(t, 1, status.Today.Denied, "it is counted once")
		refuse(1025, 1100)
		require.Equal(t, 1025, store.writes)
	})
}

func TestRefusalsAreCountedWhereTheyBelongHoweverManyThereAre(t *testing.T) {
	ctx, store := t.Context(), newSharedStore()
	quotas := withQuotas(calls(10), quota.Quota{Name: "other", Limits: []quota.Limit{{Max: 1}}})
	tracker := startOn(t, store, quotas)
	for range 50 {
		_, err := tracker.Reserve(ctx, "calls", quota.Requests(11))
		require.ErrorIs(t, err, quota.ErrExceeded)
	}
	require.NoError(t, tracker.RecordUsage(ctx, "other"))
	denied := func(tracker *quota.QuotaTracker) int64 {
		status, _ := tracker.Status("calls")
		require.Equal(t, status.Today.Denied, status.Today.DeniedBy["requests per day"])
		return status.Today.Denied
	}
	require.EqualValues(t, 50, denied(tracker))
	require.Zero(t, denied(startOn(t, store.copied(), quotas)))
	require.NoError(t, tracker.RecordUsage(ctx, "calls"))
	require.EqualValues(t, 50, denied(tracker))
	require.EqualValues(t, 50, denied(startOn(t, store.copied(), quotas)))
}

func TestRefusalsAndLooksWriteNothing(t *testing.T) {
	ctx, store := t.Context(), newSharedStore()
	tracker := startOn(t, store)
	require.NoError(t, tracker.RecordUsage(ctx, "calls"))
	writes := store.writes
	_, err := tracker.Reserve(ctx, "calls", quota.Requests(101))
	require.ErrorIs(t, err, quota.ErrExceeded)
	require.NoError(t, tracker.Refresh(ctx))
	_, err = tracker.Reservation(ctx, "nobody's")
	require.ErrorIs(t, err, quota.ErrNoReservation)
	require.True(t, tracker.CanUse("calls"))
	require.Equal(t, writes, store.writes)
}

func TestReadingEverythingIsAnUpdateOfItsOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, store := t.Context(), newSharedStore()
		tracker := startOn(t, store)
		store.gate = make(chan struct{})
		var group sync.WaitGroup
		group.Go(func() { require.NoError(t, tracker.RecordUsage(ctx, "calls")) })
		synctest.Wait()
		for range 2 {
			group.Go(func() { require.NoError(t, tracker.Refresh(ctx)) })
			group.Go(func() { require.NoError(t, tracker.RecordUsage(ctx, "calls")) })
		}
		synctest.Wait()
		close(store.gate)
		group.Wait()
		require.Equal(t, [][]string{{"calls"}, {"calls"}, nil}, store.names)
	})
}
