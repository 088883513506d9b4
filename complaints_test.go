package quota_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/quota"
	"example.com/quota/quotatest"
)

// What users of quota ledgers complain about most, one test per complaint.

func TestParallelCallsDoNotOverspend(t *testing.T) {
	for name, kept := range map[string]quota.Persistence{"in memory": quota.InMemory(), "saved": &memory{}} {
		t.Run(name, func(t *testing.T) {
			tracker := start(t, quota.Config{Persistence: kept, Quotas: []quota.Quota{
				{Name: "a", Limits: []quota.Limit{{Max: 100}, {Unit: quota.UnitTokens, Max: 2000}}}, {Name: "b", Limits: []quota.Limit{{Max: 60}}},
			}})
			var admitted atomic.Int64
			var done sync.WaitGroup
			for i := range 16 {
				done.Go(func() {
					for range 10 {
						names := []string{"a", "b"}
						if i%2 == 0 {
							names = []string{"b", "a"}
						}
						r, err := tracker.ReserveAll(context.Background(), names, quota.Tokens(40))
						if err != nil {
							continue
						}
						admitted.Add(1)
						_ = r.Commit(context.Background(), quota.Tokens(40))
					}
				})
			}
			done.Wait()
			require.EqualValues(t, 50, admitted.Load())
			require.EqualValues(t, 2000, statusOf(t, tracker, "a").Limits[1].Used)
			requireLimit(t, tracker, "b", 50, 0)
		})
	}
}

func TestReserveCountsOutstandingHoldsNotOnlyWhatIsSpent(t *testing.T) {
	tracker, _ := quotatest.New(t, per(quota.Daily(nil), quota.UnitUSD, 5*quota.Dollar))
	for range 4 {
		mustReserve(t, tracker, "q", quota.USD(1.2))
	}
	_, err := tracker.Reserve(t.Context(), "q", quota.USD(0.21))
	require.ErrorIs(t, err, quota.ErrExceeded)
	mustReserve(t, tracker, "q", quota.USD(0.2))
}

func TestConcurrencySlotsNeverLeak(t *testing.T) {
	tracker, clock := quotatest.New(t, per(quota.InFlight(), "", 3))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for i := range 200 {
		r := mustReserve(t, tracker, "q")
		switch i % 5 {
		case 0:
			_ = r.Commit(ctx)
		case 1:
			_ = r.Release(ctx)
		case 2:
			clock.Advance(15 * time.Minute)
		case 3:
			record(t, tracker, "q")
		case 4:
			func() {
				defer func() { _ = recover() }()
				defer func() { _ = r.Commit(context.Background()) }()
				panic("the work failed")
			}()
		}
		require.Zero(t, statusOf(t, tracker, "q").Reservations)
	}
	mustReserve(t, tracker, "q", quota.Requests(3))
}

func TestNoPhantomHoldIsLeftByWhateverFails(t *testing.T) {
	kept := &memory{}
	tracker := start(t, quota.Config{Persistence: kept, Quotas: []quota.Quota{daily(10), {Name: "small", Limits: []quota.Limit{{Max: 1}}}}})
	record(t, tracker, "small")
	kept.fail(errDiskFull)
	_, err := tracker.Reserve(t.Context(), "q")
	require.ErrorIs(t, err, quota.ErrNotSaved)
	_, err = tracker.Acquire(t.Context(), quota.Request{All: []string{"q"}, ID: "task"})
	require.ErrorIs(t, err, quota.ErrNotSaved)
	kept.fail(nil)
	_, err = tracker.ReserveAll(t.Context(), []string{"q", "small"})
	require.ErrorIs(t, err, quota.ErrExceeded)
	_, err = tracker.ReserveAll(t.Context(), []string{"q", "typo"})
	require.ErrorIs(t, err, quota.ErrUnknownQuota)
	_, err = tracker.Acquire(t.Context(), quota.Request{All: []string{"q"}, Any: []quota.Candidate{{Quota: "small"}}, ID: "task"})
	require.ErrorIs(t, err, quota.ErrExceeded)
	requireLimit(t, tracker, "q", 0, 0)
	_, err = tracker.Acquire(t.Context(), quota.Request{All: []string{"q"}, ID: "task"})
	require.NoError(t, err, "an ID that was never granted is free")
}

