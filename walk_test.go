package quota

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// A modelCall is what a model of a book knows of one reservation.
type modelCall struct {
	key     holdKey
	granted int64
	expires int64
	held    []Amount
	open    bool
	late    bool // it has expired and may be corrected
	charged int64
	entries []*modelEntry // its charges that a correction may lower
}

// A modelEntry is an amount that was charged: at the time of the settlement to budgets, at that of the grant to rates.
type modelEntry struct {
	unit        Unit
	n           int64
	granted, at int64
	overrun     int64 // more than was held: charged to the window of the settlement
}

// A model recomputes balances from all that has ever been granted and settled.
type model struct {
	calls   []*modelCall
	entries []*modelEntry
}

func sameWindow(w Window, a, b int64) bool {
	start, end := w.period(b, time.UTC)
	return a >= start && a < end
}

// balance is what an account must say at a time.
func (m *model) balance(w Window, unit Unit, now int64) (used, reserved int64) {
	counts := func(granted, settled int64) bool {
		switch w.kind {
		case kindLifetime:
			return true
		case kindEvery:
			return sameWindow(w, granted, now)
		case kindRolling:
			slice := max(1, int64(w.length)/slicesPerWindow)
			return granted-granted%slice > now-int64(w.length)-slice
		default:
			return sameWindow(w, settled, now)
		}
	}
	for _, c := range m.calls {
		if c.open && (w.budget() || w.kind == kindInFlight || counts(c.granted, 0)) {
			n, _ := count(c.held, unit)
			reserved += n
		}
	}
	if w.kind == kindInFlight {
		return 0, reserved
	}
	for _, e := range m.entries {
		if e.unit != unit {
			continue
		}
		if counts(e.granted, e.at) {
			used += e.n
		}
		if counts(e.at, e.at) {
			used += e.overrun
		}
	}
	return used, reserved
}

func (m *model) charge(c *modelCall, unit Unit, held, actual, granted, now int64) {
	e := &modelEntry{unit: unit, n: min(held, actual), granted: granted, at: now, overrun: max(0, actual-held)}
	m.entries = append(m.entries, e)
	if c != nil {
		c.entries = append(c.entries, e)
	}
}

// expire charges what is due, in the order of time.
func (m *model) expire(now int64) {
	due := slices.DeleteFunc(slices.Clone(m.calls), func(c *modelCall) bool { return !c.open || c.expires > now })
	slices.SortStableFunc(due, func(x, y *modelCall) int { return int(min(1, max(-1, x.expires-y.expires))) })
	for _, c := range due {
		c.open, c.late, c.charged = false, true, c.expires
		for _, amount := range c.held {
			m.charge(c, amount.Unit, amount.N, amount.N, c.granted, c.expires)
		}
	}
}

// settle ends a call with what was used of each unit held.
func (m *model) settle(c *modelCall, actual []Amount, now int64) {
	for i, amount := range c.held {
		n, _ := count(actual, amount.Unit)
		if c.late {
			// What was charged is lowered wherever it still counts; more than that is charged now.
			c.entries[i].n = min(c.entries[i].n, n)
			m.charge(nil, amount.Unit, 0, max(0, n-amount.N), now, now)
		} else {
			m.charge(nil, amount.Unit, amount.N, n, c.granted, now)
		}
	}
	c.open, c.late = false, false
}

var walkWindows = []Window{
	Daily(nil), Weekly(nil, time.Wednesday), Monthly(nil, 28), Lifetime(), InFlight(), Every(time.Hour), Every(24 * time.Hour),
	Rolling(2 * time.Hour), Rolling(26 * time.Hour),
}

