package quota_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/quota"
	"example.com/quota/quotatest"
)

// What becomes of reservations without Commit and Release of their handles: matching usage, identity, expiry.

func TestRecordedUsageUsesUpTheOldestHolds(t *testing.T) {
	tracker, _ := quotatest.New(t, quota.Quota{Name: "q", Limits: []quota.Limit{{Max: 100}, {Unit: quota.UnitTokens, Max: 10_000}}})
	oldest := mustReserve(t, tracker, "q", quota.Tokens(500))
	second := mustReserve(t, tracker, "q", quota.Tokens(700))
	record(t, tracker, "q", quota.Tokens(600))
	limits := statusOf(t, tracker, "q").Limits
	require.Equal(t, [2]int64{1, 1}, [2]int64{limits[0].Used, limits[0].Reserved})
	require.Equal(t, [2]int64{600, 700}, [2]int64{limits[1].Used, limits[1].Reserved}, "the oldest is closed with all its units")
	require.ErrorIs(t, oldest.Release(t.Context()), quota.ErrSettled)
	require.NoError(t, second.Release(t.Context()))
}

func TestHoldUsedUpByUsageIsChargedAsHeldWhereUsageNamesNothing(t *testing.T) {
	tracker, _ := quotatest.New(t, quota.Quota{Name: "q", Limits: []quota.Limit{{Max: 100}, {Unit: quota.UnitTokens, Max: 10_000}}})
	mustReserve(t, tracker, "q", quota.Tokens(500))
	record(t, tracker, "q")
	limits := statusOf(t, tracker, "q").Limits
	require.Equal(t, [2]int64{500, 0}, [2]int64{limits[1].Used, limits[1].Reserved})
	require.Equal(t, map[quota.Unit]int64{quota.UnitTokens: 500}, statusOf(t, tracker, "q").Today.Estimated)
}

func TestUsageShrinksAHoldUsedInPart(t *testing.T) {
	tracker, _ := quotatest.New(t, daily(1500))
	r := mustReserve(t, tracker, "q", quota.Requests(500))
	record(t, tracker, "q")
	requireLimit(t, tracker, "q", 1, 499)
	record(t, tracker, "q", quota.Requests(600))
	requireLimit(t, tracker, "q", 601, 0)
	require.ErrorIs(t, r.Commit(t.Context()), quota.ErrSettled)
}

func TestHandleOfAHoldThatUsageHasClosed(t *testing.T) {
	tracker, _ := quotatest.New(t, daily(10))
	closed := func() *quota.Reservation {
		r := mustReserve(t, tracker, "q")
		record(t, tracker, "q")
		return r
	}
	require.ErrorIs(t, closed().Release(t.Context()), quota.ErrSettled)
	require.ErrorIs(t, closed().Commit(t.Context()), quota.ErrSettled)
	requireLimit(t, tracker, "q", 2, 0)
	r := closed()
	require.NoError(t, r.Commit(t.Context(), quota.Requests(2)), "further usage")
	requireLimit(t, tracker, "q", 5, 0)
	require.ErrorIs(t, r.Commit(t.Context(), quota.Requests(2)), quota.ErrSettled)
}

func TestUsageMatchesOnlyHoldsOfThatOneQuotaWithoutAnID(t *testing.T) {
	tracker, _ := quotatest.New(t, daily(10), quota.Quota{Name: "other", Limits: []quota.Limit{{Max: 10}}})
	_, err := tracker.ReserveAll(t.Context(), []string{"q", "other"})
	require.NoError(t, err)
	_, err = tracker.Acquire(t.Context(), quota.Request{All: []string{"q"}, ID: "task"})
	require.NoError(t, err)
	record(t, tracker, "q", quota.Requests(3))
	requireLimit(t, tracker, "q", 3, 2)
	require.NoError(t, tracker.Release(t.Context(), "q", quota.Requests(3)))
	requireLimit(t, tracker, "q", 3, 2)
	requireLimit(t, tracker, "other", 0, 1)
}

