package quotatest_test

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/quota"
	"example.com/quota/quotatest"
)

// A server is what the stores of several processes have in common: books with a version each, and a clock.
type server struct {
	flaw string
	now  func() time.Time // nil: it has none

	mu      sync.Mutex // guards what follows
	books   map[string]versioned
	history map[string][]quota.DaySummary
	state   quota.State // without books and history
	asked   int
	late    map[string]versioned // what is still to come
}

type versioned struct {
	version int // 0: there has never been one
	data    []byte
}

// An optimist is a SharedPersistence on a server that locks nothing: it compares what fn was shown when it writes. It
// has one flaw; "" for none.
type optimist struct {
	*server
	skew time.Duration // of this process's clock
	seen map[string]versioned
}

func newOptimist(flaw string, now func() time.Time) *optimist {
	return &optimist{server: &server{flaw: flaw, now: now, books: map[string]versioned{}}, skew: -10 * time.Second}
}

func (o *optimist) Reopen() (quota.Persistence, error) {
	return &optimist{server: o.server, skew: 10 * time.Second}, nil
}

func (o *optimist) is(flaw string) bool { return o.flaw == flaw }

func (o *optimist) Load(context.Context) (*quota.State, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.books) == 0 && o.state.Version == 0 {
		return nil, nil
	}
	s := o.state
	s.Version = 2
	s.Books, _ = o.read(o.books, nil)
	s.History = copyOf(&quota.State{History: o.history}).History
	return &s, nil
}

func (o *optimist) Save(ctx context.Context, s *quota.State) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	for name, book := range o.books {
		o.books[name] = versioned{book.version + 1, nil}
	}
	for name, book := range s.Books {
		o.books[name] = versioned{o.books[name].version + 1, []byte(encoded(book))}
	}
	o.state = *s
	o.state.Books, o.state.History = nil, nil
	o.history = copyOf(s).History
	return nil
}

// read returns books of all or of names, and the versions of those names.
func (o *optimist) read(from map[string]versioned, names []string) (map[string]*quota.Book, map[string]versioned) {
	books, known := map[string]*quota.Book{}, map[string]versioned{}
	for _, name := range names {
		known[name] = from[name]
	}
	for name, stored := range from {
		if names != nil && !slices.Contains(names, name) {
			continue
		}
		known[name] = stored
		if stored.data == nil {
			continue
		}
		books[name] = new(quota.Book)
		if err := json.Unmarshal(stored.data, books[name]); err != nil {
			panic(err)
		}
	}
	return books, known
}

// time is what Tx.Now shows.
func (o *optimist) time() time.Time {
	o.asked++
	switch {
	case o.now == nil, o.is("has a time now and then") && o.asked%2 == 0:
		return time.Time{}
	case o.is("shows the clock of its process"):
		return o.now().Add(o.skew)
	case o.is("asks its own clock whether Until has come"):
		return o.now().Add(time.Hour)
	}
	return o.now()
}

func (o *optimist) Update(ctx context.Context, names []string, fn func(*quota.Tx) error) error {
	var spoilt map[string]*quota.Book
	for range 50 {
		if err := ctx.Err(); err != nil {
			return err
		}
		o.mu.Lock()
		from := o.books
		if o.is("goes on from what it has seen") && o.seen != nil {
			from = o.seen
		}
		books, known := o.read(from, names)
		if o.is("shows a book that was not named") && len(names) == 1 {
			others, _ := o.read(from, nil)
			maps.Copy(books, others)
		}
		tx := &quota.Tx{Now: o.time(), Books: books}
		o.mu.Unlock()
		if o.is("keeps what a run has changed that came too late") && spoilt != nil {
			tx.Books = spoilt
		}
		handed := maps.Clone(tx.Books)
		if err := fn(tx); err != nil {
			return err
		}
		done, err := o.commit(ctx, tx, handed, known)
		if done || err != nil {
			return err
		}
		spoilt = tx.Books
	}
	return errors.New("gave up")
}

