package linear

import (
	"cmp"
	"math"
	"slices"
	"time"

	"github.com/anishathalye/porcupine"
)

const (
	quickly     = 150 * time.Millisecond // for each place that a call may be away from its own
	thoroughly  = 10 * quickly
	shortly     = int64(300 * time.Microsecond)
	patienceNow = 5 * time.Second // with all orders, as long as likely ones have not been looked at thoroughly
)

// check asks whether some order explains the calls. Of many calls at once there are more orders than can be tried, so
// it first takes each call for one that took effect near its place in a likely order: an order that explains this
// narrower history explains the history itself. Only where none does it has to look at all of them.
func check(events []event, limit int64) porcupine.CheckResult {
	m := model(limit)
	if likely(events, m, quickly) {
		return porcupine.Ok
	}
	if result := porcupine.CheckOperationsTimeout(m, operations(events), patienceNow); result != porcupine.Unknown {
		return result
	}
	if likely(events, m, thoroughly) {
		return porcupine.Ok
	}
	return porcupine.CheckOperationsTimeout(m, operations(events), patience)
}

// likely reports whether an order that is near a likely one explains the calls, as far as that is found out in time.
func likely(events []event, m porcupine.Model, each time.Duration) bool {
	guesses := [][]int{byCall(events), bySave(events, math.MaxInt64), bySave(events, shortly), byMiddle(events), byReturn(events)}
	for _, near := range []int{2, 5, 9} {
		for _, order := range guesses {
			within := time.Duration(near) * each
			if porcupine.CheckOperationsTimeout(m, operations(narrowed(events, order, near)), within) == porcupine.Ok {
				return true
			}
		}
	}
	return false
}

func operations(events []event) []porcupine.Operation {
	list := make([]porcupine.Operation, len(events))
	for i, e := range events {
		list[i] = porcupine.Operation{ClientId: e.Client, Input: e, Call: e.Call, Return: e.Return}
	}
	return list
}

// narrowed returns the history with each call no longer than from the place of the call that is so many places before
// it in the order to that of the one so many behind it. No call becomes longer than it was.
func narrowed(events []event, order []int, near int) []event {
	at := make([]int64, len(order)) // a time for each place: within its call, as far as the order allows
	last := int64(math.MinInt64)
	for place, i := range order {
		last = max(last, events[i].Call)
		at[place] = last
	}
	for place := len(order) - 2; place >= 0; place-- {
		// Not later than what follows has to be.
		at[place] = min(at[place], at[place+1])
	}
	list := slices.Clone(events)
	for place, i := range order {
		from, to := at[max(0, place-near)], at[min(len(at)-1, place+near)]
		e := &list[i]
		if e.Outcome == pending {
			continue // nobody has seen its end
		}
		if from > e.Return || to < e.Call {
			continue // the order is wrong about this one
		}
		e.Call, e.Return = max(e.Call, from), min(e.Return, to)
	}
	return list
}

func sorted(events []event, key func(event) int64) []int {
	order := make([]int, len(events))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(x, y int) int { return cmp.Compare(key(events[x]), key(events[y])) })
	return order
}

func byCall(events []event) []int { return sorted(events, func(e event) int64 { return e.Call }) }
func byMiddle(events []event) []int {
	return sorted(events, func(e event) int64 { return e.Call + (e.Return-e.Call)/2 })
}
func byReturn(events []event) []int { return sorted(events, func(e event) int64 { return e.Return }) }

// bySave is the likely order of calls that share saves: a save ends all its calls at nearly the same time, and had
// begun after all of them. A pause between two returns is that between two saves.
func bySave(events []event, pause int64) []int {
	save := make([]int64, len(events)) // when the first call of its save returned
	type open struct{ first, last int64 }
	saves := map[int]open{} // of each process
	for _, i := range byReturn(events) {
		e := events[i]
		s, ok := saves[e.Client/clientsOfAProcess]
		if !ok || e.Call > s.first || e.Return-s.last > pause {
			s.first = e.Return
		}
		s.last = e.Return
		saves[e.Client/clientsOfAProcess] = s
		save[i] = s.first
	}
	order := byCall(events)
	slices.SortStableFunc(order, func(x, y int) int { return cmp.Compare(save[x], save[y]) })
	return order
}
