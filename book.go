package quota

import (
	"cmp"
	"math"
	"slices"
	"time"
)

// A Book is the ledger of one quota: the accounts of its limits, its holds, what it remembers, and the totals of the day.
// It is a pure state machine. Its transitions take the rules and the time, and do no I/O, take no lock and read no clock,
// so that every Persistence behaves alike. Its JSON form is stable. A Book is not safe for concurrent use.
type Book struct {
	clock      int64        // the latest time seen; the book's time never runs back by up to a day
	quiet      int64        // until then time changes nothing but what flows
	configured *rules       // the rules that the accounts have been matched with
	holds      *holds       // nil: nothing has been reserved yet
	more       *bookDetails // nil: there is nothing special about it
	accounts   []account    // those of configured limits first, in their order
	limited    int32        // how many of the accounts are of those limits
	flowing    bool         // there are accounts in which time changes something at any moment
	changed    bool         // something has changed that must be saved
	today      dayTotals
	name       string // set by whoever opens the book
}

// bookDetails are what few books need.
type bookDetails struct {
	finished []DaySummary // finished days that have not gone into the history
	outbox   []delivery   // alerts that have not been delivered
	closed   int64        // the provider admits nothing before
	imported *imported    // from a form that does not say what was counted
	batches  []batch      // the last batch of each writer
}

// limits are the accounts of the limits that are configured, in their order.
func (b *Book) limits() []account { return b.accounts[:b.limited] }

// holding is holds, to be changed.
func (b *Book) holding() *holds {
	if b.holds == nil {
		b.holds = &holds{}
	}
	return b.holds
}

func (b *Book) settled() *settledIDs {
	if b.holds == nil {
		return nil
	}
	return &b.holds.settled
}

func (b *Book) tally() tally {
	if b.holds == nil {
		return tally{}
	}
	return b.holds.tally
}

// details are more, to be changed.
func (b *Book) details() *bookDetails {
	if b.more == nil {
		b.more = &bookDetails{}
	}
	return b.more
}

func (b *Book) finished() []DaySummary {
	if b.more == nil {
		return nil
	}
	return b.more.finished
}

func (b *Book) outbox() []delivery {
	if b.more == nil {
		return nil
	}
	return b.more.outbox
}

func (b *Book) closed() int64 {
	if b.more == nil {
		return 0
	}
	return b.more.closed
}

func (b *Book) imported() *imported {
	if b.more == nil {
		return nil
	}
	return b.more.imported
}

func (b *Book) batches() []batch {
	if b.more == nil {
		return nil
	}
	return b.more.batches
}

// tally counts what became of reservations, for Verify.
type tally struct{ granted, settled, expired int64 }

// A batch is the last that a writer has applied, so that it recognises one whose outcome it did not learn.
type batch struct {
	writer, number uint64
	at             int64
}

// imported is usage of which only the number is known.
type imported struct{ used, reserved, ends int64 }

func importedBook(used, reserved, ends int64) *Book {
	return &Book{more: &bookDetails{imported: &imported{used, reserved, ends}}, changed: true}
}

const (
	day         = int64(24 * time.Hour)
	dropAccount = 2 * day          // an account that nobody has configured for so long
	mostBatches = 256              // the writers that marked last
	seenEvery   = int64(time.Hour) // how exactly it is known when an account was last configured
)

// advance brings the book to now: the rules are applied, holds that are due expire and windows turn, in the order of
// time. It returns the book's time, which is later than now when the clock has stepped back by up to a day. From further
// ahead everything is anchored anew at now. A book that others have configured stays as it is: what expires in it, when
// its day ends and what is dropped follow rules that are not known here.
func (b *Book) advance(r *rules, now int64) int64 {
	now, _ = b.advanceSome(r, now, math.MaxInt)
	return now
}

