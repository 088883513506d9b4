package quota_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/quota"
	"example.com/quota/quotatest"
)

func TestABookOfATemplateIsDroppedAlsoAfterAReset(t *testing.T) {
	for name, window := range map[string]quota.Window{"day": quota.Daily(nil), "in flight": quota.InFlight(), "session": quota.Session(time.Hour), "rolling": quota.Rolling(time.Hour)} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, clock, store := t.Context(), quotatest.NewClock(morning), newSharedStore()
				tracker := startOn(t, store, withClock(clock), withQuotas(quota.Quota{Name: "u:*", Limits: []quota.Limit{{Max: 10, Window: window}}}))
				require.NoError(t, tracker.RecordUsage(ctx, "u:x"))
				require.NoError(t, tracker.Reset(ctx, "u:x"))
				for range 20 {
					clock.Advance(24 * time.Hour)
					synctest.Wait()
				}
				require.Empty(t, store.texts())
			})
		})
	}
}

func TestARefusalOfATemplateWritesNoEmptyBookDaysLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, clock, store := t.Context(), quotatest.NewClock(morning), newSharedStore()
		tracker := startOn(t, store, withClock(clock), withQuotas(quota.Quota{Name: "u:*", Limits: []quota.Limit{{Max: 0}}}))
		_, err := tracker.Reserve(ctx, "u:x")
		require.ErrorIs(t, err, quota.ErrExceeded)
		for range 6 {
			clock.Advance(24 * time.Hour)
			synctest.Wait()
		}
		require.Zero(t, store.writes)
	})
}
