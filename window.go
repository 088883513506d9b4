package quota

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// A Window is the period after which a limit starts again. Windows are values: compare them with ==, and write them as
// text with String, MarshalText or in JSON. The zero value is a day in Config.Location.
//
// Daily, Weekly, Monthly and Lifetime are budgets: a reservation still open when the window turns counts in the new one
// too, until it is settled. Every, Rolling, Refill and Session are rates: a call counts in the window in which it was
// admitted. InFlight counts nothing but open reservations.
//
// The constructors accept everything; a length, a day or a time zone that cannot be used is ErrInvalidConfig where the
// window is configured.
type Window struct {
	kind   windowKind
	start  int8          // Weekly: the weekday, Monthly: the day of the month
	wrong  bool          // the zone cannot be loaded again by its name
	length time.Duration // Every, Rolling, Refill, Session
	zone   string        // Daily, Weekly, Monthly; "": UTC
}

type windowKind uint8

const (
	kindUnset windowKind = iota
	kindDaily
	kindWeekly
	kindMonthly
	kindEvery
	kindRolling
	kindRefill
	kindSession
	kindLifetime
	kindInFlight
)

const (
	shortestWindow = time.Microsecond
	longestWindow  = 100 * 365 * 24 * time.Hour
	maxWindowBytes = 256 // of a window's text
	maxZoneBytes   = 128
	windowForms    = `"day", "week from Monday", "month" or "month from 15" (each may go on with " in Europe/Berlin"), ` +
		`"1m0s", "rolling 5h0m0s", "refill 1m0s", "session 5h0m0s", "lifetime" or "in flight"`
)

// Daily is the window from local midnight to local midnight; where the zone skips midnight, from the first instant of
// the date. Days are 23, 24 or 25 hours long, as the zone has it. A nil loc is UTC. The zone is kept by its name:
// time.Local and time.FixedZone cannot be used.
func Daily(loc *time.Location) Window { return calendar(kindDaily, 0, loc) }

// Weekly is the window of seven days that begins with each day called first; see Daily for loc.
func Weekly(loc *time.Location, first time.Weekday) Window {
	return calendar(kindWeekly, int(first), loc)
}

// Monthly is the window from that day of each month, 1 to 31, to the same day of the next. In months that are too short
// it begins on their last day. See Daily for loc.
func Monthly(loc *time.Location, day int) Window { return calendar(kindMonthly, day, loc) }

// Every is the fixed windows of length d on the UTC clock, aligned as by time.Time.Truncate: each minute, hour or day
// of UTC; weeks begin on Monday. Around a boundary twice Max may fall into a span of d; Rolling has no boundary.
func Every(d time.Duration) Window { return Window{kind: kindEvery, length: d} }

// Rolling is the last d, always: at no time do more than Max fall into any span of d.
func Rolling(d time.Duration) Window { return Window{kind: kindRolling, length: d} }

// Refill is a token bucket that holds Max when full and refills evenly, Max per d.
func Refill(d time.Duration) Window { return Window{kind: kindRefill, length: d} }

// Session is a window d long that begins with the first use after the one before has ended.
func Session(d time.Duration) Window { return Window{kind: kindSession, length: d} }

// Lifetime is the window that never starts again, for prepaid credit.
func Lifetime() Window { return Window{kind: kindLifetime} }

// InFlight counts open reservations only: a limit on concurrency.
func InFlight() Window { return Window{kind: kindInFlight} }

func calendar(kind windowKind, start int, loc *time.Location) Window {
	// Clamped, not cut: day 257 must not become day 1.
	w := Window{kind: kind, start: int8(min(max(start, math.MinInt8), math.MaxInt8))}
	if loc == nil || loc == time.UTC {
		return w
	}
	w.zone = loc.String()
	if w.zone == "UTC" && sameRules(loc, time.UTC) {
		w.zone = ""
		return w
	}
	again, err := loadZone(w.zone)
	w.wrong = err != nil || !sameRules(loc, again)
	return w
}

