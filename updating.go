package quota

import (
	"context"
	"fmt"
	"slices"
)

// updating is one update of the store. What apply finds out is made anew each time it runs.
type updating struct {
	shared   *shared
	calls    []*call
	names    []string
	number   uint64
	flush    bool
	refusals refusals // of before, in these quotas

	now     int64
	books   map[string]*Book
	pages   map[string]*sharedPage
	due     []Alert
	changed []string // the quotas whose books have changed
	counted bool     // the refusals have gone into the books

	outdated refusals // that count nowhere any more
	historic refusals // that count on days which only the history has
}

// A sharedPage is a page of a book that a transaction has handed out.
type sharedPage struct {
	page
	rules  *rules
	marked uint64 // the last update of this tracker that the book shows; 0: none
	opened bool   // by a call
}

// apply runs every call on the books of the transaction.
func (b *updating) apply(tx *Tx) error {
	b.begin(tx)
	recounted := false
	for _, c := range b.calls {
		if !c.kept && !recounted { // what is replayed keeps its time
			b.recount()
			recounted = true
		}
		b.run(c)
	}
	if !recounted {
		b.recount()
	}
	changed := b.flush
	for _, p := range b.pages {
		if p.opened {
			// What is replayed has left the book at its own time: what the book says holds from now on.
			p.now = p.book.advance(p.rules, b.now)
		}
		changed = changed || p.book.changed
	}
	if changed {
		b.count()
	}
	replayed := slices.ContainsFunc(b.calls, (*call).mayBeReplayed)
	for _, name := range b.names { // alerts are told in their order
		book := b.pages[name].book
		b.claim(book, changed)
		b.close(tx, name, book, replayed || b.counted && len(b.refusals[name]) > 0)
	}
	return nil
}

// begin opens the books.
func (b *updating) begin(tx *Tx) {
	t := b.shared.tracker
	b.now, b.due, b.changed, b.counted = nanos(tx.Now), nil, nil, false
	if tx.Now.IsZero() {
		b.now = t.now()
	} else {
		b.shared.ahead.Store(b.now - t.now())
	}
	b.books = make(map[string]*Book, len(b.names))
	for name, book := range tx.Books {
		if book != nil {
			book.name, book.changed = name, false
			b.books[name] = book
		}
	}
	b.pages = make(map[string]*sharedPage, len(b.names))
	for _, name := range b.names {
		if b.books[name] == nil {
			b.books[name] = &Book{name: name}
		}
		e := t.glimpse(name)
		b.pages[name] = &sharedPage{page: page{entry: e, book: b.books[name]}, rules: rulesOf(e), marked: b.books[name].marked(t.writer)}
	}
}

// run applies one call, unless an update whose outcome was not known has applied it already.
func (b *updating) run(c *call) {
	names := c.op.quotas()
	if len(names) == 0 {
		return
	}
	first, writer := b.books[names[0]], b.shared.tracker.writer
	switch {
	case c.undoes != 0 && !first.applied(writer, c.undoes):
		return
	case c.batch != 0 && first.applied(writer, c.batch):
		for _, name := range names {
			b.books[name].changed = true // it stands there, but is not known to be as safe as the store makes it
		}
		return
	}
	at := b.now
	if c.kept {
		at = min(at, c.at)
	} else {
		c.at = at
	}
	opened := make([]page, len(names))
	for i, name := range names {
		p := b.pages[name]
		// What is replayed keeps its time, but must not pass for a clock that has stepped back.
		p.now, p.opened = p.book.advance(p.rules, max(at, min(p.book.clock, b.now))), true
		opened[i] = p.page
	}
	c.op.apply(opened)
}

func rulesOf(e *entry) *rules {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.rules
}

// mayBeReplayed reports whether the call is applied again, or taken back by another that is, when nobody learns what
// became of its update. Taking a grant back needs no mark, it has a key; nor does a delivery, of which nothing is left.
func (c *call) mayBeReplayed() bool {
	switch op := c.op.(type) {
	case *acquisition:
		return op.existing != nil
	case *delivering:
		return false
	}
	return lasting(c.op)
}

// claim takes on the alerts that are due in a book.
func (b *updating) claim(book *Book, changed bool) {
	t := b.shared.tracker
	unsure := b.shared.unsure[book.name]
	if t.done.Load() {
		book.disclaim(t.writer, unsure) // nobody here will deliver them
		return
	}
	if len(book.outbox()) > 0 && (changed || len(unsure) > 0) && t.delivers() {
		b.due = append(b.due, book.claimed(t.writer, unsure)...) // before it claims new ones
		b.due = append(b.due, book.claim(t.writer, b.now)...)
	}
}

