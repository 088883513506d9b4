package redisquota

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"time"

	"example.com/quota"
)

const (
	// decisionLife bounds how old a decision may be when the server carries it out: what a process decided before it was
	// stopped for a while, or what was on its way for long, is not carried out.
	decisionLife  = time.Second
	mostConflicts = 1000
	mostLate      = 20 // times that a decision had no time left when it came to the server
)

// Update implements quota.SharedPersistence. fn runs on the books as this Store has last seen them, and one script then
// compares their revisions and the time and writes what has changed: one round trip, unless somebody else has been
// quicker. Its last run was on the newest books, also where it returns an error or has changed nothing.
//
// An error of fn is returned as it is. Every other error matches quota.ErrNotSaved, and is final as the contract wants it:
// Update returns only when the change stands or cannot come to stand any more, which takes up to a second where the
// server was asked to write and does not answer.
func (s *Store) Update(ctx context.Context, names []string, fn func(*quota.Tx) error) error {
	if err := ctx.Err(); err != nil {
		return s.notSaved(err)
	}
	u := &update{store: s, all: names == nil, names: slices.Clone(names), begun: time.Now()}
	slices.Sort(u.names)
	u.names = slices.Compact(u.names)
	refused, err := u.run(ctx, fn)
	if err != nil {
		return s.notSaved(err)
	}
	return refused
}

// An update is one call of Update.
type update struct {
	store *Store
	all   bool
	names []string

	versions map[string]version // of the names, as far as is known
	now      time.Time
	fresh    bool // the versions were the newest at now, after the call began

	conflicts, late int           // in a row
	begun           time.Time     // when fn was to run last
	turn            time.Duration // how long a turn must be for fn to run and be carried out in it
}

// run returns what fn returned when it ran on what turned out to be the newest books.
func (u *update) run(ctx context.Context, fn func(*quota.Tx) error) (refused, err error) {
	end := u.store.stay()
	defer func() { end(time.Since(u.begun)) }()
	if err := u.begin(ctx); err != nil {
		return nil, err
	}
	for {
		u.begun = time.Now()
		books, err := u.store.decode(u.versions)
		if err != nil {
			return nil, err
		}
		tx := &quota.Tx{Now: u.now, Books: maps.Clone(books)}
		var changes map[string]version
		if refused = fn(tx); refused != nil {
			tx.Until = time.Time{}
		} else if changes, err = u.changes(tx.Books, books); err != nil {
			return nil, err
		}
		if len(changes) == 0 && u.fresh && (tx.Until.IsZero() || u.now.Before(tx.Until)) {
			return refused, nil
		}
		c := u.commit(tx.Until, changes)
		a, err := u.ask(ctx, c)
		if err != nil {
			return nil, err
		}
		if a.status == "ok" || a.status == "done" {
			u.store.install(c, a, changes)
			return refused, nil
		}
		if err := u.again(ctx, a); err != nil {
			return nil, err
		}
	}
}

// begin finds out on what fn is to run: what is known, or, where that is not enough or the server has failed before, what
// the server says. Asking first also shows whether it is there, before it is sent anything to be written.
func (u *update) begin(ctx context.Context) error {
	if u.all {
		return u.fetchAll(ctx)
	}
	s := u.store
	s.mu.Lock()
	unknown := s.failing
	u.versions, u.now = make(map[string]version, len(u.names)), s.clock.now()
	for _, name := range u.names {
		v, known := s.cache.find(name)
		if !known {
			unknown, v = true, version{}
		}
		u.versions[name] = v
	}
	s.mu.Unlock()
	if !unknown {
		return nil
	}
	a, err := s.read(ctx, s.reading(u.names, u.versions))
	if err != nil {
		return err
	}
	u.take(a)
	return nil
}

func (u *update) fetchAll(ctx context.Context) error {
	a, all, err := u.store.readAll(ctx, false)
	if err != nil {
		return err
	}
	u.versions, u.now, u.fresh = all, a.now, true
	return nil
}

// take goes on from what a reply says.
func (u *update) take(a *answer) {
	maps.Copy(u.versions, a.books)
	u.now, u.fresh = a.now, true
}

// changes returns what fn has changed.
func (u *update) changes(after, handed map[string]*quota.Book) (map[string]version, error) {
	changes := map[string]version{}
	for name, book := range after {
		if _, named := slices.BinarySearch(u.names, name); !named && !u.all {
			return nil, fmt.Errorf("%w: an update of %q must not add the book of %q", quota.ErrInvalidRequest, u.names, name)
		}
		if book == nil || book == handed[name] {
			continue
		}
		data, err := encode(name, book)
		if err != nil {
			return nil, err
		}
		changes[name] = version{data: data, read: readAs(book.Clone())}
	}
	for name := range handed {
		if after[name] == nil {
			changes[name] = version{}
		}
	}
	return changes, nil
}

