package quota_test

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/quota"
	"example.com/quota/quotatest"
)

// waited is how a call that waits has ended.
type waited struct {
	reservation *quota.Reservation
	err         error
}

// waiting starts a call that waits and returns when it does, or has ended. It needs a bubble.
func waiting(ctx context.Context, tracker *quota.QuotaTracker, req quota.Request) chan waited {
	ended := make(chan waited, 1)
	go func() {
		r, err := tracker.Acquire(ctx, req)
		ended <- waited{r, err}
	}()
	synctest.Wait()
	return ended
}

func forever(name string, n int64) quota.Request {
	return quota.Request{All: []string{name}, Amounts: []quota.Amount{quota.Requests(n)}, MaxWait: -1}
}

// requireAdmitted checks that a call that waited has been admitted by now.
func requireAdmitted(t *testing.T, ended chan waited) *quota.Reservation {
	t.Helper()
	synctest.Wait()
	select {
	case one := <-ended:
		require.NoError(t, one.err)
		return one.reservation
	default:
		require.FailNow(t, "it still waits")
		return nil
	}
}

func requireWaiting(t *testing.T, ended chan waited) {
	t.Helper()
	synctest.Wait()
	require.Empty(t, ended)
}

func TestWaiterIsWokenByWhateverFreesRoom(t *testing.T) {
	inFlight := per(quota.InFlight(), "", 2)
	everyMinute := per(quota.Every(time.Minute), "", 2)
	left := int64(0)
	fill := func(t *testing.T, tracker *quota.QuotaTracker) { record(t, tracker, "q", quota.Requests(2)) }
	hold := func(t *testing.T, tracker *quota.QuotaTracker) { mustReserve(t, tracker, "q", quota.Requests(2)) }
	for name, one := range map[string]struct {
		quota quota.Quota
		full  func(*testing.T, *quota.QuotaTracker)
		frees func(*testing.T, *quota.QuotaTracker, *quotatest.Clock)
	}{
		"settling": {inFlight, hold, func(t *testing.T, tracker *quota.QuotaTracker, _ *quotatest.Clock) {
			require.NoError(t, tracker.Release(t.Context(), "q", quota.Requests(2)))
		}},
		"recorded usage": {inFlight, hold, func(t *testing.T, tracker *quota.QuotaTracker, _ *quotatest.Clock) {
			record(t, tracker, "q", quota.Requests(1))
		}},
		"expiry": {inFlight, hold, func(_ *testing.T, _ *quota.QuotaTracker, clock *quotatest.Clock) { clock.Advance(15 * time.Minute) }},
		"the turn": {everyMinute, fill, func(_ *testing.T, _ *quota.QuotaTracker, clock *quotatest.Clock) {
			clock.Advance(time.Minute)
		}},
		"midnight": {daily(2), fill, func(_ *testing.T, _ *quota.QuotaTracker, clock *quotatest.Clock) { clock.Advance(24 * time.Hour) }},
		"a session's end": {per(quota.Session(time.Hour), "", 2), fill, func(_ *testing.T, _ *quota.QuotaTracker, clock *quotatest.Clock) {
			clock.Advance(time.Hour)
		}},
		"refill": {per(quota.Refill(time.Hour), "", 2), fill, func(_ *testing.T, _ *quota.QuotaTracker, clock *quotatest.Clock) {
			clock.Advance(30 * time.Minute)
		}},
		"rolling on": {per(quota.Rolling(time.Hour), "", 2), fill, func(_ *testing.T, _ *quota.QuotaTracker, clock *quotatest.Clock) {
			clock.Advance(time.Hour + time.Hour/50)
		}},
		"the end of RetryAfter": {daily(2), func(t *testing.T, tracker *quota.QuotaTracker) {
			require.NoError(t, tracker.Observe(t.Context(), "q", quota.Observation{RetryAfter: 20 * time.Second}))
		}, func(_ *testing.T, _ *quota.QuotaTracker, clock *quotatest.Clock) { clock.Advance(20 * time.Second) }},
		"SetQuotas": {daily(2), fill, func(t *testing.T, tracker *quota.QuotaTracker, _ *quotatest.Clock) {
			require.NoError(t, tracker.SetQuotas(t.Context(), []quota.Quota{daily(3)}))
		}},
		"SetQuotas without limits": {daily(2), fill, func(t *testing.T, tracker *quota.QuotaTracker, _ *quotatest.Clock) {
			require.NoError(t, tracker.SetQuotas(t.Context(), []quota.Quota{{Name: "q"}}))
		}},
		"Reset": {daily(2), fill, func(t *testing.T, tracker *quota.QuotaTracker, _ *quotatest.Clock) {
			require.NoError(t, tracker.Reset(t.Context(), "q"))
		}},
		"the turn after an observation": {everyMinute, func(t *testing.T, tracker *quota.QuotaTracker) {
			require.NoError(t, tracker.Observe(t.Context(), "q", quota.Observation{Remaining: &left}))
		}, func(_ *testing.T, _ *quota.QuotaTracker, clock *quotatest.Clock) { clock.Advance(time.Minute) }},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tracker, clock := quotatest.New(t, one.quota)
				one.full(t, tracker)
				ended := waiting(t.Context(), tracker, forever("q", 1))
				requireWaiting(t, ended)
				require.Equal(t, 1, statusOf(t, tracker, "q").Waiting)
				one.frees(t, tracker, clock)
				requireAdmitted(t, ended)
				require.Zero(t, statusOf(t, tracker, "q").Waiting)
			})
		})
	}
}

