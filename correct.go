package quota

// observe takes over what the provider reports: used rises until the room is no more than it says, and the quota stays
// closed for as long as it asks. Neither ever falls by it. It was said at a time that may lie before now, and concerns the windows
// of then.
func (b *Book) observe(o Observation, unit Unit, window Window, at, now int64) {
	reset := nanos(o.ResetAt)
	for i := range b.accounts {
		a := &b.accounts[i]
		if o.Remaining == nil || a.unit != unit || window.kind != kindUnset && a.window != window || reset != 0 && reset <= now ||
			!a.concerns(at, now) {
			continue
		}
		before := a.used
		a.raise(max(0, a.max-*o.Remaining-a.flown(at, now)), now)
		if b.holds.oldestLate() != nil { // what is given back of them is part of what the provider has counted
			a.since, b.changed = now+1, true
		}
		if a.window.kind == kindSession && a.start != 0 && reset > now && reset < a.end {
			a.end, a.first = reset, a.start // it began before, but what was granted before does not count here
			b.changed = true
		}
		b.changed = b.changed || a.used != before
	}
	if until := at + int64(min(o.RetryAfter, maxRetryAfter)); o.RetryAfter > 0 && until > max(now, b.closed()) {
		b.details().closed = until
		b.changed = true
	}
	b.cross(now)
}

// resets reports whether a Reset in the present window has to be remembered, because the next alert is another one.
func (a *account) resets() bool {
	switch a.window.kind {
	case kindRolling, kindRefill, kindInFlight: // whose alerts have IDs by the time, or there are none
		return false
	}
	return a.armed > 0
}

// concerns reports whether what was said of the window at that time is about the one that now falls into.
func (a *account) concerns(at, now int64) bool {
	if a.window.kind == kindSession && a.start == 0 {
		return now-at < a.length()
	}
	return at == now || at >= a.windowStart(now)
}

// flown is how much a Refill has let flow back in between.
func (a *account) flown(from, to int64) int64 {
	if a.window.kind != kindRefill || from == to {
		return 0
	}
	return share(a.max, to-from, a.length(), false)
}

// reset makes used 0 and arms the alerts again. Open holds and the totals of the day stay.
func (b *Book) reset(now int64) {
	for i := range b.accounts {
		a := &b.accounts[i]
		a.reset(now)
	}
	b.changed = true
}

// reset makes used 0. Open holds stay.
func (a *account) reset(now int64) {
	for i := range a.slices {
		a.slices[i].used = 0
	}
	a.used, a.since, a.first, a.part = 0, now+1, 0, 0 // what expired at this very moment has been reset too
	if a.window.kind == kindSession && a.reserved == 0 {
		a.start, a.end = 0, 0
	}
	a.marks = a.marks[:0]
	a.armed++
	a.ring()
}

// undo takes back a grant that its caller was never told of. It leaves no trace but the peak of the day. A hold that
// other calls were given too stays theirs.
func (b *Book) undo(key holdKey, now int64) {
	b.turnForeign(now)
	if h := b.holds.findLate(key); h != nil {
		b.changed = true
		if h.joined > 0 {
			h.joined--
			return
		}
		if !h.released {
			b.amend(h, &amounts{}, &amounts{}, now)
			b.unbegin(h)
		}
		b.forget(h)
		return
	}
	if h := b.holds.find(key); h != nil {
		if h.joined > 0 {
			h.joined--
			b.changed = true
			return
		}
		b.holds.remove(h)
		b.giveBack(h, &h.amounts, now)
		b.holds.tally.settled++
		b.changed = true
		b.holds.recycle(h)
	}
}
