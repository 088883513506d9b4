package quota_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/quota"
	"example.com/quota/quotatest"
)

func TestReserveIsOneRequestUnlessItSaysOtherwise(t *testing.T) {
	tracker, _ := quotatest.New(t, quota.Quota{Name: "q", Limits: []quota.Limit{
		{Max: 10}, {Unit: quota.UnitTokens, Max: 1000},
	}})
	r := mustReserve(t, tracker, "q", quota.Tokens(100))
	require.ElementsMatch(t, []quota.Amount{quota.Requests(1), quota.Tokens(100)}, r.Amounts())
	mustReserve(t, tracker, "q", quota.Requests(0), quota.Tokens(5))
	mustReserve(t, tracker, "q", quota.Requests(3), quota.Requests(2))
	limits := statusOf(t, tracker, "q").Limits
	require.EqualValues(t, 6, limits[0].Reserved, "a unit named twice adds up")
	require.EqualValues(t, 105, limits[1].Reserved)
}

func TestTokensLimitCountsTokensOrInputPlusOutput(t *testing.T) {
	tracker, _ := quotatest.New(t, quota.Quota{Name: "q", Limits: []quota.Limit{
		{Unit: quota.UnitTokens, Max: 1000}, {Unit: quota.UnitInputTokens, Max: 600}, {Unit: quota.UnitOutputTokens, Max: 600},
	}})
	r := mustReserve(t, tracker, "q", quota.InputTokens(300), quota.OutputTokens(200))
	requireLimit(t, tracker, "q", 0, 500)
	require.False(t, tracker.CanUse("q", quota.Tokens(501)))
	require.True(t, tracker.CanUse("q", quota.Tokens(500)), "limits of units that are not named are not asked")
	require.NoError(t, r.Commit(t.Context(), quota.InputTokens(310), quota.OutputTokens(90)))
	limits := statusOf(t, tracker, "q").Limits
	require.Equal(t, []int64{400, 310, 90}, []int64{limits[0].Used, limits[1].Used, limits[2].Used})
	require.Equal(t, map[quota.Unit]int64{
		quota.UnitRequests: 1, quota.UnitTokens: 400, quota.UnitInputTokens: 310, quota.UnitOutputTokens: 90,
	}, statusOf(t, tracker, "q").Today.Used)
	require.Equal(t, map[quota.Unit]int64{quota.UnitRequests: 1}, statusOf(t, tracker, "q").Today.Estimated,
		"the request that Commit did not name is charged as held")
}

func TestInvalidAmountsChangeNothing(t *testing.T) {
	tracker, _ := quotatest.New(t, per(quota.Daily(nil), quota.UnitTokens, 1000))
	held := mustReserve(t, tracker, "q", quota.Tokens(100))
	const most = int64(1<<63 - 1)
	for name, amounts := range map[string][]quota.Amount{
		"negative":           {quota.Tokens(-1)},
		"not a number":       {quota.USD(nan())},
		"negative dollars":   {quota.USD(-0.01)},
		"too many dollars":   {quota.USD(1e7)},
		"overflow of a unit": {quota.Tokens(most), quota.Tokens(1)},
		"overflow of tokens": {quota.InputTokens(most), quota.OutputTokens(1)},
		"both forms":         {quota.Tokens(1), quota.InputTokens(1)},
		"empty unit":         {{Unit: "", N: 1}},
		"control character":  {{Unit: "a\nb", N: 1}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := tracker.Reserve(t.Context(), "q", amounts...)
			require.ErrorIs(t, err, quota.ErrInvalidAmount)
			_, err = tracker.Acquire(t.Context(), quota.Request{Any: []quota.Candidate{{Quota: "q", Amounts: amounts}}})
			require.ErrorIs(t, err, quota.ErrInvalidAmount)
			_, err = tracker.Wait(t.Context(), "q", amounts...)
			require.ErrorIs(t, err, quota.ErrInvalidAmount)
			require.ErrorIs(t, tracker.RecordUsage(t.Context(), "q", amounts...), quota.ErrInvalidAmount)
			require.ErrorIs(t, tracker.Release(t.Context(), "q", amounts...), quota.ErrInvalidAmount)
			require.ErrorIs(t, held.Commit(t.Context(), amounts...), quota.ErrInvalidAmount)
			require.ErrorIs(t, tracker.Check("q", amounts...).Err, quota.ErrInvalidAmount)
			require.False(t, tracker.CanUse("q", amounts...))
			requireLimit(t, tracker, "q", 0, 100)
			require.Zero(t, statusOf(t, tracker, "q").Today.Calls)
			require.Zero(t, statusOf(t, tracker, "q").Today.Denied)
		})
	}
	require.NoError(t, held.Commit(t.Context(), quota.Tokens(100)), "still open after refused commits")
}

