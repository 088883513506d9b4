package quota

import "strings"

// A settlement is a call that ends one hold, or puts its end off.
type settlement struct {
	key     holdKey
	id      string   // the caller's; "": made up
	quotas  []string // canonical names; the first is part of the text of an ID that was made up
	expires int64    // as far as the handle knows
	named   []Amount // Commit: what was used
}

// text is the reservation's ID: a copy, for what is remembered outlives the call.
func (s *settlement) text() string {
	if s.id != "" {
		return strings.Clone(s.id)
	}
	return s.key.text(s.quotas[0])
}

// flat appends list to out, with all tokens added up where only their parts are named.
func flat(out, list []Amount) []Amount {
	out = append(out, list...)
	if find(list, UnitTokens) < 0 {
		if n, named := count(list, UnitTokens); named {
			out = append(out, Amount{UnitTokens, n})
		}
	}
	return out
}

// scratch is room that transitions use again.
type scratch struct{ actual, estimated, rest, portion []Amount }

// final returns what a hold is settled with: what the call names, and of the units held that it does not name what was
// held, which is the estimated part. Naming any form of tokens names tokens. Both are valid until the next transition.
func (b *Book) final(held, named []Amount) (actual, estimated []Amount) {
	actual, estimated = b.scratch.actual[:0], b.scratch.estimated[:0]
	actual = append(actual, named...)
	anyTokens := false
	for i := range named {
		anyTokens = anyTokens || isTokens(named[i].Unit)
	}
	for _, amount := range held {
		if find(named, amount.Unit) < 0 && (amount.Unit != UnitTokens || !anyTokens) {
			actual = append(actual, amount)
			estimated = append(estimated, amount)
		}
	}
	if n, split := count(estimated, UnitTokens); split && find(actual, UnitTokens) < 0 {
		estimated = append(estimated, Amount{UnitTokens, n})
	}
	b.scratch.actual, b.scratch.estimated = actual, estimated
	return actual, estimated
}

// commit settles a hold with what was used. It reports whether the reservation had been settled before; nothing has
// then changed. A hold that is gone without having been settled, used up by RecordUsage or forgotten long after it
// expired, leaves the call to be charged as further usage.
func (b *Book) commit(s *settlement, now int64) (settled bool) {
	h, open := b.holds.open[s.key]
	if !open {
		if h, late := b.holds.expired[s.key]; late {
			b.commitLate(h, s, now)
			return false
		}
		if len(s.named) == 0 || b.wasSettled(s, now) {
			return true
		}
		b.use(s.named, now)
		return false
	}
	actual, estimated := b.final(h.amounts, s.named)
	b.holds.remove(h)
	for _, a := range b.accounts {
		held, wasHeld := count(h.amounts, a.unit)
		used, isUsed := count(actual, a.unit)
		if wasHeld || isUsed {
			a.settle(held, used, h.granted, now, true)
		}
	}
	b.today.freed(h.amounts)
	b.today.add(actual)
	b.today.estimate(estimated)
	b.today.calls++
	b.closeHold(h, s, now)
	return false
}

// wasSettled reports whether a hold that is not there any more has been settled by a handle, rather than used up or
// forgotten. Matching usage never uses up what has a caller's ID or holds several quotas.
func (b *Book) wasSettled(s *settlement, now int64) bool {
	if b.settled.has(s.text(), now) {
		return true
	}
	return (s.id != "" || len(s.quotas) > 1) && now-s.expires < rememberExpired
}

// closeHold forgets a hold that has been settled.
func (b *Book) closeHold(h *hold, s *settlement, now int64) {
	if h.id != "" || h.found {
		b.settled.add(s.text(), now+max(rememberSettled, h.ttl))
	}
	b.tally.settled++
	b.changed = true
	b.holds.recycle(h)
	b.cross(now)
}

// commitLate corrects what an expired hold was charged, where that still stands, and charges any overrun now.
func (b *Book) commitLate(h *hold, s *settlement, now int64) {
	actual, estimated := b.final(h.amounts, s.named)
	charged := h.amounts
	if h.released {
		charged = nil
	}
	b.amend(h, charged, actual, estimated, now)
	b.today.calls++
	b.rememberLate(h, s, now)
	b.holds.forget(h)
	b.changed = true
	b.cross(now)
}

// rememberLate remembers that an expired hold has been settled, unless its ID has been given to another since.
func (b *Book) rememberLate(h *hold, s *settlement, now int64) {
	if s.id == "" || b.holds.byID[s.id] == nil {
		b.settled.add(s.text(), now+max(rememberSettled, h.ttl))
	}
}

// amend replaces what an expired hold was charged by what was used.
func (b *Book) amend(h *hold, charged, actual, estimated []Amount, now int64) {
	for _, a := range b.accounts {
		was, _ := count(charged, a.unit)
		is, _ := count(actual, a.unit)
		a.amend(was, is, h.granted, h.charged, now)
	}
	today := h.charged >= b.today.start
	for _, amount := range flat(nil, charged) {
		is, _ := count(actual, amount.Unit)
		if today {
			b.today.lower(amount.Unit, max(0, amount.N-is), amount.N)
		}
	}
	for _, amount := range flat(nil, actual) {
		was, _ := count(charged, amount.Unit)
		b.today.addUnit(amount.Unit, max(0, amount.N-was))
	}
	if today || charged == nil {
		b.today.estimate(estimated)
	}
}

