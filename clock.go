package quota

import "time"

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
