package ledger

// The units of the model, as indexes.
const (
	requests = iota
	tokens
	units
)

// amounts are so much of each unit.
type amounts [units]int64

func (a amounts) empty() bool { return a == amounts{} }

// A list is what a call names. A unit that is not named has 0.
type list struct {
	n     amounts
	named [units]bool
}

// A model is one quota, recomputed from all that has ever been granted, used and settled: written from the documented
// behaviour alone. What it cannot tell exactly (Rolling and Refill may be late, within bounds) it tells as bounds.
type model struct {
	name          string
	limits        []*limit
	releaseExpiry bool

	now     int64 // the latest time this quota has seen
	holds   []*hold
	entries []*entry
	flow    [units]flow
}

// A hold is what one reservation has set aside in this quota.
type hold struct {
	granted, expires, ttl int64
	plain                 bool // matching usage may use it up
	asked                 amounts
	left                  amounts // what is still set aside; of an expired one: what was charged
	state                 state
	charged               [units]*entry
	ended                 int64 // settled at
}

type state int

const (
	open    state = iota
	expired       // and may be corrected
	usedUp        // by matching usage, or given back by name
	settled
)

// An entry is an amount that was used: by a call of that grant, settled at that time.
type entry struct {
	unit        int
	n           int64
	granted, at int64
	reset       bool
	takenBack   bool // it turned out that the call never ran
}

// flow is where everything of one unit that was ever set aside has gone.
type flow struct{ granted, committed, released, charged, overrun, direct, corrected, cleared int64 }

// advance brings the quota to a time: holds that are due expire and windows turn, in the order of time. A clock that
// has stepped back a little changes nothing.
func (m *model) advance(to int64) {
	m.now = max(m.now, to)
	for {
		var due *hold
		for _, h := range m.holds {
			if h.state == open && h.expires <= m.now && (due == nil || h.expires < due.expires) {
				due = h
			}
		}
		if due == nil {
			break
		}
		m.turn(due.expires)
		m.expire(due)
	}
	m.turn(m.now)
}

func (m *model) turn(at int64) {
	for _, l := range m.limits {
		l.turn(at)
	}
}

func (m *model) expire(h *hold) {
	held := h.left
	h.state = expired
	for u, n := range held {
		if m.releaseExpiry {
			m.end(h, u, n, 0, h.expires, false)
			m.flow[u].released += n
			continue
		}
		h.charged[u] = m.end(h, u, n, n, h.expires, true)
		m.flow[u].charged += n
	}
	if m.releaseExpiry {
		m.restartSessions(h)
	}
}

// grant opens a hold.
func (m *model) grant(n amounts, ttl int64, plain bool) *hold {
	h := &hold{granted: m.now, expires: m.now + ttl, ttl: ttl, plain: plain, asked: n, left: n}
	m.holds = append(m.holds, h)
	for u, n := range n {
		m.flow[u].granted += n
		for _, l := range m.limits {
			l.begun(u, n, m.now)
		}
	}
	return h
}

// use charges so much that has no hold.
func (m *model) use(n amounts) {
	for u, n := range n {
		m.flow[u].direct += n
		m.charge(u, n, m.now)
	}
}

func (m *model) charge(u int, n, at int64) {
	if n == 0 {
		return
	}
	m.entries = append(m.entries, &entry{unit: u, n: n, granted: at, at: at})
	for _, l := range m.limits {
		l.begun(u, n, at)
	}
}

// end ends the part of a hold that has set aside that much, of which actual was used. What was used counts from the
// grant, in a budget at the settlement; only an overrun counts from now in both.
func (m *model) end(h *hold, u int, held, actual, at int64, ran bool) *entry {
	if held == 0 && actual == 0 {
		return nil
	}
	for _, l := range m.limits {
		l.refund(u, held, max(0, held-actual), h.granted, at)
	}
	var e *entry
	if ran {
		e = &entry{unit: u, n: min(held, actual), granted: h.granted, at: at}
		m.entries = append(m.entries, e)
	}
	m.charge(u, max(0, actual-held), at)
	return e
}

// commit settles a hold with what was used. It reports whether that was done before.
func (m *model) commit(h *hold, named list) (before bool) {
	actual := h.left
	for u := range actual {
		if named.named[u] {
			actual[u] = named.n[u]
		}
	}
	switch h.state {
	case settled:
		return true
	case usedUp:
		if named.named == [units]bool{} {
			return true
		}
		m.use(named.n)
		return false
	case expired:
		for u := range actual {
			m.correct(h, u, actual[u])
		}
	case open:
		for u, held := range h.left {
			m.end(h, u, held, actual[u], m.now, true)
			m.flow[u].committed += min(held, actual[u])
			m.flow[u].released += max(0, held-actual[u])
			m.flow[u].overrun += max(0, actual[u]-held)
		}
	}
	h.state, h.left, h.ended = settled, amounts{}, m.now
	return false
}

