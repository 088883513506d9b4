package quotatest

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"example.com/quota"
)

// interruptedRules are about Updates that fail.
func interruptedRules() []rule {
	return []rule{
		{text: "an Update that fails takes effect at once or never", run: decidesFailures},
		{text: "usage is counted once, also when a tracker does not learn what became of it", run: countsOnce, sound: true},
	}
}

// decidesFailures ends the context of Updates while they are under way. Whatever they return, the next Update must find all
// of their change or nothing of it, and no later one another thing.
func decidesFailures(t *trial) error {
	names := [2]string{sumQuota, sumQuota2}
	stores := t.both()
	if _, err := t.charge(1, names[:]...); err != nil {
		return err
	}
	want := [2]int64{1, 1}
	for i := range 6 {
		one, other := stores[i%2], stores[1-i%2]
		ctx, cancel := context.WithCancel(t.ctx)
		var over, late atomic.Bool
		_, err := one.updateWith(ctx, names[:], func(tx *quota.Tx) error {
			if over.Load() {
				late.Store(true)
				return errors.New("too late")
			}
			switch i % 3 {
			case 0:
				defer cancel()
			case 1:
				go cancel()
			case 2:
				time.AfterFunc(time.Duration(i)*100*time.Microsecond, cancel)
			}
			return errors.Join(t.states.use(tx.Books, sumQuota, 1), t.states.use(tx.Books, sumQuota2, 1))
		})
		over.Store(true)
		cancel()
		found, lookErr := other.counts(names)
		if lookErr != nil {
			return lookErr
		}
		applied := [2]int64{want[0] + 1, want[1] + 1}
		switch {
		case found == applied:
			want = applied
		case err == nil:
			return fmt.Errorf("Update returned nil, and the next one finds %v requests in %q, must be %v: "+
				"when ctx is done, return its error or keep all", found, names, applied)
		case found != want:
			return fmt.Errorf("Update returned an error (%w), and the next one finds %v requests in %q, must be %v or %v: "+
				"keep all or nothing", err, found, names, want, applied)
		}
		// What follows on either store, and in either book, must not bring anything back.
		for n, next := range []*trial{other, one} {
			if _, err := next.charge(1, names[n]); err != nil {
				return fmt.Errorf("the next Update: %w; the store must recover", err)
			}
			want[n]++
			found, lookErr := stores[n].counts(names)
			switch {
			case lookErr != nil:
				return lookErr
			case found != want:
				return fmt.Errorf("after an Update whose ctx was done (it returned %w) a later one of %q leaves %v requests in %q, "+
					"must be %v: an error of Update is final, nothing comes afterwards", orNil(err), names[n], found, names, want)
			}
		}
		if late.Load() {
			return errors.New("fn is run after Update has returned: end with it")
		}
	}
	return nil
}

var errNone = errors.New("nil")

// orNil makes an error of none, to be wrapped.
func orNil(err error) error {
	if err == nil {
		return errNone
	}
	return err
}

// A lossy store fails now and then: before an Update, or after one that has been made.
type lossy struct {
	quota.SharedPersistence
	calls int // Updates of a tracker follow each other
	calm  bool
}

var errLossy = errors.New("quotatest: the reply is lost")

func (l *lossy) Update(ctx context.Context, names []string, fn func(*quota.Tx) error) error {
	l.calls++
	if !l.calm && l.calls%5 == 0 {
		return errLossy
	}
	err := l.SharedPersistence.Update(ctx, names, fn)
	if !l.calm && l.calls%3 == 0 {
		return errors.Join(errLossy, err)
	}
	return err
}

// countsOnce has a tracker lose replies beside another that does not.
func countsOnce(t *trial) error {
	const rounds = 24
	stores := t.both()
	unlucky := &lossy{SharedPersistence: stores[0].shared, calm: true}
	var trackers [2]*quota.QuotaTracker
	for i, store := range []quota.Persistence{unlucky, stores[1].store} {
		tracker, err := newTracker(t.ctx, store, NewClock(t.states.end), templates())
		if err != nil {
			return fmt.Errorf("quota.New failed: %w", err)
		}
		defer func() { _ = tracker.Close() }()
		trackers[i] = tracker
	}
	unlucky.calm = false
	for range rounds {
		if err := trackers[0].RecordUsage(t.ctx, sumQuota); err != nil && !errors.Is(err, quota.ErrPending) {
			return fmt.Errorf("a tracker cannot record usage: %w", err)
		}
		if r, err := trackers[0].Reserve(t.ctx, sumQuota2); err == nil {
			if err := r.Release(t.ctx); err != nil && !errors.Is(err, quota.ErrPending) {
				return fmt.Errorf("a tracker cannot release: %w", err)
			}
		} else if !errors.Is(err, errLossy) {
			return fmt.Errorf("a tracker cannot reserve: %w", err)
		}
		if err := trackers[1].RecordUsage(t.ctx, sumQuota); err != nil {
			return fmt.Errorf("a tracker beside another cannot record usage: %w", err)
		}
	}
	unlucky.calm = true
	if err := trackers[0].Flush(t.ctx); err != nil {
		return fmt.Errorf("a tracker cannot flush: %w", err)
	}
	if err := trackers[1].Refresh(t.ctx); err != nil {
		return err
	}
	status, _ := trackers[1].Status(sumQuota)
	if len(status.Limits) != 1 || status.Limits[0].Used != 2*rounds {
		return fmt.Errorf("of %d requests that two trackers have recorded one finds %v: does an Update that has failed come back?",
			2*rounds, status.Limits)
	}
	if status, _ = trackers[1].Status(sumQuota2); status.Reservations != 0 {
		return fmt.Errorf("%d reservations of which nobody has learnt are not taken back", status.Reservations)
	}
	return nil
}
