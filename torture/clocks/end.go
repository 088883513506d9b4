package clocks

import (
	"context"
	"runtime"
	"time"
)

// end sets the clock right. From then on every quota must admit again, and everything that expires do so, at the latest
// when its holds have expired and a window has passed, and the day by which the clock may have been ahead.
func (tr *trace) end(wait bool) error {
	tr.set(tr.begin.Add(tr.clock.passed).Sub(tr.clock.Now()), "set right")
	if err := tr.compare(); err != nil {
		return err
	}
	for _, w := range tr.all { // fill them
		for admitted := true; admitted; {
			var err error
			if admitted, err = tr.reserve(w); err != nil {
				return err
			}
		}
	}
	for _, h := range tr.open {
		if !h.call.open {
			continue
		}
		again, err := tr.tracker.Reservation(context.Background(), h.r.ID())
		if err != nil {
			return tr.broken("%s: looking for an open hold: %v", h.of.name, err)
		}
		if is := again.ExpiresAt().UnixNano(); is != h.call.expires || is > h.of.seen+int64(ttl) {
			return tr.broken("%s: it expires %v later than it must", h.of.name, time.Duration(is-h.call.expires))
		}
	}
	if wait {
		return tr.wait()
	}
	tr.clock.pass(ttl + time.Duration(day))
	tr.say("the holds have had their time")
	if err := tr.compare(); err != nil {
		return err
	}
	for _, w := range tr.all {
		if len(w.calls) > 0 && w.calls[len(w.calls)-1].open {
			return tr.broken("%s: a hold is open after its time", w.name)
		}
	}
	for _, w := range tr.all {
		if w.kind == lifetime {
			continue
		}
		tr.clock.pass(time.Duration(w.length + w.length/50))
		tr.say("%s has had its time", w.name)
		if admitted, err := tr.reserve(w); err != nil || !admitted {
			if err != nil {
				return err
			}
			return tr.broken("%s: refused one window after the clock was set right", w.name)
		}
	}
	return tr.compare()
}

// wait lets a call wait for a full quota: it must be admitted by the passing of time alone.
func (tr *trace) wait() error {
	var w *witness
	for _, one := range tr.all {
		if one.kind != lifetime && (w == nil || one.kind == inFlight) {
			w = one
		}
	}
	if tr.random.IntN(2) == 0 { // what was loaded expires unasked too
		if err := tr.restart(0); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*patience)
	defer cancel()
	plans := tr.clock.plans()
	done := make(chan error, 1)
	go func() {
		_, err := tr.tracker.Wait(ctx, w.name)
		done <- err
	}()
	for tr.clock.plans() == plans && len(done) == 0 && ctx.Err() == nil {
		runtime.Gosched() // until it sleeps
	}
	tr.say("%s: a call waits", w.name)
	enough := tr.clock.Now().Add(200 * 24 * time.Hour)
	for step := ttl; tr.clock.Now().Before(enough); step = min(2*step, time.Duration(day)) {
		tr.clock.pass(step)
		tr.say("%v pass", step)
		if over, err := tr.waited(w, done, time.Millisecond); over {
			return err
		}
	}
	if over, err := tr.waited(w, done, patience); over {
		return err
	}
	return tr.broken("%s: a call waits for ever:\n%s", w.name, stacks())
}

// waited reports whether a waiting call has returned, and what is wrong with that.
func (tr *trace) waited(w *witness, done <-chan error, most time.Duration) (over bool, wrong error) {
	select {
	case err := <-done:
		if err != nil {
			return true, tr.broken("%s: Wait: %v", w.name, err)
		}
		return true, nil
	case <-time.After(most): // it may be on its way
		return false, nil
	}
}
