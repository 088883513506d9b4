package calendar

import "time"

// A day is a local date and the instant at which it begins.
type day struct {
	date  int64 // days since 1970-01-01
	start int64 // seconds since 1970
}

const daySeconds = 24 * 60 * 60

// daysOf goes along the local clock of a zone and notes each date when it is there for the first time: a date that the
// clock skips has no day, and one that it goes back into has begun already.
func daysOf(all []change, to int64) []day {
	var days []day
	latest := int64(-1 << 62)
	for i, segment := range all {
		end := to
		if i+1 < len(all) {
			end = all[i+1].at
		}
		date := floor(segment.at+segment.offset, daySeconds)
		if date > latest {
			days = append(days, day{date, segment.at})
			latest = date
		}
		for next := latest + 1; next*daySeconds-segment.offset < end; next++ {
			days = append(days, day{next, next*daySeconds - segment.offset})
			latest = next
		}
	}
	return days
}

func floor(a, b int64) int64 {
	if a%b < 0 {
		return a/b - 1
	}
	return a / b
}

// A period says which window of its kind a date belongs to: dates with the same number are of the same window.
type period func(date int64) int64

func daily(date int64) int64 { return date }

func weekly(first time.Weekday) period {
	// 1970-01-01 was a Thursday.
	return func(date int64) int64 { return floor(date+int64(time.Thursday)-int64(first), 7) }
}

// monthly counts months: a date before the month's first day of the window belongs to the window of the month before.
func monthly(first int) period {
	return func(date int64) int64 {
		year, month, of := time.Unix(date*daySeconds, 0).UTC().Date()
		number := int64(year)*12 + int64(month)
		if of < min(first, lengthOf(year, month)) {
			number--
		}
		return number
	}
}

func lengthOf(year int, month time.Month) int {
	switch month {
	case time.April, time.June, time.September, time.November:
		return 30
	case time.February:
		if year%4 == 0 && (year%100 != 0 || year%400 == 0) {
			return 29
		}
		return 28
	}
	return 31
}

// A window is what must be found at an instant.
type window struct{ start, end int64 }

// windowsOf returns the windows that the days make up, without the first and the last, which the days do not cover.
func windowsOf(days []day, number period) []window {
	var starts []int64
	for i := 1; i < len(days); i++ {
		if number(days[i].date) != number(days[i-1].date) {
			starts = append(starts, days[i].start)
		}
	}
	windows := make([]window, 0, len(starts))
	for i := 1; i < len(starts); i++ {
		windows = append(windows, window{starts[i-1], starts[i]})
	}
	return windows
}
