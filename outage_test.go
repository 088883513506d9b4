package quota_test

import (
	"context"
	"log/slog"
	"math"
	"os"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"example.com/quota"
	"example.com/quota/quotatest"
	"github.com/stretchr/testify/require"
)

// A cutOff is one tracker's way to a shared store, which may be down while others reach it.
type cutOff struct {
	*sharedStore
	down atomic.Bool
}

func (c *cutOff) Update(ctx context.Context, names []string, fn func(*quota.Tx) error) error {
	if c.down.Load() {
		return errStore
	}
	return c.sharedStore.Update(ctx, names, fn)
}

func TestUsageKeptForMoreThanADayDoesNotTurnBackTheBook(t *testing.T) {
	ctx, clock, store := t.Context(), quotatest.NewClock(morning), newSharedStore()
	way := &cutOff{sharedStore: store}
	alone, other := startOn(t, way, withClock(clock)), startOn(t, store, withClock(clock))
	way.down.Store(true)
	require.ErrorIs(t, alone.RecordUsage(ctx, "calls"), quota.ErrPending)
	clock.Advance(26 * time.Hour)
	require.NoError(t, other.RecordUsage(ctx, "calls", quota.Requests(100)))
	way.down.Store(false)
	require.NoError(t, alone.Flush(ctx))
	require.NoError(t, other.Refresh(ctx))
	status, _ := other.Status("calls")
	require.GreaterOrEqual(t, status.Limits[0].Used, int64(100), "today's usage of the other tracker stays")
}

func TestABatchOfUnknownOutcomeIsRecognisedAfterHours(t *testing.T) {
	ctx, clock, store := t.Context(), quotatest.NewClock(morning), newSharedStore()
	way := &cutOff{sharedStore: store}
	alone, other := startOn(t, way, withClock(clock)), startOn(t, store, withClock(clock))
	store.plan(fine, lostReply)
	require.ErrorIs(t, alone.RecordUsage(ctx, "calls", quota.Requests(10)), quota.ErrPending)
	way.down.Store(true)
	require.NoError(t, other.RecordUsage(ctx, "calls"))
	clock.Advance(3 * time.Hour)
	require.NoError(t, other.RecordUsage(ctx, "calls"))
	way.down.Store(false)
	require.NoError(t, alone.Flush(ctx))
	require.NoError(t, other.Refresh(ctx))
	require.Equal(t, stand{12, 0}, standOf(t, other, "calls"))
}

func TestAStateSavedAfterAClockCorrectionAndALateCommitCanBeRead(t *testing.T) {
	ctx, clock, path := t.Context(), quotatest.NewClock(morning), newStatePath(t)
	tracker := startOn(t, quota.NewJSONFile(path), withClock(clock))
	r, err := tracker.Reserve(ctx, "calls", quota.Requests(5))
	require.NoError(t, err)
	clock.Advance(24 * time.Hour) // it has expired, and the day has turned
	require.NoError(t, tracker.RecordUsage(ctx, "calls", quota.Requests(0)))
	clock.Set(clock.Now().Add(-48 * time.Hour))
	require.NoError(t, tracker.RecordUsage(ctx, "calls", quota.Requests(0)))
	require.NoError(t, r.Commit(ctx))
	require.NoError(t, tracker.RecordUsage(ctx, "calls", quota.Requests(0), quota.Tokens(77)))
	require.NoError(t, tracker.Verify())
	require.NoError(t, tracker.Close())
	require.Empty(t, startOn(t, quota.NewJSONFile(path), withClock(clock)).Summary().Recovered)
}

// perMinute is a quota whose windows turn often.
func perMinute() quota.Quota {
	return quota.Quota{Name: "rate", Limits: []quota.Limit{{Max: 100, Window: quota.Every(time.Minute)}}}
}