// correct makes what an expired hold was charged what it has really used: lower where the charge still stands, more now.
func (m *model) correct(h *hold, u int, actual int64) {
	charged := h.left[u]
	if m.releaseExpiry {
		charged = 0
	}
	if e := h.charged[u]; e != nil && !e.reset {
		back := max(0, charged-actual)
		for _, l := range m.limits {
			l.refund(u, charged, back, h.granted, m.now)
		}
		e.n -= back
		m.flow[u].corrected += back
	}
	m.charge(u, max(0, actual-charged), m.now)
	m.flow[u].overrun += max(0, actual-charged)
}

// release gives a hold back. It reports whether it was settled before.
func (m *model) release(h *hold) (before bool) {
	switch h.state {
	case settled, usedUp:
		return true
	case expired:
		for u := range h.left {
			m.correct(h, u, 0)
			if h.charged[u] != nil {
				h.charged[u].takenBack = true
			}
		}
		m.forgetSessions()
	case open:
		m.giveBack(h, h.left)
	}
	h.state, h.left, h.ended = settled, amounts{}, m.now
	return false
}

func (m *model) giveBack(h *hold, n amounts) {
	for u, n := range n {
		m.end(h, u, n, 0, m.now, false)
		m.flow[u].released += n
		h.left[u] -= n
	}
	m.restartSessions(h)
}

func (m *model) extend(h *hold, ttl int64) (before bool) {
	if h.state != open {
		return true
	}
	if m.now+ttl > h.expires {
		h.expires, h.ttl = m.now+ttl, ttl
	}
	return false
}

// record charges usage, which settles the plain holds that match it, oldest first.
func (m *model) record(named list) {
	rest := named.n
	counted := rest[requests] > 0
	for _, h := range m.holds {
		if h.state != open || !h.plain || counted && h.left[requests] == 0 {
			continue
		}
		if counted && rest[requests] == 0 || rest.empty() {
			break
		}
		up := counted && h.left[requests] <= rest[requests]
		for u, held := range h.left {
			part := min(held, rest[u])
			rest[u] -= part
			m.flow[u].committed += part
			if !up { // it shrinks by what was recorded
				h.left[u] -= part
				m.end(h, u, part, part, m.now, true)
				continue
			}
			if !named.named[u] { // all of it is charged as held
				m.flow[u].committed += held - part
				part = held
			}
			m.end(h, u, held, part, m.now, true)
			m.flow[u].released += held - part
		}
		if up || h.left.empty() {
			h.state, h.left = usedUp, amounts{}
		}
	}
	m.use(rest)
}

// releaseByName gives back so much of the plain holds, oldest first, or what there is.
func (m *model) releaseByName(n amounts) {
	for _, h := range m.holds {
		if h.state != open || !h.plain || n.empty() {
			continue
		}
		taken := amounts{}
		for u := range n {
			taken[u] = min(n[u], h.left[u])
			n[u] -= taken[u]
		}
		m.giveBack(h, taken)
		if h.left.empty() {
			h.state = usedUp
		}
	}
}

// reset makes used 0. Open holds stay.
func (m *model) reset() {
	for _, e := range m.entries {
		m.flow[e.unit].cleared += e.n
		e.n, e.reset = 0, true
	}
	for _, l := range m.limits {
		l.reset(m)
	}
}

// restartSessions lets a Session whose first use has been released begin with the use that is now the first, and end
// when there is none.
func (m *model) restartSessions(released *hold) {
	for _, l := range m.limits {
		if l.shape.kind != session || l.start == 0 {
			continue
		}
		if first := l.firstUse(m); first == 0 || released.granted == l.start {
			l.start = first
		}
	}
}

// inDoubt reports whether the late release of a hold would leave a Session in which there were other calls: from which of
// them on it then counts is not documented where what they used is no longer known call by call.
func (m *model) inDoubt(h *hold) bool {
	for _, l := range m.limits {
		if h.state != expired || l.shape.kind != session || l.start == 0 {
			continue
		}
		for _, other := range m.holds {
			if other.state == open && other.left[l.unit] > 0 && other.granted >= l.start {
				return true
			}
		}
		for _, e := range m.entries {
			if e.unit == l.unit && e != h.charged[l.unit] && !e.reset && !e.takenBack && e.granted >= l.start {
				return true
			}
		}
	}
	return false
}

// forgetSessions ends a Session when it turns out that none of its uses ever ran.
func (m *model) forgetSessions() {
	for _, l := range m.limits {
		if l.shape.kind == session && l.start != 0 && l.firstUse(m) == 0 {
			l.start = 0
		}
	}
}

// firstUse is when the first use of a Session's window was granted, 0 if there is none.
func (l *limit) firstUse(m *model) (first int64) {
	note := func(granted int64) {
		if granted >= l.start && (first == 0 || granted < first) {
			first = granted
		}
	}
	for _, h := range m.holds {
		if h.state == open && h.left[l.unit] > 0 {
			note(h.granted)
		}
	}
	for _, e := range m.entries {
		if e.unit == l.unit && !e.reset && !e.takenBack {
			note(e.granted)
		}
	}
	return first
}
