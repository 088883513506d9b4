package quota_test

import (
	"encoding/json"
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/quota"
	"example.com/quota/quotatest"
)

func TestDecisionIsWhatReserveWouldReturn(t *testing.T) {
	tracker, _ := quotatest.New(t, quota.Quota{Name: "q", Limits: []quota.Limit{
		{Max: 10}, {Unit: quota.UnitTokens, Max: 1000, Window: quota.Every(time.Minute)}, {Unit: quota.UnitUSD, Max: 0, Soft: true},
	}})
	record(t, tracker, "q", quota.Requests(4), quota.Tokens(900))
	decision := tracker.Check("q", quota.Tokens(100))
	require.True(t, decision.Allowed)
	require.NoError(t, decision.Err)
	require.Equal(t, quota.UnitTokens, decision.Limit.Unit, "the tightest one")
	for name, amounts := range map[string][]quota.Amount{
		"a full minute": {quota.Tokens(101)},
		"a full day":    {quota.Requests(7), quota.Tokens(500)},
		"never":         {quota.Tokens(1001)},
		"invalid":       {quota.Tokens(-1)},
	} {
		decision := tracker.Check("q", amounts...)
		require.False(t, decision.Allowed, name)
		require.False(t, tracker.CanUse("q", amounts...), name)
		_, err := tracker.Reserve(t.Context(), "q", amounts...)
		require.Error(t, err, name)
		require.Equal(t, err.Error(), decision.Err.Error(), name)
		if name == "invalid" {
			continue
		}
		exceeded := refusal(t, err)
		require.Equal(t, exceeded, refusal(t, decision.Err), name)
		require.Equal(t, exceeded.Limit, decision.Limit, name)
		require.Equal(t, exceeded.RetryAt, decision.RetryAt, name)
		require.Equal(t, exceeded.Never, decision.Never, name)
		require.Equal(t, name == "never", decision.Never, name)
		require.NotEmpty(t, exceeded.Reason, name)
	}
	require.EqualValues(t, 3, statusOf(t, tracker, "q").Today.Denied, "asking counts none")
}

func TestAskingChangesNothing(t *testing.T) {
	kept := &memory{}
	tracker := start(t, quota.Config{Persistence: kept, Quotas: []quota.Quota{daily(10)}})
	record(t, tracker, "q", quota.Requests(10))
	before := kept.saves
	for range 5 {
		require.False(t, tracker.CanUse("q"))
		require.False(t, tracker.Check("q").Allowed)
		_ = tracker.Summary()
		_ = tracker.History("q")
	}
	require.NoError(t, tracker.Flush(t.Context()))
	require.Equal(t, before, kept.saves)
	require.Zero(t, statusOf(t, tracker, "q").Today.Denied)
}

func TestUnlimitedQuotaIsCounted(t *testing.T) {
	tracker, _ := quotatest.New(t)
	decision := tracker.Check("claude_code", quota.Tokens(1<<40))
	require.True(t, decision.Allowed)
	require.Zero(t, decision.Limit)
	r := mustReserve(t, tracker, "claude_code", quota.Tokens(500))
	require.NoError(t, r.Commit(t.Context(), quota.InputTokens(300), quota.OutputTokens(100), quota.USD(0.25), quota.Amount{Unit: "images", N: 2}))
	status := statusOf(t, tracker, "claude_code")
	require.Empty(t, status.Limits)
	require.Equal(t, map[quota.Unit]int64{
		quota.UnitRequests: 1, quota.UnitTokens: 400, quota.UnitInputTokens: 300, quota.UnitOutputTokens: 100,
		quota.UnitUSD: quota.Dollar / 4, "images": 2,
	}, status.Today.Used)
	require.Equal(t, map[quota.Unit]int64{quota.UnitRequests: 1, quota.UnitTokens: 500}, status.Today.PeakReserved)
}

