package pgquota

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"time"

	"example.com/quota"
	"example.com/quota/internal/form"
)

const (
	mostRuns       = 12
	exclusiveAfter = 5 // conflicts
	shortestPause  = 2 * time.Millisecond
)

// Update implements quota.SharedPersistence: one transaction that takes the locks of the named quotas, in an order that all
// share, reads their books and the server's time, and writes what fn has changed. Those who want the same quota queue for
// it in the order in which they come. That is two round trips, and one more where fn is run again.
//
// An error of fn is returned as it is. Every other error matches quota.ErrNotSaved. When it comes from the loss of a
// connection during the COMMIT, nobody knows whether the change stands; but before anybody sees the books of the same
// quotas again in an Update, that is decided.
//
// With names nil the books are read without locks, in one round trip, and only written under a lock of them all.
func (s *Store) Update(ctx context.Context, names []string, fn func(*quota.Tx) error) error {
	u := &update{store: s, fn: fn}
	if names != nil {
		u.names = slices.Clone(names)
		slices.Sort(u.names)
		u.names = slices.Compact(u.names)
	}
	refused, err := u.run(ctx)
	if err != nil {
		return s.notSaved(err)
	}
	return refused
}

// An update is one call of Update.
type update struct {
	store     *Store
	names     []string // in order; nil: all
	fn        func(*quota.Tx) error
	exclusive bool // nobody else writes meanwhile
}

// run runs fn until what it decides has been committed. It returns what fn returned then.
func (u *update) run(ctx context.Context) (refused, err error) {
	conflicts := 0
	for runs := 1; ; runs++ {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		refused, err = u.try(ctx)
		var again *retry
		switch {
		case !errors.As(err, &again):
			return refused, err
		case runs == mostRuns:
			return nil, fmt.Errorf("gave up after %d attempts: %w", runs, err)
		case again.why == conflict:
			conflicts++
			u.exclusive = u.exclusive || conflicts >= exclusiveAfter
			sleep(ctx, rand.N(shortestPause<<conflicts))
		}
	}
}

// try runs fn once.
func (u *update) try(ctx context.Context) (refused, err error) {
	s := u.store
	var tx *transaction
	var read *snapshot
	if u.names == nil && !u.exclusive {
		read, err = s.look(ctx)
	} else if tx, err = s.begin(ctx, u.names, u.exclusive); err == nil {
		defer tx.end(ctx)
		read = &tx.snapshot
	}
	if err != nil {
		return nil, err
	}
	handed, err := s.decode(read.rows)
	if err != nil {
		return nil, err
	}
	work := &quota.Tx{Now: read.now, Books: maps.Clone(handed)}
	if refused := u.fn(work); refused != nil {
		return refused, nil
	}
	c, err := u.changes(read.rows, handed, work)
	switch {
	case err != nil || c.none():
		return nil, err
	case !work.Until.IsZero() && !work.Now.Before(work.Until):
		return nil, &retry{late, errors.New("what fn decides has come to its end before it is decided")}
	case tx == nil:
		u.exclusive = true // it must see the newest of all, and again
		return nil, &retry{late, errors.New("books were to be changed that were only looked at")}
	}
	var p pipeline
	c.add(&p, s, work.Now, work.Until)
	_, err = tx.commit(ctx, &p, u.touched())
	return nil, err
}

// touched are the quotas whose locks the transaction holds.
func (u *update) touched() []string {
	if u.names == nil {
		return []string{everything}
	}
	return u.names
}

// changes are what one statement compares and writes: of every quota named its revision, 0 for none, and the new book, nil
// where it has not changed, empty where it is dropped.
type changes struct {
	names     []string
	revisions []int64
	books     []*string
	days      []finishedDay
}

func (c *changes) none() bool {
	return !slices.ContainsFunc(c.books, func(book *string) bool { return book != nil })
}

// add appends the statement. It fails when the server comes to it at until or later; zero: whenever it does.
func (c *changes) add(p *pipeline, s *Store, now, until time.Time) {
	var end *int64
	if !until.IsZero() {
		micros := until.UnixMicro() - s.offset().Microseconds()
		end = &micros
	}
	p.add(s.tables.write, c.names, c.revisions, c.books, form.Version, now.UnixMicro(), end, encodeDays(p, c.days))
}

// changes finds out what fn has changed.
func (u *update) changes(rows map[string]row, handed map[string]*quota.Book, work *quota.Tx) (*changes, error) {
	names := u.names
	if names == nil {
		all := maps.Clone(handed)
		maps.Copy(all, work.Books)
		names = slices.Sorted(maps.Keys(all))
	}
	for name := range work.Books {
		if _, named := slices.BinarySearch(names, name); !named {
			return nil, fmt.Errorf("%w: an update of %q must not add the book of %q", quota.ErrInvalidRequest, names, name)
		}
	}
	c := &changes{names: names, revisions: make([]int64, len(names)), books: make([]*string, len(names))}
	for i, name := range names {
		before, book := rows[name], work.Books[name]
		c.revisions[i] = before.revision
		switch {
		case book == nil && before.revision != 0:
			c.books[i] = new(string)
		case book == nil || book == handed[name]:
		default:
			data, err := u.store.cache.encode(name, book)
			if err != nil {
				return nil, fmt.Errorf("encode the book of %q: %w", name, err)
			}
			days, err := newDays(name, before.book, data)
			if err != nil {
				return nil, err
			}
			text := string(data)
			c.books[i], c.days = &text, append(c.days, days...)
		}
	}
	return c, nil
}

func sleep(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
