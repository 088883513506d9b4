package quota_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/quota"
	"example.com/quota/quotatest"
)

// alerting returns a tracker of quotas with an alert log.
func alerting(t *testing.T, quotas ...quota.Quota) (*quota.QuotaTracker, *quotatest.Clock, *firedAlerts) {
	t.Helper()
	clock, alerts := quotatest.NewClock(monday), &firedAlerts{}
	return start(t, quota.Config{Clock: clock, OnAlert: alerts.add, Quotas: quotas}), clock, alerts
}

func TestAlertsCountWhatIsUsedNotWhatIsReserved(t *testing.T) {
	tracker, _, alerts := alerting(t, daily(10))
	r := mustReserve(t, tracker, "q", quota.Requests(9))
	require.Empty(t, alerts.all())
	require.NoError(t, r.Release(t.Context()))
	require.Empty(t, alerts.all())
	r = mustReserve(t, tracker, "q", quota.Requests(9))
	require.NoError(t, r.Commit(t.Context(), quota.Requests(5)))
	require.Equal(t, []int{50}, alerts.thresholds())
}

func TestAlertSaysWhatCrossedAndWhen(t *testing.T) {
	tracker, clock, alerts := alerting(t, daily(10))
	clock.Advance(90 * time.Minute)
	record(t, tracker, "q", quota.Requests(8))
	all := alerts.all()
	require.Equal(t, []int{50, 80}, alerts.thresholds())
	for _, alert := range all {
		require.Equal(t, "q", alert.Quota)
		require.EqualValues(t, 8, alert.Used)
		require.Equal(t, "requests per day", alert.Limit.String())
		require.Equal(t, monday.Add(90*time.Minute), alert.At)
		require.Equal(t, monday, alert.WindowStart)
		require.Equal(t, monday.AddDate(0, 0, 1), alert.WindowEnd)
	}
	require.NotEqual(t, all[0].ID, all[1].ID)
}

func TestTurnRearmsAlertsAndRefundsDoNot(t *testing.T) {
	tracker, clock, alerts := alerting(t, per(quota.Every(time.Hour), "", 10))
	r := mustReserve(t, tracker, "q", quota.Requests(5))
	clock.Advance(15 * time.Minute) // it expires, and is charged
	require.Equal(t, []int{50}, alerts.thresholds())
	require.NoError(t, r.Release(t.Context()))
	record(t, tracker, "q", quota.Requests(5))
	require.Equal(t, []int{50}, alerts.thresholds())
	clock.Advance(time.Hour)
	record(t, tracker, "q", quota.Requests(5))
	require.Equal(t, []int{50, 50}, alerts.thresholds())
	require.NotEqual(t, alerts.all()[0].ID, alerts.all()[1].ID)
}

func TestRollingAndRefillRearmBelowTheThresholdAfterALength(t *testing.T) {
	for _, window := range []quota.Window{quota.Rolling(time.Hour), quota.Refill(time.Hour)} {
		t.Run(window.String(), func(t *testing.T) {
			tracker, clock, alerts := alerting(t, per(window, "", 100))
			record(t, tracker, "q", quota.Requests(50))
			require.Equal(t, []int{50}, alerts.thresholds())
			clock.Advance(30 * time.Minute)
			more := int64(25)
			if window == quota.Refill(time.Hour) {
				more = 60 // half has flowed back: this crosses the threshold again, within an hour
			}
			record(t, tracker, "q", quota.Requests(more))
			clock.Advance(29 * time.Minute)
			require.NoError(t, tracker.Release(t.Context(), "q", quota.Requests(1)))
			record(t, tracker, "q", quota.Requests(1))
			require.Equal(t, []int{50}, alerts.thresholds())
			clock.Advance(62 * time.Minute)
			record(t, tracker, "q", quota.Requests(50))
			require.Equal(t, []int{50, 50}, alerts.thresholds())
		})
	}
}

func TestLifetimeAlertsOnceAndInFlightNever(t *testing.T) {
	tracker, clock, alerts := alerting(t, per(quota.Lifetime(), "", 10), quota.Quota{Name: "flight", Limits: []quota.Limit{
		{Max: 2, Window: quota.InFlight(), AlertThresholds: []int{50}},
	}})
	record(t, tracker, "q", quota.Requests(5))
	clock.Advance(400 * 24 * time.Hour)
	record(t, tracker, "q", quota.Requests(1))
	require.Equal(t, []int{50}, alerts.thresholds())
	r := mustReserve(t, tracker, "flight", quota.Requests(2))
	require.NoError(t, r.Commit(t.Context()))
	require.Equal(t, []int{50}, alerts.thresholds())
}

