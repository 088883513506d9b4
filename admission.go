package quota

import (
	"slices"
	"time"
)

// A verdict is what the limits of one book say to an amount.
type verdict struct {
	limit    int   // index of the limit that binds; -1: none, or the provider has closed the quota
	asked    int64 // in that limit's unit
	retryAt  int64 // 0: not known
	never    bool
	hopeless bool
	closed   bool // by the provider
	behind   bool // others wait, who come first
	refused  bool
}

// later reports whether v binds longer than other.
func (v verdict) later(other verdict) bool {
	if v.never != other.never {
		return v.never
	}
	if v.hopeless != other.hopeless {
		return v.hopeless
	}
	return v.retryAt > other.retryAt
}

// wanted returns what a call that names so much needs of this quota.
func (r *rules) wanted(named *amounts) amounts {
	list := *named
	r.complete(&list)
	return list
}

// complete adds to what a call names what else it needs of this quota: one request unless it says otherwise, and an
// estimate for the units that it leaves out. Naming any form of tokens names tokens.
func (r *rules) complete(list *amounts) {
	missing := r.estimates.named &^ list.named
	if list.named&anyTokens != 0 {
		missing &^= 1 << atTokens
	}
	list.addRequest()
	if missing != 0 {
		list.take(&r.estimates, missing)
	}
	for _, amount := range r.estimates.other {
		if _, given := list.exactly(elsewhere, amount.Unit); !given {
			list.set(elsewhere, amount.Unit, amount.N)
		}
	}
}

// addRequest makes a call that does not say how many requests it is one.
func (m *amounts) addRequest() {
	if !m.has(atRequests) {
		m.known[atRequests] = 1
		m.named |= 1 << atRequests
		m.sums |= 1 << atRequests
	}
}

// withRequest is addRequest on a copy.
func (m *amounts) withRequest() amounts {
	list := *m
	list.addRequest()
	return list
}

// admits reports whether so much would be admitted. The book has been advanced to now.
func (b *Book) admits(list *amounts, now int64) bool {
	for i := range b.limits() {
		a := &b.accounts[i]
		if n, named := list.of(a.place, a.unit); named && n > a.free(a.rule.Max) && !a.rule.Soft {
			return false
		}
	}
	return b.closed() <= now
}

// judge is admits with reasons: those of the limit that refuses for longest.
func (b *Book) judge(list *amounts, now int64) verdict {
	worst := verdict{limit: -1}
	if b.closed() > now {
		worst = verdict{limit: -1, closed: true, refused: true, retryAt: b.closed()}
	}
	for i := range b.limits() {
		a := &b.accounts[i]
		if a.rule.Soft {
			continue
		}
		n, named := list.of(a.place, a.unit)
		if !named || n <= a.free(a.rule.Max) {
			continue
		}
		v := verdict{limit: i, asked: n, refused: true}
		if v.never = n > a.rule.Max; !v.never {
			v.retryAt, v.hopeless = a.fitsAt(n, a.rule.Max, now)
		}
		if !worst.refused || v.later(worst) {
			worst = v
		}
	}
	return worst
}

// tightest returns the limit with the smallest part of it left, -1 when there is none.
func (b *Book) tightest() int {
	best, least := -1, 0.0
	for i := range b.limits() {
		a := &b.accounts[i]
		if a.rule.Soft {
			continue
		}
		left := 0.0
		if a.rule.Max > 0 {
			left = float64(max(0, a.free(a.rule.Max))) / float64(a.rule.Max)
		}
		if best < 0 || left < least {
			best, least = i, left
		}
	}
	return best
}

// A refused call is often tried again and again: lastRefusal is what the one before was told.
type lastRefusal struct {
	verdict verdict
	rules   *rules
	end     int64 // of the limit's window
	error   *ExceededError
}

// saysTheSame reports whether a refusal now would be the same.
func (l *lastRefusal) saysTheSame(b *Book, v verdict, now int64) bool {
	if l == nil || l.verdict != v || l.rules != b.configured {
		return false
	}
	if v.limit < 0 {
		return true
	}
	a, said := &b.limits()[v.limit], &l.error.Limit
	return a.used == said.Used && a.reserved == said.Reserved && a.end == l.end && a.exhaustsAt(now) == nanos(said.ExhaustsAt) &&
		slices.EqualFunc(a.marks, said.AlertsFired, func(m mark, threshold int) bool { return m.threshold == threshold })
}

