package quota

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestTwoFilesOnOnePathLoseNoUpdate(t *testing.T) {
	path := statePath(t)
	opened(t, path)
	const each = 50
	var group sync.WaitGroup
	errs := make(chan error, 8*each)
	for range 2 {
		f := NewJSONFile(path)
		for range 4 {
			group.Go(func() {
				for range each {
					errs <- f.Update(context.Background(), []string{"a"}, func(tx *Tx) error {
						var n int64
						if book := tx.Books["a"]; book != nil {
							n = book.imported().used
						}
						tx.Books["a"] = importedBook(n+1, 0, 0)
						return nil
					})
				}
			})
		}
	}
	group.Wait()
	close(errs)
	for err := range errs {
		require.NoError(t, err)
	}
	require.Equal(t, map[string]int64{"a": 400}, saved(t, path))
}

func TestPeekSeesTheSaveOfAnotherAtOnce(t *testing.T) {
	path := statePath(t)
	f, other := opened(t, path), opened(t, path)
	for n := range int64(20) {
		_, token, err := f.peek(nil)
		require.NoError(t, err)
		now, known := f.generation()
		require.True(t, known)
		require.Equal(t, token, now, "nothing has been saved in between")
		mustSet(t, other, "a", n)
		now, known = f.generation()
		require.True(t, known)
		require.NotEqual(t, token, now)
		books, _, err := f.peek([]string{"a", "missing"})
		require.NoError(t, err)
		require.Equal(t, map[string]int64{"a": n}, numbers(books))
	}
}

func TestPeekWaitsForNoSaveAndSeesWhatTheRenameHasPublished(t *testing.T) {
	path := statePath(t)
	f, other := opened(t, path), opened(t, path)
	mustSet(t, f, "a", 1)
	_, before, err := other.peek(nil)
	require.NoError(t, err)
	look := func(want int64) (token uint64) {
		for _, reader := range []*JSONFile{f, other} {
			books, read, err := reader.peek(nil)
			require.NoError(t, err)
			require.Equal(t, map[string]int64{"a": want}, numbers(books))
			now, known := reader.generation()
			require.True(t, known)
			require.Equal(t, read, now)
			token = now
		}
		return token
	}
	trace(f, func(step string) error {
		switch step {
		case "sync", "rename to quota_state.json":
			require.Equal(t, before, look(1))
		case "sync directory", "mark saved":
			require.NotEqual(t, before, look(2))
		}
		return nil
	})
	mustSet(t, f, "a", 2)
	require.Equal(t, before+1, look(2))
}

func TestWhatIsHandedOutAndWhatIsKeptShareNothing(t *testing.T) {
	path := statePath(t)
	f := opened(t, path)
	mine := importedBook(1, 0, 0)
	require.NoError(t, f.Update(t.Context(), nil, func(tx *Tx) error {
		tx.Books["a"] = mine
		return nil
	}))
	require.False(t, mine.changed, "it has been saved")
	mine.imported().used = 100
	books, _, err := f.peek(nil)
	require.NoError(t, err)
	require.Equal(t, map[string]int64{"a": 1}, numbers(books))
	books["a"].imported().used = 200
	for _, names := range [][]string{nil, {"a"}} {
		require.ErrorIs(t, f.Update(t.Context(), names, func(tx *Tx) error {
			require.Equal(t, map[string]int64{"a": 1}, numbers(tx.Books))
			tx.Books["a"].imported().used, tx.Books["a"].changed = 300, true
			return os.ErrInvalid
		}), os.ErrInvalid)
	}
	state, err := f.Load(t.Context())
	require.NoError(t, err)
	require.Equal(t, map[string]int64{"a": 1}, numbers(state.Books))
}

func TestAnUpdateSeesTheNamedBooksAndMayChangeOnlyThose(t *testing.T) {
	path := statePath(t)
	f := opened(t, path)
	mustSet(t, f, "a", 1)
	mustSet(t, f, "b", 2)
	require.NoError(t, f.Update(t.Context(), []string{"b", "c", "b"}, func(tx *Tx) error {
		require.Equal(t, map[string]int64{"b": 2}, numbers(tx.Books))
		require.True(t, tx.Now.IsZero())
		delete(tx.Books, "b")
		tx.Books["c"] = importedBook(3, 0, 0)
		return nil
	}))
	require.Equal(t, map[string]int64{"a": 1, "c": 3}, saved(t, path))
	require.ErrorIs(t, f.Update(t.Context(), []string{"c"}, func(tx *Tx) error {
		tx.Books["a"] = importedBook(5, 0, 0)
		return nil
	}), ErrInvalidRequest)
	require.Equal(t, map[string]int64{"a": 1, "c": 3}, saved(t, path))
}

func TestAnErrorOrAPanicInAnUpdateSavesNothing(t *testing.T) {
	path := statePath(t)
	f := opened(t, path)
	mustSet(t, f, "a", 1)
	before := contents(t, path)
	mine := errors.New("mine")
	got := f.Update(t.Context(), nil, func(tx *Tx) error {
		tx.Books["a"] = importedBook(2, 0, 0)
		return mine
	})
	require.Same(t, mine, got)
	require.Panics(t, func() { _ = f.Update(t.Context(), nil, func(*Tx) error { panic("mine") }) })
	require.Equal(t, before, contents(t, path))
	mustSet(t, f, "a", 3)
}

