package quota_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/quota"
	"example.com/quota/quotatest"
)

func TestRefusalsAreSavedInASharedStoreWithTheNextChangeOrAtClose(t *testing.T) {
	ctx := t.Context()
	store := newSharedStore()
	tracker := startOn(t, store)
	denied := func() int64 {
		other := startOn(t, store.copied())
		status, _ := other.Status("calls")
		return status.Today.Denied
	}
	refuse := func() {
		_, err := tracker.Reserve(ctx, "calls", quota.Requests(101))
		require.ErrorIs(t, err, quota.ErrExceeded)
	}
	require.NoError(t, tracker.RecordUsage(ctx, "calls"))
	refuse()
	require.Zero(t, denied(), "a refusal alone saves nothing")
	status, _ := tracker.Status("calls")
	require.EqualValues(t, 1, status.Today.Denied, "but it is counted")
	store.plan(fine, before)
	require.ErrorIs(t, tracker.RecordUsage(ctx, "calls"), quota.ErrPending)
	require.NoError(t, tracker.RecordUsage(ctx, "calls"))
	require.EqualValues(t, 1, denied())
	refuse()
	refuse()
	require.EqualValues(t, 1, denied())
	require.NoError(t, tracker.Close())
	require.EqualValues(t, 3, denied())
}

func TestARefusalIsNotForgottenByAnUpdateOfOtherQuotas(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		store := newSharedStore()
		tracker := startOn(t, store, withQuotas(calls(100), quota.Quota{Name: "other"}))
		require.NoError(t, tracker.RecordUsage(ctx, "calls"))
		_, err := tracker.Reserve(ctx, "calls", quota.Requests(101))
		require.ErrorIs(t, err, quota.ErrExceeded)
		// One update that reads everything and changes something else.
		store.gate = make(chan struct{})
		var group sync.WaitGroup
		group.Go(func() { require.NoError(t, tracker.RecordUsage(ctx, "other")) })
		synctest.Wait()
		group.Go(func() { require.NoError(t, tracker.RecordUsage(ctx, "other")) })
		group.Go(func() { require.NoError(t, tracker.Refresh(ctx)) })
		synctest.Wait()
		close(store.gate)
		group.Wait()
		require.NoError(t, tracker.Close())
		status, _ := startOn(t, store.copied()).Status("calls")
		require.EqualValues(t, 1, status.Today.Denied)
	})
}

func TestCallsThatArriveDuringAnUpdateShareTheNextOne(t *testing.T) {
	const many = 100
	synctest.Test(t, func(t *testing.T) {
		store := newSharedStore()
		tracker := startOn(t, store, withQuotas(calls(math.MaxInt32), quota.Quota{Name: "other"}))
		before := store.count()
		store.gate = make(chan struct{})
		var group sync.WaitGroup
		group.Go(func() { require.NoError(t, tracker.RecordUsage(t.Context(), "calls")) })
		synctest.Wait()
		for i := range many {
			group.Go(func() {
				require.NoError(t, tracker.RecordUsage(t.Context(), []string{"calls", "other"}[i%2]))
			})
		}
		synctest.Wait()
		require.Equal(t, 1, store.count()-before)
		close(store.gate)
		group.Wait()
		require.Equal(t, 2, store.count()-before)
		require.Equal(t, []string{"calls", "other"}, store.names[len(store.names)-1])
		require.Equal(t, stand{1 + many/2, 0}, standOf(t, tracker, "calls"))
	})
}

func TestAContextThatEndsDuringAnUpdateBoundsOnlyTheWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newSharedStore()
		tracker := startOn(t, store)
		held, err := tracker.Reserve(t.Context(), "calls", quota.Requests(20))
		require.NoError(t, err)
		store.gate = make(chan struct{})
		ctx, cancel := context.WithCancel(t.Context())
		var reserved, committed, recorded error
		var group sync.WaitGroup
		group.Go(func() { _, reserved = tracker.Reserve(ctx, "calls", quota.Requests(50)) })
		synctest.Wait()
		group.Go(func() { committed = held.Commit(ctx, quota.Requests(5)) })
		synctest.Wait()
		group.Go(func() { recorded = tracker.RecordUsage(ctx, "calls", quota.Requests(3)) })
		synctest.Wait()
		cancel()
		group.Wait()
		require.ErrorIs(t, reserved, context.Canceled)
		require.NotErrorIs(t, reserved, quota.ErrPending)
		for _, err := range []error{committed, recorded} {
			require.ErrorIs(t, err, context.Canceled)
			require.ErrorIs(t, err, quota.ErrPending)
		}
		close(store.gate)
		synctest.Wait()
		require.Equal(t, stand{8, 0}, standIn(t, store.copied()))
		require.Equal(t, stand{8, 0}, standOf(t, tracker, "calls"))
	})
}