func TestReleaseByNameImpliesNoRequestAndReleasesWhatIsHeld(t *testing.T) {
	tracker, _ := quotatest.New(t, quota.Quota{Name: "q", Limits: []quota.Limit{{Max: 10}, {Unit: quota.UnitTokens, Max: 1000}}})
	mustReserve(t, tracker, "q", quota.Tokens(100))
	mustReserve(t, tracker, "q", quota.Tokens(100))
	require.NoError(t, tracker.Release(t.Context(), "q", quota.Tokens(150)))
	limits := statusOf(t, tracker, "q").Limits
	require.EqualValues(t, 2, limits[0].Reserved)
	require.EqualValues(t, 50, limits[1].Reserved)
	require.NoError(t, tracker.Release(t.Context(), "q", quota.Tokens(5000), quota.Requests(5000)))
	require.Zero(t, limitOf(t, tracker, "q").Reserved)
	require.Zero(t, statusOf(t, tracker, "q").Reservations)
	require.NoError(t, tracker.Release(t.Context(), "q", quota.Requests(1)), "nothing is held")
	require.ErrorIs(t, tracker.Release(t.Context(), "q"), quota.ErrInvalidAmount)
	require.Zero(t, statusOf(t, tracker, "q").Today.Calls)
}

func TestUsageIsNeverRefusedAndNeverDropped(t *testing.T) {
	tracker, _ := quotatest.New(t, daily(10))
	record(t, tracker, "q", quota.Requests(25))
	record(t, tracker, "q", quota.Requests(1<<62), quota.Tokens(1<<62))
	record(t, tracker, "q", quota.Requests(1<<62), quota.Tokens(1<<62))
	require.EqualValues(t, int64(1<<63-1), limitOf(t, tracker, "q").Used, "totals saturate")
	require.EqualValues(t, int64(1<<63-1), statusOf(t, tracker, "q").Today.Used[quota.UnitTokens])
	require.False(t, tracker.CanUse("q"))
}

func TestSameIDReturnsTheSameReservationWhileItIsOpen(t *testing.T) {
	tracker, clock := quotatest.New(t, daily(10), quota.Quota{Name: "other", Limits: []quota.Limit{{Max: 10}}})
	request := quota.Request{All: []string{"q"}, ID: "task-1", Amounts: []quota.Amount{quota.Requests(2), quota.Tokens(9)}}
	first, err := tracker.Acquire(t.Context(), request)
	require.NoError(t, err)
	require.Equal(t, "task-1", first.ID())
	clock.Advance(time.Minute)
	second, err := tracker.Acquire(t.Context(), request)
	require.NoError(t, err)
	require.Equal(t, first.ID(), second.ID())
	require.Equal(t, first.Amounts(), second.Amounts())
	require.Equal(t, first.ExpiresAt(), second.ExpiresAt())
	requireLimit(t, tracker, "q", 0, 2)
	for name, wrong := range map[string]quota.Request{
		"other amounts":      {All: []string{"q"}, ID: "task-1", Amounts: []quota.Amount{quota.Requests(3), quota.Tokens(9)}},
		"other quota":        {All: []string{"other"}, ID: "task-1", Amounts: request.Amounts},
		"another one beside": {All: []string{"q", "other"}, ID: "task-1", Amounts: request.Amounts},
	} {
		_, err = tracker.Acquire(t.Context(), wrong)
		require.ErrorIs(t, err, quota.ErrIDConflict, name)
	}
	requireLimit(t, tracker, "other", 0, 0)
	require.NoError(t, second.Commit(t.Context()))
	require.ErrorIs(t, first.Commit(t.Context(), quota.Requests(2)), quota.ErrSettled)
	requireLimit(t, tracker, "q", 2, 0)
}

