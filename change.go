package quota

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
)

// An operation is a call that changes books. It is pure: apply may run several times, on fresh books, and leaves nothing
// behind but its changes to them and its own results.
type operation interface {
	quotas() []string   // canonical names; nil: all that there are
	apply(pages []page) // the pages of those quotas, in that order, brought to their time
}

// A refuser is an operation that may have been refused, which is to be counted.
type refuser interface{ refusals() []refused }

// refused is a refusal to be counted.
type refused struct {
	quota string
	refusal
}

// change runs an operation and returns when it is durable. It has taken effect if the error matches ErrPending.
func (t *QuotaTracker) change(ctx context.Context, op operation) error {
	if t.done.Load() {
		return ErrClosed
	}
	return t.perform(ctx, op)
}

// perform is change also while the tracker closes.
func (t *QuotaTracker) perform(ctx context.Context, op operation) error {
	if t.shared.active() {
		return t.shared.submit(ctx, op)
	}
	var few [4]page
	pages := t.open(few[:0], op.quotas())
	for anyBehind(pages) { // a Reset, for one, is of all that has expired before it
		t.catchUp(pages)
	}
	op.apply(pages)
	return t.settleUp(ctx, t.shut(pages))
}

func (t *QuotaTracker) now() int64 {
	if t.wall != nil {
		return t.wall.now()
	}
	return nanos(t.cfg.Clock.Now())
}

// bookTime is the time of the books: that of a shared store with a clock of its own, as far as it is known.
func (t *QuotaTracker) bookTime() int64 { return t.now() + t.shared.ahead.Load() }

// open locks the entries of canonical names, which are ordered and occur once, and brings their books to the time that
// is read once all locks are held: a time read before could rewind a book.
func (t *QuotaTracker) open(pages []page, names []string) []page {
	for _, name := range names {
		pages = append(pages, page{entry: t.entryOf(name)})
	}
	return t.lock(pages)
}

func (t *QuotaTracker) lock(pages []page) []page { return t.lockFor(pages, fewExpire) }

// Very many holds may be due at once. Whoever comes first lets a part of them expire, the timer goes on with parts of that
// size, and whoever comes meanwhile waits for one of those and does little himself. What is due but has not expired yet is
// held, so that nothing is admitted for which there is no room; what is refused, and usage that would settle it, waits until
// all have expired.
const (
	manyExpire = 512
	fewExpire  = 8
)

// lockFor is lock that lets so many holds expire in a book that is behind already.
func (t *QuotaTracker) lockFor(pages []page, most int) []page {
	if len(pages) > 1 && t.saver != nil {
		t.saver.whole.RLock()
	}
	for i := range pages {
		for {
			e := pages[i].entry
			e.mu.Lock()
			if !e.gone {
				break
			}
			e.mu.Unlock()
			pages[i].entry = t.entryOf(e.name)
		}
	}
	now := t.bookTime()
	for i := range pages {
		p := &pages[i]
		p.book = p.entry.book
		p.now, p.behind = p.book.advanceSome(p.entry.rules, now, t.expireAtOnce(p.entry, most))
		p.entry.behind = p.behind
	}
	return pages
}

// catchUp lets more of what is due expire in pages that are locked, after others have had their turn.
func (t *QuotaTracker) catchUp(pages []page) {
	if done := t.shut(pages); done.batch != nil {
		t.saver.leave(done.batch)
	}
	t.lockFor(pages, manyExpire)
}

// expireAtOnce is how many holds a call lets expire in an entry. A shared state is not decided on before all have.
func (t *QuotaTracker) expireAtOnce(e *entry, most int) int {
	switch {
	case t.shared.active():
		return math.MaxInt
	case e.behind:
		return most
	}
	return manyExpire
}

// anyBehind reports whether a refusal may be out of date.
func anyBehind(pages []page) bool {
	return slices.ContainsFunc(pages, func(p page) bool { return p.behind })
}

// logSaturation says once that usage has passed what can be counted: from there on it is recorded as that. No lock is
// held, for the handler of the log may ask the tracker.
func (t *QuotaTracker) logSaturation(quota string) {
	t.cfg.Logger.Error("quota: more has been used than can be counted, the total stays at the largest number", "quota", quota)
}

// A receipt says what is still to be done when the locks have been given up.
type receipt struct {
	changed bool
	batch   *saveBatch // that makes the change durable; nil: there is nothing to wait for
}

