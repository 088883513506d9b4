package ledger

import (
	"context"
	"errors"
	"slices"
	"time"

	"pgregory.net/rapid"

	"example.com/quota"
)

// to moves the clock.
func (m *machine) to(t *rapid.T, at time.Time, what string) {
	m.clock.Set(at)
	t.Logf("%s: the clock %s", m.at(), what)
}

func (m *machine) pass(t *rapid.T) {
	units := []time.Duration{time.Nanosecond, time.Second, time.Minute, 10 * time.Minute, time.Hour, 6 * time.Hour, 24 * time.Hour, 9 * 24 * time.Hour}
	unit := units[rapid.IntRange(0, len(units)-1).Draw(t, "unit")]
	m.to(t, m.clock.Now().Add(unit*time.Duration(rapid.Int64Range(1, 4).Draw(t, "steps"))), "goes on")
}

// turn moves the clock to, just before or just after the end of a window.
func (m *machine) turn(t *rapid.T) {
	one := m.models[m.fixed[rapid.IntRange(0, len(m.fixed)-1).Draw(t, "quota")]]
	one.advance(m.now())
	l := one.limits[rapid.IntRange(0, len(one.limits)-1).Draw(t, "limit")]
	var end time.Time
	switch {
	case l.shape.period != nil:
		_, end = l.shape.period(time.Unix(0, one.now))
	case l.shape.kind == session && l.start != 0:
		end = time.Unix(0, l.start+l.shape.length)
	case l.shape.kind == rolling && len(one.entries) > 0:
		e := one.entries[rapid.IntRange(0, len(one.entries)-1).Draw(t, "entry")]
		end = time.Unix(0, e.granted+l.shape.length)
	default:
		t.SkipNow()
	}
	end = end.Add(time.Duration(rapid.IntRange(-1, 1).Draw(t, "off")))
	if end.Before(m.clock.Now()) {
		t.SkipNow()
	}
	m.to(t, end, "goes to a turn")
}

// toExpiry moves the clock to, just before or just after the expiry of a hold.
func (m *machine) toExpiry(t *rapid.T) {
	h := m.handle(t)
	at := time.Unix(0, h.holds[h.names[0]].expires+rapid.Int64Range(-1, 1).Draw(t, "off"))
	if at.Before(m.clock.Now()) {
		t.SkipNow()
	}
	m.to(t, at, "goes to an expiry")
}

// stepBack corrects the clock by less than a day, counted from the latest time it has shown. Of a shared state it is not
// documented whether a time that it has been looked at, but not changed, is the latest it has seen.
func (m *machine) stepBack(t *rapid.T) {
	if m.shared {
		t.SkipNow()
	}
	by := []time.Duration{1, time.Second, time.Hour, 20 * time.Hour}[rapid.IntRange(0, 3).Draw(t, "by")]
	at := m.clock.Now().Add(-by)
	if m.latest-at.UnixNano() > int64(23*time.Hour) {
		t.SkipNow()
	}
	m.to(t, at, "steps back")
}

// forward brings the clock to the latest time it has shown.
func (m *machine) forward(t *rapid.T, more time.Duration) {
	if behind := m.latest - m.now(); behind+int64(more) > 0 {
		m.to(t, m.clock.Now().Add(time.Duration(behind)+more), "goes on")
		m.latest = max(m.latest, m.now())
	}
}

// restart closes the tracker and opens another on what it has saved. What a window's turn alone has changed need not
// have been saved, so the clock is not behind.
func (m *machine) restart(t *rapid.T) {
	m.forward(t, 0)
	if err := m.tracker.Close(); err != nil {
		t.Fatalf("Close: %v", err)
	}
	for _, h := range m.handles {
		if err := h.r.Release(context.Background()); !h.done && !errors.Is(err, quota.ErrClosed) {
			t.Fatalf("Release after Close: %v", errText(err))
		}
	}
	m.open(t)
	t.Logf("%s: a restart", m.at())
	old := m.handles
	m.handles = nil
	for _, h := range old {
		m.again(t, h)
	}
}

// again looks for the hold of a handle by its ID. It is there if it is open.
func (m *machine) again(t *rapid.T, h *handle) {
	m.holding(h)
	state := h.holds[h.names[0]].state
	r, err := m.tracker.Reservation(context.Background(), h.id)
	if h.task == 0 || state == open {
		if (err == nil) != (state == open) || err != nil && !errors.Is(err, quota.ErrNoReservation) {
			t.Fatalf("Reservation of what was reserved in %q until %v says %v, it is in state %d", h.names, m.when(h), errText(err), state)
		}
	}
	if state != open {
		return
	}
	copied := *h
	copied.r, copied.done = r, false
	m.handles = append(m.handles, &copied)
	m.checkExpiry(t, &copied)
}

// find makes a second handle of an open hold.
func (m *machine) find(t *rapid.T) {
	h := m.handle(t)
	t.Logf("%s: Reservation of what was reserved in %q until %v", m.at(), h.names, m.when(h))
	m.again(t, h)
}

// change gives a limit another Max.
func (m *machine) change(t *rapid.T) {
	m.forward(t, 1)
	quotas := slices.Clone(m.quotas)
	at := rapid.IntRange(0, len(quotas)-1).Draw(t, "quota")
	q := &quotas[at]
	i := rapid.IntRange(0, len(q.Limits)-1).Draw(t, "limit")
	q.Limits = slices.Clone(q.Limits)
	to := rapid.Int64Range(0, 12).Draw(t, "max")
	if q.Limits[i].Unit == quota.UnitTokens {
		to *= 40
	}
	q.Limits[i].Max = to
	for name, one := range m.models {
		if name == q.Name || q.Name == team && !slices.Contains(m.fixed, name) {
			m.model(name)
			one.limits[i].change(to, one.now)
		}
	}
	if q.Name == team {
		m.template.limits[i].max = to
	}
	err := m.tracker.SetQuotas(context.Background(), quotas)
	t.Logf("%s: SetQuotas: %s, %s is now %d: %v", m.at(), q.Name, q.Limits[i], to, errText(err))
	if err != nil {
		t.Fatalf("SetQuotas: %v", err)
	}
	m.quotas, m.config.Quotas = quotas, quotas
}

// reset makes what a quota has used 0.
func (m *machine) reset(t *rapid.T) {
	if rapid.IntRange(0, 3).Draw(t, "really") > 0 {
		t.SkipNow()
	}
	name := m.fixed[rapid.IntRange(0, len(m.fixed)-1).Draw(t, "quota")]
	err := m.tracker.Reset(context.Background(), name)
	t.Logf("%s: Reset(%s): %v", m.at(), name, errText(err))
	if err != nil {
		t.Fatalf("Reset: %v", err)
	}
	m.model(name).reset()
}
