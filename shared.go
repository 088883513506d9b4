package quota

import (
	"cmp"
	"context"
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

	mu       sync.Mutex // protects what follows; taken while an entry is locked, never the other way round
	queue    []*call
	running  bool
	idle     chan struct{} // closed when running ends
	closed   bool
	refusals refusals
	flushing bool        // a flush is on its way because they are many
	disarm   func() bool // of the timer that tries again
	notes    []func()    // to be logged
	noting   bool        // somebody does it

	asked      map[string]struct{} // names without an entry that somebody has asked for since askedSince
	askedSince int64
	lookedAt   int64 // when all books were last asked for

	// Touched by the running update alone.
	rally    rally               // of the queue; who joins that counts in come
	searched int64               // when all books were last looked through for alerts that nobody delivers
	books    int64               // how many there were, as far as anybody has looked
	kept     []*call             // usage not saved yet, in order
	number   uint64              // of the last batch
	unsure   map[string][]string // by quota: IDs of alerts that updates whose outcome is not known have claimed
	failure  error               // of the last update; nil: it has succeeded
	failedAt int64
	loggedAt int64

	noted     atomic.Bool   // there are notes, to look at without the lock
	keeping   atomic.Int64  // len(kept), or 1 more
	doubtful  atomic.Bool   // whether anything is unsure
	installed atomic.Uint64 // how many updates have succeeded
	ahead     atomic.Int64  // by how much the store's clock is ahead of the tracker's
}

// A call is an operation on its way.
type call struct {
	op        operation
	done      chan struct{}
	err       error  // valid when done is closed
	at        int64  // when it was first applied
	kept      bool   // since then
	batch     uint64 // with which it first went out in vain; 0: not yet
	undoes    uint64 // the batch without which there is nothing to take back; 0: it is known by its key
	finished  bool
	abandoned bool // its caller has gone, or there is none
}

// shareASave is how many waiters try at once, so that they share a save.
const shareASave = 64

const (
	updateLimit = 30 * time.Second // bounds one update, so that a store which never answers blocks nobody for ever
	muchKept    = 1000             // with so many calls kept the store is not asked at every further one
)

func (s *shared) start(t *QuotaTracker, store SharedPersistence) {
	s.tracker, s.store = t, store
	s.refusals, s.searched = make(refusals), t.now() // New looks by itself
	t.waiters.atOnce = shareASave
	s.ctx, s.cancel = context.WithCancel(context.Background())
	if t.file != nil {
		t.file.logLater(s.note)
	}
}

func (s *shared) active() bool { return s.store != nil }