func TestEstimateStandsInForAUnitTheCallDoesNotName(t *testing.T) {
	tracker, _ := quotatest.New(t, quota.Quota{Name: "q", Limits: []quota.Limit{
		{Unit: quota.UnitTokens, Max: 5000, Estimate: 2000}, {Unit: "images", Max: 1},
	}})
	mustReserve(t, tracker, "q")
	requireLimit(t, tracker, "q", 0, 2000)
	mustReserve(t, tracker, "q", quota.InputTokens(10))
	requireLimit(t, tracker, "q", 0, 2010)
	require.True(t, tracker.CanUse("q"))
	mustReserve(t, tracker, "q")
	require.False(t, tracker.CanUse("q"))
	require.True(t, tracker.CanUse("q", quota.Tokens(900)))
	require.Zero(t, statusOf(t, tracker, "q").Limits[1].Reserved, "a limit whose unit is not named is not asked")
	record(t, tracker, "q", quota.Tokens(0))
	require.Zero(t, limitOf(t, tracker, "q").Used, "an estimate is for admission, not for usage that is known")
}

func TestAdmissionIsAllOrNothingOverEveryLimitOfEveryQuota(t *testing.T) {
	tracker, _ := quotatest.New(t,
		quota.Quota{Name: "team", Aliases: []string{"t"}, Limits: []quota.Limit{{Max: 10}, {Unit: quota.UnitTokens, Max: 100}}},
		quota.Quota{Name: "user", Limits: []quota.Limit{{Max: 2}}})
	r, err := tracker.ReserveAll(t.Context(), []string{"team", "t", "user"}, quota.Tokens(60))
	require.NoError(t, err)
	require.Equal(t, []string{"team", "user"}, r.Quotas())
	require.Equal(t, "team", r.Quota())
	requireLimit(t, tracker, "team", 0, 1)
	requireLimit(t, tracker, "user", 0, 1)
	_, err = tracker.ReserveAll(t.Context(), []string{"user", "team"}, quota.Tokens(60))
	require.Equal(t, "team", refusal(t, err).Quota)
	require.Equal(t, quota.UnitTokens, refusal(t, err).Limit.Unit)
	requireLimit(t, tracker, "team", 0, 1)
	requireLimit(t, tracker, "user", 0, 1)
	require.EqualValues(t, 1, statusOf(t, tracker, "team").Today.Denied)
	require.Equal(t, map[string]int64{"tokens per day": 1}, statusOf(t, tracker, "team").Today.DeniedBy)
	require.Zero(t, statusOf(t, tracker, "user").Today.Denied)
	require.NoError(t, r.Commit(t.Context(), quota.Tokens(50)))
	requireLimit(t, tracker, "team", 1, 0)
	requireLimit(t, tracker, "user", 1, 0)
	require.EqualValues(t, 50, statusOf(t, tracker, "user").Today.Used[quota.UnitTokens], "counted, limited or not")
}

func TestRefusalNamesTheLimitThatBindsLongest(t *testing.T) {
	tracker, _ := quotatest.New(t, quota.Quota{Name: "q", Limits: []quota.Limit{
		{Max: 2, Window: quota.Every(time.Minute)}, {Max: 2, Window: quota.Daily(nil)}, {Max: 2, Window: quota.Every(time.Hour)},
	}})
	record(t, tracker, "q", quota.Requests(2))
	_, err := tracker.Reserve(t.Context(), "q")
	e := refusal(t, err)
	require.Equal(t, "requests per day", e.Limit.String())
	require.Equal(t, monday.AddDate(0, 0, 1), e.RetryAt)
	require.EqualValues(t, 1, e.Requested)
	require.EqualValues(t, 2, e.Limit.Used)
	require.False(t, e.Never)
	require.ErrorContains(t, err, "requests per day")
	_, err = tracker.Reserve(t.Context(), "q", quota.Requests(3))
	require.True(t, refusal(t, err).Never)
	require.Zero(t, refusal(t, err).RetryAt)
}

