package quota_test

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/quota"
	"example.com/quota/quotatest"
)

const flushInterval = 10 * time.Second

func TestWithAFlushIntervalCallsReturnBeforeTheyAreSavedAndTheTimerSaves(t *testing.T) {
	ctx := t.Context()
	path := newStatePath(t)
	clock := quotatest.NewClock(morning)
	var log alertLog
	tracker := startOn(t, quota.NewJSONFile(path), withClock(clock), withFlushInterval(flushInterval), withAlerts(log.note))
	saved := func() stand {
		t.Helper()
		state, err := quota.NewJSONFile(path).Load(ctx)
		require.NoError(t, err)
		return standIn(t, stateOf(t, state))
	}
	require.NoError(t, tracker.RecordUsage(ctx, "calls", quota.Requests(60)))
	require.Equal(t, []int{50}, log.thresholds())
	r, err := tracker.Reserve(ctx, "calls", quota.Requests(5))
	require.NoError(t, err)
	clock.Advance(flushInterval - 1)
	require.Equal(t, stand{}, saved())
	clock.Advance(1)
	require.Equal(t, stand{60, 5}, saved(), "at least that often")
	require.NoError(t, r.Commit(ctx))
	require.Equal(t, stand{60, 5}, saved())
	require.NoError(t, tracker.Flush(ctx))
	require.Equal(t, stand{65, 0}, saved())
	require.NoError(t, tracker.RecordUsage(ctx, "calls"))
	require.NoError(t, tracker.Close())
	require.Equal(t, stand{66, 0}, saved())
}

func TestWithAFlushIntervalRefusalsAloneAreSavedToo(t *testing.T) {
	ctx := t.Context()
	store := &plainStore{}
	clock := quotatest.NewClock(morning)
	tracker := startOn(t, store, withClock(clock), withFlushInterval(flushInterval))
	require.NoError(t, tracker.RecordUsage(ctx, "calls", quota.Requests(100)))
	clock.Advance(flushInterval)
	for range 3 {
		_, err := tracker.Reserve(ctx, "calls")
		require.ErrorIs(t, err, quota.ErrExceeded)
	}
	clock.Advance(flushInterval)
	status, _ := startOn(t, store.copied(), withClock(clock)).Status("calls")
	require.EqualValues(t, 3, status.Today.Denied)
}

// stateOf returns a store that holds a state.
func stateOf(t *testing.T, state *quota.State) quota.Persistence {
	t.Helper()
	store := &plainStore{}
	require.NoError(t, store.Save(t.Context(), state))
	return store
}

func TestATimerThatFindsNothingToSaveSavesNothing(t *testing.T) {
	store := &plainStore{}
	clock := quotatest.NewClock(morning)
	tracker := startOn(t, store, withClock(clock), withFlushInterval(flushInterval))
	require.NoError(t, tracker.RecordUsage(t.Context(), "calls"))
	clock.Advance(24 * time.Minute)
	require.Equal(t, 1, store.count())
	require.NoError(t, tracker.Flush(t.Context()))
	require.NoError(t, tracker.Close())
	require.Equal(t, 1, store.count())
}

func TestAfterAFailedFlushReservationsAreRefusedUntilOneSucceeds(t *testing.T) {
	ctx := t.Context()
	path := newStatePath(t)
	dir := filepath.Dir(path)
	clock := quotatest.NewClock(morning)
	tracker := startOn(t, quota.NewJSONFile(path), withClock(clock), withFlushInterval(flushInterval))
	held, err := tracker.Reserve(ctx, "calls", quota.Requests(10))
	require.NoError(t, err)
	require.NoError(t, os.Rename(dir, dir+".away"))
	require.NoError(t, os.WriteFile(dir, nil, 0o600))
	_, err = tracker.Reserve(ctx, "calls")
	require.NoError(t, err, "nobody knows of the outage yet")
	clock.Advance(flushInterval)
	for range 2 {
		_, err = tracker.Reserve(ctx, "calls")
		require.ErrorIs(t, err, quota.ErrNotSaved)
		require.ErrorContains(t, err, dir)
		require.NoError(t, tracker.RecordUsage(ctx, "calls"), "usage is taken all the same")
		clock.Advance(flushInterval)
	}
	require.NoError(t, held.Commit(ctx, quota.Requests(20)))
	require.ErrorIs(t, tracker.Flush(ctx), quota.ErrNotSaved)
	used := standOf(t, tracker, "calls")

	require.NoError(t, os.Remove(dir))
	require.NoError(t, os.Rename(dir+".away", dir))
	clock.Advance(flushInterval)
	_, err = tracker.Reserve(ctx, "calls", quota.Requests(3))
	require.NoError(t, err)
	require.NoError(t, tracker.Close())
	require.Equal(t, stand{used.used, used.reserved + 3}, standIn(t, quota.NewJSONFile(path)))
}

