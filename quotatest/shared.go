package quotatest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"time"

	"example.com/quota"
)

// sharedRules are those of a SharedPersistence.
func sharedRules() []rule {
	return []rule{
		{text: "Update keeps what fn changes", run: updates},
		{text: "Update shows fn the books named, and of nil all", run: showsNamed},
		{text: "a book that fn deletes is gone", run: deletes},
		{text: "an error of fn undoes what it has changed", run: undoes},
		{text: "the books of a Tx belong to the caller after Update", run: lendsNoBooks},
		{text: "Update and Save see each other's books", run: agreesWithSave},
		{text: "Updates at once lose nothing", run: losesNothing},
		{text: "Update with a context that is done keeps all that fn changes or reports an error", run: updatesWholly},
		{text: "fn runs again when the time it set in Until has come", run: heedsUntil},
		{text: "Update gives up when what fn decides never holds", run: givesUp},
		{text: "a book of any quota name can be updated", run: updatesNames},
	}
}

// allShared puts rules together that only a SharedPersistence must keep.
func allShared(lists ...[]rule) []rule {
	all := slices.Concat(lists...)
	for i := range all {
		all[i].shared = true
	}
	return all
}

// update runs fn in an Update and returns how its last run has left the books it saw.
func (t *trial) update(names []string, fn func(*quota.Tx) error) (map[string]any, error) {
	return t.updateWith(t.ctx, names, fn)
}

func (t *trial) updateWith(
	ctx context.Context, names []string, fn func(*quota.Tx) error,
) (left map[string]any, err error) {
	var wrong error // of the store; told apart from what fn returns
	ran := false
	err = t.shared.Update(ctx, names, func(tx *quota.Tx) error {
		ran = true
		if wrong = t.wrongTx(tx, names); wrong != nil {
			return wrong
		}
		if err := fn(tx); err != nil {
			return err
		}
		left, wrong = bookTrees(tx.Books)
		return wrong
	})
	switch {
	case wrong != nil:
		return nil, wrong
	case err == nil && !ran:
		return nil, errors.New("Update returned nil and has not called fn")
	}
	return left, err
}

// wrongTx returns what is wrong with the Tx that fn is handed.
func (t *trial) wrongTx(tx *quota.Tx, names []string) error {
	switch {
	case tx == nil || tx.Books == nil:
		return errors.New("fn gets no Books: hand it a map, an empty one if there are none")
	case !tx.Until.IsZero():
		return errors.New("fn gets a Tx with Until set: hand it a new Tx in each run")
	}
	for name, book := range tx.Books {
		if book == nil {
			return fmt.Errorf("fn gets a nil book of %q: leave out what does not exist", name)
		}
		if names != nil && !slices.Contains(names, name) {
			return fmt.Errorf("fn gets the book of %q, which was not named", name)
		}
	}
	return nil
}