func TestLateSettlementIsNeverDropped(t *testing.T) {
	for _, policy := range []quota.ExpiryPolicy{quota.ChargeExpired, quota.ReleaseExpired} {
		clock := quotatest.NewClock(monday)
		tracker := start(t, quota.Config{Clock: clock, OnExpiry: policy, Quotas: []quota.Quota{per(quota.Daily(nil), quota.UnitTokens, 1000)}})
		r := mustReserve(t, tracker, "q", quota.Tokens(100))
		clock.Advance(time.Hour)
		require.NoError(t, r.Commit(t.Context(), quota.Tokens(250)))
		requireLimit(t, tracker, "q", 250, 0)
		require.EqualValues(t, 250, statusOf(t, tracker, "q").Today.Used[quota.UnitTokens])
	}
}

func TestLongWorkKeepsItsHoldAliveAndAForgottenOneEnds(t *testing.T) {
	tracker, clock := quotatest.New(t, daily(10))
	alive, orphan := mustReserve(t, tracker, "q", quota.Requests(2)), mustReserve(t, tracker, "q", quota.Requests(3))
	for range 12 {
		clock.Advance(10 * time.Minute)
		require.NoError(t, alive.Extend(t.Context(), 15*time.Minute))
	}
	requireLimit(t, tracker, "q", 3, 2)
	require.NoError(t, alive.Commit(t.Context()))
	require.NoError(t, orphan.Release(t.Context()))
	requireLimit(t, tracker, "q", 2, 0)
}

func TestSettlingTwiceInParallelCountsOnce(t *testing.T) {
	tracker, _ := quotatest.New(t, daily(1000))
	for i := range 50 {
		id := fmt.Sprint("task-", i)
		request := quota.Request{All: []string{"q"}, ID: id, Amounts: []quota.Amount{quota.Requests(2)}}
		var settled atomic.Int64
		var done sync.WaitGroup
		var handles []*quota.Reservation
		for range 4 {
			r, err := tracker.Acquire(t.Context(), request) // a retry of the same task
			require.NoError(t, err)
			handles = append(handles, r)
		}
		for _, r := range handles {
			done.Go(func() {
				if err := r.Commit(context.Background(), quota.Requests(2)); err == nil {
					settled.Add(1)
				} else if !errors.Is(err, quota.ErrSettled) {
					settled.Add(100)
				}
			})
		}
		done.Wait()
		require.EqualValues(t, 1, settled.Load())
	}
	requireLimit(t, tracker, "q", 100, 0)
}

func TestReleaseAndCommitOfNothingDiffer(t *testing.T) {
	tracker, _ := quotatest.New(t, daily(10))
	require.NoError(t, mustReserve(t, tracker, "q").Release(t.Context()))
	require.Zero(t, statusOf(t, tracker, "q").Today.Calls, "it never happened")
	require.NoError(t, mustReserve(t, tracker, "q").Commit(t.Context(), quota.Requests(0)))
	require.EqualValues(t, 1, statusOf(t, tracker, "q").Today.Calls)
	requireLimit(t, tracker, "q", 0, 0)
}

func TestParallelCrossingsAlertOnce(t *testing.T) {
	tracker, clock, alerts := alerting(t, daily(100))
	for day := 1; day <= 3; day++ {
		var done sync.WaitGroup
		for range 10 {
			done.Go(func() {
				for range 10 {
					_ = tracker.RecordUsage(context.Background(), "q")
				}
			})
		}
		done.Wait()
		require.Len(t, alerts.all(), 3*day, "also in a new window that jumps to where the last one ended")
		clock.Advance(24 * time.Hour)
	}
	seen := map[string]bool{}
	for _, alert := range alerts.all() {
		require.False(t, seen[alert.ID], alert.ID)
		seen[alert.ID] = true
	}
}

func TestResetHappensAtMidnightOfTheZoneNotAtTheHourOfTheFirstCall(t *testing.T) {
	loc, err := time.LoadLocation("Asia/Tokyo")
	require.NoError(t, err)
	clock := quotatest.NewClock(time.Date(2026, time.January, 31, 15, 43, 0, 0, loc))
	tracker := start(t, quota.Config{Clock: clock, Quotas: []quota.Quota{{Name: "q", Limits: []quota.Limit{
		{Max: 10, Window: quota.Daily(loc)}, {Max: 10, Window: quota.Monthly(loc, 1)}, {Max: 10, Window: quota.Monthly(loc, 31)},
	}}}})
	record(t, tracker, "q", quota.Requests(4))
	used := func() (list []int64) {
		for _, limit := range statusOf(t, tracker, "q").Limits {
			list = append(list, limit.Used)
		}
		return list
	}
	clock.Set(time.Date(2026, time.February, 1, 0, 0, 0, 0, loc).Add(-time.Nanosecond))
	require.Equal(t, []int64{4, 4, 4}, used())
	clock.Advance(time.Nanosecond)
	require.Equal(t, []int64{0, 0, 4}, used())
	clock.Set(time.Date(2026, time.February, 28, 0, 0, 0, 0, loc))
	require.Equal(t, []int64{0, 0, 0}, used(), "the last day of a short month")
}