func TestMidnightWakesAWaiterThatOpenHoldsAloneKeepOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tracker, clock := quotatest.New(t, daily(100))
		record(t, tracker, "q", quota.Requests(40))
		_, err := tracker.Acquire(t.Context(), quota.Request{
			All: []string{"q"}, Amounts: []quota.Amount{quota.Requests(30)}, TTL: 48 * time.Hour,
		})
		require.NoError(t, err)
		ended := waiting(t.Context(), tracker, forever("q", 50))
		requireWaiting(t, ended)
		clock.Advance(24 * time.Hour)
		require.True(t, tracker.CanUse("q", quota.Requests(50)) || len(ended) == 1)
		requireAdmitted(t, ended)
	})
}

func TestWaitersAreServedFirstComeFirstServed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tracker, _ := quotatest.New(t, per(quota.InFlight(), "", 3))
		mustReserve(t, tracker, "q", quota.Requests(3))
		large := waiting(t.Context(), tracker, forever("q", 2))
		small := waiting(t.Context(), tracker, forever("q", 1))
		last := waiting(t.Context(), tracker, forever("q", 1))
		require.Equal(t, 3, statusOf(t, tracker, "q").Waiting)
		require.NoError(t, tracker.Release(t.Context(), "q", quota.Requests(1)))
		requireWaiting(t, large)
		requireWaiting(t, small)
		mustReserve(t, tracker, "q") // a plain Reserve may overtake
		require.NoError(t, tracker.Release(t.Context(), "q", quota.Requests(2)))
		requireAdmitted(t, large)
		requireWaiting(t, small)
		require.NoError(t, tracker.Release(t.Context(), "q", quota.Requests(2)))
		requireAdmitted(t, small)
		requireAdmitted(t, last)
	})
}

func TestWaiterThatLeavesLetsTheNextOneLook(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tracker, _ := quotatest.New(t, per(quota.InFlight(), "", 2))
		mustReserve(t, tracker, "q")
		ctx, cancel := context.WithCancel(t.Context())
		large := waiting(ctx, tracker, forever("q", 2))
		small := waiting(t.Context(), tracker, forever("q", 1))
		requireWaiting(t, small)
		cancel()
		requireAdmitted(t, small)
		require.ErrorIs(t, (<-large).err, context.Canceled)
	})
}

