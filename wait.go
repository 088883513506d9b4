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

// waiters queue for room, first come first served within each quota of this process. A call joins them when it has been
// refused once.
type waiters struct {
	count  atomic.Int64 // of those that wait, to look at before the lock is taken
	mu     sync.Mutex   // protects what follows
	queues map[string][]*waiter
	last   uint64 // the last ticket
	atOnce int    // how many are let to try at once: several share a save
}

// A waiter is one call that waits, in the queue of each of its quotas.
type waiter struct {
	ticket  uint64
	quotas  []string
	granted bool          // by an operation that may not be over; it blocks nobody any more
	ready   chan struct{} // has room for one: something has changed
}

func (w *waiters) enter(quotas []string) *waiter {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.queues == nil {
		w.queues = make(map[string][]*waiter)
	}
	w.last++
	one := &waiter{ticket: w.last, quotas: quotas, ready: make(chan struct{}, 1)}
	for _, name := range quotas {
		w.queues[name] = append(w.queues[name], one)
	}
	w.count.Add(1)
	return one
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
		w.poke(name)
	}
	w.count.Add(-1)
}

// poke lets the first in a queue look again. w is locked.
func (w *waiters) poke(name string) {
	poked := 0
	for _, one := range w.queues[name] {
		if one.granted {
			continue
		}
		one.poke()
		if poked++; poked >= max(1, w.atOnce) {
			return
		}
	}
}

func (one *waiter) poke() {
	select {
	case one.ready <- struct{}{}:
	default:
	}
}

