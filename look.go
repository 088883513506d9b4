package quota

import (
	"slices"
	"strings"
	"sync"
	"time"
)

// A Decision is the answer to a question. It is advice: only a reservation decides.
type Decision struct {
	Allowed bool        `json:"allowed"`
	Limit   LimitStatus `json:"limit"`             // refused: the limit that binds longest; allowed: the tightest one
	RetryAt time.Time   `json:"retry_at,omitzero"` // when it would fit; zero: not known (only open holds are in the way)
	Never   bool        `json:"never,omitempty"`   // larger than the limit itself: no wait helps
	Err     error       `json:"-"`                 // exactly what Reserve would return
}

// CanUse reports whether a Reserve of the same amounts would be admitted now. An unknown name or an invalid amount is
// not. Between the answer and a call others may take the room: only a reservation decides.
func (t *QuotaTracker) CanUse(name string, list ...Amount) bool {
	var wanted amounts
	e, now, err := t.ask(name, list, &wanted)
	if err != nil {
		return false
	}
	for !e.book.admits(&wanted, now) {
		if !e.behind {
			e.mu.Unlock()
			return false
		}
		e.mu.Unlock()
		now = t.viewSome(e)
	}
	admits := e.book.today.countable(&wanted)
	e.mu.Unlock()
	return admits
}

// Check is CanUse with reasons.
func (t *QuotaTracker) Check(name string, list ...Amount) Decision {
	var wanted amounts
	e, now, err := t.ask(name, list, &wanted)
	if err != nil {
		return Decision{Err: err}
	}
	for e.behind {
		e.mu.Unlock()
		now = t.viewSome(e)
	}
	defer e.mu.Unlock()
	if v := e.book.judge(&wanted, now); v.refused {
		refusal := e.book.refusal(v, now)
		limit := refusal.Limit // others may be given the same refusal
		limit.AlertThresholds, limit.AlertsFired = slices.Clone(limit.AlertThresholds), slices.Clone(limit.AlertsFired)
		return Decision{Limit: limit, RetryAt: refusal.RetryAt, Never: refusal.Never, Err: refusal}
	}
	if !e.book.today.countable(&wanted) {
		return Decision{Err: errUncountable}
	}
	d := Decision{Allowed: true}
	if tightest := e.book.tightest(); tightest >= 0 {
		d.Limit = e.book.limitStatus(tightest, now)
	}
	return d
}

// ask returns, locked, the entry that CanUse and Check ask, and fills in what of it; or what Reserve would fail with before it
// came to that, in the same order.
func (t *QuotaTracker) ask(name string, list []Amount, wanted *amounts) (e *entry, now int64, err error) {
	if e, err = t.lookup(name, false); err != nil {
		return nil, 0, err
	}
	if err := wanted.gather(list); err != nil {
		return nil, 0, err
	}
	if t.done.Load() {
		return nil, 0, ErrClosed
	}
	if t.saver != nil {
		if err := t.saver.failing(); err != nil {
			return nil, 0, notSaved(err)
		}
	}
	now = t.viewSome(e)
	e.rules.complete(wanted)
	return e, now, nil
}

// view locks an entry, brings its book to the newest state that can be had without waiting, and to now.
func (t *QuotaTracker) view(e *entry) (now int64) {
	for now = t.viewSome(e); e.behind; now = t.viewSome(e) {
		e.mu.Unlock()
	}
	return now
}

// viewSome is view that does not wait until everything due has expired.
func (t *QuotaTracker) viewSome(e *entry) (now int64) {
	if t.shared.active() {
		t.shared.freshen(e)
	}
	e.mu.Lock()
	now, e.behind = e.book.advanceSome(e.rules, t.bookTime(), t.expireAtOnce(e, manyExpire))
	return now
}

// Status returns how a quota stands; false when the name is unknown.
func (t *QuotaTracker) Status(name string) (QuotaStatus, bool) {
	e, err := t.lookup(name, false)
	if err != nil {
		return QuotaStatus{}, false
	}
	return t.status(e), true
}

func (t *QuotaTracker) status(e *entry) QuotaStatus {
	now := t.view(e)
	s := e.book.status(now)
	e.mu.Unlock()
	s.Waiting = t.waiters.in(e.name)
	return s
}

// Summary returns how the named quotas stand, or all: those configured, and those of a template that are in use. Names
// that are unknown are left out.
func (t *QuotaTracker) Summary(names ...string) Summary {
	s := Summary{At: instant(t.now()).In(t.cfg.Location), Quotas: []QuotaStatus{}}
	if t.file != nil {
		s.Recovered = t.file.recovered()
	}
	var list []*entry
	if len(names) == 0 {
		if t.shared.active() {
			t.shared.freshenAll()
		}
		list = slices.DeleteFunc(t.entries.all(), func(e *entry) bool {
			e.mu.Lock()
			defer e.mu.Unlock()
			return !e.configured.Load() || e.rules.template && e.book.untouched()
		})
	}
	for _, name := range names {
		if e, err := t.lookup(name, false); err == nil && !slices.Contains(list, e) {
			list = append(list, e)
		}
	}
	slices.SortFunc(list, func(a, b *entry) int { return strings.Compare(a.name, b.name) })
	for _, e := range list {
		s.Quotas = append(s.Quotas, t.status(e))
	}
	return s
}

// DisplayStatus returns Summary().String().
func (t *QuotaTracker) DisplayStatus() string { return t.Summary().String() }

// History returns the finished days of a quota, oldest first: the last 90 on which something happened. Quotas of a
// template have none, nor do days that a tracker ended which has the quota by a template. A day that is lived twice,
// because a clock was corrected by more than a day, keeps one summary: that of the second time.
func (t *QuotaTracker) History(name string) []DaySummary {
	e, err := t.lookup(name, false)
	if err != nil {
		return nil
	}
	t.view(e)
	finished := slices.Clone(e.book.finished())
	e.mu.Unlock()
	days := mergeDays(t.past.of(e.name), finished)
	for i := range days {
		days[i] = days[i].clone()
	}
	return days
}

// finishedDays are the finished days of every quota that are not in its book any more.
type finishedDays struct {
	tracker *QuotaTracker
	mu      sync.Mutex // protects days
	days    map[string][]DaySummary
}

// of returns those of one quota, not to be changed.
func (p *finishedDays) of(name string) []DaySummary {
	if p.tracker.file != nil && p.tracker.shared.active() {
		if days, err := p.tracker.file.history(name); err == nil {
			return days
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.days[name]
}

// take adds days that have left their books, and returns the sum: a map that nobody changes any more.
func (p *finishedDays) take(more map[string][]DaySummary) map[string][]DaySummary {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(more) == 0 {
		return p.days
	}
	merged := make(map[string][]DaySummary, len(p.days)+len(more))
	for name, days := range p.days {
		merged[name] = days
	}
	for name, days := range more {
		merged[name] = mergeDays(merged[name], days)
	}
	p.days = merged
	return merged
}