func TestRetryAtCountsTheHoldsThatCarryOver(t *testing.T) {
	tracker, _ := quotatest.New(t, daily(10))
	record(t, tracker, "q", quota.Requests(5))
	mustReserve(t, tracker, "q", quota.Requests(4))
	_, err := tracker.Reserve(t.Context(), "q", quota.Requests(6))
	require.Equal(t, monday.AddDate(0, 0, 1), refusal(t, err).RetryAt)
	_, err = tracker.Reserve(t.Context(), "q", quota.Requests(7))
	require.Zero(t, refusal(t, err).RetryAt, "the holds that carry over would still be in the way")
	_, err = tracker.Reserve(t.Context(), "q", quota.Requests(3))
	require.Zero(t, refusal(t, err).RetryAt, "only open holds are in the way")
}

func TestAnyTakesTheFirstThatAdmitsWithItsOwnAmounts(t *testing.T) {
	tracker, _ := quotatest.New(t,
		quota.Quota{Name: "cheap", Aliases: []string{"c"}, Limits: []quota.Limit{{Unit: quota.UnitTokens, Max: 100}}},
		quota.Quota{Name: "dear", Limits: []quota.Limit{{Unit: quota.UnitUSD, Max: 5 * quota.Dollar}}})
	request := quota.Request{Any: []quota.Candidate{
		{Quota: "c", Amounts: []quota.Amount{quota.Tokens(80)}}, {Quota: "dear", Amounts: []quota.Amount{quota.USD(3)}},
	}}
	first, err := tracker.Acquire(t.Context(), request)
	require.NoError(t, err)
	require.Equal(t, "c", first.Quota(), "the name the caller used")
	require.Equal(t, []string{"cheap"}, first.Quotas())
	second, err := tracker.Acquire(t.Context(), request)
	require.NoError(t, err)
	require.Equal(t, "dear", second.Quota())
	require.Contains(t, second.Amounts(), quota.PicoUSD(3*quota.Dollar))
	requireLimit(t, tracker, "cheap", 0, 80)
	_, err = tracker.Acquire(t.Context(), request)
	require.ErrorIs(t, err, quota.ErrExceeded)
}

func TestAllOfAnyRefusedGivesTheSoonestRetryAndAllRefusals(t *testing.T) {
	tracker, clock := quotatest.New(t,
		quota.Quota{Name: "never", Limits: []quota.Limit{{Max: 0}}},
		quota.Quota{Name: "day", Limits: []quota.Limit{{Max: 1}}},
		quota.Quota{Name: "minute", Limits: []quota.Limit{{Max: 1, Window: quota.Every(time.Minute)}}})
	clock.Advance(30 * time.Second)
	record(t, tracker, "day")
	record(t, tracker, "minute")
	_, err := tracker.ReserveAny(t.Context(), []string{"never", "day", "minute"})
	e := refusal(t, err)
	require.Equal(t, "minute", e.Quota)
	require.Equal(t, monday.Add(time.Minute), e.RetryAt)
	var names []string
	for _, one := range e.Unwrap() {
		names = append(names, refusal(t, one).Quota)
	}
	require.Equal(t, []string{"never", "day", "minute"}, names)
}

