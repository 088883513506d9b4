package quota_test

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/quota"
	"example.com/quota/quotatest"
)

// monday is where the clock of quotatest.New stands.
var monday = time.Date(2026, time.January, 5, 0, 0, 0, 0, time.UTC)

// per is a quota "q" with one hard limit.
func per(window quota.Window, unit quota.Unit, most int64) quota.Quota {
	return quota.Quota{Name: "q", Limits: []quota.Limit{{Unit: unit, Max: most, Window: window}}}
}

// daily is a quota "q" of so many requests per day.
func daily(most int64) quota.Quota { return per(quota.Daily(nil), quota.UnitRequests, most) }

// start returns a tracker of cfg that is verified and closed when the test ends.
func start(t *testing.T, cfg quota.Config) *quota.QuotaTracker {
	t.Helper()
	if cfg.Persistence == nil {
		cfg.Persistence = quota.InMemory()
	}
	if cfg.Clock == nil {
		cfg.Clock = quotatest.NewClock(monday)
	}
	cfg.Logger = slog.New(slog.DiscardHandler)
	tracker, err := quota.New(t.Context(), cfg)
	require.NoError(t, err)
	t.Cleanup(func() {
		require.NoError(t, tracker.Verify())
		_ = tracker.Close()
	})
	return tracker
}

// limitOf is how the first limit of a quota stands.
func limitOf(t *testing.T, tracker *quota.QuotaTracker, name string) quota.LimitStatus {
	t.Helper()
	status := statusOf(t, tracker, name)
	require.NotEmpty(t, status.Limits)
	return status.Limits[0]
}

func statusOf(t *testing.T, tracker *quota.QuotaTracker, name string) quota.QuotaStatus {
	t.Helper()
	status, known := tracker.Status(name)
	require.True(t, known)
	return status
}

// requireLimit checks what the first limit of a quota has used and reserved.
func requireLimit(t *testing.T, tracker *quota.QuotaTracker, name string, used, reserved int64) {
	t.Helper()
	limit := limitOf(t, tracker, name)
	require.Equal(t, [2]int64{used, reserved}, [2]int64{limit.Used, limit.Reserved}, "used and reserved of %s", name)
}

func mustReserve(t *testing.T, tracker *quota.QuotaTracker, name string, amounts ...quota.Amount) *quota.Reservation {
	t.Helper()
	r, err := tracker.Reserve(t.Context(), name, amounts...)
	require.NoError(t, err)
	return r
}

func record(t *testing.T, tracker *quota.QuotaTracker, name string, amounts ...quota.Amount) {
	t.Helper()
	require.NoError(t, tracker.RecordUsage(t.Context(), name, amounts...))
}

// refusal is the *ExceededError behind err.
func refusal(t *testing.T, err error) *quota.ExceededError {
	t.Helper()
	require.ErrorIs(t, err, quota.ErrExceeded)
	var exceeded *quota.ExceededError
	require.ErrorAs(t, err, &exceeded)
	return exceeded
}

// memory is a Persistence that outlives its trackers, in the form in which a state is kept elsewhere.
type memory struct {
	mu    sync.Mutex // protects what follows
	saved []byte
	saves int
	fails error
	gate  chan struct{} // when set, a Save waits until it is closed
	came  chan struct{} // when set, a Save that waits says so
}

func (m *memory) Load(context.Context) (*quota.State, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.saved == nil {
		return nil, nil
	}
	var s quota.State
	if err := json.Unmarshal(m.saved, &s); err != nil {
		return nil, err
	}
	return &s, nil
}

func (m *memory) Save(ctx context.Context, s *quota.State) error {
	data, err := json.Marshal(s)
	if err != nil {
		return err
	}
	m.mu.Lock()
	gate, came := m.gate, m.came
	m.mu.Unlock()
	if gate != nil {
		if came != nil {
			came <- struct{}{}
		}
		select {
		case <-gate:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fails != nil {
		return m.fails
	}
	m.saved = data
	m.saves++
	return nil
}

// block makes every further Save say that it came and wait for the function returned.
func (m *memory) block() (unblock func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	gate := make(chan struct{})
	m.gate, m.came = gate, make(chan struct{}, 100)
	return func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.gate = nil
		close(gate)
	}
}

func (m *memory) fail(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.fails = err
}

var errDiskFull = errors.New("disk full")

// firedAlerts collects alerts.
type firedAlerts struct {
	mu     sync.Mutex // protects alerts
	alerts []quota.Alert
}

func (l *firedAlerts) add(a quota.Alert) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.alerts = append(l.alerts, a)
}

func (l *firedAlerts) all() []quota.Alert {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]quota.Alert(nil), l.alerts...)
}