// refusal is the verdict in the form that leaves the library, the same error for as long as it says the same. What it says
// in full is put together by who reads it.
func (b *Book) refusal(v verdict, now int64) *ExceededError {
	if last := b.refused(); last.saysTheSame(b, v, now) {
		return last.error
	}
	last := &lastRefusal{verdict: v, rules: b.configured, error: b.newRefusal(v, now)}
	if v.limit >= 0 {
		last.end = b.limits()[v.limit].end
	}
	b.details().refused = last
	return last.error
}

func (b *Book) newRefusal(v verdict, now int64) *ExceededError {
	e := &ExceededError{
		Quota: b.name, Requested: v.asked, RetryAt: b.local(v.retryAt), Never: v.never, hopeless: v.never || v.hopeless,
	}
	if v.limit >= 0 {
		b.describe(v.limit, now, &e.Limit)
	}
	switch {
	case v.closed:
		e.Reason = reasonClosed
	case v.behind:
		e.Reason = reasonBehind
	case v.never:
		e.Reason = reasonNever
	case v.hopeless:
		e.Reason = reasonHopeless
	case v.retryAt == 0:
		e.Reason = reasonOpen
	default:
		e.Reason = reasonFull
	}
	return e
}

// Why a call is refused, in a clause for people.
const (
	reasonClosed   = "the provider has closed it"
	reasonBehind   = "others wait for it, who come first"
	reasonNever    = "it is more than the whole limit: ask for less or raise the limit"
	reasonHopeless = "it does not fit into what is left of a limit that never starts again: raise the limit"
	reasonOpen     = "it does not fit, open reservations are in the way"
	reasonFull     = "it does not fit into what is left"
)

// What refuses a call when it is no limit.
const (
	closedBy     = "closed by the provider"
	behindOthers = "others were waiting"
)

func (b *Book) denialOf(v verdict) string {
	if v.closed {
		return closedBy
	}
	if v.behind {
		return behindOthers
	}
	return b.accounts[v.limit].text
}

// grant opens a hold. The caller has asked judge.
func (b *Book) grant(h *hold, now int64) {
	h.granted = now
	for i := range b.accounts {
		a := &b.accounts[i]
		if n, named := h.amounts.of(a.place, a.unit); named {
			a.hold(n, now)
		}
	}
	b.today.held(&h.amounts)
	b.holding().add(h)
	b.hush(h.expires)
	b.holds.tally.granted++
	b.changed = true
}

// limitStatus is how full the limit of that index is.
func (b *Book) limitStatus(i int, now int64) (s LimitStatus) {
	b.describe(i, now, &s)
	return s
}

// describe is limitStatus for one that is part of something larger.
func (b *Book) describe(i int, now int64, s *LimitStatus) {
	a := &b.accounts[i]
	s.Limit = a.rule.copied()
	s.Used, s.Reserved, s.Remaining = a.used, a.reserved, max(0, a.free(a.rule.Max))
	switch {
	case a.rule.Max > 0:
		s.Percent = float64(a.used) / float64(a.rule.Max) * 100
	case a.used > 0:
		s.Percent = 100
	}
	s.ResetsAt = a.time(a.end)
	if len(a.marks) > 0 {
		s.AlertsFired = make([]int, len(a.marks))
		for j, m := range a.marks {
			s.AlertsFired[j] = m.threshold
		}
	}
	s.ExhaustsAt = a.time(a.exhaustsAt(now))
}

// exhaustsAt draws a straight line through the usage of this window. 0: not at this pace, or too early to say.
func (a *account) exhaustsAt(now int64) int64 {
	const tooEarly = 100 // of that many parts of the window, less than one has passed
	if a.end == 0 || a.used <= 0 || a.used >= a.max {
		return 0
	}
	elapsed := now - a.start
	if elapsed <= 0 || elapsed < (a.end-a.start)/tooEarly {
		return 0
	}
	full := share(elapsed, a.max, a.used, true)
	if full >= a.end-a.start {
		return 0
	}
	return a.start + full
}

// status is how the quota stands. The book has been advanced to now.
func (b *Book) status(now int64) QuotaStatus {
	s := QuotaStatus{Name: b.name, Reservations: b.holds.open(), Limits: make([]LimitStatus, len(b.limits()))}
	if b.closed() > now {
		s.ClosedUntil = b.local(b.closed())
	}
	for i := range b.limits() {
		b.describe(i, now, &s.Limits[i])
	}
	s.Today = b.today.summary(b.name, b.zone())
	return s
}

func (b *Book) zone() *time.Location {
	if b.configured == nil {
		return time.UTC
	}
	return b.configured.location
}
