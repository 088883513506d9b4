package quotatest_test

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/quota"
	"example.com/quota/quotatest"
)

// shared is a SharedPersistence in memory with one flaw; "" for none.
type shared struct {
	flaw  string
	mu    sync.Mutex
	state *quota.State
	first *quota.State // the first that was saved
	now   func() time.Time
}

func (p *shared) is(flaw string) bool { return p.flaw == flaw }

func (p *shared) Load(context.Context) (*quota.State, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.is("loads a stale state") && p.first != nil:
		return copyOf(p.first), nil
	case p.is("loads the books it keeps") && p.state != nil:
		return shallow(p.state), nil
	}
	return copyOf(p.state), nil
}

func (p *shared) Save(_ context.Context, s *quota.State) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.state = copyOf(s)
	if p.is("does not show what was saved") {
		p.first, p.state = copyOf(s), nil
	}
	return nil
}

func (p *shared) Update(ctx context.Context, names []string, fn func(*quota.Tx) error) error {
	if p.is("does not call fn") {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	old := p.state
	if old == nil {
		old = &quota.State{Version: 2}
	}
	tx := p.begin(old, names)
	before := maps.Clone(tx.Books)

	if p.is("lets the last one win") {
		p.mu.Unlock()
	}
	err := fn(tx)
	if p.is("runs fn again on what it left") && err == nil {
		err = fn(tx)
	}
	late := func() bool { return !tx.Now.IsZero() && !tx.Until.IsZero() && !p.now().Before(tx.Until) }
	for runs := 1; err == nil && late() && !p.is("does not run fn again") && (runs < 5 || p.is("runs fn for ever")); runs++ {
		tx = p.begin(old, names)
		before = maps.Clone(tx.Books)
		err = fn(tx)
	}
	if err == nil && late() && !p.is("does not run fn again") && !p.is("is late") {
		err = errors.New("too late")
	}
	if p.is("lets the last one win") {
		runtime.Gosched()
		p.mu.Lock()
	}
	if err != nil {
		if p.is("hides the error of fn") {
			return nil
		}
		if !p.is("keeps what fn changed before an error") {
			return err
		}
	}
	if done := ctx.Err(); done != nil {
		if !p.is("keeps a part when the context is done") || len(names) == 0 {
			return done
		}
		names, err = names[:1], done
	}

	// Only now, so that nothing is left behind by an fn that fails.
	if p.is("lets the last one win") && p.state != nil {
		old = p.state
	}
	next := *old
	next.Books = make(map[string]*quota.Book)
	maps.Copy(next.Books, old.Books) // no kept book ever changes
	if p.is("drops the history") {
		next.History = nil
	}
	for name := range before {
		if tx.Books[name] == nil && !p.is("never drops a book") {
			delete(next.Books, name)
		}
	}
	for name, book := range tx.Books {
		switch {
		case p.is("keeps a part when the context is done") && !slices.Contains(names, name) && names != nil:
		case p.is("keeps only new books") && before[name] != nil:
		case p.is("compares what books refer to") && before[name] != nil && encoded(book) == encoded(before[name]):
		case p.is("keeps the books of the Tx"):
			next.Books[name] = book
		case p.is("keeps what books refer to"):
			surface := *book
			next.Books[name] = &surface
		default:
			next.Books[name] = copyBook(book)
		}
	}
	p.state = &next
	if p.first == nil {
		p.first = &next
	}
	return err
}

func encoded(book *quota.Book) string {
	data, _ := json.Marshal(book)
	return string(data)
}

// begin returns what fn is shown.
func (p *shared) begin(state *quota.State, names []string) *quota.Tx {
	tx := &quota.Tx{Books: make(map[string]*quota.Book)}
	if p.now != nil {
		tx.Now = p.now()
	}
	for name, book := range state.Books {
		wanted := names == nil && !p.is("shows none of nil") || slices.Contains(names, name) || p.is("shows all")
		if !wanted || p.is("shows nothing") {
			continue
		}
		if !p.is("runs fn on the books it keeps") {
			book = copyBook(book)
		}
		tx.Books[name] = book
	}
	switch {
	case p.is("has a nil map") && len(tx.Books) == 0:
		tx.Books = nil
	case p.is("has nil books"):
		for _, name := range names {
			if tx.Books[name] == nil {
				tx.Books[name] = nil
			}
		}
	case p.is("sets Until"):
		tx.Until = time.Unix(1e9, 0)
	}
	return tx
}

func TestPersistenceAcceptsASharedOneThatWorks(t *testing.T) {
	for name, now := range map[string]func() time.Time{"without a time of its own": nil, "with a time of its own": time.Now} {
		t.Run(name, func(t *testing.T) {
			require.NoError(t, quotatest.TestPersistence(func() (quota.Persistence, error) { return &shared{now: now}, nil }))
		})
	}
}

func TestPersistenceNamesTheFlawOfABrokenSharedOne(t *testing.T) {
	for flaw, rule := range someOf(map[string]string{
		"does not call fn":                      "Update returned nil and has not called fn",
		"has a nil map":                         "fn gets no Books: hand it a map, an empty one if there are none",
		"has nil books":                         `fn gets a nil book of "sum:a": leave out what does not exist`,
		"sets Until":                            "fn gets a Tx with Until set: hand it a new Tx in each run",
		"shows nothing":                         "Update keeps what fn changes: after Update 1: the next Update shows",
		"shows none of nil":                     `Update of []: Books["sum:a"] is missing`,
		"shows all":                             `fn gets the book of "sum:b", which was not named`,
		"keeps only new books":                  "Update keeps what fn changes: after Update 2: the next Load shows",
		"loads a stale state":                   "Update keeps what fn changes: after Update 2: the next Load shows",
		"never drops a book":                    `after fn has deleted the book of "sum:a": the next Load shows: Books["sum:a"] is there, and was not`,
		"hides the error of fn":                 "fn has returned an error, and Update has not (<nil>): return fn's error or wrap it",
		"keeps what fn changed before an error": "fn has returned an error, and what it changed stayed",
		"runs fn on the books it keeps":         "fn has returned an error, and what it changed stayed",
		"keeps the books of the Tx":             "the caller has changed the books of a Tx after Update: the next Load shows",
		"keeps what books refer to":             "the caller has changed the books of a Tx after Update: the next Load shows",
		"loads the books it keeps":              "the caller has changed the books of a loaded state: the next Load shows",
		"does not show what was saved":          "Update and Save see each other's books",
		"drops the history":                     `after Save and Update: History["calls"] is missing; Update leaves the history alone`,
		"lets the last one win":                 "Updates at once lose nothing: 12 times Update of",
		"runs fn again on what it left":         "Updates at once lose nothing: 12 times Update of",
		"keeps a part when the context is done": "and kept a part",
		"does not run fn again":                 "fn ran once at",
		"runs fn for ever":                      "fn has set Until to Now 200 times, and is run again",
		"is late":                               "fn has set Until to Now each time, and Update returned nil",
		"compares what books refer to":          "Update keeps what fn changes: after Update 2: the next Load shows",
	}) {
		t.Run(flaw, func(t *testing.T) {
			t.Parallel()
			err := quotatest.TestPersistence(func() (quota.Persistence, error) { return &shared{flaw: flaw, now: time.Now}, nil })
			require.ErrorContains(t, err, rule)
			for line := range strings.SplitSeq(err.Error(), "\n") {
				require.Regexp(t, "^quotatest: .+: .+", line)
			}
		})
	}
}