func TestWaitIsRefusedAtOnceWhenItCanNeverFit(t *testing.T) {
	tracker, _ := quotatest.New(t, daily(10), quota.Quota{Name: "credit", Limits: []quota.Limit{{Max: 10, Window: quota.Lifetime()}}},
		quota.Quota{Name: "none", Limits: []quota.Limit{{Max: 0}}})
	_, err := tracker.Wait(t.Context(), "q", quota.Requests(11))
	require.True(t, refusal(t, err).Never)
	_, err = tracker.Wait(t.Context(), "none")
	require.True(t, refusal(t, err).Never)
	record(t, tracker, "credit", quota.Requests(8))
	_, err = tracker.Wait(t.Context(), "credit", quota.Requests(3))
	require.False(t, refusal(t, err).Never, "it is not larger than the limit itself")
	require.Zero(t, refusal(t, err).RetryAt)
	require.EqualValues(t, 1, statusOf(t, tracker, "credit").Today.Denied)
}

func TestWaitIsRefusedAtOnceWhenRetryAtIsBeyondMaxWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tracker, clock := quotatest.New(t, per(quota.Every(time.Minute), "", 1))
		record(t, tracker, "q")
		request := forever("q", 1)
		request.MaxWait = 59 * time.Second
		_, err := tracker.Acquire(t.Context(), request)
		require.Equal(t, monday.Add(time.Minute), refusal(t, err).RetryAt)
		request.MaxWait = time.Minute
		ended := waiting(t.Context(), tracker, request)
		requireWaiting(t, ended)
		clock.Advance(time.Minute)
		requireAdmitted(t, ended)
	})
}

func TestMaxWaitEndsAWaitWhoseEndIsNotKnown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tracker, clock := quotatest.New(t, per(quota.InFlight(), "", 1))
		mustReserve(t, tracker, "q")
		request := forever("q", 1)
		request.MaxWait = time.Minute
		ended := waiting(t.Context(), tracker, request)
		clock.Advance(59 * time.Second)
		requireWaiting(t, ended)
		clock.Advance(time.Second)
		require.Equal(t, "requests in flight", refusal(t, (<-ended).err).Limit.String())
		require.EqualValues(t, 1, statusOf(t, tracker, "q").Today.Denied)
	})
}

func TestContextThatEndsCarriesTheRefusal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tracker, _ := quotatest.New(t, daily(1))
		record(t, tracker, "q")
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		_, err := tracker.Wait(ctx, "q")
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Equal(t, monday.AddDate(0, 0, 1), refusal(t, err).RetryAt)
		_, err = tracker.Wait(ctx, "q")
		require.ErrorIs(t, err, context.DeadlineExceeded)
		requireLimit(t, tracker, "q", 1, 0)
		require.NoError(t, tracker.Reset(t.Context(), "q"))
		_, err = tracker.Wait(ctx, "q")
		require.ErrorIs(t, err, context.DeadlineExceeded, "also where there is room")
		requireLimit(t, tracker, "q", 0, 0)
	})
}

func TestWaitDoesNotOutliveItsContextInASave(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		kept := &memory{}
		unblock := kept.block()
		tracker := start(t, quota.Config{Persistence: kept, Quotas: []quota.Quota{daily(1)}})
		ctx, cancel := context.WithCancel(t.Context())
		ended := waiting(ctx, tracker, forever("q", 1))
		cancel()
		synctest.Wait()
		require.Len(t, ended, 1, "a store that never answers must not block for ever")
		require.ErrorIs(t, (<-ended).err, context.Canceled)
		unblock()
		require.NoError(t, tracker.Flush(t.Context()))
		requireLimit(t, tracker, "q", 0, 0)
	})
}

