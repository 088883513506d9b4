package hostile

import (
	"fmt"
	"sync"

	"example.com/quota"
)

// ledger is what the callers know: at least and at most so much was used, and is held.
type ledger struct {
	mu sync.Mutex
	of map[string]*balance
}

type balance struct{ usedMin, usedMax, heldMin, heldMax int64 }

// used notes usage, certain or not.
func (l *ledger) used(name string, n int64, certain bool) {
	l.change(name, func(b *balance) {
		b.usedMax += n
		if certain {
			b.usedMin += n
		}
	})
}

func (l *ledger) held(name string, n int64) {
	l.change(name, func(b *balance) {
		b.heldMin += n
		b.heldMax += n
	})
}

// freed notes that n is not held any more, certainly or not.
func (l *ledger) freed(name string, n int64, certain bool) {
	l.change(name, func(b *balance) {
		b.heldMin -= n
		if certain {
			b.heldMax -= n
		}
	})
}

func (l *ledger) change(name string, f func(*balance)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.of == nil {
		l.of = map[string]*balance{}
	}
	if l.of[name] == nil {
		l.of[name] = &balance{}
	}
	f(l.of[name])
}

// compare looks whether a tracker says the same.
func (l *ledger) compare(tracker *quota.QuotaTracker) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for name, b := range l.of {
		status, ok := tracker.Status(name)
		if !ok || len(status.Limits) == 0 {
			return fmt.Errorf("Status(%q) = %+v, %v", name, status, ok)
		}
		limit := status.Limits[0]
		if limit.Used < b.usedMin || limit.Used > b.usedMax {
			return fmt.Errorf("%s has %d used, the callers know of %d to %d", name, limit.Used, b.usedMin, b.usedMax)
		}
		if limit.Reserved < b.heldMin || limit.Reserved > b.heldMax {
			return fmt.Errorf("%s has %d reserved, the callers know of %d to %d", name, limit.Reserved, b.heldMin, b.heldMax)
		}
		if today := status.Today.Used[quota.UnitRequests]; today < b.usedMin || today > b.usedMax {
			return fmt.Errorf("%s has %d in today's summary, the callers know of %d to %d", name, today, b.usedMin, b.usedMax)
		}
	}
	return nil
}
