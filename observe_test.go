package quota_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/quota"
	"example.com/quota/quotatest"
)

func ptr(n int64) *int64 { return &n }

func TestObservedRemainingRaisesUsedAndNeverLowersIt(t *testing.T) {
	tracker, _, alerts := alerting(t, quota.Quota{Name: "q", Aliases: []string{"alias"}, Limits: []quota.Limit{{Max: 100}}})
	record(t, tracker, "q", quota.Requests(10))
	require.NoError(t, tracker.Observe(t.Context(), "q", quota.Observation{Remaining: ptr(95)}))
	requireLimit(t, tracker, "q", 10, 0)
	require.NoError(t, tracker.Observe(t.Context(), "alias", quota.Observation{Remaining: ptr(40), Limit: ptr(100)}))
	requireLimit(t, tracker, "q", 60, 0)
	require.Equal(t, []int{50}, alerts.thresholds())
	require.NoError(t, tracker.Observe(t.Context(), "q", quota.Observation{Unit: quota.UnitRequests, Remaining: ptr(90)}))
	requireLimit(t, tracker, "q", 60, 0)
	require.EqualValues(t, 10, statusOf(t, tracker, "q").Today.Used[quota.UnitRequests], "it is no usage in the day's summary")
	require.EqualValues(t, 1, statusOf(t, tracker, "q").Today.Calls)
}

func TestWhatIsGivenBackLateOpensNoMoreRoomThanTheProviderHasReported(t *testing.T) {
	for _, window := range []quota.Window{
		quota.Daily(nil), quota.Every(24 * time.Hour), quota.Rolling(5 * time.Hour), quota.Session(5 * time.Hour),
	} {
		for name, settle := range map[string]func(r *quota.Reservation) error{
			"released":  func(r *quota.Reservation) error { return r.Release(t.Context()) },
			"committed": func(r *quota.Reservation) error { return r.Commit(t.Context(), quota.Requests(1)) },
		} {
			for _, remaining := range []int64{50, 90} { // more than was known, and as much
				tracker, clock := quotatest.New(t, quota.Quota{Name: "q", Limits: []quota.Limit{{Max: 100, Window: window}}})
				r := mustReserve(t, tracker, "q", quota.Requests(10))
				clock.Advance(16 * time.Minute)
				require.NoError(t, tracker.Observe(t.Context(), "q", quota.Observation{Remaining: ptr(remaining)}))
				require.NoError(t, settle(r))
				require.LessOrEqual(t, limitOf(t, tracker, "q").Remaining, remaining, "%v, %s", window, name)
			}
		}
	}
}

func TestObservedRoomIsBeforeOpenHolds(t *testing.T) {
	tracker, _ := quotatest.New(t, daily(100))
	r := mustReserve(t, tracker, "q", quota.Requests(20))
	require.NoError(t, tracker.Observe(t.Context(), "q", quota.Observation{Remaining: ptr(30)}))
	requireLimit(t, tracker, "q", 70, 20)
	require.EqualValues(t, 10, limitOf(t, tracker, "q").Remaining)
	require.False(t, tracker.CanUse("q", quota.Requests(11)))
	require.NoError(t, r.Release(t.Context()))
	requireLimit(t, tracker, "q", 70, 0)
}

func TestObservationIsOfOneWindowOrOfEveryLimitOfItsUnit(t *testing.T) {
	windows := []quota.Window{quota.Every(time.Minute), quota.Daily(nil), quota.Rolling(time.Hour), quota.Refill(time.Hour), quota.Lifetime()}
	q := quota.Quota{Name: "q", Limits: []quota.Limit{{Unit: quota.UnitTokens, Max: 100}, {Max: 100, Window: quota.InFlight()}}}
	for _, window := range windows {
		q.Limits = append(q.Limits, quota.Limit{Max: 100, Window: window})
	}
	tracker, clock := quotatest.New(t, q)
	require.NoError(t, tracker.Observe(t.Context(), "q", quota.Observation{Window: quota.Every(time.Minute), Remaining: ptr(90)}))
	used := func() (list []int64) {
		for _, limit := range statusOf(t, tracker, "q").Limits {
			list = append(list, limit.Used)
		}
		return list
	}
	require.Equal(t, []int64{0, 0, 10, 0, 0, 0, 0}, used())
	require.NoError(t, tracker.Observe(t.Context(), "q", quota.Observation{Remaining: ptr(80)}))
	require.Equal(t, []int64{0, 0, 20, 20, 20, 20, 20}, used())
	require.NoError(t, tracker.Observe(t.Context(), "q", quota.Observation{Unit: quota.UnitTokens, Remaining: ptr(70)}))
	require.NoError(t, tracker.Observe(t.Context(), "q", quota.Observation{Unit: "images", Remaining: ptr(0)}), "a unit without a limit is ignored")
	require.Equal(t, []int64{30, 0, 20, 20, 20, 20, 20}, used())
	clock.Advance(time.Minute)
	require.EqualValues(t, 0, used()[2], "the next window is fresh")
	require.EqualValues(t, 20, used()[3])
}

