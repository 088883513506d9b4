package quotatest

import (
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"
)

// A Clock is a quota.Clock that stands still until Advance or Set moves it. What AfterFunc has planned runs inside the
// call that reaches its time: in the goroutine of that call, one at a time, in the order of their times (of one time, in
// the order they were planned), and before the call returns. While one of them runs, Now returns the very time it was
// planned for. No lock is held meanwhile that Now, AfterFunc or stop need.
//
// Moves from several goroutines take turns, so what a planned function does must not wait for a move in another
// goroutine. A planned function may itself move the clock; see Advance and Set.
//
// The zero value stands at the zero time. A Clock is safe for concurrent use and must not be copied.
type Clock struct {
	turn sync.Mutex // held for a whole move, also while it calls back; taken before mu

	mu     sync.Mutex // never held while calling back
	now    time.Time
	target time.Time // where the move under way ends
	mover  string    // the goroutine that moves the clock; "": it stands still
	timers []*timer  // in the order they were planned; none lies before now
}

type timer struct {
	due time.Time
	f   func()
}

// NewClock returns a clock that stands at t. Its times are in t's location and without a monotonic reading.
func NewClock(t time.Time) *Clock {
	return &Clock{now: t.Round(0)}
}

// Now returns the time at which the clock stands.
func (c *Clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

// AfterFunc plans f for d from now. What is planned for now or earlier (d <= 0) does not run at once but in the move
// under way, when a planned function or another goroutine asks during one, else in the next one: Advance(0) will do.
// stop keeps f from being called and reports whether it was in time to do so; it never waits.
func (c *Clock) AfterFunc(d time.Duration, f func()) (stop func() bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	t := &timer{due: c.now.Add(max(d, 0)), f: f}
	c.timers = append(c.timers, t)
	return func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		i := slices.Index(c.timers, t)
		if i < 0 {
			return false
		}
		c.timers = slices.Delete(c.timers, i, i+1)
		return true
	}
}

// Advance moves the clock by d and runs what is planned until then, that moment included. A planned function that calls
// it gets control back at once, and the move it runs in goes on for d longer. A negative d panics: use Set to turn a
// clock back.
func (c *Clock) Advance(d time.Duration) {
	if d < 0 {
		panic("quotatest: Clock.Advance cannot go back, use Clock.Set")
	}
	c.move(func(now time.Time) time.Time { return now.Add(d) })
}

// Set moves the clock to t. Forward it does what Advance does. Backwards it steps as a wall clock does that somebody
// corrects: no time passes, and what is planned stays planned for the same duration from now. A planned function that
// steps the clock back does so at once, and the move it runs in goes on for as long as it had to go.
func (c *Clock) Set(t time.Time) {
	c.move(func(time.Time) time.Time { return t.Round(0) })
}

// move takes the clock to where to says and runs what falls due on the way.
func (c *Clock) move(to func(now time.Time) time.Time) {
	self := goroutine()
	c.mu.Lock()
	if c.mover == self {
		defer c.mu.Unlock()
		c.aim(to(c.now))
		return
	}
	c.mu.Unlock()

	c.turn.Lock()
	defer c.turn.Unlock()
	c.mu.Lock()
	c.mover, c.target = self, c.now
	c.aim(to(c.now))
	c.mu.Unlock()
	// Deferred, because a planned function may panic or end the goroutine (t.FailNow).
	defer func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.mover = ""
	}()
	for f := c.next(); f != nil; f = c.next() {
		f()
	}
}

// aim makes the move under way end at t, or later by as much as it still had to go. c.mu is held.
func (c *Clock) aim(t time.Time) {
	c.target = t.Add(c.target.Sub(c.now))
	if !t.Before(c.now) {
		return
	}
	for _, planned := range c.timers {
		planned.due = t.Add(planned.due.Sub(c.now))
	}
	c.now = t
}

// next takes the clock to what is to run next in this move, or to the move's end if that is nothing.
func (c *Clock) next() func() {
	c.mu.Lock()
	defer c.mu.Unlock()
	first := -1
	for i, t := range c.timers {
		if !t.due.After(c.target) && (first < 0 || t.due.Before(c.timers[first].due)) {
			first = i
		}
	}
	if first < 0 {
		c.now = c.target
		return nil
	}
	t := c.timers[first]
	c.timers = slices.Delete(c.timers, first, first+1)
	c.now = t.due.In(c.target.Location())
	return t.f
}

// goroutine tells the running goroutine from all others. Only so can a move know that one of its own functions asks for
// another; the runtime names a goroutine nowhere but in its stack trace.
func goroutine() string {
	var trace [64]byte // "goroutine 18 [running]: ..."
	name, _, _ := strings.Cut(string(trace[:runtime.Stack(trace[:], false)]), " [")
	return name
}
