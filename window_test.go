package quota

import (
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// everyZone returns the zones in this machine's database, of several with the same rules one, or a few well known ones
// where the database is not a directory.
func everyZone(tb testing.TB) []*time.Location {
	tb.Helper()
	const root = "/usr/share/zoneinfo"
	names := []string{"Europe/Berlin", "America/Havana", "America/St_Johns", "Africa/Cairo", "Pacific/Apia"}
	seen := make(map[string]bool)
	_ = filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() {
			if entry.Name() == "right" || entry.Name() == "posix" {
				return fs.SkipDir
			}
			return nil
		}
		rules, err := os.ReadFile(path)
		if err == nil && !seen[string(rules)] {
			seen[string(rules)] = true
			names = append(names, filepath.ToSlash(strings.TrimPrefix(path, root+"/")))
		}
		return err
	})
	var zones []*time.Location
	for _, name := range names {
		if loc, err := loadZone(name); err == nil {
			zones = append(zones, loc)
		}
	}
	require.NotEmpty(tb, zones)
	return zones
}

func zone(tb testing.TB, name string) *time.Location {
	tb.Helper()
	loc, err := time.LoadLocation(name)
	require.NoError(tb, err)
	return loc
}

func TestWindowsTileTimeInEveryZone(t *testing.T) {
	t.Parallel()
	years := []int{2010, 2011, 2026, 2040} // 2040 is a leap year that some databases describe by rule alone
	if testing.Short() || raceDetector {
		years = years[2:3]
	}
	for _, loc := range everyZone(t) {
		for _, year := range years {
			at := time.Date(year, 1, 1, 0, 0, 0, 0, time.UTC)
			until := at.AddDate(1, 0, 2)
			checkTiling(t, Daily(loc), loc, at, until)
			checkTiling(t, Weekly(loc, time.Weekday(year%7)), loc, at, until)
			checkTiling(t, Monthly(loc, 1+year%31), loc, at, until)
			checkTiling(t, Monthly(loc, 31), loc, at, until)
			if t.Failed() {
				t.FailNow()
			}
		}
	}
}

// checkTiling walks the windows between two times and fails where they overlap, leave a gap, do not advance, or do not
// begin at the first instant of their date.
func checkTiling(t *testing.T, w Window, loc *time.Location, from, until time.Time) {
	at := max(from.UnixNano(), earliest)
	start, end := w.period(at, loc)
	for begun := false; at < until.UnixNano(); begun = true {
		if !(start <= at && at < end) {
			t.Errorf("%s: %v is not in %v to %v", w, instant(at), instant(start), instant(end))
			return
		}
		if begun && start != at {
			t.Errorf("%s: window after %v begins at %v", w, instant(at), instant(start))
			return
		}
		// Inside a window the local date may go back, but never beyond the next window's first date; and the next window
		// begins as soon as its date does.
		next := date(end, loc)
		for _, inside := range []int64{start, start + (end-start)/2, end - int64(time.Hour), end - 1} {
			if inside >= start && date(inside, loc) >= next {
				t.Errorf("%s: %v is still in the window that ends at %v", w, instant(inside).In(loc), instant(end).In(loc))
				return
			}
		}
		if again, _ := w.period(end-1, loc); again != start {
			t.Errorf("%s: the last instant before %v is in another window than its first", w, instant(end))
			return
		}
		if reason := wrongDay(w, end, loc); reason != "" {
			t.Errorf("%s: a window begins at %v: %s", w, instant(end).In(loc), reason)
			return
		}
		at = end
		start, end = w.period(at, loc)
	}
}

// date returns the local date as a number that sorts.
func date(at int64, loc *time.Location) int {
	year, month, day := instant(at).In(loc).Date()
	return year*10000 + int(month)*100 + day
}

// wrongDay says why no window of w may begin at that time, going by the calendar alone.
func wrongDay(w Window, at int64, loc *time.Location) string {
	first := instant(at).In(loc)
	before := first.Add(-time.Nanosecond)
	// Dates that the zone skips begin together with the date after them.
	skipped := 0
	for day := before.Day(); ; skipped++ {
		next := time.Date(before.Year(), before.Month(), day+skipped+1, 12, 0, 0, 0, time.UTC)
		if next.Day() == first.Day() {
			break
		}
		if skipped > 2 {
			return "the date before is " + before.Format(time.DateOnly)
		}
	}
	for back := 0; back <= skipped; back++ {
		day := time.Date(first.Year(), first.Month(), first.Day()-back, 12, 0, 0, 0, time.UTC)
		lastOfMonth := day.AddDate(0, 0, 1).Day() == 1
		switch {
		case w.kind == kindDaily,
			w.kind == kindWeekly && day.Weekday() == time.Weekday(w.start),
			w.kind == kindMonthly && (day.Day() == int(w.start) || lastOfMonth && day.Day() < int(w.start)):
			return ""
		}
	}
	return "not its day"
}

