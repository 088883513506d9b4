package quota_test

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/quota"
	"example.com/quota/quotatest"
)

// What the turn of a window does to what is used and held.

func TestBudgetHoldsCarryOverAndAreChargedWhereTheyAreSettled(t *testing.T) {
	for _, window := range []quota.Window{quota.Daily(nil), quota.Weekly(nil, time.Tuesday), quota.Monthly(nil, 6)} {
		t.Run(window.String(), func(t *testing.T) {
			tracker, clock := quotatest.New(t, per(window, quota.UnitTokens, 100))
			clock.Set(monday.Add(24*time.Hour - time.Minute))
			committed, released := mustReserve(t, tracker, "q", quota.Tokens(30)), mustReserve(t, tracker, "q", quota.Tokens(20))
			record(t, tracker, "q", quota.Tokens(0), quota.Requests(0))
			clock.Advance(time.Minute)
			requireLimit(t, tracker, "q", 0, 50)
			require.False(t, tracker.CanUse("q", quota.Tokens(51)), "a call in flight counts on both sides")
			require.NoError(t, committed.Commit(t.Context(), quota.Tokens(35)))
			require.NoError(t, released.Release(t.Context()))
			requireLimit(t, tracker, "q", 35, 0)
		})
	}
}

func TestRateCountsACallInTheWindowOfItsGrant(t *testing.T) {
	for _, window := range []quota.Window{quota.Every(10 * time.Minute), quota.Session(10 * time.Minute), quota.Rolling(10 * time.Minute)} {
		t.Run(window.String(), func(t *testing.T) {
			tracker, clock := quotatest.New(t, per(window, quota.UnitTokens, 100))
			within, refunded, overrun := mustReserve(t, tracker, "q", quota.Tokens(30)), mustReserve(t, tracker, "q", quota.Tokens(30)),
				mustReserve(t, tracker, "q", quota.Tokens(30))
			require.NoError(t, within.Commit(t.Context(), quota.Tokens(10)))
			requireLimit(t, tracker, "q", 10, 60)
			clock.Advance(10*time.Minute + 12*time.Second) // with the slack of Rolling
			requireLimit(t, tracker, "q", 0, 0)
			mustReserve(t, tracker, "q", quota.Tokens(80))
			require.NoError(t, refunded.Commit(t.Context(), quota.Tokens(5)))
			requireLimit(t, tracker, "q", 0, 80)
			require.NoError(t, overrun.Commit(t.Context(), quota.Tokens(45)))
			requireLimit(t, tracker, "q", 15, 80)
		})
	}
}

func TestRefundOfARateGoesIntoItsOwnWindowOnly(t *testing.T) {
	for _, window := range []quota.Window{
		quota.Every(20 * time.Minute), quota.Session(20 * time.Minute), quota.Rolling(20 * time.Minute), quota.Refill(20 * time.Minute),
	} {
		t.Run(window.String(), func(t *testing.T) {
			tracker, clock := quotatest.New(t, per(window, quota.UnitTokens, 100))
			late, expired := mustReserve(t, tracker, "q", quota.Tokens(50)), mustReserve(t, tracker, "q", quota.Tokens(50))
			require.NoError(t, late.Extend(t.Context(), time.Hour))
			clock.Advance(15 * time.Minute) // one of them is charged
			clock.Advance(5*time.Minute + 24*time.Second)
			record(t, tracker, "q", quota.Tokens(70), quota.Requests(0))
			before := limitOf(t, tracker, "q")
			require.NoError(t, late.Release(t.Context()))
			require.NoError(t, expired.Release(t.Context()))
			after := limitOf(t, tracker, "q")
			require.Equal(t, before.Used+before.Reserved, after.Used+after.Reserved)
		})
	}
}

