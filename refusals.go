package quota

import "slices"

// refusals are those that no update has saved: a refusal alone saves nothing, and is counted with the next update that
// changes something in its quota. They are kept by quota.
type refusals map[string][]denial

// mostRefusals is in how many quotas refusals may wait; at more they are saved.
const mostRefusals = 1024

func (r refusals) add(quota, by string, n int64) {
	list := r[quota]
	if at := slices.IndexFunc(list, func(one denial) bool { return one.by == by }); at >= 0 {
		list[at].n += n
		return
	}
	r[quota] = append(list, denial{by, n})
}

// settle takes off what has been saved.
func (r refusals) settle(quota string, saved []denial) {
	for _, one := range saved {
		r.add(quota, one.by, -one.n)
	}
	left := slices.DeleteFunc(r[quota], func(one denial) bool { return one.n <= 0 })
	if r[quota] = left; len(left) == 0 {
		delete(r, quota)
	}
}

// denied counts refusals that no update has counted. They are saved when they have become many.
func (s *shared) denied(list []refused) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, one := range list {
		s.refusals.add(one.quota, one.by, 1)
	}
	if len(s.refusals) > mostRefusals && !s.closed && !s.flushing {
		s.flushing = true
		s.enqueue(&call{op: &flushing{}, done: make(chan struct{}), abandoned: true})
	}
}

// takeRefusals takes on the refusals of the quotas that the update is about; to flush, all.
func (b *updating) takeRefusals() {
	s := b.shared
	s.mu.Lock()
	defer s.mu.Unlock()
	if b.flush {
		s.flushing = false
		for name := range s.refusals {
			b.names = append(b.names, name)
		}
	}
	b.refusals = make(refusals)
	for _, name := range b.names {
		if list := s.refusals[name]; len(list) > 0 {
			b.refusals[name] = slices.Clone(list)
		}
	}
}

// unsaved returns the refusals of a quota that have not been saved.
func (s *shared) unsaved(quota string) []denial {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.refusals[quota])
}

// showRefusals counts in a book that is shown the refusals that have not been saved.
func (s *shared) showRefusals(b *Book) {
	for _, one := range s.unsaved(b.name) {
		b.today.deny(one.by, one.n)
	}
}

// count puts the refusals, of before and of this batch, into the books that the transaction has.
func (b *updating) count() {
	b.counted = true
	for name, list := range b.refusals {
		p := b.pages[name]
		p.now = p.book.advance(p.rules, b.now)
		for _, one := range list {
			p.book.today.deny(one.by, one.n)
			p.book.changed = true
		}
	}
	for _, c := range b.calls {
		if op, ok := c.op.(refuser); ok {
			for _, one := range op.refusals() {
				b.pages[one.quota].book.today.deny(one.by, 1)
				b.pages[one.quota].book.changed = true
			}
		}
	}
}

// settleRefusals forgets the refusals that have been saved and remembers those that have not.
func (b *updating) settleRefusals() {
	s := b.shared
	if b.counted {
		s.mu.Lock()
		for name, list := range b.refusals {
			s.refusals.settle(name, list)
		}
		s.mu.Unlock()
		return
	}
	for _, c := range b.calls {
		if op, ok := c.op.(refuser); ok && len(op.refusals()) > 0 {
			s.denied(op.refusals())
		}
	}
}
