package quota

import (
	"bytes"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// finish returns an update after which a day of a quota is over.
func finish(name string, day time.Time, calls int64) func(*Tx) error {
	return func(tx *Tx) error {
		book := tx.Books[name]
		if book == nil {
			book = importedBook(1, 0, 0)
			tx.Books[name] = book
		}
		book.details().finished = append(book.finished(), DaySummary{Quota: name, Day: day, Calls: calls})
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
	days, err := f.history("a")
	require.NoError(t, err)
	require.Equal(t, []int64{5}, calls(days), "written before the state")

	f.files = systemFiles()
	var mine *Book
	require.NoError(t, f.Update(t.Context(), nil, func(tx *Tx) error {
		mine = tx.Books["a"]
		return yesterday(tx)
	}))
	require.Empty(t, mine.finished(), "the caller's book is the one that has been saved")
	require.NoError(t, f.Update(t.Context(), nil, finish("a", testDay.AddDate(0, 0, -2), 4)))
	require.NotContains(t, string(contents(t, path)), `"calls"`)
	for _, reader := range []*JSONFile{f, NewJSONFile(path)} {
		days, err = reader.history("a")
		require.NoError(t, err)
		require.Equal(t, []int64{4, 5}, calls(days))
		state, err := reader.Load(t.Context())
		require.NoError(t, err)
		require.Equal(t, []int64{4, 5}, calls(state.History["a"]))
	}
	books, _, err := f.peek(nil)
	require.NoError(t, err)
	require.Empty(t, books["a"].finished())
}

func TestTheHistoryKeepsTheLastNinetyDays(t *testing.T) {
	f := opened(t, statePath(t))
	require.NoError(t, f.Update(t.Context(), nil, func(tx *Tx) error {
		for n := range 100 {
			require.NoError(t, finish("a", testDay.AddDate(0, 0, -n), int64(n))(tx))
		}
		return nil
	}))
	days, err := f.history("a")
	require.NoError(t, err)
	require.Len(t, days, 90)
	require.EqualValues(t, 89, days[0].Calls)
	require.EqualValues(t, 0, days[89].Calls)
}

func TestSaveWritesTheHistoryOnlyWhereItDiffers(t *testing.T) {
	path := statePath(t)
	f := NewJSONFile(path)
	s := &State{Books: map[string]*Book{"a": importedBook(1, 0, 0)}}
	require.NoError(t, f.Save(t.Context(), s))
	require.NoFileExists(t, historyPath(path))

	s.History = map[string][]DaySummary{"a": {{Quota: "a", Day: testDay.AddDate(0, 0, -2), Used: map[Unit]int64{UnitTokens: 7}}}}
	s.Books["a"].details().finished = []DaySummary{{Quota: "a", Day: testDay.AddDate(0, 0, -1), Calls: 5}}
	require.NoError(t, f.Save(t.Context(), s))
	require.Len(t, s.History["a"], 1, "the caller's state is not changed")
	require.Len(t, s.Books["a"].finished(), 1)
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
	_, err := f.history("a")
	require.ErrorIs(t, err, ErrCorruptState)
	_, err = NewJSONFile(path).Strict().open(t.Context(), false, testNow, quiet)
	require.ErrorIs(t, err, ErrCorruptState)
	require.NoError(t, f.Update(t.Context(), nil, finish("a", testDay.AddDate(0, 0, -2), 4)))
	require.Contains(t, f.recovered(), "finished days")
	require.Len(t, setAside(t, historyPath(path)), 1)
	days, err := f.history("a")
	require.NoError(t, err)
	require.Equal(t, []int64{4}, calls(days))
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
	days, err := f.history("a")
	require.NoError(t, err)
	require.Equal(t, []int64{5}, calls(days))
}

func TestAHistoryTooLargeToReadAgainLosesItsOldestDaysAndStopsNothing(t *testing.T) {
	path := statePath(t)
	f := opened(t, path)
	f.limit = 4 << 10
	history := map[string][]DaySummary{}
	for n := range 60 {
		day := testDay.AddDate(0, 0, n-60)
		history["a"] = append(history["a"], DaySummary{Quota: "a", Day: day, Calls: int64(n)})
		require.NoError(t, f.Update(t.Context(), nil, finish("a", day, int64(n))), n)
	}
	days, err := f.history("a")
	require.NoError(t, err)
	require.Greater(t, len(days), 8)
	require.EqualValues(t, 59, days[len(days)-1].Calls)
	require.EqualValues(t, 60-len(days), days[0].Calls)
	require.Contains(t, f.recovered(), "only the last")
	require.Less(t, len(contents(t, historyPath(path))), f.limit)

	// The saves of one tracker hand the same days over again and again.
	saving := NewJSONFile(statePath(t))
	saving.limit, saving.logger = f.limit, quiet
	written := 0
	trace(saving, func(step string) error {
		if step == "create quota_history.json" {
			written++
		}
		return nil
	})
	for range 3 {
		require.NoError(t, saving.Save(t.Context(), &State{History: history}))
	}
	require.Equal(t, 1, written)
	require.Equal(t, 1, strings.Count(saving.recovered(), "only the last"))
}

func TestThePersistenceOfATrackerThatDoesNotRunTheFileItselfKeepsItsDaysInItsBooks(t *testing.T) {
	path := statePath(t)
	f := NewJSONFile(path)
	require.NoError(t, f.Update(t.Context(), nil, finish("a", testDay.AddDate(0, 0, -1), 5)))
	require.NoError(t, f.Update(t.Context(), nil, func(tx *Tx) error {
		require.Equal(t, []int64{5}, calls(tx.Books["a"].finished()))
		return nil
	}))
	own := opened(t, path)
	require.NoError(t, own.Update(t.Context(), nil, finish("a", testDay.AddDate(0, 0, -2), 4)))
	days, err := own.history("a")
	require.NoError(t, err)
	require.Equal(t, []int64{4, 5}, calls(days))
}
