package quota

import (
	"cmp"
	"math"
	"math/bits"
	"slices"
	"time"
)

// An account is how much of one limit is used and reserved: the part of the ledger that differs between kinds of
// windows. Budgets keep their open holds over a turn and are charged where a hold is settled. Rates count a call from
// its grant, in the window of its grant; settling corrects that window while it stands and never another.
type account struct {
	max    int64 // as last configured
	seen   int64 // when a tracker last had it configured
	since  int64 // what was charged before has been reset: corrections of it no longer count
	opened int64 // a rate does not count what was granted before
	first  int64 // Session: the earliest grant among what has been settled
	part   int64 // Refill: what has refilled beyond whole units, in units / length
	slices []slice
	marks  []mark     // thresholds that have alerted
	armed  int64      // how often Reset has armed them again in this window
	rule   *limitRule // nil: not configured by this tracker (derived)
	held   int64      // sum of the open holds, whatever their window (derived)
	start  int64      // of the window; of a Refill: up to when it has refilled; of a Session: 0 when it has not begun
	end    int64      // of the window; 0: none

	reserved int64
	used     int64
	alarm    int64 // the amount used from which the next threshold alerts (derived)
	*limitKey
}

// A limitKey is what tells a limit from the others of its quota. It never changes once made: all accounts of one limit of a
// template share it.
type limitKey struct {
	text     string
	unit     Unit
	place    place // of unit (derived)
	window   Window
	location *time.Location // nil: could not be loaded here (derived)
}

func newLimitKey(unit Unit, window Window, location *time.Location) *limitKey {
	return &limitKey{Limit{Unit: unit, Window: window}.String(), unit, unit.place(), window, location}
}

// A slice is one of the pieces of time that a Rolling window consists of.
type slice struct{ start, used, reserved int64 }

// A mark remembers that a threshold has alerted.
type mark struct {
	threshold int
	at        int64
}

// slicesPerWindow bounds how late a Rolling window lets go of what it counted: length / slicesPerWindow.
const slicesPerWindow = 50

func (a *account) length() int64 { return int64(a.window.length) }

func (a *account) sliceLength() int64 { return max(1, a.length()/slicesPerWindow) }

// carries reports whether the account counts every open hold, whenever it was granted.
func (a *account) carries() bool {
	return a.window.budget() || a.window.kind == kindInFlight
}

// flows reports whether time changes something in the account at any moment, rather than when its window ends.
func (a *account) flows() bool {
	return a.window.kind == kindRolling || a.window.kind == kindRefill || a.window.kind == kindSession
}

// turn moves the account to the window that contains now.
func (a *account) turn(now int64) {
	switch a.window.kind {
	case kindDaily, kindWeekly, kindMonthly, kindEvery:
		if now < a.end || a.location == nil {
			return
		}
		begun := a.end != 0
		a.start, a.end = a.window.period(now, a.location)
		if !begun {
			return
		}
		if a.window.kind == kindEvery {
			a.reserved = 0
		}
		a.clear(a.start)
	case kindSession:
		if a.end != 0 && now >= a.end {
			ended := a.end
			a.start, a.end, a.first, a.reserved = 0, 0, 0, 0
			a.clear(ended)
		}
		if a.start == 0 && now >= a.since {
			a.armed = 0 // a Session that begins from here on is told apart from those before by when it does
		}
	case kindRolling:
		gone, oldest := 0, now-a.length()-a.sliceLength()
		for gone < len(a.slices) && a.slices[gone].start <= oldest {
			a.reserved -= a.slices[gone].reserved
			gone++
		}
		if gone > 0 {
			a.slices = slices.Delete(a.slices, 0, gone)
			a.sumSlices()
		}
		a.rearm(now)
	case kindRefill:
		a.refill(now)
		a.rearm(now)
	}
}