func TestUsageKeptOverATurnGoesOutToAStoreThatHeedsUntil(t *testing.T) {
	ctx, clock, store := t.Context(), quotatest.NewClock(morning), newSharedStore()
	store.now = clock.Now
	tracker := startOn(t, store, withClock(clock), withQuotas(perMinute(), calls(100)))
	require.NoError(t, tracker.RecordUsage(ctx, "rate"))
	store.plan(before)
	clock.Advance(10 * time.Second)
	require.ErrorIs(t, tracker.RecordUsage(ctx, "rate", quota.Requests(7)), quota.ErrPending)
	clock.Advance(2 * time.Minute)
	store.plan(fine)
	require.NoError(t, tracker.Flush(ctx))
	_, err := tracker.Reserve(ctx, "calls")
	require.NoError(t, err)
	require.Equal(t, stand{0, 0}, standOf(t, tracker, "rate"))
	status, _ := tracker.Status("rate")
	require.EqualValues(t, 8, status.Today.Used[quota.UnitRequests])
	require.NoError(t, tracker.Close())
}

func TestAlertsOfADeadTrackerDoNotHoldUpTheirHeir(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, clock, store := t.Context(), quotatest.NewClock(morning), newSharedStore()
		store.now = clock.Now
		stuck := make(chan struct{})
		dead := startOn(t, store, withClock(clock), withAlerts(func(quota.Alert) { <-stuck }))
		go func() { _ = dead.RecordUsage(ctx, "calls", quota.Requests(60)) }()
		synctest.Wait()
		clock.Advance(24 * time.Hour)
		var log alertLog
		heir := startOn(t, store, withClock(clock), withQuotas(quota.Quota{Name: "other"}), withAlerts(log.note))
		require.NoError(t, heir.RecordUsage(ctx, "other"))
		_, err := heir.Reserve(ctx, "other")
		require.NoError(t, err)
		require.Equal(t, []int{50}, log.thresholds())
		close(stuck)
		synctest.Wait()
	})
}

func TestACallThatLastsIsKeptEvenWhereItChangesNothingHere(t *testing.T) {
	ctx, store, left := t.Context(), newSharedStore(), int64(5)
	one, other := startOn(t, store), startOn(t, store)
	_, err := other.Reserve(ctx, "calls", quota.Requests(50))
	require.NoError(t, err)
	store.plan(before)
	require.ErrorIs(t, one.Release(ctx, "calls", quota.Requests(50)), quota.ErrPending)
	store.plan(fine)
	require.NoError(t, one.Flush(ctx))
	require.Equal(t, stand{}, standIn(t, store.copied()))

	require.NoError(t, one.RecordUsage(ctx, "calls", quota.Requests(95)))
	require.NoError(t, other.Reset(ctx, "calls"))
	store.plan(before)
	require.ErrorIs(t, one.Observe(ctx, "calls", quota.Observation{Remaining: &left}), quota.ErrPending)
	store.plan(fine)
	require.NoError(t, one.Flush(ctx))
	require.Equal(t, stand{95, 0}, standIn(t, store.copied()))

	r, err := one.Reserve(ctx, "calls")
	require.NoError(t, err)
	require.NoError(t, one.RecordUsage(ctx, "calls"))
	store.plan(before)
	require.Equal(t, quota.ErrSettled, r.Commit(ctx), "no later answer can be another")
	store.plan(fine)
}

func TestABatchOfUnknownOutcomeIsRecognisedAmongManyTrackers(t *testing.T) {
	ctx, clock, store := t.Context(), quotatest.NewClock(morning), newSharedStore()
	way, thousand := &cutOff{sharedStore: store}, withQuotas(calls(1000))
	alone := startOn(t, way, withClock(clock), thousand)
	store.plan(fine, lostReply)
	require.ErrorIs(t, alone.RecordUsage(ctx, "calls", quota.Requests(10)), quota.ErrPending)
	way.down.Store(true)
	for range 200 {
		recordOnce(t, store, withClock(clock), thousand)
	}
	clock.Advance(61 * time.Minute)
	recordOnce(t, store, withClock(clock), thousand)
	way.down.Store(false)
	require.NoError(t, alone.Flush(ctx))
	require.Equal(t, stand{211, 0}, standIn(t, store.copied(), withClock(clock), thousand))
}