func TestARepeatedAcquireKeepsTheReservationThatAnAbandonedOneMade(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newSharedStore()
		tracker := startOn(t, store)
		request := quota.Request{All: []string{"calls"}, ID: "job"}
		store.gate = make(chan struct{})
		ctx, cancel := context.WithCancel(t.Context())
		var group sync.WaitGroup
		group.Go(func() {
			_, err := tracker.Acquire(ctx, request)
			require.ErrorIs(t, err, context.Canceled)
		})
		synctest.Wait()
		cancel()
		group.Wait()
		group.Go(func() {
			r, err := tracker.Acquire(t.Context(), request)
			require.NoError(t, err)
			synctest.Wait()
			require.Equal(t, stand{0, 1}, standIn(t, store.copied()), "what was granted is held")
			require.NoError(t, r.Commit(t.Context(), quota.Requests(3)))
		})
		synctest.Wait()
		close(store.gate)
		group.Wait()
		require.Equal(t, stand{3, 0}, standIn(t, store.copied()))
	})
}

func TestAStoreThatHangsBlocksNobodyForEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newSharedStore()
		tracker := startOn(t, store)
		store.gate = make(chan struct{})
		began := time.Now()
		require.ErrorIs(t, tracker.RecordUsage(t.Context(), "calls"), quota.ErrPending)
		require.Equal(t, 30*time.Second, time.Since(began), "an update has a bound of its own")
		began = time.Now()
		err := tracker.Close()
		require.ErrorIs(t, err, quota.ErrNotSaved)
		require.Equal(t, 5*time.Second, time.Since(began))
		require.Equal(t, err, tracker.Close())
	})
}

func TestCloseSavesWhatAnOutageHasLeft(t *testing.T) {
	ctx := t.Context()
	store := newSharedStore()
	tracker := startOn(t, store)
	store.plan(before)
	require.ErrorIs(t, tracker.RecordUsage(ctx, "calls", quota.Requests(5)), quota.ErrPending)
	store.plan(fine)
	require.NoError(t, tracker.Close())
	require.Equal(t, stand{5, 0}, standIn(t, store.copied()))

	tracker = startOn(t, store)
	store.plan(before)
	require.ErrorIs(t, tracker.RecordUsage(ctx, "calls"), quota.ErrPending)
	err := tracker.Close()
	require.ErrorIs(t, err, quota.ErrNotSaved)
	require.ErrorIs(t, err, errStore)
	require.Equal(t, err, tracker.Close())
	require.ErrorIs(t, tracker.RecordUsage(ctx, "calls"), quota.ErrClosed)
	require.ErrorIs(t, tracker.Flush(ctx), quota.ErrClosed)
}

func TestAnAlertOfUsageThatCloseHasSavedIsLeftToTheNextTracker(t *testing.T) {
	ctx := t.Context()
	store := newSharedStore()
	clock := quotatest.NewClock(morning)
	var log alertLog
	tracker := startOn(t, store, withClock(clock), withAlerts(log.note))
	store.plan(fine, before)
	require.ErrorIs(t, tracker.RecordUsage(ctx, "calls", quota.Requests(60)), quota.ErrPending)
	require.NoError(t, tracker.Close())
	require.Empty(t, log.thresholds(), "Close calls nobody back")
	next := startOn(t, store, withClock(clock), withAlerts(log.note))
	require.NoError(t, next.RecordUsage(ctx, "calls"))
	require.Equal(t, []int{50}, log.thresholds())
}

func TestAnAlertWhoseSaveIsInDoubtAtCloseIsToldByTheNextTrackerAtOnce(t *testing.T) {
	ctx := t.Context()
	store := newSharedStore()
	var log alertLog
	tracker := startOn(t, store, withAlerts(log.note))
	store.plan(fine, lostReply)
	require.ErrorIs(t, tracker.RecordUsage(ctx, "calls", quota.Requests(60)), quota.ErrPending)
	require.NoError(t, tracker.Close())
	require.Empty(t, log.thresholds())
	next := startOn(t, store, withAlerts(log.note))
	require.NoError(t, next.RecordUsage(ctx, "calls"))
	require.Equal(t, []int{50}, log.thresholds())
	require.Equal(t, stand{61, 0}, standOf(t, next, "calls"))
}