func TestAllThenAnyHoldsBoth(t *testing.T) {
	tracker, _ := quotatest.New(t,
		quota.Quota{Name: "budget", Limits: []quota.Limit{{Max: 2}}},
		quota.Quota{Name: "a", Limits: []quota.Limit{{Max: 1}}},
		quota.Quota{Name: "b", Limits: []quota.Limit{{Max: 1}}})
	request := quota.Request{All: []string{"budget"}, Any: []quota.Candidate{{Quota: "a"}, {Quota: "b"}}}
	first, err := tracker.Acquire(t.Context(), request)
	require.NoError(t, err)
	require.Equal(t, "a", first.Quota())
	require.Equal(t, []string{"a", "budget"}, first.Quotas())
	second, err := tracker.Acquire(t.Context(), request)
	require.NoError(t, err)
	require.Equal(t, "b", second.Quota())
	require.NoError(t, first.Release(t.Context()))
	record(t, tracker, "a")
	_, err = tracker.Acquire(t.Context(), request)
	require.ErrorIs(t, err, quota.ErrExceeded)
	requireLimit(t, tracker, "budget", 0, 1)
	_, err = tracker.Acquire(t.Context(), quota.Request{})
	require.ErrorIs(t, err, quota.ErrInvalidRequest)
	_, err = tracker.ReserveAny(t.Context(), nil)
	require.ErrorIs(t, err, quota.ErrInvalidRequest)
	_, err = tracker.Acquire(t.Context(), quota.Request{All: []string{"a"}, TTL: -1})
	require.ErrorIs(t, err, quota.ErrInvalidRequest)
	_, err = tracker.Acquire(t.Context(), quota.Request{All: []string{"a"}, ID: "a\x00"})
	require.ErrorIs(t, err, quota.ErrInvalidRequest)
}

func TestCommitReplacesTheHoldByLessOrMore(t *testing.T) {
	tracker, _ := quotatest.New(t, per(quota.Daily(nil), quota.UnitTokens, 1000))
	less := mustReserve(t, tracker, "q", quota.Tokens(400))
	more := mustReserve(t, tracker, "q", quota.Tokens(400))
	require.NoError(t, less.Commit(t.Context(), quota.Tokens(100)))
	requireLimit(t, tracker, "q", 100, 400)
	require.NoError(t, more.Commit(t.Context(), quota.Tokens(1500)))
	requireLimit(t, tracker, "q", 1600, 0)
	require.False(t, tracker.CanUse("q", quota.Tokens(1)), "usage beyond the limit blocks new admissions")
	require.Zero(t, limitOf(t, tracker, "q").Remaining)
	require.EqualValues(t, 2, statusOf(t, tracker, "q").Today.Calls)
}

func TestCommitWithoutAmountsChargesWhatWasHeldAsEstimated(t *testing.T) {
	tracker, _ := quotatest.New(t, per(quota.Daily(nil), quota.UnitTokens, 1000))
	func() {
		r := mustReserve(t, tracker, "q", quota.InputTokens(300), quota.OutputTokens(100))
		defer func() { require.NoError(t, r.Commit(t.Context())) }()
	}()
	requireLimit(t, tracker, "q", 400, 0)
	today := statusOf(t, tracker, "q").Today
	require.Equal(t, today.Used, today.Estimated)
	require.EqualValues(t, 400, today.Estimated[quota.UnitTokens])
}

func TestNamingAnyFormOfTokensNamesTokens(t *testing.T) {
	tracker, _ := quotatest.New(t, per(quota.Daily(nil), quota.UnitTokens, 1000))
	r := mustReserve(t, tracker, "q", quota.Tokens(400))
	require.NoError(t, r.Commit(t.Context(), quota.Requests(1), quota.OutputTokens(30)))
	requireLimit(t, tracker, "q", 30, 0)
	require.Empty(t, statusOf(t, tracker, "q").Today.Estimated)
}

func TestReservationIsSettledOnce(t *testing.T) {
	tracker, _ := quotatest.New(t, daily(10))
	committed := mustReserve(t, tracker, "q")
	require.NoError(t, committed.Commit(t.Context()))
	released := mustReserve(t, tracker, "q")
	require.NoError(t, released.Release(t.Context()))
	for _, r := range []*quota.Reservation{committed, released} {
		require.ErrorIs(t, r.Commit(t.Context(), quota.Requests(5)), quota.ErrSettled)
		require.ErrorIs(t, r.Commit(t.Context()), quota.ErrSettled)
		require.ErrorIs(t, r.Release(t.Context()), quota.ErrSettled)
		require.ErrorIs(t, r.Extend(t.Context(), time.Hour), quota.ErrSettled)
	}
	requireLimit(t, tracker, "q", 1, 0)
	require.EqualValues(t, 1, statusOf(t, tracker, "q").Today.Calls)
}

