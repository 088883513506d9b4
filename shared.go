package quota

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// shared runs a tracker's operations on a state that several trackers change at once. Operations that come while an
// update runs are applied together by the next one, on the newest books; what the entries show is what the last update
// left. Usage that could not be saved stays in the entries and goes out with the next update.
type shared struct {
	tracker *QuotaTracker
	store   SharedPersistence // nil: the state is not shared
	ctx     context.Context
	cancel  context.CancelFunc

	mu       sync.Mutex // protects what follows; taken without any other lock held
	queue    []*call
	running  bool
	idle     chan struct{} // closed when running ends
	closed   bool
	refusals map[refused]int64 // not saved yet: a refusal alone saves nothing
	disarm   func() bool       // of the timer that tries again

	kept    []*call // usage not saved yet; touched by the running update alone
	keeping atomic.Int64
	number  uint64       // of the last batch
	unsure  []string     // IDs of alerts that an update whose outcome is not known has claimed; as kept
	ahead   atomic.Int64 // by how much the store's clock is ahead of the tracker's
}

// A call is an operation on its way.
type call struct {
	op        operation
	done      chan struct{}
	err       error  // valid when done is closed
	at        int64  // when it was first applied
	batch     uint64 // with which it first went out
	finished  bool
	abandoned bool // its caller has gone
}

// shareASave is how many waiters try at once, so that they share a save.
const shareASave = 64

// updateLimit bounds one update, so that a store which never answers blocks nobody for ever.
const updateLimit = 30 * time.Second

func (s *shared) start(t *QuotaTracker, store SharedPersistence) {
	s.tracker, s.store = t, store
	s.refusals = make(map[refused]int64)
	t.waiters.atOnce = shareASave
	s.ctx, s.cancel = context.WithCancel(context.Background())
}

func (s *shared) active() bool { return s.store != nil }

// lasting reports whether an operation takes effect even when it cannot be saved: what has happened has happened.
func lasting(op operation) bool {
	switch op.(type) {
	case *acquisition, *searching, *rereading, *touch, *tending, *flushing:
		return false
	}
	return true
}

// submit runs an operation and returns when it is durable.
func (s *shared) submit(ctx context.Context, op operation) error {
	_, err := s.send(ctx, op)
	return err
}

// send is submit that also tells whether the operation is over; if not, its caller must not look at it any more.
func (s *shared) send(ctx context.Context, op operation) (over bool, err error) {
	c := &call{op: op, done: make(chan struct{})}
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		if op, ok := op.(*acquisition); ok {
			op.letNext()
		}
		return true, ErrClosed
	}
	s.enqueue(c)
	s.mu.Unlock()
	select {
	case <-c.done:
	case <-ctx.Done():
		s.mu.Lock()
		c.abandoned = !c.finished
		s.mu.Unlock()
		if c.abandoned {
			return false, s.left(ctx, op)
		}
		<-c.done
	}
	s.tracker.deliver(ctx)
	return true, c.err
}

// left is what a caller is told that does not wait for the end.
func (s *shared) left(ctx context.Context, op operation) error {
	switch op.(type) {
	case *acquisition:
		return fmt.Errorf("quota: reserving: %w", ctx.Err())
	}
	if lasting(op) {
		return pending(ctx.Err())
	}
	return ctx.Err()
}

// enqueue adds a call. s is locked.
func (s *shared) enqueue(c *call) {
	s.queue = append(s.queue, c)
	if !s.running {
		s.running, s.idle = true, make(chan struct{})
		go s.run()
	}
}

// run updates batch after batch until there is none.
func (s *shared) run() {
	for {
		rally(func() int {
			s.mu.Lock()
			defer s.mu.Unlock()
			return len(s.queue)
		})
		s.mu.Lock()
		calls := s.queue
		s.queue = nil
		if len(calls) == 0 {
			s.running = false
			close(s.idle)
			s.mu.Unlock()
			return
		}
		s.mu.Unlock()
		s.update(calls)
	}
}

// update applies calls, after what is kept from before, in one update of the store.
func (s *shared) update(calls []*call) {
	s.number++
	b := &updating{shared: s, calls: slices.Concat(s.kept, calls), number: s.number}
	inLine(b.calls)
	for _, c := range b.calls {
		if names := c.op.quotas(); names == nil {
			b.everything = b.everything || isRereading(c.op)
		} else {
			b.names = insertNames(b.names, names)
		}
		if _, ok := c.op.(*flushing); ok {
			b.flush = true
		}
	}
	b.names = insertNames(b.names, s.tracker.undelivered.due(s.tracker.now()))
	s.mu.Lock()
	for one, n := range s.refusals {
		b.refusals = append(b.refusals, counted{one, n})
		if b.flush {
			b.names = insertNames(b.names, []string{one.quota})
		}
	}
	s.mu.Unlock()
	ctx, cancel := context.WithTimeout(s.ctx, updateLimit)
	names := append([]string{}, b.names...)
	if b.everything {
		names = nil
	}
	err := s.store.Update(ctx, names, b.apply)
	cancel()
	if err == nil {
		b.install()
		s.kept = nil
		s.keeping.Store(0)
	} else {
		b.keep(err)
	}
	s.finish(calls, err == nil)
}

