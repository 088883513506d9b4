package quota

import "cmp"

// An expiryHeap orders open holds by when they expire. It keeps the times beside the holds, for of a million holds each one
// looked at is far away.
type expiryHeap []expiring

type expiring struct {
	expires int64
	hold    *hold
}

func (e expiryHeap) put(slot int, one expiring) {
	e[slot] = one
	one.hold.slot = slot + 1
}

// before reports whether x expires before y. Any order will do for those that expire together, as long as a copy of the
// book has the same.
func (x expiring) before(y expiring) bool {
	if x.expires != y.expires {
		return x.expires < y.expires
	}
	return cmp.Or(cmp.Compare(x.hold.granted, y.hold.granted), cmp.Compare(x.hold.key.writer, y.hold.key.writer),
		cmp.Compare(x.hold.key.number, y.hold.key.number)) < 0
}

func (e *expiryHeap) add(h *hold) {
	*e = append(*e, expiring{})
	e.up(len(*e)-1, expiring{h.expires, h})
}

func (e *expiryHeap) remove(h *hold) {
	slot, last := h.slot-1, len(*e)-1
	moved := (*e)[last]
	(*e)[last] = expiring{}
	*e = (*e)[:last]
	if h.slot = 0; slot != last {
		e.settle(slot, moved)
	}
}

// move puts a hold where it belongs after its expiry has changed.
func (e expiryHeap) move(h *hold) { e.settle(h.slot-1, expiring{h.expires, h}) }

// settle puts one at slot, or where it belongs above or below.
func (e expiryHeap) settle(slot int, one expiring) {
	if slot > 0 && one.before(e[(slot-1)/2]) {
		e.up(slot, one)
		return
	}
	e.down(slot, one)
}

func (e expiryHeap) up(slot int, one expiring) {
	for slot > 0 {
		parent := (slot - 1) / 2
		if !one.before(e[parent]) {
			break
		}
		e.put(slot, e[parent])
		slot = parent
	}
	e.put(slot, one)
}

func (e expiryHeap) down(slot int, one expiring) {
	for {
		child := 2*slot + 1
		if child >= len(e) {
			break
		}
		if child+1 < len(e) && e[child+1].before(e[child]) {
			child++
		}
		if !e[child].before(one) {
			break
		}
		e.put(slot, e[child])
		slot = child
	}
	e.put(slot, one)
}