// lasting reports whether an operation takes effect even when it cannot be saved: what has happened has happened. A Reset
// is a wish: later it would undo what others have used in the meantime.
func lasting(op operation) bool {
	switch op.(type) {
	case *acquisition, *searching, *rereading, *touch, *tending, *flushing, *resetting, *renewing:
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
	over, err = s.dispatch(ctx, op)
	if over {
		s.tracker.deliver(ctx)
	}
	return over, err
}

// dispatch is send that leaves it to its caller to deliver alerts.
func (s *shared) dispatch(ctx context.Context, op operation) (over bool, err error) {
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
	s.tell()
	return true, c.err
}

// left is what a caller is told that does not wait for the end.
func (s *shared) left(ctx context.Context, op operation) error {
	switch op.(type) {
	case *acquisition:
		return fmt.Errorf("quota: reserving: %w", ctx.Err())
	}
	if lasting(op) {
		return pending(ctx, ctx.Err())
	}
	return fmt.Errorf("quota: waiting for the store: %w", ctx.Err())
}

// enqueue adds a call. s is locked.
func (s *shared) enqueue(c *call) {
	s.queue = append(s.queue, c)
	s.rally.come.Store(int64(len(s.queue)))
	if !s.running {
		s.running, s.idle = true, make(chan struct{})
		go s.run()
	}
}

// run updates batch after batch until there is none.
func (s *shared) run() {
	for {
		s.rally.wait()
		s.mu.Lock()
		calls := s.queue
		s.queue, s.rally.expected = nil, 0
		s.rally.come.Store(0)
		if len(calls) == 0 {
			s.running = false
			close(s.idle)
			s.mu.Unlock()
			return
		}
		s.mu.Unlock()
		begun := time.Now()
		s.batch(calls)
		s.rally.took = time.Since(begun)
		if s.tracker.file != nil {
			s.tracker.file.free()
		}
	}
}

// batch serves calls together. Those that read everything have an update of their own, so that a server need not keep
// everybody from all books while something is written.
func (s *shared) batch(calls []*call) {
	reading := slices.ContainsFunc(calls, isRereading)
	var looks []*call
	if reading {
		for _, c := range calls {
			if isRereading(c) {
				looks = append(looks, c)
			}
		}
		calls = slices.DeleteFunc(calls, isRereading)
	}
	if len(calls) > 0 || reading && len(s.kept) > 0 {
		s.settle(calls, s.update(calls))
	}
	if reading {
		s.settle(looks, s.look(looks))
	}
}

func isRereading(c *call) bool {
	_, ok := c.op.(*rereading)
	return ok
}

// settle tells the callers. One that stayed delivers what is due, before it returns; where none did somebody else does.
func (s *shared) settle(calls []*call, err error) {
	if s.finish(calls, err == nil) && !s.tracker.done.Load() {
		s.tracker.deliverSoon()
		s.tellSoon()
	}
}

// update applies calls, after what is kept from before, in one update of the store. When much is kept and the store has
// failed a moment ago, by the tracker's clock, it is not asked at every call: they end as if it had failed again. A flush
// always asks.
func (s *shared) update(calls []*call) error {
	b := &updating{shared: s, flush: slices.ContainsFunc(calls, isFlushing)}
	now := s.tracker.now()
	if err := s.failure; err != nil && !b.flush && len(s.kept) > muchKept && now >= s.failedAt && now-s.failedAt < int64(pause) {
		s.keep(calls, 0, nil, err)
		return err
	}
	s.number++
	b.number, b.calls = s.number, slices.Concat(s.kept, calls)
	inLine(b.calls)
	s.searchForAlerts(now)
	b.names = s.tracker.undelivered.due(s.tracker.bookTime())
	for _, c := range b.calls {
		for _, name := range c.op.quotas() {
			if last := len(b.names) - 1; last < 0 || b.names[last] != name { // most batches are of few quotas
				b.names = append(b.names, name)
			}
		}
	}
	for name := range s.unsure {
		b.names = append(b.names, name)
	}
	b.takeRefusals()
	slices.Sort(b.names)
	b.names = slices.Compact(b.names)
	var err error
	if len(b.names) > 0 || s.tracker.file != nil { // a file may have a save to make up for
		err = s.ask(append([]string{}, b.names...), b.apply)
	}
	if err != nil {
		s.failure, s.failedAt = err, now
		b.doubtRefusals()
		s.keep(calls, b.number, b.due, err)
		s.noteKept(now, err)
		return err
	}
	s.failure, s.kept, s.unsure = nil, nil, nil
	s.doubtful.Store(false)
	b.install()
	s.keeping.Store(0)
	return nil
}

func isFlushing(c *call) bool {
	_, ok := c.op.(*flushing)
	return ok
}

// look reads all books. While something is kept, the entries know more.
func (s *shared) look(calls []*call) error {
	b := &updating{shared: s}
	err := s.failure
	if len(s.kept) == 0 {
		err = s.ask(nil, b.apply)
	}
	if err != nil {
		s.keep(calls, 0, nil, err)
		return err
	}
	s.books = int64(len(b.books))
	b.install()
	s.prune(b.books, s.installed.Load())
	return nil
}

func (s *shared) ask(names []string, fn func(*Tx) error) error {
	ctx, cancel := context.WithTimeout(s.ctx, updateLimit)
	defer cancel()
	return s.store.Update(ctx, names, fn)
}

// noteKept has it logged that usage is kept, once in a pause: a handler that calls the tracker gets to the store again.
func (s *shared) noteKept(now int64, err error) {
	if len(s.kept) == 0 || now >= s.loggedAt && now-s.loggedAt < int64(pause) {
		return
	}
	s.loggedAt = now
	n := len(s.kept)
	s.note(func() {
		s.tracker.cfg.Logger.Error("quota: saving failed, usage is kept in memory", "error", err, "calls", n)
	})
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

// finish tells the callers, and reports whether none of them is there. The grant of one that has gone is taken back.
func (s *shared) finish(calls []*call, saved bool) (alone bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.rally.expected == 0 {
		s.rally.expected = len(s.queue)
	}
	alone = true
	for _, c := range calls {
		c.finished = true
		if !c.abandoned {
			s.rally.expected++
			alone = false
		}
		if op, ok := c.op.(*acquisition); ok {
			op.letNext()
		}
		if op, ok := c.op.(*acquisition); ok && c.abandoned && saved {
			if undo := op.undo(); undo != nil {
				s.enqueue(&call{op: undo, done: make(chan struct{}), abandoned: true})
			}
		}
		close(c.done)
	}
	return alone
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

func (o *flushing) quotas() []string { return nil }
func (o *flushing) apply([]page)     {}

// note keeps something to be logged.
func (s *shared) note(log func()) {
	s.mu.Lock()
	closed := s.closed && !s.running
	if !closed {
		s.notes = append(s.notes, log)
		s.noted.Store(true)
	}
	s.mu.Unlock()
	if closed {
		log()
	}
}

// tell logs what has been noted: where no lock is held and no update waits, for a handler may call the tracker. One does
// it for all; what a handler causes comes after it.
func (s *shared) tell() {
	if !s.noted.Load() {
		return
	}
	for mine := false; ; mine = true {
		log := s.nextNote(mine)
		if log == nil {
			return
		}
		log()
	}
}

func (s *shared) nextNote(mine bool) func() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.noting && !mine {
		return nil
	}
	if s.noting = len(s.notes) > 0; !s.noting {
		s.noted.Store(false)
		return nil
	}
	log := s.notes[0]
	s.notes = s.notes[1:]
	return log
}

func (s *shared) tellSoon() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.notes) > 0 && !s.noting {
		go s.tell()
	}
}

func (s *shared) flush(ctx context.Context) error {
	if err := s.submit(ctx, &flushing{}); err != nil {
		return notSaved(err)
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
	if s.owes() {
		_ = s.flush(ctx)
	}
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	err := s.rest(ctx)
	if err == nil && s.owes() { // a call may have come in between
		last := &call{op: &flushing{}, done: make(chan struct{})}
		s.mu.Lock()
		s.enqueue(last)
		s.mu.Unlock()
		if err = s.rest(ctx); err == nil {
			err = last.err
		}
	}
	s.cancel()
	ctx, cancel := context.WithTimeout(context.Background(), lastGrace)
	defer cancel()
	_ = s.rest(ctx) // an update that hangs ends now, unless it does not heed its context
	s.tell()
	return err
}

// owes reports whether there is anything to save.
func (s *shared) owes() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.refusals) > 0 || s.keeping.Load() > 0 || s.doubtful.Load()
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