func TestARandomWalkOverABookKeepsItsBalances(t *testing.T) {
	rng := random(t)
	var limits []Limit
	for _, window := range append(slices.Clone(walkWindows), Refill(time.Hour), Session(3*time.Hour)) {
		limits = append(limits, Limit{Max: 400, Window: window, Soft: window == Lifetime()},
			Limit{Unit: UnitTokens, Max: 40000, Window: window, Soft: window == Lifetime()})
	}
	l := newLedger(t, limits...)
	m := &model{}
	granted, refused := 0, 0
	var trace []string
	for step := range Rounds(2000) {
		switch rng.IntN(6) {
		case 0:
			l.to(l.at - rng.Int64N(day)) // the clock steps back: the book's time stands still
		case 1:
			l.to(max(l.now, l.at) + rng.Int64N(hour))
		default:
			l.to(max(l.now, l.at) + rng.Int64N(4*minute))
		}
		m.expire(l.at)
		list := []Amount{Requests(1 + rng.Int64N(9)), Tokens(rng.Int64N(900))}
		what := ""
		switch op := rng.IntN(20); {
		case op < 9:
			what = fmt.Sprint("reserve ", list)
			fits := true
			for _, limit := range limits {
				n, _ := count(list, limit.unit())
				if used, reserved := m.balance(limit.Window, limit.unit(), l.at); n > limit.Max-used-reserved {
					fits = fits && (limit.Soft || !slices.Contains(walkWindows, limit.Window))
				}
			}
			ttl := 1 + rng.Int64N(int64(1)<<(40+rng.IntN(9)))
			key, ok := l.reserve(ttl, list...)
			if !fits {
				require.False(t, ok, "admitted too much")
			}
			if !ok {
				refused++
				break
			}
			granted++
			h := l.book.holds.find(key)
			m.calls = append(m.calls, &modelCall{key: key, granted: l.at, expires: h.expires, held: list, open: true})
		case op < 16 && len(m.calls) > 0:
			c := m.calls[rng.IntN(len(m.calls))]
			if rng.IntN(2) == 0 {
				c = m.calls[max(0, len(m.calls)-1-rng.IntN(10))]
			}
			if l.book.holds.find(c.key) == nil && l.book.holds.findLate(c.key) == nil {
				c.late = false // settled, or long forgotten
				require.True(t, l.release(c.key))
				break
			}
			what = fmt.Sprint("settle ", c.key.number, c.late, list)
			if rng.IntN(4) == 0 {
				require.False(t, l.release(c.key))
				m.settle(c, nil, l.at)
			} else {
				require.False(t, l.commit(c.key, list...))
				m.settle(c, list, l.at)
			}
		case op == 16:
			what = "use"
			l.book.use(amounting(list...), l.at)
			for _, amount := range list {
				m.charge(nil, amount.Unit, amount.N, amount.N, l.at, l.at)
			}
		case op == 17 && len(m.calls) > 0:
			c := m.calls[len(m.calls)-1]
			if expires, settled := l.book.extend(l.settlement(c.key), hour, l.at); !settled {
				c.expires = expires
			}
		case op == 18 && rng.IntN(10) == 0:
			what = "reset"
			l.book.reset(l.at)
			for _, e := range m.entries {
				e.n, e.overrun = 0, 0
			}
		case op == 19 && rng.IntN(4) == 0:
			what = "reload"
			l.reload()
		case op == 19:
			l.book = l.book.clone()
		}
		l.verify()
		trace = append(trace, fmt.Sprint(step, " ", l.at-noon, " ", what))
		for i, a := range l.book.limits() {
			if slices.Contains(walkWindows, a.window) {
				used, reserved := m.balance(a.window, a.unit, l.at)
				if used != a.used || reserved != a.reserved {
					t.Log(trace[max(0, len(trace)-5):])
				}
				require.Equal(t, []int64{used, reserved}, []int64{a.used, a.reserved}, "step %d: %s %d", step, a.text, i)
			}
		}
	}
	require.Greater(t, granted, Rounds(100))
	require.Greater(t, refused, Rounds(50))
}

// count is how much of a unit a list names.
func count(list []Amount, unit Unit) (n int64, named bool) {
	for _, amount := range list {
		switch {
		case amount.Unit == unit:
			return amount.N, true
		case unit == UnitTokens && (amount.Unit == UnitInputTokens || amount.Unit == UnitOutputTokens):
			n, named = n+amount.N, true
		}
	}
	return n, named
}
