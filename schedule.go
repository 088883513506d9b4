package quota

import (
	"container/heap"
	"context"
	"slices"
	"sync"
	"time"
)

// A schedule looks at entries when something in them is due that nobody may ask about: a reservation expires, or the
// book of a template is no longer needed. One timer serves all.
type schedule struct {
	tracker *QuotaTracker
	mu      sync.Mutex // protects what follows; taken while an entry is locked, never the other way round
	due     dueHeap
	at      int64 // when the timer goes off; 0: it is not set
	disarm  func() bool
	stopped bool
}

type dueEntry struct {
	at    int64
	entry *entry
}

type dueHeap []dueEntry

func (d dueHeap) Len() int           { return len(d) }
func (d dueHeap) Less(i, j int) bool { return d[i].at < d[j].at }
func (d dueHeap) Swap(i, j int) {
	d[i], d[j] = d[j], d[i]
	d[i].entry.slot, d[j].entry.slot = int32(i+1), int32(j+1)
}

func (d *dueHeap) Push(x any) {
	one := x.(dueEntry)
	*d = append(*d, one)
	one.entry.slot = int32(len(*d))
}

func (d *dueHeap) Pop() any {
	last := len(*d) - 1
	one := (*d)[last]
	(*d)[last] = dueEntry{}
	*d = (*d)[:last]
	one.entry.slot = 0
	return one
}

// consider puts an entry, whose lock is held, on the schedule for when something in it is due next.
func (s *schedule) consider(e *entry) {
	ahead := s.tracker.shared.ahead.Load() // the store's clock may be another
	if due := e.due + ahead; e.due != 0 && due <= e.book.today.end {
		if next := e.book.holds.nextExpiry(); next == 0 || due <= next {
			return // the usual case: something else is due before
		}
	}
	if e.behind && e.due == 0 {
		return // the timer is at it
	}
	at := e.nextDue()
	if at != 0 {
		at = max(at-ahead, earliest)
	}
	if at == 0 || e.due != 0 && e.due <= at {
		return
	}
	s.add(e, at)
}

// add puts an entry, whose lock is held, on the schedule, or moves it there.
func (s *schedule) add(e *entry, at int64) {
	e.due = at
	s.mu.Lock()
	defer s.mu.Unlock()
	if e.slot > 0 {
		s.due[e.slot-1].at = at
		heap.Fix(&s.due, int(e.slot-1))
	} else {
		heap.Push(&s.due, dueEntry{at, e})
	}
	s.set()
}

// nextDue is when somebody should look at the entry, 0 when nobody needs to. The entry is locked.
func (e *entry) nextDue() int64 {
	if e.rules.foreign {
		return 0
	}
	at := e.book.holds.nextExpiry()
	if e.rules.template && e.book.today.end != 0 {
		if over := e.book.today.end + day; at == 0 || over < at {
			at = over
		}
	}
	if over := e.book.today.end; e.configured.Load() && over != 0 && !e.book.untouched() && (at == 0 || over < at) {
		at = over // so that its accounts are known to be configured still
	}
	return at
}

// set makes the timer go off when the first entry is due. The schedule is locked.
func (s *schedule) set() {
	if s.stopped || len(s.due) == 0 || s.at != 0 && s.at <= s.due[0].at {
		return
	}
	if s.disarm != nil {
		s.disarm()
	}
	s.at = s.due[0].at
	s.disarm = s.tracker.cfg.Clock.AfterFunc(max(0, time.Duration(s.at-s.tracker.now())), s.fire)
}

func (s *schedule) stop() {
	s.mu.Lock()
	s.stopped = true
	if s.disarm != nil {
		s.disarm()
	}
	s.mu.Unlock()
}

// fire looks at every entry that is due. The timer is set anew before anything is delivered: a callback that takes its
// time holds up no other expiry.
func (s *schedule) fire() {
	s.mu.Lock()
	if s.stopped {
		s.mu.Unlock()
		return
	}
	s.at, s.disarm = 0, nil
	now := s.tracker.now()
	var list []*entry
	for len(s.due) > 0 && s.due[0].at <= now {
		list = append(list, heap.Pop(&s.due).(dueEntry).entry)
	}
	s.mu.Unlock()
	t := s.tracker
	list = slices.DeleteFunc(list, func(e *entry) bool {
		e.mu.Lock()
		defer e.mu.Unlock()
		again := e.gone || e.due > now // it has been put on the schedule anew
		if !again {
			e.due = 0
		}
		return again
	})
	var done receipt
	if t.shared.active() {
		t.attendShared(list)
	} else {
		done = t.attend(list)
	}
	s.mu.Lock()
	s.set()
	s.mu.Unlock()
	_ = t.settleUp(context.Background(), done) // usage that is not saved goes out with the next save
}

// attend lets time pass in entries and drops those in which nothing counts any more.
func (t *QuotaTracker) attend(list []*entry) (all receipt) {
	for _, e := range list {
		pages := []page{{entry: e}}
		for t.lockFor(pages, manyExpire); pages[0].behind; t.lockFor(pages, manyExpire) {
			if done := t.shut(pages); done.changed {
				all = done
			}
		}
		e = pages[0].entry
		if e.rules.template && e.book.blank() {
			if t.saver != nil {
				t.saver.drop(e.name)
			}
			t.entries.drop(e)
			e.mu.Unlock()
			continue
		}
		t.timer.consider(e)
		if done := t.shut(pages); done.changed {
			all = done // the save of the last has what those before it have changed
		}
	}
	return all
}

// attendShared is attend on a state that is shared: one update for all.
func (t *QuotaTracker) attendShared(list []*entry) {
	op := &tending{}
	for _, e := range list {
		op.names = insertNames(op.names, []string{e.name})
	}
	if len(op.names) == 0 {
		return
	}
	_, err := t.shared.dispatch(context.Background(), op)
	for _, e := range list {
		t.tended(e, err)
	}
}

func (t *QuotaTracker) tended(e *entry, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	switch {
	case e.gone:
	case err != nil:
		t.timer.add(e, t.now()+int64(pause))
	case e.rules.template && e.book.untouched():
		t.entries.drop(e)
	default:
		t.timer.consider(e)
	}
}

// tending is an operation that lets time pass, and drops the books of templates in which nothing counts any more.
type tending struct{ names []string }

func (o *tending) quotas() []string { return o.names }
func (o *tending) apply([]page)     {}
