package quota

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// waiters queue for room, first come first served within each quota of this process.
type waiters struct {
	count  atomic.Int64 // of those that wait, to look at before the lock is taken
	mu     sync.Mutex   // protects queues
	queues map[string][]*waiter
}

// A waiter is one call that waits, in the queue of each of its quotas.
type waiter struct {
	quotas []string
	ready  chan struct{} // has room for one: something has changed
}

func (w *waiters) enter(one *waiter) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.queues == nil {
		w.queues = make(map[string][]*waiter)
	}
	for _, name := range one.quotas {
		w.queues[name] = append(w.queues[name], one)
	}
	w.count.Add(1)
}

// exit takes a waiter out, and lets those look that are first now.
func (w *waiters) exit(one *waiter) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, name := range one.quotas {
		queue := w.queues[name]
		at := slices.Index(queue, one)
		if queue = slices.Delete(queue, at, at+1); len(queue) == 0 {
			delete(w.queues, name)
			continue
		}
		w.queues[name] = queue
		queue[0].poke()
	}
	w.count.Add(-1)
}

func (one *waiter) poke() {
	select {
	case one.ready <- struct{}{}:
	default:
	}
}

// firstIn returns those of the quotas in whose queues nobody stands before one.
func (w *waiters) firstIn(one *waiter) []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var first []string
	for _, name := range one.quotas {
		if w.queues[name][0] == one {
			first = append(first, name)
		}
	}
	return first
}

// wake lets the first waiter of a quota look again.
func (w *waiters) wake(name string) {
	if w.count.Load() == 0 {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if queue := w.queues[name]; len(queue) > 0 {
		queue[0].poke()
	}
}

func (w *waiters) wakeAll() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, queue := range w.queues {
		queue[0].poke()
	}
}

// in returns how many wait for a quota.
func (w *waiters) in(name string) int {
	if w.count.Load() == 0 {
		return 0
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.queues[name])
}

// lookAgain is how often a waiter looks for what another process has changed.
const lookAgain = 250 * time.Millisecond

// await tries until the request is admitted, cannot be any more, or the time is up.
func (t *QuotaTracker) await(ctx context.Context, op *acquisition, most time.Duration) (*Reservation, error) {
	if t.done.Load() {
		return nil, ErrClosed
	}
	if len(op.asked) == 0 {
		return nil, fmt.Errorf("%w: name at least one quota in All or Any", ErrInvalidRequest)
	}
	deadline := t.cfg.Clock.Now().Add(most)
	one := &waiter{quotas: slices.Clone(op.names), ready: make(chan struct{}, 1)}
	t.waiters.enter(one)
	defer t.waiters.exit(one)
	var refused *ExceededError
	for {
		if err := ctx.Err(); err != nil {
			return nil, t.gaveUp(err, refused)
		}
		var r *Reservation
		var err error
		before := refused
		if r, refused, err = t.attempt(ctx, op.fresh(), t.waiters.firstIn(one)); refused == nil {
			if ctx.Err() != nil && errors.Is(err, ctx.Err()) {
				err = t.gaveUp(err, before)
			}
			return r, err
		}
		now := t.cfg.Clock.Now()
		if refused.hopeless || most >= 0 && (!now.Before(deadline) || refused.RetryAt.After(deadline)) {
			t.countRefusal(refused)
			return nil, refused
		}
		sleep := refused.RetryAt.Sub(now)
		if refused.RetryAt.IsZero() {
			sleep = longest
		}
		if most >= 0 {
			sleep = min(sleep, deadline.Sub(now))
		}
		if t.shared.active() {
			sleep = min(sleep, lookAgain)
		}
		stop := t.cfg.Clock.AfterFunc(max(sleep, 0), one.poke)
		select {
		case <-one.ready:
		case <-ctx.Done():
		case <-t.closed:
			stop()
			return nil, ErrClosed
		}
		stop()
	}
}

// gaveUp is the error of a call whose ctx has ended, with the refusal that it was waiting behind.
func (t *QuotaTracker) gaveUp(err error, refused *ExceededError) error {
	if refused == nil {
		return fmt.Errorf("quota: waiting: %w", err)
	}
	t.countRefusal(refused)
	return fmt.Errorf("quota: waiting: %w: %w", err, refused)
}

// attempt tries what the waiter is first for. Of what it is not, it only asks whether waiting can help.
func (t *QuotaTracker) attempt(ctx context.Context, op *acquisition, first []string) (*Reservation, *ExceededError, error) {
	blocked, tried := false, len(op.names) == len(first)
	for i := range op.asked {
		if op.asked[i].candidate {
			tried = tried || slices.Contains(first, op.asked[i].canonical)
		} else if !slices.Contains(first, op.asked[i].canonical) {
			blocked = true
		}
	}
	if !blocked && tried {
		op.only = first
		r, err := t.acquire(ctx, op)
		var refused *ExceededError
		if errors.As(err, &refused) {
			return nil, refused, nil
		}
		return r, nil, err
	}
	return nil, t.outlook(op), nil
}

// fresh returns a copy to try with, so that one attempt shares nothing with the next.
func (o *acquisition) fresh() *acquisition {
	return &acquisition{
		tracker: o.tracker, id: o.id, ttl: o.ttl, quiet: true,
		asked: slices.Clone(o.asked), amounts: slices.Clone(o.amounts), names: slices.Clone(o.names),
	}
}

// outlook says how things stand for a request that has to queue behind others.
func (t *QuotaTracker) outlook(op *acquisition) *ExceededError {
	var all, candidates []*ExceededError
	for i := range op.asked {
		one := &op.asked[i]
		refusal := t.ask(one.canonical, op.named(one))
		if refusal == nil {
			refusal = &ExceededError{Quota: one.canonical, Reason: "others wait for it"}
		}
		if one.candidate {
			candidates = append(candidates, refusal)
		} else {
			all = append(all, refusal)
		}
	}
	for _, refusal := range all {
		if refusal.hopeless {
			return refusal
		}
	}
	if len(candidates) > 0 {
		return soonest(candidates)
	}
	return slices.MaxFunc(all, func(a, b *ExceededError) int { return a.RetryAt.Compare(b.RetryAt) })
}

// countRefusal counts the refusal with which waiting ended.
func (t *QuotaTracker) countRefusal(e *ExceededError) {
	refusals := e.all
	if len(refusals) == 0 {
		refusals = []*ExceededError{e}
	}
	for _, one := range refusals {
		by := "others were waiting"
		switch {
		case one.Limit.Unit != "":
			by = one.Limit.String()
		case !one.RetryAt.IsZero():
			by = closedBy
		}
		t.deny(refused{one.Quota, by})
	}
}

// deny counts a refusal in memory. It is saved with the next change.
func (t *QuotaTracker) deny(one refused) {
	e := t.entryOf(one.quota)
	pages := t.lock([]page{{entry: e}})
	pages[0].book.today.deny(one.by)
	if t.saver != nil {
		t.saver.note(pages[0].entry)
	}
	pages[0].entry.mu.Unlock()
	if t.shared.active() {
		t.shared.denied([]refused{one})
	}
}