func TestSettledIDIsRememberedForAnHourOrItsTTL(t *testing.T) {
	tracker, clock := quotatest.New(t, daily(10))
	short := quota.Request{All: []string{"q"}, ID: "short"}
	long := quota.Request{All: []string{"q"}, ID: "long", TTL: 3 * time.Hour}
	for _, request := range []quota.Request{short, long} {
		r, err := tracker.Acquire(t.Context(), request)
		require.NoError(t, err)
		require.NoError(t, r.Release(t.Context()))
		_, err = tracker.Acquire(t.Context(), request)
		require.ErrorIs(t, err, quota.ErrSettled)
	}
	clock.Advance(time.Hour - time.Nanosecond)
	_, err := tracker.Acquire(t.Context(), short)
	require.ErrorIs(t, err, quota.ErrSettled)
	clock.Advance(time.Nanosecond)
	_, err = tracker.Acquire(t.Context(), short)
	require.NoError(t, err)
	_, err = tracker.Acquire(t.Context(), long)
	require.ErrorIs(t, err, quota.ErrSettled)
	clock.Advance(2 * time.Hour)
	_, err = tracker.Acquire(t.Context(), long)
	require.NoError(t, err)
}

func TestExpiredIDIsAdmittedAnewAndOldHandlesStayBoundToTheirHold(t *testing.T) {
	tracker, clock := quotatest.New(t, daily(10))
	request := quota.Request{All: []string{"q"}, ID: "task", Amounts: []quota.Amount{quota.Requests(2)}}
	old, err := tracker.Acquire(t.Context(), request)
	require.NoError(t, err)
	clock.Advance(15 * time.Minute)
	requireLimit(t, tracker, "q", 2, 0)
	fresh, err := tracker.Acquire(t.Context(), request)
	require.NoError(t, err)
	requireLimit(t, tracker, "q", 2, 2)
	require.NoError(t, old.Release(t.Context()))
	requireLimit(t, tracker, "q", 0, 2)
	require.NoError(t, fresh.Commit(t.Context(), quota.Requests(1)))
	requireLimit(t, tracker, "q", 1, 0)
}

func TestReservationIsFoundByItsID(t *testing.T) {
	kept, clock := &memory{}, quotatest.NewClock(monday)
	cfg := quota.Config{Persistence: kept, Clock: clock, Quotas: []quota.Quota{daily(10), {Name: "other"}}}
	first := start(t, cfg)
	made := mustReserve(t, first, "q", quota.Requests(2))
	named, err := first.Acquire(t.Context(), quota.Request{All: []string{"q", "other"}, ID: "task"})
	require.NoError(t, err)
	_, err = first.Reservation(t.Context(), made.ID(), "other")
	require.ErrorIs(t, err, quota.ErrNoReservation)
	_, err = first.Reservation(t.Context(), made.ID(), "nobody")
	require.ErrorIs(t, err, quota.ErrUnknownQuota)
	require.NoError(t, first.Close())
	second := start(t, cfg)
	for _, r := range []*quota.Reservation{made, named} {
		found, err := second.Reservation(t.Context(), r.ID())
		require.NoError(t, err)
		require.Equal(t, r.ID(), found.ID())
		require.Equal(t, r.Quota(), found.Quota())
		require.Equal(t, r.Quotas(), found.Quotas())
		require.Equal(t, r.Amounts(), found.Amounts())
		require.True(t, r.ExpiresAt().Equal(found.ExpiresAt()))
		require.NoError(t, found.Commit(t.Context()))
		_, err = second.Reservation(t.Context(), r.ID())
		require.ErrorIs(t, err, quota.ErrNoReservation)
	}
	requireLimit(t, second, "q", 3, 0)
	_, err = second.Acquire(t.Context(), quota.Request{All: []string{"other"}, ID: "task"})
	require.ErrorIs(t, err, quota.ErrSettled)
}

