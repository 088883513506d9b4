package ledger

import (
	"fmt"
	"time"
)

// A limit is one limit of a quota, with what cannot be recomputed from the calls: when a Session began, and the level
// of a Refill.
type limit struct {
	shape shape
	unit  int
	max   int64
	soft  bool

	start int64 // Session: 0: it has not begun

	// Refill: the true level lies between low and high, in units x length; at the time at. Before the time since, Max
	// was another, at least least of them.
	low, high, at, since, least int64

	first, last int64 // the fixed period that was looked at last
}

// turn lets time pass.
func (l *limit) turn(now int64) {
	switch l.shape.kind {
	case session:
		if l.start != 0 && now >= l.start+l.shape.length {
			l.start = 0
		}
	case refill:
		if passed := now - l.at; passed > 0 {
			l.low, l.high = drained(l.low, l.max, passed), drained(l.high, l.max, passed)
		}
		l.at = max(l.at, now)
	}
}

// drained is a level after so much time, at so much per length.
func drained(level, perLength, passed int64) int64 {
	if perLength > 0 && passed > level/perLength {
		return 0
	}
	return level - perLength*passed
}

// begun tells the limit of a grant or a use without a hold.
func (l *limit) begun(unit int, n, at int64) {
	if l.unit != unit || n == 0 {
		return
	}
	switch l.shape.kind {
	case session:
		if l.start == 0 {
			l.start = at
		}
	case refill:
		l.low += n * l.shape.length
		l.high += n * l.shape.length
	}
}

// whole is a level in units, a part of one counted as one.
func whole(level, length int64) int64 { return (level + length - 1) / length }

// refund tells a Refill that so much less of what was held, or charged, has been used: at most the amount less what has
// refilled since the grant flows back at once.
func (l *limit) refund(unit int, held, less, granted, at int64) {
	if l.shape.kind != refill || l.unit != unit || less == 0 {
		return
	}
	most := min(less*l.shape.length, drained(held*l.shape.length, l.least, at-granted))
	l.low = max(0, l.low-most)
	if granted > l.since {
		back := min(less*l.shape.length, drained(held*l.shape.length, l.max, at-granted))
		l.high = max(0, l.high-back/l.shape.length*l.shape.length) // whole units
	}
}

// change gives the limit another Max. A Refill may then forget what has refilled of a unit that is not whole.
func (l *limit) change(to, now int64) {
	if l.shape.kind == refill {
		l.high = whole(l.high, l.shape.length) * l.shape.length
	}
	l.least, l.since = min(l.least, to), now
	l.max = to
}

func (l *limit) reset(m *model) {
	switch l.shape.kind {
	case session:
		if l.start != 0 && l.firstUse(m) == 0 {
			l.start = 0
		}
	case refill:
		held := int64(0)
		for _, h := range m.holds {
			if h.state == open {
				held += h.left[l.unit]
			}
		}
		l.low, l.high = 0, min(whole(l.high, l.shape.length), held)*l.shape.length
	}
}

// A span is the least and the most that a balance may be.
type span struct{ low, high int64 }

func (s span) has(n int64) bool { return s.low <= n && n <= s.high }

func (s span) String() string {
	if s.low == s.high {
		return fmt.Sprint(s.low)
	}
	return fmt.Sprintf("%d to %d", s.low, s.high)
}

// A balance is what a limit may say of itself.
type balance struct{ used, reserved, both span }

// balance recomputes what is used and reserved at the model's time.
func (l *limit) balance(m *model) balance {
	var b balance
	for _, h := range m.holds {
		if h.state == open {
			l.count(&b.reserved, h.left[l.unit], h.granted, m.now, m.now)
		}
	}
	for _, e := range m.entries {
		if e.unit == l.unit {
			l.count(&b.used, e.n, e.granted, e.at, m.now)
		}
	}
	switch l.shape.kind {
	case inFlight:
		b.used = span{}
	case refill:
		b.both = span{whole(l.low, l.shape.length), whole(l.high, l.shape.length)}
		b.reserved = span{0, b.reserved.high} // what flows back is taken from used first
		b.used = span{0, b.both.high}
		return b
	}
	b.both = span{b.used.low + b.reserved.low, b.used.high + b.reserved.high}
	return b
}

// count adds n where it counts: in the window of its grant, of a budget in that of its settlement.
func (l *limit) count(s *span, n, granted, at, now int64) {
	switch l.shape.kind {
	case calendar:
		if l.current(now, at) {
			*s = span{s.low + n, s.high + n}
		}
	case every:
		if l.current(now, granted) {
			*s = span{s.low + n, s.high + n}
		}
	case session:
		if l.start != 0 && granted >= l.start {
			*s = span{s.low + n, s.high + n}
		}
	case rolling:
		if granted > now-l.shape.length {
			s.low += n
		}
		if granted > now-l.shape.length-l.shape.length/50 {
			s.high += n
		}
	default:
		*s = span{s.low + n, s.high + n}
	}
}

// current reports whether an instant falls into the fixed window that now falls into.
func (l *limit) current(now, at int64) bool {
	if now < l.first || now >= l.last {
		start, end := l.shape.period(time.Unix(0, now))
		l.first, l.last = start.UnixNano(), end.UnixNano()
	}
	return at >= l.first && at < l.last
}

// An answer is what a model says to a call that asks for room.
type answer int

const (
	yes answer = iota
	either
	no
)

// admits says whether a call fits into every limit.
func (m *model) admits(n amounts) answer {
	all := yes
	for _, l := range m.limits {
		if l.soft {
			continue
		}
		b := l.balance(m)
		switch {
		case n[l.unit] > l.max-b.both.low && n[l.unit] > 0:
			return no
		case n[l.unit] > l.max-b.both.high && n[l.unit] > 0:
			all = either
		}
	}
	return all
}
