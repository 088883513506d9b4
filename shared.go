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

	mu       sync.Mutex // protects what follows; taken while an entry is locked, never the other way round
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
	var err error
	if len(b.names) > 0 || b.everything || s.tracker.file != nil { // a file may have a save to make up for
		err = s.store.Update(ctx, names, b.apply)
	}
	cancel()
	if err == nil {
		b.install()
		s.kept = nil
		s.keeping.Store(0)
	} else {
		b.keep(err)
	}
	if s.finish(calls, err == nil) {
		s.tracker.deliverSoon()
	}
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

// finish tells the callers, and reports whether one of them has gone. The grant of one that has gone is taken back.
func (s *shared) finish(calls []*call, saved bool) (left bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range calls {
		c.finished = true
		if op, ok := c.op.(*acquisition); ok {
			op.letNext()
		}
		if op, ok := c.op.(*acquisition); ok && c.abandoned && saved {
			if undo := op.undo(); undo != nil {
				s.enqueue(&call{op: undo, done: make(chan struct{}), abandoned: true})
			}
		}
		left = left || c.abandoned
		close(c.done)
	}
	return left
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
