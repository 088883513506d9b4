package redisquota_test

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/quota"
	"example.com/quota/internal/offset"
	"example.com/quota/redisquota/internal/redistest"
)

// A turnable clock is the server's, moved.
type turnable struct{ by atomic.Int64 }

func (c *turnable) context(t *testing.T) context.Context {
	return offset.With(t.Context(), func() time.Duration { return time.Duration(c.by.Load()) })
}

func (c *turnable) move(d time.Duration) { c.by.Add(int64(d)) }

// stand moves the clock to a time that is still to come.
func (c *turnable) stand(at time.Time) { c.by.Store(int64(time.Until(at))) }

func TestAWindowTurnsForAllAtTheStoresMidnight(t *testing.T) {
	client := redistest.Start(t).Client()
	clock := &turnable{}
	midnight := time.Now().UTC().Truncate(24 * time.Hour).Add(72 * time.Hour)
	clock.stand(midnight.Add(-5 * time.Second))
	var trackers []*quota.QuotaTracker
	for _, skew := range []time.Duration{-10 * time.Second, 10 * time.Second} { // of clocks that are three days behind
		store := openWith(clock.context(t), t, client, "midnight")
		trackers = append(trackers, start(t, store, withQuotas(calls(2)), withClock(skewed{time.Duration(clock.by.Load()) + skew})))
	}
	ctx := t.Context()
	for _, tracker := range trackers {
		require.NoError(t, tracker.RecordUsage(ctx, "calls", quota.Requests(1)))
	}
	for _, tracker := range trackers {
		_, err := tracker.Reserve(ctx, "calls")
		require.ErrorIs(t, err, quota.ErrExceeded, "before midnight, whatever the clock of the process says")
	}
	clock.move(6 * time.Second)
	for i, tracker := range trackers {
		held, err := tracker.Reserve(ctx, "calls")
		require.NoError(t, err, "after midnight")
		require.NoError(t, held.Commit(ctx))
		require.Equal(t, stand{int64(i) + 1, 0}, standOf(t, tracker, "calls"))
	}
	for _, tracker := range trackers {
		_, err := tracker.Reserve(ctx, "calls")
		require.ErrorIs(t, err, quota.ErrExceeded)
	}
}

func TestADecisionThatComesTooLateIsMadeAgain(t *testing.T) {
	client := redistest.Start(t).Client()
	book := books(t, 2)
	for name, test := range map[string]struct {
		until func(now time.Time) time.Time
		pause time.Duration
		runs  int
	}{
		"in time":                       {func(now time.Time) time.Time { return now.Add(time.Minute) }, 100 * time.Millisecond, 1},
		"at the very time":              {func(now time.Time) time.Time { return now }, 0, 2},
		"after the turn":                {func(now time.Time) time.Time { return now.Add(50 * time.Millisecond) }, 100 * time.Millisecond, 2},
		"of a process that was stopped": {func(now time.Time) time.Time { return now.Add(-time.Second) }, 0, 2}, // longer than it holds
		"of a process that has slept":   {func(time.Time) time.Time { return time.Time{} }, 2 * time.Second, 2},
	} {
		clock := &turnable{}
		store := openWith(clock.context(t), t, client, name)
		put(t, store, "calls", book[0])
		var times []time.Time
		require.NoError(t, store.Update(t.Context(), []string{"calls"}, func(tx *quota.Tx) error {
			if times = append(times, tx.Now); len(times) == 1 {
				tx.Until = test.until(tx.Now)
				clock.move(test.pause)
			}
			return putting("calls", book[1])(tx)
		}), name)
		require.Len(t, times, test.runs, name)
		if test.runs > 1 {
			require.False(t, times[1].Before(times[0].Add(test.pause)), name)
		}
	}
}

func TestARefusalThatComesTooLateIsMadeAgainToo(t *testing.T) {
	clock := &turnable{}
	store := openWith(clock.context(t), t, redistest.Start(t).Client(), "refusal")
	put(t, store, "calls", books(t, 1)[0])
	runs := 0
	require.NoError(t, store.Update(t.Context(), []string{"calls"}, func(tx *quota.Tx) error {
		if runs++; runs == 1 {
			tx.Until = tx.Now.Add(50 * time.Millisecond)
			clock.move(100 * time.Millisecond)
		}
		return nil
	}))
	require.Equal(t, 2, runs)
}

func TestAServerWhoseClockStepsBackIsFollowed(t *testing.T) {
	clock := &turnable{}
	store := openWith(clock.context(t), t, redistest.Start(t).Client(), "back")
	book := books(t, 1)[0]
	put(t, store, "calls", book)
	clock.move(-time.Hour)
	var times []time.Time
	require.NoError(t, store.Update(t.Context(), []string{"calls"}, func(tx *quota.Tx) error {
		times = append(times, tx.Now)
		return putting("calls", book)(tx)
	}))
	require.Len(t, times, 2)
	require.WithinDuration(t, times[0].Add(-time.Hour), times[1], time.Minute)
}

func TestTheStoresTimeIsTheServersAndNeverRunsBack(t *testing.T) {
	server := redistest.Start(t)
	proxy := redistest.StartProxy(t, server.Addr())
	store := open(t, redistest.Client(t, proxy.Addr()), "time")
	client := server.Client()
	var last time.Time
	for i := range 60 {
		proxy.Delay(time.Duration(i%3) * 3 * time.Millisecond) // a slow reply must not turn the clock back
		require.NoError(t, store.Update(t.Context(), []string{"calls"}, func(tx *quota.Tx) error {
			require.False(t, tx.Now.Before(last), "%v before %v", tx.Now, last)
			last = tx.Now
			return nil
		}))
		now, err := client.Time(t.Context()).Result()
		require.NoError(t, err)
		require.False(t, last.After(now), "%v is ahead of the server's %v", last, now)
		require.WithinDuration(t, now, last, time.Second)
	}
}
