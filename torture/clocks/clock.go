package clocks

import (
	"slices"
	"sync"
	"time"
)

// A wallClock shows a time that may step, while what it has planned lives by the time that really passes: as a machine
// whose clock is corrected, or that was suspended. What is planned runs in the goroutine that lets time pass.
type wallClock struct {
	mu      sync.Mutex
	wall    time.Time
	passed  time.Duration
	timers  []*timer
	planned int    // how often something was planned
	hook    func() // runs once, inside the next Now, when the time has been read
}

type timer struct {
	due time.Duration
	f   func()
}

func (c *wallClock) Now() time.Time {
	c.mu.Lock()
	now, hook := c.wall, c.hook
	c.hook = nil
	c.mu.Unlock()
	if hook != nil {
		hook()
	}
	return now
}

func (c *wallClock) AfterFunc(d time.Duration, f func()) (stop func() bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	t := &timer{c.passed + max(d, 0), f}
	c.timers = append(c.timers, t)
	c.planned++
	return func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		at := slices.Index(c.timers, t)
		if at >= 0 {
			c.timers = slices.Delete(c.timers, at, at+1)
		}
		return at >= 0
	}
}

// pass lets time pass and runs what falls due.
func (c *wallClock) pass(d time.Duration) {
	c.mu.Lock()
	until := c.passed + d
	for {
		first := -1
		for i, t := range c.timers {
			if t.due <= until && (first < 0 || t.due < c.timers[first].due) {
				first = i
			}
		}
		if first < 0 {
			break
		}
		t := c.timers[first]
		c.timers = slices.Delete(c.timers, first, first+1)
		c.wall = c.wall.Add(max(0, t.due-c.passed))
		c.passed = max(c.passed, t.due)
		c.mu.Unlock()
		t.f()
		c.mu.Lock()
	}
	c.wall = c.wall.Add(until - c.passed)
	c.passed = until
	c.mu.Unlock()
}

// set makes the clock show another time. No time passes.
func (c *wallClock) set(to time.Time) {
	c.mu.Lock()
	c.wall = to
	c.mu.Unlock()
}

func (c *wallClock) plans() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.planned
}

// inNext runs f inside the next Now.
func (c *wallClock) inNext(f func()) {
	c.mu.Lock()
	c.hook = f
	c.mu.Unlock()
}