func TestStatusShowsEveryLimitInConfiguredOrder(t *testing.T) {
	tracker, _ := quotatest.New(t, quota.Quota{Name: "q", Limits: []quota.Limit{
		{Unit: quota.UnitTokens, Max: 1000, Window: quota.Rolling(time.Hour)}, {Max: 0}, {Max: 8, Window: quota.Weekly(nil, time.Monday)},
		{Max: 2, Window: quota.InFlight()}, {Unit: quota.UnitUSD, Max: 5 * quota.Dollar, Window: quota.Lifetime(), Soft: true},
	}})
	require.Zero(t, statusOf(t, tracker, "q").Limits[1].Percent)
	record(t, tracker, "q", quota.Requests(4), quota.Tokens(1500))
	limits := statusOf(t, tracker, "q").Limits
	texts := []string{}
	for _, limit := range limits {
		texts = append(texts, limit.String())
	}
	require.Equal(t, []string{"tokens per rolling 1h0m0s", "requests per day", "requests per week from Monday", "requests in flight",
		"usd per lifetime"}, texts)
	require.Zero(t, limits[0].ResetsAt)
	require.Zero(t, limits[0].Remaining, "not below 0")
	require.InDelta(t, 150, limits[0].Percent, 0)
	require.InDelta(t, 100, limits[1].Percent, 0, "of a Max of 0")
	require.InDelta(t, 50, limits[2].Percent, 0)
	require.Equal(t, monday.AddDate(0, 0, 7), limits[2].ResetsAt)
	require.Zero(t, limits[4].ResetsAt)
	require.True(t, limits[4].Soft)
}

func TestForecastDrawsAStraightLineInsideTheWindow(t *testing.T) {
	tracker, clock := quotatest.New(t, daily(100))
	record(t, tracker, "q", quota.Requests(10))
	require.Zero(t, limitOf(t, tracker, "q").ExhaustsAt, "too little data")
	clock.Advance(6 * time.Hour)
	require.Zero(t, limitOf(t, tracker, "q").ExhaustsAt, "not at this pace")
	record(t, tracker, "q", quota.Requests(40))
	require.Equal(t, monday.Add(12*time.Hour), limitOf(t, tracker, "q").ExhaustsAt)
	record(t, tracker, "q", quota.Requests(50))
	require.Zero(t, limitOf(t, tracker, "q").ExhaustsAt, "it is exhausted")
}

func TestDaySummaryCountsCallsDenialsExpiriesAndPeaks(t *testing.T) {
	tracker, clock := quotatest.New(t, daily(10))
	first, second := mustReserve(t, tracker, "q", quota.Requests(4)), mustReserve(t, tracker, "q", quota.Requests(5))
	require.NoError(t, first.Commit(t.Context()))
	require.NoError(t, second.Release(t.Context()))
	record(t, tracker, "q", quota.Requests(2))
	for range 3 {
		_, err := tracker.Reserve(t.Context(), "q", quota.Requests(9))
		require.ErrorIs(t, err, quota.ErrExceeded)
	}
	mustReserve(t, tracker, "q")
	clock.Advance(15 * time.Minute)
	today := statusOf(t, tracker, "q").Today
	require.Equal(t, "q", today.Quota)
	require.Equal(t, monday, today.Day)
	require.Equal(t, map[quota.Unit]int64{quota.UnitRequests: 7}, today.Used)
	require.Equal(t, map[quota.Unit]int64{quota.UnitRequests: 5}, today.Estimated)
	require.Equal(t, map[quota.Unit]int64{quota.UnitRequests: 9}, today.PeakReserved)
	require.Equal(t, map[string]int64{"requests per day": 3}, today.DeniedBy)
	require.Equal(t, [3]int64{2, 3, 1}, [3]int64{today.Calls, today.Denied, today.Expired})
	require.Equal(t, []string{"50% of requests per day"}, today.Alerts)
	clock.Advance(24 * time.Hour)
	yesterday := tracker.History("q")
	require.Equal(t, []quota.DaySummary{today}, yesterday)
	require.Equal(t, monday.AddDate(0, 0, 1), statusOf(t, tracker, "q").Today.Day)
	yesterday[0].Used[quota.UnitRequests] = 0
	require.EqualValues(t, 7, tracker.History("q")[0].Used[quota.UnitRequests], "what History returns belongs to the caller")
}

func TestHistoryKeepsNinetyDaysOldestFirst(t *testing.T) {
	kept, clock := &memory{}, quotatest.NewClock(monday)
	cfg := quota.Config{Persistence: kept, Clock: clock, Quotas: []quota.Quota{daily(10)}}
	tracker := start(t, cfg)
	for i := range 100 {
		record(t, tracker, "q", quota.Requests(int64(i)))
		clock.Advance(24 * time.Hour)
		if i == 50 {
			require.NoError(t, tracker.Close())
			tracker = start(t, cfg)
		}
	}
	days := tracker.History("q")
	require.Len(t, days, 90)
	for i, day := range days {
		require.Equal(t, monday.AddDate(0, 0, i+10), day.Day)
		require.EqualValues(t, i+10, day.Used[quota.UnitRequests])
	}
}

