package quota

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

var testDay = time.Date(2026, 11, 23, 0, 0, 0, 0, time.UTC)

func testNow() time.Time { return testDay.Add(12 * time.Hour) }

var quiet = slog.New(slog.DiscardHandler)

// statePath returns a state's path in a directory that does not exist yet.
func statePath(t *testing.T) string {
	t.Helper()
	return filepath.Join(t.TempDir(), "memory", "quota_state.json")
}

// opened returns a state that is open, as by a tracker, until the test ends.
func opened(t *testing.T, path string) *JSONFile {
	t.Helper()
	f := NewJSONFile(path)
	release, err := f.open(t.Context(), false, testNow, quiet)
	require.NoError(t, err)
	t.Cleanup(release)
	return f
}

// set saves a number under a name.
func set(f *JSONFile, name string, n int64) error {
	return f.Update(context.Background(), []string{name}, func(tx *Tx) error {
		tx.Books[name] = importedBook(n, 0, 0)
		return nil
	})
}

func mustSet(t *testing.T, f *JSONFile, name string, n int64) {
	t.Helper()
	require.NoError(t, set(f, name, n))
}

func numbers(books map[string]*Book) map[string]int64 {
	found := map[string]int64{}
	for name, book := range books {
		found[name] = book.imported().used
	}
	return found
}

// saved returns the numbers that somebody else reads from the path.
func saved(t *testing.T, path string) map[string]int64 {
	t.Helper()
	state, err := NewJSONFile(path).Load(t.Context())
	require.NoError(t, err)
	if state == nil {
		return nil
	}
	return numbers(state.Books)
}

func files(t *testing.T, path string) []string {
	t.Helper()
	entries, err := os.ReadDir(filepath.Dir(path))
	require.NoError(t, err)
	var names []string
	for _, entry := range entries {
		names = append(names, entry.Name())
	}
	return names
}

func overwrite(t *testing.T, path string, data []byte) {
	t.Helper()
	require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o700))
	require.NoError(t, os.WriteFile(path+".new", data, 0o600))
	require.NoError(t, os.Rename(path+".new", path))
}

func contents(t *testing.T, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	require.NoError(t, err)
	return data
}

// tracedTemp tells the steps of a temporary file, and fails where it is told to.
type tracedTemp struct {
	tempFile
	step func(string) error
}

func (t tracedTemp) Write(p []byte) (int, error) {
	if err := t.step("write"); err != nil {
		n, _ := t.tempFile.Write(p[:len(p)/2])
		return n, err
	}
	return t.tempFile.Write(p)
}

func (t tracedTemp) Sync() error {
	if err := t.step("sync"); err != nil {
		return err
	}
	return t.tempFile.Sync()
}

func (t tracedTemp) Close() error {
	if err := t.step("close"); err != nil {
		return err
	}
	return t.tempFile.Close()
}

// trace puts step before every operation of f on files.
func trace(f *JSONFile, step func(string) error) {
	system := systemFiles()
	f.files = fileOps{
		create: func(path string) (tempFile, error) {
			if err := step("create " + filepath.Base(path)); err != nil {
				return nil, err
			}
			temp, err := system.create(path)
			return tracedTemp{temp, step}, err
		},
		link: func(from, to string) error {
			if err := step("link " + filepath.Base(from)); err != nil {
				return err
			}
			return system.link(from, to)
		},
		rename: func(from, to string) error {
			if err := step("rename to " + filepath.Base(to)); err != nil {
				return err
			}
			return system.rename(from, to)
		},
		stat: system.stat,
		syncDir: func(dir *os.File) error {
			if err := step("sync directory"); err != nil {
				return err
			}
			return system.syncDir(dir)
		},
		mark: func(sign *os.File, text string) error {
			if err := step("mark " + strings.Fields(text)[0]); err != nil {
				return err
			}
			return system.mark(sign, text)
		},
	}
}

var stepsOfASave = []string{
	"create quota_state.json", "write", "sync", "close", "link quota_state.json", "rename to quota_state.json.bak",
	"mark saving", "rename to quota_state.json", "sync directory", "mark saved",
}

func TestASaveSyncsTheFileBeforeTheRenameAndTheDirectoryAfterIt(t *testing.T) {
	f := opened(t, statePath(t))
	var steps []string
	trace(f, func(step string) error {
		steps = append(steps, step)
		return nil
	})
	mustSet(t, f, "a", 1)
	require.Equal(t, stepsOfASave, steps)

	steps = nil
	require.NoError(t, f.Update(t.Context(), nil, func(*Tx) error { return nil }))
	require.Empty(t, steps, "nothing has changed")
}