// advanceSome is advance that lets so many holds expire at most. behind: more are due, and until they have had their turn
// the book's time stands still, at the latest that has.
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
		most = math.MaxInt
	}
	for ; b.holds.open() > 0 && b.holds.nextExpiry() <= now; most-- {
		if most <= 0 {
			b.quiet = 0
			return b.clock, true
		}
		h := b.holds.expiry[0].hold
		b.clock = h.expires
		b.turn(r, h.expires)
		b.expire(r, h, h.expires)
	}
	b.clock = now
	b.turn(r, now)
	if fresh {
		now = b.open(r, now)
	}
	b.sweep(now)
	b.rest()
	return now, false
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
			if a.window.budget() && a.end != 0 && at < a.start {
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
	b.today.details().expired++
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

// match finds the accounts of r's limits among those the book has, and puts them first.
func (b *Book) match(r *rules, now int64) {
	b.configured, b.limited = r, 0
	for i := range b.accounts {
		a := &b.accounts[i]
		if a.rule != nil {
			a.seen = max(a.seen, now) // it was configured until now
		}
		a.rule = nil
	}
	for i := range r.limits {
		rule := &r.limits[i]
		for j := int(b.limited); j < len(b.accounts); j++ {
			if b.accounts[j].text == rule.key.text {
				b.accounts[b.limited], b.accounts[j] = b.accounts[j], b.accounts[b.limited]
				b.follow(&b.accounts[b.limited], rule, now)
				b.limited++
				break
			}
		}
	}
	for i := int(b.limited); i < len(b.accounts); i++ {
		b.accounts[i].locate(r)
		b.accounts[i].ring()
	}
}

// follow makes an account follow the rule of its limit.
func (b *Book) follow(a *account, rule *limitRule, now int64) {
	a.limitKey, a.rule = rule.key, rule
	if a.max != rule.Max {
		if a.window.kind == kindRefill {
			a.refill(now)
			a.opened = now // what has flowed back since a grant can be told at one rate only
		}
		if a.max = rule.Max; a.accountDetails != nil {
			a.part = 0
		}
		b.changed = true
	}
	if now-a.seen >= seenEvery {
		a.seen, b.changed = now, b.changed || now-a.seen >= day/2
	}
	a.ring()
}

// locate looks up the zone of an account. Without it an account is charged but does not turn.
func (a *account) locate(r *rules) {
	if a.location != nil {
		return
	}
	if location, err := r.zone(a.window.zone); err == nil {
		located := *a.limitKey
		located.location = location
		a.limitKey = &located
	}
}

// open adds the accounts that are missing for r's limits, drops those that nobody has configured for long, and brings in
// what has been imported. It returns the book's time.
func (b *Book) open(r *rules, now int64) int64 {
	missing := len(r.limits) - int(b.limited)
	if missing > 0 && b.holds.grantedAt(now) {
		now++ // so that what was granted before an account was opened can be told from what is granted after
		b.clock = now
		b.turn(r, now)
	}
	b.accounts = slices.Grow(b.accounts, missing)
	for i := range r.limits {
		if rule := &r.limits[i]; i == int(b.limited) || b.accounts[i].rule != rule {
			b.accounts = slices.Insert(b.accounts, i, b.newAccount(r, rule, now))
			b.limited++
		}
	}
	b.dropUnseen(now)
	b.bringIn(r, now)
	b.cross(now)
	return now
}

// dropUnseen drops the accounts that nobody has configured for long.
func (b *Book) dropUnseen(now int64) {
	kept := len(b.accounts)
	b.accounts = slices.DeleteFunc(b.accounts, func(a account) bool { return a.rule == nil && now-a.seen >= dropAccount })
	if len(b.accounts) != kept {
		b.changed = true
	}
}

// newAccount opens the account of a limit that the book has not had: it starts with the days that fall into its window,
// and open holds count in it where they carry over.
func (b *Book) newAccount(r *rules, rule *limitRule, now int64) account {
	a := account{limitKey: rule.key, max: rule.Max, seen: now, rule: rule, opened: now, since: now + 1}
	if a.flows() {
		a.accountDetails = &accountDetails{}
	}
	a.turn(now)
	for h := range b.holds.each {
		n, _ := h.amounts.of(a.place, a.unit)
		a.held = saturatingAdd(a.held, n)
	}
	if a.carries() {
		a.reserved = a.held
	}
	start := a.windowStart(now)
	if a.window.kind != kindSession && a.window.kind != kindRefill && b.today.start >= start {
		a.charge(b.since(r, a.unit, start), now)
		a.since = b.today.start
	}
	a.ring()
	return a
}

// since adds up what the days that began at start or later, today among them, have used of unit.
func (b *Book) since(r *rules, unit Unit, start int64) int64 {
	sum := b.today.used(unit)
	if b.today.start == start || r.template {
		return sum
	}
	past := b.finished()
	if r.history != nil {
		past = mergeDays(r.history(b.name), past)
	}
	for i := range past {
		if first := nanos(past[i].Day); first >= start && first < b.today.start {
			sum = saturatingAdd(sum, past[i].Used[unit])
		}
	}
	return sum
}

// bringIn counts imported usage in the first limit of a day, else in the day's total of requests.
func (b *Book) bringIn(r *rules, now int64) {
	if b.imported() == nil {
		return
	}
	from := *b.more.imported
	b.more.imported, b.changed = nil, true
	unit := UnitRequests
	at := slices.IndexFunc(b.limits(), func(a account) bool { return a.window.kind == kindDaily })
	if at >= 0 {
		unit = b.accounts[at].unit
	}
	if now < from.ends && from.used > 0 {
		b.today.use(b.today.unit(unit.place(), unit), from.used)
		if at >= 0 {
			b.accounts[at].charge(from.used, now)
		}
	}
	if from.reserved > 0 {
		h := &hold{key: holdKey{0, 1}, name: b.name, ttl: int64(r.ttl), expires: now + int64(r.ttl)}
		h.amounts.set(unit.place(), unit, from.reserved)
		b.grant(h, now)
	}
}

// time returns an instant of the account in the zone of its window.
func (a *account) time(ns int64) time.Time {
	if ns == 0 || a.location == nil {
		return instant(ns)
	}
	return instant(ns).In(a.location)
}

func (b *Book) local(ns int64) time.Time {
	if b.configured == nil || ns == 0 {
		return instant(ns)
	}
	return instant(ns).In(b.configured.location)
}

// takeFinished returns the finished days and removes them: they go into the history.
func (b *Book) takeFinished() []DaySummary {
	finished := b.finished()
	if finished != nil {
		b.more.finished = nil
	}
	return finished
}

// applied reports whether the writer's batch of that number, or a later one, is part of the book.
func (b *Book) applied(writer, number uint64) bool {
	at := slices.IndexFunc(b.batches(), func(one batch) bool { return one.writer == writer })
	return at >= 0 && b.batches()[at].number >= number
}

// mark notes the writer's batch, in the place of the one before: a batch repeats what is left of all before it. The mark is
// needed until the writer has learned that the batch was saved. Its next batch tells, which marks itself or takes the mark
// away; a writer that has gone for good leaves its last one behind, until it is swept.
func (b *Book) mark(writer, number uint64, now int64) {
	at := slices.IndexFunc(b.batches(), func(one batch) bool { return one.writer == writer })
	if at < 0 {
		b.details().batches = append(b.batches(), batch{writer, number, now})
		b.hush(0) // with one more, others may be swept
		return
	}
	b.batches()[at].number, b.batches()[at].at = number, now
}

// unmark takes the writer's mark away.
func (b *Book) unmark(writer uint64) {
	if marked := b.batches(); len(marked) > 0 {
		b.more.batches = slices.DeleteFunc(marked, func(one batch) bool { return one.writer == writer })
	}
}

// blank reports whether nothing in the book counts any more, so that a template's book may be dropped: holds, windows
// and yesterday are over.
func (b *Book) blank() bool {
	if b.holds.open() > 0 || b.holds.oldestLate() != nil || len(b.settled().list()) > 0 || len(b.outbox()) > 0 ||
		len(b.finished()) > 0 || b.imported() != nil || b.closed() > b.clock {
		return false
	}
	for i := range b.accounts {
		a := &b.accounts[i]
		if d := a.copied(); a.used > 0 || a.reserved > 0 || len(d.marks) > 0 || d.first > 0 {
			return false
		}
	}
	return !b.today.active() && b.clock-b.today.last >= day
}

// untouched reports whether nothing has ever been counted in the book.
func (b *Book) untouched() bool {
	for i := range b.accounts {
		a := &b.accounts[i]
		if a.used > 0 || a.copied().armed > 0 {
			return false
		}
	}
	return b.tally() == tally{} && !b.today.active() && b.today.last == 0 && b.imported() == nil && len(b.finished()) == 0 &&
		b.closed() == 0 && len(b.outbox()) == 0
}

// nextTurn is when time alone changes what the book says, 0 when it does not.
func (b *Book) nextTurn() int64 {
	if b.configured != nil && b.configured.foreign {
		return 0
	}
	next := b.holds.nextExpiry()
	earlier := func(at int64) {
		if at > b.clock && (next == 0 || at < next) {
			next = at
		}
	}
	earlier(b.today.end)
	earlier(b.closed())
	for i := range b.accounts {
		a := &b.accounts[i]
		earlier(a.end)
	}
	return next
}

// nextRenewal is when the first of the windows that open holds carry over ends; latest when there is none.
func (b *Book) nextRenewal() int64 {
	next := latest
	for i := range b.accounts {
		a := &b.accounts[i]
		if a.carries() && a.end > b.clock {
			next = min(next, a.end)
		}
	}
	return next
}
