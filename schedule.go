package quota

import (
	"container/heap"
	"context"
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
func (d dueHeap) Swap(i, j int)      { d[i], d[j] = d[j], d[i] }
func (d *dueHeap) Push(x any)        { *d = append(*d, x.(dueEntry)) }
func (d *dueHeap) Pop() any {
	last := len(*d) - 1
	one := (*d)[last]
	(*d)[last] = dueEntry{}
	*d = (*d)[:last]
	return one
}

// consider puts an entry, whose lock is held, on the schedule for when something in it is due next.
func (s *schedule) consider(e *entry) {
	at := e.nextDue()
	if at == 0 || e.due != 0 && e.due <= at {
		return
	}
	e.due = at
	s.mu.Lock()
	defer s.mu.Unlock()
	heap.Push(&s.due, dueEntry{at, e})
	s.set()
}

// nextDue is when somebody should look at the entry, 0 when nobody needs to. The entry is locked.
func (e *entry) nextDue() int64 {
	at := e.book.holds.nextExpiry()
	if e.rules.template && e.book.today.end != 0 {
		if over := e.book.today.end + day; at == 0 || over < at {
			at = over
		}
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

// fire looks at every entry that is due.
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
	for _, e := range list {
		s.tracker.attend(e)
	}
	s.mu.Lock()
	s.set()
	s.mu.Unlock()
}

// attend lets time pass in an entry and drops it when nothing counts in it any more.
func (t *QuotaTracker) attend(e *entry) {
	e.mu.Lock()
	e.due = 0
	e.mu.Unlock()
	if t.shared.active() {
		_ = t.change(context.Background(), &tending{[]string{e.name}}) // what is pending is logged there
		e.mu.Lock()
		if !e.gone && e.rules.template && e.book.untouched() {
			t.entries.drop(e)
		} else {
			t.timer.consider(e)
		}
		e.mu.Unlock()
		return
	}
	pages := t.lock([]page{{entry: e}})
	e = pages[0].entry
	if e.rules.template && e.book.blank() {
		if t.saver != nil {
			t.saver.drop(e.name)
		}
		t.entries.drop(e)
		e.mu.Unlock()
		return
	}
	done := t.shut(pages)
	e.mu.Lock()
	if !e.gone {
		t.timer.consider(e)
	}
	e.mu.Unlock()
	_ = t.settleUp(context.Background(), done)
}

// tending is an operation that lets time pass, and drops the books of templates in which nothing counts any more.
type tending struct{ names []string }

func (o *tending) quotas() []string    { return o.names }
func (o *tending) apply([]page, int64) {}
