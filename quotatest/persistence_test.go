package quotatest_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"maps"
	"os"
	"path/filepath"
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

// plain is a Persistence in memory with one flaw; "" for none.
type plain struct {
	flaw  string
	state *quota.State
	fails bool
}

// copyOf copies a state by way of JSON.
func copyOf(s *quota.State) *quota.State {
	if s == nil {
		return nil
	}
	data, err := json.Marshal(s)
	if err != nil {
		panic(err)
	}
	return read(data)
}

func read(data []byte) *quota.State {
	s := new(quota.State)
	if err := json.Unmarshal(data, s); err != nil {
		panic(err)
	}
	return s
}

func copyBook(book *quota.Book) *quota.Book {
	return copyOf(&quota.State{Books: map[string]*quota.Book{"": book}}).Books[""]
}

// shallow copies a state down to the books, and these only on their surface.
func shallow(s *quota.State) *quota.State {
	copied := *s
	copied.Books = make(map[string]*quota.Book)
	for name, book := range s.Books {
		surface := *book
		copied.Books[name] = &surface
	}
	copied.History = copyOf(s).History
	return &copied
}

func rename(s *quota.State, to func(string) string) {
	books := make(map[string]*quota.Book)
	for name, book := range s.Books {
		books[to(name)] = book
	}
	s.Books = books
}

func (p *plain) Load(ctx context.Context) (*quota.State, error) {
	if err := ctx.Err(); err != nil && p.flaw != "forgets when the context is done" {
		return nil, err
	} else if err != nil {
		return nil, nil
	}
	switch p.flaw {
	case "makes up a state":
		if p.state == nil {
			return &quota.State{}, nil
		}
	case "returns the state it keeps":
		return p.state, nil
	case "returns copies that share":
		if p.state != nil {
			return shallow(p.state), nil
		}
	case "forgets after Load":
		s := p.state
		p.state = nil
		return s, nil
	}
	return copyOf(p.state), nil
}

func (p *plain) Save(ctx context.Context, s *quota.State) error {
	if p.fails {
		return errors.New("broken for good")
	}
	if err := ctx.Err(); err != nil {
		switch p.flaw {
		case "says it has saved when the context is done":
			return nil
		case "saves a part when the context is done":
			p.state.Books = copyOf(s).Books
		case "never recovers":
			p.fails = true
		}
		return err
	}
	kept := copyOf(s)
	switch p.flaw {
	case "saves nothing":
		return nil
	case "saves once":
		if p.state != nil {
			return nil
		}
	case "keeps the state":
		kept = s
	case "keeps the books":
		kept.Books = maps.Clone(s.Books)
	case "keeps what books refer to":
		kept = shallow(s)
	case "keeps the history":
		kept.History = maps.Clone(s.History)
	case "returns the state it keeps":
	case "drops the history":
		kept.History = nil
	case "drops the oldest day":
		for name, days := range kept.History {
			kept.History[name] = days[1:]
		}
	case "drops the version":
		kept.Version = 0
	case "drops the generation":
		kept.Generation = 0
	case "drops the time":
		kept.UpdatedAt = time.Time{}
	case "never drops a book":
		if p.state != nil {
			for name, book := range p.state.Books {
				if kept.Books[name] == nil {
					kept.Books[name] = book
				}
			}
		}
	case "never drops a history":
		if p.state != nil {
			all := make(map[string][]quota.DaySummary)
			maps.Copy(all, p.state.History)
			maps.Copy(all, kept.History)
			kept.History = all
		}
	case "counts the generation in the state it is given":
		s.Generation++
	case "spoils the books it is given":
		for _, book := range s.Books {
			*book = quota.Book{}
		}
	case "rounds numbers":
		var tree any
		data, _ := json.Marshal(s.Books)
		if err := json.Unmarshal(data, &tree); err != nil {
			return err
		}
		data, _ = json.Marshal(tree)
		if err := json.Unmarshal(data, &kept.Books); err != nil {
			return err
		}
	case "does not tell case":
		rename(kept, func(name string) string {
			if strings.EqualFold(name, "case") {
				return "case"
			}
			return name
		})
	case "trims names":
		rename(kept, strings.TrimSpace)
	case "normalises names":
		rename(kept, func(name string) string { return strings.ReplaceAll(name, "e\u0301", "\u00e9") })
	case "takes names for paths":
		rename(kept, filepath.Clean)
	case "has room for a megabyte":
		if data, _ := json.Marshal(s); len(data) > 1<<20 {
			return errors.New("too large")
		}
	case "":
	default:
		if !slices.Contains(loadFlaws, p.flaw) {
			panic("no such flaw: " + p.flaw)
		}
	}
	p.state = kept
	return nil
}

