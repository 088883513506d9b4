package clocks

import (
	"context"
	"errors"
	"runtime"
	"strings"
	"time"

	"example.com/quota"
)

type outcome struct {
	r   *quota.Reservation
	err error
}

// race lets a call get its time and, before it can use it, the clock jump and another call come. Whoever has the older
// time must have come first: the second call either has to wait for the first, or comes before it.
func (tr *trace) race() error {
	w := tr.all[tr.random.IntN(len(tr.all))]
	jump := 25*time.Hour + time.Duration(tr.random.Int64N(40*day))
	tr.set(time.Unix(0, w.seen).UTC().Sub(tr.clock.Now()), "set to the latest time of "+w.name)
	if err := tr.compare(); err != nil {
		return err
	}
	before := tr.clock.Now()
	second := make(chan outcome, 1)
	var stuck error
	tr.clock.inNext(func() {
		tr.clock.set(before.Add(jump))
		self := make(chan string, 1)
		go func() {
			self <- goroutine()
			r, err := tr.tracker.Reserve(context.Background(), w.name)
			second <- outcome{r, err}
		}()
		stuck = untilDoneOrBlocked(<-self, func() bool { return len(second) > 0 })
	})
	r, err := tr.tracker.Reserve(context.Background(), w.name)
	if stuck != nil {
		return stuck
	}
	tr.say("%s: a call reads the time, the clock jumps by %v, another call comes meanwhile", w.name, jump)
	w.advance(before.UnixNano())
	if err := tr.judge(w, r, err); err != nil {
		return err
	}
	select {
	case other := <-second:
		w.advance(before.Add(jump).UnixNano())
		if err := tr.judge(w, other.r, other.err); err != nil {
			return err
		}
	case <-time.After(patience):
		return tr.broken("%s: a call did not return within %v:\n%s", w.name, patience, stacks())
	}
	if err := tr.compare(); err != nil {
		return err
	}
	return tr.use()
}

// goroutine names the running goroutine as its stack does: "goroutine 18 [".
func goroutine() string {
	var trace [64]byte
	name, _, _ := strings.Cut(string(trace[:runtime.Stack(trace[:], false)]), "[")
	return name + "["
}

// untilDoneOrBlocked returns when a goroutine is done, or waits for a lock.
func untilDoneOrBlocked(name string, done func() bool) error {
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); runtime.Gosched() {
		if done() || strings.Contains(stacks(), name+"sync.Mutex.Lock") {
			return nil
		}
	}
	return errors.New("a second call neither returned nor waited for a lock:\n" + stacks())
}

func stacks() string {
	trace := make([]byte, 64<<10)
	return string(trace[:runtime.Stack(trace, true)])
}
