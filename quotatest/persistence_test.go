package quotatest_test

import (
	"context"
	"encoding/json"
	"errors"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
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
	case "has room for half a megabyte":
		if data, _ := json.Marshal(s); len(data) > 1<<19 {
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

// someOf leaves out two flaws of three, other ones each time, under the race detector: it makes the suite many times slower,
// and the suite runs without it too.
func someOf(flaws map[string]string) map[string]string {
	some := map[string]string{}
	for flaw, rule := range flaws {
		if !raceDetector || 3*len(some) < len(flaws) {
			some[flaw] = rule
		}
	}
	return some
}

func TestPersistenceNamesTheFlawOfABrokenOne(t *testing.T) {
	for flaw, rule := range someOf(map[string]string{
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
		"has room for half a megabyte":                   "a large state can be saved: Save failed: too large",
		"says it has saved when the context is done":     "Save returned nil, but has not saved",
		"saves a part when the context is done":          "left neither the old nor the new state",
		"never recovers":                                 "the next Save fails too: broken for good",
		"forgets when the context is done":               "Load with a context that is done loads all or reports an error: Load returned nil, nil",
	}) {
		t.Run(flaw, func(t *testing.T) {
			t.Parallel()
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

func TestPackageNeedsNothingButTheStandardLibraryAndQuota(t *testing.T) {
	sources, err := filepath.Glob("*.go")
	require.NoError(t, err)
	require.NotEmpty(t, sources)
	for _, source := range sources {
		if strings.HasSuffix(source, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), source, nil, parser.ImportsOnly)
		require.NoError(t, err)
		for _, imported := range file.Imports {
			path, err := strconv.Unquote(imported.Path.Value)
			require.NoError(t, err)
			root, _, _ := strings.Cut(path, "/")
			require.True(t, path == "example.com/quota" || !strings.Contains(root, "."), "%s imports %s", source, path)
		}
	}
}