func TestCloseWakesWaiters(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tracker, _ := quotatest.New(t, per(quota.InFlight(), "", 1))
		r := mustReserve(t, tracker, "q")
		var all []chan waited
		for range 3 {
			all = append(all, waiting(t.Context(), tracker, forever("q", 1)))
		}
		require.NoError(t, tracker.Close())
		for _, ended := range all {
			require.ErrorIs(t, (<-ended).err, quota.ErrClosed)
		}
		require.NoError(t, tracker.Close())
		_, err := tracker.Wait(t.Context(), "q")
		require.ErrorIs(t, err, quota.ErrClosed)
		_, err = tracker.Reserve(t.Context(), "q")
		require.ErrorIs(t, err, quota.ErrClosed)
		require.ErrorIs(t, r.Commit(t.Context()), quota.ErrClosed)
		require.ErrorIs(t, tracker.RecordUsage(t.Context(), "q"), quota.ErrClosed)
		require.ErrorIs(t, tracker.Release(t.Context(), "q", quota.Requests(1)), quota.ErrClosed)
		require.ErrorIs(t, tracker.SetQuotas(t.Context(), nil), quota.ErrClosed)
		require.ErrorIs(t, tracker.Reset(t.Context(), "q"), quota.ErrClosed)
		require.ErrorIs(t, tracker.Flush(t.Context()), quota.ErrClosed)
		require.ErrorIs(t, tracker.Refresh(t.Context()), quota.ErrClosed)
		require.ErrorIs(t, tracker.Observe(t.Context(), "q", quota.Observation{}), quota.ErrClosed)
		_, err = tracker.Reservation(t.Context(), r.ID())
		require.ErrorIs(t, err, quota.ErrClosed)
	})
}

func TestCloseGivesUpAfterFiveSeconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		kept := &memory{}
		tracker, err := quota.New(t.Context(), quota.Config{Persistence: kept, Quotas: []quota.Quota{daily(10)}})
		require.NoError(t, err)
		kept.block()
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		require.ErrorIs(t, tracker.RecordUsage(ctx, "q"), quota.ErrPending)
		began := time.Now() // of the bubble's clock
		require.ErrorIs(t, tracker.Close(), quota.ErrNotSaved)
		require.Equal(t, 5*time.Second, time.Since(began))
		require.ErrorIs(t, tracker.Close(), quota.ErrNotSaved)
	})
}

func TestWaitingForTheFirstOfSeveralTakesTheOneThatFreesFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tracker, clock := quotatest.New(t,
			quota.Quota{Name: "day", Limits: []quota.Limit{{Max: 1}}},
			quota.Quota{Name: "minute", Limits: []quota.Limit{{Max: 1, Window: quota.Every(time.Minute)}}})
		record(t, tracker, "day")
		record(t, tracker, "minute")
		request := quota.Request{Any: []quota.Candidate{{Quota: "day"}, {Quota: "minute"}}, MaxWait: -1}
		first, second := waiting(t.Context(), tracker, request), waiting(t.Context(), tracker, request)
		clock.Advance(time.Minute)
		require.Equal(t, "minute", requireAdmitted(t, first).Quota())
		requireWaiting(t, second)
		clock.Advance(time.Minute)
		require.Equal(t, "minute", requireAdmitted(t, second).Quota())
	})
}

func TestManyWaitersAreAllServedInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tracker, clock := quotatest.New(t, per(quota.Every(time.Minute), "", 10))
		record(t, tracker, "q", quota.Requests(10))
		var all []chan waited
		for range 25 {
			all = append(all, waiting(t.Context(), tracker, forever("q", 1)))
		}
		for minute := range 3 {
			clock.Advance(time.Minute)
			synctest.Wait()
			for i, ended := range all {
				require.Equal(t, i < 10*(minute+1), len(ended) == 1, fmt.Sprint("waiter ", i, " in minute ", minute))
			}
		}
	})
}