func TestThresholdsComeFromTheLimitElseTheConfigElseNoneForShortWindows(t *testing.T) {
	clock, alerts := quotatest.NewClock(monday), &firedAlerts{}
	tracker := start(t, quota.Config{Clock: clock, OnAlert: alerts.add, AlertThresholds: []int{75, 25, 25}, Quotas: []quota.Quota{
		{Name: "config", Limits: []quota.Limit{{Max: 100}}},
		{Name: "own", Limits: []quota.Limit{{Max: 100, AlertThresholds: []int{100, 10}}}},
		{Name: "short", Limits: []quota.Limit{{Max: 100, Window: quota.Every(time.Minute)}}},
		{Name: "own short", Limits: []quota.Limit{{Max: 100, Window: quota.Every(time.Minute), AlertThresholds: []int{60}}}},
		{Name: "hour", Limits: []quota.Limit{{Max: 100, Window: quota.Rolling(time.Hour)}}},
		{Name: "off", Limits: []quota.Limit{{Max: 100, NoAlerts: true, AlertThresholds: []int{10}}}},
		{Name: "soft", Limits: []quota.Limit{{Max: 100, Soft: true}}},
	}})
	for name, want := range map[string][]int{
		"config": {25, 75}, "own": {10, 100}, "short": nil, "own short": {60}, "hour": {25, 75}, "off": nil, "soft": {25, 75},
	} {
		before := len(alerts.all())
		record(t, tracker, name, quota.Requests(100))
		require.Equal(t, append([]int{}, want...), alerts.thresholds()[before:], name)
		require.Equal(t, want, limitOf(t, tracker, name).AlertsFired, name)
	}
	mustReserve(t, tracker, "soft")
}

func TestLimitOfZeroAlertsOnFirstUse(t *testing.T) {
	tracker, _, alerts := alerting(t, daily(0))
	require.Empty(t, alerts.all())
	record(t, tracker, "q")
	require.Equal(t, []int{50, 80, 90}, alerts.thresholds())
}

func TestAlertComesAfterTheSaveAndBeforeTheCallReturns(t *testing.T) {
	kept := &memory{}
	var savedFirst bool
	calls := 0
	tracker := start(t, quota.Config{Persistence: kept, Quotas: []quota.Quota{daily(10)}, OnAlert: func(quota.Alert) {
		calls++
		state, err := kept.Load(context.Background())
		savedFirst = err == nil && state != nil && len(state.Books) == 1
	}})
	record(t, tracker, "q", quota.Requests(5))
	require.Equal(t, 1, calls)
	require.True(t, savedFirst)
}

func TestAlertIsNotRepeatedAtARestart(t *testing.T) {
	kept, clock, alerts := &memory{}, quotatest.NewClock(monday), &firedAlerts{}
	cfg := quota.Config{Persistence: kept, Clock: clock, OnAlert: alerts.add, Quotas: []quota.Quota{daily(10)}}
	first := start(t, cfg)
	record(t, first, "q", quota.Requests(5))
	require.NoError(t, first.Close())
	for range 3 {
		again := start(t, cfg)
		record(t, again, "q", quota.Requests(0))
		require.NoError(t, again.Close())
	}
	require.Equal(t, []int{50}, alerts.thresholds())
	clock.Advance(24 * time.Hour)
	last := start(t, cfg)
	record(t, last, "q", quota.Requests(9))
	require.Equal(t, []int{50, 50, 80, 90}, alerts.thresholds(), "the new window alerts again")
}

func TestAlertThatNewFindsDueGoesOutWithTheFirstChange(t *testing.T) {
	kept, alerts := &memory{}, &firedAlerts{}
	first := start(t, quota.Config{Persistence: kept, Quotas: []quota.Quota{daily(100)}})
	record(t, first, "q", quota.Requests(20))
	require.NoError(t, first.Close())
	second := start(t, quota.Config{Persistence: kept, OnAlert: alerts.add, Quotas: []quota.Quota{daily(25), {Name: "other"}}})
	require.Empty(t, alerts.all(), "New itself calls nobody")
	require.Equal(t, []int{50, 80}, limitOf(t, second, "q").AlertsFired)
	record(t, second, "q", quota.Requests(0))
	require.Equal(t, []int{50, 80}, alerts.thresholds())
}