func TestAlertsAreTakenOverByTheTimeOfTheStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		store := newSharedStore()
		clock := quotatest.NewClock(morning)
		store.now = func() time.Time { return clock.Now().Add(10 * time.Minute) }
		dead := make(chan struct{})
		var first, second alertLog
		quotas := withQuotas(calls(100), quota.Quota{Name: "other"})
		killed := startOn(t, store, quotas, withClock(clock), withAlerts(func(a quota.Alert) { first.note(a); <-dead }))
		go func() { _ = killed.RecordUsage(ctx, "calls", quota.Requests(60)) }()
		synctest.Wait()
		heir := startOn(t, store, quotas, withClock(clock), withAlerts(second.note))
		require.NoError(t, heir.RecordUsage(ctx, "other"))
		require.NotEmpty(t, heir.Summary().Quotas) // it has seen that somebody is to deliver
		require.NoError(t, heir.RecordUsage(ctx, "calls"))
		clock.Advance(time.Minute)
		require.NoError(t, heir.RecordUsage(ctx, "other"))
		require.Equal(t, first.ids(), second.ids())
		close(dead)
		synctest.Wait()
	})
}

func TestFlushIntervalNeedsAStateOfItsOwn(t *testing.T) {
	_, err := openOn(newSharedStore(), withFlushInterval(time.Second))
	require.ErrorIs(t, err, quota.ErrInvalidConfig)
}

func TestAnAlertOfADeadTrackerIsTakenOverAfterAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		store := newSharedStore()
		clock := quotatest.NewClock(morning)
		dead := make(chan struct{})
		var first, second alertLog
		// Its crossing is saved, and then it is stuck before it has delivered.
		killed := startOn(t, store, withClock(clock), withAlerts(func(a quota.Alert) { first.note(a); <-dead }))
		go func() { _ = killed.RecordUsage(ctx, "calls", quota.Requests(60)) }()
		synctest.Wait()
		require.Equal(t, []int{50}, first.thresholds())

		heir := startOn(t, store, withClock(clock), withAlerts(second.note))
		clock.Advance(time.Minute - 1)
		require.NoError(t, heir.RecordUsage(ctx, "calls"))
		require.Empty(t, second.thresholds())
		clock.Advance(1)
		require.NoError(t, heir.RecordUsage(ctx, "calls"))
		require.Equal(t, first.ids(), second.ids())
		clock.Advance(time.Hour)
		require.NoError(t, heir.RecordUsage(ctx, "calls"))
		require.Len(t, second.ids(), 1)
		close(dead)
		synctest.Wait()
	})
}

func TestLimitsThatCannotBeSavedHoldInThisTracker(t *testing.T) {
	ctx := t.Context()
	for _, fault := range []fault{before, lostReply} {
		store := newSharedStore()
		tracker := startOn(t, store)
		require.NoError(t, tracker.RecordUsage(ctx, "calls", quota.Requests(10)))
		store.plan(fault)
		require.ErrorIs(t, tracker.SetQuotas(ctx, []quota.Quota{calls(1000)}), quota.ErrNotSaved)
		require.True(t, tracker.CanUse("calls", quota.Requests(990)))
		require.False(t, tracker.CanUse("calls", quota.Requests(991)))
		store.plan(fine)
		require.NoError(t, tracker.RecordUsage(ctx, "calls"))
		require.False(t, tracker.CanUse("calls", quota.Requests(990)))
	}
}

func TestFinishedDaysInASharedStoreAreKeptForNinetyDays(t *testing.T) {
	ctx := t.Context()
	store := newSharedStore()
	clock := quotatest.NewClock(morning)
	tracker := startOn(t, store, withClock(clock))
	for day := range 95 {
		require.NoError(t, tracker.RecordUsage(ctx, "calls", quota.Requests(int64(day+1))))
		clock.Advance(24 * time.Hour)
	}
	require.NoError(t, tracker.RecordUsage(ctx, "calls"))
	restarted := startOn(t, store.copied(), withClock(clock))
	days := restarted.History("calls")
	require.Len(t, days, 90)
	require.EqualValues(t, 95, days[89].Used[quota.UnitRequests])
	require.EqualValues(t, 6, days[0].Used[quota.UnitRequests])
	size := len(store.texts()["calls"])
	for range 30 {
		require.NoError(t, tracker.RecordUsage(ctx, "calls"))
		clock.Advance(24 * time.Hour)
	}
	require.Less(t, len(store.texts()["calls"]), size+size/10, "the book does not grow for ever")
}

