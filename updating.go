package quota

import (
	"context"
	"fmt"
	"slices"
)

// updating is one update of the store. What apply finds out is made anew each time it runs.
type updating struct {
	shared     *shared
	calls      []*call
	names      []string
	number     uint64
	everything bool
	flush      bool
	refusals   []counted

	now     int64
	books   map[string]*Book
	due     []Alert
	counted bool // the refusals have gone into the books
}

type counted struct {
	refused
	n int64
}

// apply runs every call on the books of the transaction.
func (b *updating) apply(tx *Tx) error {
	t := b.shared.tracker
	b.now, b.due, b.counted = nanos(tx.Now), nil, false
	if tx.Now.IsZero() {
		b.now = t.now()
	} else {
		b.shared.ahead.Store(b.now - t.now())
	}
	b.books = make(map[string]*Book, len(b.names))
	pages := make(map[string]*page, len(b.names))
	for _, name := range b.names {
		book := tx.Books[name]
		if book == nil {
			book = &Book{}
		}
		book.name, book.changed = name, false
		e := t.entryOf(name)
		b.books[name] = book
		pages[name] = &page{entry: e, book: book}
	}
	for name, book := range tx.Books {
		if b.books[name] == nil && book != nil {
			book.name = name
			b.books[name] = book
		}
	}
	for _, c := range b.calls {
		b.run(c, pages)
	}
	changed := b.flush
	for _, p := range pages {
		changed = changed || p.book.changed
	}
	if changed {
		b.count(pages)
	}
	for name, p := range pages {
		b.close(tx, name, p, changed)
	}
	return nil
}

// run applies one call, unless an update whose outcome was not known has applied it already.
func (b *updating) run(c *call, pages map[string]*page) {
	names := c.op.quotas()
	if len(names) == 0 {
		return
	}
	if c.batch != 0 && b.books[names[0]].applied(b.shared.tracker.writer, c.batch) {
		return
	}
	at := b.now
	if c.batch != 0 {
		at = min(at, c.at)
	} else {
		c.at = at
	}
	opened := make([]page, len(names))
	for i, name := range names {
		p := pages[name]
		// What is replayed keeps its time, but must not pass for a clock that has stepped back.
		p.now = p.book.advance(rulesOf(p.entry), max(at, min(p.book.clock, b.now)))
		opened[i] = *p
	}
	c.op.apply(opened, at)
}

func rulesOf(e *entry) *rules {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.rules
}

// count puts the refusals, of before and of this batch, into the books that the transaction has.
func (b *updating) count(pages map[string]*page) {
	b.counted = true
	for _, one := range b.refusals {
		if p := pages[one.quota]; p != nil {
			p.book.advance(rulesOf(p.entry), b.now)
			for range one.n {
				p.book.today.deny(one.by)
			}
			p.book.changed = true
		}
	}
	for _, c := range b.calls {
		if op, ok := c.op.(refuser); ok {
			for _, one := range op.refusals() {
				pages[one.quota].book.today.deny(one.by)
				pages[one.quota].book.changed = true
			}
		}
	}
}

// close decides what becomes of a book.
func (b *updating) close(tx *Tx, name string, p *page, changed bool) {
	t := b.shared.tracker
	if len(p.book.outbox) > 0 && (changed || len(b.shared.unsure) > 0) && t.delivers() {
		b.due = append(b.due, p.book.claimed(t.writer, b.shared.unsure)...) // before it claims new ones
		b.due = append(b.due, p.book.claim(t.writer, b.now)...)
	}
	switch {
	case p.book.configured == nil:
	case p.book.configured.template && p.book.blank() && tx.Books[name] != nil:
		delete(tx.Books, name)
	case p.book.changed && !p.book.untouched():
		p.book.mark(t.writer, b.number, b.now)
		tx.Books[name] = p.book
	}
	if until := instant(p.book.nextTurn()); !until.IsZero() && (tx.Until.IsZero() || until.Before(tx.Until)) {
		tx.Until = until
	}
}

