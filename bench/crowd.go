package main

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"example.com/quota"
)

// openHolds reserves many times on one quota, with lifetimes between two bounds, and settles nothing: the callers are at
// work, or dead.
func (b *bench) openHolds(t *quota.QuotaTracker, name string, many int, least, most time.Duration) error {
	random := rand.New(rand.NewPCG(b.seed, 5))
	for range many {
		ttl := least + time.Duration(random.Int64N(int64(most-least)))
		if _, err := t.Acquire(b.ctx, quota.Request{All: []string{name}, TTL: ttl}); err != nil {
			return err
		}
	}
	return nil
}

// measureCrowd is row 5.
func (b *bench) measureCrowd() ([]finding, error) {
	t, err := b.tracker(quota.InMemory(), quota.Quota{Name: "crowded", Limits: threeLimits(huge)},
		quota.Quota{Name: "empty", Limits: threeLimits(huge)})
	if err != nil {
		return nil, err
	}
	defer b.shut(t)
	if err := b.openHolds(t, "crowded", b.keys, time.Hour, 24*time.Hour); err != nil {
		return nil, err
	}
	crowded, empty := b.reserveAndCommit(t, "crowded"), b.reserveAndCommit(t, "empty")
	var findings []finding
	for _, workers := range []int{1, 2} {
		found, err := compare(b.pace,
			usedBy(parallel("crowded", workers, crowded), t, "crowded", tokensLimit, 4),
			usedBy(parallel("the same with none open", workers, empty), t, "empty", tokensLimit, 4))
		if err != nil {
			return nil, err
		}
		line := against(5, fmt.Sprintf("Reserve + Commit with %s holds open, %s", commas(b.keys), goroutines(workers)), found[0], found[1])
		if workers == 1 {
			line = line.want(atMost(1.5))
		}
		findings = append(findings, line)
	}
	if status, _ := t.Status("crowded"); status.Reservations != b.keys {
		return nil, fmt.Errorf("%d holds are open, not %d", status.Reservations, b.keys)
	}
	delays, err := b.measureExpiry()
	return append(findings, delays...), err
}

// measureExpiry lets all holds expire at once while other callers go on, and asks each for its longest call: within their
// windows, and after a day slept through.
func (b *bench) measureExpiry() ([]finding, error) {
	var lines []finding
	for _, c := range []struct {
		when              string
		least, most, jump time.Duration
		goal              *bound
	}{
		{"", 10 * time.Minute, 40 * time.Minute, 45 * time.Minute, atMost(float64(10 * time.Millisecond))},
		{", of a day slept through", time.Hour, 24 * time.Hour, 25 * time.Hour, nil},
	} {
		work := []string{
			"longest call on the same quota while " + commas(b.keys) + " holds expire" + c.when,
			"longest call on another quota meanwhile" + c.when,
			"longest call in as long a time before they expire" + c.when,
		}
		longest := make([][]float64, len(work))
		for range b.rounds {
			found, err := b.expireOnce(c.least, c.most, c.jump)
			if err != nil {
				return nil, err
			}
			for i, delay := range found {
				longest[i] = append(longest[i], float64(delay))
			}
		}
		for i, what := range work {
			line := alone(5, what, nanoseconds, longest[i])
			if i < 2 {
				line = line.want(c.goal)
			}
			lines = append(lines, line)
		}
	}
	b.say(5, "After a day slept through, windows and days have turned since the holds were due: they expire in the order of time with "+
		"those turns, and nobody is served in that quota before all have.")
	return lines, nil
}

// expireOnce returns the longest call on the crowded quota, on the other one, and on either before anything expired.
func (b *bench) expireOnce(least, most, jump time.Duration) (longest [3]time.Duration, err error) {
	clock := noonClock()
	t, err := b.open(quota.Config{Persistence: quota.InMemory(), Clock: clock, Quotas: []quota.Quota{
		{Name: "crowded", Limits: threeLimits(huge)}, {Name: "other", Limits: threeLimits(huge)}}})
	if err != nil {
		return longest, err
	}
	defer b.shut(t)
	if err := b.openHolds(t, "crowded", b.keys, least, most); err != nil {
		return longest, err
	}
	const budget = 60 * time.Second
	var stop, jumped atomic.Bool
	var early, late [2]atomic.Int64 // calls made before the jump, and since
	var before, after [2]time.Duration
	var errs [2]error
	var group sync.WaitGroup
	for i, name := range []string{"crowded", "other"} {
		call := b.reserveAndCommit(t, name)
		group.Go(func() {
			for !stop.Load() && errs[i] == nil {
				start, begunLate := time.Now(), jumped.Load()
				errs[i] = call(i, 1)
				passed := time.Since(start)
				if begunLate || jumped.Load() {
					after[i] = max(after[i], passed)
					late[i].Add(1)
				} else {
					before[i] = max(before[i], passed)
					early[i].Add(1)
				}
			}
		})
	}
	start := time.Now()
	awaited := func(calls *[2]atomic.Int64) bool {
		return calls[0].Load() > 0 && calls[1].Load() > 0 || time.Since(start) > budget
	}
	for time.Sleep(b.time); !awaited(&early); {
		time.Sleep(time.Millisecond)
	}
	start = time.Now()
	jumped.Store(true)
	clock.jump(jump)
	left := b.keys
	for (left > 2 || !awaited(&late)) && time.Since(start) < budget { // the caller there holds one
		time.Sleep(2 * time.Millisecond)
		status, _ := t.Status("crowded")
		left = status.Reservations
	}
	stop.Store(true)
	group.Wait()
	clock.wait()
	if err := errors.Join(errs[:]...); err != nil {
		return longest, err
	}
	if left > 2 {
		return longest, fmt.Errorf("%d of %d holds were still open after %v", left, b.keys, budget)
	}
	return [3]time.Duration{after[0], after[1], max(before[0], before[1])}, nil
}

// A jumpClock is the system clock, except that it can be moved ahead; what is planned runs when it is, and only then.
type jumpClock struct {
	ahead atomic.Int64
	mu    sync.Mutex
	plans map[*plan]bool
	group sync.WaitGroup
}

type plan struct {
	due time.Time
	run func()
}

// noonClock is at noon of some day, far from the turn of any window.
func noonClock() *jumpClock {
	c := &jumpClock{}
	c.ahead.Store(int64(time.Until(time.Now().UTC().Truncate(24 * time.Hour).Add(36 * time.Hour))))
	return c
}

// Now returns the time of the clock.
func (c *jumpClock) Now() time.Time { return time.Now().Add(time.Duration(c.ahead.Load())) }

// AfterFunc plans f for the jump that passes d from now.
func (c *jumpClock) AfterFunc(d time.Duration, f func()) (stop func() bool) {
	p := &plan{c.Now().Add(d), f}
	c.mu.Lock()
	defer c.mu.Unlock()
	if d <= 0 {
		c.group.Go(f)
		return func() bool { return false }
	}
	if c.plans == nil {
		c.plans = map[*plan]bool{}
	}
	c.plans[p] = true
	return func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		planned := c.plans[p]
		delete(c.plans, p)
		return planned
	}
}

// jump moves the clock ahead, and runs what is due from then on as the system's timers do: each in its own goroutine.
func (c *jumpClock) jump(d time.Duration) {
	c.ahead.Add(int64(d))
	c.mu.Lock()
	defer c.mu.Unlock()
	for p := range c.plans {
		if !p.due.After(c.Now()) {
			delete(c.plans, p)
			c.group.Go(p.run)
		}
	}
}

func (c *jumpClock) wait() { c.group.Wait() }
