package quota

import (
	"fmt"
	"math"
	"math/bits"
	"slices"
)

// amounts are what a call names or a hold has set aside, each unit once. The units with a meaning of their own have a
// place, so that nothing on the way of a call compares text; units of a caller's own are in a list. The zero value names
// nothing. Copies share other, which is therefore replaced, never changed.
type amounts struct {
	known [places]int64 // of tokens, where only their parts are named, what those add up to
	named placeSet
	sums  placeSet // what is named, and tokens where only their parts are
	other []Amount
}

// A place is where amounts keep a unit.
type place uint8

const (
	atRequests place = iota
	atTokens
	atInput
	atOutput
	atUSD
	elsewhere // a unit of a caller's own
	places    = int(elsewhere)
)

// A placeSet has a bit for each place.
type placeSet uint8

// first is the first place in a set that is not empty.
func (s placeSet) first() place { return place(bits.TrailingZeros8(uint8(s))) }

const (
	parts     placeSet = 1<<atInput | 1<<atOutput // of tokens
	anyTokens          = 1<<atTokens | parts
)

// place returns where amounts keep the unit.
func (u Unit) place() place {
	switch u {
	case UnitRequests:
		return atRequests
	case UnitTokens:
		return atTokens
	case UnitInputTokens:
		return atInput
	case UnitOutputTokens:
		return atOutput
	case UnitUSD:
		return atUSD
	}
	return elsewhere
}

// unit is the inverse of Unit.place.
func (p place) unit() Unit {
	return [places]Unit{UnitRequests, UnitTokens, UnitInputTokens, UnitOutputTokens, UnitUSD}[p]
}

// gather returns what a call names. It refuses what no call can mean.
func gather(list []Amount) (m amounts, err error) {
	err = m.gather(list)
	return m, err
}

// gather makes m, which names nothing, what a call names.
func (m *amounts) gather(list []Amount) error {
	for i := range list {
		unit, n := list[i].Unit, list[i].N
		at := unit.place()
		if at == elsewhere {
			if wrong := checkUnit(unit); wrong != "" {
				return fmt.Errorf("%w: %s", ErrInvalidAmount, wrong)
			}
		}
		if n < 0 {
			return fmt.Errorf("%w: %s must not be negative (or not a number)", ErrInvalidAmount, printable(string(unit)))
		}
		before, _ := m.exactly(at, unit)
		if before > math.MaxInt64-n {
			return fmt.Errorf("%w: the %s named add up to more than can be counted", ErrInvalidAmount, printable(string(unit)))
		}
		m.put(at, unit, before+n)
	}
	m.addUp()
	if m.named&parts == 0 {
		return nil
	}
	if m.has(atTokens) {
		return fmt.Errorf("%w: name tokens, or input and output tokens, not both", ErrInvalidAmount)
	}
	if m.known[atInput] > math.MaxInt64-m.known[atOutput] {
		return fmt.Errorf("%w: input and output tokens add up to more than can be counted", ErrInvalidAmount)
	}
	return nil
}

// has reports whether a unit that has a place is named.
func (m *amounts) has(at place) bool { return m.named&(1<<at) != 0 }

// exactly returns how much of the unit is named as such.
func (m *amounts) exactly(at place, unit Unit) (n int64, named bool) {
	if at != elsewhere {
		if !m.has(at) {
			return 0, false
		}
		return m.known[at], true
	}
	return m.ofOwn(unit)
}

// ofOwn is exactly for a unit of a caller's own.
func (m *amounts) ofOwn(unit Unit) (n int64, named bool) {
	for i := range m.other {
		if m.other[i].Unit == unit {
			return m.other[i].N, true
		}
	}
	return 0, false
}

// of returns how much of the unit they amount to, and whether they name it at all. Tokens are what is named as such, else
// input and output together.
func (m *amounts) of(at place, unit Unit) (n int64, named bool) {
	if at == elsewhere {
		return m.ofOwn(unit)
	}
	return m.known[at], m.sums&(1<<at) != 0
}

// addUp adds up tokens whose parts alone are named.
func (m *amounts) addUp() {
	m.sums = m.named
	if m.named&parts != 0 && !m.has(atTokens) {
		m.known[atTokens] = saturatingAdd(m.known[atInput], m.known[atOutput])
		m.sums |= 1 << atTokens
	}
}

// set names so much of a unit, in place of what was named of it.
func (m *amounts) set(at place, unit Unit, n int64) {
	m.put(at, unit, n)
	m.addUp()
}

// put is set before everything is added up.
func (m *amounts) put(at place, unit Unit, n int64) {
	if at != elsewhere {
		m.known[at] = n
		m.named |= 1 << at
		return
	}
	m.other = slices.Clone(m.other)
	for i := range m.other {
		if m.other[i].Unit == unit {
			m.other[i].N = n
			return
		}
	}
	m.other = append(m.other, Amount{unit, n})
}

// take names what from has of those places.
func (m *amounts) take(from *amounts, which placeSet) {
	for left := which; left != 0; left &= left - 1 {
		at := left.first()
		m.known[at] = from.known[at]
	}
	m.named |= which
	m.addUp()
}

// A part of amounts is so much of one unit.
type part struct {
	at   place
	unit Unit
	n    int64
}

// each visits every unit named.
func (m *amounts) each(visit func(part) bool) {
	for at := range place(places) {
		if m.has(at) && !visit(part{at, at.unit(), m.known[at]}) {
			return
		}
	}
	for i := range m.other {
		if !visit(part{elsewhere, m.other[i].Unit, m.other[i].N}) {
			return
		}
	}
}

// list returns them in the form that leaves the library.
func (m *amounts) list() []Amount {
	list := make([]Amount, 0, places)
	for one := range m.each {
		list = append(list, Amount{one.unit, one.n})
	}
	return slices.Clip(list)
}

// flat returns them with all tokens added up where only their parts are named.
func (m *amounts) flat() amounts {
	all := *m
	all.named = m.sums
	return all
}

// empty reports whether they name nothing.
func (m *amounts) empty() bool { return m.named == 0 && len(m.other) == 0 }

// same reports whether both name the same.
func (m *amounts) same(other *amounts) bool {
	return m.known == other.known && m.named == other.named && slices.Equal(m.other, other.other)
}

// spent reports whether nothing is left of any unit.
func (m *amounts) spent() bool {
	for one := range m.each {
		if one.n > 0 {
			return false
		}
	}
	return true
}

// subtract takes away what less has of the units named, at most all of it.
func (m *amounts) subtract(less *amounts) {
	for one := range less.each {
		if n, named := m.exactly(one.at, one.unit); named {
			m.set(one.at, one.unit, n-min(n, one.n))
		}
	}
}