// ParseWindow is the inverse of Window.String. Lengths may be spelled in any way time.ParseDuration reads ("60s"). Any
// other text, and a time zone this machine does not know, is ErrInvalidConfig.
func ParseWindow(s string) (Window, error) {
	w, err := parseWindow(s)
	if err != nil {
		return Window{}, fmt.Errorf("%w: window %w", ErrInvalidConfig, err)
	}
	return w, nil
}

// parseWindow is ParseWindow with an error that does not say where it happened.
func parseWindow(s string) (Window, error) {
	w, err := readWindow(s)
	if err == nil {
		_, err = w.location()
	}
	if err != nil {
		return Window{}, fmt.Errorf("%s: %w", quoted(s), err)
	}
	return w, nil
}

// readWindow reads a window's text without asking whether this machine knows its zone.
func readWindow(s string) (Window, error) {
	if len(s) > maxWindowBytes {
		return Window{}, fmt.Errorf("longer than %d bytes, use %s", maxWindowBytes, windowForms)
	}
	switch s {
	case "lifetime":
		return Lifetime(), nil
	case "in flight":
		return InFlight(), nil
	}
	w := Window{kind: kindEvery}
	length := s
	for _, kind := range []windowKind{kindRolling, kindRefill, kindSession} {
		if rest, found := strings.CutPrefix(s, kind.word()); found {
			w.kind, length = kind, rest
		}
	}
	if w.kind == kindEvery && (s == "" || !strings.ContainsRune("+-.0123456789", rune(s[0]))) {
		return readCalendar(s)
	}
	var err error
	if w.length, err = time.ParseDuration(length); err != nil {
		return Window{}, fmt.Errorf("%s is not a length of time, use %s", quoted(length), windowForms)
	}
	if wrong := w.check(); wrong != "" {
		return Window{}, errors.New(wrong)
	}
	return w, nil
}

// readCalendar reads the text of a day, a week or a month.
func readCalendar(s string) (Window, error) {
	period, zone, zoned := strings.Cut(s, " in ")
	var w Window
	if period == "day" {
		w.kind = kindDaily
	} else if period == "month" {
		w.kind, w.start = kindMonthly, 1
	} else if name, found := strings.CutPrefix(period, "week from "); found {
		w.kind, w.start = kindWeekly, -1
		for day := time.Sunday; day <= time.Saturday; day++ {
			if day.String() == name {
				w.start = int8(day)
			}
		}
		if w.start < 0 {
			return Window{}, fmt.Errorf("%s is not a day of the week, use Monday to Sunday", quoted(name))
		}
	} else if number, found := strings.CutPrefix(period, "month from "); found {
		day, err := strconv.Atoi(number)
		if err != nil || day < 1 || day > 31 || strconv.Itoa(day) != number {
			return Window{}, fmt.Errorf("%s is not a day of the month, use 1 to 31", quoted(number))
		}
		w.kind, w.start = kindMonthly, int8(day)
	} else {
		return Window{}, fmt.Errorf("not a window, use %s", windowForms)
	}
	if zoned && !zoneName(zone) {
		return Window{}, fmt.Errorf("%s is not the name of a time zone, use one like Europe/Berlin", quoted(zone))
	}
	if zone != "UTC" {
		w.zone = zone
	}
	return w, nil
}

// String returns the text that ParseWindow reads: "day", "week from Monday", "month from 15 in Europe/Berlin", "1m0s",
// "rolling 5h0m0s", "refill 1m0s", "session 5h0m0s", "lifetime", "in flight". The zero value is "day".
func (w Window) String() string {
	var text string
	switch w.kind {
	case kindUnset, kindDaily:
		text = "day"
	case kindWeekly:
		text = "week from " + time.Weekday(w.start).String()
	case kindMonthly:
		text = "month"
		if w.start != 1 {
			text += " from " + strconv.Itoa(int(w.start))
		}
	case kindLifetime:
		return "lifetime"
	case kindInFlight:
		return "in flight"
	default:
		return w.kind.word() + w.length.String()
	}
	if w.zone != "" {
		text += " in " + printable(w.zone)
	}
	return text
}

