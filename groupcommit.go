package quota

import (
	"context"
	"slices"
	"sync"
	"time"
)

// A saver makes the changes of one tracker durable in a Persistence that is its alone. The tracker's memory is the
// state: whatever could not be saved stays in it and goes out with the next save. Changes that come while a save runs
// are saved together by the next one.
type saver struct {
	tracker *QuotaTracker
	store   Persistence
	ctx     context.Context
	cancel  context.CancelFunc

	// whole is held for reading by a change of several books, and for writing while a save takes its list and its copies: a
	// save has all of such a change or nothing. Taken before any entry is locked.
	whole sync.RWMutex

	mu       sync.Mutex // protects what follows; taken while an entry is locked, never the other way round
	dirty    []*entry
	dropped  []string
	upcoming *saveBatch
	current  *saveBatch // that is being saved; nil: none
	running  bool
	idle     chan struct{} // closed when running ends
	failed   error         // of the last save
	armed    bool          // the timer of FlushInterval, or of the next try, is set
	disarm   func() bool
	closed   bool // Close is at work: no timer is set any more
	over     bool // the last save has been made: nothing is taken on any more

	rally rally  // of upcoming's callers
	state *State // what the last save was given; touched by the running save alone
}

// A saveBatch is one save and those who wait for it.
type saveBatch struct {
	done    chan struct{}
	err     error // valid when done is closed
	callers int
	left    bool // nobody may be there to deliver what it makes deliverable
}

func newSaver(t *QuotaTracker, state *State) *saver {
	s := &saver{tracker: t, store: t.cfg.Persistence, state: &State{
		Generation: state.Generation, Books: make(map[string]*Book, len(state.Books)),
	}}
	for name, book := range state.Books {
		if book != nil {
			s.state.Books[name] = book.clone()
		}
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	return s
}

func (s *saver) lazy() bool { return s.tracker.cfg.FlushInterval > 0 }

// note puts an entry, whose lock is held, on the list of what the next save has to save, and sees to it that with
// FlushInterval there is one.
func (s *saver) note(e *entry) {
	if e.unsaved {
		return
	}
	s.mu.Lock()
	s.list(e)
	if s.lazy() {
		s.arm()
	}
	s.mu.Unlock()
}

// list is note while the saver is locked.
func (s *saver) list(e *entry) {
	if !e.unsaved {
		e.unsaved = true
		s.dirty = append(s.dirty, e)
	}
}

// take takes on a change: the entries, which are locked, whose books it has changed, and the alerts of what it has
// crossed. All of it in one step, so that a call is told the truth about its save, and no alert comes before its crossing.
// It returns the batch that saves the change; with FlushInterval nil, and the timer saves.
func (s *saver) take(pages []page, alerts []Alert) *saveBatch {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over {
		// The call has begun before Close, but the last save is over: nobody must believe that it was saved.
		late := &saveBatch{done: make(chan struct{}), err: ErrClosed}
		close(late.done)
		return late
	}
	for i := range pages {
		if pages[i].book.changed {
			s.list(pages[i].entry)
		}
	}
	s.tracker.alerts.claim(alerts, !s.lazy())
	if !s.lazy() {
		return s.begin()
	}
	if s.closed {
		s.begin()
	}
	s.arm()
	return nil
}

// drop removes a book with the next save.
func (s *saver) drop(name string) {
	s.mu.Lock()
	s.dropped = append(s.dropped, name)
	s.mu.Unlock()
}

// begin joins or opens the upcoming batch. The saver is locked.
func (s *saver) begin() *saveBatch {
	if s.upcoming == nil {
		s.upcoming = &saveBatch{done: make(chan struct{})}
	}
	s.upcoming.callers++
	s.rally.come.Store(int64(s.upcoming.callers))
	if !s.running {
		s.running, s.idle = true, make(chan struct{})
		go s.run()
	}
	return s.upcoming
}

// arm sets the timer of FlushInterval. The saver is locked.
func (s *saver) arm() {
	if s.armed || s.closed {
		return
	}
	s.armed = true
	s.disarm = s.tracker.cfg.Clock.AfterFunc(s.tracker.cfg.FlushInterval, func() {
		s.mu.Lock()
		s.armed = false
		if s.closed {
			s.mu.Unlock()
			return
		}
		batch := s.begin()
		s.mu.Unlock()
		if err := s.wait(s.ctx, batch); err != nil {
			s.tracker.cfg.Logger.Error("quota: saving failed, reservations are refused until it succeeds", "error", err)
			s.mu.Lock()
			s.arm()
			s.mu.Unlock()
		}
	})
}

// retry tries again after a pause, without waiting for the next call; with FlushInterval at its next turn. The saver is
// locked.
func (s *saver) retry() {
	if s.lazy() {
		s.arm()
	}
	if s.armed || s.closed {
		return
	}
	s.armed = true
	s.disarm = s.tracker.cfg.Clock.AfterFunc(pause, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.armed = false; !s.closed && len(s.dirty)+len(s.dropped) > 0 {
			s.begin().left = true
		}
	})
}