// close decides what becomes of a book. One that has changed stands under a pointer of its own afterwards.
func (b *updating) close(tx *Tx, name string, book *Book, replayed bool) {
	known := book.configured != nil // else nobody has advanced it
	switch {
	case known && book.configured.template && book.blank() && tx.Books[name] != nil:
		delete(tx.Books, name)
		b.books[name] = &Book{name: name}
		b.changed = append(b.changed, name)
		return
	case book.changed && !book.untouched():
		if replayed {
			book.mark(b.shared.tracker.writer, b.number, b.now)
		} else {
			book.unmark(b.shared.tracker.writer)
		}
		changed := *book
		tx.Books[name], b.books[name] = &changed, &changed
		b.changed = append(b.changed, name)
	}
	until := book.nextTurn()
	if known && until > b.now && (tx.Until.IsZero() || instant(until).Before(tx.Until)) {
		tx.Until = instant(until)
	}
}

// install shows in the entries what the update has left.
func (b *updating) install() {
	s, t := b.shared, b.shared.tracker
	s.installed.Add(1)
	b.settleRefusals()
	for name, book := range b.books {
		if book.today.saturated {
			book.today.saturated = false
			s.note(func() { t.logSaturation(name) })
		}
		s.showRefusals(book, func() *rules { return rulesOf(t.glimpse(name)) }, b.refusals[name])
		if t.entries.find(name) == nil && book.untouched() {
			continue // asking makes no entry
		}
		book.changed = false
		e := t.lockEntry(name)
		e.book, e.seen, e.fetched = book, 0, t.now()
		e.installs++
		t.undelivered.look(book, t.writer)
		if e.nextDue() != 0 {
			t.timer.consider(e)
		}
		e.mu.Unlock()
	}
	for _, name := range b.changed { // a waiter that was refused again must not wake itself
		t.waiters.wake(name)
	}
	t.alerts.claim(b.due, false)
}

// keep goes on in memory after an update of that number has failed, or was not tried (0): what has happened counts, and
// goes out with the next update. A call that lasts is kept also where it has changed nothing here, for the store may
// know more; it is over only where the answer can be no other later.
func (s *shared) keep(calls []*call, number uint64, due []Alert, err error) {
	s.keeping.Add(1) // from here on nothing that is read from the store takes the place of what the entries know
	for _, alert := range due {
		if s.unsure == nil {
			s.unsure = make(map[string][]string)
		}
		s.unsure[alert.Quota] = insertNames(s.unsure[alert.Quota], []string{alert.ID})
		s.doubtful.Store(true)
	}
	if number != 0 { // else the store was not asked, and there may be very many
		for _, c := range s.kept {
			if c.batch == 0 {
				c.batch = number
			}
		}
	}
	for _, c := range calls {
		switch op := c.op.(type) {
		case *acquisition:
			c.err = notSaved(err)
			if undo := op.undo(); undo != nil {
				back := &call{op: undo, at: c.at, kept: true}
				if op.existing != nil {
					back.undoes = number // another's reservation, of which it may have no part
				}
				s.kept = append(s.kept, back)
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
		s.tracker.applyHere(c, number)
		if op, ok := c.op.(*settling); ok && op.settled {
			continue // ErrSettled, whatever is saved
		}
		c.err = pending(context.Background(), err)
		s.kept = append(s.kept, &call{op: again(c.op), at: c.at, batch: number, kept: true})
	}
	s.keeping.Store(int64(len(s.kept)))
	if len(s.kept) > 0 {
		s.retry()
	}
}

// applyHere applies a call of an update that has failed to the entries. What somebody has looked up in a file before its
// last step failed has it already.
func (t *QuotaTracker) applyHere(c *call, number uint64) {
	var few [4]page
	pages := t.open(few[:0], c.op.quotas())
	if c.at == 0 {
		c.at = t.bookTime()
	}
	var without []page
	for _, p := range pages {
		if number == 0 || !p.book.applied(t.writer, number) {
			without = append(without, p)
		}
	}
	if len(without) > 0 {
		c.op.apply(without)
	}
	if op, ok := c.op.(*settling); ok && len(without) < len(pages) {
		op.settled = false // elsewhere it took effect
	}
	for _, p := range pages {
		t.timer.consider(p.entry)
		t.waiters.wake(p.entry.name)
		p.entry.mu.Unlock()
	}
}

// again returns an operation to apply again, that shares no result with the one whose caller looks at it.
func again(op operation) operation {
	if settling, ok := op.(*settling); ok {
		copied := *settling
		return &copied
	}
	return op
}