// unblocked returns those of the quotas in which nobody waits before one; nil stands behind all. It takes back what an
// operation that runs again has granted.
func (w *waiters) unblocked(one *waiter, quotas []string) []string {
	if one == nil && w.count.Load() == 0 {
		return quotas
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if one != nil {
		one.granted = false
	}
	var free []string
	for _, name := range quotas {
		first := slices.IndexFunc(w.queues[name], func(other *waiter) bool { return !other.granted })
		if first < 0 || w.queues[name][first] == one {
			free = append(free, name)
		}
	}
	return free
}

// grant notes that a waiter has got what it waits for, and lets the next look.
func (w *waiters) grant(one *waiter) {
	w.mu.Lock()
	defer w.mu.Unlock()
	one.granted = true
	for _, name := range one.quotas {
		w.poke(name)
	}
}

// wake lets the first waiters of a quota look again.
func (w *waiters) wake(name string) {
	if w.count.Load() > 0 {
		w.mu.Lock()
		w.poke(name)
		w.mu.Unlock()
	}
}

// wakeAll lets everybody look again: what can never fit any more is refused at once.
func (w *waiters) wakeAll() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, queue := range w.queues {
		for _, one := range queue {
			one.poke()
		}
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

// await tries until the request is admitted, cannot be any more, or the time is up. Each attempt asks anew, so that it
// shares nothing with the one before, and finds what SetQuotas has moved or taken away.
func (t *QuotaTracker) await(ctx context.Context, req Request) (*Reservation, error) {
	req = req.copied()
	deadline := t.cfg.Clock.Now().Add(req.MaxWait)
	var one *waiter
	defer func() {
		if one != nil {
			t.waiters.exit(one)
		}
	}()
	var refused *ExceededError
	for {
		op, err := t.asking(&req)
		if err != nil {
			return nil, err
		}
		if err := ctx.Err(); err != nil {
			return nil, t.gaveUp(err, refused)
		}
		names := slices.Clone(op.names)
		if one != nil && !slices.Equal(one.quotas, names) {
			t.waiters.exit(one)
			one = t.waiters.enter(names)
		}
		op.waits, op.line = true, one
		r, err := t.acquire(ctx, op)
		before := refused
		if !errors.As(err, &refused) {
			if err != nil && ctx.Err() != nil && errors.Is(err, ctx.Err()) {
				err = t.gaveUp(err, before)
			}
			return r, err
		}
		now := t.cfg.Clock.Now()
		left := longest
		if req.MaxWait >= 0 {
			left = deadline.Sub(now)
		}
		inBooks := now.Add(time.Duration(t.shared.ahead.Load())) // what a refusal says is the books' time
		if refused.hopeless || req.MaxWait >= 0 && (left <= 0 || refused.beyond(inBooks.Add(left))) {
			t.countRefusal(refused)
			return nil, refused
		}
		if one == nil {
			// Room that has come between the refusal and this is found by trying once more.
			one = t.waiters.enter(names)
			continue
		}
		// Where open holds are in the way no time to try again is known; the turn of a budget makes room too.
		sleep := min(left, t.nextRenewal(names).Sub(inBooks))
		if t.wall != nil {
			sleep = min(sleep, time.Minute) // its timers stand still while the machine sleeps
		}
		if !refused.RetryAt.IsZero() {
			sleep = min(sleep, refused.RetryAt.Sub(inBooks))
		}
		if t.shared.active() && sleep <= 0 {
			sleep = lookAgain // it should fit by now, but the store does not think so: their clocks differ
		}
		stop := t.cfg.Clock.AfterFunc(max(sleep, 0), one.poke)
		if !t.cfg.Clock.Now().Before(now.Add(sleep)) {
			one.poke() // the clock has been set forward in the meantime
		}
		var others <-chan time.Time
		if t.shared.active() {
			others = time.After(lookAgain) // other processes save in real time, whatever the clock
		}
		select {
		case <-one.ready:
		case <-others:
		case <-ctx.Done():
		case <-t.closed:
			stop()
			return nil, ErrClosed
		}
		stop()
	}
}

// beyond reports whether nothing that was asked for can be had before the deadline. What has no time to try again may be
// had at any moment.
func (e *ExceededError) beyond(deadline time.Time) bool {
	all := e.all
	if len(all) == 0 {
		all = []*ExceededError{e}
	}
	return !slices.ContainsFunc(all, func(one *ExceededError) bool {
		return !one.hopeless && !one.RetryAt.After(deadline)
	})
}

// gaveUp is the error of a call whose ctx has ended, with the refusal that it was waiting behind.
func (t *QuotaTracker) gaveUp(err error, refused *ExceededError) error {
	if refused == nil {
		return fmt.Errorf("quota: waiting: %w", err)
	}
	t.countRefusal(refused)
	return fmt.Errorf("quota: waiting: %w: %w", err, refused)
}

// nextRenewal is when the first of the quotas' days, weeks and months ends; far away when they have none.
func (t *QuotaTracker) nextRenewal(names []string) time.Time {
	next := latest
	for _, name := range names {
		e := t.entryOf(name)
		e.mu.Lock()
		next = min(next, e.book.nextRenewal())
		e.mu.Unlock()
	}
	return instant(next)
}

// countRefusal counts the refusal with which waiting ended.
func (t *QuotaTracker) countRefusal(e *ExceededError) {
	refusals := e.all
	if len(refusals) == 0 {
		refusals = []*ExceededError{e}
	}
	for _, one := range refusals {
		by := behindOthers
		switch {
		case one.Limit.Unit != "":
			by = one.Limit.String()
		case !one.RetryAt.IsZero():
			by = closedBy
		}
		t.deny(one.Quota, by)
	}
}

// deny counts a refusal in memory. It is saved with the next change.
func (t *QuotaTracker) deny(quota, by string) {
	e := t.entryOf(quota)
	pages := t.lock([]page{{entry: e}})
	book := pages[0].book
	book.today.deny(by, 1)
	one := refused{quota, book.refusalFor(by)}
	if t.saver != nil {
		t.saver.note(pages[0].entry)
	}
	pages[0].entry.mu.Unlock()
	if t.shared.active() {
		t.shared.denied([]refused{one})
	}
}