func TestALockThatIsNotToBeHadIsAnErrorAfterABound(t *testing.T) {
	path := statePath(t)
	f, other := opened(t, path), opened(t, path)
	require.NoError(t, f.Update(t.Context(), nil, func(*Tx) error {
		other.bound = time.Nanosecond
		err := set(other, "a", 1)
		require.ErrorIs(t, err, ErrNotSaved)
		require.ErrorContains(t, err, path+lockSuffix)
		f.bound = time.Nanosecond
		require.ErrorIs(t, set(f, "a", 1), ErrNotSaved, "nor in the same process")
		f.bound = lockBound

		other.bound = lockBound
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		err = other.Update(ctx, nil, func(*Tx) error { return nil })
		require.ErrorIs(t, err, ErrNotSaved)
		require.ErrorIs(t, err, context.Canceled)
		return nil
	}))
}

func TestATrackerThatOwnsTheFileAloneExcludesTheOthers(t *testing.T) {
	path := statePath(t)
	f := NewJSONFile(path)
	release, err := f.open(t.Context(), true, testNow, quiet)
	require.NoError(t, err)
	for _, alone := range []bool{true, false} {
		_, err = NewJSONFile(path).open(t.Context(), alone, testNow, quiet)
		require.ErrorIs(t, err, ErrLocked)
		require.ErrorContains(t, err, path)
	}
	release()
	opened(t, path)
	opened(t, path)
	_, err = f.open(t.Context(), true, testNow, quiet)
	require.ErrorIs(t, err, ErrLocked)
}

func TestSaveRefusesAStateThatSomebodyElseHasChanged(t *testing.T) {
	path := statePath(t)
	f, other := NewJSONFile(path), NewJSONFile(path)
	s, err := f.Load(t.Context())
	require.NoError(t, err)
	require.Nil(t, s)
	require.NoDirExists(t, filepath.Dir(path))

	s = &State{Books: map[string]*Book{"a": importedBook(1, 0, 0)}}
	require.NoError(t, f.Save(t.Context(), s))
	require.NoError(t, f.Save(t.Context(), s), "saved through f itself")
	require.Zero(t, s.Generation, "the caller's state is not changed")
	require.True(t, s.Books["a"].changed)
	require.ErrorIs(t, other.Save(t.Context(), s), ErrConflict, "never loaded")
	read, err := other.Load(t.Context())
	require.NoError(t, err)
	require.EqualValues(t, 2, read.Generation)
	read.Generation = 40
	require.NoError(t, other.Save(t.Context(), read))
	err = f.Save(t.Context(), s)
	require.ErrorIs(t, err, ErrConflict)
	require.NotErrorIs(t, err, ErrNotSaved)
	read, err = f.Load(t.Context())
	require.NoError(t, err)
	require.EqualValues(t, 40, read.Generation)
	mustSet(t, f, "a", 5)
	require.ErrorIs(t, f.Save(t.Context(), read), ErrConflict, "an Update has changed it")

	require.ErrorIs(t, f.Save(t.Context(), &State{Version: stateVersion + 1}), ErrNewerState)
	require.ErrorIs(t, f.Save(t.Context(), &State{Version: 1}), ErrNotSaved)
	require.ErrorIs(t, f.Save(t.Context(), nil), ErrNotSaved)
}

func TestClearRemovesEverythingUnlessATrackerIsOpen(t *testing.T) {
	path := good(t)
	overwrite(t, historyPath(path), []byte("damage"))
	idle := NewJSONFile(path)
	mustSet(t, idle, "a", 3)
	overwrite(t, path, []byte("damage"))
	mine := filepath.Join(filepath.Dir(path), "mine.json")
	require.NoError(t, os.WriteFile(mine, nil, 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(filepath.Dir(path), ".quota_state.json.tmp-1"), nil, 0o600))
	f := NewJSONFile(path)
	release, err := f.open(t.Context(), false, testNow, quiet)
	require.NoError(t, err)
	require.NoError(t, f.Update(t.Context(), nil, finish("b", testDay.AddDate(0, 0, -1), 5)))
	for _, any := range []*JSONFile{f, NewJSONFile(path)} {
		err = any.Clear(t.Context())
		require.ErrorIs(t, err, ErrLocked)
		require.ErrorContains(t, err, path)
	}
	release()
	require.NoError(t, f.Clear(t.Context()))
	require.Equal(t, []string{"mine.json"}, files(t, path))
	require.Nil(t, saved(t, path))
	state, err := idle.Load(t.Context())
	require.NoError(t, err)
	require.Nil(t, state, "who has it not open remembers nothing")
	mustSet(t, f, "a", 1)
	require.Equal(t, map[string]int64{"a": 1}, saved(t, path))
	require.NoError(t, NewJSONFile(filepath.Join(t.TempDir(), "none", "quota_state.json")).Clear(t.Context()))
}

func TestWhatWasReadLateDoesNotReplaceWhatIsNewer(t *testing.T) {
	path := good(t)
	f := opened(t, path)
	late, err := readState(path+".bak", nil)
	require.NoError(t, err)
	require.False(t, f.rememberNewer(late))
	books, _, err := f.peek(nil)
	require.NoError(t, err)
	require.Equal(t, map[string]int64{"a": 2}, numbers(books))
}

func TestAnUnreadableSignIsNoHindrance(t *testing.T) {
	path := good(t)
	f := opened(t, path)
	for _, text := range []string{"", "x", "saved  99999999999999999999\n", "saved  0000000000000000000x\n", strings.Repeat("\x00", signSize)} {
		require.NoError(t, os.WriteFile(path+signSuffix, []byte(text), 0o600))
		_, known := f.generation()
		require.False(t, known)
		mustSet(t, f, "a", 3)
		_, known = f.generation()
		require.True(t, known)
	}
	require.Empty(t, f.recovered())
}