// clear begins a window's usage anew.
func (a *account) clear(since int64) {
	a.used, a.since, a.armed = 0, since, 0
	a.marks = a.marks[:0]
	a.ring()
}

// refill takes what has flowed back since the last time out of what is used, then out of what is reserved. The time
// only ever grows, so that a stale clock mints nothing.
func (a *account) refill(now int64) {
	if a.start == 0 || now <= a.start {
		a.start = max(a.start, now)
		return
	}
	elapsed := now - a.start
	a.start = now
	if a.used == 0 && a.reserved == 0 {
		a.part = 0
		return
	}
	high, low := bits.Mul64(uint64(a.max), uint64(elapsed))
	low, carry := bits.Add64(low, uint64(a.part), 0)
	high += carry
	if high >= uint64(a.length()) {
		a.used, a.reserved, a.part = 0, 0, 0
		return
	}
	back, part := bits.Div64(high, low, uint64(a.length()))
	a.part = int64(part)
	fromUsed := min(uint64(a.used), back)
	fromReserved := min(uint64(a.reserved), back-fromUsed)
	a.used -= int64(fromUsed)
	a.reserved -= int64(fromReserved)
	if a.used == 0 && a.reserved == 0 {
		a.part = 0
	}
}

// current returns the slice of a Rolling window that now falls into.
func (a *account) current(now int64) *slice {
	start := now - now%a.sliceLength()
	if n := len(a.slices); n > 0 && a.slices[n-1].start >= start {
		return &a.slices[n-1]
	}
	a.slices = append(a.slices, slice{start: start})
	return &a.slices[len(a.slices)-1]
}

// sliceOf returns the slice that counted a call granted then, nil when it is over.
func (a *account) sliceOf(granted int64) *slice {
	if granted < a.opened {
		return nil
	}
	i, found := slices.BinarySearchFunc(a.slices, granted-granted%a.sliceLength(), func(s slice, start int64) int {
		return cmp.Compare(s.start, start)
	})
	if !found {
		return nil
	}
	return &a.slices[i]
}

// counts reports whether a fixed window or a Session counts a call granted then.
func (a *account) counts(granted int64) bool {
	return a.start != 0 && granted >= max(a.start, a.opened)
}

// begin starts a Session that has not begun.
func (a *account) begin(now int64) {
	if a.start == 0 {
		a.start, a.end = now, now+a.length()
		armed := a.armed // by a Reset at this very instant
		a.clear(now)
		a.armed = armed
	}
}

// hold reserves n.
func (a *account) hold(n, now int64) {
	a.held = saturatingAdd(a.held, n)
	switch a.window.kind {
	case kindSession:
		if n == 0 {
			return
		}
		a.begin(now)
	case kindRolling:
		if n == 0 {
			return
		}
		a.current(now).reserved += n
	}
	a.reserved += n
}

// charge counts n as used now.
func (a *account) charge(n, now int64) {
	if n == 0 {
		return
	}
	switch a.window.kind {
	case kindInFlight:
		return
	case kindSession:
		a.begin(now)
		if a.first == 0 {
			a.first = now
		}
	case kindRolling:
		s := a.current(now)
		s.used = saturatingAdd(s.used, n)
		a.sumSlices()
		return
	}
	a.used = saturatingAdd(a.used, n)
}

// sumSlices keeps the sum exact where a single addition would have passed what can be counted.
func (a *account) sumSlices() {
	a.used = 0
	for i := range a.slices {
		a.used = saturatingAdd(a.used, a.slices[i].used)
	}
}

