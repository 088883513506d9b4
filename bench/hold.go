package main

import (
	"fmt"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"example.com/quota"
)

// reserveAndCommit holds what the limits estimate and settles it as a little less, on one quota.
func (b *bench) reserveAndCommit(t *quota.QuotaTracker, name string) func(worker, n int) error {
	return func(_, n int) error {
		for range n {
			r, err := t.Reserve(b.ctx, name, quota.Tokens(5))
			if err != nil {
				return err
			}
			if err := r.Commit(b.ctx, quota.Tokens(4)); err != nil {
				return err
			}
		}
		return nil
	}
}

// reserveOne holds and settles one request, of a quota with a limit of requests alone.
func (b *bench) reserveOne(t *quota.QuotaTracker, name string) func(worker, n int) error {
	return func(_, n int) error {
		for range n {
			r, err := t.Reserve(b.ctx, name)
			if err != nil {
				return err
			}
			if err := r.Commit(b.ctx); err != nil {
				return err
			}
		}
		return nil
	}
}

func reserveAndCancel(limiter *rate.Limiter) func(worker, n int) error {
	return func(_, n int) error {
		went := 0
		for range n {
			r := limiter.Reserve()
			if r.OK() {
				went++
			}
			r.Cancel()
		}
		return all(went, n, errDenied)
	}
}

const lacksHolding = "one limit; a hold ends only by being cancelled, which gives nothing back once its time has come; no expiry, no alerts, no state"

// measureHolding is row 2.
func (b *bench) measureHolding() ([]finding, error) {
	var alerts atomic.Int64
	t, err := b.open(quota.Config{
		Persistence: quota.InMemory(),
		Quotas: []quota.Quota{{Name: "q", Limits: threeLimits(huge)},
			{Name: "one", Limits: []quota.Limit{{Max: huge, Window: quota.Every(time.Hour)}}}},
		OnAlert: func(quota.Alert) { alerts.Add(1) },
	})
	if err != nil {
		return nil, err
	}
	defer b.shut(t)
	// Alerts are on and one has fired, as on any day after lunch.
	if err := t.RecordUsage(b.ctx, "q", quota.Tokens(huge*6/10)); err != nil {
		return nil, err
	}
	if alerts.Load() != 1 {
		return nil, fmt.Errorf("%d alerts at 60 %%, not 1", alerts.Load())
	}
	work, single := b.reserveAndCommit(t, "q"), b.reserveOne(t, "one")
	b.exactly(2, "allocations of Reserve + Commit", 1, func() {
		if err := work(0, 1); err != nil {
			b.broken = append(b.broken, err.Error())
		}
	})
	ours, oursOfOne := both("Reserve + Commit", work), both("Reserve + Commit, 1 limit", single)
	now := both("x/time/rate Reserve + Cancel", reserveAndCancel(freeRate()))
	// Its one token is gone, so each reservation lies ahead and Cancel gives it back.
	future := rate.NewLimiter(rate.Every(time.Minute), 1)
	future.Allow()
	later := both("x/time/rate Reserve + Cancel of the future", reserveAndCancel(future))

	var findings []finding
	for i, how := range []string{"1 goroutine", "2 goroutines"} {
		found, err := compare(b.pace, usedBy(ours[i], t, "q", tokensLimit, 4), now[i], later[i],
			usedBy(oursOfOne[i], t, "one", requestsLimit, 1))
		if err != nil {
			return nil, err
		}
		first := against(2, "Reserve + Commit, 3 limits, "+how, found[0], found[1])
		if i == 0 {
			first = first.want(atMost(1.25)).lacks(lacksHolding)
		}
		findings = append(findings, first, against(2, "Reserve + Commit, 3 limits, "+how, found[0], found[2]),
			against(2, "Reserve + Commit, 1 limit, "+how, found[3], found[1]))
		if i == 0 && !b.quick {
			three, one := summarize(found[0].perOp).median, summarize(found[3].perOp).median
			b.say(2, "What bounds it: with the one limit that the peer has it takes %s, and each further limit %s more, counted twice: when it is "+
				"held and when it is settled. The two clock reads and the two locks are in both sides' time.",
				nanoseconds.text(one), nanoseconds.text((three-one)/2))
		}
	}
	b.say(2, "%s", "x/time/rate: Cancel of a reservation that may act at once returns without giving anything back (its time has come), "+
		"which is the faster of its two ways and the one the goal is about; the other line has reservations that lie ahead, which Cancel undoes.")
	return findings, nil
}