func TestDaysBeginInTheConfiguredLocation(t *testing.T) {
	loc, err := time.LoadLocation("America/Los_Angeles")
	require.NoError(t, err)
	clock := quotatest.NewClock(time.Date(2026, time.March, 7, 12, 0, 0, 0, loc))
	tracker := start(t, quota.Config{Clock: clock, Location: loc, Quotas: []quota.Quota{daily(10), {Name: "own", Limits: []quota.Limit{{Max: 5}}}}})
	record(t, tracker, "own", quota.Requests(5))
	limit := limitOf(t, tracker, "own")
	require.Equal(t, "requests per day in America/Los_Angeles", limit.String())
	require.True(t, limit.ResetsAt.Equal(time.Date(2026, time.March, 8, 0, 0, 0, 0, loc)))
	clock.Set(time.Date(2026, time.March, 8, 0, 0, 0, 0, loc))
	requireLimit(t, tracker, "own", 0, 0)
	require.Equal(t, 23*time.Hour, limitOf(t, tracker, "own").ResetsAt.Sub(clock.Now()), "the day on which summer begins")
	require.True(t, tracker.History("own")[0].Day.Equal(time.Date(2026, time.March, 7, 0, 0, 0, 0, loc)))
}

func TestSummaryListsQuotasByNameOnce(t *testing.T) {
	tracker, clock := quotatest.New(t)
	clock.Advance(time.Hour)
	names := []string{}
	for _, status := range tracker.Summary().Quotas {
		names = append(names, status.Name)
	}
	require.Equal(t, []string{"chatgpt_plus", "claude_api", "claude_code", "gemini_api_free", "gemini_cli", "openai_api"}, names)
	require.Len(t, tracker.Summary("gemini", "gemini_cli", "nobody").Quotas, 1)
	require.Equal(t, monday.Add(time.Hour), tracker.Summary().At)
	data, err := json.Marshal(tracker.Summary("gemini"))
	require.NoError(t, err)
	for _, key := range []string{`"used"`, `"remaining"`, `"percent"`, `"resets_at"`, `"today"`, `"reservations"`} {
		require.Contains(t, string(data), key)
	}
}

func TestNumbersStayExactAtTheEdges(t *testing.T) {
	tracker, _ := quotatest.New(t, per(quota.Lifetime(), quota.UnitTokens, math.MaxInt64))
	mustReserve(t, tracker, "q", quota.Tokens(math.MaxInt64))
	require.False(t, tracker.CanUse("q", quota.Tokens(1)))
	require.NoError(t, tracker.Release(t.Context(), "q", quota.Tokens(math.MaxInt64), quota.Requests(1)))
	record(t, tracker, "q", quota.Tokens(math.MaxInt64-1))
	require.True(t, tracker.CanUse("q", quota.Tokens(1)))
	require.False(t, tracker.CanUse("q", quota.Tokens(2)))
	record(t, tracker, "q", quota.Tokens(5))
	require.Equal(t, fmt.Sprint(int64(math.MaxInt64)), fmt.Sprint(limitOf(t, tracker, "q").Used))
}

func TestCanUseSaysWhatCheckAndReserveSay(t *testing.T) {
	kept, clock := &memory{}, noon()
	tracker := start(t, quota.Config{Persistence: kept, Clock: clock, FlushInterval: time.Minute, Quotas: []quota.Quota{daily(10), {Name: "free"}}})
	same := func(admitted bool, name string, amounts ...quota.Amount) {
		t.Helper()
		d := tracker.Check(name, amounts...)
		r, err := tracker.Reserve(t.Context(), name, amounts...)
		require.Equal(t, admitted, err == nil)
		require.Equal(t, admitted, d.Allowed)
		require.Equal(t, admitted, tracker.CanUse(name, amounts...))
		if !admitted {
			require.Equal(t, err.Error(), d.Err.Error())
			return
		}
		require.NoError(t, r.Release(t.Context()))
	}
	same(true, "q")
	same(false, "q", quota.Requests(11))
	same(false, "typo", quota.Tokens(-1)) // the name is looked up first
	same(false, "q", quota.Tokens(-1))
	mustReserve(t, tracker, "free", quota.Amount{Unit: "pages", N: math.MaxInt64})
	same(false, "free", quota.Amount{Unit: "pages", N: 1})
	kept.fail(errDiskFull)
	record(t, tracker, "q")
	require.Error(t, tracker.Flush(t.Context()))
	same(false, "q")
	kept.fail(nil)
	require.NoError(t, tracker.Flush(t.Context()))
	same(true, "q")
}