// commit writes what fn has changed, if nobody has been quicker and its time has not come.
func (o *optimist) commit(ctx context.Context, tx *quota.Tx, handed map[string]*quota.Book, known map[string]versioned) (bool, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	changes := map[string]versioned{}
	for name, book := range tx.Books {
		if book != handed[name] {
			changes[name] = versioned{known[name].version + 1, []byte(encoded(book))}
		}
	}
	for name := range handed {
		if tx.Books[name] == nil {
			changes[name] = versioned{known[name].version + 1, nil}
		}
	}
	for name, version := range known {
		change, changed := changes[name]
		ignored := o.is("lets the last one win") || o.is("compares only what it writes") && !changed ||
			o.is("does not compare a book that is missing") && version.data == nil ||
			o.is("does not compare what it drops") && changed && change.data == nil ||
			o.is("takes a dropped book for one that never was") && o.books[name].data == nil ||
			o.is("goes on from what it has seen")
		if o.books[name].version != version.version && !ignored {
			return false, nil
		}
	}
	if end := tx.Until; o.now != nil && !end.IsZero() {
		now := o.now()
		switch {
		case o.is("compares Until with the time that it has shown"):
			now = tx.Now
		case o.is("shows the clock of its process"):
			now = now.Add(o.skew)
		}
		if !now.Before(end) {
			return false, nil
		}
	}
	if ctx.Err() != nil {
		switch {
		case o.is("applies a failed update with the next one"):
			o.late = changes
			return false, ctx.Err()
		case o.is("applies an update once more that it has not acknowledged"):
		case o.is("applies a part when it fails"):
			for name, book := range changes {
				if strings.HasSuffix(name, "a") {
					o.books[name] = book
				}
			}
			return false, ctx.Err()
		case o.is("says that it has kept what it has not"):
			return true, nil
		default:
			return false, ctx.Err()
		}
	}
	if o.is("drops books that were not named") && len(changes) > 0 {
		for name, book := range o.books {
			if _, named := known[name]; !named {
				o.books[name] = versioned{book.version + 1, nil}
			}
		}
	}
	maps.Copy(o.books, changes)
	if o.is("applies an update once more that it has not acknowledged") && ctx.Err() != nil {
		o.late = changes
		return true, ctx.Err()
	}
	if len(changes) > 0 {
		maps.Copy(o.books, o.late)
		o.late = nil
	}
	if o.is("goes on from what it has seen") {
		o.seen = maps.Clone(o.books)
	}
	return true, ctx.Err()
}

func TestPersistenceAcceptsOneThatLocksNothing(t *testing.T) {
	for name, now := range map[string]func() time.Time{"without a time of its own": nil, "with a time of its own": time.Now} {
		t.Run(name, func(t *testing.T) {
			require.NoError(t, quotatest.TestPersistence(func() (quota.Persistence, error) { return newOptimist("", now), nil }))
		})
	}
}

// reopenable is a JSONFile that can be opened once more.
type reopenable struct {
	*quota.JSONFile
	path string
}

func (r reopenable) Reopen() (quota.Persistence, error) { return quota.NewJSONFile(r.path), nil }

func TestPersistenceAcceptsTwoJSONFilesOnOneState(t *testing.T) {
	require.NoError(t, quotatest.TestPersistence(func() (quota.Persistence, error) {
		path := filepath.Join(t.TempDir(), "state.json")
		return reopenable{quota.NewJSONFile(path), path}, nil
	}))
}

func TestPersistenceNamesTheFlawOfStoresOnOneState(t *testing.T) {
	const inTurn = "of two Updates at once one is decided on what the other has left: "
	for flaw, rule := range someOf(map[string]string{
		"lets the last one win":                                    inTurn + "both charge a book: afterwards sum:a has 6 requests",
		"compares only what it writes":                             inTurn + "each charges one of two books unless the other is charged",
		"does not compare a book that is missing":                  inTurn + "both charge a book that is new: afterwards sum:new 0 has 1 requests",
		"does not compare what it drops":                           inTurn + "one drops a book unless the other charges it: afterwards sum:a has 0",
		"takes a dropped book for one that never was":              inTurn + "one charges a book that the other drops: afterwards sum:a has 6",
		"goes on from what it has seen":                            "show each other's changes: store 2 has changed",
		"keeps what a run has changed that came too late":          "run 2 of fn is shown: Books",
		"shows the clock of its process":                           "does not run back: Tx.Now was",
		"has a time now and then":                                  "a store has a time of its own, or none",
		"asks its own clock whether Until has come":                "fn ran once at",
		"compares Until with the time that it has shown":           "compare Until with the store's time when the change is written",
		"applies a failed update with the next one":                "takes effect at once or never: ",
		"applies an update once more that it has not acknowledged": "an error of Update is final, nothing comes afterwards",
		"applies a part when it fails":                             "takes effect at once or never: Update returned an error (context canceled), and",
		"says that it has kept what it has not":                    "takes effect at once or never: Update returned nil, and the next one finds",
		"shows a book that was not named":                          `fn gets the book of "sum:b", which was not named`,
		"drops books that were not named":                          `Books["sum:b"] is missing`,
	}) {
		t.Run(flaw, func(t *testing.T) {
			t.Parallel()
			err := quotatest.TestPersistence(func() (quota.Persistence, error) { return newOptimist(flaw, time.Now), nil })
			require.ErrorContains(t, err, rule)
			for line := range strings.SplitSeq(err.Error(), "\n") {
				require.Regexp(t, "^quotatest: .+: .+", line)
			}
		})
	}
}

func TestPersistenceReportsAStoreThatCannotBeReopened(t *testing.T) {
	err := quotatest.TestPersistence(func() (quota.Persistence, error) { return stubborn{newOptimist("", nil)}, nil })
	require.ErrorIs(t, err, errStubborn)
	err = quotatest.TestPersistence(func() (quota.Persistence, error) { return forgetful{newOptimist("", nil)}, nil })
	require.ErrorContains(t, err, "Reopen returned a *quotatest_test.plain, which is no SharedPersistence")
}

var errStubborn = errors.New("no more connections")

type stubborn struct{ *optimist }

func (stubborn) Reopen() (quota.Persistence, error) { return nil, errStubborn }

type forgetful struct{ *optimist }

func (forgetful) Reopen() (quota.Persistence, error) { return &plain{}, nil }