func TestATrackerWithAFlushIntervalOwnsItsFileAlone(t *testing.T) {
	path := newStatePath(t)
	alone := startOn(t, quota.NewJSONFile(path), withFlushInterval(flushInterval))
	_, err := openOn(quota.NewJSONFile(path))
	require.ErrorIs(t, err, quota.ErrLocked)
	_, err = openOn(quota.NewJSONFile(path), withFlushInterval(flushInterval))
	require.ErrorIs(t, err, quota.ErrLocked)
	require.NoError(t, alone.Close())

	one, two := startOn(t, quota.NewJSONFile(path)), startOn(t, quota.NewJSONFile(path))
	_, err = openOn(quota.NewJSONFile(path), withFlushInterval(flushInterval))
	require.ErrorIs(t, err, quota.ErrLocked)
	require.NoError(t, one.Close())
	_, err = openOn(quota.NewJSONFile(path), withFlushInterval(flushInterval))
	require.ErrorIs(t, err, quota.ErrLocked)
	require.NoError(t, two.Close())
	again := startOn(t, quota.NewJSONFile(path), withFlushInterval(flushInterval))
	require.NoError(t, again.RecordUsage(t.Context(), "calls"))
	require.NoError(t, again.Close())
}

func TestACloseThatCannotFlushSaysSo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &plainStore{gate: make(chan struct{})}
		tracker := startOn(t, store, withFlushInterval(flushInterval))
		require.NoError(t, tracker.RecordUsage(t.Context(), "calls"))
		began := time.Now()
		err := tracker.Close()
		require.ErrorIs(t, err, quota.ErrNotSaved)
		require.Equal(t, 5*time.Second, time.Since(began))
		require.Equal(t, err, tracker.Close())
	})
}

func TestAContextBoundsTheWaitForAFlush(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &plainStore{gate: make(chan struct{})}
		tracker := startOn(t, store, withFlushInterval(flushInterval))
		require.NoError(t, tracker.RecordUsage(t.Context(), "calls"))
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		err := tracker.Flush(ctx)
		require.ErrorIs(t, err, quota.ErrNotSaved)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		close(store.gate)
		require.NoError(t, tracker.Flush(t.Context()))
		require.Equal(t, stand{1, 0}, standIn(t, store.copied()))
	})
}

func TestWhatACrashLosesIsAtMostOneInterval(t *testing.T) {
	ctx := t.Context()
	store := &plainStore{}
	clock := quotatest.NewClock(morning)
	tracker := startOn(t, store, withClock(clock), withFlushInterval(flushInterval), withQuotas(calls(1000)))
	for second := range 100 {
		require.NoError(t, tracker.RecordUsage(ctx, "calls"))
		clock.Advance(time.Second)
		lost := int64(second+1) - standIn(t, store.copied(), withQuotas(calls(1000))).used
		require.LessOrEqual(t, lost, int64(flushInterval/time.Second))
	}
	require.LessOrEqual(t, store.count(), 11)
}

func TestAFailedFlushIsTriedAgainByTheTimerAlsoWhenNothingElseChanges(t *testing.T) {
	failing := false
	store := &plainStore{script: func(int) error {
		if failing {
			return errStore
		}
		return nil
	}}
	clock := quotatest.NewClock(morning)
	tracker := startOn(t, store, withClock(clock), withFlushInterval(time.Second), withQuotas(calls(1)))
	require.NoError(t, tracker.RecordUsage(t.Context(), "calls"))
	require.NoError(t, tracker.Flush(t.Context()))
	clock.Advance(time.Minute)
	_, err := tracker.Reserve(t.Context(), "calls")
	require.ErrorIs(t, err, quota.ErrExceeded)
	failing = true
	require.ErrorIs(t, tracker.Flush(t.Context()), quota.ErrNotSaved)
	failing = false
	clock.Advance(time.Minute)
	_, err = tracker.Reserve(t.Context(), "calls")
	require.ErrorIs(t, err, quota.ErrExceeded, "not ErrNotSaved: the store is well again")
}
