package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"example.com/quota"
)

// patience is how long a task waits when no provider has room, before it is turned away.
const patience = time.Minute

// An orchestrator sends tasks to providers, as many at once as it has workers and the quotas allow.
type orchestrator struct {
	tracker   *quota.QuotaTracker
	providers []provider
	dispatch  func(context.Context, task) (output int64, err error)
	clock     *fastClock
	workers   int
	out       *printer
	perTask   bool // print a line for each task, not only now and then
	counts    counts
}

// run works through the tasks and returns when all of them are settled. When ctx ends it starts no further ones and
// cuts short what is in flight. It gives up at the first error that is neither a refusal nor a provider's failure: when
// the tracker cannot save, nothing more may be sent.
func (o *orchestrator) run(ctx context.Context, tasks []task) error {
	ctx, giveUp := context.WithCancel(ctx)
	defer giveUp()
	began := o.clock.Now()
	slots := make(chan struct{}, o.workers)
	failure := make(chan error, 1)
	var workers sync.WaitGroup
	for i, t := range tasks {
		if o.clock.sleep(ctx, t.arrives-o.clock.Now().Sub(began)) != nil {
			o.counts.notStart(len(tasks) - i)
			break
		}
		slots <- struct{}{}
		workers.Go(func() {
			defer func() { <-slots }()
			if err := o.do(ctx, t); err != nil {
				select {
				case failure <- err:
					giveUp()
				default: // not the first
				}
			}
		})
		if !o.perTask && (i+1)*10/len(tasks) > i*10/len(tasks) { // at each tenth
			o.out.printf("%s of %s tasks: %s\n", thousands(i+1), thousands(len(tasks)), o.counts.progress())
		}
	}
	workers.Wait()
	select {
	case err := <-failure:
		return err
	default:
	}
	// A reservation that Ctrl-C overtook while it was being saved is taken back by the next save.
	return o.tracker.Flush(context.WithoutCancel(ctx))
}

// do reserves, sends and settles one task.
func (o *orchestrator) do(ctx context.Context, t task) error {
	choices := candidates(o.providers, t)
	r, err := o.tracker.Acquire(ctx, quota.Request{Any: choices, MaxWait: patience})
	switch {
	case err == nil:
	case errors.Is(err, context.Canceled): // Ctrl-C
		o.counts.notStart(1)
		return nil
	case errors.Is(err, quota.ErrExceeded):
		o.counts.turnAway()
		o.line(t, "turned away: %v", err)
		return nil
	default:
		return fmt.Errorf("%s: %w", t.id, err)
	}
	p := o.provider(r.Quota())
	held := p.use(t.prompt, t.maxOutput)
	o.counts.reserved(p.name != choices[0].Quota)

	output, err := o.dispatch(ctx, t)

	ctx = context.WithoutCancel(ctx) // what was sent is settled, Ctrl-C or not
	switch {
	case err == nil:
		actual := p.use(t.prompt, output)
		err = r.Commit(ctx, actual.amounts()...)
		o.counts.settled(p.name, tally{known: actual})
		o.line(t, "%-12s %6s tokens  %s", p.name, thousands(actual.input+actual.output), dollars(actual.pico))
	case errors.Is(err, errNotSent):
		o.line(t, "%-12s %v: released", p.name, err)
		err = r.Release(ctx)
		o.counts.settled(p.name, tally{})
	default:
		// Nobody knows what it used. Commit without amounts charges what was held.
		o.line(t, "%-12s %v: charged as held, %s tokens", p.name, err, thousands(held.input+held.output))
		err = r.Commit(ctx)
		o.counts.settled(p.name, tally{unknown: held})
	}
	if err != nil {
		return fmt.Errorf("%s: %w", t.id, err)
	}
	return nil
}

func (o *orchestrator) provider(name string) provider {
	for _, p := range o.providers {
		if p.name == name {
			return p
		}
	}
	return provider{name: name}
}

func (o *orchestrator) line(t task, format string, args ...any) {
	if o.perTask {
		o.out.printf("%-8s "+format+"\n", append([]any{t.id}, args...)...)
	}
}
