package quota_test

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/quota"
	"example.com/quota/quotatest"
)

// newStatePath returns a path for a state in a directory that does not exist yet.
func newStatePath(t *testing.T) string {
	t.Helper()
	return filepath.Join(t.TempDir(), "memory", "quota_state.json")
}

// besides lists the names beside a state.
func besides(t *testing.T, path string) []string {
	t.Helper()
	entries, err := os.ReadDir(filepath.Dir(path))
	require.NoError(t, err)
	var names []string
	for _, entry := range entries {
		names = append(names, entry.Name())
	}
	return names
}

func TestTrackersOnOneFileAdmitWhatTheLimitLeavesAndSeeEachOtherAtOnce(t *testing.T) {
	ctx := t.Context()
	path := newStatePath(t)
	var log alertLog
	one := startOn(t, quota.NewJSONFile(path), withAlerts(log.note))
	two := startOn(t, quota.NewJSONFile(path), withAlerts(log.note))
	require.NoError(t, one.RecordUsage(ctx, "calls", quota.Requests(60)))
	require.Equal(t, stand{60, 0}, standOf(t, two, "calls"))
	require.False(t, two.CanUse("calls", quota.Requests(41)))
	r, err := two.Reserve(ctx, "calls", quota.Requests(40))
	require.NoError(t, err)
	require.False(t, one.CanUse("calls"))
	_, err = one.Reserve(ctx, "calls")
	require.ErrorIs(t, err, quota.ErrExceeded)
	found, err := one.Reservation(ctx, r.ID())
	require.NoError(t, err)
	require.NoError(t, found.Commit(ctx, quota.Requests(30)))
	require.ErrorIs(t, r.Commit(ctx), quota.ErrSettled)
	require.Equal(t, stand{90, 0}, standOf(t, two, "calls"))
	require.Equal(t, []int{50, 80, 90}, log.thresholds())
}

func TestTrackersWithDifferentLimitsShareAFile(t *testing.T) {
	ctx := t.Context()
	path := newStatePath(t)
	both := quota.Quota{Name: "calls", Limits: []quota.Limit{{Max: 50}, {Unit: quota.UnitTokens, Max: 1000}}}
	one, two := startOn(t, quota.NewJSONFile(path)), startOn(t, quota.NewJSONFile(path), withQuotas(both))
	require.NoError(t, one.RecordUsage(ctx, "calls", quota.Requests(20), quota.Tokens(600)))
	require.NoError(t, two.RecordUsage(ctx, "calls", quota.Requests(20), quota.Tokens(300)))
	require.NoError(t, one.RecordUsage(ctx, "calls", quota.Requests(2), quota.Tokens(50)))
	require.True(t, one.CanUse("calls", quota.Requests(58)))
	require.False(t, two.CanUse("calls", quota.Requests(9)))
	status, _ := two.Status("calls")
	require.EqualValues(t, 42, status.Limits[0].Used)
	require.EqualValues(t, 950, status.Limits[1].Used, "a limit is charged by those too who do not know it")
	_, err := two.Reserve(ctx, "calls", quota.Tokens(51))
	require.ErrorIs(t, err, quota.ErrExceeded)
	_, err = one.Reserve(ctx, "calls", quota.Tokens(51))
	require.NoError(t, err)
}

func TestALimitThatNobodyConfiguresIsDroppedAfterTwoDays(t *testing.T) {
	ctx := t.Context()
	path := newStatePath(t)
	clock := quotatest.NewClock(morning)
	before := startOn(t, quota.NewJSONFile(path), withClock(clock), withQuotas(quota.Quota{
		Name: "calls", Limits: []quota.Limit{{Max: 100}, {Unit: quota.UnitTokens, Max: 1000, Window: quota.Lifetime()}},
	}))
	require.NoError(t, before.RecordUsage(ctx, "calls", quota.Tokens(7)))
	require.NoError(t, before.Close())
	kept := func() bool {
		tracker := startOn(t, quota.NewJSONFile(path), withClock(clock))
		require.NoError(t, tracker.RecordUsage(ctx, "calls"))
		require.NoError(t, tracker.Close())
		data, err := os.ReadFile(path)
		require.NoError(t, err)
		return strings.Contains(string(data), `"tokens lifetime"`) || strings.Contains(string(data), `"window": "lifetime"`)
	}
	clock.Advance(47 * time.Hour)
	require.True(t, kept())
	clock.Advance(2 * time.Hour)
	require.False(t, kept())
}