// commit makes the command that carries out a decision.
func (u *update) commit(until time.Time, changes map[string]version) *command {
	s := u.store
	c := &command{
		script: s.scripts.commit, token: newToken(), writes: len(changes) > 0,
		decided: u.now, before: u.now.Add(decisionLife),
	}
	if !until.IsZero() && until.Before(c.before) {
		c.before = until
	}
	asks := ""
	if u.conflicts+1 >= turnAfter {
		asks = "1"
	}
	length := min(max(u.turn, shortestTurn), longestTurn).Microseconds()
	updated, _ := u.now.MarshalText() // a server's time has one
	names := u.names
	if u.all {
		names = slices.Collect(maps.Keys(u.versions))
		for name := range changes {
			if _, known := u.versions[name]; !known {
				u.versions[name] = s.absent()
				names = append(names, name)
			}
		}
	}
	c.args = append(c.args, micros(c.decided), micros(c.before), s.id, length, asks, updated, len(names))
	for _, name := range names {
		c.args = append(c.args, name, u.versions[name].revision)
	}
	for name, v := range changes {
		c.args = append(c.args, name, v.data)
	}
	return c
}

func (u *update) ask(ctx context.Context, c *command) (*answer, error) {
	if c.writes {
		return u.store.write(ctx, c)
	}
	return u.store.read(ctx, c)
}

// again prepares the next run of fn, after the server has not carried out what the last one decided.
func (u *update) again(ctx context.Context, a *answer) error {
	lost := a.status == "conflict" || a.status == "busy"
	if lost {
		u.conflicts++
	} else {
		u.late++
		u.conflicts = 0
	}
	switch {
	case u.late >= mostLate:
		return fmt.Errorf("gave up after fn has run %d times: what it decides does not hold until the server comes to it", u.late)
	case u.conflicts >= mostConflicts:
		return fmt.Errorf("gave up after %d conflicts with others in a row", u.conflicts)
	}
	u.turn = max(u.turn, turnsOfWork*time.Since(u.begun))
	wait, err := strconv.ParseInt(a.text(0), 10, 64)
	switch {
	case err == nil:
		u.store.awaitTurn(ctx, time.Duration(wait)*time.Microsecond)
	case lost:
		sleep(ctx, rand.N(min(smallestJitter<<min(u.conflicts, 10), longestPoll)))
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	switch {
	case u.all && lost: // there may be more books than before
		return u.fetchAll(ctx)
	case wait > 0:
		if a, err = u.store.read(ctx, u.store.reading(u.names, u.versions)); err != nil {
			return err
		}
	}
	u.take(a)
	return nil
}

const smallestJitter = 100 * time.Microsecond

// reading makes the command that reads named books, of which these versions are known.
func (s *Store) reading(names []string, known map[string]version) *command {
	c := &command{script: s.scripts.commit, token: newToken()}
	c.args = append(c.args, "", "", "", 0, "", "", len(names))
	for _, name := range names {
		c.args = append(c.args, name, known[name].revision)
	}
	return c
}

// readAll returns every book that there is; whole: with the time of the last change and the finished days.
func (s *Store) readAll(ctx context.Context, whole bool) (*answer, map[string]version, error) {
	c := &command{script: s.scripts.load, token: newToken(), all: true}
	s.mu.Lock()
	since, all := s.cache.snapshot()
	s.mu.Unlock()
	flag := 0
	if whole {
		since, all, flag = -1, nil, 1
	}
	c.args = append(c.args, since, flag)
	a, err := s.read(ctx, c)
	if err != nil {
		return nil, nil, err
	}
	var names map[string]bool
	if a.text(0) == "1" && len(a.rest) > 1 {
		list, err := texts(a.rest[1])
		if err != nil {
			return nil, nil, fmt.Errorf("the server has replied with names that are none: %w", err)
		}
		names = make(map[string]bool, len(list))
		for _, name := range list {
			names[name] = true
		}
	}
	all = overlay(all, a.books, names)
	s.mu.Lock()
	defer s.mu.Unlock()
	if c.epoch == s.epoch {
		s.cache.fill(a.generation, maps.Clone(all))
	}
	return a, all, nil
}

func (s *Store) absent() version {
	s.mu.Lock()
	defer s.mu.Unlock()
	return absence(s.cache.deleted)
}

// install remembers what a command has left.
func (s *Store) install(c *command, a *answer, changes map[string]version) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case c.epoch != s.epoch:
	case a.status == "done": // its generation is not known
		s.cache.clear()
	default:
		revision := fmt.Sprintf("%d.%s", a.generation, c.token)
		for name, v := range changes {
			if v.revision = revision; v.data == nil {
				v = absence(revision)
			}
			changes[name] = v
		}
		s.cache.put(a.generation, changes)
	}
}
