package main

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"golang.org/x/time/rate"

	"example.com/quota"
)

// freeRate admits whatever the rounds ask for, and still computes: it is not rate.Inf.
func freeRate() *rate.Limiter { return rate.NewLimiter(1e6, 1<<40) }

// emptyRate refuses: its one token is gone and comes back after weeks.
func emptyRate() *rate.Limiter {
	limiter := rate.NewLimiter(rate.Every(1000*time.Hour), 1)
	limiter.Allow()
	return limiter
}

func allow(limiter *rate.Limiter, want bool) func(worker, n int) error {
	return func(_, n int) error {
		went := 0
		for range n {
			if limiter.Allow() == want {
				went++
			}
		}
		return all(went, n, errors.New("x/time/rate answered otherwise"))
	}
}

func canUse(t *quota.QuotaTracker, name string, want bool) func(worker, n int) error {
	return func(_, n int) error {
		went := 0
		for range n {
			if t.CanUse(name) == want {
				went++
			}
		}
		return all(went, n, errors.New("CanUse answered otherwise"))
	}
}

// both runs a batch in one goroutine and in two.
func both(name string, batch func(worker, n int) error) [2]side {
	return [2]side{
		serial(name, func(n int) error { return batch(0, n) }),
		parallel(name, 2, batch),
	}
}

// fullQuota has used up its weekly tokens; its two other limits have room.
func fullQuota(name string) quota.Quota {
	limits := threeLimits(huge)
	limits[tokensLimit].Max = 1000
	return quota.Quota{Name: name, Limits: limits}
}

const lacksAsking = "one limit, no refusal that explains itself, nothing survives a restart"

// measureAsking is row 1.
func (b *bench) measureAsking() ([]finding, error) {
	t, err := b.tracker(quota.InMemory(), quota.Quota{Name: "open", Limits: threeLimits(huge)}, fullQuota("full"))
	if err != nil {
		return nil, err
	}
	defer b.shut(t)
	if err := t.RecordUsage(b.ctx, "full", quota.Tokens(1000)); err != nil {
		return nil, err
	}
	if err := t.RecordUsage(b.ctx, "open", quota.Tokens(1)); err != nil {
		return nil, err
	}
	b.exactly(1, "allocations of CanUse", 0, func() { t.CanUse("open") })
	b.exactly(1, "allocations of CanUse that says no", 0, func() { t.CanUse("full") })

	var findings []finding
	for _, kind := range []struct {
		work    string
		name    string
		limiter *rate.Limiter
		want    bool
	}{{"allowed", "open", freeRate(), true}, {"denied", "full", emptyRate(), false}} {
		ours := both("CanUse", canUse(t, kind.name, kind.want))
		theirs := both("x/time/rate Allow", allow(kind.limiter, kind.want))
		for i, how := range []string{"1 goroutine", "2 goroutines"} {
			found, err := compare(b.pace, ours[i], theirs[i])
			if err != nil {
				return nil, err
			}
			line := against(1, "CanUse, 3 limits, "+kind.work+", "+how, found[0], found[1])
			if kind.want && i == 0 {
				line = line.want(atMost(0.80)).lacks(lacksAsking)
			}
			findings = append(findings, line)
		}
	}
	keyed, err := b.askingManyKeys()
	return append(findings, keyed...), err
}

// askingManyKeys asks 1,000 quotas at random, half of them full, and as many limiters in a map.
func (b *bench) askingManyKeys() ([]finding, error) {
	names := keysOf("account:", 1000, b.seed)
	var quotas []quota.Quota
	limiters := make(map[string]*rate.Limiter, len(names))
	for i, name := range names {
		if i%2 == 0 {
			quotas = append(quotas, quota.Quota{Name: name, Limits: threeLimits(huge)})
			limiters[name] = freeRate()
			continue
		}
		quotas = append(quotas, fullQuota(name))
		limiters[name] = emptyRate()
	}
	t, err := b.tracker(quota.InMemory(), quotas...)
	if err != nil {
		return nil, err
	}
	defer b.shut(t)
	for i, name := range names {
		if err := t.RecordUsage(b.ctx, name, quota.Tokens(int64(i%2*1000))); err != nil {
			return nil, err
		}
	}
	mine, others := draw(names, 1, b.seed), draw(names, 1, b.seed)
	found, err := compare(b.pace,
		serial("CanUse", func(n int) error {
			yes := 0
			for range n {
				if t.CanUse(mine.key(0)) {
					yes++
				}
			}
			return aboutHalf(yes, n)
		}),
		serial("a map of x/time/rate", func(n int) error {
			yes := 0
			for range n {
				if limiters[others.key(0)].Allow() {
					yes++
				}
			}
			return aboutHalf(yes, n)
		}))
	if err != nil {
		return nil, err
	}
	return []finding{against(1, "CanUse, 1,000 quotas at random, half of them full", found[0], found[1])}, nil
}

// aboutHalf fails unless about half of a random draw was admitted: more or less is not this work.
func aboutHalf(yes, n int) error {
	if n >= 1024 && (yes < n/3 || yes > 2*n/3) {
		return fmt.Errorf("%d of %d admitted, not about half", yes, n)
	}
	return nil
}

// exactly checks the allocations of one operation, which no noise changes.
func (b *bench) exactly(row int, what string, want float64, do func()) {
	do() // what is kept for the next time
	got := testing.AllocsPerRun(200, do)
	if raceDetector {
		return // it allocates itself, and empties pools at random
	}
	if got != want {
		b.broken = append(b.broken, fmt.Sprintf("row %d: %s: %v, not %v", row, what, got, want))
	}
	b.say(row, "Counted exactly: %s: %v (goal: %v).", what, got, want)
}
