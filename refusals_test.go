package quota_test

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/quota"
	"example.com/quota/quotatest"
)

// everyStore are the kinds of Persistence, each empty.
func everyStore(t *testing.T) map[string]quota.Persistence {
	return map[string]quota.Persistence{
		"memory": quota.InMemory(), "file": quota.NewJSONFile(newStatePath(t)), "server": newSharedStore(),
		"plain": struct{ quota.Persistence }{quota.NewJSONFile(newStatePath(t))},
	}
}

func TestARefusalIsShownWhateverTheStore(t *testing.T) {
	for name, store := range everyStore(t) {
		t.Run(name, func(t *testing.T) {
			tracker := startOn(t, store, withQuotas(calls(1)))
			for n := range int64(3) {
				_, err := tracker.Reserve(t.Context(), "calls", quota.Requests(2))
				require.ErrorIs(t, err, quota.ErrExceeded)
				status, _ := tracker.Status("calls")
				require.Equal(t, n+1, status.Today.Denied)
			}
		})
	}
}

func TestARefusalBelongsToItsDayWheneverItIsSaved(t *testing.T) {
	for name, store := range everyStore(t) {
		t.Run(name, func(t *testing.T) {
			ctx, clock := t.Context(), quotatest.NewClock(time.Date(2026, time.January, 5, 23, 0, 0, 0, time.UTC))
			tracker := startOn(t, store, withQuotas(calls(1)), withClock(clock))
			refuse := func() {
				_, err := tracker.Reserve(ctx, "calls", quota.Requests(2))
				require.ErrorIs(t, err, quota.ErrExceeded)
			}
			check := func(today, yesterday int64) {
				status, _ := tracker.Status("calls")
				require.Equal(t, today, status.Today.Denied)
				require.Equal(t, today, status.Today.DeniedBy["requests per day"])
				days := tracker.History("calls")
				require.NotEmpty(t, days)
				require.Equal(t, yesterday, days[0].Denied)
				require.Equal(t, yesterday, days[0].DeniedBy["requests per day"])
			}
			refuse()
			require.NoError(t, tracker.RecordUsage(ctx, "calls"))
			refuse()
			refuse()
			clock.Advance(2 * time.Hour)
			refuse()
			check(1, 3)
			require.NoError(t, tracker.RecordUsage(ctx, "calls"))
			check(1, 3)
			if name == "memory" {
				return
			}
			refuse()
			require.NoError(t, tracker.Close())
			tracker = startOn(t, store, withQuotas(calls(1)), withClock(clock))
			check(2, 3)
		})
	}
}

func TestARefusalThatFindsItsDayOverIsCountedAllTheSame(t *testing.T) {
	ctx, clock, store := t.Context(), quotatest.NewClock(time.Date(2026, time.January, 5, 23, 0, 0, 0, time.UTC)), newSharedStore()
	one := startOn(t, store, withQuotas(calls(1)), withClock(clock))
	other := startOn(t, store, withQuotas(calls(1)), withClock(clock))
	require.NoError(t, other.RecordUsage(ctx, "calls"))
	_, err := one.Reserve(ctx, "calls")
	require.ErrorIs(t, err, quota.ErrExceeded)
	clock.Advance(2 * time.Hour)
	require.NoError(t, other.RecordUsage(ctx, "calls"), "the day is turned by another tracker")
	require.NoError(t, one.RecordUsage(ctx, "calls"))
	days := one.History("calls")
	require.Len(t, days, 1)
	require.EqualValues(t, 1, days[0].Denied)
	status, _ := one.Status("calls")
	require.Zero(t, status.Today.Denied)
}

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

func TestARefusalThatFindsItsDayOverInTheHistoryFileCountsOnItsDay(t *testing.T) {
	ctx, clock, path := t.Context(), quotatest.NewClock(time.Date(2026, time.January, 5, 23, 0, 0, 0, time.UTC)), newStatePath(t)
	one := startOn(t, quota.NewJSONFile(path), withQuotas(calls(1)), withClock(lateClock{clock}))
	other := startOn(t, quota.NewJSONFile(path), withQuotas(calls(1)), withClock(lateClock{clock}))
	require.NoError(t, other.RecordUsage(ctx, "calls"))
	for range 12 {
		_, err := one.Reserve(ctx, "calls")
		require.ErrorIs(t, err, quota.ErrExceeded)
	}
	clock.Advance(2 * time.Hour)
	require.NoError(t, other.RecordUsage(ctx, "calls"), "the day is turned by another tracker")
	require.NoError(t, one.RecordUsage(ctx, "calls"))
	days := one.History("calls")
	require.Len(t, days, 1)
	status, _ := one.Status("calls")
	require.Equal(t, [2]int64{12, 0}, [2]int64{days[0].Denied, status.Today.Denied})
}