func TestFinishedDaysAreKeptInAFileForNinetyDays(t *testing.T) {
	ctx := t.Context()
	path := newStatePath(t)
	clock := quotatest.NewClock(morning)
	tracker := startOn(t, quota.NewJSONFile(path), withClock(clock))
	for day := range 93 {
		require.NoError(t, tracker.RecordUsage(ctx, "calls", quota.Requests(int64(day+1))))
		clock.Advance(24 * time.Hour)
	}
	days := tracker.History("calls")
	require.Len(t, days, 90)
	require.EqualValues(t, 93, days[89].Used[quota.UnitRequests], "yesterday is there although nobody has called today")
	require.NoError(t, tracker.Close())

	again := startOn(t, quota.NewJSONFile(path), withClock(clock))
	for i, day := range again.History("calls") {
		require.Equal(t, days[i].Day, day.Day)
		require.Equal(t, days[i].Used, day.Used)
		require.Equal(t, days[i].Alerts, day.Alerts)
	}
	require.EqualValues(t, 4, days[0].Used[quota.UnitRequests])
	require.Equal(t, stand{}, standOf(t, again, "calls"))
}

// A wrapped file is how somebody counts its saves, say: the tracker does not know that it is one.
type wrappedFile struct{ *quota.JSONFile }

func TestAWrappedFileLosesNoFinishedDays(t *testing.T) {
	ctx, clock := t.Context(), quotatest.NewClock(morning)
	path := newStatePath(t)
	tracker := startOn(t, wrappedFile{quota.NewJSONFile(path)}, withClock(clock))
	require.NoError(t, tracker.RecordUsage(ctx, "calls", quota.Requests(7)))
	clock.Advance(24 * time.Hour)
	require.NoError(t, tracker.RecordUsage(ctx, "calls"))
	require.NoError(t, tracker.RecordUsage(ctx, "calls"))
	require.Len(t, tracker.History("calls"), 1)
	require.NoError(t, tracker.SetQuotas(ctx, []quota.Quota{{Name: "calls", Limits: []quota.Limit{{Max: 100, Window: quota.Weekly(nil, time.Monday)}}}}))
	require.Equal(t, stand{9, 0}, standOf(t, tracker, "calls"))
	require.NoError(t, tracker.Close())
	require.Len(t, startOn(t, quota.NewJSONFile(path), withClock(clock)).History("calls"), 1)
}

func TestAFileDamagedUnderARunningTrackerIsMadeGoodFromItsMemory(t *testing.T) {
	for _, interval := range []time.Duration{0, time.Second} {
		for what, damage := range map[string]func(path string) error{
			"garbage":           func(path string) error { return os.WriteFile(path, []byte("{"), 0o600) },
			"empty":             func(path string) error { return os.Truncate(path, 0) },
			"gone":              os.Remove,
			"directory gone":    func(path string) error { return os.RemoveAll(filepath.Dir(path)) },
			"a generation back": func(path string) error { return os.Rename(path+".bak", path) },
		} {
			t.Run(what+" "+interval.String(), func(t *testing.T) {
				ctx := t.Context()
				path := newStatePath(t)
				clock := quotatest.NewClock(morning)
				tracker := startOn(t, quota.NewJSONFile(path), withClock(clock), withFlushInterval(interval))
				for range 3 {
					require.NoError(t, tracker.RecordUsage(ctx, "calls", quota.Requests(10)))
					clock.Advance(interval)
				}
				require.NoError(t, damage(path))
				require.Equal(t, stand{30, 0}, standOf(t, tracker, "calls"))
				require.NoError(t, tracker.RecordUsage(ctx, "calls"))
				clock.Advance(interval)
				require.Equal(t, stand{31, 0}, standOf(t, tracker, "calls"))
				require.NotEmpty(t, tracker.Summary().Recovered)
				require.NoError(t, tracker.Close())
				require.Equal(t, stand{31, 0}, standIn(t, quota.NewJSONFile(path)))
			})
		}
	}
}