// charge records n requests of each name in one Update of them.
func (t *trial) charge(n int64, names ...string) (map[string]any, error) {
	left, err := t.update(names, func(tx *quota.Tx) error {
		for _, name := range names {
			if err := t.states.use(tx.Books, name, n); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("Update failed: %w", err)
	}
	return left, nil
}

// agree makes sure that these are the books that Load and Update show.
func (t *trial) agree(books map[string]any) error {
	s, err := t.load()
	if err != nil {
		return err
	}
	if s == nil {
		s = &quota.State{}
	}
	loaded, err := bookTrees(s.Books)
	if err != nil {
		return err
	}
	if wrong := difference("Books", books, loaded); wrong != "" {
		return fmt.Errorf("the next Load shows: %s", wrong)
	}
	shown, err := t.update(nil, func(*quota.Tx) error { return nil })
	if err != nil {
		return fmt.Errorf("Update failed: %w", err)
	}
	if wrong := difference("Books", books, shown); wrong != "" {
		return fmt.Errorf("the next Update shows: %s", wrong)
	}
	return nil
}

func updates(t *trial) error {
	for n := range int64(3) { // the first creates the books
		left, err := t.charge(n+1, sumQuota, sumQuota2)
		if err != nil {
			return err
		}
		if err := t.agree(left); err != nil {
			return fmt.Errorf("after Update %d: %w", n+1, err)
		}
	}
	// Another book altogether; those above share with the one handed out all but their pointer.
	left, err := t.update([]string{sumQuota}, func(tx *quota.Tx) error {
		tx.Books[sumQuota] = t.states.late().Books[sumQuota]
		return nil
	})
	if err != nil {
		return fmt.Errorf("Update failed: %w", err)
	}
	shown, err := t.update([]string{sumQuota}, func(*quota.Tx) error { return nil })
	if err != nil {
		return fmt.Errorf("Update failed: %w", err)
	}
	if wrong := difference("Books", left, shown); wrong != "" {
		return fmt.Errorf("after fn has put another book in the place of one: %s", wrong)
	}
	return nil
}

func showsNamed(t *trial) error {
	all, err := t.charge(1, sumQuota, sumQuota2, userQuota)
	if err != nil {
		return err
	}
	for _, names := range [][]string{nil, {sumQuota}, {sumQuota2, userQuota}, {"user:nobody"}, {sumQuota, "user:nobody"}} {
		wanted := make(map[string]any)
		for name, book := range all {
			if names == nil || slices.Contains(names, name) {
				wanted[name] = book
			}
		}
		shown, err := t.update(names, func(*quota.Tx) error { return nil })
		if err != nil {
			return fmt.Errorf("Update of %q failed: %w", names, err)
		}
		if wrong := difference("Books", wanted, shown); wrong != "" {
			return fmt.Errorf("Update of %q: %s", names, wrong)
		}
	}
	return t.agree(all)
}

func deletes(t *trial) error {
	all, err := t.charge(1, sumQuota, sumQuota2)
	if err != nil {
		return err
	}
	if _, err := t.update([]string{sumQuota}, func(tx *quota.Tx) error {
		delete(tx.Books, sumQuota)
		return nil
	}); err != nil {
		return fmt.Errorf("Update failed: %w", err)
	}
	delete(all, sumQuota)
	if err := t.agree(all); err != nil {
		return fmt.Errorf("after fn has deleted the book of %q: %w; drop what fn takes out of Books", sumQuota, err)
	}
	again, err := t.charge(1, sumQuota, sumQuota2)
	if err != nil {
		return fmt.Errorf("a deleted book cannot be made anew: %w", err)
	}
	return t.agree(again)
}

func undoes(t *trial) error {
	all, err := t.charge(1, sumQuota, sumQuota2)
	if err != nil {
		return err
	}
	refusal := errors.New("fn has refused")
	for _, names := range [][]string{nil, {sumQuota, sumQuota2, userQuota}} {
		_, err = t.update(names, func(tx *quota.Tx) error {
			if err := t.states.use(tx.Books, sumQuota, 10); err != nil {
				return err
			}
			if err := t.states.use(tx.Books, userQuota, 10); err != nil {
				return err
			}
			delete(tx.Books, sumQuota2)
			return refusal
		})
		if !errors.Is(err, refusal) {
			return fmt.Errorf("fn has returned an error, and Update has not (%s): return fn's error or wrap it", fmt.Sprint(err))
		}
		if err := t.agree(all); err != nil {
			return fmt.Errorf("fn has returned an error, and what it changed stayed: %w; run fn on copies", err)
		}
	}
	after, err := t.charge(1, sumQuota, sumQuota2)
	if err != nil {
		return fmt.Errorf("after an error of fn: %w", err)
	}
	return t.agree(after)
}

func lendsNoBooks(t *trial) error {
	if _, err := t.charge(1, sumQuota, sumQuota2); err != nil {
		return err
	}
	var mine map[string]*quota.Book
	left, err := t.update(nil, func(tx *quota.Tx) error {
		mine = tx.Books
		tx.Books[userQuota] = t.states.late().Books[userQuota]
		return t.states.use(tx.Books, sumQuota, 2)
	})
	if err != nil {
		return fmt.Errorf("Update failed: %w", err)
	}
	for _, owned := range []struct {
		what string
		get  func() (map[string]*quota.Book, error)
	}{
		{"a Tx after Update", func() (map[string]*quota.Book, error) { return mine, nil }},
		{"a loaded state", func() (map[string]*quota.Book, error) {
			s, err := t.load()
			if err != nil || s == nil {
				return nil, fmt.Errorf("Load has lost what Update left: %w", err)
			}
			return s.Books, nil
		}},
	} {
		books, err := owned.get()
		if err != nil {
			return err
		}
		for _, change := range []func() error{
			func() error { return t.states.use(books, sumQuota, 100) },
			func() error { return t.states.use(books, userQuota, 100) },
			func() error {
				for _, book := range books {
					*book = quota.Book{}
				}
				return nil
			},
			func() error { clear(books); return nil },
		} {
			if err := change(); err != nil {
				return err
			}
			if err := t.agree(left); err != nil {
				return fmt.Errorf("the caller has changed the books of %s: %w; keep a copy, all the way down", owned.what, err)
			}
		}
	}
	return nil
}

func agreesWithSave(t *trial) error {
	saved, err := t.begin(t.states.late())
	if err != nil {
		return err
	}
	books := tree(saved.books)
	if err := t.agree(books); err != nil {
		return fmt.Errorf("after Save: %w", err)
	}
	left, err := t.charge(1, userQuota)
	if err != nil {
		return err
	}
	books[userQuota] = left[userQuota]
	if err := t.agree(books); err != nil {
		return fmt.Errorf("after Save and Update: %w", err)
	}
	s, err := t.load()
	if err != nil {
		return err
	}
	loaded, err := formOf(s)
	if err != nil {
		return err
	}
	if wrong := difference("History", tree(saved.history), tree(loaded.history)); wrong != "" {
		return fmt.Errorf("after Save and Update: %s; Update leaves the history alone", wrong)
	}
	return nil
}

func losesNothing(t *trial) error {
	const rounds = 12
	type writer struct {
		names []string
		book  string
	}
	wanted := make(map[string]int64)
	for _, pair := range [][2]writer{
		{{[]string{sumQuota}, sumQuota}, {[]string{sumQuota}, sumQuota}},
		{{[]string{sumQuota}, sumQuota}, {[]string{sumQuota2}, sumQuota2}},
		{{[]string{sumQuota, sumQuota2}, sumQuota}, {[]string{sumQuota2, sumQuota}, sumQuota2}},
		{{nil, sumQuota}, {[]string{sumQuota2}, sumQuota2}},
	} {
		var group sync.WaitGroup
		var errs [len(pair)]error
		for i, w := range pair {
			wanted[w.book] += rounds
			group.Go(func() {
				for range rounds {
					if errs[i] = t.shared.Update(t.ctx, w.names, func(tx *quota.Tx) error {
						if err := t.wrongTx(tx, w.names); err != nil {
							return err
						}
						runtime.Gosched() // the other one may come in between
						return t.states.use(tx.Books, w.book, 1)
					}); errs[i] != nil {
						return
					}
				}
			})
		}
		group.Wait()
		if err := cmp.Or(errs[:]...); err != nil {
			return fmt.Errorf("an Update beside another failed: %w; let one wait, or run its fn again", err)
		}
		s, err := t.load()
		if err != nil {
			return err
		}
		if s == nil {
			return errors.New("Load returned nil after an Update")
		}
		for name, n := range wanted {
			found, err := t.states.used(s.Books, name)
			if err != nil {
				return err
			}
			if found != n {
				return fmt.Errorf("%d times Update of %q beside Update of %q has left %d requests in %s where %d were recorded: "+
					"never let both succeed from one state, and give each run of fn fresh books",
					rounds, pair[0].names, pair[1].names, found, name, n)
			}
		}
	}
	return nil
}

func updatesWholly(t *trial) error {
	before, err := t.charge(1, sumQuota, sumQuota2)
	if err != nil {
		return err
	}
	done, cancel := context.WithCancel(t.ctx)
	cancel()
	names := []string{sumQuota, sumQuota2}
	after, updateErr := t.updateWith(done, names, func(tx *quota.Tx) error {
		return errors.Join(t.states.use(tx.Books, sumQuota, 1), t.states.use(tx.Books, sumQuota2, 1))
	})
	if updateErr == nil {
		if err := t.agree(after); err != nil {
			return fmt.Errorf("Update returned nil, but %w; return the context's error", err)
		}
	} else if err := t.agree(before); err != nil && (after == nil || t.agree(after) != nil) {
		return fmt.Errorf("Update returned an error (%w) and kept a part: %w; keep all or nothing", updateErr, err)
	}
	again, err := t.charge(1, names...)
	if err != nil {
		return fmt.Errorf("the next Update: %w; the store must recover", err)
	}
	return t.agree(again)
}

func heedsUntil(t *trial) error {
	runs, timed := 0, false
	var first time.Time
	left, err := t.update([]string{sumQuota}, func(tx *quota.Tx) error {
		runs++
		if runs == 1 && !tx.Now.IsZero() {
			timed, first = true, tx.Now
			tx.Until = tx.Now // it has come already
			return t.states.use(tx.Books, sumQuota, 100)
		}
		return t.states.use(tx.Books, sumQuota, 1)
	})
	if err != nil {
		return fmt.Errorf("Update failed: %w", err)
	}
	if timed && runs == 1 {
		return fmt.Errorf("fn ran once at %v with Until at the same time: run it again, or leave Now zero "+
			"if the store has no time", first)
	}
	return t.agree(left)
}

func givesUp(t *trial) error {
	const enough = 200
	before, err := t.charge(1, sumQuota)
	if err != nil {
		return err
	}
	endless := errors.New("fn is run for ever")
	runs, timed := 0, false
	_, err = t.update([]string{sumQuota}, func(tx *quota.Tx) error {
		if runs++; runs > enough {
			return endless
		}
		if timed = !tx.Now.IsZero(); !timed {
			return nil
		}
		tx.Until = tx.Now
		return t.states.use(tx.Books, sumQuota, 1)
	})
	switch {
	case !timed && err != nil:
		return fmt.Errorf("Update failed: %w", err)
	case !timed:
		return nil
	case runs > enough:
		return fmt.Errorf("fn has set Until to Now %d times, and is run again: give up after a few times", enough)
	case err == nil:
		return errors.New("fn has set Until to Now each time, and Update returned nil: return an error and keep nothing")
	}
	if err := t.agree(before); err != nil {
		return fmt.Errorf("Update gave up after %d runs of fn, and yet: %w; keep nothing", runs, err)
	}
	return nil
}

func updatesNames(t *trial) error {
	names := unusualNames()
	all, err := t.charge(1, names...)
	if err != nil {
		return fmt.Errorf("%w; quota names are any UTF-8 without control characters, up to 256 bytes", err)
	}
	if err := t.agree(all); err != nil {
		return fmt.Errorf("%w; keep names byte for byte", err)
	}
	for _, name := range names {
		shown, err := t.update([]string{name}, func(*quota.Tx) error { return nil })
		if err != nil {
			return fmt.Errorf("Update of %q failed: %w", name, err)
		}
		if wrong := difference("Books", map[string]any{name: all[name]}, shown); wrong != "" {
			return fmt.Errorf("Update of %q shows: %s; keep names byte for byte", name, wrong)
		}
	}
	return nil
}
