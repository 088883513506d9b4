package quota

import (
	"bytes"
	"context"
	"errors"
	"fmt"
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
							n = book.imported.used
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
	mine.imported.used = 100
	books, _, err := f.peek(nil)
	require.NoError(t, err)
	require.Equal(t, map[string]int64{"a": 1}, numbers(books))
	books["a"].imported.used = 200
	for _, names := range [][]string{nil, {"a"}} {
		require.ErrorIs(t, f.Update(t.Context(), names, func(tx *Tx) error {
			require.Equal(t, map[string]int64{"a": 1}, numbers(tx.Books))
			tx.Books["a"].imported.used, tx.Books["a"].changed = 300, true
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

// good returns a state's path with two generations in it, a: 1 in the .bak and a: 2.
func good(t *testing.T) (path string) {
	path = statePath(t)
	f := NewJSONFile(path)
	mustSet(t, f, "a", 1)
	mustSet(t, f, "a", 2)
	return path
}

func setAside(t *testing.T, path string) []string {
	t.Helper()
	found, err := filepath.Glob(path + ".corrupt-*")
	require.NoError(t, err)
	return found
}

func TestADamagedStateIsSetAsideAndTheGenerationBeforeIsUsed(t *testing.T) {
	valid := `{"version": 2, "generation": 9, "updated_at": "2026-11-23T12:00:00Z", "books": {}`
	for name, data := range map[string]string{
		"empty":                "",
		"zeros":                string(make([]byte, 512)),
		"no object":            "[]",
		"cut off":              valid,
		"no version":           `{"generation": 9, "books": {}}`,
		"no generation":        `{"version": 2, "books": {}}`,
		"no books":             `{"version": 2, "generation": 9}`,
		"an older version":     `{"version": 1, "generation": 9, "books": {}}`,
		"a negative number":    `{"version": 2, "generation": -9, "books": {}}`,
		"a number too large":   `{"version": 2, "generation": 18446744073709551615, "books": {}}`,
		"a fraction":           `{"version": 2, "generation": 9.5, "books": {}}`,
		"a wrong type":         `{"version": 2, "generation": 9, "books": []}`,
		"no book":              `{"version": 2, "generation": 9, "books": {"a": null}}`,
		"an unknown member":    valid + `, "extra": 1}`,
		"in another case":      `{"Version": 2, "generation": 9, "books": {}}`,
		"trailing data":        valid + `} {}`,
		"a member twice":       valid + `, "books": {}}`,
		"a book twice":         `{"version": 2, "generation": 9, "books": {"a": {}, "a": {}}}`,
		"a deep member twice":  valid + `, "history": {"a": [{"quota": "a", "quota": "a", "day": "2026-11-22T00:00:00Z"}]}}`,
		"a negative day":       valid + `, "history": {"a": [{"quota": "a", "calls": -1, "day": "2026-11-22T00:00:00Z"}]}}`,
		"not UTF-8":            valid + ", \"history\": {\"\xff\": []}}",
		"a wrong checksum":     valid + ",\n  \"checksum\": \"crc32c:00000000\"\n}\n",
		"a damaged Python one": `{"version": "1.0", "last_updated": "2026-01-26T15:35:09Z", "limits": {"a": {"used": -1}}}`,
	} {
		t.Run(name, func(t *testing.T) {
			path := good(t)
			overwrite(t, path, []byte(data))
			_, err := NewJSONFile(path).Strict().open(t.Context(), false, testNow, quiet)
			require.ErrorIs(t, err, ErrCorruptState)
			require.ErrorContains(t, err, path)
			require.Equal(t, data, string(contents(t, path)), "Strict touches nothing")

			f := opened(t, path)
			aside := setAside(t, path)
			require.Equal(t, []string{path + ".corrupt-20261123T120000.000Z"}, aside)
			require.Equal(t, data, string(contents(t, aside[0])))
			require.Contains(t, f.recovered(), filepath.Base(aside[0]))
			require.Contains(t, f.recovered(), ".bak")
			require.Equal(t, map[string]int64{"a": 1}, saved(t, path))
		})
	}
}

func TestAStateLargerThanTheLimitIsNotRead(t *testing.T) {
	path := good(t)
	require.NoError(t, os.Truncate(path, stateLimit+1))
	f := opened(t, path)
	require.Contains(t, f.recovered(), fmt.Sprint(stateLimit))
	require.Equal(t, map[string]int64{"a": 1}, saved(t, path))
}

func TestSetAsideStatesNeverReplaceEachOther(t *testing.T) {
	path := statePath(t)
	for n := range 4 {
		overwrite(t, path, fmt.Appendf(nil, "damage %d", n))
		overwrite(t, path+".bak", fmt.Appendf(nil, "damage too %d", n))
		f := NewJSONFile(path)
		release, err := f.open(t.Context(), false, testNow, quiet)
		require.NoError(t, err)
		require.Contains(t, f.recovered(), "starts anew")
		release()
	}
	require.Len(t, setAside(t, path), 4)
	require.Len(t, setAside(t, path+".bak"), 4)
	require.Empty(t, saved(t, path))
}

func TestAMissingStateBesideItsBackupIsRecovered(t *testing.T) {
	path := good(t)
	require.NoError(t, os.Remove(path))
	_, err := NewJSONFile(path).Strict().Load(t.Context())
	require.ErrorIs(t, err, ErrCorruptState)
	loading := NewJSONFile(path)
	loading.logger = quiet
	for range 2 {
		state, err := loading.Load(t.Context())
		require.NoError(t, err)
		require.Equal(t, map[string]int64{"a": 1}, numbers(state.Books))
		require.Equal(t, 1, strings.Count(loading.recovered(), "missing:"), "reported once")
	}
	f := opened(t, path)
	require.Contains(t, f.recovered(), "missing")
	require.Equal(t, map[string]int64{"a": 1}, saved(t, path))
}

func TestAStateThatIsGoneAltogetherIsAFreshStartThatIsReported(t *testing.T) {
	path := good(t)
	require.NoError(t, os.Remove(path))
	require.NoError(t, os.Remove(path+".bak"))
	f := opened(t, path)
	require.Contains(t, f.recovered(), "gone")
	require.Empty(t, saved(t, path))

	f = opened(t, statePath(t))
	require.Empty(t, f.recovered(), "a first start is nothing to report")
}

func TestARunningTrackerPutsItsNewerMemoryBack(t *testing.T) {
	for name, damage := range map[string]func(t *testing.T, path string, older []byte){
		"damaged": func(t *testing.T, path string, _ []byte) { overwrite(t, path, []byte("damage")) },
		"missing": func(t *testing.T, path string, _ []byte) { require.NoError(t, os.Remove(path)) },
		"older":   func(t *testing.T, path string, older []byte) { overwrite(t, path, older) },
		"all gone": func(t *testing.T, path string, _ []byte) {
			require.NoError(t, os.RemoveAll(filepath.Dir(path)))
		},
	} {
		t.Run(name, func(t *testing.T) {
			path := good(t)
			older := contents(t, path+".bak")
			f := opened(t, path)
			generation := f.memory.generation
			damage(t, path, older)
			books, _, err := f.peek(nil)
			require.NoError(t, err)
			require.Equal(t, map[string]int64{"a": 2}, numbers(books))

			require.NoError(t, f.Update(t.Context(), nil, func(*Tx) error { return nil }))
			require.Contains(t, f.recovered(), "memory of this program", f.recovered())
			require.Equal(t, map[string]int64{"a": 2}, saved(t, path))
			require.Greater(t, f.memory.generation, generation)
			report := f.recovered()
			mustSet(t, f, "a", 3)
			require.Equal(t, report, f.recovered(), "once")
		})
	}
}

func TestAnOlderStatePutInPlaceIsReportedAndUsed(t *testing.T) {
	path := good(t)
	overwrite(t, path, contents(t, path+".bak"))
	f := opened(t, path)
	require.Contains(t, f.recovered(), "older")
	require.Equal(t, map[string]int64{"a": 1}, saved(t, path))
	require.EqualValues(t, 3, f.memory.generation, "generations go on where they were")
	again := opened(t, path)
	require.Empty(t, again.recovered())
}

func TestAStateOfANewerVersionIsNeverTouched(t *testing.T) {
	newer := []byte(`{"version": 3, "generation": 12, "shelves": []}`)
	for _, data := range [][]byte{newer, newer[:30]} {
		path := good(t)
		f := opened(t, path)
		check := func(path string) {
			t.Helper()
			err := set(f, "a", 3)
			require.ErrorIs(t, err, ErrNewerState)
			require.ErrorIs(t, err, ErrNotSaved)
			_, err = NewJSONFile(path).open(t.Context(), false, testNow, quiet)
			require.ErrorIs(t, err, ErrNewerState)
			require.Equal(t, data, contents(t, path))
		}
		state := contents(t, path)
		overwrite(t, path, data)
		check(path)
		_, err := NewJSONFile(path).Load(t.Context())
		require.ErrorIs(t, err, ErrNewerState)

		overwrite(t, path, state)
		overwrite(t, path+".bak", data)
		require.ErrorIs(t, set(f, "a", 3), ErrNewerState)
		require.Equal(t, data, contents(t, path+".bak"))
		require.NoError(t, os.Remove(path))
		require.ErrorIs(t, set(f, "a", 3), ErrNewerState)
		_, err = NewJSONFile(path).open(t.Context(), false, testNow, quiet)
		require.ErrorIs(t, err, ErrNewerState)
		require.Equal(t, data, contents(t, path+".bak"))
		require.Empty(t, setAside(t, path))
	}
	path := good(t)
	overwrite(t, historyPath(path), newer)
	_, err := NewJSONFile(path).open(t.Context(), false, testNow, quiet)
	require.ErrorIs(t, err, ErrNewerState)
	require.Equal(t, newer, contents(t, historyPath(path)))
}

func TestEveryTruncationAndEveryFlippedBitIsNoticed(t *testing.T) {
	path := good(t)
	state := contents(t, path)
	var damaged [][]byte
	for n := range len(state) {
		damaged = append(damaged, state[:n])
		for bit := range 8 {
			flipped := bytes.Clone(state)
			flipped[n] ^= 1 << bit
			damaged = append(damaged, flipped)
		}
	}
	for _, data := range damaged {
		found, err := decodeState(data, nil)
		if err == nil {
			require.Equal(t, map[string]int64{"a": 2}, numbers(found.clones(nil)), "%q", data)
			continue
		}
		require.True(t, errors.Is(err, ErrCorruptState) || errors.Is(err, ErrNewerState), "%q", data)
	}
	// And a sample of them from end to end.
	for n := 0; n < len(damaged); n += 97 {
		overwrite(t, path, damaged[n])
		f := NewJSONFile(path)
		f.logger = quiet
		loaded, err := f.Load(t.Context())
		if errors.Is(err, ErrNewerState) {
			continue
		}
		require.NoError(t, err)
		require.Equal(t, map[string]int64{"a": 1}, numbers(loaded.Books))
		require.NotEmpty(t, f.recovered())
	}
}

func TestClearRemovesEverythingUnlessATrackerIsOpen(t *testing.T) {
	path := good(t)
	overwrite(t, historyPath(path), []byte("damage"))
	idle := NewJSONFile(path)
	mustSet(t, idle, "a", 3)
	overwrite(t, path, []byte("damage"))
	mine := filepath.Join(filepath.Dir(path), "mine.json")
	require.NoError(t, os.WriteFile(mine, nil, 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(filepath.Dir(path), ".quota_state.json1"), nil, 0o600))
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

// finish returns an update after which a day of a quota is over.
func finish(name string, day time.Time, calls int64) func(*Tx) error {
	return func(tx *Tx) error {
		book := tx.Books[name]
		if book == nil {
			book = importedBook(1, 0, 0)
			tx.Books[name] = book
		}
		book.finished = append(book.finished, DaySummary{Quota: name, Day: day, Calls: calls})
		book.changed = true
		return nil
	}
}

func calls(days []DaySummary) (found []int64) {
	for _, one := range days {
		found = append(found, one.Calls)
	}
	return found
}

func TestFinishedDaysGoIntoTheHistoryBeforeTheStateIsSaved(t *testing.T) {
	path := statePath(t)
	f := opened(t, path)
	mustSet(t, f, "a", 1)
	broken := errors.New("broken")
	trace(f, func(step string) error {
		if step == "rename to quota_state.json" {
			return broken
		}
		return nil
	})
	yesterday := finish("a", testDay.AddDate(0, 0, -1), 5)
	require.ErrorIs(t, f.Update(t.Context(), nil, yesterday), broken)
	days, err := f.history()
	require.NoError(t, err)
	require.Equal(t, []int64{5}, calls(days["a"]), "written before the state")

	f.files = systemFiles()
	var mine *Book
	require.NoError(t, f.Update(t.Context(), nil, func(tx *Tx) error {
		mine = tx.Books["a"]
		return yesterday(tx)
	}))
	require.Empty(t, mine.finished, "the caller's book is the one that has been saved")
	require.NoError(t, f.Update(t.Context(), nil, finish("a", testDay.AddDate(0, 0, -2), 4)))
	require.NotContains(t, string(contents(t, path)), `"calls"`)
	for _, reader := range []*JSONFile{f, NewJSONFile(path)} {
		days, err = reader.history()
		require.NoError(t, err)
		require.Equal(t, []int64{4, 5}, calls(days["a"]))
		days["a"][0].Calls = 100
		state, err := reader.Load(t.Context())
		require.NoError(t, err)
		require.Equal(t, []int64{4, 5}, calls(state.History["a"]))
	}
	books, _, err := f.peek(nil)
	require.NoError(t, err)
	require.Empty(t, books["a"].finished)
}

func TestTheHistoryKeepsTheLastNinetyDays(t *testing.T) {
	f := opened(t, statePath(t))
	require.NoError(t, f.Update(t.Context(), nil, func(tx *Tx) error {
		for n := range 100 {
			require.NoError(t, finish("a", testDay.AddDate(0, 0, -n), int64(n))(tx))
		}
		return nil
	}))
	days, err := f.history()
	require.NoError(t, err)
	require.Len(t, days["a"], 90)
	require.EqualValues(t, 89, days["a"][0].Calls)
	require.EqualValues(t, 0, days["a"][89].Calls)
}

func TestSaveWritesTheHistoryOnlyWhereItDiffers(t *testing.T) {
	path := statePath(t)
	f := NewJSONFile(path)
	s := &State{Books: map[string]*Book{"a": importedBook(1, 0, 0)}}
	require.NoError(t, f.Save(t.Context(), s))
	require.NoFileExists(t, historyPath(path))

	s.History = map[string][]DaySummary{"a": {{Quota: "a", Day: testDay.AddDate(0, 0, -2), Used: map[Unit]int64{UnitTokens: 7}}}}
	s.Books["a"].finished = []DaySummary{{Quota: "a", Day: testDay.AddDate(0, 0, -1), Calls: 5}}
	require.NoError(t, f.Save(t.Context(), s))
	require.Len(t, s.History["a"], 1, "the caller's state is not changed")
	require.Len(t, s.Books["a"].finished, 1)
	before, err := os.Stat(historyPath(path))
	require.NoError(t, err)

	other := NewJSONFile(path)
	loaded, err := other.Load(t.Context())
	require.NoError(t, err)
	require.Equal(t, []int64{0, 5}, calls(loaded.History["a"]))
	require.EqualValues(t, 7, loaded.History["a"][0].Used[UnitTokens])
	require.NoError(t, other.Save(t.Context(), loaded))
	after, err := os.Stat(historyPath(path))
	require.NoError(t, err)
	require.True(t, sameFile(before, after), "nothing in it has changed")

	loaded.History = nil
	require.NoError(t, other.Save(t.Context(), loaded))
	loaded, err = f.Load(t.Context())
	require.NoError(t, err)
	require.Empty(t, loaded.History)
}

func TestAHistoryThatMayNotBeDurableIsWrittenAgain(t *testing.T) {
	f := NewJSONFile(statePath(t))
	s := &State{History: map[string][]DaySummary{"a": {{Quota: "a", Day: testDay, Calls: 5}}}}
	require.NoError(t, f.Save(t.Context(), &State{}))
	failing, written := true, 0
	trace(f, func(step string) error {
		if step == "sync directory" && failing {
			return os.ErrInvalid
		}
		if step == "create quota_history.json" {
			written++
		}
		return nil
	})
	require.ErrorIs(t, f.Save(t.Context(), s), os.ErrInvalid)
	failing = false
	require.NoError(t, f.Save(t.Context(), s))
	require.NoError(t, f.Save(t.Context(), s))
	require.Equal(t, 2, written)
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

func TestADamagedHistoryIsSetAside(t *testing.T) {
	path := statePath(t)
	f := opened(t, path)
	require.NoError(t, f.Update(t.Context(), nil, finish("a", testDay.AddDate(0, 0, -1), 5)))
	history := contents(t, historyPath(path))
	for n := range len(history) {
		flipped := bytes.Clone(history)
		flipped[n] ^= 1
		_, err := decodeHistory(flipped)
		require.Error(t, err)
	}
	overwrite(t, historyPath(path), history[:20])
	_, err := f.history()
	require.ErrorIs(t, err, ErrCorruptState)
	_, err = NewJSONFile(path).Strict().open(t.Context(), false, testNow, quiet)
	require.ErrorIs(t, err, ErrCorruptState)
	require.NoError(t, f.Update(t.Context(), nil, finish("a", testDay.AddDate(0, 0, -2), 4)))
	require.Contains(t, f.recovered(), "finished days")
	require.Len(t, setAside(t, historyPath(path)), 1)
	days, err := f.history()
	require.NoError(t, err)
	require.Equal(t, []int64{4}, calls(days["a"]))
}

func TestDaysThatStandInTheStateItselfGoIntoTheHistory(t *testing.T) {
	path := statePath(t)
	overwrite(t, path, []byte(`{"version": 2, "generation": 9, "updated_at": "2026-11-23T12:00:00Z", "books": null,
		"history": {"a": [{"quota": "a", "day": "2026-11-22T00:00:00Z", "calls": 5}]}}`))
	f := NewJSONFile(path)
	state, err := f.Load(t.Context())
	require.NoError(t, err)
	require.Equal(t, []int64{5}, calls(state.History["a"]))
	mustSet(t, f, "a", 1)
	require.False(t, strings.Contains(string(contents(t, path)), "history"))
	days, err := f.history()
	require.NoError(t, err)
	require.Equal(t, []int64{5}, calls(days["a"]))
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