func TestADamagedFileIsReportedAndDoesNotStopTheStart(t *testing.T) {
	ctx := t.Context()
	path := newStatePath(t)
	first := startOn(t, quota.NewJSONFile(path))
	require.NoError(t, first.RecordUsage(ctx, "calls", quota.Requests(10)))
	require.NoError(t, first.RecordUsage(ctx, "calls"))
	require.Empty(t, first.Summary().Recovered)
	require.NoError(t, first.Close())
	require.NoError(t, os.WriteFile(path, []byte(`{"version": 2, "gen`), 0o600))

	_, err := openOn(quota.NewJSONFile(path).Strict())
	require.ErrorIs(t, err, quota.ErrCorruptState)
	second := startOn(t, quota.NewJSONFile(path))
	require.Equal(t, stand{10, 0}, standOf(t, second, "calls"), "the generation before")
	recovered := second.Summary().Recovered
	require.Contains(t, recovered, "may be missing")
	require.Contains(t, second.DisplayStatus(), "quota_state.json")
	require.NoError(t, second.Close())
	third := startOn(t, quota.NewJSONFile(path))
	require.Empty(t, third.Summary().Recovered)
	require.Equal(t, stand{10, 0}, standOf(t, third, "calls"))
}

func TestAStateOfANewerVersionStopsTheStartAndStaysAsItIs(t *testing.T) {
	path := newStatePath(t)
	require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o700))
	newer := []byte(`{"version": 3, "books": {"calls": {"surprise": 1}}}`)
	require.NoError(t, os.WriteFile(path, newer, 0o600))
	for _, interval := range []time.Duration{0, time.Second} {
		_, err := openOn(quota.NewJSONFile(path), withFlushInterval(interval))
		require.ErrorIs(t, err, quota.ErrNewerState)
	}
	data, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, newer, data)
}

func TestAFileThatCannotBeWrittenStopsTheStartAndIsNamed(t *testing.T) {
	path := newStatePath(t)
	require.NoError(t, os.MkdirAll(path, 0o700))
	_, err := openOn(quota.NewJSONFile(path))
	require.ErrorIs(t, err, quota.ErrNotSaved)
	require.ErrorContains(t, err, path)

	below := filepath.Join(filepath.Dir(path), "file", "quota_state.json")
	require.NoError(t, os.WriteFile(filepath.Dir(below), nil, 0o600))
	_, err = openOn(quota.NewJSONFile(below))
	require.ErrorIs(t, err, quota.ErrNotSaved)
	require.ErrorContains(t, err, filepath.Dir(below))
}