// install shows in the entries what the update has left.
func (b *updating) install() {
	t := b.shared.tracker
	for name, book := range b.books {
		e := t.entries.find(name)
		if e == nil {
			e = t.entryOf(name)
		}
		changed, saturated := book.changed, book.today.saturated
		book.today.saturated = false
		book.changed = false
		e.mu.Lock()
		e.book, e.seen, e.fetched = book, 0, t.now()
		e.installs++
		t.undelivered.look(book, t.writer)
		if !b.counted {
			b.shared.showRefusals(e)
		}
		if e.nextDue() != 0 {
			t.timer.consider(e)
		}
		e.mu.Unlock()
		if saturated {
			go t.logSaturation(name) // its handler may ask for the update that comes next
		}
		if changed { // a waiter that was refused again must not wake itself
			t.waiters.wake(name)
		}
	}
	b.settleRefusals()
	t.alerts.claim(b.due, false)
	for _, alert := range b.due {
		b.shared.unsure = slices.DeleteFunc(b.shared.unsure, func(id string) bool { return id == alert.ID })
	}
}

// settleRefusals forgets the refusals that have been saved and remembers those that have not.
func (b *updating) settleRefusals() {
	b.shared.mu.Lock()
	if b.counted {
		for _, one := range b.refusals {
			if !slices.Contains(b.names, one.quota) {
				continue
			}
			if b.shared.refusals[one.refused] -= one.n; b.shared.refusals[one.refused] <= 0 {
				delete(b.shared.refusals, one.refused)
			}
		}
	}
	b.shared.mu.Unlock()
	if b.counted {
		return
	}
	for _, c := range b.calls {
		op, ok := c.op.(refuser)
		if !ok || len(op.refusals()) == 0 {
			continue
		}
		b.shared.denied(op.refusals())
		for _, one := range op.refusals() {
			e := b.shared.tracker.entryOf(one.quota)
			e.mu.Lock()
			e.book.today.deny(one.by)
			e.mu.Unlock()
		}
	}
}

// showRefusals counts in an entry's book, whose lock is held, the refusals that have not been saved.
func (s *shared) showRefusals(e *entry) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for one, n := range s.refusals {
		if one.quota == e.name {
			for range n {
				e.book.today.deny(one.by)
			}
		}
	}
}

// keep goes on in memory after an update that failed: what has happened counts, and goes out with the next update.
func (b *updating) keep(err error) {
	s, t := b.shared, b.shared.tracker
	s.keeping.Add(1) // from here on nothing that is read from the store takes the place of what the entries know
	for _, alert := range b.due {
		s.unsure = insertNames(s.unsure, []string{alert.ID})
	}
	before := len(s.kept)
	for i, c := range b.calls {
		if i < before {
			if c.batch == 0 {
				c.batch = b.number
			}
			continue
		}
		switch op := c.op.(type) {
		case *acquisition:
			c.err = notSaved(err)
			// Whether it has joined another's is not known: that one stays, at worst until it expires.
			if op.granted {
				s.kept = append(s.kept, &call{op: op.undo(), at: c.at})
			}
			op.granted, op.existing = false, nil
			continue
		case *searching, *rereading:
			c.err = fmt.Errorf("quota: reading the state: %w", err)
			continue
		}
		if !lasting(c.op) {
			c.err = notSaved(err)
			continue
		}
		if t.applyHere(c) {
			c.batch = b.number
			c.err = pending(context.Background(), err)
			s.kept = append(s.kept, &call{op: again(c.op), at: c.at, batch: b.number})
		}
	}
	s.keeping.Store(int64(len(s.kept)))
	if len(s.kept) > 0 {
		t.cfg.Logger.Error("quota: saving failed, usage is kept in memory", "error", err, "calls", len(s.kept))
		s.retry()
	}
}

// applyHere applies a call to the entries. It reports whether that has changed anything.
func (t *QuotaTracker) applyHere(c *call) bool {
	var few [4]page
	pages := t.open(few[:0], c.op.quotas())
	if c.at == 0 {
		c.at = t.bookTime()
	}
	before := make([]bool, len(pages))
	for i := range pages {
		before[i], pages[i].book.changed = pages[i].book.changed, false
	}
	c.op.apply(pages, c.at)
	changed := false
	for i := range pages {
		changed = changed || pages[i].book.changed
		pages[i].book.changed = pages[i].book.changed || before[i]
		t.timer.consider(pages[i].entry)
		t.waiters.wake(pages[i].entry.name)
		pages[i].entry.mu.Unlock()
	}
	return changed
}

// again returns an operation to apply again, that shares no result with the one whose caller looks at it.
func again(op operation) operation {
	if settling, ok := op.(*settling); ok {
		copied := *settling
		return &copied
	}
	return op
}