// thresholds are those of the alerts so far.
func (l *firedAlerts) thresholds() []int {
	list := []int{}
	for _, a := range l.all() {
		list = append(list, a.Threshold)
	}
	return list
}

// The behaviours of the tool this library grew out of, one test each.

// gemini is a tracker of the default quotas with an alert log; clock stands at noon.
func gemini(t *testing.T, kept *memory, clock *quotatest.Clock) (*quota.QuotaTracker, *firedAlerts) {
	t.Helper()
	alerts := &firedAlerts{}
	return start(t, quota.Config{Persistence: kept, Clock: clock, OnAlert: alerts.add}), alerts
}

func noon() *quotatest.Clock { return quotatest.NewClock(monday.Add(12 * time.Hour)) }

func TestQuotaResetsAtMidnightUTC(t *testing.T) {
	clock := noon()
	tracker, _ := gemini(t, &memory{}, clock)
	record(t, tracker, "gemini_cli", quota.Requests(1500))
	require.False(t, tracker.CanUse("gemini_cli"))
	clock.Set(monday.AddDate(0, 0, 1))
	requireLimit(t, tracker, "gemini_cli", 0, 0)
	require.True(t, tracker.CanUse("gemini_cli", quota.Requests(1500)))
}

func TestQuotaDoesNotResetBeforeMidnight(t *testing.T) {
	clock := noon()
	tracker, _ := gemini(t, &memory{}, clock)
	record(t, tracker, "gemini_cli", quota.Requests(100))
	clock.Set(monday.AddDate(0, 0, 1).Add(-time.Nanosecond))
	requireLimit(t, tracker, "gemini_cli", 100, 0)
}

func TestResetSurvivesRestart(t *testing.T) {
	kept, clock := &memory{}, noon()
	first, _ := gemini(t, kept, clock)
	record(t, first, "gemini_cli", quota.Requests(1000))
	require.NoError(t, first.Close())
	clock.Advance(24 * time.Hour)
	second, _ := gemini(t, kept, clock)
	requireLimit(t, second, "gemini_cli", 0, 0)
	record(t, second, "gemini_cli", quota.Requests(7))
	require.NoError(t, second.Close())
	third, _ := gemini(t, kept, clock)
	requireLimit(t, third, "gemini_cli", 7, 0)
}

func TestAlertAtFiftyPercentNamesQuotaThresholdAndUsage(t *testing.T) {
	tracker, alerts := gemini(t, &memory{}, noon())
	record(t, tracker, "gemini_cli", quota.Requests(749))
	require.Empty(t, alerts.all())
	record(t, tracker, "gemini_cli")
	require.Len(t, alerts.all(), 1)
	alert := alerts.all()[0]
	require.Equal(t, "gemini_cli", alert.Quota)
	require.Equal(t, 50, alert.Threshold)
	require.EqualValues(t, 750, alert.Used)
	require.EqualValues(t, 1500, alert.Limit.Max)
	require.Equal(t, "gemini_cli has used 50% of its requests per day: 750/1500, resets in 12h", alert.String())
}

func TestTwelveHundredInOneGoAlertsFiftyAndEighty(t *testing.T) {
	tracker, alerts := gemini(t, &memory{}, noon())
	record(t, tracker, "gemini_cli", quota.Requests(1200))
	require.Equal(t, []int{50, 80}, alerts.thresholds())
}

func TestThirteenHundredFiftyAlertsFiftyEightyAndNinety(t *testing.T) {
	tracker, alerts := gemini(t, &memory{}, noon())
	record(t, tracker, "gemini_cli", quota.Requests(1350))
	require.Equal(t, []int{50, 80, 90}, alerts.thresholds())
}

func TestFurtherUsageAfterAnAlertStaysSilent(t *testing.T) {
	tracker, alerts := gemini(t, &memory{}, noon())
	record(t, tracker, "gemini_cli", quota.Requests(750))
	record(t, tracker, "gemini_cli", quota.Requests(100))
	require.Equal(t, []int{50}, alerts.thresholds())
}

func TestUsageSurvivesRestart(t *testing.T) {
	kept, clock := &memory{}, noon()
	first, _ := gemini(t, kept, clock)
	record(t, first, "gemini_cli", quota.Requests(812))
	record(t, first, "claude_api", quota.Tokens(120000))
	require.NoError(t, first.Close())
	second, _ := gemini(t, kept, clock)
	requireLimit(t, second, "gemini_cli", 812, 0)
	requireLimit(t, second, "claude_api", 120000, 0)
}