func TestUsageDuringAnOutageOfTheFileGoesOutByItself(t *testing.T) {
	ctx := t.Context()
	path := newStatePath(t)
	dir := filepath.Dir(path)
	clock := quotatest.NewClock(morning)
	var log alertLog
	tracker := startOn(t, quota.NewJSONFile(path), withClock(clock), withAlerts(log.note))
	held, err := tracker.Reserve(ctx, "calls", quota.Requests(20))
	require.NoError(t, err)
	// A file in the place of the directory.
	require.NoError(t, os.Rename(dir, dir+".away"))
	require.NoError(t, os.WriteFile(dir, nil, 0o600))
	for _, err := range []error{
		held.Commit(ctx, quota.Requests(30)), tracker.RecordUsage(ctx, "calls", quota.Requests(31)),
	} {
		require.ErrorIs(t, err, quota.ErrNotSaved)
		require.ErrorIs(t, err, quota.ErrPending)
		require.ErrorContains(t, err, dir)
	}
	_, err = tracker.Reserve(ctx, "calls")
	require.ErrorIs(t, err, quota.ErrNotSaved)
	require.NotErrorIs(t, err, quota.ErrPending)
	require.Equal(t, stand{61, 0}, standOf(t, tracker, "calls"))
	require.False(t, tracker.CanUse("calls", quota.Requests(40)))
	require.Empty(t, log.thresholds())

	require.NoError(t, os.Remove(dir))
	require.NoError(t, os.Rename(dir+".away", dir))
	require.Equal(t, stand{0, 20}, standIn(t, quota.NewJSONFile(path)))
	clock.Advance(time.Second)
	require.Equal(t, stand{61, 0}, standIn(t, quota.NewJSONFile(path)))
	require.Equal(t, []int{50}, log.thresholds())
	require.NoError(t, tracker.Close())
}

func TestTheStateOfThePythonToolIsTakenOver(t *testing.T) {
	ctx := t.Context()
	const python = `{
  "limits": {
    "gemini_cli":  {"limit": 1500, "used": 812, "reserved": 3, "resets_at": "2026-01-06T00:00:00+00:00", "unlimited": false},
    "claude_code": {"limit": null, "used": 37,  "reserved": 0, "resets_at": "2026-01-05T08:30:09.956972+00:00", "unlimited": true},
    "claude_api":  {"limit": 1000000, "used": 120000, "reserved": 0, "resets_at": "2026-01-05T08:30:09.956972+00:00", "unlimited": false}
  },
  "last_updated": "2026-01-05T08:35:09.712663+00:00",
  "version": "1.0"
}`
	for _, interval := range []time.Duration{0, time.Second} {
		path := newStatePath(t)
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o700))
		require.NoError(t, os.WriteFile(path, []byte(python), 0o600))
		clock := quotatest.NewClock(morning)
		var log alertLog
		start := func() *quota.QuotaTracker {
			return startOn(t, quota.NewJSONFile(path), withClock(clock), withQuotas(quota.DefaultQuotas()...),
				withAlerts(log.note), withFlushInterval(interval))
		}
		tracker := start()
		require.Empty(t, tracker.Summary().Recovered)
		require.Equal(t, stand{812, 3}, standOf(t, tracker, "gemini"))
		require.Equal(t, stand{120000, 0}, standOf(t, tracker, "claude_api"), "in the unit of the first limit of a day")
		status, _ := tracker.Status("claude_code")
		require.EqualValues(t, 37, status.Today.Used[quota.UnitRequests])
		require.Empty(t, log.thresholds(), "alerts that are due wait for the first call that changes something")
		require.NoError(t, tracker.RecordUsage(ctx, "gemini_cli"))
		require.Equal(t, stand{813, 2}, standOf(t, tracker, "gemini"), "the pool is a hold that matching usage uses up")
		require.Equal(t, []int{50}, log.thresholds())
		require.NoError(t, tracker.Close())

		tracker = start()
		require.NoError(t, tracker.RecordUsage(ctx, "gemini_cli", quota.Requests(2)))
		require.Equal(t, stand{815, 0}, standOf(t, tracker, "gemini"))
		require.Equal(t, []int{50}, log.thresholds(), "the threshold that had been passed fires once")
		clock.Set(time.Date(2026, time.January, 6, 0, 0, 0, 0, time.UTC))
		require.Equal(t, stand{}, standOf(t, tracker, "gemini"))
		require.NoError(t, tracker.Close())
	}
}