// settle ends a hold of that much, granted then, of which actual has been used. sent says that the work was dispatched:
// a Session has then begun, whatever it used.
func (a *account) settle(held, actual, granted, now int64, sent bool) {
	a.held -= held
	overrun := max(0, actual-held)
	switch a.window.kind {
	case kindInFlight:
		a.reserved -= held
	case kindDaily, kindWeekly, kindMonthly, kindLifetime:
		a.reserved -= held
		a.used = saturatingAdd(a.used, actual)
	case kindEvery:
		if a.counts(granted) {
			a.reserved -= held
			a.used = saturatingAdd(a.used, actual)
		} else {
			a.charge(overrun, now)
		}
	case kindSession:
		if !a.counts(granted) {
			a.charge(overrun, now)
			return
		}
		a.reserved -= held
		a.used = saturatingAdd(a.used, actual)
		if sent && (held > 0 || actual > 0) && (a.first == 0 || granted < a.first) {
			a.first = granted
		}
	case kindRolling:
		if s := a.sliceOf(granted); s != nil {
			s.reserved -= held
			a.reserved -= held
			s.used = saturatingAdd(s.used, min(held, actual))
			a.sumSlices()
		}
		a.charge(overrun, now)
	case kindRefill:
		outstanding := a.outstanding(held, granted, now)
		refund := min(max(0, held-actual), outstanding)
		total := saturatingAdd(saturatingAdd(a.used, a.reserved)-min(refund, saturatingAdd(a.used, a.reserved)), overrun)
		a.reserved = min(max(0, a.reserved-outstanding), a.held, total)
		a.used = total - a.reserved
	}
}

// outstanding is what has not yet flowed back of a call granted then: the most that a Refill may give back of it.
func (a *account) outstanding(n, granted, now int64) int64 {
	if granted < a.opened {
		return 0
	}
	return max(0, n-share(a.max, max(0, now-granted, a.start-granted), a.length(), true))
}

// amend corrects what an expired hold was charged: from charged, at that time, to actual. What no longer stands is
// left alone, and only what actual has more is charged now.
func (a *account) amend(charged, actual, granted, at, now int64) {
	overrun := max(0, actual-charged)
	lower := max(0, charged-actual)
	stands := at >= a.since
	switch a.window.kind {
	case kindInFlight:
		return
	case kindDaily, kindWeekly, kindMonthly, kindLifetime:
		stands = stands && at >= a.start
	case kindEvery, kindSession:
		stands = stands && a.counts(granted)
	case kindRolling:
		if s := a.sliceOf(granted); stands && s != nil {
			s.used -= min(lower, s.used)
			a.sumSlices()
		}
		a.charge(overrun, now)
		return
	case kindRefill:
		if stands {
			refund := min(lower, a.outstanding(charged, granted, now))
			fromUsed := min(refund, a.used)
			a.used -= fromUsed
			a.reserved -= min(refund-fromUsed, a.reserved) // where rounding has left it
		}
		a.charge(overrun, now)
		return
	}
	if stands {
		a.used -= min(lower, a.used)
	}
	a.charge(overrun, now)
}

// raise makes used at least n, as the provider reports it.
func (a *account) raise(n, now int64) {
	if n <= a.used || a.window.kind == kindInFlight {
		return
	}
	a.charge(n-a.used, now)
}

// reanchor moves the account to a time that lies further back than a clock may step: usage is kept, and what was
// granted before no longer stands for corrections in a rate.
func (a *account) reanchor(now int64) {
	for i := range a.marks {
		a.marks[i].at = min(a.marks[i].at, now)
	}
	a.seen = min(a.seen, now)
	a.since, a.opened = now, now
	switch a.window.kind {
	case kindDaily, kindWeekly, kindMonthly:
		if a.location != nil && a.end != 0 {
			a.start, a.end = a.window.period(now, a.location)
		}
		return
	case kindLifetime, kindInFlight:
		return
	case kindEvery:
		a.start, a.end = a.window.period(now, time.UTC)
	case kindSession:
		if a.start != 0 {
			a.start, a.end, a.first = now, now+a.length(), now
		}
	case kindRolling:
		used := saturatingAdd(a.used, a.reserved)
		a.slices = a.slices[:0]
		if used > 0 {
			a.slices = append(a.slices, slice{start: now - now%a.sliceLength(), used: used})
		}
	case kindRefill:
		a.start, a.part = now, 0
	}
	a.used, a.reserved = saturatingAdd(a.used, a.reserved), 0
}