func TestFileWithBadJSONDoesNotStopTheStart(t *testing.T) {
	path := filepath.Join(t.TempDir(), "quota_state.json")
	require.NoError(t, os.WriteFile(path, []byte("{ this is not JSON"), 0o600))
	tracker := start(t, quota.Config{Persistence: quota.NewJSONFile(path)})
	requireLimit(t, tracker, "gemini_cli", 0, 0)
	require.NotEmpty(t, tracker.Summary().Recovered, "a corrupt file must not silently become zero usage")
	record(t, tracker, "gemini_cli")
	requireLimit(t, tracker, "gemini_cli", 1, 0)
}

func TestNoFileIsAFreshStart(t *testing.T) {
	path := filepath.Join(t.TempDir(), "below", "quota_state.json")
	tracker := start(t, quota.Config{Persistence: quota.NewJSONFile(path)})
	requireLimit(t, tracker, "gemini_cli", 0, 0)
	require.Empty(t, tracker.Summary().Recovered)
	record(t, tracker, "gemini_cli")
	require.FileExists(t, path)
}

func TestReservingFiveHundredMakesElevenHundredMoreUnavailable(t *testing.T) {
	tracker, _ := gemini(t, &memory{}, noon())
	mustReserve(t, tracker, "gemini_cli", quota.Requests(500))
	requireLimit(t, tracker, "gemini_cli", 0, 500)
	require.False(t, tracker.CanUse("gemini_cli", quota.Requests(1100)))
	require.True(t, tracker.CanUse("gemini_cli", quota.Requests(1000)))
	require.False(t, tracker.CanUse("gemini_cli", quota.Requests(1001)))
}

func TestReleasingThreeHundredOfFiveHundredLeavesTwoHundredReserved(t *testing.T) {
	tracker, _ := gemini(t, &memory{}, noon())
	mustReserve(t, tracker, "gemini_cli", quota.Requests(500))
	require.NoError(t, tracker.Release(t.Context(), "gemini_cli", quota.Requests(300)))
	requireLimit(t, tracker, "gemini_cli", 0, 200)
}

func TestRecordingThreeHundredOfFiveHundredReservedLeavesTwoHundredReserved(t *testing.T) {
	tracker, _ := gemini(t, &memory{}, noon())
	mustReserve(t, tracker, "gemini_cli", quota.Requests(500))
	record(t, tracker, "gemini_cli", quota.Requests(300))
	requireLimit(t, tracker, "gemini_cli", 300, 200)
}

func TestTwoThousandOfFifteenHundredCannotBeReservedAndHoldsNothing(t *testing.T) {
	tracker, _ := gemini(t, &memory{}, noon())
	_, err := tracker.Reserve(t.Context(), "gemini_cli", quota.Requests(2000))
	require.True(t, refusal(t, err).Never)
	requireLimit(t, tracker, "gemini_cli", 0, 0)
	require.Zero(t, statusOf(t, tracker, "gemini_cli").Reservations)
}

func TestSummaryNamesUsedLimitRemainingAndPercent(t *testing.T) {
	tracker, _ := gemini(t, &memory{}, noon())
	record(t, tracker, "gemini_cli", quota.Requests(800))
	summary := tracker.Summary("gemini_cli")
	require.Len(t, summary.Quotas, 1)
	require.Equal(t, "gemini_cli", summary.Quotas[0].Name)
	limit := summary.Quotas[0].Limits[0]
	require.EqualValues(t, 800, limit.Used)
	require.EqualValues(t, 1500, limit.Max)
	require.EqualValues(t, 700, limit.Remaining)
	require.InDelta(t, 53.3, limit.Percent, 0.05)
}

func TestSummaryNamesAlertsFired(t *testing.T) {
	tracker, _ := gemini(t, &memory{}, noon())
	record(t, tracker, "gemini_cli", quota.Requests(1200))
	status := tracker.Summary("gemini").Quotas[0]
	require.Equal(t, []int{50, 80}, status.Limits[0].AlertsFired)
	require.Equal(t, []string{"50% of requests per day", "80% of requests per day"}, status.Today.Alerts)
}

func TestWholeLifeFromReservationToRestart(t *testing.T) {
	kept, clock := &memory{}, noon()
	first, alerts := gemini(t, kept, clock)
	mustReserve(t, first, "gemini_cli", quota.Requests(200))
	record(t, first, "gemini_cli", quota.Requests(500))
	requireLimit(t, first, "gemini_cli", 500, 0)
	require.Empty(t, alerts.all())
	record(t, first, "gemini_cli", quota.Requests(300))
	require.Equal(t, []int{50}, alerts.thresholds())
	require.NoError(t, first.Close())
	second, again := gemini(t, kept, clock)
	requireLimit(t, second, "gemini_cli", 800, 0)
	require.Empty(t, again.all())
}