// word is what stands before the length in a window's text.
func (k windowKind) word() string {
	switch k {
	case kindRolling:
		return "rolling "
	case kindRefill:
		return "refill "
	case kindSession:
		return "session "
	}
	return ""
}

// MarshalText returns String's text, and none for the zero value. A window that cannot be configured is an error.
func (w Window) MarshalText() ([]byte, error) {
	if w == (Window{}) {
		return []byte{}, nil
	}
	if wrong := w.check(); wrong != "" {
		return nil, fmt.Errorf("%w: window %s: %s", ErrInvalidConfig, quoted(w.String()), wrong)
	}
	return []byte(w.String()), nil
}

// UnmarshalText is the inverse of MarshalText. Unlike ParseWindow it accepts a time zone that this machine does not
// know, so that what was saved elsewhere can be read.
func (w *Window) UnmarshalText(text []byte) error {
	if len(text) == 0 {
		*w = Window{}
		return nil
	}
	read, err := readWindow(string(text))
	if err != nil {
		return fmt.Errorf("%w: window %s: %w", ErrInvalidConfig, quoted(string(text)), err)
	}
	*w = read
	return nil
}

// check returns what is wrong with the window, for people, or "". Whether its zone can be loaded is location's to say.
func (w Window) check() string {
	switch {
	case w.wrong:
		return "the time zone " + quoted(w.zone) + " cannot be loaded again by its name, " +
			`use time.LoadLocation("Europe/Berlin"), or nil for UTC`
	case w.kind == kindWeekly && (w.start < 0 || w.start > 6):
		return "the first day of the week must be time.Sunday to time.Saturday"
	case w.kind == kindMonthly && (w.start < 1 || w.start > 31):
		return "the day of the month must be 1 to 31"
	}
	switch w.kind {
	case kindEvery, kindRolling, kindRefill, kindSession:
		if w.length < shortestWindow || w.length > longestWindow {
			return fmt.Sprintf("the length must be from %v to 100 years, not %v", shortestWindow, w.length)
		}
	}
	return ""
}

// budget reports whether open holds carry over when the window turns.
func (w Window) budget() bool {
	switch w.kind {
	case kindUnset, kindDaily, kindWeekly, kindMonthly, kindLifetime:
		return true
	}
	return false
}

// in returns the window with the zero value resolved to the days of loc.
func (w Window) in(loc *time.Location) Window {
	if w.kind == kindUnset {
		return Daily(loc)
	}
	return w
}

// location loads the window's zone: UTC for windows without one. It reads a file, so keep what it returns.
func (w Window) location() (*time.Location, error) {
	if w.zone == "" && !w.wrong {
		return time.UTC, nil
	}
	if wrong := w.check(); wrong != "" {
		return nil, errors.New(wrong)
	}
	loc, err := loadZone(w.zone)
	if err != nil {
		return nil, fmt.Errorf("time zone %s is not known here, correct it, install tzdata or import time/tzdata: %w",
			quoted(w.zone), err)
	}
	return loc, nil
}

// phrase returns the window as it stands in a limit's text: "per day", "per 1m0s", "in flight".
func (w Window) phrase() string {
	if w.kind == kindInFlight {
		return "in flight"
	}
	return "per " + w.String()
}

const secondsPerDay = 24 * 60 * 60

// period returns the window that contains at, start <= at < end. It is defined for Daily, Weekly, Monthly and Every; loc
// is what location returned. at comes from nanos, and so does start: a window that began before 1970 begins there.
//
// A date begins at the first instant whose local date is that date or a later one. So there is one window per date where
// the clock goes back over midnight, and none for a date that the zone skipped.
func (w Window) period(at int64, loc *time.Location) (start, end int64) {
	if w.kind == kindEvery {
		start = time.Unix(0, at).UTC().Truncate(w.length).UnixNano()
		return max(start, earliest), saturatingAdd(start, int64(w.length))
	}
	if loc == nil {
		loc = time.UTC
	}
	now := at / int64(time.Second)
	date := localDate(now, loc)
	for dateBegins(date+1, loc) <= now {
		date++ // the clock has gone back into a date that was already over
	}
	first, next := date, date+1
	switch w.kind {
	case kindWeekly:
		// 1970-01-01 was a Thursday.
		first -= modulo(date+int64(time.Thursday)-int64(w.start), 7)
		next = first + 7
	case kindMonthly:
		year, month, _ := time.Unix(date*secondsPerDay, 0).UTC().Date()
		first = monthBegins(year, month, int(w.start))
		if first > date {
			month--
			first = monthBegins(year, month, int(w.start))
		}
		next = monthBegins(year, month+1, int(w.start))
	}
	return max(secondNanos(dateBegins(first, loc)), earliest), secondNanos(dateBegins(next, loc))
}