func TestRefillGivesBackAtMostWhatHasNotRefilled(t *testing.T) {
	tracker, clock := quotatest.New(t, per(quota.Refill(100*time.Second), quota.UnitTokens, 100))
	early, r := mustReserve(t, tracker, "q", quota.Tokens(20)), mustReserve(t, tracker, "q", quota.Tokens(80))
	require.NoError(t, early.Release(t.Context()))
	require.EqualValues(t, 20, limitOf(t, tracker, "q").Remaining)
	clock.Advance(30 * time.Second)
	require.EqualValues(t, 50, limitOf(t, tracker, "q").Remaining)
	require.NoError(t, r.Release(t.Context()))
	require.EqualValues(t, 100, limitOf(t, tracker, "q").Remaining)
	r = mustReserve(t, tracker, "q", quota.Tokens(60))
	record(t, tracker, "q", quota.Tokens(40), quota.Requests(0))
	requireLimit(t, tracker, "q", 40, 20)
	require.NoError(t, tracker.Verify())
	_, err := tracker.Reserve(t.Context(), "q", quota.Tokens(70))
	require.Equal(t, clock.Now().Add(30*time.Second), refusal(t, err).RetryAt)
	require.NoError(t, r.Release(t.Context()))
	clock.Advance(10 * time.Second)
	require.LessOrEqual(t, limitOf(t, tracker, "q").Used, int64(50))
}

func TestSessionWhoseOnlyUsesWereReleasedHasNotBegun(t *testing.T) {
	tracker, clock := quotatest.New(t, per(quota.Session(5*time.Hour), "", 100))
	require.Zero(t, limitOf(t, tracker, "q").ResetsAt)
	first := mustReserve(t, tracker, "q")
	require.Equal(t, monday.Add(5*time.Hour), limitOf(t, tracker, "q").ResetsAt)
	clock.Advance(time.Minute)
	second := mustReserve(t, tracker, "q")
	require.NoError(t, first.Release(t.Context()))
	require.Equal(t, monday.Add(5*time.Hour+time.Minute), limitOf(t, tracker, "q").ResetsAt)
	require.NoError(t, second.Release(t.Context()))
	require.Zero(t, limitOf(t, tracker, "q").ResetsAt)
	clock.Advance(time.Minute)
	third := mustReserve(t, tracker, "q")
	require.NoError(t, third.Commit(t.Context(), quota.Requests(0)), "dispatched, and it used nothing")
	require.Equal(t, monday.Add(5*time.Hour+2*time.Minute), limitOf(t, tracker, "q").ResetsAt)
}

func TestHoldNeverKeepsAWindowOpen(t *testing.T) {
	for _, window := range []quota.Window{quota.Daily(nil), quota.Every(time.Hour), quota.Session(time.Hour), quota.Rolling(time.Hour)} {
		tracker, clock := quotatest.New(t, per(window, "", 100))
		record(t, tracker, "q", quota.Requests(90))
		_, err := tracker.Acquire(t.Context(), quota.Request{All: []string{"q"}, TTL: 30 * 24 * time.Hour})
		require.NoError(t, err)
		clock.Advance(25 * time.Hour)
		require.Zero(t, limitOf(t, tracker, "q").Used, window)
		require.True(t, tracker.CanUse("q", quota.Requests(99)), window)
	}
}

func TestClockThatStepsBackByUpToADayDoesNotReopenAWindow(t *testing.T) {
	for _, window := range []quota.Window{quota.Daily(nil), quota.Every(time.Hour), quota.Session(time.Hour), quota.Rolling(time.Hour), quota.Refill(time.Hour)} {
		t.Run(window.String(), func(t *testing.T) {
			tracker, clock := quotatest.New(t, per(window, "", 100))
			clock.Set(monday.Add(48 * time.Hour))
			record(t, tracker, "q", quota.Requests(100))
			clock.Set(monday.Add(48*time.Hour - time.Second))
			require.False(t, tracker.CanUse("q"))
			requireLimit(t, tracker, "q", 100, 0)
			clock.Set(monday.Add(24 * time.Hour))
			requireLimit(t, tracker, "q", 100, 0)
			clock.Set(monday.Add(48*time.Hour + time.Nanosecond))
			requireLimit(t, tracker, "q", 100, 0)
			clock.Set(monday.Add(72*time.Hour + time.Minute))
			mustReserve(t, tracker, "q", quota.Requests(100))
		})
	}
}

