package quota

import "strings"

// A settlement is a call that ends one hold, or puts its end off.
type settlement struct {
	key     holdKey
	hold    *hold   // that the handle was made for; nil: it is looked for by its key
	id      string  // the caller's; "": made up
	home    string  // canonical name of the first quota, part of the text of an ID that was made up
	several bool    // it holds more than one
	expires int64   // as far as the handle knows
	named   amounts // Commit: what was used
}

// text is the reservation's ID: a copy, for what is remembered outlives the call.
func (s *settlement) text() string {
	if s.id != "" {
		return strings.Clone(s.id)
	}
	return s.key.text(s.home)
}

// complete makes actual, what a call names, what a hold is settled with: of the units held that it does not name what was
// held, which is the estimated part. Naming any form of tokens names tokens.
func (h *hold) complete(actual, estimated *amounts) {
	held := &h.amounts
	missing := held.named &^ actual.named
	if actual.named&anyTokens != 0 {
		missing &^= 1 << atTokens
	}
	if missing != 0 {
		actual.take(held, missing)
		estimated.take(held, missing)
	}
	for _, amount := range held.other {
		if _, given := actual.exactly(elsewhere, amount.Unit); !given {
			actual.set(elsewhere, amount.Unit, amount.N)
			estimated.set(elsewhere, amount.Unit, amount.N)
		}
	}
	switch {
	case !actual.has(atTokens):
		estimated.named = estimated.sums
	case !estimated.has(atTokens):
		estimated.known[atTokens] = 0 // of all tokens, which are named, no part is an estimate
	}
}

// find returns the open hold that a settlement is of, nil when it is not open any more.
func (b *Book) find(s *settlement) *hold {
	if s.hold == nil {
		return b.holds.find(s.key)
	}
	if s.hold.slot > 0 && s.hold.key == s.key { // else it has ended, and may be another's by now
		return s.hold
	}
	return nil
}

// findLate is find among those that have expired and may still be corrected.
func (b *Book) findLate(s *settlement) *hold {
	if s.hold == nil {
		return b.holds.findLate(s.key)
	}
	if s.hold.late && s.hold.key == s.key {
		return s.hold
	}
	return nil
}

// commit settles a hold with what was used. It reports whether the reservation had been settled before; nothing has
// then changed. A hold that is gone without having been settled, used up by RecordUsage or forgotten long after it
// expired, leaves the call to be charged as further usage.
func (b *Book) commit(s *settlement, now int64) (settled bool) {
	b.turnForeign(now)
	h := b.find(s)
	if h == nil {
		if h := b.findLate(s); h != nil {
			b.commitLate(h, s, now)
			return false
		}
		if s.named.empty() || b.wasSettled(s, now) {
			return true
		}
		b.use(&s.named, now)
		return false
	}
	actual, estimated := s.named, amounts{}
	h.complete(&actual, &estimated)
	b.holds.remove(h)
	for i := range b.accounts {
		a := &b.accounts[i]
		held, wasHeld := h.amounts.of(a.place, a.unit)
		used, isUsed := actual.of(a.place, a.unit)
		if wasHeld || isUsed {
			a.settle(held, used, h.granted, now, true)
		}
	}
	b.today.settled(&h.amounts, &actual, &estimated)
	b.today.calls++
	b.closeHold(h, s, now)
	return false
}

// wasSettled reports whether a hold that is not there any more has been settled by a handle, rather than used up or
// forgotten. Matching usage never uses up what has a caller's ID or holds several quotas.
func (b *Book) wasSettled(s *settlement, now int64) bool {
	if b.settled().has(s.text(), now) || b.settled().has(s.key.text(s.home), now) {
		return true
	}
	return (s.id != "" || s.several) && now-s.expires < rememberExpired
}