// localDate returns the local date at a second since 1970, as a count of days since 1970-01-01.
func localDate(second int64, loc *time.Location) int64 {
	_, offset := time.Unix(second, 0).In(loc).Zone()
	local := second + int64(offset)
	return (local - modulo(local, secondsPerDay)) / secondsPerDay
}

// dateBegins returns the first second whose local date is date or later. time.Date does not tell: where midnight does
// not exist it may answer with the date before.
func dateBegins(date int64, loc *time.Location) int64 {
	midnight := date * secondsPerDay
	if loc == time.UTC {
		return midnight
	}
	// No zone is further from UTC than 26 hours, so the date has not begun before this.
	at := midnight - 26*60*60
	for {
		offset, end := zoneAt(at, loc)
		if begins := max(at, midnight-offset); begins < end {
			return begins
		}
		at = end
	}
}

// zoneAt returns the offset from UTC at a second and the second until which it is known to stay.
func zoneAt(second int64, loc *time.Location) (offset, end int64) {
	t := time.Unix(second, 0).In(loc)
	_, seconds := t.Zone()
	_, until := t.ZoneBounds()
	switch end = until.Unix(); {
	case until.IsZero():
		end = math.MaxInt64
	case end <= second:
		// On 31 December of a leap year ZoneBounds may answer with the day's beginning.
		end = second - modulo(second, secondsPerDay) + secondsPerDay
	}
	return int64(seconds), end
}

// sameRules reports whether two zones agree from 1970 to 2060.
func sameRules(a, b *time.Location) bool {
	if a == b {
		return true
	}
	const last = 90 * 366 * secondsPerDay
	for at := int64(0); at < last; {
		offsetA, endA := zoneAt(at, a)
		offsetB, endB := zoneAt(at, b)
		if offsetA != offsetB {
			return false
		}
		at = min(endA, endB)
	}
	return true
}

// monthBegins returns the date on which the window of a month begins: day, or the month's last if it is shorter.
func monthBegins(year int, month time.Month, day int) int64 {
	lastDay := time.Date(year, month+1, 0, 0, 0, 0, 0, time.UTC).Day()
	return time.Date(year, month, min(day, lastDay), 0, 0, 0, 0, time.UTC).Unix() / secondsPerDay
}

// modulo is the remainder that is never negative.
func modulo(a, b int64) int64 { return ((a % b) + b) % b }

// secondNanos turns seconds into the core's nanoseconds and stops at what they can hold.
func secondNanos(second int64) int64 {
	if second > math.MaxInt64/int64(time.Second) {
		return math.MaxInt64
	}
	return second * int64(time.Second)
}

// loadZone loads a zone that has the same name and rules on every machine.
func loadZone(name string) (*time.Location, error) {
	if !zoneName(name) {
		return nil, errors.New("not the name of a time zone")
	}
	return time.LoadLocation(name)
}

// zoneName reports whether name can be that of a zone in the time zone database.
func zoneName(name string) bool {
	if name == "" || len(name) > maxZoneBytes || name == "Local" || name == "localtime" || strings.Contains(name, "..") {
		return false
	}
	for i := range len(name) {
		switch c := name[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		case c == '_' || c == '+' || c == '-' || c == '.':
		case c == '/' && 0 < i && i < len(name)-1:
		default:
			return false
		}
	}
	return true
}
