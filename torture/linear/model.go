package linear

import (
	"cmp"
	"fmt"
	"hash/maphash"
	"slices"

	"github.com/anishathalye/porcupine"
)

// kind is what a call does to one quota, or tells of it.
type kind string

const (
	reserve    kind = "reserve"
	commit     kind = "commit"
	release    kind = "release"
	record     kind = "record"
	giveBack   kind = "release oldest"
	reset      kind = "reset"
	look       kind = "status"
	canUse     kind = "can use"
	mayReserve kind = "reserve, outcome unknown" // it may hold, until undo
	undo       kind = "undo"                     // of such a reserve, if it is before it: it has never held
)

// outcome is what the caller was told.
type outcome string

const (
	done    outcome = "done" // granted, charged, fits
	refused outcome = "refused"
	settled outcome = "settled"
	pending outcome = "pending" // it takes effect, nobody knows when
)

// An event is one call as one quota sees it.
type event struct {
	Client   int     `json:"client"`
	Kind     kind    `json:"kind"`
	Quota    int     `json:"quota"`
	Hold     int     `json:"hold,omitempty"`  // the reservation: a number of the harness's own
	Plain    bool    `json:"plain,omitempty"` // usage without a handle may use it up
	N        int64   `json:"n"`
	AsHeld   bool    `json:"as_held,omitempty"` // Commit without amounts
	Outcome  outcome `json:"outcome"`
	Seen     bool    `json:"seen,omitempty"` // Used and Reserved are what the library said
	Used     int64   `json:"used,omitempty"`
	Reserved int64   `json:"reserved,omitempty"`
	Call     int64   `json:"call"`
	Return   int64   `json:"return"`
}

func (e event) String() string {
	text := fmt.Sprintf("%d..%d client %d: %s %d", e.Call, e.Return, e.Client, e.Kind, e.N)
	if e.Hold != 0 {
		text += fmt.Sprintf(" of hold %d", e.Hold)
	}
	if e.AsHeld {
		text += " as held"
	}
	text += ": " + string(e.Outcome)
	if e.Seen {
		text += fmt.Sprintf(", %d used and %d reserved", e.Used, e.Reserved)
	}
	return text
}

// hold is an open reservation.
type hold struct {
	number int
	n      int64
}

// state is one quota with one limit. It is never changed, only copied.
type state struct {
	used   int64
	plain  []hold // oldest first
	others []hold // by number
	never  []int  // reservations that were undone before they came about, by number
}

func (s state) reserved() int64 {
	sum := int64(0)
	for _, h := range s.plain {
		sum += h.n
	}
	for _, h := range s.others {
		sum += h.n
	}
	return sum
}

func (s state) with(e event) state {
	h := hold{e.Hold, e.N}
	if e.Plain {
		s.plain = append(slices.Clip(s.plain), h)
		return s
	}
	at, _ := slices.BinarySearchFunc(s.others, h, func(x, y hold) int { return cmp.Compare(x.number, y.number) })
	s.others = slices.Insert(slices.Clone(s.others), at, h)
	return s
}

// without takes a hold out, and returns what it had left.
func (s state) without(number int) (rest state, left int64, found bool) {
	is := func(h hold) bool { return h.number == number }
	if i := slices.IndexFunc(s.plain, is); i >= 0 {
		left = s.plain[i].n
		s.plain = slices.Delete(slices.Clone(s.plain), i, i+1)
		return s, left, true
	}
	if i := slices.IndexFunc(s.others, is); i >= 0 {
		left = s.others[i].n
		s.others = slices.Delete(slices.Clone(s.others), i, i+1)
		return s, left, true
	}
	return s, 0, false
}

// shrunk takes n out of the plain holds, oldest first, or what there is.
func (s state) shrunk(n int64) state {
	s.plain = slices.Clone(s.plain)
	for n > 0 && len(s.plain) > 0 {
		part := min(n, s.plain[0].n)
		n -= part
		if s.plain[0].n -= part; s.plain[0].n == 0 {
			s.plain = s.plain[1:]
		}
	}
	return s
}

// step says what the quota is after the event, and whether it can have happened then.
func (s state) step(e event, limit int64) (bool, state) {
	fits := s.used+s.reserved()+e.N <= limit
	if e.Seen && (e.Used != s.used || e.Reserved != s.reserved()) {
		return false, s
	}
	switch e.Kind {
	case look:
		return true, s
	case canUse:
		return fits == (e.Outcome == done), s
	case reserve:
		if e.Outcome == refused {
			return !fits, s
		}
		return fits, s.with(e)
	case mayReserve:
		if at, undone := slices.BinarySearch(s.never, e.Hold); undone {
			s.never = slices.Delete(slices.Clone(s.never), at, at+1)
			return true, s
		}
		if fits {
			s = s.with(e)
		}
		return true, s
	case undo:
		rest, _, found := s.without(e.Hold)
		if !found {
			at, _ := slices.BinarySearch(s.never, e.Hold)
			rest.never = slices.Insert(slices.Clone(s.never), at, e.Hold)
		}
		return true, rest
	case commit, release:
		return s.settle(e)
	case record:
		s = s.shrunk(e.N)
		s.used += e.N
		return true, s
	case giveBack:
		return true, s.shrunk(e.N)
	case reset:
		s.used = 0
		return true, s
	}
	return false, s
}

// settle ends a hold. One that usage without a handle has used up is gone: a Commit of an amount is then further usage.
func (s state) settle(e event) (bool, state) {
	rest, left, found := s.without(e.Hold)
	further := e.Kind == commit && !e.AsHeld
	if !found && !e.Plain {
		return false, s // nobody else can have settled it
	}
	if e.Outcome != pending && (e.Outcome == settled) != (!found && !further) {
		return false, s
	}
	switch {
	case further:
		rest.used += e.N
	case e.Kind == commit && found:
		rest.used += left
	}
	return true, rest
}

var hashSeed = maphash.MakeSeed()

// model is one quota with one limit, for the checker.
func model(limit int64) porcupine.Model {
	return porcupine.Model{
		Init: func() any { return state{} },
		Step: func(s, in, _ any) (bool, any) {
			ok, next := s.(state).step(in.(event), limit)
			return ok, next
		},
		Equal: func(x, y any) bool {
			a, b := x.(state), y.(state)
			return a.used == b.used && slices.Equal(a.plain, b.plain) && slices.Equal(a.others, b.others) &&
				slices.Equal(a.never, b.never)
		},
		Hash: func(x any) uint64 {
			s := x.(state)
			var h maphash.Hash
			h.SetSeed(hashSeed)
			maphash.WriteComparable(&h, s.used)
			for _, one := range s.plain {
				maphash.WriteComparable(&h, one)
			}
			_ = h.WriteByte('|')
			for _, one := range s.others {
				maphash.WriteComparable(&h, one)
			}
			_ = h.WriteByte('|')
			for _, one := range s.never {
				maphash.WriteComparable(&h, one)
			}
			return h.Sum64()
		},
	}
}
