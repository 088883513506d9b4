package quota

import (
	"cmp"
	"math"
	"slices"
	"time"
)

// advance brings the book to now: the rules are applied, holds that are due expire and windows turn, in the order of
// time. It returns the book's time, which is later than now when the clock has stepped back by up to a day. From further
// ahead everything is anchored anew at now. A book that others have configured stays as it is: what expires in it, when
// its day ends and what is dropped follow rules that are not known here.
func (b *Book) advance(r *rules, now int64) int64 {
	now, _ = b.advanceSome(r, now, math.MaxInt)
	return now
}

// advanceSome is advance that lets so many holds expire at most, where no window and no day has turned since they were due,
// so that it does not matter when they do. behind: more are due, which count as held until they have had their turn.
func (b *Book) advanceSome(r *rules, now int64, most int) (at int64, behind bool) {
	if now < b.quiet && now >= b.clock && b.configured == r {
		b.clock = now
		if b.flowing {
			b.flow(now)
		}
		return now, false
	}
	return b.turnTo(r, now, most)
}

// turnTo is advanceSome where something may be due.
func (b *Book) turnTo(r *rules, now int64, most int) (at int64, behind bool) {
	switch {
	case r.foreign:
		b.configured, b.quiet = r, 0
		return max(now, b.clock), false
	case now >= b.clock:
		b.clock = now
	case b.clock-now > day:
		b.reanchor(r, now)
		defer b.cross(now) // what rates had reserved counts as used
	default:
		now = b.clock
	}
	fresh := b.configured != r
	if fresh {
		b.match(r, now)
	}
	if fresh || !b.steady(now) {
		most = math.MaxInt
	}
	for ; b.holds.open() > 0 && b.holds.nextExpiry() <= now; most-- {
		if most <= 0 {
			return now, true
		}
		h := b.holds.expiry[0].hold
		b.turn(r, h.expires)
		b.expire(r, h, h.expires)
	}
	b.turn(r, now)
	if fresh {
		now = b.open(r, now)
	}
	b.sweep(now)
	b.rest()
	return now, false
}

// steady reports whether nothing but expiry changes what the book says, from its last turn until now.
func (b *Book) steady(now int64) bool {
	for i := range b.accounts {
		switch a := &b.accounts[i]; a.window.kind {
		case kindRolling, kindRefill, kindSession:
			return false
		case kindDaily, kindWeekly, kindMonthly, kindEvery:
			if now >= a.end {
				return false
			}
		}
	}
	return now < b.today.end
}

// rest works out until when nothing is due. Whatever brings something earlier about says so to hush.
func (b *Book) rest() {
	b.quiet, b.flowing = latest, false
	b.hush(b.today.end)
	for i := range b.accounts {
		a := &b.accounts[i]
		switch a.window.kind {
		case kindRolling, kindRefill, kindSession:
			b.flowing = true
		case kindDaily, kindWeekly, kindMonthly, kindEvery:
			if a.location != nil {
				b.hush(a.end)
			}
		}
	}
	if b.holds.open() > 0 {
		b.hush(b.holds.nextExpiry())
	}
	if h := b.holds.oldestLate(); h != nil {
		b.hush(b.forgets(h))
	}
	b.hush(b.settled().due())
	if len(b.batches()) > 1 {
		for _, one := range b.batches() {
			b.hush(one.at + mostRemembered)
		}
	}
}

// flow turns the accounts in which time may change something at any moment.
func (b *Book) flow(now int64) {
	for i := range b.accounts {
		if a := &b.accounts[i]; a.flows() {
			a.turn(now)
		}
	}
}

// hush says that something is due then.
func (b *Book) hush(at int64) { b.quiet = min(b.quiet, at) }

// forgets is when the oldest of the expired holds may be forgotten, as far as time decides it.
func (b *Book) forgets(h *hold) int64 {
	if at := h.charged + rememberExpired; at > b.clock {
		return at
	}
	// What it was charged still stands. Fixed windows are known to turn.
	at := h.charged + mostRemembered
	for i := range b.accounts {
		a := &b.accounts[i]
		if a.window.kind == kindSession {
			return 0
		}
		if left := h.charged + a.length() + 1; a.flows() && left > b.clock {
			at = min(at, left)
		}
	}
	return at
}

// turnForeign lets the windows of a foreign book turn, so that what is settled in it is charged where it belongs, and its
// day end where it would have ended. The windows are the accounts' own; all else, the zone of the day among it, waits for
// a tracker that has the quota configured.
func (b *Book) turnForeign(now int64) {
	if b.configured == nil || !b.configured.foreign {
		return
	}
	b.clock = max(b.clock, now)
	for i := range b.accounts {
		a := &b.accounts[i]
		a.locate(b.configured)
		a.turn(now)
	}
	if over := now - b.today.end; b.today.end != 0 && over >= 0 {
		if b.today.active() {
			b.details().finished = mergeDays(b.finished(), []DaySummary{b.today.summary(b.name, time.UTC)})
		}
		start := now - over%day
		b.today.restart(start, start+day)
		b.changed = true
	}
}

