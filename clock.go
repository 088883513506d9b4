package quota

import (
	"sync/atomic"
	"time"
)

// A Clock tells the time and calls back later. The tracker asks it for everything that depends on time, so that a test
// can turn it by hand; quotatest.NewClock is such a clock. Implementations must be safe for concurrent use.
type Clock interface {
	// Now returns the current wall-clock time. It may step, forward or backwards.
	Now() time.Time
	// AfterFunc calls f once, in a goroutine of its own or of the clock's, when d has passed. stop keeps f from being
	// called and reports whether it was in time to do so; it does not wait for an f that has started.
	AfterFunc(d time.Duration, f func()) (stop func() bool)
}

type systemClock struct{}

func (systemClock) Now() time.Time { return time.Now() }

func (systemClock) AfterFunc(d time.Duration, f func()) (stop func() bool) {
	return time.AfterFunc(d, f).Stop
}

// A wallClock is the system clock at half the price. Go's time.Now reads two clocks; between two such reads, a millisecond
// apart at most, one is enough. A wall clock that is set is followed as late as that.
type wallClock struct {
	start  time.Time
	looked atomic.Int64 // when both were read last, since start
	ahead  atomic.Int64 // what to add to the time since start
}

const lookEvery = int64(time.Millisecond)

func newWallClock() *wallClock {
	c := &wallClock{start: time.Now()}
	c.look()
	return c
}

func (c *wallClock) now() int64 {
	since := int64(time.Since(c.start))
	if since-c.looked.Load() < lookEvery {
		return since + c.ahead.Load()
	}
	return c.look()
}

func (c *wallClock) look() int64 {
	now := time.Now()
	since, wall := int64(now.Sub(c.start)), nanos(now)
	c.ahead.Store(wall - since)
	c.looked.Store(since)
	return wall
}

// The core counts time in nanoseconds since 1970, of which 0 stands for "not set".
const (
	earliest = int64(1)
	latest   = int64(5680281600e9) // 2150-01-01: leaves room to add any permitted window
)

// nanos returns t in the core's form. Times outside what it can hold become its first or last instant.
func nanos(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	switch seconds := t.Unix(); {
	case seconds < 0:
		return earliest
	case seconds >= latest/1e9:
		return latest
	}
	return max(t.UnixNano(), earliest)
}

// instant is the inverse of nanos, in UTC.
func instant(ns int64) time.Time {
	if ns == 0 {
		return time.Time{}
	}
	return time.Unix(0, ns).UTC()
}