func TestDaysBeginAtTheFirstInstantOfTheirDate(t *testing.T) {
	t.Parallel()
	for _, day := range []struct {
		name, zone, at, start, end string
	}{
		{"spring forward", "Europe/Berlin", "2026-03-29T12:00:00Z", "2026-03-28T23:00:00Z", "2026-03-29T22:00:00Z"},
		{"fall back", "Europe/Berlin", "2026-10-25T12:00:00Z", "2026-10-24T22:00:00Z", "2026-10-25T23:00:00Z"},
		{"half an hour", "Australia/Lord_Howe", "2026-04-05T00:00:00Z", "2026-04-04T13:00:00Z", "2026-04-05T13:30:00Z"},
		{"no midnight, Havana", "America/Havana", "2026-03-08T12:00:00Z", "2026-03-08T05:00:00Z", "2026-03-09T04:00:00Z"},
		{"before it", "America/Havana", "2026-03-08T04:59:59Z", "2026-03-07T05:00:00Z", "2026-03-08T05:00:00Z"},
		{"two midnights, Havana", "America/Havana", "2026-11-01T04:30:00Z", "2026-11-01T04:00:00Z", "2026-11-02T05:00:00Z"},
		{"no midnight, Cairo", "Africa/Cairo", "2026-04-24T12:00:00Z", "2026-04-23T22:00:00Z", "2026-04-24T21:00:00Z"},
		{"before a day that does not exist", "Pacific/Apia", "2011-12-30T09:59:59Z", "2011-12-29T10:00:00Z", "2011-12-30T10:00:00Z"},
		{"after a day that does not exist", "Pacific/Apia", "2011-12-30T10:00:00Z", "2011-12-30T10:00:00Z", "2011-12-31T10:00:00Z"},
		{"date goes back: before", "America/St_Johns", "2010-11-07T02:29:59Z", "2010-11-06T02:30:00Z", "2010-11-07T02:30:00Z"},
		{"date goes back: the first minute", "America/St_Johns", "2010-11-07T02:30:30Z", "2010-11-07T02:30:00Z", "2010-11-08T03:30:00Z"},
		{"date goes back: the day before again", "America/St_Johns", "2010-11-07T03:00:00Z", "2010-11-07T02:30:00Z", "2010-11-08T03:30:00Z"},
		{"date goes back: the date again", "America/St_Johns", "2010-11-07T03:30:00Z", "2010-11-07T02:30:00Z", "2010-11-08T03:30:00Z"},
		{"midnight goes back: its first second", "America/Sao_Paulo", "2018-02-18T02:00:00Z", "2018-02-17T02:00:00Z", "2018-02-18T03:00:00Z"},
		{"last day of a leap year by rule", "America/New_York", "2040-12-31T12:00:00Z", "2040-12-31T05:00:00Z", "2041-01-01T05:00:00Z"},
		{"far from UTC", "Pacific/Kiritimati", "2026-01-01T10:00:00Z", "2026-01-01T10:00:00Z", "2026-01-02T10:00:00Z"},
		{"UTC", "UTC", "2016-12-31T23:59:59.999999999Z", "2016-12-31T00:00:00Z", "2017-01-01T00:00:00Z"},
	} {
		t.Run(day.name, func(t *testing.T) {
			t.Parallel()
			loc := zone(t, day.zone)
			requirePeriod(t, Daily(loc), loc, day.at, day.start, day.end)
		})
	}
}

func requirePeriod(t *testing.T, w Window, loc *time.Location, at, wantStart, wantEnd string) {
	t.Helper()
	moment, err := time.Parse(time.RFC3339Nano, at)
	require.NoError(t, err)
	start, end := w.period(nanos(moment), loc)
	require.Equal(t, wantStart, instant(start).Format(time.RFC3339))
	require.Equal(t, wantEnd, instant(end).Format(time.RFC3339))
}