// closeHold forgets a hold that has been settled.
func (b *Book) closeHold(h *hold, s *settlement, now int64) {
	if h.id != "" || h.found || h.quotas != nil {
		b.holding().settled.add(s.text(), now+max(rememberSettled, h.ttl))
		b.hush(b.settled().due())
	}
	b.holds.tally.settled++
	b.changed = true
	b.holds.recycle(h)
	b.cross(now)
}

// commitLate corrects what an expired hold was charged, where that still stands, and charges any overrun now.
func (b *Book) commitLate(h *hold, s *settlement, now int64) {
	actual, estimated := s.named, amounts{}
	h.complete(&actual, &estimated)
	b.amend(h, &actual, &estimated, now)
	b.today.calls++
	b.rememberLate(h, s, now)
	b.forget(h)
	b.changed = true
	b.cross(now)
}

// rememberLate remembers that an expired hold has been settled: by its key, if its ID has been given to another since.
func (b *Book) rememberLate(h *hold, s *settlement, now int64) {
	text := s.text()
	if s.id != "" && b.holds.called(s.id) != nil {
		text = s.key.text(s.home)
	}
	b.holding().settled.add(text, now+max(rememberSettled, h.ttl))
}

// forget removes an expired hold that has been settled.
func (b *Book) forget(h *hold) {
	b.holds.forget(h)
	b.hush(0) // the next one may have been waiting for it
}

// amend replaces what an expired hold was charged, if it was, by what was used.
func (b *Book) amend(h *hold, actual, estimated *amounts, now int64) {
	var charged amounts
	if !h.released {
		charged = h.amounts
	}
	for i := range b.accounts {
		a := &b.accounts[i]
		was, _ := charged.of(a.place, a.unit)
		is, _ := actual.of(a.place, a.unit)
		a.amend(was, is, h.granted, h.charged, now)
	}
	today := h.charged >= b.today.start
	before, after := charged.flat(), actual.flat()
	for one := range before.each {
		is, _ := actual.of(one.at, one.unit)
		if today {
			b.today.unit(one.at, one.unit).lower(max(0, one.n-is), one.n)
		}
	}
	for one := range after.each {
		was, _ := charged.of(one.at, one.unit)
		b.today.use(b.today.unit(one.at, one.unit), max(0, one.n-was))
	}
	if today || h.released {
		b.today.estimate(estimated)
	}
}

// release gives back what a hold has set aside. It reports whether the reservation had been settled before.
func (b *Book) release(s *settlement, now int64) (settled bool) {
	b.turnForeign(now)
	h := b.find(s)
	if h == nil {
		h := b.findLate(s)
		if h == nil {
			return true
		}
		if !h.released {
			b.amend(h, &amounts{}, &amounts{}, now)
			b.unbegin(h)
		}
		b.rememberLate(h, s, now)
		b.forget(h)
		b.changed = true
		return false
	}
	b.holds.remove(h)
	b.giveBack(h, &h.amounts, now)
	b.closeHold(h, s, now)
	return false
}

// giveBack frees some or all of what a hold has set aside.
func (b *Book) giveBack(h *hold, list *amounts, now int64) {
	for i := range b.accounts {
		a := &b.accounts[i]
		if n, held := list.of(a.place, a.unit); held {
			a.settle(n, 0, h.granted, now, false)
			b.restartSession(a, h)
		}
	}
	b.today.freed(list)
}

// restartSession moves the beginning of a Session whose first use was released to the use that was then the first.
func (b *Book) restartSession(a *account, released *hold) {
	if a.window.kind != kindSession || a.start == 0 {
		return
	}
	if a.first == 0 && a.used == 0 && a.reserved == 0 {
		a.start, a.end = 0, 0
		return
	}
	if released.granted != a.start || a.first == a.start {
		return
	}
	earliest := a.first
	for _, l := range [2]*line{&b.holds.plain, &b.holds.other} {
		for h := l.oldest; h != nil; h = h.newer {
			if n, _ := h.amounts.of(a.place, a.unit); n > 0 && h.granted >= a.start {
				if earliest == 0 || h.granted < earliest {
					earliest = h.granted
				}
				break
			}
		}
	}
	if earliest != 0 {
		a.start, a.end = earliest, earliest+a.length()
	}
}