func TestARefusalOfAQuietDayCountsOnIt(t *testing.T) {
	for name, store := range map[string]quota.Persistence{"file": quota.NewJSONFile(newStatePath(t)), "server": newSharedStore()} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, clock := t.Context(), quotatest.NewClock(time.Date(2026, time.January, 5, 12, 0, 0, 0, time.UTC))
				one := startOn(t, store, withQuotas(calls(1)), withClock(lateClock{clock}))
				other := startOn(t, store, withQuotas(calls(1)), withClock(lateClock{clock}))
				require.NoError(t, other.RecordUsage(ctx, "calls"))
				clock.Advance(24 * time.Hour)
				_, err := one.Reserve(ctx, "calls", quota.Requests(2))
				require.ErrorIs(t, err, quota.ErrExceeded)
				clock.Advance(24 * time.Hour)
				require.NoError(t, other.RecordUsage(ctx, "calls"))
				require.NoError(t, one.RecordUsage(ctx, "calls"))
				status, _ := one.Status("calls")
				require.Zero(t, status.Today.Denied)
				require.Len(t, one.History("calls"), 2)
			})
		})
	}
}

func TestRefusalsCountOnceWhateverBecomesOfUpdates(t *testing.T) {
	faults := []fault{fine, before, inVain, lostReply, twice}
	for number := range 5 * 5 * 5 * 5 {
		ctx, clock, store := t.Context(), quotatest.NewClock(morning), newSharedStore()
		tracker := startOn(t, store, withClock(clock), withQuotas(quota.Quota{Name: "calls", Limits: []quota.Limit{
			{Max: 0, Window: quota.Lifetime()}, {Unit: quota.UnitTokens, Max: 0, Window: quota.Lifetime()},
		}}))
		refuse := func(amount ...quota.Amount) {
			_, err := tracker.Wait(ctx, "calls", amount...) // which is refused in memory
			require.ErrorIs(t, err, quota.ErrExceeded)
		}
		var played []fault
		for rest := number; len(played) < 4; rest /= 5 {
			played = append(played, faults[rest%5])
		}
		for step, what := range played {
			if step == 0 || step == 3 {
				store.plan(fine)
				refuse()
				refuse(quota.Requests(0), quota.Tokens(1))
			}
			store.plan(what)
			if step%2 == 0 {
				_ = tracker.Flush(ctx)
				continue
			}
			failing := slices.Contains([]fault{before, inVain, lostReply}, what)
			require.Equal(t, failing, tracker.RecordUsage(ctx, "calls") != nil, "%v", played)
		}
		store.plan(fine)
		require.NoError(t, tracker.Flush(ctx))
		for _, one := range []*quota.QuotaTracker{tracker, startOn(t, store.copied(), withClock(clock))} {
			status, _ := one.Status("calls")
			require.Equal(t, map[string]int64{"requests per lifetime": 2, "tokens per lifetime": 2}, status.Today.DeniedBy, "%v", played)
			require.EqualValues(t, 2, status.Today.Calls)
		}
		require.NoError(t, tracker.Close())
	}
}

func TestARefusalOfBeforeDoesNotBringNewLimitsIntoThePast(t *testing.T) {
	ctx, clock := t.Context(), quotatest.NewClock(morning)
	filling := func(limit int64) quota.Quota {
		return quota.Quota{Name: "calls", Limits: []quota.Limit{{Max: limit, Window: quota.Refill(24 * time.Hour)}}}
	}
	tracker := startOn(t, newSharedStore(), withClock(clock), withQuotas(filling(10)))
	require.NoError(t, tracker.RecordUsage(ctx, "calls", quota.Requests(3)))
	_, err := tracker.Reserve(ctx, "calls", quota.Requests(8))
	require.ErrorIs(t, err, quota.ErrExceeded)
	clock.Advance(12 * time.Hour) // in which all flows back
	require.NoError(t, tracker.SetQuotas(ctx, []quota.Quota{filling(1)}))
	status, _ := tracker.Status("calls")
	require.Zero(t, status.Limits[0].Used)
	require.EqualValues(t, 1, status.Today.Denied)
}

func TestARefusalInDoubtIsShownOnce(t *testing.T) {
	ctx, store := t.Context(), newSharedStore()
	one := startOn(t, store, withQuotas(calls(1)))
	require.NoError(t, one.RecordUsage(ctx, "calls"))
	_, err := one.Reserve(ctx, "calls")
	require.ErrorIs(t, err, quota.ErrExceeded)
	store.plan(fine, lostReply)
	require.ErrorIs(t, one.Flush(ctx), quota.ErrNotSaved)
	require.NoError(t, one.Refresh(ctx))
	status, _ := one.Status("calls")
	require.EqualValues(t, 1, status.Today.Denied)
}

func TestARefusalOfAQuietDayCountsOnItWhereTheSameLimitsAreSetSince(t *testing.T) {
	ctx, clock := t.Context(), quotatest.NewClock(morning)
	one := startOn(t, newSharedStore(), withQuotas(calls(1)), withClock(clock))
	_, err := one.Reserve(ctx, "calls", quota.Requests(2))
	require.ErrorIs(t, err, quota.ErrExceeded)
	require.NoError(t, one.SetQuotas(ctx, []quota.Quota{calls(1)}))
	clock.Advance(24 * time.Hour)
	require.NoError(t, one.RecordUsage(ctx, "calls"))
	status, _ := one.Status("calls")
	require.Zero(t, status.Today.Denied)
}
