package quota_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/quota"
	"example.com/quota/quotatest"
)

func TestATurnWakesWhoWaitsBehindOpenHolds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		clock := quotatest.NewClock(morning) // 09:00 UTC
		zone, err := time.LoadLocation("America/Los_Angeles")
		require.NoError(t, err)
		tracker := startOn(t, quota.InMemory(), withClock(clock), withQuotas(
			quota.Quota{Name: "calls", Limits: []quota.Limit{{Max: 10, Window: quota.Daily(zone)}}}))
		clock.Set(time.Date(2026, time.January, 6, 7, 0, 0, 0, time.UTC)) // 23:00 in Los Angeles
		_, err = tracker.Acquire(ctx, quota.Request{All: []string{"calls"}, Amounts: []quota.Amount{quota.Requests(4)}, TTL: 72 * time.Hour})
		require.NoError(t, err)
		require.NoError(t, tracker.RecordUsage(ctx, "calls", quota.Requests(0)))
		r, err := tracker.Acquire(ctx, quota.Request{All: []string{"calls"}, ID: "x", Amounts: []quota.Amount{quota.Requests(3)}})
		require.NoError(t, err)
		require.NoError(t, r.Commit(ctx))
		require.Equal(t, stand{3, 4}, standOf(t, tracker, "calls"))
		got := make(chan error, 1)
		go func() {
			_, err := tracker.Wait(ctx, "calls", quota.Requests(5)) // after the turn 4 + 5 <= 10
			got <- err
		}()
		synctest.Wait()
		require.Empty(t, got)
		clock.Advance(time.Hour + time.Second) // midnight in Los Angeles
		synctest.Wait()
		if len(got) == 0 {
			t.Fatal("it still waits, although there is room")
		}
		require.NoError(t, <-got)
	})
}