func TestClockThatComesBackFromFurtherAheadAnchorsWindowsAtNow(t *testing.T) {
	for _, restart := range []bool{false, true} {
		for _, window := range []quota.Window{quota.Daily(nil), quota.Every(time.Hour), quota.Session(time.Hour), quota.Rolling(time.Hour), quota.Refill(time.Hour)} {
			t.Run(fmt.Sprint(window, " restart ", restart), func(t *testing.T) {
				kept, clock := &memory{}, quotatest.NewClock(monday.AddDate(1, 0, 0))
				cfg := quota.Config{Persistence: kept, Clock: clock, Quotas: []quota.Quota{per(window, "", 100)}}
				tracker := start(t, cfg)
				record(t, tracker, "q", quota.Requests(60))
				r := mustReserve(t, tracker, "q", quota.Requests(30))
				clock.Set(monday)
				if restart {
					require.NoError(t, tracker.Close())
					tracker = start(t, cfg)
				}
				require.False(t, tracker.CanUse("q", quota.Requests(11)), "usage is kept")
				require.NoError(t, tracker.Verify())
				found, err := tracker.Reservation(t.Context(), r.ID())
				require.NoError(t, err)
				require.True(t, found.ExpiresAt().Equal(monday.Add(15*time.Minute)), found.ExpiresAt())
				clock.Advance(15 * time.Minute)
				require.Zero(t, statusOf(t, tracker, "q").Reservations)
				clock.Advance(24 * time.Hour)
				require.Zero(t, limitOf(t, tracker, "q").Used)
				mustReserve(t, tracker, "q", quota.Requests(100))
			})
		}
	}
}

func TestRollingNeverAdmitsMoreThanMaxInAnySpan(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	const length, most = 100 * time.Second, 50
	tracker, clock := quotatest.New(t, per(quota.Rolling(length), "", most))
	type grant struct {
		at time.Time
		n  int64
	}
	var grants []grant
	for range 3000 {
		clock.Advance(time.Duration(random.Int64N(int64(8 * time.Second))))
		n := 1 + random.Int64N(12)
		r, err := tracker.Reserve(t.Context(), "q", quota.Requests(n))
		if err != nil {
			retry := refusal(t, err).RetryAt
			require.True(t, retry.After(clock.Now()) && !retry.After(clock.Now().Add(length+length/50)), "room comes within d + d/50")
			continue
		}
		require.NoError(t, r.Commit(t.Context()))
		grants = append(grants, grant{clock.Now(), n})
		var sum int64
		for i := len(grants) - 1; i >= 0 && clock.Now().Sub(grants[i].at) < length; i-- {
			sum += grants[i].n
		}
		require.LessOrEqual(t, sum, int64(most))
	}
	require.Greater(t, len(grants), 500)
}

func TestRetryAtIsWhenItFits(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	for _, window := range []quota.Window{quota.Daily(nil), quota.Every(time.Minute), quota.Session(time.Minute), quota.Rolling(time.Minute), quota.Refill(time.Minute)} {
		t.Run(window.String(), func(t *testing.T) {
			tracker, clock := quotatest.New(t, per(window, "", 50))
			for range 300 {
				n := 1 + random.Int64N(50)
				_, err := tracker.Reserve(t.Context(), "q", quota.Requests(n))
				if err == nil {
					record(t, tracker, "q", quota.Requests(n))
					clock.Advance(time.Duration(random.Int64N(int64(10 * time.Second))))
					continue
				}
				retry := refusal(t, err).RetryAt
				require.True(t, retry.After(clock.Now()))
				clock.Set(retry.Add(-time.Nanosecond))
				require.False(t, tracker.CanUse("q", quota.Requests(n)))
				clock.Set(retry)
				require.True(t, tracker.CanUse("q", quota.Requests(n)))
			}
		})
	}
}
