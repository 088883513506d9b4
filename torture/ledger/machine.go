package ledger

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"pgregory.net/rapid"

	"example.com/quota"
	"example.com/quota/quotatest"
)

// A machine does the same to a tracker and to the models of its quotas.
type machine struct {
	tracker *quota.QuotaTracker
	config  quota.Config
	clock   *quotatest.Clock
	begin   time.Time
	latest  int64 // the latest time the clock has shown

	fixed     []string // quotas that are there from the beginning
	quotas    []quota.Quota
	template  *model // what a quota of the template begins as
	models    map[string]*model
	handles   []*handle
	tasks     map[int]*handle // the last of each caller's ID
	until     map[int]int64   // how long it is remembered that a caller's ID was settled
	shared    bool            // the state is a shared one
	estimate  int64           // of tokens, where a call names none
	lastTouch map[string]int64
}

// A handle is a Reservation and what the model knows of it.
type handle struct {
	r     *quota.Reservation
	id    string // as the library names it
	task  int    // the caller's ID; 0: none
	names []string
	holds map[string]*hold
	named list
	ttl   int64
	done  bool // settled by this handle
	again int  // how often it has been tried after that
}

const (
	plainName = "alpha"
	otherName = "beta"
	team      = "user:*"
)

// play is one check.
func play(t *rapid.T) {
	m := newMachine(t)
	t.Repeat(map[string]func(*rapid.T){
		"":                  m.compare,
		"reserve":           m.reserve,
		"reserve again":     m.reserve,
		"reserve all":       m.reserveAll,
		"reserve any":       m.reserveAny,
		"reserve by ID":     m.reserveTask,
		"commit":            m.commit,
		"commit again":      m.commit,
		"release":           m.release,
		"release by name":   m.releaseByName,
		"record":            m.record,
		"extend":            m.extend,
		"change a limit":    m.change,
		"reset":             m.reset,
		"let time pass":     m.pass,
		"go to a turn":      m.turn,
		"go to an expiry":   m.toExpiry,
		"step back":         m.stepBack,
		"restart":           m.restart,
		"find a hold again": m.find,
	})
	if err := m.tracker.Close(); err != nil {
		t.Fatalf("Close: %v", err)
	}
}

func newMachine(t *rapid.T) *machine {
	m := &machine{
		begin:  time.Date(2026, time.March, 10, 12, 0, 0, 0, time.UTC),
		models: make(map[string]*model), lastTouch: make(map[string]int64), tasks: make(map[int]*handle),
		until: make(map[int]int64),
	}
	m.clock = quotatest.NewClock(m.begin)
	m.latest = m.begin.UnixNano()
	m.config = quota.Config{
		Clock: m.clock, OnAlert: func(quota.Alert) {}, Logger: slog.New(slog.DiscardHandler), ReservationTTL: 15 * time.Minute,
	}
	if rapid.Bool().Draw(t, "release expired") {
		m.config.OnExpiry = quota.ReleaseExpired
	}
	how := rapid.IntRange(0, 23).Draw(t, "persistence")
	switch how {
	default: // saved when it is closed, and now and then by the clock
		m.config.Persistence, m.config.FlushInterval = &store{}, 100*time.Hour
	case 22:
		m.config.Persistence = &store{}
	case 23:
		m.config.Persistence, m.shared = &sharedStore{}, true
	}
	if rapid.Bool().Draw(t, "estimate") {
		m.estimate = 40
	}
	m.fixed = []string{plainName, otherName}
	for _, name := range []string{plainName, otherName, team} {
		q, one := m.draw(t, name)
		m.quotas = append(m.quotas, q)
		if name == team {
			m.template = one
		} else {
			m.models[name] = one
		}
	}
	m.config.Quotas = m.quotas
	t.Logf("a tracker: expiry %d, persistence %d, %s", m.config.OnExpiry, how, m.limits())
	m.open(t)
	return m
}

// draw chooses the limits of a quota.
func (m *machine) draw(t *rapid.T, name string) (quota.Quota, *model) {
	q := quota.Quota{Name: name}
	one := &model{name: name, releaseExpiry: m.config.OnExpiry == quota.ReleaseExpired, now: 0}
	all := shapes()
	for unit := range units {
		// Lifetime is always there: it sums up everything.
		chosen := []int{0}
		for range rapid.IntRange(unit^1, 3).Draw(t, "limits") {
			if at := rapid.IntRange(1, len(all)-1).Draw(t, "window"); !slices.Contains(chosen, at) {
				chosen = append(chosen, at)
			}
		}
		for _, at := range chosen {
			l := &limit{shape: all[at], unit: unit, max: rapid.Int64Range(1, 12).Draw(t, "max"), soft: at == 0}
			if unit == tokens {
				l.max *= 40
			}
			l.least = l.max
			one.limits = append(one.limits, l)
			out := quota.Limit{Unit: unitNames[unit], Max: l.max, Window: l.shape.window, Soft: l.soft}
			if unit == tokens && name == otherName && at == 0 {
				out.Estimate = m.estimate
			}
			q.Limits = append(q.Limits, out)
		}
	}
	return q, one
}