// inLine puts the calls of waiters among themselves in the order in which they came, so that one of them does not find
// itself behind another that comes after it in the batch.
func inLine(calls []*call) {
	var places []int
	var waiting []*call
	for i, c := range calls {
		if op, ok := c.op.(*acquisition); ok && op.line != nil {
			places, waiting = append(places, i), append(waiting, c)
		}
	}
	slices.SortFunc(waiting, func(x, y *call) int {
		return cmp.Compare(x.op.(*acquisition).line.ticket, y.op.(*acquisition).line.ticket)
	})
	for i, place := range places {
		calls[place] = waiting[i]
	}
}

func isRereading(op operation) bool {
	_, ok := op.(*rereading)
	return ok
}

// finish tells the callers. The grant of one that has gone is taken back.
func (s *shared) finish(calls []*call, saved bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range calls {
		c.finished = true
		if op, ok := c.op.(*acquisition); ok {
			op.letNext()
		}
		if op, ok := c.op.(*acquisition); ok && c.abandoned && saved {
			if undo := op.undo(); undo != nil {
				s.enqueue(&call{op: undo, done: make(chan struct{})})
			}
		}
		close(c.done)
	}
}

// retry lets what is kept go out without waiting for the next call.
func (s *shared) retry() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || s.disarm != nil {
		return
	}
	s.disarm = s.tracker.cfg.Clock.AfterFunc(pause, func() {
		s.mu.Lock()
		s.disarm = nil
		closed := s.closed
		s.mu.Unlock()
		if !closed {
			_ = s.submit(s.ctx, &flushing{}) // a failure has been logged, and arms the next try
		}
	})
}

// flushing is an operation that changes nothing, but saves what is kept and the refusals that have been counted.
type flushing struct{}

func (o *flushing) quotas() []string    { return nil }
func (o *flushing) apply([]page, int64) {}

// denied counts refusals that no update has counted.
func (s *shared) denied(list []refused) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, one := range list {
		s.refusals[one]++
	}
}

func (s *shared) flush(ctx context.Context) error {
	if err := s.submit(ctx, &flushing{}); err != nil {
		return asNotSaved(err)
	}
	return nil
}

func (s *shared) close(ctx context.Context) error {
	s.mu.Lock()
	if s.disarm != nil {
		s.disarm()
	}
	s.mu.Unlock()
	_ = s.rest(ctx)
	s.mu.Lock()
	left := len(s.refusals) > 0 || s.keeping.Load() > 0
	s.mu.Unlock()
	var err error
	if left {
		err = s.flush(ctx)
	}
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	err = errors.Join(err, s.rest(ctx))
	s.cancel()
	return err
}

// rest returns when no update runs.
func (s *shared) rest(ctx context.Context) error {
	s.mu.Lock()
	idle, running := s.idle, s.running
	s.mu.Unlock()
	if !running {
		return nil
	}
	select {
	case <-idle:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

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
		p.now = p.book.advance(rulesOf(p.entry), at)
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
	if len(p.book.outbox) > 0 && (changed || len(b.shared.unsure) > 0) && !t.opening.Load() {
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
		changed := book.changed
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
			c.err = asNotSaved(err)
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
			c.err = asNotSaved(err)
			continue
		}
		if t.applyHere(c) {
			c.batch = b.number
			c.err = pending(err)
			s.kept = append(s.kept, &call{op: c.op, at: c.at, batch: b.number})
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

// freshen brings an entry up to what others have saved: at once from a file, from a server within a moment.
func (s *shared) freshen(e *entry) {
	if s.keeping.Load() > 0 {
		return // the entry knows more than the store
	}
	t := s.tracker
	if t.file == nil {
		s.reread(e)
		return
	}
	token, known := t.file.generation()
	e.mu.Lock()
	fresh, installs := known && e.seen == token && token != 0, e.installs
	e.mu.Unlock()
	if fresh {
		return
	}
	books, token, err := t.file.peek([]string{e.name})
	if err != nil {
		return // the next update reports what is wrong
	}
	s.show(e, books[e.name], token, installs)
}

// show replaces what an entry shows, unless an update has been quicker.
func (s *shared) show(e *entry, book *Book, token, installs uint64) {
	if book == nil {
		book = &Book{}
	}
	book.name = e.name
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.installs != installs || s.keeping.Load() > 0 {
		return
	}
	e.book, e.seen = book, token
	s.tracker.undelivered.look(book, s.tracker.writer)
	s.showRefusals(e)
	if e.nextDue() != 0 {
		s.tracker.timer.consider(e)
	}
}

// freshenAll makes entries for the books that others have begun.
func (s *shared) freshenAll() {
	if s.tracker.file == nil || s.keeping.Load() > 0 {
		return
	}
	books, _, err := s.tracker.file.peek(nil)
	if err != nil {
		return
	}
	for name := range books {
		s.tracker.entryOf(name)
	}
}

// reread asks the store for the newest book, without waiting, when the entry's is older than a moment.
func (s *shared) reread(e *entry) {
	t := s.tracker
	now := t.now()
	e.mu.Lock()
	old := now-e.fetched >= int64(lookAgain) || now < e.fetched
	if old {
		e.fetched = now
	}
	e.mu.Unlock()
	if !old || t.entries.find(e.name) != e {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed {
		s.enqueue(&call{op: &searching{tracker: t, names: []string{e.name}}, done: make(chan struct{})})
	}
}