// shut notes what has changed, sees to the timer and the waiters, and unlocks.
func (t *QuotaTracker) shut(pages []page) receipt {
	var r receipt
	var due []Alert
	var saturated []string
	for i := range pages {
		p := &pages[i]
		if !p.book.changed {
			if p.entry.rules.template {
				t.timer.consider(p.entry) // a refusal has made an entry too, which is to be dropped one day
			}
			continue
		}
		r.changed = true
		if p.book.today.saturated {
			p.book.today.saturated = false
			saturated = append(saturated, p.book.name)
		}
		if len(p.book.outbox()) > 0 && t.delivers() {
			due = append(due, p.book.claim(t.writer, p.now)...)
		}
		t.undelivered.look(p.book, t.writer)
		t.timer.consider(p.entry)
		t.waiters.wake(p.entry.name)
	}
	switch {
	case !r.changed:
	case t.saver != nil:
		r.batch = t.saver.take(pages, due)
	case len(due) > 0:
		t.alerts.claim(due, false)
	}
	for i := len(pages) - 1; i >= 0; i-- {
		pages[i].book.changed = false
		pages[i].entry.mu.Unlock()
	}
	if len(pages) > 1 && t.saver != nil {
		t.saver.whole.RUnlock()
	}
	for _, quota := range saturated {
		t.logSaturation(quota)
	}
	return r
}

// delivers reports whether the tracker takes alerts on: not while New is at work, when they wait for the first call that
// changes something, nor when Close has begun, when they are left to the next tracker.
func (t *QuotaTracker) delivers() bool { return !t.opening.Load() && !t.done.Load() }

// settleUp waits until a change is durable, and delivers alerts. The change has taken effect whatever happens here.
func (t *QuotaTracker) settleUp(ctx context.Context, r receipt) error {
	err := t.durable(ctx, r)
	if r.changed && t.undelivered.count.Load() > 0 && t.delivers() {
		t.takeOver(ctx)
	}
	t.deliver(ctx)
	if err != nil {
		return pending(ctx, err)
	}
	return nil
}

func (t *QuotaTracker) durable(ctx context.Context, r receipt) error {
	if r.batch == nil {
		return nil
	}
	return t.saver.wait(ctx, r.batch)
}

// pending says of a change that has taken effect that it is not durable, because its caller's ctx has ended or because
// it could not be saved.
func pending(ctx context.Context, err error) error {
	switch {
	case ctx.Err() != nil && errors.Is(err, ctx.Err()):
		return fmt.Errorf("%w: %w", ErrPending, err)
	case errors.Is(err, ErrClosed):
		return notSaved(err) // and nobody will save it
	}
	return fmt.Errorf("%w: %w", notSaved(err), ErrPending)
}

// RecordUsage counts what was used: one request, unless a Requests amount says otherwise, and what else is named. It is
// never refused for want of room and never dropped; beyond a limit it blocks new admissions. It settles the open
// reservations that match it: those of exactly this quota, made without an ID, oldest first. Usage of k requests uses up
// k requests' worth of them; one used up is closed with all its units, those not named being charged as held; one used
// in part shrinks. What matches nothing is charged. For one quota use RecordUsage or the handles of its reservations,
// not both: usage may then count twice.
//
// It takes effect even when ctx is done or the save fails, see ErrPending.
func (t *QuotaTracker) RecordUsage(ctx context.Context, name string, list ...Amount) error {
	var used amounts
	if err := used.gather(list); err != nil {
		return err
	}
	used.addRequest()
	if t.done.Load() {
		return ErrClosed
	}
	e, err := t.lookup(name, true)
	if err != nil {
		return err
	}
	if t.shared.active() {
		return t.shared.submit(ctx, &recording{name: e.name, list: used})
	}
	var one [1]page
	one[0].entry = e
	pages := t.lock(one[:])
	for anyBehind(pages) { // what is due is not settled by usage any more
		t.catchUp(pages)
	}
	pages[0].book.record(&used, pages[0].now, pages[0].now)
	return t.settleUp(ctx, t.shut(pages))
}

type recording struct {
	name string
	list amounts
	at   firstTime
}

func (o *recording) quotas() []string { return []string{o.name} }
func (o *recording) apply(pages []page) {
	now := pages[0].now
	pages[0].book.record(&o.list, o.at.first(now), now)
}

// A firstTime is when an operation was first applied, by the time of its book. It may be applied again later.
type firstTime int64

func (f *firstTime) first(now int64) int64 {
	if *f == 0 {
		*f = firstTime(now)
	}
	return min(int64(*f), now)
}

// Release gives back so much of what is reserved in a quota, without a handle: of the reservations that RecordUsage
// would settle, oldest first. Asked for more than is held it releases what is held. It implies no request: name every
// unit to release.
//
// It takes effect even when ctx is done or the save fails, see ErrPending.
func (t *QuotaTracker) Release(ctx context.Context, name string, amounts ...Amount) error {
	list, err := gather(amounts)
	if err != nil {
		return err
	}
	if list.empty() {
		return fmt.Errorf("%w: name what to release, for example quota.Requests(1)", ErrInvalidAmount)
	}
	e, err := t.lookup(name, true)
	if err != nil {
		return err
	}
	return t.change(ctx, &releasing{name: e.name, list: list})
}

type releasing struct {
	name string
	list amounts
	at   firstTime
}

func (o *releasing) quotas() []string { return []string{o.name} }
func (o *releasing) apply(pages []page) {
	now := pages[0].now
	pages[0].book.releaseOldest(&o.list, o.at.first(now), now)
}