func TestUnusedBooksOfATemplateLeaveASharedStore(t *testing.T) {
	ctx := t.Context()
	store := newSharedStore()
	clock := quotatest.NewClock(morning)
	tracker := startOn(t, store, withClock(clock), withQuotas(quota.Quota{Name: "user:*", Limits: []quota.Limit{{Max: 10}}}))
	for i := range 5 {
		require.NoError(t, tracker.RecordUsage(ctx, fmt.Sprintf("user:%d", i)))
	}
	require.Len(t, store.texts(), 5)
	for range 4 {
		clock.Advance(24 * time.Hour)
	}
	require.Empty(t, store.texts())
	require.Empty(t, tracker.Summary().Quotas)
	updates := store.count()
	clock.Advance(10 * 24 * time.Hour)
	require.LessOrEqual(t, store.count()-updates, 5, "nobody looks after what is gone")
}

func TestNothingIsAskedOfASharedStoreWhileNobodyAsks(t *testing.T) {
	store := newSharedStore()
	clock := quotatest.NewClock(morning)
	tracker := startOn(t, store, withClock(clock))
	require.NoError(t, tracker.RecordUsage(t.Context(), "calls"))
	updates := store.count()
	clock.Advance(time.Hour)
	require.Equal(t, updates, store.count())
	require.NoError(t, tracker.Close())
	require.Equal(t, updates, store.count(), "there is nothing left to save")
}

func TestTheRecordOfAnOutageIsLogged(t *testing.T) {
	store := newSharedStore()
	var mu sync.Mutex
	var lines []string
	tracker := startOn(t, store, func(cfg *quota.Config) {
		cfg.Logger = slog.New(logFunc(func(r slog.Record) {
			mu.Lock()
			defer mu.Unlock()
			lines = append(lines, r.Message)
		}))
	})
	store.plan(before)
	err := tracker.RecordUsage(t.Context(), "calls")
	require.True(t, errors.Is(err, quota.ErrPending))
	mu.Lock()
	defer mu.Unlock()
	require.Equal(t, []string{"quota: saving failed, usage is kept in memory"}, lines)
}

// A logFunc is a slog.Handler.
type logFunc func(slog.Record)

func (f logFunc) Enabled(context.Context, slog.Level) bool { return true }
func (f logFunc) Handle(_ context.Context, r slog.Record) error {
	f(r)
	return nil
}
func (f logFunc) WithAttrs([]slog.Attr) slog.Handler { return f }
func (f logFunc) WithGroup(string) slog.Handler      { return f }

func TestAnUpdateSaysUntilWhenWhatItDecidedHolds(t *testing.T) {
	store := newSharedStore()
	other := quota.Quota{Name: "other", Limits: []quota.Limit{{Max: 10, Window: quota.Every(time.Minute)}}}
	tracker := startOn(t, store, withQuotas(calls(100), other))
	_, err := tracker.Reserve(t.Context(), "calls")
	require.NoError(t, err)
	require.Equal(t, morning.Add(15*time.Minute), store.until, "the hold expires")
	for _, names := range [][]string{{"calls", "other"}, {"other", "calls"}} {
		_, err = tracker.ReserveAll(t.Context(), names)
		require.NoError(t, err)
		require.Equal(t, morning.Add(time.Minute), store.until, "the minute ends")
	}
}

func TestRefreshReadsWhatOthersHaveChanged(t *testing.T) {
	store := newSharedStore()
	one, two := startOn(t, store), startOn(t, store)
	require.NoError(t, one.RecordUsage(t.Context(), "calls", quota.Requests(3)))
	before := store.count()
	require.NoError(t, two.Refresh(t.Context()))
	require.Equal(t, before+1, store.count())
	require.Nil(t, store.names[before], "all there is")
	require.Equal(t, stand{3, 0}, standOf(t, two, "calls"))
	require.Equal(t, before+1, store.count())
}