func TestUndeliveredAlertIsTakenOverAfterAMinute(t *testing.T) {
	kept, clock, alerts := &memory{}, quotatest.NewClock(monday), &firedAlerts{}
	reached, leave := make(chan struct{}), make(chan struct{})
	cfg := quota.Config{Persistence: kept, Clock: clock, Quotas: []quota.Quota{daily(100)}, OnAlert: func(quota.Alert) {
		close(reached)
		<-leave // as if its process died here
	}}
	dead := start(t, cfg)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = dead.RecordUsage(context.Background(), "q", quota.Requests(50))
	}()
	<-reached
	frozen := &memory{saved: slices.Clone(kept.saved)}
	cfg.Persistence, cfg.OnAlert = frozen, alerts.add
	heir := start(t, cfg)
	record(t, heir, "q")
	require.Empty(t, alerts.all())
	clock.Advance(time.Minute)
	record(t, heir, "q")
	require.Equal(t, []int{50}, alerts.thresholds())
	record(t, heir, "q")
	require.Equal(t, []int{50}, alerts.thresholds())
	close(leave)
	<-ended
}

func TestAlertCallbackMayCallTheTrackerAndWhatItCrossesComesAfterIt(t *testing.T) {
	var tracker *quota.QuotaTracker
	var order []string
	tracker = start(t, quota.Config{Quotas: []quota.Quota{daily(10), {Name: "other", Limits: []quota.Limit{{Max: 10}}}}, OnAlert: func(a quota.Alert) {
		order = append(order, fmt.Sprintf("begin %s %d", a.Quota, a.Threshold))
		if a.Quota == "q" {
			_ = tracker.RecordUsage(context.Background(), "other", quota.Requests(5))
			_ = tracker.Summary()
		}
		order = append(order, fmt.Sprintf("end %s %d", a.Quota, a.Threshold))
	}})
	record(t, tracker, "q", quota.Requests(5))
	require.Equal(t, []string{"begin q 50", "end q 50", "begin other 50", "end other 50"}, order)
}

func TestPanicInTheAlertCallbackIsRecovered(t *testing.T) {
	calls := 0
	tracker := start(t, quota.Config{Quotas: []quota.Quota{daily(10)}, OnAlert: func(quota.Alert) {
		calls++
		panic("a bug of the caller")
	}})
	record(t, tracker, "q", quota.Requests(8))
	require.Equal(t, 2, calls)
	requireLimit(t, tracker, "q", 8, 0)
}

func TestAlertsNeverRefuseAndComeOneAtATimeInOrder(t *testing.T) {
	var mu sync.Mutex // protects running and seen
	running, seen := 0, map[string][]int{}
	most := 0
	var quotas []quota.Quota
	for i := range 4 {
		quotas = append(quotas, quota.Quota{Name: fmt.Sprint(i), Limits: []quota.Limit{{Max: 100, AlertThresholds: []int{10, 20, 30, 40, 50, 60, 70}}}})
	}
	tracker := start(t, quota.Config{Quotas: quotas, OnAlert: func(a quota.Alert) {
		mu.Lock()
		running++
		most = max(most, running)
		seen[a.Quota] = append(seen[a.Quota], a.Threshold)
		mu.Unlock()
		mu.Lock()
		running--
		mu.Unlock()
	}})
	var done sync.WaitGroup
	for i := range 8 {
		done.Go(func() {
			for range 35 {
				_ = tracker.RecordUsage(context.Background(), fmt.Sprint(i%4))
			}
		})
	}
	done.Wait()
	require.Equal(t, 1, most)
	for i := range 4 {
		require.Equal(t, []int{10, 20, 30, 40, 50, 60, 70}, seen[fmt.Sprint(i)])
	}
}

func TestAlertWaitsForASaveThatFailed(t *testing.T) {
	kept, alerts := &memory{}, &firedAlerts{}
	tracker := start(t, quota.Config{Persistence: kept, OnAlert: alerts.add, Quotas: []quota.Quota{daily(10)}})
	record(t, tracker, "q")
	kept.fail(errDiskFull)
	require.ErrorIs(t, tracker.RecordUsage(t.Context(), "q", quota.Requests(5)), quota.ErrPending)
	require.Empty(t, alerts.all())
	kept.fail(nil)
	require.NoError(t, tracker.Flush(t.Context()))
	require.Equal(t, []int{50}, alerts.thresholds())
}

func TestAlertsFromATimerReachTheCallback(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		alerts := &firedAlerts{}
		tracker, err := quota.New(t.Context(), quota.Config{Persistence: &memory{}, OnAlert: alerts.add, Quotas: []quota.Quota{daily(10)}})
		require.NoError(t, err)
		mustReserve(t, tracker, "q", quota.Requests(10))
		<-time.After(15 * time.Minute) // of the bubble's clock
		synctest.Wait()
		require.Equal(t, []int{50, 80, 90}, alerts.thresholds())
		require.NoError(t, tracker.Verify())
		require.NoError(t, tracker.Close())
	})
}
