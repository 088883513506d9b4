package quota

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

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
		"empty":               "",
		"zeros":               string(make([]byte, 512)),
		"no object":           "[]",
		"cut off":             valid,
		"no version":          `{"generation": 9, "books": {}}`,
		"no generation":       `{"version": 2, "books": {}}`,
		"no books":            `{"version": 2, "generation": 9}`,
		"an older version":    `{"version": 1, "generation": 9, "books": {}}`,
		"a negative number":   `{"version": 2, "generation": -9, "books": {}}`,
		"a number too large":  `{"version": 2, "generation": 18446744073709551615, "books": {}}`,
		"a fraction":          `{"version": 2, "generation": 9.5, "books": {}}`,
		"a wrong type":        `{"version": 2, "generation": 9, "books": []}`,
		"no book":             `{"version": 2, "generation": 9, "books": {"a": null}}`,
		"an unknown member":   valid + `, "extra": 1}`,
		"in another case":     `{"Version": 2, "generation": 9, "books": {}}`,
		"trailing data":       valid + `} {}`,
		"a member twice":      valid + `, "books": {}}`,
		"a book twice":        `{"version": 2, "generation": 9, "books": {"a": {}, "a": {}}}`,
		"a deep member twice": valid + `, "history": {"a": [{"quota": "a", "quota": "a", "day": "2026-11-22T00:00:00Z"}]}}`,
		"a negative day":      valid + `, "history": {"a": [{"quota": "a", "calls": -1, "day": "2026-11-22T00:00:00Z"}]}}`,
		"not UTF-8":           valid + ", \"history\": {\"\xff\": []}}",
		"a wrong checksum":    valid + ",\n  \"checksum\": \"crc32c:00000000\"\n}\n",
		"a hold of others": `{"version": 2, "generation": 9, "books": {"a": {"clock": "2026-11-22T00:00:00Z", "holds": [{"key": "1-1",
			"quotas": ["b", "c"], "amounts": {"requests": 1}, "expires": "2026-11-24T00:00:00Z", "ttl": "1h0m0s"}],
			"tally": {"granted": 1, "settled": 0, "expired": 0}}}}`,
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

func TestAStateThatIsOlderThanItsBackupGivesWayToIt(t *testing.T) {
	for name, locked := range map[string]bool{"with the lock file": true, "without": false} {
		t.Run(name, func(t *testing.T) {
			path := good(t)
			older, newer := contents(t, path+".bak"), contents(t, path)
			overwrite(t, path, older)
			overwrite(t, path+".bak", newer)
			if !locked {
				require.NoError(t, os.Remove(path+signSuffix))
			}
			_, err := NewJSONFile(path).Strict().Load(t.Context())
			require.ErrorIs(t, err, ErrCorruptState)
			f := opened(t, path)
			require.Contains(t, f.recovered(), "older")
			require.Contains(t, f.recovered(), ".bak")
			require.Equal(t, older, contents(t, setAside(t, path)[0]))
			require.Equal(t, map[string]int64{"a": 2}, saved(t, path))
		})
	}
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

func FuzzDecodeState(f *testing.F) {
	s := &snapshot{generation: 7, updatedAt: testDay, books: map[string]savedBook{"a": {book: importedBook(812, 3, 5)}}}
	require.NoError(f, s.encodeMissing())
	valid := s.encode(nil)
	f.Add(valid)
	unsealed, _, _ := bytes.Cut(valid, []byte(",\n  \"checksum"))
	f.Add(append(bytes.Clone(unsealed), '}'))
	f.Add(valid[:len(valid)/2])
	f.Add([]byte(pythonState))
	f.Add([]byte(`{"version":3}`))
	f.Add([]byte(`{"version":2,"generation":-1,"books":{}}`))
	f.Add([]byte(`{"version":2,"generation":1,"books":{},"history":{"a":[{"quota":"a","day":"2026-11-22T00:00:00Z"}]}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := decodeState(data, nil)
		if err != nil {
			require.Nil(t, s)
			require.True(t, errors.Is(err, ErrCorruptState) || errors.Is(err, ErrNewerState))
			return
		}
		require.NoError(t, s.encodeMissing())
		encoded := s.encode(nil)
		again, err := decodeState(encoded, nil)
		require.NoError(t, err)
		require.NoError(t, again.encodeMissing())
		require.Equal(t, string(encoded), string(again.encode(nil)))
	})
}