func TestWritersAtATurnDoNotLoseEachOthersUsage(t *testing.T) {
	tracker, clock := quotatest.New(t, per(quota.Every(time.Minute), quota.UnitTokens, 1_000_000))
	for range 20 {
		record(t, tracker, "q", quota.Tokens(999))
		clock.Advance(time.Minute)
		var done sync.WaitGroup
		for range 8 {
			done.Go(func() { _ = tracker.RecordUsage(context.Background(), "q", quota.Tokens(10)) })
		}
		done.Wait()
		requireLimit(t, tracker, "q", 80, 0)
	}
}

func TestEstimateLargerThanTheLimitIsRefusedClearlyAndForEver(t *testing.T) {
	tracker, _ := quotatest.New(t, quota.Quota{Name: "q", Limits: []quota.Limit{{Unit: quota.UnitTokens, Max: 500, Window: quota.Every(time.Minute), Estimate: 1024}}})
	_, err := tracker.Reserve(t.Context(), "q")
	e := refusal(t, err)
	require.True(t, e.Never)
	require.Zero(t, e.RetryAt)
	require.EqualValues(t, 1024, e.Requested)
	require.ErrorContains(t, err, "tokens per 1m0s")
	require.ErrorContains(t, err, "1024")
	require.ErrorContains(t, err, "500")
	_, err = tracker.Wait(t.Context(), "q")
	require.True(t, refusal(t, err).Never, "it does not wait for ever")
	mustReserve(t, tracker, "q", quota.Tokens(400))
}

func TestMoneyIsExact(t *testing.T) {
	tracker, _ := quotatest.New(t, per(quota.Lifetime(), quota.UnitUSD, 1*quota.Dollar))
	for range 9 {
		record(t, tracker, "q", quota.USD(0.1))
	}
	mustReserve(t, tracker, "q", quota.USD(0.1))
	require.Zero(t, limitOf(t, tracker, "q").Remaining)
	require.NoError(t, tracker.Release(t.Context(), "q", quota.USD(0.1), quota.Requests(1)))
	const pricePerToken = 75_000 // picoUSD: $0.075 per million
	for range 1000 {
		record(t, tracker, "q", quota.PicoUSD(1333*pricePerToken))
	}
	require.EqualValues(t, 9*quota.Dollar/10+1000*1333*pricePerToken, limitOf(t, tracker, "q").Used)
}

func TestFallbackThatRunsIsTheOneThatIsChecked(t *testing.T) {
	tracker, _ := quotatest.New(t,
		quota.Quota{Name: "free", Limits: []quota.Limit{{Max: 1}}},
		quota.Quota{Name: "paid", Limits: []quota.Limit{{Unit: quota.UnitUSD, Max: quota.Dollar, Estimate: quota.Dollar / 2}}})
	names := []string{"free", "paid"}
	for _, want := range []string{"free", "paid", "paid"} {
		r, err := tracker.ReserveAny(t.Context(), names)
		require.NoError(t, err)
		require.Equal(t, want, r.Quota())
	}
	_, err := tracker.ReserveAny(t.Context(), names)
	require.ErrorIs(t, err, quota.ErrExceeded)
	require.EqualValues(t, quota.Dollar, limitOf(t, tracker, "paid").Reserved)
}

func TestCrashBetweenAnyTwoCallsLosesNothingAcknowledged(t *testing.T) {
	kept, clock := &memory{}, quotatest.NewClock(monday)
	cfg := quota.Config{Persistence: kept, Clock: clock, Quotas: []quota.Quota{per(quota.Daily(nil), quota.UnitTokens, 1_000_000)}}
	var used, held int64
	for i := range 40 {
		tracker := start(t, cfg) // the one before was never closed: it crashed
		requireLimit(t, tracker, "q", used, held)
		if i%2 == 0 {
			record(t, tracker, "q", quota.Tokens(int64(i)), quota.Requests(1))
			used, held = used+int64(i)+max(0, held-int64(i)), 0
		} else {
			mustReserve(t, tracker, "q", quota.Tokens(int64(i)))
			held += int64(i)
		}
	}
}