// unbegin moves the beginning of a Session on when its first use was an expired hold that turns out never to have run,
// or ends it when there was no other. When those others are known is told by what they were charged: together all that
// is used.
func (b *Book) unbegin(released *hold) {
	for i := range b.accounts {
		a := &b.accounts[i]
		if n, _ := released.amounts.of(a.place, a.unit); n == 0 || a.window.kind != kindSession || a.first != released.granted {
			continue
		}
		var known, first int64
		for h := b.holds.oldestLate(); h != nil; h = h.newer {
			n, _ := h.amounts.of(a.place, a.unit)
			if h == released || h.released || n == 0 || !a.counts(h.granted) || h.charged < a.since {
				continue
			}
			known = saturatingAdd(known, n)
			if first == 0 || h.granted < first {
				first = h.granted
			}
		}
		if a.used <= known {
			a.first = first
			b.restartSession(a, released)
		}
	}
}

// extend puts a hold's expiry off. It reports whether the reservation had been settled before.
func (b *Book) extend(s *settlement, ttl, now int64) (expires int64, settled bool) {
	h := b.find(s)
	if !h.stands(now) {
		return 0, true
	}
	if expires := now + ttl; expires > h.expires {
		h.ttl = ttl
		b.holds.extend(h, expires)
		b.changed = true
	}
	return h.expires, false
}

// use charges usage that has no hold.
func (b *Book) use(list *amounts, now int64) {
	for i := range b.accounts {
		a := &b.accounts[i]
		if n, named := list.of(a.place, a.unit); named {
			a.charge(n, now)
		}
	}
	b.today.add(list)
	b.today.calls++
	b.changed = true
	b.cross(now)
}

// record charges usage and settles the plain holds that match it, oldest first: usage of k requests uses up k requests'
// worth of holds. One used up is closed with all its units, those that the usage does not name being charged as held;
// one used in part shrinks by what was recorded. What is left is charged now. The usage was at a time that may lie before
// now: what was granted since is of other calls.
func (b *Book) record(list *amounts, at, now int64) {
	rest := list.flat()
	requests := list.known[atRequests]
	counted := requests > 0
	// The totals of what is open say when to stop. What is visited in vain until then are plain holds without the units in
	// question, older than one that has them, or all when only other holds have them: at most as many as are open.
	for h := b.holds.oldest(); h != nil; {
		next := h.newer
		held := h.amounts.known[atRequests]
		switch {
		case h.granted > at:
			next = nil
		case counted && (requests == 0 || b.today.open(atRequests) == 0), !counted && !b.today.anyOpen(&rest):
			next = nil
		case counted && held == 0:
		case counted && held <= requests:
			requests -= held
			b.useUp(h, &rest, now)
		default:
			requests -= min(held, requests)
			b.usePart(h, &rest, now)
		}
		h = next
	}
	for i := range b.accounts {
		a := &b.accounts[i]
		if n, named := rest.exactly(a.place, a.unit); named {
			a.charge(n, now)
		}
	}
	b.today.add(list)
	b.today.calls++
	b.changed = true
	b.cross(now)
}