func TestAFailedStepLosesNothingAndAcknowledgesNothing(t *testing.T) {
	broken := errors.New("broken")
	for _, failing := range stepsOfASave {
		if failing == "mark saved" || failing == "sync directory" {
			continue // the state has been replaced by then
		}
		t.Run(failing, func(t *testing.T) {
			path := statePath(t)
			f := opened(t, path)
			mustSet(t, f, "a", 1)
			before, sign, token := contents(t, path), contents(t, path+signSuffix), f.memory.generation
			failed := false
			trace(f, func(step string) error {
				if step == failing && !failed {
					failed = true
					return broken
				}
				return nil
			})
			err := set(f, "a", 2)
			require.ErrorIs(t, err, ErrNotSaved)
			require.ErrorIs(t, err, broken)
			require.ErrorContains(t, err, filepath.Dir(path))
			require.Equal(t, before, contents(t, path))
			require.Equal(t, sign, contents(t, path+signSuffix))
			require.Equal(t, token, f.memory.generation)
			now, known := f.generation()
			require.True(t, known)
			require.Equal(t, token, now)
			noLeftovers(t, path)
			require.Equal(t, map[string]int64{"a": 1}, saved(t, path))

			mustSet(t, f, "b", 3)
			noLeftovers(t, path)
			require.Equal(t, before, contents(t, path+".bak"))
			require.Equal(t, map[string]int64{"a": 1, "b": 3}, saved(t, path))
		})
	}
}

func noLeftovers(t *testing.T, path string) {
	t.Helper()
	for _, name := range files(t, path) {
		require.False(t, strings.HasPrefix(name, "."), "%s is left over", name)
	}
}

func TestAfterAFailedSyncANewFileIsWritten(t *testing.T) {
	f := opened(t, statePath(t))
	var created []string
	system := systemFiles()
	f.files.create = func(path string) (tempFile, error) {
		temp, err := system.create(path)
		created = append(created, temp.Name())
		first := len(created) == 1
		return tracedTemp{temp, func(step string) error {
			if step == "sync" && first {
				return syscall.EIO
			}
			return nil
		}}, err
	}
	require.ErrorIs(t, set(f, "a", 1), syscall.EIO)
	mustSet(t, f, "a", 1)
	require.Len(t, created, 2)
	require.NotEqual(t, created[0], created[1])
}

func TestAFailedDirectorySyncCountsAsAppliedAndIsPublishedAgain(t *testing.T) {
	path := statePath(t)
	f := opened(t, path)
	before := f.memory.generation
	failing := true
	trace(f, func(step string) error {
		if step == "sync directory" && failing {
			return syscall.EIO
		}
		return nil
	})
	err := set(f, "a", 1)
	require.ErrorIs(t, err, ErrNotSaved)
	require.ErrorIs(t, err, syscall.EIO)
	require.Equal(t, before+1, f.memory.generation)
	books, token, err := f.peek(nil)
	require.NoError(t, err)
	require.Equal(t, map[string]int64{"a": 1}, numbers(books))
	require.Equal(t, before+1, token)

	failing = false
	require.NoError(t, f.Update(t.Context(), nil, func(*Tx) error { return nil }))
	require.Equal(t, before+2, f.memory.generation)
	require.NoError(t, f.Update(t.Context(), nil, func(*Tx) error { return nil }))
	require.Equal(t, before+2, f.memory.generation, "published once")
	require.Equal(t, map[string]int64{"a": 1}, saved(t, path))
}

func TestWhoeverFindsAnUnfinishedSavePublishesAGeneration(t *testing.T) {
	path := statePath(t)
	f := opened(t, path)
	mustSet(t, f, "a", 1)
	trace(f, func(step string) error {
		if step == "sync directory" || step == "mark saved" {
			return syscall.EIO
		}
		return nil
	})
	require.Error(t, set(f, "a", 2))

	other := NewJSONFile(path)
	require.NoError(t, other.Update(t.Context(), nil, func(tx *Tx) error {
		require.Equal(t, map[string]int64{"a": 2}, numbers(tx.Books))
		return nil
	}))
	require.Equal(t, f.memory.generation+1, other.memory.generation)
}

