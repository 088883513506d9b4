package ledger

import (
	"time"

	"example.com/quota"
)

// kind is how a window counts, as section "Windows turn" of the documentation tells it.
type kind int

const (
	lifetime kind = iota
	inFlight
	calendar // days, weeks and months: budgets
	every
	rolling
	refill
	session
)

// A shape is a window as the model knows it. period is for those that have fixed periods.
type shape struct {
	window quota.Window
	kind   kind
	length int64
	period func(at time.Time) (start, end time.Time)
}

// shapes are the windows that checks choose from.
func shapes() []shape {
	newYork, _ := time.LoadLocation("America/New_York")
	berlin, _ := time.LoadLocation("Europe/Berlin")
	return []shape{
		{window: quota.Lifetime(), kind: lifetime},
		{window: quota.InFlight(), kind: inFlight},
		{window: quota.Daily(nil), kind: calendar, period: dayIn(time.UTC)},
		{window: quota.Every(time.Hour), kind: every, period: truncated(time.Hour)},
		{window: quota.Session(3 * time.Hour), kind: session, length: int64(3 * time.Hour)},
		{window: quota.Rolling(2 * time.Hour), kind: rolling, length: int64(2 * time.Hour)},
		{window: quota.Refill(time.Hour), kind: refill, length: int64(time.Hour)},
		{window: quota.Daily(newYork), kind: calendar, period: dayIn(newYork)},
		{window: quota.Weekly(berlin, time.Wednesday), kind: calendar, period: weekIn(berlin, time.Wednesday)},
		{window: quota.Monthly(nil, 31), kind: calendar, period: monthFrom(31)},
		{window: quota.Every(7 * time.Minute), kind: every, period: truncated(7 * time.Minute)},
		{window: quota.Session(10 * time.Minute), kind: session, length: int64(10 * time.Minute)},
		{window: quota.Rolling(26 * time.Hour), kind: rolling, length: int64(26 * time.Hour)},
		{window: quota.Refill(24 * time.Hour), kind: refill, length: int64(24 * time.Hour)},
	}
}

// The zones above change their clocks by night but never at midnight, so that time.Date finds every midnight; where it
// does not is for the row of the calendar.

func dayIn(loc *time.Location) func(time.Time) (time.Time, time.Time) {
	return func(at time.Time) (start, end time.Time) {
		y, m, d := at.In(loc).Date()
		return time.Date(y, m, d, 0, 0, 0, 0, loc), time.Date(y, m, d+1, 0, 0, 0, 0, loc)
	}
}

func weekIn(loc *time.Location, first time.Weekday) func(time.Time) (time.Time, time.Time) {
	return func(at time.Time) (start, end time.Time) {
		y, m, d := at.In(loc).Date()
		d -= (int(at.In(loc).Weekday()) - int(first) + 7) % 7
		return time.Date(y, m, d, 0, 0, 0, 0, loc), time.Date(y, m, d+7, 0, 0, 0, 0, loc)
	}
}

func monthFrom(day int) func(time.Time) (time.Time, time.Time) {
	begin := func(y int, m time.Month) time.Time {
		last := time.Date(y, m+1, 0, 0, 0, 0, 0, time.UTC)
		return time.Date(y, m, min(day, last.Day()), 0, 0, 0, 0, time.UTC)
	}
	return func(at time.Time) (start, end time.Time) {
		y, m, _ := at.UTC().Date()
		if at.Before(begin(y, m)) {
			y, m, _ = time.Date(y, m-1, 1, 0, 0, 0, 0, time.UTC).Date()
		}
		return begin(y, m), begin(y, m+1)
	}
}

func truncated(d time.Duration) func(time.Time) (time.Time, time.Time) {
	return func(at time.Time) (start, end time.Time) {
		start = at.UTC().Truncate(d)
		return start, start.Add(d)
	}
}
