package ledger

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"pgregory.net/rapid"

	"example.com/quota"
)

// amounts chooses what a call names: at least something.
func (m *machine) amounts(t *rapid.T, least int64) (list, []quota.Amount) {
	var l list
	var out []quota.Amount
	which := rapid.IntRange(0, 5).Draw(t, "units") // 0: none
	if which >= 3 {
		l.n[requests], l.named[requests] = rapid.Int64Range(least, 5).Draw(t, "requests"), true
		out = append(out, quota.Requests(l.n[requests]))
	}
	if which%3 != 0 {
		l.n[tokens], l.named[tokens] = rapid.Int64Range(least, 200).Draw(t, "tokens"), true
		out = append(out, quota.Tokens(l.n[tokens]))
	}
	return l, out
}

// wanted is what a quota is asked for: one request unless the call says otherwise, and the estimate.
func (m *machine) wanted(name string, l list) amounts {
	n := l.n
	if !l.named[requests] {
		n[requests] = 1
	}
	if !l.named[tokens] && name == otherName {
		n[tokens] = m.estimate
	}
	return n
}

func (m *machine) ttl(t *rapid.T) time.Duration {
	return []time.Duration{
		0, time.Minute, time.Hour, 5 * time.Hour, 30 * time.Hour, time.Nanosecond, 15 * time.Minute,
	}[rapid.IntRange(0, 6).Draw(t, "ttl")]
}

func (m *machine) reserve(t *rapid.T) {
	m.acquire(t, []string{m.name(t)}, false, 0)
}

func (m *machine) reserveAll(t *rapid.T) {
	m.acquire(t, []string{m.name(t), m.name(t), m.name(t)}, false, 0)
}

func (m *machine) reserveAny(t *rapid.T) {
	m.acquire(t, []string{m.name(t), m.name(t)}, true, 0)
}

// acquire asks for room in all of the quotas, or in the first that has it.
func (m *machine) acquire(t *rapid.T, names []string, first bool, task int) {
	l, named := m.amounts(t, 1)
	ttl := m.ttl(t)
	req := quota.Request{Amounts: named, TTL: ttl}
	if task > 0 {
		req.ID = fmt.Sprint("task ", task)
	}
	var distinct []string
	for _, name := range names {
		if !slices.Contains(distinct, name) {
			distinct = append(distinct, name)
		}
	}
	answers := make([]answer, len(distinct))
	want := yes
	for i, name := range distinct {
		one := m.models[name]
		if one == nil {
			one = m.fresh(name)
		}
		one.advance(m.now())
		answers[i] = one.admits(m.wanted(name, l))
		want = max(want, answers[i])
		if first {
			req.Any = append(req.Any, quota.Candidate{Quota: name})
		}
	}
	if first {
		want = slices.Min(answers)
	} else {
		req.All = names
	}
	if len(distinct) == 1 {
		if can := m.tracker.CanUse(distinct[0], named...); can != (want == yes) && want != either {
			t.Fatalf("%s: CanUse(%s, %v) says %v", m.at(), distinct[0], named, can)
		}
	}
	r, err := m.tracker.Acquire(context.Background(), req)
	t.Logf("%s: Acquire(all %q, any %v, %v, ID %q, TTL %v): %v", m.at(), req.All, req.Any, named, req.ID, ttl, errText(err))
	switch {
	case err != nil && !errors.Is(err, quota.ErrExceeded):
		t.Fatalf("Acquire: %v", err)
	case err != nil && want == yes:
		t.Fatalf("refused, though it fits: %v", err)
	case err == nil && want == no:
		t.Fatalf("admitted, though it does not fit: over-admission")
	case err != nil:
		return
	}
	h := &handle{r: r, id: r.ID(), task: task, holds: make(map[string]*hold), named: l, ttl: int64(ttl), names: distinct}
	if first {
		at := slices.Index(distinct, r.Quota())
		if at < 0 || answers[at] == no || slices.Contains(answers[:at], yes) {
			t.Fatalf("admitted by %s, which is not the first that has room: %v", r.Quota(), answers)
		}
		h.names = distinct[at : at+1]
	}
	if ttl == 0 {
		h.ttl = int64(m.config.ReservationTTL)
	}
	for _, name := range h.names {
		one := m.model(name)
		m.lastTouch[name] = m.latest
		h.holds[name] = one.grant(m.wanted(name, l), h.ttl, task == 0 && len(h.names) == 1)
	}
	m.checkExpiry(t, h)
	m.handles = append(m.handles, h)
	if task > 0 {
		m.tasks[task] = h
	}
}

