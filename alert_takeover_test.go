package quota_test

import (
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/quota"
	"example.com/quota/quotatest"
)

func TestAlertsBehindSlowCallbacksAreToldOnce(t *testing.T) {
	clock := quotatest.NewClock(morning)
	path := filepath.Join(t.TempDir(), "quota_state.json")
	open := func(onAlert func(quota.Alert)) *quota.QuotaTracker {
		return startOn(t, quota.NewJSONFile(path), withClock(clock), withAlerts(onAlert))
	}
	var mu sync.Mutex
	told := map[string]int{}
	note := func(a quota.Alert) {
		mu.Lock()
		defer mu.Unlock()
		told[a.ID]++
	}
	other := open(note)
	slow := open(func(a quota.Alert) {
		clock.Advance(25 * time.Second) // the callback takes so long
		require.NoError(t, other.RecordUsage(t.Context(), "calls", quota.Requests(0)))
		note(a)
	})
	require.NoError(t, slow.RecordUsage(t.Context(), "calls", quota.Requests(95)))
	require.Len(t, told, 3)
	for id, times := range told {
		require.Equal(t, 1, times, id)
	}
}

func TestAnAlertOfADeadTrackerIsTakenOverByOneThatIsBusyElsewhere(t *testing.T) {
	clock := quotatest.NewClock(morning)
	path := filepath.Join(t.TempDir(), "quota_state.json")
	quotas := withQuotas(quota.Quota{Name: "a", Limits: []quota.Limit{{Max: 10}}}, quota.Quota{Name: "b"})
	log := &alertLog{}
	heir := startOn(t, quota.NewJSONFile(path), withClock(clock), quotas, withAlerts(log.note))
	reached, hang := make(chan struct{}), make(chan struct{})
	dying := startOn(t, quota.NewJSONFile(path), withClock(clock), quotas, withAlerts(func(quota.Alert) {
		close(reached)
		<-hang // as if its process died here
	}))
	done := make(chan error)
	go func() { done <- dying.RecordUsage(t.Context(), "a", quota.Requests(5)) }()
	<-reached
	clock.Advance(2 * time.Minute)
	for range 10 {
		require.NoError(t, heir.RecordUsage(t.Context(), "b"))
		clock.Advance(time.Hour / 2)
	}
	got := log.thresholds()
	close(hang)
	require.NoError(t, <-done)
	require.Equal(t, []int{50}, got)
}

func TestAlertsBehindCallbacksOfLessThanAMinuteAreToldOnce(t *testing.T) {
	clock := quotatest.NewClock(morning)
	path := filepath.Join(t.TempDir(), "quota_state.json")
	open := func(onAlert func(quota.Alert)) *quota.QuotaTracker {
		return startOn(t, quota.NewJSONFile(path), withClock(clock), withAlerts(onAlert))
	}
	var mu sync.Mutex
	told := map[string]int{}
	note := func(a quota.Alert) {
		mu.Lock()
		defer mu.Unlock()
		told[a.ID]++
	}
	other := open(note)
	took := []time.Duration{28 * time.Second, 35 * time.Second, time.Second}
	slow := open(func(a quota.Alert) {
		clock.Advance(took[0])
		took = took[1:]
		require.NoError(t, other.RecordUsage(t.Context(), "calls", quota.Requests(0)))
		note(a)
	})
	require.NoError(t, slow.RecordUsage(t.Context(), "calls", quota.Requests(95)))
	require.Len(t, told, 3)
	for id, times := range told {
		require.Equal(t, 1, times, id)
	}
}

func TestTheNextSaveOfAnIdleTrackerTakesOverTheAlertsOfADeadOne(t *testing.T) {
	clock := quotatest.NewClock(morning)
	path := filepath.Join(t.TempDir(), "quota_state.json")
	quotas := withQuotas(quota.Quota{Name: "a", Limits: []quota.Limit{{Max: 10}}}, quota.Quota{Name: "b"})
	log := &alertLog{}
	heir := startOn(t, quota.NewJSONFile(path), withClock(clock), quotas, withAlerts(log.note))
	reached, hang := make(chan struct{}), make(chan struct{})
	dying := startOn(t, quota.NewJSONFile(path), withClock(clock), quotas, withAlerts(func(quota.Alert) {
		close(reached)
		<-hang // as if its process died here
	}))
	done := make(chan error)
	go func() { done <- dying.RecordUsage(t.Context(), "a", quota.Requests(5)) }()
	<-reached
	clock.Advance(5 * time.Hour) // the heir has not been called since it began
	require.NoError(t, heir.RecordUsage(t.Context(), "b"))
	got := log.thresholds()
	close(hang)
	require.NoError(t, <-done)
	require.Equal(t, []int{50}, got)
}

func TestAfterAResetASessionAlertsUnderAnotherID(t *testing.T) {
	var ids []string
	tracker := startOn(t, quota.InMemory(), withAlerts(func(a quota.Alert) { ids = append(ids, a.ID) }),
		withQuotas(quota.Quota{Name: "calls", Limits: []quota.Limit{{Max: 10, Window: quota.Session(5 * time.Hour), AlertThresholds: []int{50}}}}))
	require.NoError(t, tracker.RecordUsage(t.Context(), "calls", quota.Requests(5)))
	require.NoError(t, tracker.Reset(t.Context(), "calls"))
	require.NoError(t, tracker.RecordUsage(t.Context(), "calls", quota.Requests(5)))
	require.Len(t, ids, 2)
	require.NotEqual(t, ids[0], ids[1])
}