func TestRandomLivesKeepTheLedgersLaws(t *testing.T) {
	windows := []quota.Window{
		quota.Daily(nil), quota.Weekly(nil, time.Tuesday), quota.Every(time.Hour), quota.Rolling(2 * time.Hour), quota.Refill(time.Hour),
		quota.Session(90 * time.Minute), quota.Lifetime(), quota.InFlight(),
	}
	for seed := range uint64(quota.Rounds(20)) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) { randomLife(t, rand.New(rand.NewPCG(seed, 7)), windows) })
	}
}

// randomLife lets a tracker live through calls at random, and checks after each that nothing was admitted beyond a limit,
// that the books are right, and that a restart changes nothing.
func randomLife(t *testing.T, random *rand.Rand, windows []quota.Window) {
	configuration := func() []quota.Quota {
		q := quota.Quota{Name: "q"}
		for _, window := range windows {
			if random.IntN(4) > 0 {
				q.Limits = append(q.Limits, quota.Limit{Unit: quota.UnitTokens, Max: 50 + 50*random.Int64N(8), Window: window})
			}
		}
		return []quota.Quota{q, tokensPerDay("other")}
	}
	kept, clock := &memory{}, quotatest.NewClock(monday)
	cfg := quota.Config{Persistence: kept, Clock: clock, Quotas: configuration(), OnExpiry: quota.ExpiryPolicy(random.IntN(2))}
	tracker := start(t, cfg)
	var open []*quota.Reservation
	take := func() *quota.Reservation {
		i := random.IntN(len(open))
		r := open[i]
		open = append(open[:i], open[i+1:]...)
		return r
	}
	for range 250 {
		n := quota.Tokens(random.Int64N(60))
		switch what := random.IntN(16); {
		case what < 5:
			request := quota.Request{All: []string{"q"}, Amounts: []quota.Amount{n}, TTL: time.Duration(1+random.IntN(40)) * 5 * time.Minute}
			if random.IntN(2) == 0 {
				request.All = append(request.All, "other")
			}
			if random.IntN(3) == 0 {
				request.ID = fmt.Sprint("id-", random.IntN(1000))
			}
			r, err := tracker.Acquire(t.Context(), request)
			if err != nil {
				break
			}
			open = append(open, r)
			for _, limit := range statusOf(t, tracker, "q").Limits {
				require.LessOrEqual(t, limit.Used+limit.Reserved, limit.Max, limit.String())
			}
		case what < 7 && len(open) > 0:
			_ = take().Commit(t.Context(), n)
		case what < 8 && len(open) > 0:
			_ = take().Commit(t.Context())
		case what < 9 && len(open) > 0:
			_ = take().Release(t.Context())
		case what < 10 && len(open) > 0:
			_ = open[random.IntN(len(open))].Extend(t.Context(), time.Hour)
		case what < 11:
			record(t, tracker, "q", n)
		case what < 12:
			require.NoError(t, tracker.Release(t.Context(), "q", n))
		case what < 13 && random.IntN(4) == 0:
			require.NoError(t, tracker.Observe(t.Context(), "q", quota.Observation{Unit: quota.UnitTokens, Remaining: &n.N}))
		case what < 14 && random.IntN(4) == 0:
			cfg.Quotas = configuration()
			require.NoError(t, tracker.SetQuotas(t.Context(), cfg.Quotas))
		case what < 15 && random.IntN(10) == 0:
			require.NoError(t, tracker.Reset(t.Context(), "q"))
		case random.IntN(30) == 0:
			clock.Set(clock.Now().Add(-time.Duration(random.IntN(72)) * time.Hour))
			record(t, tracker, "q", quota.Requests(0)) // so that what time alone has done is saved
		default:
			clock.Advance(time.Duration(random.Int64N(int64(40 * time.Minute))))
		}
		require.NoError(t, tracker.Verify())
		if random.IntN(20) == 0 {
			before := statusOf(t, tracker, "q")
			require.NoError(t, tracker.Close())
			tracker = start(t, cfg)
			after := statusOf(t, tracker, "q")
			require.Equal(t, before.Limits, after.Limits)
			require.Equal(t, before.Reservations, after.Reservations)
			for i, r := range open {
				if found, err := tracker.Reservation(t.Context(), r.ID()); err == nil {
					open[i] = found
				}
			}
		}
	}
	clock.Advance(400 * 24 * time.Hour)
	for _, limit := range statusOf(t, tracker, "q").Limits {
		require.Zero(t, limit.Reserved, limit.String())
	}
}

func tokensPerDay(name string) quota.Quota {
	return quota.Quota{Name: name, Limits: []quota.Limit{{Unit: quota.UnitTokens, Max: 400}}}
}