func TestWeeksAndMonthsBeginOnTheirDay(t *testing.T) {
	t.Parallel()
	berlin, apia := zone(t, "Europe/Berlin"), zone(t, "Pacific/Apia")
	for _, c := range []struct {
		window         Window
		loc            *time.Location
		at, start, end string
	}{
		{Weekly(nil, time.Monday), time.UTC, "2026-03-01T23:59:59Z", "2026-02-23T00:00:00Z", "2026-03-02T00:00:00Z"},
		{Weekly(nil, time.Monday), time.UTC, "2026-03-02T00:00:00Z", "2026-03-02T00:00:00Z", "2026-03-09T00:00:00Z"},
		{Weekly(nil, time.Sunday), time.UTC, "2026-03-02T00:00:00Z", "2026-03-01T00:00:00Z", "2026-03-08T00:00:00Z"},
		{Weekly(nil, time.Saturday), time.UTC, "2026-03-02T00:00:00Z", "2026-02-28T00:00:00Z", "2026-03-07T00:00:00Z"},
		{Weekly(berlin, time.Monday), berlin, "2026-03-27T00:00:00Z", "2026-03-22T23:00:00Z", "2026-03-29T22:00:00Z"},
		// Friday the 30th did not exist: its week began with the Saturday.
		{Weekly(apia, time.Friday), apia, "2012-01-01T00:00:00Z", "2011-12-30T10:00:00Z", "2012-01-05T10:00:00Z"},
		{Monthly(nil, 1), time.UTC, "2026-12-31T23:59:59Z", "2026-12-01T00:00:00Z", "2027-01-01T00:00:00Z"},
		{Monthly(nil, 1), time.UTC, "2027-01-01T00:00:00Z", "2027-01-01T00:00:00Z", "2027-02-01T00:00:00Z"},
		{Monthly(nil, 15), time.UTC, "2026-01-14T12:00:00Z", "2025-12-15T00:00:00Z", "2026-01-15T00:00:00Z"},
		{Monthly(nil, 15), time.UTC, "2026-01-15T00:00:00Z", "2026-01-15T00:00:00Z", "2026-02-15T00:00:00Z"},
		{Monthly(berlin, 1), berlin, "2026-03-31T21:59:59Z", "2026-02-28T23:00:00Z", "2026-03-31T22:00:00Z"},
		{Monthly(apia, 30), apia, "2012-01-01T00:00:00Z", "2011-12-30T10:00:00Z", "2012-01-29T10:00:00Z"},
	} {
		requirePeriod(t, c.window, c.loc, c.at, c.start, c.end)
	}
}

func TestMonthlyWindowStartsOnTheLastDayOfShortMonths(t *testing.T) {
	t.Parallel()
	at := time.Date(2027, 12, 31, 0, 0, 0, 0, time.UTC)
	for _, want := range []string{
		"2027-12-31", "2028-01-31", "2028-02-29", "2028-03-31", "2028-04-30", "2028-05-31", "2028-06-30", "2028-07-31",
		"2028-08-31", "2028-09-30", "2028-10-31", "2028-11-30", "2028-12-31", "2029-01-31", "2029-02-28", "2029-03-31",
	} {
		start, end := Monthly(nil, 31).period(nanos(at), time.UTC)
		require.Equal(t, want, instant(start).Format(time.DateOnly))
		require.Equal(t, at, instant(start))
		at = instant(end)
	}
}

func TestEveryIsAlignedWithTheClockOfUTC(t *testing.T) {
	t.Parallel()
	at := "2026-03-05T13:47:31.5Z" // a Thursday
	for length, want := range map[time.Duration][2]string{
		time.Minute:        {"2026-03-05T13:47:00Z", "2026-03-05T13:48:00Z"},
		time.Hour:          {"2026-03-05T13:00:00Z", "2026-03-05T14:00:00Z"},
		24 * time.Hour:     {"2026-03-05T00:00:00Z", "2026-03-06T00:00:00Z"},
		7 * 24 * time.Hour: {"2026-03-02T00:00:00Z", "2026-03-09T00:00:00Z"},
	} {
		requirePeriod(t, Every(length), time.UTC, at, want[0], want[1])
	}
	for _, length := range []time.Duration{time.Microsecond, 7 * time.Second, 90 * time.Minute, longestWindow} {
		w := Every(length)
		require.Empty(t, w.check())
		start, end := w.period(1772718451_500_000_000, time.UTC)
		require.Equal(t, int64(length), end-start, length)
		again, _ := w.period(end-1, time.UTC)
		require.Equal(t, start, again)
		next, _ := w.period(end, time.UTC)
		require.Equal(t, end, next)
	}
}

