package hostile

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"example.com/quota"
	"example.com/quota/torture/harness"
)

// onAlert is the callback of the case.
func (l *load) onAlert(alert quota.Alert) {
	<-l.opened
	random := rand.New(rand.NewPCG(l.seed, uint64(alert.Threshold)<<32|uint64(len(alert.Quota))))
	if l.closing == "from the callback" && alert.Threshold > 20 {
		l.close1.Do(l.close)
	}
	switch l.callback {
	case "blocks":
		l.inside.Add(1)
		<-l.proceed
		l.inside.Add(-1)
	case "panics":
		panic("a hostile callback")
	case "calls back":
		caller := &caller{load: l, random: random, inCallback: true}
		for range 1 + random.IntN(4) {
			caller.call()
		}
	case "is slow":
		time.Sleep(time.Duration(random.IntN(4000)) * time.Microsecond)
	}
}

// caller makes calls and notes in the ledger what it was told.
type caller struct {
	*load
	random     *rand.Rand
	inCallback bool
	open       []reservation
}

type reservation struct {
	*quota.Reservation
	n int64
}

// context ends at once, soon, or not at all.
func (c *caller) context() (context.Context, context.CancelFunc) {
	switch c.random.IntN(6) {
	case 0:
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		return ctx, cancel
	case 1, 2:
		return context.WithTimeout(context.Background(), time.Duration(c.random.IntN(3000))*time.Microsecond)
	default:
		return context.Background(), func() {}
	}
}

func (c *caller) call() {
	defer c.made.Add(1)
	ctx, cancel := c.context()
	defer cancel()
	n := 1 + c.random.Int64N(5)
	switch dice := c.random.IntN(100); {
	case dice < 30:
		err := c.tracker.RecordUsage(ctx, usage, quota.Requests(n))
		c.check(ctx, "RecordUsage", err)
		if effective(err) {
			c.ledger.used(usage, n, true)
		} else {
			c.ledger.used(usage, n, false)
		}
	case dice < 45:
		r, err := c.tracker.Reserve(ctx, held, quota.Requests(n))
		c.check(ctx, "Reserve", err)
		if err == nil {
			c.ledger.held(held, n)
			c.open = append(c.open, reservation{r, n})
		}
	case dice < 65 && len(c.open) > 0:
		c.settle(ctx, n)
	case dice < 75:
		c.wait()
	case dice < 80:
		c.check(ctx, "SetQuotas", c.tracker.SetQuotas(ctx, quotas()))
	case dice < 83:
		c.check(ctx, "Flush", c.tracker.Flush(ctx))
	case dice < 86:
		c.check(ctx, "Refresh", c.tracker.Refresh(ctx))
	case dice < 89:
		c.check(ctx, "Observe", c.tracker.Observe(ctx, usage, quota.Observation{}))
	default:
		_ = c.tracker.Summary().String()
		c.tracker.Status(usage)
		c.tracker.CanUse(held)
		c.tracker.Check(tight)
	}
}

// settle ends one of the caller's reservations.
func (c *caller) settle(ctx context.Context, n int64) {
	i := c.random.IntN(len(c.open))
	r := c.open[i]
	c.open = append(c.open[:i], c.open[i+1:]...)
	var err error
	actual := int64(0)
	switch c.random.IntN(4) {
	case 0:
		err = r.Release(ctx)
	case 1:
		actual, err = r.n, r.Commit(ctx)
	case 2:
		_ = r.Extend(ctx, time.Hour) // whether it has been extended makes no difference to the ledger
		fallthrough
	default:
		actual, err = n, r.Commit(ctx, quota.Requests(n))
	}
	c.check(ctx, "settling", err)
	c.ledger.freed(held, r.n, effective(err))
	c.ledger.used(held, actual, effective(err))
}

// wait waits for one of few places, for a short time.
func (c *caller) wait() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Duration(c.random.IntN(3000))*time.Microsecond)
	defer cancel()
	r, err := c.tracker.Wait(ctx, tight)
	c.check(ctx, "Wait", err)
	if err == nil {
		c.check(context.Background(), "Release", r.Release(context.Background()))
	}
}

// effective tells whether a call that cannot be refused counts.
func effective(err error) bool { return err == nil || errors.Is(err, quota.ErrPending) }

// check looks whether a call may return that error: nothing is wrong with the place of the state, so only the caller's
// context and Close are reasons.
func (c *caller) check(ctx context.Context, call string, err error) {
	switch {
	case err == nil, errors.Is(err, quota.ErrClosed):
	case ctx.Err() != nil && errors.Is(err, ctx.Err()):
	default:
		c.fail(harness.Violated("%s: %v", call, err))
	}
}