// free is what is left of a limit of max; negative when usage has passed it.
func (a *account) free(max int64) int64 {
	left := max - a.used
	if left < math.MinInt64+a.reserved {
		return math.MinInt64
	}
	return left - a.reserved
}

// fitsAt returns when n would fit into a limit of max, 0 when that is not known; hopeless when nothing but a change of
// the configuration can make it fit.
func (a *account) fitsAt(n, max, now int64) (at int64, hopeless bool) {
	switch a.window.kind {
	case kindDaily, kindWeekly, kindMonthly:
		// Open holds carry over: the turn helps only if they leave room, and is not needed if they alone are in the way.
		if n <= max-a.used || a.reserved > max-n {
			return 0, false
		}
		return a.end, false
	case kindLifetime:
		return 0, n > max-a.used
	case kindInFlight:
		return 0, false
	case kindRolling:
		free := a.free(max)
		for i := range a.slices {
			free = saturatingAdd2(free, a.slices[i].used, a.slices[i].reserved)
			if n <= free {
				return a.slices[i].start + a.sliceLength() + a.length(), false
			}
		}
		return now, false
	case kindRefill:
		return a.refilledAt(n, max), false
	}
	return a.end, false
}

func saturatingAdd2(n, a, b int64) int64 {
	for _, more := range [2]int64{a, b} {
		if n > math.MaxInt64-more {
			return math.MaxInt64
		}
		n += more
	}
	return n
}

// refilledAt returns when so much has flowed back that n fits.
func (a *account) refilledAt(n, max int64) int64 {
	// What is missing is positive, so this is exact even where a part of it is not an int64.
	missing := uint64(n) - uint64(max) + uint64(a.used) + uint64(a.reserved)
	if a.max <= 0 {
		return 0
	}
	high, low := bits.Mul64(missing, uint64(a.length()))
	low, borrow := bits.Sub64(low, uint64(a.part), 0)
	high -= borrow
	if high >= uint64(a.max) {
		return latest
	}
	wait, rest := bits.Div64(high, low, uint64(a.max))
	if rest > 0 {
		wait++
	}
	if wait > uint64(latest-a.start) {
		return latest
	}
	return a.start + int64(wait)
}

// ring works out from which amount on the next threshold alerts.
func (a *account) ring() {
	a.alarm = math.MaxInt64
	if a.rule == nil {
		return
	}
	for _, threshold := range a.rule.thresholds {
		if !a.marked(threshold) {
			a.alarm = a.amountAt(threshold)
			return
		}
	}
}

// amountAt is the smallest amount used that is at least so many percent of the limit; of a limit of 0 any is.
func (a *account) amountAt(threshold int) int64 {
	return max(1, share(a.max, int64(threshold), 100, true))
}

func (a *account) marked(threshold int) bool {
	return slices.ContainsFunc(a.marks, func(m mark) bool { return m.threshold == threshold })
}

// rearm lets thresholds of a window without a turn alert again, once it is below them and a full length has passed.
func (a *account) rearm(now int64) {
	if len(a.marks) == 0 {
		return
	}
	before := len(a.marks)
	a.marks = slices.DeleteFunc(a.marks, func(m mark) bool {
		return now-m.at >= a.length() && a.used < a.amountAt(m.threshold)
	})
	if len(a.marks) != before {
		a.ring()
	}
}

// windowStart is the first instant that counts in the window that now falls into, MaxInt64 if none does.
func (a *account) windowStart(now int64) int64 {
	switch {
	case a.window.kind == kindRolling, a.window.kind == kindRefill:
		return now - a.length()
	case a.window.kind == kindInFlight, a.window.kind == kindSession && a.start == 0:
		return math.MaxInt64
	}
	return a.start
}
