package quotatest

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"example.com/quota"
)

// A Reopener is a store that can be opened once more. TestPersistence then tries what a SharedPersistence promises also
// with two stores on one state, as two processes have them.
type Reopener interface {
	// Reopen returns another handle to the same state, that shares nothing with this one but the state. What it opens is
	// its caller's to close.
	Reopen() (quota.Persistence, error)
}

// togetherRules are about two stores on one state.
func togetherRules() []rule {
	return []rule{
		{text: "two stores on one state show each other's changes", run: showsOthers},
		{text: "of two Updates at once one is decided on what the other has left", run: decidesInTurn},
		{text: "two trackers on one state admit what the quota admits", run: admitsTogether, sound: true},
		{text: "a tracker leaves the books of others alone", run: leavesOthers, sound: true},
	}
}

// both returns the trial of each of two stores on one state, which are one where the store cannot be opened twice.
func (t *trial) both() [2]*trial {
	second := *t
	second.store, second.shared = t.other, t.other
	return [2]*trial{t, &second}
}

func showsOthers(t *trial) error {
	stores := t.both()
	all := make(map[string]any)
	for n := range 6 {
		names := [][]string{{sumQuota}, {sumQuota, sumQuota2}, {sumQuota2}}[n%3]
		left, err := stores[n%2].charge(int64(n+1), names...)
		if err != nil {
			return err
		}
		maps.Copy(all, left)
		for i, one := range stores {
			if err := one.agree(all); err != nil {
				return fmt.Errorf("store %d has changed %q, of store %d %w", n%2+1, names, i+1, err)
			}
		}
	}
	for n := range 2 {
		one, other := stores[n], stores[1-n]
		if _, err := one.update([]string{sumQuota}, func(tx *quota.Tx) error {
			delete(tx.Books, sumQuota)
			return nil
		}); err != nil {
			return fmt.Errorf("Update failed: %w", err)
		}
		delete(all, sumQuota)
		if err := other.agree(all); err != nil {
			return fmt.Errorf("store %d has dropped %q, of the other %w", n+1, sumQuota, err)
		}
		left, err := other.charge(1, sumQuota)
		if err != nil {
			return err
		}
		maps.Copy(all, left)
		if err := one.agree(all); err != nil {
			return fmt.Errorf("store %d has made %q anew, of the other %w", 2-n, sumQuota, err)
		}
	}
	return nil
}

// A move is one of two Updates at once.
type move struct {
	names []string
	fn    func(*quota.Tx) error
}

// overlap begins the second Update while fn of the first runs. A store may let the second wait until the first is over, or
// let it be quicker: fn of the first goes on when the second has come to its end, or after a moment.
func overlap(first, second *trial, one, two move) error {
	const moment = 20 * time.Millisecond
	var begin sync.Once
	done := make(chan struct{})
	var secondErr error
	_, err := first.update(one.names, func(tx *quota.Tx) error {
		begin.Do(func() {
			go func() {
				defer close(done)
				_, secondErr = second.update(two.names, two.fn)
			}()
			select {
			case <-done:
			case <-time.After(moment):
			}
		})
		return one.fn(tx)
	})
	begin.Do(func() { close(done) }) // it has never run
	<-done
	if err := errors.Join(err, secondErr); err != nil {
		return fmt.Errorf("an Update beside another failed: %w; let one wait, or run its fn again", err)
	}
	return nil
}

// A clash is two Updates of common quotas, and what may be used in these afterwards: as after one and then the other. 0
// where a book does not exist.
type clash struct {
	what, hint string
	fresh      bool // nobody has had these quotas before
	one, two   func(first, second string) move
	right      [][2]int64
}

const usedBefore = 5 // in quotas that are not fresh

func (t *trial) clashes() []clash {
	charge := func(first, _ string) move {
		return move{[]string{first}, func(tx *quota.Tx) error { return t.states.use(tx.Books, first, 1) }}
	}
	drop := func(first, _ string) move {
		return move{[]string{first}, func(tx *quota.Tx) error {
			delete(tx.Books, first)
			return nil
		}}
	}
	dropUnused := func(first, _ string) move {
		return move{[]string{first}, func(tx *quota.Tx) error {
			if n, err := t.states.usedIn(tx.Books, first); err != nil || n > usedBefore {
				return err
			}
			delete(tx.Books, first)
			return nil
		}}
	}
	second := func(f func(first, second string) move) func(first, second string) move {
		return func(first, second string) move { return f(second, first) }
	}
	chargeUnless := func(first, second string) move {
		return move{[]string{first, second}, func(tx *quota.Tx) error {
			if n, err := t.states.usedIn(tx.Books, second); err != nil || n > usedBefore {
				return err
			}
			return t.states.use(tx.Books, first, 1)
		}}
	}
	const b = usedBefore
	return []clash{
		{"both charge a book", "never let both succeed from one state", false, charge, charge, [][2]int64{{b + 2, b}}},
		{"both charge a book that is new", "that a book did not exist is compared too", true, charge, charge, [][2]int64{{2, 0}}},
		{"they charge different books", "write nothing but what fn has changed", false, charge, second(charge), [][2]int64{{b + 1, b + 1}}},
		{"each charges one of two books unless the other is charged", "compare every book that was named, not only those that fn " +
			"has changed", false, chargeUnless, second(chargeUnless), [][2]int64{{b + 1, b}, {b, b + 1}}},
		{"one drops a book unless the other charges it", "compare also what is dropped", false, dropUnused, charge,
			[][2]int64{{b + 1, b}, {1, b}}},
		{"one charges a book that the other drops", "that a book does not exist any more is compared too", false, charge, drop,
			[][2]int64{{0, b}, {1, b}}},
	}
}