// recordOnce is a process that records one call and ends.
func recordOnce(t *testing.T, store quota.Persistence, change ...func(*quota.Config)) {
	t.Helper()
	tracker, err := openOn(store, change...)
	require.NoError(t, err)
	require.NoError(t, tracker.RecordUsage(t.Context(), "calls"))
	require.NoError(t, tracker.Close())
}

func TestManyShortProcessesLeaveASmallBook(t *testing.T) {
	store, many := newSharedStore(), withQuotas(calls(1_000_000))
	for range quota.Rounds(600) {
		recordOnce(t, store, many)
	}
	require.Less(t, len(store.texts()["calls"]), 32<<10)
}

func TestATrackerThatKnowsWhatBecameOfItsBatchLeavesNoMark(t *testing.T) {
	ctx, store := t.Context(), newSharedStore()
	tracker := startOn(t, store)
	require.NoError(t, tracker.RecordUsage(ctx, "calls"))
	require.Contains(t, store.texts()["calls"], "batches")
	_, err := tracker.Reserve(ctx, "calls")
	require.NoError(t, err)
	require.NotContains(t, store.texts()["calls"], "batches")
}

func TestAPartInAReservationWhoseReplyWasLostIsGivenUpOnce(t *testing.T) {
	for what, fault := range map[string]fault{"it reached the store": lostReply, "it did not": inVain} {
		t.Run(what, func(t *testing.T) {
			ctx, store := t.Context(), newSharedStore()
			request := quota.Request{All: []string{"calls"}, ID: "job"}
			one, other := startOn(t, store), startOn(t, store)
			_, err := one.Acquire(ctx, request)
			require.NoError(t, err)
			_, err = other.Acquire(ctx, request)
			require.NoError(t, err)
			store.plan(fine, fault, lostReply)
			_, err = one.Acquire(ctx, request)
			require.ErrorIs(t, err, quota.ErrNotSaved)
			require.ErrorIs(t, one.Flush(ctx), quota.ErrNotSaved)
			require.NoError(t, one.Flush(ctx))
			require.Contains(t, store.texts()["calls"], `"joined":1`, "the other's part stays, and no more")
		})
	}
}

func TestALongOutageAsksTheStoreOncePerPause(t *testing.T) {
	ctx, clock, store := t.Context(), quotatest.NewClock(morning), newSharedStore()
	tracker := startOn(t, store, withClock(clock), withQuotas(calls(1_000_000)))
	store.plan(before)
	record := func(n int) {
		for range n {
			require.ErrorIs(t, tracker.RecordUsage(ctx, "calls"), quota.ErrPending)
		}
	}
	record(1001)
	updates := store.count()
	record(1000)
	_, err := tracker.Reserve(ctx, "calls")
	require.ErrorIs(t, err, quota.ErrNotSaved)
	require.NotErrorIs(t, err, quota.ErrPending)
	require.ErrorIs(t, err, errStore)
	require.Equal(t, updates, store.count(), "the store has failed a moment ago")
	require.ErrorIs(t, tracker.Flush(ctx), errStore)
	require.Equal(t, updates+1, store.count(), "whoever asks for it has it tried")
	clock.Advance(time.Second)
	require.LessOrEqual(t, store.count(), updates+3)
	require.Equal(t, stand{2001, 0}, standOf(t, tracker, "calls"))
	store.plan(fine)
	clock.Advance(time.Second)
	require.Equal(t, stand{2001, 0}, standIn(t, store.copied(), withQuotas(calls(1_000_000))))
}

func TestALogHandlerMayCallTheTrackerDuringAnOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, store := t.Context(), newSharedStore()
		var tracker *quota.QuotaTracker
		lines := 0
		logger := slog.New(logFunc(func(slog.Record) {
			lines++
			_ = tracker.RecordUsage(ctx, "errors")
		}))
		tracker = startOn(t, store, withQuotas(calls(100), quota.Quota{Name: "errors"}),
			func(cfg *quota.Config) { cfg.Logger = logger })
		store.plan(before)
		require.ErrorIs(t, tracker.RecordUsage(ctx, "calls"), quota.ErrPending)
		require.Equal(t, 1, lines, "an outage is no flood")
		store.plan(fine)
		require.NoError(t, tracker.RecordUsage(ctx, "calls", quota.Tokens(math.MaxInt64)))
		require.NoError(t, tracker.RecordUsage(ctx, "calls", quota.Tokens(math.MaxInt64)))
		require.Equal(t, 2, lines, "more than can be counted")
		require.NoError(t, tracker.Close())
		status, _ := startOn(t, store.copied(), withQuotas(quota.Quota{Name: "errors"})).Status("errors")
		require.EqualValues(t, 2, status.Today.Calls)
	})
}