func TestStatusTextShowsNameNumbersBarAndTimeToReset(t *testing.T) {
	tracker, _ := gemini(t, &memory{}, noon())
	record(t, tracker, "gemini_cli", quota.Requests(750))
	text := tracker.DisplayStatus()
	require.Equal(t, tracker.Summary().String(), text)
	for _, part := range []string{"gemini_cli", "750/1500", "█", "░", "resets in 12h", "50.0 %"} {
		require.Contains(t, text, part)
	}
	require.NotContains(t, strings.ToLower(text), "\x1b")
}

// What that tool got wrong.

func TestTwoTrackersRecordingOnOneFileLoseNothing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "quota_state.json")
	clock := noon()
	var done sync.WaitGroup
	errs := make(chan error, 80)
	for range 2 {
		tracker := start(t, quota.Config{Persistence: quota.NewJSONFile(path), Clock: clock})
		done.Go(func() {
			for range 40 {
				errs <- tracker.RecordUsage(context.Background(), "gemini_cli")
			}
		})
	}
	done.Wait()
	for range 80 {
		require.NoError(t, <-errs)
	}
	third := start(t, quota.Config{Persistence: quota.NewJSONFile(path), Clock: clock})
	requireLimit(t, third, "gemini_cli", 80, 0)
}

func TestUnknownNameIsNotUnlimited(t *testing.T) {
	tracker, _ := quotatest.New(t)
	_, err := tracker.Reserve(t.Context(), "gemini_clii")
	require.ErrorIs(t, err, quota.ErrUnknownQuota)
	require.ErrorContains(t, err, "gemini_clii")
	require.ErrorIs(t, tracker.RecordUsage(t.Context(), "gemini_clii"), quota.ErrUnknownQuota)
	require.ErrorIs(t, tracker.Release(t.Context(), "gemini_clii", quota.Requests(1)), quota.ErrUnknownQuota)
	require.ErrorIs(t, tracker.Observe(t.Context(), "gemini_clii", quota.Observation{}), quota.ErrUnknownQuota)
	require.ErrorIs(t, tracker.Reset(t.Context(), "gemini_clii"), quota.ErrUnknownQuota)
	require.False(t, tracker.CanUse("gemini_clii"))
	require.ErrorIs(t, tracker.Check("gemini_clii").Err, quota.ErrUnknownQuota)
	_, known := tracker.Status("gemini_clii")
	require.False(t, known)
	require.Empty(t, tracker.Summary("gemini_clii").Quotas)
	require.Nil(t, tracker.History("gemini_clii"))
	_, err = tracker.ReserveAny(t.Context(), []string{"gemini_cli", "gemini_clii"})
	require.ErrorIs(t, err, quota.ErrUnknownQuota, "also where another candidate would admit")
	requireLimit(t, tracker, "gemini_cli", 0, 0)
	_, err = tracker.Wait(t.Context(), "gemini_clii")
	require.ErrorIs(t, err, quota.ErrUnknownQuota)
}

func TestYesterdaysSummaryIsThereAfterMidnight(t *testing.T) {
	kept, clock := &memory{}, noon()
	first, _ := gemini(t, kept, clock)
	record(t, first, "gemini_cli", quota.Requests(700))
	clock.Advance(24 * time.Hour)
	days := first.History("gemini_cli")
	require.Len(t, days, 1)
	require.EqualValues(t, 700, days[0].Used[quota.UnitRequests])
	require.Equal(t, monday, days[0].Day)
	record(t, first, "gemini_cli")
	require.NoError(t, first.Close())
	second, _ := gemini(t, kept, clock)
	again := second.History("gemini")
	require.Len(t, again, 1)
	require.Equal(t, days[0].Used, again[0].Used)
	require.Equal(t, days[0].Day, again[0].Day)
}

func TestReservationsSurviveMidnightAndRestart(t *testing.T) {
	kept, clock := &memory{}, quotatest.NewClock(monday.Add(24*time.Hour-time.Minute))
	first, _ := gemini(t, kept, clock)
	r := mustReserve(t, first, "gemini_cli", quota.Requests(100))
	require.NoError(t, first.Close())
	clock.Advance(2 * time.Minute)
	second, _ := gemini(t, kept, clock)
	requireLimit(t, second, "gemini_cli", 0, 100)
	again, err := second.Reservation(t.Context(), r.ID())
	require.NoError(t, err)
	require.NoError(t, again.Commit(t.Context(), quota.Requests(60)))
	requireLimit(t, second, "gemini_cli", 60, 0)
}

func nan() float64 { return math.NaN() }
