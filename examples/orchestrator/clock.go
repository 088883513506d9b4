package main

import (
	"context"
	"time"

	"example.com/quota"
)

// A fastClock runs speed times faster than real time, so that an hour of recorded traffic passes through an hour of
// the tracker's windows. It implements quota.Clock.
type fastClock struct {
	start time.Time // what it showed
	began time.Time // when, in real time
	speed float64
}

// startClock starts at the real time, or where the saved state ends if that is later. The last run's clock was fast
// too: started at the real time again, this run would first have to live through the hour that run is ahead, in
// windows that are already full. (A trace's own date plays no part: usage lands on today, where the next run finds it.)
func startClock(ctx context.Context, saved quota.Persistence, speed float64) *fastClock {
	now := time.Now()
	start := now.Round(0)
	if state, err := saved.Load(ctx); err == nil && state != nil && state.UpdatedAt.After(start) {
		start = state.UpdatedAt // a state that cannot be read is for quota.New to report
	}
	return &fastClock{start: start, began: now, speed: speed}
}

func (c *fastClock) Now() time.Time { return c.start.Add(c.simulated(time.Since(c.began))) }

func (c *fastClock) AfterFunc(d time.Duration, f func()) (stop func() bool) {
	return time.AfterFunc(c.real(d), f).Stop
}

// sleep passes d on this clock; it ends early, with ctx's error, when ctx does.
func (c *fastClock) sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 || ctx.Err() != nil {
		return ctx.Err()
	}
	timer := time.NewTimer(c.real(d))
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (c *fastClock) simulated(d time.Duration) time.Duration {
	return time.Duration(float64(d) * c.speed)
}
func (c *fastClock) real(d time.Duration) time.Duration { return time.Duration(float64(d) / c.speed) }
