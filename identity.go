package quota

import (
	"context"
	"fmt"
	"maps"
	"math"
	"slices"
	"sync"
)

// openIDs remember which quotas hold the reservations with a caller's ID, or have settled them lately, so that one ID is
// not used for two reservations that have no quota in common. What they remember may be out of date: the books decide.
type openIDs struct {
	mu     sync.Mutex // protects what follows
	quotas map[string][]string
	sweep  int                      // the size at which the next sweep is due
	busy   map[string]chan struct{} // by ID: closed when the call that opens it is over
}

// enter waits until no other call of this tracker opens a reservation with the ID.
func (o *openIDs) enter(ctx context.Context, id string) (leave func(), err error) {
	for {
		o.mu.Lock()
		other, busy := o.busy[id]
		if !busy {
			break
		}
		o.mu.Unlock()
		select {
		case <-other:
		case <-ctx.Done():
			return nil, fmt.Errorf("quota: reserving: %w", ctx.Err())
		}
	}
	defer o.mu.Unlock()
	if o.busy == nil {
		o.busy = make(map[string]chan struct{})
	}
	mine := make(chan struct{})
	o.busy[id] = mine
	return func() {
		o.mu.Lock()
		delete(o.busy, id)
		o.mu.Unlock()
		close(mine)
	}, nil
}

func (o *openIDs) add(id string, quotas []string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.quotas == nil {
		o.quotas = make(map[string][]string)
	}
	names := slices.Clone(o.quotas[id]) // another one each time, by which forget knows it
	for _, name := range quotas {
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	o.quotas[id] = names
}

func (o *openIDs) of(id string) []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.quotas[id]
}

const leastSweep = 1024

// crowded returns what to look at when it has grown to twice what the last sweep left.
func (o *openIDs) crowded() map[string][]string {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.quotas) < max(leastSweep, o.sweep) {
		return nil
	}
	o.sweep = math.MaxInt // until this one is over
	return maps.Clone(o.quotas)
}

// forget removes IDs that no book knows, unless they have been added anew since they were looked at.
func (o *openIDs) forget(unknown map[string][]string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for id, names := range unknown {
		if now := o.quotas[id]; len(now) > 0 && &now[0] == &names[0] {
			delete(o.quotas, id)
		}
	}
	o.sweep = 2 * len(o.quotas)
}

// letNext lets the next call with the same ID look for what this one has opened. It is called before alerts are
// delivered, whose callback may be that call.
func (o *acquisition) letNext() {
	if o.leave == nil {
		return
	}
	if o.granted {
		o.tracker.ids.add(o.id, o.heldIn())
	}
	o.leave()
	o.leave = nil
}

// knowID adds the quotas in which the ID is open to those that are looked at, so that a conflict shows.
func (t *QuotaTracker) knowID(op *acquisition) {
	for _, name := range t.ids.of(op.id) {
		if at, found := slices.BinarySearch(op.names, name); !found {
			op.names = slices.Insert(op.names, at, name)
		}
	}
	if crowd := t.ids.crowded(); crowd != nil {
		maps.DeleteFunc(crowd, t.isKnown)
		t.ids.forget(crowd)
	}
}

// isKnown reports whether one of the books answers for an ID.
func (t *QuotaTracker) isKnown(id string, quotas []string) bool {
	return slices.ContainsFunc(quotas, func(name string) bool {
		e := t.entries.find(name)
		if e == nil {
			return false
		}
		e.mu.Lock()
		defer e.mu.Unlock()
		return e.book.knows(id)
	})
}

// knows reports whether the book answers for an ID: its reservation is open, or is remembered as settled.
func (b *Book) knows(id string) bool {
	return b.holds.called(id) != nil || b.settled().has(id, b.clock)
}

// ids visits every ID that the book answers for: those that callers have given to what is open, and those of what is settled.
func (b *Book) ids(visit func(string) bool) {
	if b.holds == nil {
		return
	}
	for id := range b.holds.byID {
		if !visit(id) {
			return
		}
	}
	for id := range b.holds.settled.until {
		if !visit(id) {
			return
		}
	}
}

// known looks for a reservation with the caller's ID.
func (o *acquisition) known(pages []page) bool {
	for i := range pages {
		b := pages[i].book
		if h := b.holds.called(o.id); h.stands(pages[i].now) {
			if o.matches(pages, h, b.name) {
				o.join(pages, h.key)
				o.existing = o.tracker.handle(h, b.name)
			} else {
				o.err = fmt.Errorf("%w: %s", ErrIDConflict, quoted(o.id))
			}
			return true
		}
	}
	for i := range pages { // one that is open anywhere comes before one that has been settled
		if pages[i].book.settled().has(o.id, pages[i].now) {
			o.err = fmt.Errorf("%w: %s", ErrSettled, quoted(o.id))
			return true
		}
	}
	return false
}

// join notes that one more call was given a reservation, so that it stays when the one that opened it gives up.
func (o *acquisition) join(pages []page, key holdKey) {
	for i := range pages {
		if h := pages[i].book.holds.find(key); h != nil {
			h.joined++
			pages[i].book.changed = true
		}
	}
}

// matches reports whether an open hold is what the request asks for: all of All and one of Any, with these amounts.
func (o *acquisition) matches(pages []page, h *hold, quota string) bool {
	holding := h.quotas
	if holding == nil {
		holding = []string{quota}
	}
	for o.chosen = len(o.asked) - 1; o.chosen >= 0; o.chosen-- {
		if o.asked[o.chosen].candidate && o.isHeld(pages, h, holding) {
			return true
		}
	}
	return !o.asked[len(o.asked)-1].candidate && o.isHeld(pages, h, holding)
}

// isHeld reports whether an open hold is what the request asks for with the candidate that is chosen.
func (o *acquisition) isHeld(pages []page, h *hold, holding []string) bool {
	wanted := 0
	for i := range o.asked {
		if !o.holds(i) {
			continue
		}
		wanted++
		one := &o.asked[i]
		if !slices.Contains(holding, one.canonical) {
			return false
		}
		held := o.page(pages, one.canonical).book.holds.called(o.id)
		if held == nil || held.key != h.key || !held.isOf(&one.named) {
			return false
		}
	}
	return wanted == len(holding)
}

// isOf reports whether a hold was granted to a call that names these amounts, whatever is estimated for such a call now.
func (h *hold) isOf(named *amounts) bool {
	asked := named.withRequest()
	for one := range asked.each {
		if n, held := h.original().exactly(one.at, one.unit); !held || n != one.n {
			return false
		}
	}
	for _, unit := range unnamed(h.original(), &asked) {
		if !slices.Contains(h.estimated, unit) {
			return false
		}
	}
	return true
}

// unnamed returns the units held that a call does not name.
func unnamed(held, named *amounts) []Unit {
	var units []Unit
	for one := range held.each {
		if _, given := named.exactly(one.at, one.unit); !given && one.at != atRequests {
			units = append(units, one.unit)
		}
	}
	return units
}