// useUp closes a hold with the usage in rest, and takes out of rest what the hold covers.
func (b *Book) useUp(h *hold, rest *amounts, now int64) {
	portion := h.amounts.flat()
	var estimated amounts
	for one := range portion.each {
		if n, named := rest.exactly(one.at, one.unit); named {
			portion.set(one.at, one.unit, min(one.n, n))
		} else {
			estimated.set(one.at, one.unit, one.n)
		}
	}
	rest.subtract(&portion)
	if rest.has(atInput) || rest.has(atOutput) {
		estimated = estimated.flat() // the part of the tokens that the usage does not name
		portion.known[atTokens] = saturatingAdd(portion.known[atTokens], estimated.known[atTokens])
	}
	b.holds.remove(h)
	for i := range b.accounts {
		a := &b.accounts[i]
		if n, named := portion.exactly(a.place, a.unit); named {
			held, _ := h.amounts.of(a.place, a.unit)
			a.settle(held, n, h.granted, now, true)
		}
	}
	b.today.freed(&h.amounts)
	for one := range estimated.each {
		b.today.use(b.today.unit(one.at, one.unit), one.n)
	}
	b.today.estimate(&estimated)
	b.holds.tally.settled++
	b.holds.recycle(h)
}

// usePart shrinks a hold by the usage in rest, and takes that out of rest. A hold with nothing left is closed.
func (b *Book) usePart(h *hold, rest *amounts, now int64) {
	used := h.shrink(rest)
	if used.spent() {
		return
	}
	for i := range b.accounts {
		a := &b.accounts[i]
		if n, held := used.of(a.place, a.unit); held {
			actual := n
			if left, named := rest.exactly(a.place, a.unit); named {
				actual = min(n, left) // a hold before has covered these tokens as a total
			}
			a.settle(n, actual, h.granted, now, true)
		}
	}
	b.today.freed(&used)
	for one := range used.each {
		if _, named := rest.exactly(one.at, one.unit); !named { // a part that tokens in all were taken from
			total := b.today.unit(one.at, one.unit)
			b.today.use(total, one.n)
			total.estimated = saturatingAdd(total.estimated, one.n)
		}
	}
	all := used.flat()
	rest.subtract(&all)
	b.closeEmpty(h)
}

// inParts returns rest as a hold counts it: of tokens in all, a hold of input and output tokens has parts.
func inParts(rest *amounts, h *hold) amounts {
	counted := *rest
	if rest.named&anyTokens != 1<<atTokens || h.amounts.has(atTokens) {
		return counted
	}
	left := rest.known[atTokens]
	for _, at := range [2]place{atInput, atOutput} {
		if h.amounts.has(at) {
			n := min(left, h.amounts.known[at])
			counted.set(at, at.unit(), n)
			left -= n
		}
	}
	return counted
}

// shrink takes out of a hold what rest has of the same units, and returns that.
func (h *hold) shrink(rest *amounts) (taken amounts) {
	less := inParts(rest, h)
	for one := range h.amounts.each {
		n, _ := less.exactly(one.at, one.unit)
		taken.set(one.at, one.unit, min(one.n, n))
	}
	if taken.spent() {
		return taken
	}
	if h.asked == nil {
		asked := h.amounts
		h.asked = &asked
	}
	h.amounts.subtract(&taken)
	return taken
}

func (b *Book) closeEmpty(h *hold) {
	if h.amounts.spent() {
		b.holds.remove(h)
		b.holds.tally.settled++
		b.holds.recycle(h)
	}
}

// releaseOldest gives back so much of the plain holds that had been granted at a time, oldest first, or what there is.
func (b *Book) releaseOldest(list *amounts, at, now int64) {
	rest := list.flat()
	for h := b.holds.oldest(); h != nil && h.granted <= at && b.today.anyOpen(&rest); {
		next := h.newer
		if taken := h.shrink(&rest); !taken.spent() {
			b.giveBack(h, &taken, now)
			all := taken.flat()
			rest.subtract(&all)
			if taken.has(atTokens) {
				rest.subtractParts(taken.known[atTokens])
			}
			b.changed = true
			b.closeEmpty(h)
		}
		h = next
	}
}

// subtractParts takes away the parts of so many tokens that were given back as a total.
func (m *amounts) subtractParts(total int64) {
	for _, at := range [2]place{atInput, atOutput} {
		n := min(total, m.known[at])
		m.known[at] -= n
		total -= n
	}
	m.addUp()
}