func TestPeriodsStayWithinWhatTheCoreCanCount(t *testing.T) {
	t.Parallel()
	berlin := zone(t, "Europe/Berlin")
	for _, w := range []Window{
		{}, Daily(berlin), Weekly(berlin, time.Friday), Monthly(berlin, 31),
		Every(time.Minute), Every(7 * 24 * time.Hour), Every(longestWindow),
	} {
		for _, at := range []int64{earliest, earliest + 1, int64(time.Hour), latest - 1, latest, math.MaxInt64 - 1} {
			start, end := w.period(at, berlin)
			require.GreaterOrEqual(t, start, earliest, w)
			require.LessOrEqual(t, start, at, w)
			require.Greater(t, end, at, w)
		}
	}
	require.Equal(t, 9223372036*second, secondNanos(9223372036))
	require.Equal(t, int64(math.MaxInt64), secondNanos(9223372037))
	start, end := Every(7*24*time.Hour).period(earliest, nil)
	require.Equal(t, earliest, start)
	require.Equal(t, "1970-01-05T00:00:00Z", instant(end).Format(time.RFC3339))
}

func TestWindowsAreComparedByValue(t *testing.T) {
	t.Parallel()
	require.Equal(t, Daily(nil), Daily(time.UTC))
	require.Equal(t, Daily(nil), Daily(zone(t, "UTC")))
	require.Equal(t, Daily(nil), Daily(time.FixedZone("UTC", 0)))
	berlin, again := Monthly(zone(t, "Europe/Berlin"), 15), Monthly(zone(t, "Europe/Berlin"), 15)
	require.True(t, berlin == again)
	require.False(t, Monthly(zone(t, "Europe/Berlin"), 15) == Monthly(zone(t, "Europe/Paris"), 15))
	require.False(t, Daily(nil) == Window{})
	require.False(t, Rolling(time.Hour) == Every(time.Hour))
}

func TestZonesAreReloadedByTheirName(t *testing.T) {
	t.Parallel()
	for _, loc := range everyZone(t) {
		w := Daily(loc)
		require.Empty(t, w.check(), loc)
		again, err := w.location()
		require.NoError(t, err)
		require.Equal(t, loc.String(), again.String())
	}
	loc, err := Rolling(time.Hour).location()
	require.NoError(t, err)
	require.Equal(t, time.UTC, loc)
}

func TestZonesThatCannotBeReloadedAreExplained(t *testing.T) {
	t.Parallel()
	zones := map[string]*time.Location{
		"without a name":                      time.FixedZone("", 3600),
		"fixed":                               time.FixedZone("CEST", 7200),
		"fixed, named like UTC":               time.FixedZone("UTC", 3600),
		"fixed, named like another":           time.FixedZone("Europe/Berlin", 3600),
		"fixed, right in summer only":         time.FixedZone("Europe/Berlin", 7200),
		"fixed, named like Local":             time.FixedZone("Local", 0),
		"fixed, named like a file":            time.FixedZone("../../etc/passwd", 0),
		"fixed, named to steer a terminal":    time.FixedZone("\x1b[2J", 0),
		"fixed, right now but not years ago":  time.FixedZone("Asia/Pyongyang", 9*3600),
		"fixed, right years ago but not ever": time.FixedZone("Asia/Singapore", 7*3600+1800),
	}
	if time.Local.String() == "Local" {
		zones["local"] = time.Local
	}
	for name, loc := range zones {
		for _, w := range []Window{Daily(loc), Weekly(loc, time.Monday), Monthly(loc, 1), (Window{}).in(loc)} {
			require.Contains(t, w.check(), "time.LoadLocation", name)
			require.True(t, printableName(w.check()), name)
			require.True(t, printableName(w.String()), name)
			_, err := w.location()
			require.ErrorContains(t, err, "time.LoadLocation", name)
			_, err = w.MarshalText()
			require.ErrorIs(t, err, ErrInvalidConfig, name)
		}
	}
}

func TestAWindowWhoseZoneIsNotKnownIsOneOfUTC(t *testing.T) {
	t.Parallel()
	start, end := Monthly(nil, 15).period(noon, nil)
	wantStart, wantEnd := Monthly(nil, 15).period(noon, time.UTC)
	require.Equal(t, []int64{wantStart, wantEnd}, []int64{start, end})
}

func TestNamesOfZonesAreMadeOfAFewCharacters(t *testing.T) {
	t.Parallel()
	const may = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_+-./"
	for c := range 256 {
		name := "x" + string([]byte{byte(c)}) + "x"
		require.Equal(t, strings.Contains(may, name[1:2]), zoneName(name), "%q", name)
	}
	require.True(t, zoneName(strings.Repeat("x", maxZoneBytes)))
	for _, name := range []string{"", "/x", "x/", "x..x", strings.Repeat("x", maxZoneBytes+1)} {
		require.False(t, zoneName(name), name)
	}
}
