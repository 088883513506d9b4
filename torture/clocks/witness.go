package clocks

import (
	"slices"
	"time"

	"example.com/quota"
)

// day is by how much a clock may step back without anything being anchored anew.
const day = int64(24 * time.Hour)

// kind is how a window counts.
type kind int

const (
	lifetime kind = iota
	inFlight
	calendar
	every
	rolling
	refill
	session
)

// A shape is a window as the witness knows it.
type shape struct {
	window quota.Window
	kind   kind
	length int64 // of a fixed window: at most
	period func(at time.Time) (start, end time.Time)
}

func shapes() []shape {
	const hour = int64(time.Hour)
	newYork, _ := time.LoadLocation("America/New_York") // its days are 23 to 25 hours, and every midnight exists
	days := func(loc *time.Location, before func(time.Time) int, n int) func(time.Time) (time.Time, time.Time) {
		return func(at time.Time) (start, end time.Time) {
			y, m, d := at.In(loc).Date()
			d -= before(at.In(loc))
			return time.Date(y, m, d, 0, 0, 0, 0, loc), time.Date(y, m, d+n, 0, 0, 0, 0, loc)
		}
	}
	none := func(time.Time) int { return 0 }
	sinceMonday := func(at time.Time) int { return (int(at.Weekday()) + 6) % 7 }
	month := func(at time.Time) (start, end time.Time) {
		y, m, _ := at.UTC().Date()
		return time.Date(y, m, 1, 0, 0, 0, 0, time.UTC), time.Date(y, m+1, 1, 0, 0, 0, 0, time.UTC)
	}
	slots := func(d time.Duration) func(time.Time) (time.Time, time.Time) {
		return func(at time.Time) (start, end time.Time) {
			start = at.UTC().Truncate(d)
			return start, start.Add(d)
		}
	}
	return []shape{
		{quota.Daily(nil), calendar, 24 * hour, days(time.UTC, none, 1)},
		{quota.Daily(newYork), calendar, 25 * hour, days(newYork, none, 1)},
		{quota.Weekly(nil, time.Monday), calendar, 7 * 24 * hour, days(time.UTC, sinceMonday, 7)},
		{quota.Monthly(nil, 1), calendar, 31 * 24 * hour, month},
		{quota.Every(time.Minute), every, hour / 60, slots(time.Minute)},
		{quota.Every(time.Hour), every, hour, slots(time.Hour)},
		{quota.Every(48 * time.Hour), every, 48 * hour, slots(48 * time.Hour)},
		{quota.Rolling(5 * time.Hour), rolling, 5 * hour, nil},
		{quota.Rolling(36 * time.Hour), rolling, 36 * hour, nil},
		{quota.Refill(time.Hour), refill, hour, nil},
		{quota.Refill(30 * time.Hour), refill, 30 * hour, nil},
		{quota.Session(5 * time.Hour), session, 5 * hour, nil},
		{quota.Session(40 * time.Hour), session, 40 * hour, nil},
		{quota.Lifetime(), lifetime, 0, nil},
		{quota.InFlight(), inFlight, 0, nil},
	}
}

// A witness remembers every call that one quota has admitted, each of one request that is used in the end, and says from
// that alone how much counts.
type witness struct {
	shape
	name  string
	max   int64
	seen  int64 // the latest time; a clock that is behind by up to a day does not turn it back
	calls []*call
	start int64 // of a Session; 0: it has not begun
	level int64 // of a Refill, in requests x length
}

// A call was admitted.
type call struct {
	granted int64 // 0: in no window that still stands
	expires int64
	open    bool
	settled int64
	unsure  bool // a Rolling window may have let go of it already
}

// advance brings the witness to what a clock shows.
func (w *witness) advance(now int64) {
	switch {
	case now >= w.seen:
	case w.seen-now > day:
		w.anchor(now)
	default:
		now = w.seen
	}
	for _, c := range w.calls {
		if c.open && c.expires <= now {
			c.open, c.settled = false, c.expires
		}
	}
	if w.kind == refill {
		w.level = drained(w.level, w.max, now-w.seen)
	}
	w.seen = now
	if w.kind == session && w.start != 0 && now >= w.start+w.length {
		w.start = 0
	}
	if len(w.calls) > 64 { // what has no influence any more
		w.calls = slices.DeleteFunc(w.calls, func(c *call) bool {
			return w.kind != lifetime && !c.open && max(c.granted, c.settled) < now-60*day
		})
	}
}

func drained(level, perLength, passed int64) int64 {
	if passed > level/perLength {
		return 0
	}
	return level - perLength*passed
}

// anchor moves the witness to a time more than a day back: what counts is kept, as if it had come now.
func (w *witness) anchor(now int64) {
	for _, c := range w.calls {
		low, high := w.counts(c)
		c.unsure = high > low
		switch {
		case high == 0 && w.kind != lifetime:
			c.granted, c.settled = 0, 0
		case w.kind == calendar && !c.open:
			c.settled = now
		default:
			c.granted = now
		}
		if c.open {
			c.expires = min(c.expires, now+int64(ttl))
		}
	}
	if w.start != 0 {
		w.start = now
	}
	w.level = (w.level + w.length - 1) / max(1, w.length) * w.length
	w.seen = now
}

// counts is the least and the most that a call counts at the time the witness has seen.
func (w *witness) counts(c *call) (low, high int64) {
	one := func(yes bool) (int64, int64) {
		if !yes {
			return 0, 0
		}
		if c.unsure {
			return 0, 1
		}
		return 1, 1
	}
	switch w.kind {
	case inFlight:
		return one(c.open)
	case calendar:
		return one(c.open || w.current(c.settled))
	case every:
		return one(w.current(c.granted))
	case session:
		return one(w.start != 0 && c.granted >= w.start)
	case rolling:
		low, _ = one(c.granted > w.seen-w.length)
		_, high = one(c.granted > w.seen-w.length-w.length/50)
		return low, high
	default:
		return one(true)
	}
}

func (w *witness) current(at int64) bool {
	start, end := w.period(time.Unix(0, w.seen))
	return at >= start.UnixNano() && at < end.UnixNano()
}

// total is the least and the most of the limit that is taken.
func (w *witness) total() (low, high int64) {
	if w.kind == refill {
		low = (w.level + w.length - 1) / w.length
		return low, low
	}
	for _, c := range w.calls {
		l, h := w.counts(c)
		low, high = low+l, high+h
	}
	return low, high
}

// grant notes that a call was admitted.
func (w *witness) grant() *call {
	c := &call{granted: w.seen, expires: w.seen + int64(ttl), open: true}
	w.calls = append(w.calls, c)
	if w.kind == session && w.start == 0 {
		w.start = w.seen
	}
	w.level += w.length
	return c
}

// turnsAt is when the window ends, 0 if it has no end.
func (w *witness) turnsAt() int64 {
	switch {
	case w.period != nil:
		_, end := w.period(time.Unix(0, w.seen))
		return end.UnixNano()
	case w.start != 0:
		return w.start + w.length
	}
	return 0
}