func TestAStateMountedAloneIsToldToMountItsDirectory(t *testing.T) {
	f := opened(t, statePath(t))
	trace(f, func(step string) error {
		if step == "rename to quota_state.json" {
			return &os.LinkError{Op: "rename", Old: "x", New: "y", Err: syscall.EBUSY}
		}
		return nil
	})
	err := set(f, "a", 1)
	require.ErrorIs(t, err, syscall.EBUSY)
	require.ErrorContains(t, err, "mount its directory")
}

func TestAFileSystemWithoutHardLinksHasNoBackup(t *testing.T) {
	path := statePath(t)
	f := NewJSONFile(path)
	trace(f, func(step string) error {
		if strings.HasPrefix(step, "link") {
			return &os.LinkError{Op: "link", Err: syscall.EPERM}
		}
		return nil
	})
	release, err := f.open(t.Context(), false, testNow, quiet)
	require.NoError(t, err)
	defer release()
	mustSet(t, f, "a", 1)
	require.NoFileExists(t, path+".bak")
	require.Equal(t, map[string]int64{"a": 1}, saved(t, path))
}

func TestTheBackupIsTheGenerationBefore(t *testing.T) {
	path := statePath(t)
	f := opened(t, path)
	for n := range int64(5) {
		var before []byte
		if n > 0 {
			before = contents(t, path)
		}
		mustSet(t, f, "a", n)
		if n > 0 {
			require.Equal(t, before, contents(t, path+".bak"))
		}
	}
}

func TestDirectoriesAndFilesAreForTheUserAlone(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("no such permissions")
	}
	path := filepath.Join(t.TempDir(), "deep", "memory", "quota_state.json")
	f := opened(t, path)
	mustSet(t, f, "a", 1)
	for dir := filepath.Dir(path); filepath.Base(dir) != "deep"; dir = filepath.Dir(dir) {
		info, err := os.Stat(dir)
		require.NoError(t, err)
		require.Equal(t, fs.FileMode(0o700), info.Mode().Perm())
	}
	for _, name := range files(t, path) {
		info, err := os.Stat(filepath.Join(filepath.Dir(path), name))
		require.NoError(t, err)
		require.Equal(t, fs.FileMode(0o600), info.Mode().Perm(), name)
	}
}

func TestASymbolicLinkIsFollowed(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.Mkdir(filepath.Join(dir, "real"), 0o700))
	link := filepath.Join(dir, "link.json")
	if err := os.Symlink(filepath.Join("real", "quota_state.json"), link); err != nil {
		t.Skip(err)
	}
	f := opened(t, link)
	mustSet(t, f, "a", 1)
	info, err := os.Lstat(link)
	require.NoError(t, err)
	require.NotZero(t, info.Mode()&fs.ModeSymlink)
	require.Equal(t, []string{"link.json", "real"}, files(t, link), "everything stands beside the target")
	require.Equal(t, map[string]int64{"a": 1}, saved(t, filepath.Join(dir, "real", "quota_state.json")))
}

func TestLeftoversOfAKilledProcessAreRemovedAtOpen(t *testing.T) {
	path := statePath(t)
	opened(t, path)
	dir := filepath.Dir(path)
	for _, name := range []string{".quota_state.json.tmp-123", ".quota_history.json.tmp-6", ".quota_state.json.bak.tmp"} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte("x"), 0o600))
	}
	others := []string{
		".quota_state.json.mine", ".quota_state.json", "quota_state.json1", ".quota_state.json-2026-01-05", ".quota_state.json.bak",
		".quota_state.json12", ".quota_state.json1.tmp-7", ".quota_state.json.tmp-", ".quota_state.json.tmp-1a",
	}
	for _, name := range others {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte("x"), 0o600))
	}
	opened(t, path)
	require.ElementsMatch(t, append(others, "quota_state.json", "quota_state.json.bak",
		filepath.Base(path+lockSuffix), filepath.Base(path+ownerSuffix)), files(t, path))
}

func TestThingsThatCannotBeAStateAreRefusedAtOpen(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	for _, path := range []string{dir, filepath.Join(file, "quota_state.json"), ""} {
		release, err := NewJSONFile(path).open(t.Context(), false, testNow, quiet)
		require.Error(t, err, path)
		require.ErrorContains(t, err, "quota: ")
		require.ErrorContains(t, err, strings.TrimSuffix(path, "/quota_state.json"))
		require.Nil(t, release)
	}
	require.Equal(t, []string{"file"}, files(t, file), "nothing is left behind")
	require.NoFileExists(t, dir+ownerSuffix)
}