func TestExpiryChargesWhatWasHeldAndALateCommitCorrectsIt(t *testing.T) {
	tracker, clock := quotatest.New(t, per(quota.Daily(nil), quota.UnitTokens, 1000))
	less, more, released, outcomeless := mustReserve(t, tracker, "q", quota.Tokens(100)), mustReserve(t, tracker, "q", quota.Tokens(100)),
		mustReserve(t, tracker, "q", quota.Tokens(100)), mustReserve(t, tracker, "q", quota.Tokens(100))
	require.Equal(t, monday.Add(15*time.Minute), less.ExpiresAt())
	clock.Advance(15*time.Minute - time.Nanosecond)
	requireLimit(t, tracker, "q", 0, 400)
	clock.Advance(time.Nanosecond)
	requireLimit(t, tracker, "q", 400, 0)
	today := statusOf(t, tracker, "q").Today
	require.EqualValues(t, 4, today.Expired)
	require.EqualValues(t, 400, today.Estimated[quota.UnitTokens])
	require.ErrorIs(t, less.Extend(t.Context(), time.Hour), quota.ErrSettled)
	require.NoError(t, less.Commit(t.Context(), quota.Tokens(30)))
	requireLimit(t, tracker, "q", 330, 0)
	require.NoError(t, more.Commit(t.Context(), quota.Tokens(150)))
	requireLimit(t, tracker, "q", 380, 0)
	require.NoError(t, released.Release(t.Context()))
	requireLimit(t, tracker, "q", 280, 0)
	require.NoError(t, outcomeless.Commit(t.Context()))
	requireLimit(t, tracker, "q", 280, 0)
	today = statusOf(t, tracker, "q").Today
	require.EqualValues(t, 280, today.Used[quota.UnitTokens])
	require.EqualValues(t, 100, today.Estimated[quota.UnitTokens])
	require.ErrorIs(t, released.Release(t.Context()), quota.ErrSettled)
	require.ErrorIs(t, less.Commit(t.Context(), quota.Tokens(30)), quota.ErrSettled)
}

func TestLateCorrectionDoesNotTouchAnotherDay(t *testing.T) {
	tracker, clock := quotatest.New(t, per(quota.Daily(nil), quota.UnitTokens, 1000))
	less, more := mustReserve(t, tracker, "q", quota.Tokens(100)), mustReserve(t, tracker, "q", quota.Tokens(100))
	clock.Advance(24 * time.Hour)
	record(t, tracker, "q", quota.Tokens(10))
	require.NoError(t, less.Commit(t.Context(), quota.Tokens(30)))
	requireLimit(t, tracker, "q", 10, 0)
	require.NoError(t, more.Commit(t.Context(), quota.Tokens(150)))
	requireLimit(t, tracker, "q", 60, 0)
	require.EqualValues(t, 200, tracker.History("q")[0].Used[quota.UnitTokens])
}

func TestReleaseExpiredGivesBackAndALateCommitIsChargedInFull(t *testing.T) {
	clock := quotatest.NewClock(monday)
	tracker := start(t, quota.Config{Clock: clock, OnExpiry: quota.ReleaseExpired, ReservationTTL: time.Minute, Quotas: []quota.Quota{daily(10)}})
	late, unknown, released := mustReserve(t, tracker, "q", quota.Requests(2)), mustReserve(t, tracker, "q", quota.Requests(3)), mustReserve(t, tracker, "q")
	clock.Advance(time.Minute)
	requireLimit(t, tracker, "q", 0, 0)
	require.EqualValues(t, 3, statusOf(t, tracker, "q").Today.Expired)
	require.NoError(t, late.Commit(t.Context(), quota.Requests(1)))
	requireLimit(t, tracker, "q", 1, 0)
	require.NoError(t, unknown.Commit(t.Context()))
	requireLimit(t, tracker, "q", 4, 0)
	_ = released.Release(t.Context())
	requireLimit(t, tracker, "q", 4, 0)
}

func TestExpiryFreesInFlightUnderEitherPolicy(t *testing.T) {
	for _, policy := range []quota.ExpiryPolicy{quota.ChargeExpired, quota.ReleaseExpired} {
		clock := quotatest.NewClock(monday)
		tracker := start(t, quota.Config{Clock: clock, OnExpiry: policy, Quotas: []quota.Quota{per(quota.InFlight(), "", 1)}})
		r := mustReserve(t, tracker, "q")
		require.False(t, tracker.CanUse("q"))
		clock.Advance(15 * time.Minute)
		requireLimit(t, tracker, "q", 0, 0)
		require.NoError(t, r.Commit(t.Context()))
		requireLimit(t, tracker, "q", 0, 0)
	}
}