func (m *machine) checkExpiry(t *rapid.T, h *handle) {
	expires := int64(0)
	for _, one := range h.holds {
		if expires == 0 || one.expires < expires {
			expires = one.expires
		}
	}
	if is := h.r.ExpiresAt().UnixNano(); is != expires {
		t.Fatalf("it expires %v later than it must", time.Duration(is-expires))
	}
}

// reserveTask asks with an ID: of three tasks, each with quotas of its own.
func (m *machine) reserveTask(t *rapid.T) {
	task := rapid.IntRange(1, 3).Draw(t, "task")
	names := [][]string{{plainName}, {otherName}, {plainName, otherName}}[task-1]
	last := m.tasks[task]
	if last != nil {
		for _, name := range names {
			m.model(name)
		}
		switch h := last.holds[names[0]]; {
		case h.state == open:
			m.repeat(t, last, rapid.Bool().Draw(t, "other amounts"))
			return
		case m.models[names[0]].now < m.until[task]:
			_, err := m.tracker.Acquire(context.Background(), quota.Request{All: names, ID: fmt.Sprint("task ", task)})
			t.Logf("%s: Acquire again task %d, which has been settled: %v", m.at(), task, errText(err))
			if !errors.Is(err, quota.ErrSettled) {
				t.Fatalf("task %d has been settled, a second call says %v", task, errText(err))
			}
			return
		}
	}
	m.acquire(t, names, false, task)
}

// repeat asks again for a hold that is open.
func (m *machine) repeat(t *rapid.T, last *handle, other bool) {
	req := quota.Request{All: last.names, ID: fmt.Sprint("task ", last.task)}
	for u := range units {
		if last.named.named[u] {
			req.Amounts = append(req.Amounts, quota.Amount{Unit: unitNames[u], N: last.named.n[u]})
		}
	}
	if other {
		req.Amounts = []quota.Amount{quota.Requests(7)}
	}
	r, err := m.tracker.Acquire(context.Background(), req)
	t.Logf("%s: Acquire again task %d, which is open, %v: %v", m.at(), last.task, req.Amounts, errText(err))
	switch {
	case other && !errors.Is(err, quota.ErrIDConflict):
		t.Fatalf("another request with the ID of an open one: %v", errText(err))
	case !other && err != nil:
		t.Fatalf("the same request with the ID of an open one: %v", err)
	case !other:
		copied := *last
		copied.r, copied.done = r, false
		m.handles = append(m.handles, &copied)
		m.checkExpiry(t, &copied)
	}
}

// handle chooses a handle: not one that the library need not remember any more, or that has been settled again often.
func (m *machine) handle(t *rapid.T) *handle {
	usable := make([]*handle, 0, len(m.handles))
	for _, h := range m.handles {
		if one := h.holds[h.names[0]]; m.latest-one.expires < int64(80*24*time.Hour) &&
			(one.state != settled || h.again < 2 && m.latest-one.ended < int64(50*time.Minute)) &&
			!slices.ContainsFunc(h.names, m.mayBeDropped) {
			usable = append(usable, h)
		}
	}
	if len(usable) == 0 {
		t.SkipNow()
	}
	return usable[len(usable)-1-rapid.IntRange(0, len(usable)-1).Draw(t, "handle")]
}

// holding brings the models of a handle's quotas to now.
func (m *machine) holding(h *handle) {
	for _, name := range h.names {
		m.model(name)
	}
}