// release gives back what a hold has set aside. It reports whether the reservation had been settled before.
func (b *Book) release(s *settlement, now int64) (settled bool) {
	h, open := b.holds.open[s.key]
	if !open {
		h, late := b.holds.expired[s.key]
		if !late {
			return true
		}
		if !h.released {
			b.amend(h, h.amounts, nil, nil, now)
			b.unbegin(h)
		}
		b.rememberLate(h, s, now)
		b.holds.forget(h)
		b.changed = true
		return false
	}
	b.holds.remove(h)
	b.giveBack(h, h.amounts, now)
	b.closeHold(h, s, now)
	return false
}

// giveBack frees some or all of what a hold has set aside.
func (b *Book) giveBack(h *hold, list []Amount, now int64) {
	for _, a := range b.accounts {
		if n, held := count(list, a.unit); held {
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
			if n, _ := count(h.amounts, a.unit); n > 0 && h.granted >= a.start {
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

// unbegin ends a Session that nothing but an expired hold had begun, when it turns out that it never ran.
func (b *Book) unbegin(h *hold) {
	for _, a := range b.accounts {
		if a.window.kind == kindSession && a.used == 0 && a.reserved == 0 && a.first == h.granted {
			a.start, a.end, a.first = 0, 0, 0
		}
	}
}

// extend puts a hold's expiry off. It reports whether the reservation had been settled before.
func (b *Book) extend(s *settlement, ttl, now int64) (expires int64, settled bool) {
	h, open := b.holds.open[s.key]
	if !open {
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
func (b *Book) use(list []Amount, now int64) {
	for _, a := range b.accounts {
		if n, named := count(list, a.unit); named {
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
// one used in part shrinks by what was recorded. What is left is charged now.
func (b *Book) record(list []Amount, now int64) {
	b.scratch.rest = flat(b.scratch.rest[:0], list)
	rest := b.scratch.rest
	requests, _ := count(list, UnitRequests)
	counted := requests > 0
	for h := b.holds.plain.oldest; h != nil; {
		next := h.newer
		held, _ := count(h.amounts, UnitRequests)
		switch {
		case counted && requests == 0, !counted && spent(rest):
			next = nil
		case counted && held == 0:
		case counted && held <= requests:
			requests -= held
			b.useUp(h, rest, now)
		default:
			requests -= min(held, requests)
			b.usePart(h, rest, now)
		}
		h = next
	}
	for _, a := range b.accounts {
		if i := find(rest, a.unit); i >= 0 {
			a.charge(rest[i].N, now)
		}
	}
	b.today.add(list)
	b.today.calls++
	b.changed = true
	b.cross(now)
}

func spent(rest []Amount) bool {
	for i := range rest {
		if rest[i].N > 0 {
			return false
		}
	}
	return true
}

// useUp closes a hold with the usage in rest, and takes out of rest what the hold covers.
func (b *Book) useUp(h *hold, rest []Amount, now int64) {
	b.scratch.portion = flat(b.scratch.portion[:0], h.amounts)
	portion := b.scratch.portion
	var estimated []Amount
	for i := range portion {
		if at := find(rest, portion[i].Unit); at >= 0 {
			portion[i].N = min(portion[i].N, rest[at].N)
		} else {
			estimated = append(estimated, portion[i])
		}
	}
	subtract(rest, portion)
	if find(rest, UnitInputTokens) >= 0 || find(rest, UnitOutputTokens) >= 0 {
		estimated = flat(nil, estimated) // the part of the tokens that the usage does not name
		if i, at := find(estimated, UnitTokens), find(portion, UnitTokens); i >= 0 && at >= 0 {
			portion[at].N = saturatingAdd(portion[at].N, estimated[i].N)
		}
	}
	b.holds.remove(h)
	for _, a := range b.accounts {
		if at := find(portion, a.unit); at >= 0 {
			held, _ := count(h.amounts, a.unit)
			a.settle(held, portion[at].N, h.granted, now, true)
		}
	}
	b.today.freed(h.amounts)
	for _, amount := range estimated {
		b.today.addUnit(amount.Unit, amount.N)
	}
	b.today.estimate(estimated)
	b.tally.settled++
	b.holds.recycle(h)
}

// usePart shrinks a hold by the usage in rest, and takes that out of rest. A hold with nothing left is closed.
func (b *Book) usePart(h *hold, rest []Amount, now int64) {
	used := b.shrink(h, inParts(rest, h))
	for _, a := range b.accounts {
		if n, held := count(used, a.unit); held {
			a.settle(n, n, h.granted, now, true)
		}
	}
	b.today.freed(used)
	for _, amount := range used {
		if find(rest, amount.Unit) < 0 { // the parts that tokens in all were taken from
			b.today.addUnit(amount.Unit, amount.N)
			b.today.estimate([]Amount{amount})
		}
	}
	subtract(rest, flat(nil, used))
	b.closeEmpty(h)
}

// inParts returns rest as a hold counts it: of tokens in all, a hold of input and output tokens has parts.
func inParts(rest []Amount, h *hold) []Amount {
	all := find(rest, UnitTokens)
	if all < 0 || find(rest, UnitInputTokens) >= 0 || find(rest, UnitOutputTokens) >= 0 || find(h.amounts, UnitTokens) >= 0 {
		return rest
	}
	left, parts := rest[all].N, append([]Amount(nil), rest...)
	for _, unit := range [2]Unit{UnitInputTokens, UnitOutputTokens} {
		if at := find(h.amounts, unit); at >= 0 {
			n := min(left, h.amounts[at].N)
			parts = append(parts, Amount{unit, n})
			left -= n
		}
	}
	return parts
}

// shrink takes out of a hold what rest has of the same units, and returns that.
func (b *Book) shrink(h *hold, rest []Amount) []Amount {
	if h.asked == nil {
		h.asked = append([]Amount(nil), h.amounts...)
	}
	taken := append([]Amount(nil), h.amounts...)
	for i := range taken {
		taken[i].N = 0
		if at := find(rest, taken[i].Unit); at >= 0 {
			taken[i].N = min(h.amounts[i].N, rest[at].N)
			h.amounts[i].N -= taken[i].N
		}
	}
	return taken
}

func (b *Book) closeEmpty(h *hold) {
	if h.empty() {
		b.holds.remove(h)
		b.tally.settled++
		b.holds.recycle(h)
	}
}

// releaseOldest gives back so much of the plain holds, oldest first, or what there is.
func (b *Book) releaseOldest(list []Amount, now int64) {
	rest := flat(nil, list)
	for h := b.holds.plain.oldest; h != nil && !spent(rest); {
		next := h.newer
		taken := b.shrink(h, inParts(rest, h))
		if !spent(taken) {
			b.giveBack(h, taken, now)
			subtract(rest, flat(nil, taken))
			if all := find(taken, UnitTokens); all >= 0 {
				subtractParts(rest, taken[all].N)
			}
			b.changed = true
			b.closeEmpty(h)
		}
		h = next
	}
}

// subtractParts takes out of rest the parts of so many tokens that were given back as a total.
func subtractParts(rest []Amount, total int64) {
	for _, unit := range [2]Unit{UnitInputTokens, UnitOutputTokens} {
		if at := find(rest, unit); at >= 0 {
			part := min(total, rest[at].N)
			rest[at].N -= part
			total -= part
		}
	}
}

// subtract takes out of rest what it has of the units in portion, at most all of it.
func subtract(rest, portion []Amount) {
	for i := range portion {
		if at := find(rest, portion[i].Unit); at >= 0 {
			rest[at].N -= min(rest[at].N, portion[i].N)
		}
	}
}

// observe takes over what the provider reports: used rises until the room is no more than it says, and the quota stays
// closed for as long as it asks. Neither ever falls by it.
func (b *Book) observe(o Observation, unit Unit, window Window, now int64) {
	reset := nanos(o.ResetAt)
	for _, a := range b.accounts {
		if o.Remaining == nil || a.unit != unit || window.kind != kindUnset && a.window != window || reset != 0 && reset <= now {
			continue
		}
		before := a.used
		a.raise(max(0, a.max-*o.Remaining), now)
		if a.window.kind == kindSession && a.start != 0 && reset > now && reset < a.end {
			a.end, a.first = reset, a.start // it began before, but what was granted before does not count here
			b.changed = true
		}
		b.changed = b.changed || a.used != before
	}
	if until := now + int64(min(o.RetryAfter, maxRetryAfter)); o.RetryAfter > 0 && until > b.closed {
		b.closed = until
		b.changed = true
	}
	b.cross(now)
}

// reset makes used 0 and arms the alerts again. Open holds and the totals of the day stay.
func (b *Book) reset(now int64) {
	for _, a := range b.accounts {
		a.reset(now)
	}
	b.changed = true
}

// undo takes back a grant that its caller was never told of. It leaves no trace but the peak of the day. A hold that
// other calls were given too stays theirs.
func (b *Book) undo(key holdKey, now int64) {
	if h, late := b.holds.expired[key]; late {
		b.changed = true
		if h.joined > 0 {
			h.joined--
			return
		}
		if !h.released {
			b.amend(h, h.amounts, nil, nil, now)
			b.unbegin(h)
		}
		b.holds.forget(h)
		return
	}
	if h, open := b.holds.open[key]; open {
		if h.joined > 0 {
			h.joined--
			b.changed = true
			return
		}
		b.holds.remove(h)
		b.giveBack(h, h.amounts, now)
		b.tally.settled++
		b.changed = true
		b.holds.recycle(h)
	}
}