// loadFlaws and those of a done context show elsewhere than in Save.
var loadFlaws = []string{
	"makes up a state", "returns copies that share", "forgets after Load", "forgets when the context is done",
	"says it has saved when the context is done", "saves a part when the context is done", "never recovers",
}

func TestPersistenceAcceptsOneThatWorks(t *testing.T) {
	require.NoError(t, quotatest.TestPersistence(func() (quota.Persistence, error) { return &plain{}, nil }))
}

func TestPersistenceAcceptsAFile(t *testing.T) {
	require.NoError(t, quotatest.TestPersistence(func() (quota.Persistence, error) {
		return &file{filepath.Join(t.TempDir(), "state")}, nil
	}))
}

func TestPersistenceAcceptsTheJSONFile(t *testing.T) {
	require.NoError(t, quotatest.TestPersistence(func() (quota.Persistence, error) {
		return quota.NewJSONFile(filepath.Join(t.TempDir(), "state.json")), nil
	}))
}

// file keeps a state in one file, as simply as can be.
type file struct{ path string }

func (f *file) Load(context.Context) (*quota.State, error) {
	data, err := os.ReadFile(f.path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	s := new(quota.State)
	return s, json.Unmarshal(data, s)
}

func (f *file) Save(_ context.Context, s *quota.State) error {
	data, err := json.Marshal(s)
	if err != nil {
		return err
	}
	if err := os.WriteFile(f.path+".new", data, 0o600); err != nil {
		return err
	}
	return os.Rename(f.path+".new", f.path)
}

func TestPersistenceNamesTheFlawOfABrokenOne(t *testing.T) {
	for flaw, rule := range map[string]string{
		"makes up a state":                               "nothing was saved in returns nil, nil: Load returned a state with 0 books",
		"saves nothing":                                  "Load returns what was saved: Load returned nil after a Save",
		"saves once":                                     "Save replaces what was saved before: after a second Save: Generation is 1, was 2",
		"forgets after Load":                             "Load returns what was saved: the second Load differs",
		"keeps the state":                                "Save does not keep the state it is given: the caller has changed a field",
		"keeps the books":                                "Save does not keep the state it is given: the caller has changed the books in place",
		"keeps what books refer to":                      "Save does not keep the state it is given: the caller has changed the books in place",
		"keeps the history":                              "Save does not keep the state it is given: the caller has changed the history in place",
		"returns the state it keeps":                     "Load's result belongs to the caller: the caller has changed a field",
		"returns copies that share":                      "Load's result belongs to the caller: the caller has changed the books in place",
		"drops the history":                              `Load returns what was saved: History["calls"] is missing`,
		"drops the oldest day":                           `Load returns what was saved: History["calls"] has`,
		"drops the version":                              "Load returns what was saved: Version is 0, was",
		"drops the generation":                           "Load returns what was saved: Generation is 0, was 1",
		"drops the time":                                 "Load returns what was saved: UpdatedAt is 0001",
		"never drops a book":                             `and a history that were there: Books["user:ann"] is there, and was not; drop what`,
		"never drops a history":                          `and a history that were there: History["unlimited"] is there, and was not; drop what`,
		"counts the generation in the state it is given": "Save has changed the state it was given: Generation is 2, was 1; only read it",
		"spoils the books it is given":                   `Save has changed the state it was given: Books["calls"]`,
		"rounds numbers":                                 `is 4611686018427388000, was 4611686018427387903`,
		"does not tell case":                             `any quota name can be saved: Books["CASE"] is missing; keep names byte for byte`,
		"trims names":                                    `any quota name can be saved: Books[" trailing"] is missing`,
		"normalises names":                               "any quota name can be saved: Books[\"cafe\u0301\"] is missing",
		"takes names for paths":                          `any quota name can be saved: Books["`,
		"has room for a megabyte":                        "a large state can be saved: Save failed: too large",
		"says it has saved when the context is done":     "Save returned nil, but has not saved",
		"saves a part when the context is done":          "left neither the old nor the new state",
		"never recovers":                                 "the next Save fails too: broken for good",
		"forgets when the context is done":               "Load with a context that is done loads all or reports an error: Load returned nil, nil",
	} {
		t.Run(flaw, func(t *testing.T) {
			err := quotatest.TestPersistence(func() (quota.Persistence, error) { return &plain{flaw: flaw}, nil })
			require.ErrorContains(t, err, rule)
			for line := range strings.SplitSeq(err.Error(), "\n") {
				require.Regexp(t, "^quotatest: .+: .+", line)
			}
		})
	}
}

func TestPersistenceReportsAFactoryThatDoesNotWork(t *testing.T) {
	failure := errors.New("no database")
	err := quotatest.TestPersistence(func() (quota.Persistence, error) { return nil, failure })
	require.ErrorIs(t, err, failure)
	err = quotatest.TestPersistence(func() (quota.Persistence, error) { return nil, nil })
	require.EqualError(t, err, "quotatest: newPersistence returned nil, return a store")
	var same plain
	err = quotatest.TestPersistence(func() (quota.Persistence, error) { return &same, nil })
	require.ErrorContains(t, err, "the store is not empty: newPersistence must return a new one each time")
}

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
	shown := slices.Collect(maps.Keys(tx.Books))
	before := p.begin(old, names)

	if p.is("lets the last one win") {
		p.mu.Unlock()
	}
	err := fn(tx)
	if p.is("runs fn again on what it left") && err == nil {
		err = fn(tx)
	}
	if now := tx.Now; !now.IsZero() && !tx.Until.IsZero() && !p.is("does not run fn again") {
		tx = p.begin(old, names)
		err = fn(tx)
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
	next := copyOf(old)
	if p.is("lets the last one win") && p.state != nil {
		next = copyOf(p.state)
	}
	if next.Books == nil {
		next.Books = make(map[string]*quota.Book)
	}
	if p.is("drops the history") {
		next.History = nil
	}
	for _, name := range shown {
		if tx.Books[name] == nil && !p.is("never drops a book") {
			delete(next.Books, name)
		}
	}
	for name, book := range tx.Books {
		switch {
		case p.is("keeps a part when the context is done") && !slices.Contains(names, name) && names != nil:
		case p.is("keeps only new books") && before.Books[name] != nil:
		case p.is("keeps the books of the Tx"):
			next.Books[name] = book
		case p.is("keeps what books refer to"):
			surface := *book
			next.Books[name] = &surface
		default:
			next.Books[name] = copyBook(book)
		}
	}
	if p.is("keeps the books of the Tx") || p.is("keeps what books refer to") {
		p.state = next
	} else {
		p.state = copyOf(next)
	}
	if p.first == nil {
		p.first = copyOf(next)
	}
	return err
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
	for flaw, rule := range map[string]string{
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
		"hides the error of fn":                 "fn has returned an error and Update <nil>: return fn's error or wrap it",
		"keeps what fn changed before an error": "fn has returned an error, and what it changed stayed",
		"runs fn on the books it keeps":         "fn has returned an error, and what it changed stayed",
		"keeps the books of the Tx":             "the caller has changed the books of a Tx after Update: the next Load shows",
		"keeps what books refer to":             "the caller has changed the books of a Tx after Update: the next Load shows",
		"loads the books it keeps":              "the caller has changed the books of a loaded state: the next Load shows",
		"does not show what was saved":          "Update and Save see each other's books",
		"drops the history":                     `after Save and Update: History["calls"] is missing; Update leaves the history alone`,
		"lets the last one win":                 "Updates at once lose nothing: Updates of",
		"runs fn again on what it left":         "Updates at once lose nothing: Updates of",
		"keeps a part when the context is done": "and kept a part",
		"does not run fn again":                 "fn ran once at",
	} {
		t.Run(flaw, func(t *testing.T) {
			err := quotatest.TestPersistence(func() (quota.Persistence, error) { return &shared{flaw: flaw, now: time.Now}, nil })
			require.ErrorContains(t, err, rule)
			for line := range strings.SplitSeq(err.Error(), "\n") {
				require.Regexp(t, "^quotatest: .+: .+", line)
			}
		})
	}
}

func TestPackageNeedsOnlyTheStandardLibrary(t *testing.T) {
	sources, err := filepath.Glob("*.go")
	require.NoError(t, err)
	for _, source := range sources {
		if strings.HasSuffix(source, "_test.go") {
			continue
		}
		data, err := os.ReadFile(source)
		require.NoError(t, err)
		require.False(t, bytes.Contains(data, []byte("testify")), source)
	}
}
