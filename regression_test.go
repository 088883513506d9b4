package quota_test

import (
	"bytes"
	"context"
	"log/slog"
	"math"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"example.com/quota"
	"example.com/quota/quotatest"
	"github.com/stretchr/testify/require"
)

func TestUsageThatCannotBeCountedAnyMoreIsLoggedOnce(t *testing.T) {
	var log bytes.Buffer
	tracker, err := quota.New(t.Context(), quota.Config{
		Persistence: quota.InMemory(), Quotas: []quota.Quota{{Name: "q"}}, Logger: slog.New(slog.NewTextHandler(&log, nil)),
	})
	require.NoError(t, err)
	for range 2 {
		require.NoError(t, tracker.RecordUsage(t.Context(), "q", quota.Tokens(math.MaxInt64)))
	}
	require.Equal(t, 1, strings.Count(log.String(), "more has been used than can be counted"))
	require.NoError(t, tracker.Close())
}

func TestAnAliasOfATemplateLeadsToTheQuotaThatBearsTheName(t *testing.T) {
	tracker, _ := quotatest.New(t,
		quota.Quota{Name: "user:*", Aliases: []string{"u:*"}, Limits: []quota.Limit{{Max: 5}}},
		quota.Quota{Name: "user:vip:*", Limits: []quota.Limit{{Max: 3}}},
		quota.Quota{Name: "boss", Aliases: []string{"user:ann"}, Limits: []quota.Limit{{Max: 1}}},
	)
	for name, most := range map[string]int64{"u:bob": 5, "u:vip:x": 3, "u:ann": 1} {
		require.True(t, tracker.CanUse(name, quota.Requests(most)), name)
		require.False(t, tracker.CanUse(name, quota.Requests(most+1)), name)
		_, err := tracker.Reserve(t.Context(), name, quota.Requests(most))
		require.NoError(t, err)
		_, err = tracker.Reserve(t.Context(), name)
		require.ErrorIs(t, err, quota.ErrExceeded, name)
	}
	_, err := tracker.Reserve(t.Context(), "u:"+strings.Repeat("x", 254))
	require.ErrorIs(t, err, quota.ErrUnknownQuota, "what the alias stands for would be too long for a name")
}

func TestOnAlertMaySetQuotasWhileSetQuotasRuns(t *testing.T) {
	var tracker *quota.QuotaTracker
	limits := func(most int64) []quota.Quota { return []quota.Quota{{Name: "q", Limits: []quota.Limit{{Max: most}}}} }
	calls := 0
	tracker, err := quota.New(t.Context(), quota.Config{
		Persistence: quota.InMemory(), Quotas: limits(1000),
		OnAlert: func(quota.Alert) {
			calls++
			_ = tracker.SetQuotas(context.Background(), limits(500))
		},
	})
	require.NoError(t, err)
	require.NoError(t, tracker.RecordUsage(t.Context(), "q", quota.Requests(100)))
	require.NoError(t, tracker.SetQuotas(t.Context(), limits(100)))
	require.Equal(t, 3, calls)
	require.True(t, tracker.CanUse("q", quota.Requests(400)))
	require.NoError(t, tracker.Close())
}

func TestAnAlertWhoseCallDidNotWaitForTheSaveIsDeliveredAfterIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store, alerts := &memory{gate: make(chan struct{})}, &firedAlerts{}
		tracker, err := quota.New(t.Context(), quota.Config{Persistence: store, OnAlert: alerts.add, Quotas: []quota.Quota{daily(10)}})
		require.NoError(t, err)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		require.ErrorIs(t, tracker.RecordUsage(ctx, "q", quota.Requests(5)), quota.ErrPending)
		require.Empty(t, alerts.thresholds())
		close(store.gate)
		synctest.Wait()
		require.Equal(t, []int{50}, alerts.thresholds())
		require.NoError(t, tracker.Close())
	})
}

func TestCloseInACallbackDoesNotRepeatItsAlert(t *testing.T) {
	store, clock := &memory{}, quotatest.NewClock(time.Date(2026, 1, 5, 12, 0, 0, 0, time.UTC))
	var ids []string
	open := func() (tracker *quota.QuotaTracker) {
		tracker, err := quota.New(t.Context(), quota.Config{
			Persistence: store, Clock: clock, Quotas: []quota.Quota{daily(10)},
			OnAlert: func(a quota.Alert) {
				ids = append(ids, a.ID)
				_ = tracker.Close()
			},
		})
		require.NoError(t, err)
		return tracker
	}
	_ = open().RecordUsage(t.Context(), "q", quota.Requests(5))
	require.Len(t, ids, 1)
	clock.Advance(time.Hour)
	next := open()
	require.NoError(t, next.RecordUsage(t.Context(), "q"))
	require.Len(t, ids, 1)
	require.NoError(t, next.Close())
}

