package quota

import "slices"

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
		a.max, a.part = rule.Max, 0
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
			b.changed = b.changed || b.accounts[i].used > 0 // tomorrow nobody may know any more what it began with
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
