package quota_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/quota"
	"example.com/quota/quotatest"
)

func TestUsageSettlesMatchingHoldsAlsoWhereTheClockHasSteppedBack(t *testing.T) {
	for name, store := range everyStore(t) {
		t.Run(name, func(t *testing.T) {
			ctx, clock := t.Context(), quotatest.NewClock(morning)
			tracker := startOn(t, store, withClock(clock))
			require.NoError(t, tracker.RecordUsage(ctx, "calls", quota.Requests(0)))
			clock.Set(morning.Add(-time.Minute)) // the time is corrected
			for range 10 {
				_, err := tracker.Reserve(ctx, "calls")
				require.NoError(t, err)
				require.NoError(t, tracker.RecordUsage(ctx, "calls"))
			}
			require.Equal(t, stand{10, 0}, standOf(t, tracker, "calls"))
		})
	}
}

func TestReleaseByNameGivesBackAlsoWhereTheClockHasSteppedBack(t *testing.T) {
	for name, store := range everyStore(t) {
		t.Run(name, func(t *testing.T) {
			ctx, clock := t.Context(), quotatest.NewClock(morning)
			tracker := startOn(t, store, withClock(clock))
			_, err := tracker.Reserve(ctx, "calls", quota.Requests(40))
			require.NoError(t, err)
			clock.Set(morning.Add(-time.Second))
			require.NoError(t, tracker.Release(ctx, "calls", quota.Requests(40)))
			require.Equal(t, stand{0, 0}, standOf(t, tracker, "calls"))
		})
	}
}

func TestAReportOfTheProviderCountsAlsoWhereTheClockHasSteppedBack(t *testing.T) {
	for name, store := range everyStore(t) {
		t.Run(name, func(t *testing.T) {
			ctx, clock := t.Context(), quotatest.NewClock(morning)
			none := int64(0)
			tracker := startOn(t, store, withClock(clock), withQuotas(
				quota.Quota{Name: "minute", Limits: []quota.Limit{{Max: 60, Window: quota.Every(time.Minute)}}},
				quota.Quota{Name: "refill", Limits: []quota.Limit{{Max: 60, Window: quota.Refill(time.Minute)}}},
				quota.Quota{Name: "closed", Limits: []quota.Limit{{Max: 60}}}))
			for _, q := range []string{"minute", "refill", "closed"} {
				require.NoError(t, tracker.RecordUsage(ctx, q))
			}
			clock.Set(morning.Add(-30 * time.Second))
			require.NoError(t, tracker.Observe(ctx, "minute", quota.Observation{Remaining: &none}))
			require.NoError(t, tracker.Observe(ctx, "refill", quota.Observation{Remaining: &none}))
			require.NoError(t, tracker.Observe(ctx, "closed", quota.Observation{RetryAfter: 20 * time.Second}))
			for _, q := range []string{"minute", "refill", "closed"} {
				if tracker.CanUse(q) {
					t.Errorf("%s: it admits what the provider has just said it does not", q)
				}
			}
		})
	}
}

func TestUsageSettlesWhatWasGrantedSinceTheLimitsWereSet(t *testing.T) {
	for name, store := range everyStore(t) {
		t.Run(name, func(t *testing.T) {
			ctx := t.Context()
			tracker := startOn(t, store)
			_, err := tracker.Reserve(ctx, "calls")
			require.NoError(t, err)
			require.NoError(t, tracker.SetQuotas(ctx, []quota.Quota{{Name: "calls", Limits: []quota.Limit{{Max: 100},
				{Max: 5, Window: quota.Every(time.Minute)}}}}))
			_, err = tracker.Reserve(ctx, "calls")
			require.NoError(t, err)
			require.NoError(t, tracker.RecordUsage(ctx, "calls", quota.Requests(2)))
			require.Equal(t, stand{2, 0}, standOf(t, tracker, "calls"))
		})
	}
}