func TestALogHandlerMayCallTheTrackerWhenAStateIsRecovered(t *testing.T) {
	ctx, path := t.Context(), newStatePath(t)
	var tracker *quota.QuotaTracker
	var lines []string
	logger := slog.New(logFunc(func(r slog.Record) {
		lines = append(lines, r.Message)
		require.NoError(t, tracker.RecordUsage(ctx, "errors"))
		require.True(t, tracker.CanUse("errors"))
	}))
	for name, call := range map[string]func(){
		"a save": func() { require.NoError(t, tracker.RecordUsage(ctx, "calls")) },
		"a look": func() { tracker.CanUse("calls") },
	} {
		lines = nil
		tracker = startOn(t, quota.NewJSONFile(path), withQuotas(calls(100), quota.Quota{Name: "errors"}),
			func(cfg *quota.Config) { cfg.Logger = logger })
		require.NoError(t, tracker.RecordUsage(ctx, "calls"), name)
		require.NoError(t, os.WriteFile(path, []byte("damaged"), 0o600))
		call()
		require.NoError(t, tracker.RecordUsage(ctx, "calls"), name)
		require.NotEmpty(t, lines, name)
		require.NoError(t, tracker.Close())
	}
}

func TestAReportKeptOverATurnSaysNothingOfTheNextWindow(t *testing.T) {
	clock := quotatest.NewClock(time.Date(2026, 1, 5, 23, 59, 0, 0, time.UTC))
	store := newSharedStore()
	way := &cutOff{sharedStore: store}
	mine, other := startOn(t, way, withClock(clock)), startOn(t, store, withClock(clock))
	way.down.Store(true)
	none := int64(0)
	require.ErrorIs(t, mine.Observe(t.Context(), "calls", quota.Observation{Remaining: &none}), quota.ErrPending)
	clock.Advance(2 * time.Minute)
	require.NoError(t, other.RecordUsage(t.Context(), "calls"))
	way.down.Store(false)
	require.NoError(t, mine.Flush(t.Context()))
	require.NoError(t, other.Refresh(t.Context()))
	require.Equal(t, stand{1, 0}, standOf(t, other, "calls"))
}

func TestAResetThatCannotBeSavedIsNotMadeLater(t *testing.T) {
	clock := quotatest.NewClock(morning)
	store := newSharedStore()
	way := &cutOff{sharedStore: store}
	mine, other := startOn(t, way, withClock(clock)), startOn(t, store, withClock(clock))
	way.down.Store(true)
	require.NoError(t, other.RecordUsage(t.Context(), "calls", quota.Requests(10)))
	err := mine.Reset(t.Context(), "calls")
	require.ErrorIs(t, err, quota.ErrNotSaved)
	require.NotErrorIs(t, err, quota.ErrPending)
	clock.Advance(time.Hour)
	require.NoError(t, other.RecordUsage(t.Context(), "calls", quota.Requests(90)))
	_, err = other.Reserve(t.Context(), "calls")
	require.ErrorIs(t, err, quota.ErrExceeded)
	way.down.Store(false)
	require.NoError(t, mine.Flush(t.Context()))
	_, err = other.Reserve(t.Context(), "calls")
	require.ErrorIs(t, err, quota.ErrExceeded, "what others have used since stays")
	require.NoError(t, mine.Reset(t.Context(), "calls"))
	require.NoError(t, other.Refresh(t.Context()))
	require.Equal(t, stand{}, standOf(t, other, "calls"))
}