// turn moves every account and the day to now.
func (b *Book) turn(r *rules, now int64) {
	for i := range b.accounts {
		a := &b.accounts[i]
		a.turn(now)
	}
	if now >= b.today.end {
		b.turnDay(r, now)
	}
}

func (b *Book) turnDay(r *rules, now int64) {
	for now >= b.today.end {
		next := now
		if b.today.end != 0 && b.today.active() {
			if !r.template {
				b.details().finished = mergeDays(b.finished(), []DaySummary{b.today.summary(b.name, r.location)})
			}
			b.changed = true
			if b.holds.open() > 0 {
				next = max(b.today.end, now-daysKept*day) // a day on which something is held is a day of its own
			}
		}
		start, end := r.day(next)
		b.today.restart(start, end)
	}
	if r.template {
		b.takeFinished() // quotas of a template keep no past days
	}
	for i := range b.limits() {
		a := &b.accounts[i]
		b.changed = b.changed || now-a.seen >= day/2
		a.seen = max(a.seen, now)
	}
	b.dropUnseen(now)
}

// expire ends a hold that nobody settled by its TTL.
func (b *Book) expire(r *rules, h *hold, at int64) {
	b.holds.remove(h)
	h.charged, h.released = at, r.onExpiry == ReleaseExpired
	for i := range b.accounts {
		a := &b.accounts[i]
		held, _ := h.amounts.of(a.place, a.unit)
		if h.released {
			a.settle(held, 0, h.granted, at, false)
			b.restartSession(a, h)
		} else {
			used := held
			if a.window.budget() && at < a.start {
				used = 0 // a stranger's settlement has turned the window that it belongs to
			}
			a.settle(held, used, h.granted, at, true)
		}
	}
	b.today.freed(&h.amounts)
	if !h.released {
		b.today.add(&h.amounts)
		estimated := h.amounts.flat()
		b.today.estimate(&estimated)
	}
	b.today.expired++
	b.holds.tally.expired++
	b.holds.remember(h)
	b.changed = true
	b.cross(at)
}

// sweep forgets what nobody can ask for any more.
func (b *Book) sweep(now int64) {
	b.settled().sweep(now)
	for h := b.holds.oldestLate(); h != nil && now-h.charged >= rememberExpired; h = b.holds.oldestLate() {
		if now-h.charged < mostRemembered && b.stands(h) {
			break
		}
		b.holds.forget(h)
	}
	if len(b.batches()) > 1 {
		b.sweepBatches(now)
	}
}

// sweepBatches forgets marks that nobody will ask for any more, and of very many the oldest. What is forgotten too early
// is counted twice, not lost.
func (b *Book) sweepBatches(now int64) {
	surplus := len(b.batches()) - mostBatches
	if surplus > 0 {
		slices.SortStableFunc(b.batches(), func(x, y batch) int { return cmp.Compare(x.at, y.at) })
	}
	b.more.batches = slices.DeleteFunc(b.batches(), func(one batch) bool {
		surplus--
		return surplus >= 0 || now-one.at >= mostRemembered
	})
}

// stands reports whether what an expired hold was charged is still part of a window.
func (b *Book) stands(h *hold) bool {
	for i := range b.accounts {
		a := &b.accounts[i]
		if held, _ := h.amounts.of(a.place, a.unit); held > 0 && h.charged >= a.windowStart(b.clock) {
			return true
		}
	}
	return false
}

// reanchor moves the book to a time more than a day before the one it has seen. Usage is kept.
func (b *Book) reanchor(r *rules, now int64) {
	ahead := b.clock
	b.clock = now
	for i := range b.accounts {
		a := &b.accounts[i]
		a.locate(r) // the book may just have been read, and is not matched yet
		a.reanchor(now)
	}
	for h := range b.holds.each {
		h.granted = 0
		b.holds.extend(h, min(h.expires, now+h.ttl))
	}
	yesterday := b.today.start
	if b.today.end != 0 {
		b.today.start, b.today.end = r.day(now)
	}
	for h := b.holds.oldestLate(); h != nil; h = h.newer {
		before := now // what was charged stands in nothing that now begins, nor in a day that is over
		if h.charged < yesterday {
			before = min(before, b.today.start)
		}
		h.granted, h.charged = 0, max(earliest, min(h.charged, before-1))
	}
	remembered := b.settled().list()
	for i := range remembered {
		id := &remembered[i]
		kept := min(id.forget, now+max(rememberSettled, id.forget-ahead))
		if until := b.holds.settled.until; until[id.id] == id.forget {
			until[id.id] = kept
		}
		id.forget = kept
	}
	if b.more != nil {
		b.more.reanchor(ahead, now)
	}
	b.changed = true
}

func (d *bookDetails) reanchor(ahead, now int64) {
	for i := range d.batches {
		d.batches[i].at = min(d.batches[i].at, now)
	}
	for i := range d.outbox {
		d.outbox[i].claimed = min(d.outbox[i].claimed, now)
	}
	if d.closed > ahead {
		d.closed = now + (d.closed - ahead)
	} else {
		d.closed = 0
	}
}