func TestACallThatIsAdmittedCountsNoRefusal(t *testing.T) {
	tracker, _ := quotatest.New(t, quota.Quota{Name: "full", Limits: []quota.Limit{{}}}, quota.Quota{Name: "free"})
	_, err := tracker.ReserveAny(t.Context(), []string{"full", "free"})
	require.NoError(t, err)
	status, _ := tracker.Status("full")
	require.Zero(t, status.Today.Denied)
}

func TestAClosedTrackerAdmitsNothing(t *testing.T) {
	tracker, err := quota.New(t.Context(), quota.Config{Persistence: quota.InMemory()})
	require.NoError(t, err)
	require.NoError(t, tracker.Close())
	require.False(t, tracker.CanUse("gemini_cli"))
	require.ErrorIs(t, tracker.Check("gemini_cli").Err, quota.ErrClosed)
}

func TestACandidateMayComeTwiceWithOtherAmounts(t *testing.T) {
	tracker, _ := quotatest.New(t, quota.Quota{Name: "q", Limits: []quota.Limit{{Unit: quota.UnitTokens, Max: 50}}})
	r, err := tracker.Acquire(t.Context(), quota.Request{Any: []quota.Candidate{
		{Quota: "q", Amounts: []quota.Amount{quota.Tokens(100)}}, {Quota: "q", Amounts: []quota.Amount{quota.Tokens(10)}},
	}})
	require.NoError(t, err)
	require.Contains(t, r.Amounts(), quota.Tokens(10))
}

func TestALateCommitDoesNotSettleTheNextReservationWithItsID(t *testing.T) {
	tracker, clock := quotatest.New(t, quota.Quota{Name: "q"})
	request := quota.Request{All: []string{"q"}, ID: "task", TTL: time.Minute}
	first, err := tracker.Acquire(t.Context(), request)
	require.NoError(t, err)
	clock.Advance(time.Minute)
	second, err := tracker.Acquire(t.Context(), request)
	require.NoError(t, err)
	require.NoError(t, first.Commit(t.Context(), quota.Requests(1)))
	clock.Advance(time.Minute)
	third, err := tracker.Acquire(t.Context(), request)
	require.NoError(t, err, "the second has expired: it is admitted anew")
	require.NoError(t, third.Release(t.Context()))
	require.NoError(t, second.Commit(t.Context()))
}

func TestWaitEndsWhenItsQuotaIsTakenAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tracker, err := quota.New(t.Context(), quota.Config{Persistence: quota.InMemory(), Quotas: []quota.Quota{daily(0)}})
		require.NoError(t, err)
		require.NoError(t, tracker.SetQuotas(t.Context(), []quota.Quota{daily(1)}))
		mustReserve(t, tracker, "q")
		done := make(chan error, 1)
		go func() {
			_, err := tracker.Wait(t.Context(), "q")
			done <- err
		}()
		synctest.Wait()
		require.NoError(t, tracker.SetQuotas(t.Context(), []quota.Quota{{Name: "other"}}))
		require.ErrorIs(t, <-done, quota.ErrUnknownQuota)
		require.NoError(t, tracker.Close())
	})
}

func TestAnIDOpenInOneQuotaIsFoundThoughItWasSettledInAnother(t *testing.T) {
	tracker, clock := quotatest.New(t, quota.Quota{Name: "a", Limits: []quota.Limit{{Max: 1}}}, quota.Quota{Name: "b"})
	request := quota.Request{ID: "task", Any: []quota.Candidate{{Quota: "a"}, {Quota: "b"}}, TTL: time.Minute}
	first, err := tracker.Acquire(t.Context(), request)
	require.NoError(t, err)
	clock.Advance(time.Minute) // it expires, and its charge fills a
	second, err := tracker.Acquire(t.Context(), request)
	require.NoError(t, err)
	require.Equal(t, "b", second.Quota())
	require.NoError(t, first.Commit(t.Context()))
	again, err := tracker.Acquire(t.Context(), request)
	require.NoError(t, err)
	require.Equal(t, second.ID(), again.ID())
	require.Equal(t, "b", again.Quota())
	require.NoError(t, again.Release(t.Context()))
}

func TestARepeatedRequestWithOneQuotaTwiceAmongItsCandidatesGetsItsReservation(t *testing.T) {
	tracker, _ := quotatest.New(t, quota.Quota{Name: "q", Limits: []quota.Limit{{Unit: quota.UnitTokens, Max: 50}}})
	request := quota.Request{ID: "task", Any: []quota.Candidate{
		{Quota: "q", Amounts: []quota.Amount{quota.Tokens(100)}}, {Quota: "q", Amounts: []quota.Amount{quota.Tokens(10)}},
	}}
	r, err := tracker.Acquire(t.Context(), request)
	require.NoError(t, err)
	again, err := tracker.Acquire(t.Context(), request)
	require.NoError(t, err)
	require.Equal(t, r.Amounts(), again.Amounts())
	require.NoError(t, again.Release(t.Context()))
}