func TestRetryAfterClosesTheQuotaAndOnlyEverLengthens(t *testing.T) {
	kept, clock := &memory{}, quotatest.NewClock(monday)
	cfg := quota.Config{Persistence: kept, Clock: clock, Quotas: []quota.Quota{{Name: "q"}}}
	tracker := start(t, cfg)
	require.NoError(t, tracker.Observe(t.Context(), "q", quota.Observation{RetryAfter: time.Minute}))
	require.NoError(t, tracker.Observe(t.Context(), "q", quota.Observation{RetryAfter: time.Second}))
	require.Equal(t, monday.Add(time.Minute), statusOf(t, tracker, "q").ClosedUntil)
	_, err := tracker.Reserve(t.Context(), "q")
	require.Equal(t, monday.Add(time.Minute), refusal(t, err).RetryAt)
	require.Zero(t, refusal(t, err).Limit)
	require.EqualValues(t, 1, statusOf(t, tracker, "q").Today.Denied)
	record(t, tracker, "q")
	require.NoError(t, tracker.Close())
	again := start(t, cfg)
	require.False(t, again.CanUse("q"))
	clock.Advance(time.Minute)
	require.True(t, again.CanUse("q"))
	require.Zero(t, statusOf(t, again, "q").ClosedUntil)
}

func TestObservationThatIsWrongChangesNothing(t *testing.T) {
	tracker, _ := quotatest.New(t, daily(100))
	for name, o := range map[string]quota.Observation{
		"remaining":   {Remaining: ptr(-1)},
		"limit":       {Limit: ptr(-1)},
		"retry after": {RetryAfter: -1},
		"unit":        {Unit: "a\nb", Remaining: ptr(1)},
		"window":      {Window: quota.Every(-1), Remaining: ptr(1)},
	} {
		require.ErrorIs(t, tracker.Observe(t.Context(), "q", o), quota.ErrInvalidAmount, name)
	}
	require.NoError(t, tracker.Observe(t.Context(), "q", quota.Observation{}))
	require.NoError(t, tracker.Observe(t.Context(), "q", quota.Observation{Remaining: ptr(0), ResetAt: monday.Add(-time.Second)}), "out of date")
	requireLimit(t, tracker, "q", 0, 0)
	require.True(t, tracker.CanUse("q"))
}

func TestObservedResetSaysWhenASessionEnds(t *testing.T) {
	tracker, clock := quotatest.New(t, per(quota.Session(5*time.Hour), "", 100))
	require.NoError(t, tracker.Observe(t.Context(), "q", quota.Observation{Remaining: ptr(25), ResetAt: monday.Add(2 * time.Hour)}))
	require.EqualValues(t, 75, limitOf(t, tracker, "q").Used)
	require.Equal(t, monday.Add(2*time.Hour), limitOf(t, tracker, "q").ResetsAt)
	clock.Advance(2 * time.Hour)
	requireLimit(t, tracker, "q", 0, 0)
}

func TestObservedExhaustionRefusesUntilTheWindowTurns(t *testing.T) {
	kept, clock := &memory{}, quotatest.NewClock(monday)
	cfg := quota.Config{Persistence: kept, Clock: clock, Quotas: []quota.Quota{per(quota.Every(time.Hour), "", 100)}}
	tracker := start(t, cfg)
	require.NoError(t, tracker.Observe(t.Context(), "q", quota.Observation{Remaining: ptr(0)}))
	require.NoError(t, tracker.Close())
	again := start(t, cfg)
	_, err := again.Reserve(t.Context(), "q")
	require.Equal(t, monday.Add(time.Hour), refusal(t, err).RetryAt, "an observation is saved")
	clock.Advance(time.Hour)
	mustReserve(t, again, "q", quota.Requests(100))
}