func (m *machine) commit(t *rapid.T) {
	h := m.handle(t)
	l, named := m.amounts(t, 0)
	m.holding(h)
	err := h.r.Commit(context.Background(), named...)
	t.Logf("%s: Commit(%v) of what was reserved in %q until %v: %v", m.at(), named, h.names, m.when(h), errText(err))
	m.settle(t, h, err, func(one *model, hold *hold) bool { return one.commit(hold, l) })
}

func (m *machine) release(t *rapid.T) {
	h := m.handle(t)
	m.holding(h)
	for _, name := range h.names {
		if m.models[name].inDoubt(h.holds[name]) {
			t.SkipNow()
		}
	}
	err := h.r.Release(context.Background())
	t.Logf("%s: Release of what was reserved in %q until %v: %v", m.at(), h.names, m.when(h), errText(err))
	m.settle(t, h, err, (*model).release)
}

func (m *machine) when(h *handle) time.Duration {
	return time.Duration(h.holds[h.names[0]].expires - m.begin.UnixNano())
}

// settle does to the models what has been done to the library, unless the handle was settled before.
func (m *machine) settle(t *rapid.T, h *handle, err error, do func(*model, *hold) bool) {
	before := h.done
	if !h.done {
		for _, name := range h.names {
			before = do(m.models[name], h.holds[name]) || before
		}
	}
	h.done = true
	if before {
		h.again++
	} else if h.task > 0 {
		m.remember(h)
	}
	switch {
	case before && !errors.Is(err, quota.ErrSettled):
		t.Fatalf("it was settled before, a second call says %v", errText(err))
	case !before && err != nil:
		t.Fatalf("settling: %v", err)
	}
}

// remember notes that a caller's ID has been settled, unless it has been given to another that is open.
func (m *machine) remember(h *handle) {
	one := h.holds[h.names[0]]
	if last := m.tasks[h.task]; last.holds[h.names[0]].state != open {
		m.until[h.task] = max(m.until[h.task], one.ended+max(int64(time.Hour), one.ttl))
	}
}

func (m *machine) extend(t *rapid.T) {
	h := m.handle(t)
	ttl := m.ttl(t) + time.Second
	m.holding(h)
	err := h.r.Extend(context.Background(), ttl)
	t.Logf("%s: Extend(%v) of what was reserved in %q until %v: %v", m.at(), ttl, h.names, m.when(h), errText(err))
	before := h.done
	for _, name := range h.names {
		before = before || h.holds[name].state != open
	}
	if before {
		if !errors.Is(err, quota.ErrSettled) {
			t.Fatalf("it was settled before, Extend says %v", errText(err))
		}
		return
	}
	if err != nil {
		t.Fatalf("Extend: %v", err)
	}
	for _, name := range h.names {
		m.models[name].extend(h.holds[name], int64(ttl))
	}
	m.checkExpiry(t, h)
}

func (m *machine) record(t *rapid.T) {
	name := m.name(t)
	l, named := m.amounts(t, 0)
	one := m.model(name)
	err := m.tracker.RecordUsage(context.Background(), name, named...)
	t.Logf("%s: RecordUsage(%s, %v): %v", m.at(), name, named, errText(err))
	if err != nil {
		t.Fatalf("RecordUsage: %v", err)
	}
	if !l.named[requests] {
		l.n[requests], l.named[requests] = 1, true
	}
	m.lastTouch[name] = m.latest
	one.record(l)
}

func (m *machine) releaseByName(t *rapid.T) {
	name := m.name(t)
	l, named := m.amounts(t, 1)
	if len(named) == 0 {
		l.n[requests], named = 2, []quota.Amount{quota.Requests(2)}
	}
	one := m.model(name)
	err := m.tracker.Release(context.Background(), name, named...)
	t.Logf("%s: Release(%s, %v): %v", m.at(), name, named, errText(err))
	if err != nil {
		t.Fatalf("Release: %v", err)
	}
	one.releaseByName(l.n)
}

func errText(err error) string {
	switch {
	case err == nil:
		return "done"
	case errors.Is(err, quota.ErrExceeded):
		return "refused"
	}
	return err.Error()
}