func (s *saver) wait(ctx context.Context, batch *saveBatch) error {
	select {
	case <-batch.done:
		return batch.err
	case <-ctx.Done():
		select {
		case <-batch.done:
			return batch.err
		default:
		}
		s.leave(batch)
		return ctx.Err()
	}
}

// leave says that a caller does not wait for its batch: what that makes deliverable is delivered all the same.
func (s *saver) leave(batch *saveBatch) {
	s.mu.Lock()
	batch.left = true
	s.mu.Unlock()
	select {
	case <-batch.done:
		s.tracker.deliverSoon()
	default:
	}
}

// run saves batch after batch until there is none.
func (s *saver) run() {
	for s.rally.expected = 0; ; {
		s.rally.wait()
		s.whole.Lock()
		s.mu.Lock()
		s.rally.come.Store(0)
		batch, dirty, dropped := s.upcoming, s.dirty, s.dropped
		if batch == nil {
			s.running, s.over = false, s.closed
			close(s.idle)
			s.mu.Unlock()
			s.whole.Unlock()
			return
		}
		s.upcoming, s.dirty, s.dropped = nil, nil, nil
		s.current = batch
		alerts := s.tracker.alerts.saving()
		s.mu.Unlock()
		finished := s.copy(dirty, dropped)
		s.whole.Unlock()
		begun := time.Now()
		if len(dirty)+len(dropped) > 0 { // else the save before has saved it
			batch.err = s.save(dirty, finished)
		}
		if batch.err == nil {
			s.tracker.alerts.saved(alerts)
		}
		s.mu.Lock()
		s.failed, s.current = batch.err, nil
		if batch.err != nil {
			s.dropped = append(s.dropped, dropped...)
			s.retry()
		}
		left := batch.left
		s.rally.expected, s.rally.took = batch.callers+int(s.rally.come.Load()), time.Since(begun)
		close(batch.done)
		s.mu.Unlock()
		if s.tracker.file != nil {
			s.tracker.file.free()
		}
		if left {
			s.tracker.deliverSoon()
		}
	}
}

// copy brings the state that is handed to the Persistence up to date, and returns the days that have left the books.
func (s *saver) copy(dirty []*entry, dropped []string) map[string][]DaySummary {
	finished := map[string][]DaySummary{}
	for _, name := range dropped {
		delete(s.state.Books, name)
	}
	for _, e := range dirty {
		e.mu.Lock()
		e.unsaved = false
		if days := e.book.takeFinished(); len(days) > 0 {
			finished[e.name] = days
		}
		switch {
		case e.gone: // dropped has removed it, or a new entry has taken its place
		case e.book.untouched():
			delete(s.state.Books, e.name)
		default:
			s.state.Books[e.name] = e.book.clone()
		}
		e.mu.Unlock()
	}
	return finished
}

// save hands the state to the Persistence.
func (s *saver) save(dirty []*entry, finished map[string][]DaySummary) error {
	s.state.Version = stateVersion
	s.state.Generation++
	s.state.UpdatedAt = instant(s.tracker.now())
	s.state.History = s.tracker.past.take(finished)
	ctx, cancel := context.WithTimeout(s.ctx, updateLimit)
	err := s.store.Save(ctx, s.state)
	cancel()
	if err == nil {
		return nil
	}
	for _, e := range dirty {
		e.mu.Lock()
		s.note(e)
		e.mu.Unlock()
	}
	return err
}

// failing returns why the last flush failed, while calls return before they are saved.
func (s *saver) failing() error {
	if !s.lazy() {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.failed
}

// flush saves what has not been saved.
func (s *saver) flush(ctx context.Context) error {
	s.mu.Lock()
	batch := s.current
	if len(s.dirty) > 0 || len(s.dropped) > 0 || s.upcoming != nil {
		batch = s.begin()
	}
	s.mu.Unlock()
	if batch == nil {
		return nil
	}
	if err := s.wait(ctx, batch); err != nil {
		return notSaved(err)
	}
	return nil
}

// close saves what is left and ends the goroutine that saves. Calls that come while it does are saved too.
func (s *saver) close(ctx context.Context) error {
	s.mu.Lock()
	s.closed = true
	if s.disarm != nil {
		s.disarm()
	}
	s.over = !s.running && len(s.dirty)+len(s.dropped) == 0
	s.mu.Unlock()
	err := s.flush(ctx)
	s.mu.Lock()
	idle, running := s.idle, s.running
	s.mu.Unlock()
	if running {
		await(ctx, idle)
		s.cancel()
		ctx, cancel := context.WithTimeout(context.Background(), lastGrace)
		defer cancel()
		await(ctx, idle) // longer only for a Save that does not heed its context
	}
	s.cancel()
	return err
}

// await returns when done is closed, or when ctx ends.
func await(ctx context.Context, done <-chan struct{}) {
	select {
	case <-done:
	case <-ctx.Done():
	}
}

// pause is how long the tracker waits before it tries again to save usage that it could not save.
const pause = time.Second

func insertNames(names []string, more []string) []string {
	for _, name := range more {
		if at, found := slices.BinarySearch(names, name); !found {
			names = slices.Insert(names, at, name)
		}
	}
	return names
}