func TestAnIDStaysSettledForAsLongAsTheLongestOfItsReservationsAsks(t *testing.T) {
	tracker, clock := quotatest.New(t, quota.Quota{Name: "q"})
	request := quota.Request{All: []string{"q"}, ID: "task", TTL: time.Nanosecond}
	first, err := tracker.Acquire(t.Context(), request)
	require.NoError(t, err)
	clock.Advance(time.Second) // it has expired: the ID is admitted anew
	request.TTL = 30 * time.Hour
	second, err := tracker.Acquire(t.Context(), request)
	require.NoError(t, err)
	require.NoError(t, second.Release(t.Context()))
	require.NoError(t, first.Commit(t.Context()), "late")
	clock.Advance(2 * time.Hour)
	_, err = tracker.Acquire(t.Context(), request)
	require.ErrorIs(t, err, quota.ErrSettled)
}

func TestAReservationOfSeveralQuotasIsChargedOnceThroughWhicheverHandle(t *testing.T) {
	tracker, clock := quotatest.New(t, quota.Quota{Name: "a"}, quota.Quota{Name: "b"})
	made, err := tracker.ReserveAll(t.Context(), []string{"a", "b"}, quota.Tokens(5))
	require.NoError(t, err)
	found, err := tracker.Reservation(t.Context(), made.ID())
	require.NoError(t, err)
	require.NoError(t, found.Extend(t.Context(), 30*time.Hour))
	clock.Advance(29 * time.Hour)
	require.NoError(t, found.Commit(t.Context(), quota.Tokens(8)))
	require.ErrorIs(t, made.Commit(t.Context(), quota.Tokens(8)), quota.ErrSettled)
	for _, name := range []string{"a", "b"} {
		status, _ := tracker.Status(name)
		require.EqualValues(t, 8, status.Today.Used[quota.UnitTokens], name)
	}
}

func TestALateReservationIsChargedOnceAlsoWhenItsIDIsOpenAgain(t *testing.T) {
	tracker, clock := quotatest.New(t, quota.Quota{Name: "q", Limits: []quota.Limit{{Max: 100, Window: quota.Lifetime()}}})
	request := quota.Request{All: []string{"q"}, ID: "task", TTL: time.Minute}
	first, err := tracker.Acquire(t.Context(), request)
	require.NoError(t, err)
	same, err := tracker.Acquire(t.Context(), request)
	require.NoError(t, err)
	clock.Advance(time.Hour)
	request.TTL = 100 * time.Hour
	_, err = tracker.Acquire(t.Context(), request)
	require.NoError(t, err)
	clock.Advance(25 * time.Hour)
	require.NoError(t, first.Commit(t.Context(), quota.Tokens(7)))
	require.ErrorIs(t, same.Commit(t.Context(), quota.Tokens(7)), quota.ErrSettled)
	status, _ := tracker.Status("q")
	require.EqualValues(t, 7, status.Today.Used[quota.UnitTokens])
}

func TestResetLeavesNoPartOfAUnitThatWouldRefillEarly(t *testing.T) {
	tracker, clock := quotatest.New(t, quota.Quota{Name: "q", Limits: []quota.Limit{{Max: 4, Window: quota.Refill(time.Hour)}}})
	require.NoError(t, tracker.RecordUsage(t.Context(), "q", quota.Requests(4)))
	clock.Advance(15*time.Minute - time.Second) // nearly one has flowed back
	require.NoError(t, tracker.Reset(t.Context(), "q"))
	require.NoError(t, tracker.RecordUsage(t.Context(), "q", quota.Requests(4)))
	clock.Advance(time.Minute)
	require.False(t, tracker.CanUse("q"))
	clock.Advance(14 * time.Minute)
	require.True(t, tracker.CanUse("q"))
}

