package quota_test

import (
	"path/filepath"
	"testing"
	"time"

	"example.com/quota"
	"example.com/quota/quotatest"
	"github.com/stretchr/testify/require"
)

func TestAnAlertOfADeadTrackerIsTakenOverByAChangeOfAnotherQuota(t *testing.T) {
	clock := quotatest.NewClock(time.Date(2026, 1, 5, 12, 0, 0, 0, time.UTC))
	path := filepath.Join(t.TempDir(), "quota_state.json")
	hang := make(chan struct{})
	open := func(onAlert func(quota.Alert)) *quota.QuotaTracker {
		tracker, err := quota.New(t.Context(), quota.Config{
			Persistence: quota.NewJSONFile(path), Clock: clock, OnAlert: onAlert,
			Quotas: []quota.Quota{{Name: "a", Limits: []quota.Limit{{Max: 10}}}, {Name: "b"}},
		})
		require.NoError(t, err)
		return tracker
	}
	delivering := make(chan quota.Alert)
	dying := open(func(a quota.Alert) {
		delivering <- a
		<-hang
	})
	done := make(chan error)
	go func() { done <- dying.RecordUsage(t.Context(), "a", quota.Requests(5)) }()
	undelivered := <-delivering

	var taken []quota.Alert
	heir := open(func(a quota.Alert) { taken = append(taken, a) })
	require.NoError(t, heir.RecordUsage(t.Context(), "b"))
	require.Empty(t, taken, "the other tracker has a minute")
	clock.Advance(time.Minute)
	require.NoError(t, heir.RecordUsage(t.Context(), "b"))
	require.Len(t, taken, 1)
	require.Equal(t, undelivered.ID, taken[0].ID)
	require.NoError(t, heir.RecordUsage(t.Context(), "b"))
	require.Len(t, taken, 1)

	close(hang)
	require.NoError(t, <-done)
	require.NoError(t, dying.Close())
	require.NoError(t, heir.Verify())
	require.NoError(t, heir.Close())
}

func TestAlertsThatNewFindsDueGoOutWithTheFirstChangeOfAnyQuota(t *testing.T) {
	path := filepath.Join(t.TempDir(), "quota_state.json")
	var alerts []quota.Alert
	open := func(most int64) *quota.QuotaTracker {
		tracker, err := quota.New(t.Context(), quota.Config{
			Persistence: quota.NewJSONFile(path), OnAlert: func(a quota.Alert) { alerts = append(alerts, a) },
			Quotas: []quota.Quota{{Name: "a", Limits: []quota.Limit{{Max: most, Window: quota.Lifetime()}}}, {Name: "b"}},
		})
		require.NoError(t, err)
		return tracker
	}
	tracker := open(100)
	require.NoError(t, tracker.RecordUsage(t.Context(), "a", quota.Requests(5)))
	require.NoError(t, tracker.Close())
	tracker = open(10)
	require.True(t, tracker.CanUse("a"))
	require.Empty(t, alerts, "asking delivers nothing")
	require.NoError(t, tracker.RecordUsage(t.Context(), "b"))
	require.Len(t, alerts, 1)
	require.NoError(t, tracker.Close())
}
