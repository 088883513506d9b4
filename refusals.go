package quota

import "slices"

// refusals are those that no update has saved: a refusal alone saves nothing, and is counted with the next update that
// changes something in its quota. They are kept by quota.
type refusals map[string][]refusal

// mostRefusals is in how many quotas refusals may wait; at more they are saved.
const mostRefusals = 1024

func (r refusals) add(quota string, one refusal) {
	list := r[quota]
	if at := slices.IndexFunc(list, one.like); at >= 0 {
		list[at].n += one.n
		list[at].at = max(list[at].at, one.at)
		return
	}
	r[quota] = append(list, one)
}

// settle takes off what has been saved.
func (r refusals) settle(quota string, saved []refusal) {
	if left := without(r[quota], saved); len(left) > 0 {
		r[quota] = left
	} else {
		delete(r, quota)
	}
}

// without returns a copy of list with so many taken off.
func without(list, off []refusal) []refusal {
	left := slices.Clone(list)
	for i := range left {
		if at := slices.IndexFunc(off, left[i].like); at >= 0 {
			left[i].n -= off[at].n
		}
	}
	return slices.DeleteFunc(left, func(one refusal) bool { return one.n <= 0 })
}

// denied counts refusals that no update has counted. They are saved when they have become many.
func (s *shared) denied(list []refused) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, one := range list {
		s.refusals.add(one.quota, one.refusal)
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
func (s *shared) unsaved(quota string) []refusal {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.refusals[quota])
}

// showRefusals counts in a book that is shown the refusals that have not been saved, but for those it has already.
func (s *shared) showRefusals(b *Book, rules func() *rules, has []refusal) {
	list := without(s.unsaved(b.name), has)
	if len(list) == 0 {
		return
	}
	r, now, marked := rules(), s.tracker.bookTime(), b.marked(s.tracker.writer)
	for _, one := range list {
		if one.batch == 0 || one.batch > marked { // else it is there
			b.refuse(r, one, now)
		}
	}
}

// recount puts the refusals of before into the books that the transaction has, but for those that an update has left there
// which failed all the same. They stay there if it changes anything.
func (b *updating) recount() {
	b.outdated, b.historic = make(refusals), make(refusals)
	for name, list := range b.refusals {
		p := b.pages[name]
		for _, one := range list {
			if one.batch != 0 && one.batch <= p.marked {
				continue
			}
			fate := p.book.refuse(p.rules, one, b.now)
			switch {
			case fate == nowhere:
				b.outdated[name] = append(b.outdated[name], one)
			case fate == inHistory || slices.ContainsFunc(b.historic[name], one.sameDay): // the first has brought the day along
				b.historic[name] = append(b.historic[name], one)
			}
		}
	}
}

// count has the refusals saved, those of before and of this batch.
func (b *updating) count() {
	b.counted = true
	for name := range b.refusals {
		b.pages[name].book.changed = true
	}
	for _, c := range b.calls {
		if op, ok := c.op.(refuser); ok {
			for _, one := range op.refusals() {
				p := b.pages[one.quota]
				p.book.refuse(p.rules, one.refusal, b.now)
				p.book.changed = true
			}
		}
	}
}

// doubtRefusals notes what became of the refusals when the update has failed: they may stand in the books all the same,
// which the mark of the update will show. Those of past days it forgets: the history is written before the state, and they
// may have been counted there. Once more would be wrong, once less is what a crash does too.
func (b *updating) doubtRefusals() {
	if b.pages == nil {
		return // the store was not reached
	}
	s := b.shared
	s.mu.Lock()
	defer s.mu.Unlock()
	for name, list := range b.refusals {
		s.refusals.settle(name, list)
		for _, one := range without(list, b.historic[name]) {
			if last := b.pages[name].marked; one.batch == 0 || one.batch > last {
				one.batch = b.number
			} else {
				one.batch = last
			}
			s.refusals.add(name, one)
		}
	}
}

// settleRefusals forgets the refusals that have been saved and remembers those that have not.
func (b *updating) settleRefusals() {
	s := b.shared
	saved := b.outdated
	if b.counted {
		saved, b.refusals = b.refusals, nil
	}
	s.mu.Lock()
	for name, list := range saved {
		s.refusals.settle(name, list)
	}
	s.mu.Unlock()
	if b.counted {
		return
	}
	for _, c := range b.calls {
		if op, ok := c.op.(refuser); ok && len(op.refusals()) > 0 {
			s.denied(op.refusals())
		}
	}
}