var unitNames = [units]quota.Unit{quota.UnitRequests, quota.UnitTokens}

func (m *machine) limits() string {
	var out strings.Builder
	for _, q := range m.quotas {
		fmt.Fprintf(&out, "\n    %s:", q.Name)
		for _, l := range q.Limits {
			soft := ""
			if l.Soft {
				soft = " (soft)"
			}
			fmt.Fprintf(&out, " %d %s%s,", l.Max, l, soft)
		}
	}
	return out.String()
}

func (m *machine) open(t *rapid.T) {
	tracker, err := quota.New(context.Background(), m.config)
	if err != nil {
		t.Fatalf("New: %v", err)
	}
	m.tracker = tracker
}

// model returns the model of a quota, which has seen the clock; that of a template's quota begins with its first use.
func (m *machine) model(name string) *model {
	one := m.models[name]
	if one == nil {
		one = m.fresh(name)
		m.models[name] = one
	}
	one.advance(m.now())
	return one
}

func (m *machine) fresh(name string) *model {
	one := &model{name: name, releaseExpiry: m.template.releaseExpiry}
	for _, l := range m.template.limits {
		one.limits = append(one.limits, &limit{shape: l.shape, unit: l.unit, max: l.max, soft: l.soft, least: l.max})
	}
	return one
}

func (m *machine) now() int64 { return m.clock.Now().UnixNano() }

func (m *machine) at() string { return m.clock.Now().Sub(m.begin).String() }

// mayBeDropped reports whether a quota is one of the template that may have been dropped, while the clock is behind: whether
// it still remembers a later time is not documented.
func (m *machine) mayBeDropped(name string) bool {
	return !slices.Contains(m.fixed, name) && m.now() < m.latest && m.latest-m.lastTouch[name] > int64(20*time.Hour)
}

// name chooses a quota, but none that may have been dropped.
func (m *machine) name(t *rapid.T) string {
	names := append(slices.Clone(m.fixed), "user:a", "user:b")
	name := names[rapid.IntRange(0, len(names)-1).Draw(t, "quota")]
	if m.mayBeDropped(name) {
		return plainName
	}
	return name
}

// compare asks every quota how it stands, and the ledger for its own laws.
func (m *machine) compare(t *rapid.T) {
	m.latest = max(m.latest, m.now())
	for _, name := range append([]string{plainName, otherName}, "user:a", "user:b") {
		one := m.models[name]
		status, ok := m.tracker.Status(name)
		if !ok {
			t.Fatalf("Status(%s): unknown", name)
		}
		if one == nil {
			for _, l := range status.Limits {
				if l.Used != 0 || l.Reserved != 0 {
					t.Fatalf("%s has never been used, but %s says %d used and %d reserved", name, l.Limit, l.Used, l.Reserved)
				}
			}
			continue
		}
		one.advance(m.now())
		open := 0
		for _, h := range one.holds {
			if h.state == expired || h.state == settled || h.state == usedUp {
				continue
			}
			open++
		}
		if status.Reservations != open {
			t.Fatalf("%s: %d reservations are open, must be %d", name, status.Reservations, open)
		}
		for i, l := range one.limits {
			m.compareLimit(t, one, l, status.Limits[i])
		}
	}
	if err := m.tracker.Verify(); err != nil {
		t.Fatalf("Verify: %v", err)
	}
}

func (m *machine) compareLimit(t *rapid.T, one *model, l *limit, is quota.LimitStatus) {
	want := l.balance(one)
	if !want.used.has(is.Used) || !want.reserved.has(is.Reserved) || !want.both.has(is.Used+is.Reserved) {
		t.Fatalf("%s, %s: %d used and %d reserved, must be %v and %v, together %v",
			one.name, is.Limit, is.Used, is.Reserved, want.used, want.reserved, want.both)
	}
	if is.Remaining != max(0, l.max-is.Used-is.Reserved) {
		t.Fatalf("%s, %s: %d remaining with %d used and %d reserved of %d", one.name, is.Limit, is.Remaining, is.Used, is.Reserved, l.max)
	}
	if l.shape.kind != lifetime {
		return
	}
	f := one.flow[l.unit]
	used := f.committed + f.charged + f.overrun + f.direct - f.corrected - f.cleared
	if open := f.granted - f.committed - f.released - f.charged; is.Used != used || is.Reserved != open {
		t.Fatalf("%s, %s: not conserved: %d used and %d reserved, but of all that came %d was used and %d is open: %+v",
			one.name, is.Limit, is.Used, is.Reserved, used, open, f)
	}
}