func TestACallThatNoneOfAnyCanEverAdmitIsRefusedAtOnceAlsoWhenAllRefusesForNow(t *testing.T) {
	team := quota.Quota{Name: "team", Limits: []quota.Limit{{Max: 1, Window: quota.Every(time.Hour)}}}
	small := quota.Quota{Name: "small", Limits: []quota.Limit{{Unit: quota.UnitTokens, Max: 10}}}
	slow := quota.Quota{Name: "slow", Limits: []quota.Limit{{Max: 1}}}
	tracker, _ := quotatest.New(t, team, small, slow)
	record(t, tracker, "team")
	record(t, tracker, "slow")
	for _, wait := range []time.Duration{0, time.Minute, -1} {
		_, err := tracker.Acquire(t.Context(), quota.Request{
			All: []string{"team"}, Any: []quota.Candidate{{Quota: "small", Amounts: []quota.Amount{quota.Tokens(100)}}}, MaxWait: wait,
		})
		refused := refusal(t, err)
		require.Equal(t, "small", refused.Quota)
		require.True(t, refused.Never)
	}
	require.Equal(t, int64(3), statusOf(t, tracker, "small").Today.Denied)
	require.Zero(t, statusOf(t, tracker, "team").Today.Denied, "what is counted is what the error says")

	// Any is in the way for longer than MaxWait, All is not.
	request := quota.Request{All: []string{"team"}, Any: []quota.Candidate{{Quota: "slow"}}, MaxWait: 2 * time.Hour}
	_, err := tracker.Acquire(t.Context(), request)
	require.Equal(t, "slow", refusal(t, err).Quota)
	request.Any = append(request.Any, quota.Candidate{Quota: "small"})
	request.MaxWait = 0
	_, err = tracker.Acquire(t.Context(), request)
	require.Equal(t, "team", refusal(t, err).Quota)
	require.Zero(t, statusOf(t, tracker, "team").Reservations+statusOf(t, tracker, "small").Reservations)
}

func TestAWaiterFollowsAnAliasThatSetQuotasMoves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tracker, _ := quotatest.New(t, quota.Quota{Name: "old", Aliases: []string{"alias"}, Limits: []quota.Limit{{Max: 1}}})
		record(t, tracker, "old")
		first, second := waiting(t.Context(), tracker, forever("alias", 1)), waiting(t.Context(), tracker, forever("alias", 1))
		requireWaiting(t, first)
		require.NoError(t, tracker.SetQuotas(t.Context(), []quota.Quota{
			{Name: "old", Limits: []quota.Limit{{Max: 1}}},
			{Name: "new", Aliases: []string{"alias"}, Limits: []quota.Limit{{Max: 1}}},
		}))
		synctest.Wait()
		require.Equal(t, 1, len(first)+len(second))
		require.Equal(t, 1, statusOf(t, tracker, "new").Reservations)
		require.Equal(t, 1, statusOf(t, tracker, "new").Waiting)
		require.Zero(t, statusOf(t, tracker, "old").Waiting)
		require.NoError(t, tracker.Release(t.Context(), "new", quota.Requests(1)))
		requireAdmitted(t, first)
		requireAdmitted(t, second)
	})
}

func TestAWaiterGoesByTheTimeOfTheStore(t *testing.T) {
	for _, ahead := range []time.Duration{-time.Hour, -1500 * time.Millisecond, 0, 30 * time.Second, time.Hour} {
		t.Run(ahead.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := newSharedStore()
				store.now = func() time.Time { return time.Now().Add(ahead) }
				tracker, err := quota.New(t.Context(), quota.Config{Persistence: store, Quotas: []quota.Quota{
					per(quota.Refill(10*time.Second), "", 1), {Name: "slow", Limits: []quota.Limit{{Max: 1, Window: quota.Refill(time.Minute)}}},
				}})
				require.NoError(t, err)
				record(t, tracker, "q")
				record(t, tracker, "slow")
				began, before := time.Now(), store.count()
				request := forever("q", 1)
				request.MaxWait = 11 * time.Second
				_, err = tracker.Acquire(t.Context(), request)
				require.NoError(t, err)
				require.InDelta(t, 10*time.Second, time.Since(began), float64(time.Second))
				require.Less(t, store.count()-before, 60, "four times a second at most")

				request = forever("slow", 1)
				request.MaxWait = 11 * time.Second
				began = time.Now()
				_, err = tracker.Acquire(t.Context(), request)
				require.ErrorIs(t, err, quota.ErrExceeded)
				require.Zero(t, time.Since(began), "it is refused at once")
				require.NoError(t, tracker.Close())
			})
		})
	}
}