func TestAnOpenFileLeavesNoDescriptors(t *testing.T) {
	const descriptors = "/proc/self/fd"
	if _, err := os.Stat(descriptors); err != nil {
		t.Skip(err)
	}
	path := statePath(t)
	open := func() []string { // those of the state, for what else is open is other tests' affair
		entries, err := os.ReadDir(descriptors)
		require.NoError(t, err)
		var found []string
		for _, entry := range entries {
			target, err := os.Readlink(filepath.Join(descriptors, entry.Name()))
			if err == nil && strings.HasPrefix(target, filepath.Dir(path)) {
				found = append(found, target)
			}
		}
		return found
	}
	for range 3 {
		f := NewJSONFile(path)
		release, err := f.open(t.Context(), false, testNow, quiet)
		require.NoError(t, err)
		other, err := f.open(t.Context(), false, testNow, quiet)
		require.NoError(t, err)
		_, err = f.open(t.Context(), true, testNow, quiet)
		require.ErrorIs(t, err, ErrLocked)
		require.NotEmpty(t, open(), "the lock is held")
		mustSet(t, f, "a", 1)
		_, _, err = f.peek(nil)
		require.NoError(t, err)
		release()
		release()
		mustSet(t, f, "a", 2)
		other()
		require.Equal(t, map[string]int64{"a": 2}, saved(t, path))
		require.NoError(t, f.Clear(t.Context()))
	}
	require.Empty(t, open())
}

func TestTheFileIsReadableAndItsBooksAreEncodedOnce(t *testing.T) {
	path := statePath(t)
	f := opened(t, path)
	mustSet(t, f, "<a>", 1)
	mustSet(t, f, "b", 2)
	var state State
	data := contents(t, path)
	require.NoError(t, json.Unmarshal(data, &state))
	require.Equal(t, f.memory.generation, state.Generation)
	require.Equal(t, map[string]int64{"<a>": 1, "b": 2}, numbers(state.Books))
	text, checksum, _ := strings.Cut(string(data), `  "checksum": `)
	require.Equal(t, `{
  "version": 2,
  "generation": 3,
  "updated_at": "2026-11-23T12:00:00Z",
  "books": {
    "\u003ca\u003e": {
      "clock": "0001-01-01T00:00:00Z",
      "imported": {"used": 1, "reserved": 0}
    },
    "b": {
      "clock": "0001-01-01T00:00:00Z",
      "imported": {"used": 2, "reserved": 0}
    }
  },
`, text)
	require.Regexp(t, `^"crc32c:[0-9a-f]{8}"\n}\n$`, checksum)
	body := &f.memory.books["b"].body[0]
	mustSet(t, f, "<a>", 3)
	require.Same(t, body, &f.memory.books["b"].body[0])
}

func TestEverySaveHasAllBooksInOrder(t *testing.T) {
	path := statePath(t)
	f := opened(t, path)
	want := map[string]int64{}
	for i, step := range []string{"m", "c", "x", "c", "-m", "a", "m", "-a", "-x", "zz", "c"} {
		name, drop := strings.CutPrefix(step, "-")
		require.NoError(t, f.Update(t.Context(), []string{"c", "another", name}, func(tx *Tx) error {
			if drop {
				delete(tx.Books, name)
				return nil
			}
			tx.Books[name] = importedBook(int64(i), 0, 0)
			return nil
		}))
		want[name] = int64(i)
		if drop {
			delete(want, name)
		}
		require.Equal(t, want, saved(t, path), step)
		before := -1
		for _, name := range slices.Sorted(maps.Keys(want)) {
			at := bytes.Index(contents(t, path), []byte(`"`+name+`": {`))
			require.Greater(t, at, before, step)
			before = at
		}
	}
	require.Error(t, f.Update(t.Context(), []string{"c"}, func(tx *Tx) error {
		tx.Books["x"] = importedBook(1, 0, 0)
		return nil
	}))
}

func TestAStateTooLargeToReadAgainIsNotSaved(t *testing.T) {
	path := statePath(t)
	f := opened(t, path)
	mustSet(t, f, "a", 1)
	require.Equal(t, stateLimit, f.limit)
	f.limit = 1 << 10
	err := set(f, strings.Repeat("x", f.limit), 1)
	require.ErrorIs(t, err, ErrNotSaved)
	require.ErrorContains(t, err, "1024")
	require.ErrorIs(t, f.Update(t.Context(), nil, finish("a", testDay, 1<<60)), nil)
	require.ErrorIs(t, f.Update(t.Context(), nil, finish(strings.Repeat("x", f.limit), testDay, 5)), ErrNotSaved)
	require.Equal(t, map[string]int64{"a": 1}, saved(t, path))
}