func TestWhatOnlyOneTrackerHasConfiguredStaysWhileItLooks(t *testing.T) {
	for name, one := range map[string]string{"a": "a", "a*": "a1"} {
		clock := quotatest.NewClock(morning)
		path := filepath.Join(t.TempDir(), "state.json")
		open := func(window quota.Window) *quota.QuotaTracker {
			return startOn(t, quota.NewJSONFile(path), withClock(clock),
				withQuotas(quota.Quota{Name: name, Limits: []quota.Limit{{Max: 100, Window: window}}}))
		}
		looks, records := open(quota.Lifetime()), open(quota.Daily(nil))
		require.NoError(t, looks.RecordUsage(t.Context(), one, quota.Requests(60)))
		left := int64(20)
		require.NoError(t, looks.Observe(t.Context(), one, quota.Observation{Window: quota.Lifetime(), Remaining: &left}))
		for day := range int64(6) {
			clock.Advance(24 * time.Hour)
			require.NoError(t, records.RecordUsage(t.Context(), one))
			require.Equal(t, stand{81 + day, 0}, standOf(t, looks, one), name)
		}
		require.NoError(t, looks.Close())
		require.NoError(t, records.Close())
	}
}

func TestWhatAStrangerSettlesAfterMidnightIsUsageOfItsDay(t *testing.T) {
	clock := quotatest.NewClock(time.Date(2027, 1, 15, 23, 50, 0, 0, time.UTC))
	file := quota.NewJSONFile(filepath.Join(t.TempDir(), "state.json"))
	requests := quota.Limit{Max: 10}
	open := func(quotas ...quota.Quota) *quota.QuotaTracker {
		return startOn(t, file, withClock(clock), withQuotas(quotas...))
	}
	tracker := open(quota.Quota{Name: "a", Limits: []quota.Limit{requests}})
	_, err := tracker.Acquire(t.Context(), quota.Request{All: []string{"a"}, ID: "short", TTL: 5 * time.Minute, Amounts: []quota.Amount{quota.Requests(8)}})
	require.NoError(t, err)
	_, err = tracker.Acquire(t.Context(), quota.Request{All: []string{"a"}, ID: "job", TTL: 3 * time.Hour, Amounts: []quota.Amount{quota.Tokens(900)}})
	require.NoError(t, err)
	require.NoError(t, tracker.Close())

	stranger := open(quota.Quota{Name: "other"})
	clock.Advance(time.Hour)
	r, err := stranger.Reservation(t.Context(), "job")
	require.NoError(t, err)
	require.NoError(t, r.Commit(t.Context(), quota.Tokens(900)))
	require.NoError(t, stranger.Close())

	tracker = open(quota.Quota{Name: "a", Limits: []quota.Limit{requests, {Unit: quota.UnitTokens, Max: 1000}}})
	require.Equal(t, stand{1, 0}, standOf(t, tracker, "a"), "what expired yesterday is yesterday's")
	_, err = tracker.Reserve(t.Context(), "a", quota.Tokens(900))
	require.ErrorIs(t, err, quota.ErrExceeded, "a new limit begins with what today has used")
}

func TestAClockInTheFirstSecondsOfTimeLosesNothing(t *testing.T) {
	file := quota.NewJSONFile(filepath.Join(t.TempDir(), "state.json"))
	clock := quotatest.NewClock(time.Unix(20, 0))
	rolling := withQuotas(quota.Quota{Name: "calls", Limits: []quota.Limit{{Max: 10, Window: quota.Rolling(time.Hour)}}})
	tracker := startOn(t, file, withClock(clock), rolling)
	require.NoError(t, tracker.RecordUsage(t.Context(), "calls", quota.Requests(7)))
	require.NoError(t, tracker.Close())
	require.Equal(t, stand{7, 0}, standOf(t, startOn(t, file, withClock(clock), rolling), "calls"))
}

func TestTokensThatCannotBeCountedWithTheirEstimateAreRefused(t *testing.T) {
	tracker, _ := quotatest.New(t, quota.Quota{Name: "q", Limits: []quota.Limit{
		{Unit: quota.UnitOutputTokens, Max: math.MaxInt64, Estimate: 2000, Window: quota.Lifetime()},
	}})
	_, err := tracker.Reserve(t.Context(), "q", quota.InputTokens(math.MaxInt64-1))
	require.ErrorIs(t, err, quota.ErrInvalidAmount)
}

func TestTokensThatOneHoldCoversAsATotalAreNotTakenFromAnotherToo(t *testing.T) {
	tracker, _ := quotatest.New(t, quota.Quota{Name: "q", Limits: []quota.Limit{{Unit: quota.UnitTokens, Max: 1000, Window: quota.Lifetime()}}})
	_, err := tracker.Reserve(t.Context(), "q", quota.Tokens(33))
	require.NoError(t, err)
	_, err = tracker.Reserve(t.Context(), "q", quota.Requests(5), quota.OutputTokens(50))
	require.NoError(t, err)
	require.NoError(t, tracker.RecordUsage(t.Context(), "q", quota.Requests(2), quota.OutputTokens(33)))
	status, _ := tracker.Status("q")
	require.EqualValues(t, 33, status.Limits[0].Used)
	require.EqualValues(t, 33, status.Today.Used[quota.UnitTokens])
}