func TestSettlingTakesEffectAfterTheContextIsDone(t *testing.T) {
	tracker, _ := quotatest.New(t, daily(10))
	committed, released, extended := mustReserve(t, tracker, "q"), mustReserve(t, tracker, "q"), mustReserve(t, tracker, "q")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_ = committed.Commit(ctx, quota.Requests(2))
	_ = released.Release(ctx)
	_ = extended.Extend(ctx, time.Hour)
	_ = tracker.RecordUsage(ctx, "q", quota.Requests(0))
	requireLimit(t, tracker, "q", 2, 1)
	require.Equal(t, monday.Add(time.Hour), extended.ExpiresAt())
	_, err := tracker.Reserve(ctx, "q")
	require.ErrorIs(t, err, context.Canceled)
	requireLimit(t, tracker, "q", 2, 1)
}

func TestContextBoundsTheWaitForDurabilityAlone(t *testing.T) {
	kept := &memory{}
	tracker := start(t, quota.Config{Persistence: kept, Quotas: []quota.Quota{daily(10)}})
	r := mustReserve(t, tracker, "q", quota.Requests(2))
	unblock := kept.block()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	err := r.Commit(ctx, quota.Requests(3))
	require.ErrorIs(t, err, context.Canceled)
	require.ErrorIs(t, err, quota.ErrPending)
	requireLimit(t, tracker, "q", 3, 0)
	require.ErrorIs(t, r.Commit(t.Context()), quota.ErrSettled)
	err = tracker.RecordUsage(ctx, "q")
	require.ErrorIs(t, err, quota.ErrPending)
	unblock()
	require.NoError(t, tracker.Flush(t.Context()))
	again := start(t, quota.Config{Persistence: kept, Quotas: []quota.Quota{daily(10)}})
	requireLimit(t, again, "q", 4, 0)
}

func TestReserveWhoseContextEndsDuringTheSaveHoldsNothing(t *testing.T) {
	kept := &memory{}
	unblock := kept.block()
	tracker := start(t, quota.Config{Persistence: kept, Quotas: []quota.Quota{daily(10)}})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() {
		_, err := tracker.Reserve(ctx, "q", quota.Requests(10))
		ended <- err
	}()
	<-kept.came
	requireLimit(t, tracker, "q", 0, 10)
	cancel()
	require.ErrorIs(t, <-ended, context.Canceled)
	requireLimit(t, tracker, "q", 0, 0)
	unblock()
	mustReserve(t, tracker, "q", quota.Requests(10))
}

func TestReserveThatCannotBeSavedHoldsNothingAndUsageIsKept(t *testing.T) {
	kept := &memory{}
	tracker := start(t, quota.Config{Persistence: kept, Quotas: []quota.Quota{daily(10)}})
	r := mustReserve(t, tracker, "q")
	kept.fail(errDiskFull)
	_, err := tracker.Reserve(t.Context(), "q")
	require.ErrorIs(t, err, quota.ErrNotSaved)
	require.ErrorIs(t, err, errDiskFull)
	requireLimit(t, tracker, "q", 0, 1)
	err = tracker.RecordUsage(t.Context(), "q", quota.Requests(0))
	require.ErrorIs(t, err, quota.ErrNotSaved)
	require.ErrorIs(t, err, quota.ErrPending)
	err = r.Commit(t.Context(), quota.Requests(4))
	require.ErrorIs(t, err, quota.ErrPending)
	requireLimit(t, tracker, "q", 4, 0)
	require.ErrorIs(t, tracker.Flush(t.Context()), quota.ErrNotSaved)
	kept.fail(nil)
	record(t, tracker, "q")
	require.NoError(t, tracker.Close())
	again := start(t, quota.Config{Persistence: kept, Quotas: []quota.Quota{daily(10)}})
	requireLimit(t, again, "q", 5, 0)
}