func TestExpiryHappensInTimeOrderWithTheTurn(t *testing.T) {
	tracker, clock := quotatest.New(t, daily(10))
	clock.Set(monday.Add(24*time.Hour - 20*time.Minute))
	mustReserve(t, tracker, "q", quota.Requests(4)) // expires 5 minutes before midnight
	clock.Advance(10 * time.Minute)
	mustReserve(t, tracker, "q", quota.Requests(3)) // expires 5 minutes after
	clock.Set(monday.Add(36 * time.Hour))
	requireLimit(t, tracker, "q", 3, 0)
	require.EqualValues(t, 4, tracker.History("q")[0].Used[quota.UnitRequests])
	require.EqualValues(t, 1, tracker.History("q")[0].Expired)
	require.EqualValues(t, 1, statusOf(t, tracker, "q").Today.Expired)
}

func TestExpiredHoldsAreRememberedUntilTheirWindowsHaveTurned(t *testing.T) {
	tracker, clock := quotatest.New(t, per(quota.Monthly(nil, 1), quota.UnitTokens, 1000))
	early := mustReserve(t, tracker, "q", quota.Tokens(100))
	day := mustReserve(t, tracker, "q", quota.Tokens(100))
	clock.Advance(24 * time.Hour)
	require.NoError(t, day.Release(t.Context()))
	clock.Advance(20 * 24 * time.Hour)
	require.NoError(t, early.Commit(t.Context(), quota.Tokens(10)))
	requireLimit(t, tracker, "q", 10, 0)
}

func TestExtendIsFromNowAndNeverShortens(t *testing.T) {
	tracker, clock := quotatest.New(t, daily(10))
	r, err := tracker.Acquire(t.Context(), quota.Request{All: []string{"q"}, TTL: time.Hour})
	require.NoError(t, err)
	require.NoError(t, r.Extend(t.Context(), time.Minute))
	require.Equal(t, monday.Add(time.Hour), r.ExpiresAt())
	clock.Advance(59 * time.Minute)
	require.NoError(t, r.Extend(t.Context(), time.Hour))
	require.Equal(t, monday.Add(119*time.Minute), r.ExpiresAt())
	clock.Advance(59 * time.Minute)
	requireLimit(t, tracker, "q", 0, 1)
	clock.Advance(time.Minute)
	requireLimit(t, tracker, "q", 1, 0)
	require.ErrorIs(t, r.Extend(t.Context(), 0), quota.ErrInvalidRequest)
}

func TestTimerSettlesExpiriesNobodyAsksAbout(t *testing.T) {
	clock, alerts, kept := quotatest.NewClock(monday), &firedAlerts{}, &memory{}
	tracker := start(t, quota.Config{Clock: clock, OnAlert: alerts.add, Persistence: kept, Quotas: []quota.Quota{daily(10)}})
	mustReserve(t, tracker, "q", quota.Requests(5))
	clock.Advance(15 * time.Minute)
	require.Equal(t, []int{50}, alerts.thresholds())
	require.Equal(t, monday.Add(15*time.Minute), alerts.all()[0].At)
}

func TestSameIDReturnsTheCandidateThatAdmittedEvenWhenAnEarlierOneHasRoomAgain(t *testing.T) {
	tracker, _ := quotatest.New(t, daily(1), quota.Quota{Name: "second", Limits: []quota.Limit{{Max: 5}}})
	occupied := mustReserve(t, tracker, "q")
	request := quota.Request{Any: []quota.Candidate{{Quota: "q"}, {Quota: "second"}}, ID: "task"}
	first, err := tracker.Acquire(t.Context(), request)
	require.NoError(t, err)
	require.NoError(t, occupied.Release(t.Context()))
	again, err := tracker.Acquire(t.Context(), request)
	require.NoError(t, err)
	require.Equal(t, "second", first.Quota())
	require.Equal(t, "second", again.Quota())
	requireLimit(t, tracker, "q", 0, 0)
	requireLimit(t, tracker, "second", 0, 1)
}