func TestThePoolOfThePythonToolExpiresLikeAReservation(t *testing.T) {
	path := newStatePath(t)
	require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o700))
	require.NoError(t, os.WriteFile(path, []byte(`{"version": "1.0", "last_updated": "2026-01-04T08:35:09+00:00", "limits": {
		"calls": {"used": 80, "reserved": 5, "resets_at": "2026-01-05T00:00:00+00:00"}}}`), 0o600))
	clock := quotatest.NewClock(morning)
	tracker := startOn(t, quota.NewJSONFile(path), withClock(clock))
	require.Equal(t, stand{0, 5}, standOf(t, tracker, "calls"), "the usage was of a day that is over")
	clock.Advance(15 * time.Minute)
	require.Equal(t, stand{5, 0}, standOf(t, tracker, "calls"))
}

func TestWithoutAPersistenceTheStateIsBelowTheWorkingDirectory(t *testing.T) {
	t.Chdir(t.TempDir())
	tracker, err := quota.New(t.Context(), quota.Config{})
	require.NoError(t, err)
	require.NoError(t, tracker.RecordUsage(t.Context(), "gemini"))
	require.NoError(t, tracker.Close())
	info, err := os.Stat(".memory/quota_state.json")
	require.NoError(t, err)
	if runtime.GOOS != "windows" {
		require.Equal(t, os.FileMode(0o600), info.Mode())
	}
}

func TestAClosedTrackerLeavesNoGoroutineAndNoDescriptor(t *testing.T) {
	ctx := t.Context()
	descriptors := func() int {
		entries, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			return 0
		}
		return len(entries)
	}
	use := func(interval time.Duration, outage bool) {
		path := newStatePath(t)
		tracker, err := openOn(quota.NewJSONFile(path), withFlushInterval(interval), withClock(nil))
		require.NoError(t, err)
		require.NoError(t, tracker.RecordUsage(ctx, "calls", quota.Requests(60)))
		r, err := tracker.Reserve(ctx, "calls", quota.Requests(40))
		require.NoError(t, err)
		require.NoError(t, r.Extend(ctx, time.Hour))
		if !outage {
			waiting := make(chan error)
			go func() {
				_, err := tracker.Wait(ctx, "calls")
				waiting <- err
			}()
			require.NoError(t, tracker.Close())
			require.ErrorIs(t, <-waiting, quota.ErrClosed)
			return
		}
		require.NoError(t, tracker.Flush(ctx))
		require.NoError(t, os.Rename(filepath.Dir(path), filepath.Dir(path)+".away"))
		require.NoError(t, os.WriteFile(filepath.Dir(path), nil, 0o600))
		if err := tracker.RecordUsage(ctx, "calls"); interval == 0 {
			require.ErrorIs(t, err, quota.ErrPending)
		}
		require.ErrorIs(t, tracker.Close(), quota.ErrNotSaved)
		_, err = openOn(quota.NewJSONFile(path), withFlushInterval(interval))
		require.Error(t, err, "a tracker that New does not return leaves nothing either")
	}
	use(0, false)
	goroutines, open := runtime.NumGoroutine(), descriptors()
	for i := range 8 {
		use([]time.Duration{0, time.Hour}[i%2], i%4 < 2)
	}
	for range 100_000 { // what has been told to end does so soon
		if runtime.NumGoroutine() <= goroutines && descriptors() <= open {
			break
		}
		runtime.Gosched()
	}
	require.LessOrEqual(t, runtime.NumGoroutine(), goroutines)
	require.LessOrEqual(t, descriptors(), open)
}

func TestACallThatClosesTheTrackerFromItsAlertDoesNotHang(t *testing.T) {
	var tracker *quota.QuotaTracker
	tracker = startOn(t, quota.NewJSONFile(newStatePath(t)), withAlerts(func(quota.Alert) {
		if err := tracker.Close(); err != nil && !errors.Is(err, quota.ErrNotSaved) {
			t.Error(err)
		}
	}))
	require.NoError(t, tracker.RecordUsage(t.Context(), "calls", quota.Requests(60)))
	require.ErrorIs(t, tracker.RecordUsage(t.Context(), "calls"), quota.ErrClosed)
}
