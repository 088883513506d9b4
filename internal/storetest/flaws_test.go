package storetest

import (
	"context"
	"encoding/json"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/quota"
)

// A flawedStore does with a store what none must do.
type flawedStore struct {
	quota.SharedPersistence
	flaw string

	mu      sync.Mutex // guards what follows
	updates int
	late    func() // what is still to be written
	books   []byte // what is kept
}

var errFlaw = errors.New("the store is out of order")

func (s *flawedStore) Update(ctx context.Context, names []string, fn func(*quota.Tx) error) error {
	if names == nil {
		return s.SharedPersistence.Update(ctx, names, fn)
	}
	s.mu.Lock()
	s.updates++
	n, late := s.updates, s.late
	s.late = nil
	s.mu.Unlock()
	if late != nil {
		late()
	}
	switch {
	case s.flaw == "lets the last one win":
		left, err := s.look(ctx, names, fn)
		if err != nil {
			return err
		}
		return s.put(ctx, names, left)
	case s.flaw == "keeps what it acknowledges for a while" && n%25 > 0:
		return s.keep(ctx, names, fn)
	case s.flaw == "keeps what it acknowledges for a while":
		if err := s.keep(ctx, names, fn); err != nil {
			return err
		}
		return s.put(ctx, names, s.kept())
	case s.flaw == "writes later what it has said to have failed" && n%20 == 0:
		left, err := s.look(ctx, names, fn)
		if err == nil {
			err = s.put(ctx, names, left)
		}
		s.mu.Lock()
		s.late = func() { _ = s.put(context.Background(), names, left) }
		s.mu.Unlock()
		return errors.Join(errFlaw, err)
	case s.flaw == "loses every tenth update" && n%10 == 0:
		_, err := s.look(ctx, names, fn)
		return err
	}
	return s.SharedPersistence.Update(ctx, names, fn)
}

// look runs fn and returns what it leaves, without writing it.
func (s *flawedStore) look(ctx context.Context, names []string, fn func(*quota.Tx) error) (map[string]*quota.Book, error) {
	var left map[string]*quota.Book
	err := s.SharedPersistence.Update(ctx, names, func(tx *quota.Tx) error {
		mine := *tx
		mine.Books = copies(tx.Books)
		err := fn(&mine)
		left = mine.Books
		return err
	})
	return left, err
}

func copies(books map[string]*quota.Book) (copied map[string]*quota.Book) {
	data, err := json.Marshal(books)
	if err != nil {
		panic(err)
	}
	if err := json.Unmarshal(data, &copied); err != nil {
		panic(err)
	}
	return copied
}

// put makes books those of names, whatever stands there.
func (s *flawedStore) put(ctx context.Context, names []string, books map[string]*quota.Book) error {
	return s.SharedPersistence.Update(ctx, names, func(tx *quota.Tx) error {
		clear(tx.Books)
		for name, book := range books {
			changed := *book
			tx.Books[name] = &changed
		}
		return nil
	})
}

// keep is Update that writes nothing, and goes on from what it has kept.
func (s *flawedStore) keep(ctx context.Context, names []string, fn func(*quota.Tx) error) error {
	left, err := s.look(ctx, names, func(tx *quota.Tx) error {
		if s.books != nil {
			tx.Books = s.kept()
		}
		return fn(tx)
	})
	if err != nil {
		return err
	}
	s.books, err = json.Marshal(left)
	return err
}

func (s *flawedStore) kept() (books map[string]*quota.Book) {
	if err := json.Unmarshal(s.books, &books); err != nil {
		panic(err)
	}
	return books
}

var few = Numbers{Processes: 4, Callers: 3, Requests: 150, Kills: 3, Restarts: 1}

func scenarioOf(t *testing.T, name string) scenario {
	t.Helper()
	for _, s := range scenarios() {
		if s.name == name {
			return s
		}
	}
	require.Fail(t, "there is no scenario "+name)
	return scenario{}
}

func TestAFleetFindsFlaws(t *testing.T) {
	for _, test := range []struct {
		flaw, scenario string
		says           string // one of these
		processes      int
	}{
		{"lets the last one win", "in peace", "cannot be committed|were granted", 4},
		{"writes later what it has said to have failed", "in peace", "cannot be committed|were granted|the books say", 4},
		{"keeps what it acknowledges for a while", "processes are killed", "acknowledged (grants are|usage is) lost|cannot", 1},
		{"keeps what it acknowledges for a while", "holds are handed over", "a hold of one process", 2},
	} {
		t.Run(test.flaw+", "+test.scenario, func(t *testing.T) {
			n := few
			n.Processes = test.processes
			f := newFleet(all, Server{Address: test.flaw + "@" + t.TempDir()}, n, newSeed(t))
			report, err := f.run(t.Context(), scenarioOf(t, test.scenario))
			t.Log(report, err)
			require.Error(t, err)
			require.Regexp(t, test.says, err.Error())
		})
	}
}

func TestAFleetFindsFlawsOfAServer(t *testing.T) {
	for _, test := range []struct{ flaw, scenario, says string }{
		{"lets the last one win", "in peace", "cannot be committed|were granted"},
		{"carries a command out as often as it comes", "connections are cut", "cannot be committed|were granted|the books say"},
		{"forgets the last commands when it is restarted", "the server is restarted", "cannot be committed|were granted|the books say"},
		{"shows the clock of the process", "over midnight", "no process's clock may|of the store's clock|gave up"},
	} {
		t.Run(test.flaw+", "+test.scenario, func(t *testing.T) {
			server := startToy(t, test.flaw)
			f := newFleet(all, Server{Address: server.address, Restart: server.restart}, few, newSeed(t))
			report, err := f.run(t.Context(), scenarioOf(t, test.scenario))
			t.Log(report, err)
			require.Error(t, err)
			require.Regexp(t, test.says, err.Error())
		})
	}
}

func TestSequencesFindFlaws(t *testing.T) {
	for flaw, says := range map[string]string{
		"loses every tenth update":                     "in memory\n",
		"writes later what it has said to have failed": "out of order",
		"keeps what it acknowledges for a while":       "in memory\n",
	} {
		t.Run(flaw, func(t *testing.T) {
			subject := all
			s := newSequence(subject, Server{Address: flaw + "@" + t.TempDir()}, newSeed(t), 0)
			err := s.run(t.Context(), 1000)
			require.ErrorContains(t, err, says)
		})
	}
}

func TestSequencesFindAStoreThatDoesNotHeedItsClock(t *testing.T) {
	server := startToy(t, "")
	subject := toys
	subject.Open = func(ctx context.Context, place Place) (quota.Persistence, func(), error) {
		place.Ahead = func() time.Duration { return 0 }
		return toys.Open(ctx, place)
	}
	s := newSequence(subject, Server{Address: server.address}, newSeed(t), 0)
	require.ErrorContains(t, s.run(t.Context(), 1), "does Open heed Place.Ahead?")
}