// decidesInTurn has Updates overlap, each on either store.
func decidesInTurn(t *trial) error {
	for _, clash := range t.clashes() {
		for i, first := range t.both() {
			second := t.both()[1-i]
			names := [2]string{sumQuota, sumQuota2}
			if clash.fresh {
				names = [2]string{fmt.Sprintf("sum:new %d", i), fmt.Sprintf("sum:newer %d", i)}
			} else if err := t.reset(names, usedBefore); err != nil {
				return err
			}
			if err := overlap(first, second, clash.one(names[0], names[1]), clash.two(names[0], names[1])); err != nil {
				return fmt.Errorf("%s: %w", clash.what, err)
			}
			found, err := second.counts(names)
			if err != nil {
				return err
			}
			if !slices.Contains(clash.right, found) {
				return fmt.Errorf("%s: afterwards %s has %d requests and %s has %d, where it must be one of %v: %s",
					clash.what, names[0], found[0], names[1], found[1], clash.right, clash.hint)
			}
		}
	}
	return nil
}

// reset makes both books new, with so much used.
func (t *trial) reset(names [2]string, n int64) error {
	if _, err := t.update(names[:], func(tx *quota.Tx) error {
		clear(tx.Books)
		return errors.Join(t.states.use(tx.Books, names[0], n), t.states.use(tx.Books, names[1], n))
	}); err != nil {
		return fmt.Errorf("Update failed: %w", err)
	}
	return nil
}

// counts returns how much is used in each of the two quotas, as an Update shows it.
func (t *trial) counts(names [2]string) (found [2]int64, err error) {
	_, err = t.update(names[:], func(tx *quota.Tx) (err error) {
		for i, name := range names {
			if found[i], err = t.states.usedIn(tx.Books, name); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return found, fmt.Errorf("Update failed: %w", err)
	}
	return found, nil
}

// usedIn is used of books that stay those of their owner; 0 where there is none of that name.
func (s *states) usedIn(books map[string]*quota.Book, name string) (int64, error) {
	if books[name] == nil {
		return 0, nil
	}
	data, err := booksJSON(map[string]*quota.Book{name: books[name]})
	if err != nil {
		return 0, err
	}
	copied := make(map[string]*quota.Book)
	if err := json.Unmarshal(data, &copied); err != nil {
		return 0, err
	}
	return s.used(copied, name)
}

// admitsTogether lets two trackers reserve and commit until they are refused.
func admitsTogether(t *trial) error {
	const limit, callers = 60, 3
	const name = "shared"
	quotas := []quota.Quota{{Name: name, Limits: []quota.Limit{{Max: limit, Window: quota.Lifetime(), NoAlerts: true}}}}
	var group sync.WaitGroup
	var mu sync.Mutex
	granted := 0
	var errs []error
	var trackers []*quota.QuotaTracker
	for _, one := range t.both() {
		tracker, err := newTracker(t.ctx, one.store, NewClock(t.states.end), quotas)
		if err != nil {
			return fmt.Errorf("quota.New failed: %w", err)
		}
		defer func() { _ = tracker.Close() }()
		trackers = append(trackers, tracker)
	}
	for _, tracker := range trackers {
		for range callers {
			group.Go(func() {
				for {
					r, err := tracker.Reserve(t.ctx, name)
					if err == nil {
						err = r.Commit(t.ctx)
					}
					mu.Lock()
					if err == nil {
						granted++
					} else if !errors.Is(err, quota.ErrExceeded) {
						errs = append(errs, err)
					}
					mu.Unlock()
					if err != nil {
						return
					}
				}
			})
		}
	}
	group.Wait()
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("a call beside others failed: %w", err)
	}
	if granted != limit {
		return fmt.Errorf("of a quota of %d requests two trackers were granted %d: never let two Updates succeed from one state",
			limit, granted)
	}
	for _, tracker := range trackers {
		if err := errors.Join(tracker.Refresh(t.ctx), tracker.Verify()); err != nil {
			return err
		}
		if status, _ := tracker.Status(name); len(status.Limits) != 1 || status.Limits[0].Used != limit {
			return fmt.Errorf("of %d requests that two trackers have used, one finds %v", limit, status.Limits)
		}
	}
	return nil
}

// leavesOthers has two trackers that are configured differently use a state.
func leavesOthers(t *trial) error {
	names := [2]string{"mine", "theirs"}
	for round := range 2 {
		for i, one := range t.both() {
			before, err := one.update([]string{names[1-i]}, func(*quota.Tx) error { return nil })
			if err != nil {
				return fmt.Errorf("Update failed: %w", err)
			}
			tracker, err := newTracker(t.ctx, one.store, NewClock(t.states.end), []quota.Quota{{Name: names[i]}})
			if err != nil {
				return fmt.Errorf("quota.New failed: %w", err)
			}
			if err := errors.Join(tracker.RecordUsage(t.ctx, names[i]), tracker.Close()); err != nil {
				return fmt.Errorf("a tracker cannot record usage: %w", err)
			}
			after, err := one.update([]string{names[1-i]}, func(*quota.Tx) error { return nil })
			if err != nil {
				return fmt.Errorf("Update failed: %w", err)
			}
			if wrong := difference("Books", before, after); wrong != "" {
				return fmt.Errorf("round %d: a tracker of %q has changed the book of %q: %s", round+1, names[i], names[1-i], wrong)
			}
		}
	}
	return nil
}