func TestALateCommitThatOneQuotaHasForgottenTakesEffectInTheOther(t *testing.T) {
	for name, store := range everyStore(t) {
		t.Run(name, func(t *testing.T) {
			clock := quotatest.NewClock(morning)
			var log alertLog
			tracker := startOn(t, store, withClock(clock), withAlerts(log.note), withQuotas(
				quota.Quota{Name: "long", Limits: []quota.Limit{{Max: 10, Window: quota.Weekly(nil, time.Monday)}}},
				quota.Quota{Name: "short", Limits: []quota.Limit{{Max: 10, Window: quota.InFlight()}}},
			), func(cfg *quota.Config) { cfg.OnExpiry = quota.ReleaseExpired })
			held, err := tracker.ReserveAll(t.Context(), []string{"long", "short"}, quota.Requests(6))
			require.NoError(t, err)
			clock.Advance(26 * time.Hour)
			require.NoError(t, held.Commit(t.Context()))
			require.Equal(t, stand{6, 0}, standOf(t, tracker, "long"))
			require.Equal(t, []int{50}, log.thresholds(), "told before the crossing call returns")
			require.ErrorIs(t, held.Commit(t.Context()), quota.ErrSettled)
			require.Equal(t, stand{6, 0}, standOf(t, tracker, "long"))
		})
	}
}

func TestACommitLongAfterItsReservationWasForgottenIsChargedInFull(t *testing.T) {
	ctx, clock := t.Context(), quotatest.NewClock(morning)
	tracker := startOn(t, quota.InMemory(), withClock(clock), withQuotas(calls(10)))
	forgotten, err := tracker.Reserve(ctx, "calls")
	require.NoError(t, err)
	clock.Advance(time.Hour)
	require.Equal(t, stand{1, 0}, standOf(t, tracker, "calls"), "it has expired")
	clock.Advance(72 * time.Hour)
	require.NoError(t, tracker.RecordUsage(ctx, "calls"))
	require.NoError(t, forgotten.Commit(ctx, quota.Requests(2)))
	require.Equal(t, stand{3, 0}, standOf(t, tracker, "calls"))
	clock.Advance(time.Minute)
	remembered, err := tracker.Reserve(ctx, "calls")
	require.NoError(t, err)
	clock.Advance(time.Hour)
	require.NoError(t, remembered.Commit(ctx, quota.Requests(2)))
	require.Equal(t, stand{5, 0}, standOf(t, tracker, "calls"))
}

func TestEachOfManyThatExpiredTogetherIsCorrectedByItsOwnCommit(t *testing.T) {
	const many = 20
	for name, store := range everyStore(t) {
		t.Run(name, func(t *testing.T) {
			ctx, clock := t.Context(), quotatest.NewClock(morning)
			tracker := startOn(t, store, withClock(clock), withQuotas(calls(100), quota.Quota{Name: "team", Limits: []quota.Limit{{Max: 100}}}))
			var list []*quota.Reservation
			for range many {
				r, err := tracker.ReserveAll(ctx, []string{"calls", "team"}, quota.Requests(3))
				require.NoError(t, err)
				list = append(list, r)
			}
			clock.Advance(time.Hour)
			require.Equal(t, stand{3 * many, 0}, standOf(t, tracker, "team"))
			for i, r := range list {
				require.NoError(t, r.Commit(ctx, quota.Requests(1)))
				require.Equal(t, stand{3*many - 2*int64(i+1), 0}, standOf(t, tracker, "team"))
				require.ErrorIs(t, r.Commit(ctx, quota.Requests(1)), quota.ErrSettled)
			}
			require.Equal(t, standOf(t, tracker, "team"), standOf(t, tracker, "calls"))
		})
	}
}
