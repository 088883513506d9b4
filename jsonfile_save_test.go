package quota

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestALockFileThatCannotBeLookedAtIsAnErrorAtOnce(t *testing.T) {
	path := statePath(t)
	f := opened(t, path)
	looks := 0
	look := func(path string) (os.FileInfo, error) {
		if path == f.target+lockSuffix || path == f.target+ownerSuffix {
			looks++
			return nil, &fs.PathError{Op: "stat", Path: path, Err: syscall.EIO}
		}
		return os.Stat(path)
	}
	f.files.stat = look
	err := set(f, "a", 1)
	require.ErrorIs(t, err, syscall.EIO)
	require.ErrorIs(t, err, ErrNotSaved)
	require.ErrorContains(t, err, f.target+lockSuffix)
	closed := NewJSONFile(statePath(t))
	mustSet(t, closed, "a", 1)
	f.target, closed.files.stat = closed.target, look
	err = closed.Clear(t.Context())
	require.ErrorIs(t, err, syscall.EIO)
	require.NotErrorIs(t, err, ErrLocked)
	require.Equal(t, 2, looks)
}

type lockedTight struct{ refusals, tries int }

func (l *lockedTight) Unlock() error {
	if l.tries++; l.tries <= l.refusals {
		return syscall.EINTR
	}
	return nil
}

func TestALockThatIsNotGivenUpAtOnceIsTriedAgain(t *testing.T) {
	lock := &lockedTight{refusals: 2}
	unlock(lock)
	require.Equal(t, 3, lock.tries)
	lock = &lockedTight{refusals: 100}
	unlock(lock)
	require.Equal(t, 3, lock.tries)
}

func TestWhatASaveDisplacesIsFreedOnceTheCallersKnow(t *testing.T) {
	if !removesOpenFiles {
		t.Skip("here an open file cannot be displaced")
	}
	path := statePath(t)
	f := opened(t, path)
	mustSet(t, f, "a", 1)
	mustSet(t, f, "a", 2)
	before := contents(t, path+backupSuffix)
	mustSet(t, f, "a", 3)
	displaced := f.displaced.Load()
	require.NotNil(t, displaced, "a tracker frees it when it has told its callers")
	text, err := io.ReadAll(displaced)
	require.NoError(t, err)
	require.Equal(t, before, text)
	mustSet(t, f, "a", 4)
	require.ErrorIs(t, displaced.Close(), os.ErrClosed, "the next save frees it at the latest")
	displaced = f.displaced.Load()
	f.free()
	require.ErrorIs(t, displaced.Close(), os.ErrClosed)
	require.Nil(t, f.displaced.Load())

	alone := NewJSONFile(path)
	mustSet(t, alone, "a", 5)
	require.Nil(t, alone.displaced.Load(), "there is nobody to free it later")

	for _, interval := range []time.Duration{0, time.Hour} {
		store := NewJSONFile(statePath(t))
		tracker, err := New(t.Context(), Config{Persistence: store, FlushInterval: interval, Quotas: []Quota{{Name: "q"}}})
		require.NoError(t, err)
		for range 3 {
			require.NoError(t, tracker.RecordUsage(t.Context(), "q"))
			require.NoError(t, tracker.Flush(t.Context()))
		}
		require.Eventually(t, func() bool { return store.displaced.Load() == nil }, 10*time.Second, time.Millisecond)
		require.NoError(t, tracker.Close())
	}
}

func TestABackupThatCannotBeReplacedSaysWhy(t *testing.T) {
	path := statePath(t)
	f := opened(t, path)
	mustSet(t, f, "a", 1)
	require.NoError(t, os.MkdirAll(filepath.Join(backupTemp(f.target), "full"), 0o700))
	err := set(f, "a", 2)
	require.ErrorContains(t, err, "remove "+backupTemp(f.target))
}

func TestAStateMountedAloneIsToldSoByItsLinkToo(t *testing.T) {
	f := opened(t, statePath(t))
	trace(f, func(step string) error {
		if strings.HasPrefix(step, "link") {
			return &os.LinkError{Op: "link", Old: "x", New: "y", Err: syscall.EXDEV}
		}
		return nil
	})
	err := set(f, "a", 1)
	require.ErrorIs(t, err, syscall.EXDEV)
	require.ErrorContains(t, err, "mount its directory")
}

func TestAFileSystemThatHasShutItselfDownAcknowledgesNothing(t *testing.T) {
	for _, of := range []func(target string) string{func(target string) string { return target }, historyPath} {
		path := statePath(t)
		f := opened(t, path)
		f.files.stat = func(path string) (os.FileInfo, error) {
			if path == of(f.target) {
				return nil, &fs.PathError{Op: "stat", Path: path, Err: syscall.EIO}
			}
			return os.Stat(path)
		}
		err := f.Update(t.Context(), nil, finish("a", testDay, 5))
		require.ErrorIs(t, err, ErrNotSaved)
		require.ErrorIs(t, err, syscall.EIO)
		require.ErrorContains(t, err, of(f.target))

		generation := f.memory.generation
		f.files.stat = os.Stat
		require.NoError(t, f.Update(t.Context(), nil, finish("a", testDay, 5)))
		require.Equal(t, generation+1, f.memory.generation)
	}
}

func TestARenameThatFailsAndHasHappenedIsApplied(t *testing.T) {
	path := statePath(t)
	f := NewJSONFile(path)
	s := &State{Books: map[string]*Book{"a": importedBook(1, 0, 0)}}
	require.NoError(t, f.Save(t.Context(), s))
	broken := errors.New("broken")
	f.files.rename = func(from, to string) error {
		if err := os.Rename(from, to); err != nil || to != f.target {
			return err
		}
		return broken
	}
	s.Books["a"] = importedBook(2, 0, 0)
	err := f.Save(t.Context(), s)
	require.ErrorIs(t, err, ErrNotSaved)
	require.ErrorIs(t, err, broken)
	require.Equal(t, map[string]int64{"a": 2}, saved(t, path))

	f.files = systemFiles()
	s.Books["a"] = importedBook(3, 0, 0)
	require.NoError(t, f.Save(t.Context(), s), "nobody else has changed it")
	require.Equal(t, map[string]int64{"a": 3}, saved(t, path))
}

func TestAGenerationThatCouldNotBeReadAgainIsNotSaved(t *testing.T) {
	path := statePath(t)
	f := NewJSONFile(path)
	last := &State{Generation: generationLimit - 1, Books: map[string]*Book{"a": importedBook(1, 0, 0)}}
	require.NoError(t, f.Save(t.Context(), last))
	for _, reader := range []*JSONFile{f, NewJSONFile(path).Strict()} {
		err := set(reader, "a", 2)
		require.ErrorIs(t, err, ErrNotSaved)
		require.ErrorContains(t, err, "set its generation to 1")
		state, err := reader.Load(t.Context())
		require.NoError(t, err)
		require.ErrorIs(t, reader.Save(t.Context(), state), ErrNotSaved)
	}
	require.Equal(t, map[string]int64{"a": 1}, saved(t, path))

	// What the error says to do helps.
	text, _, _ := strings.Cut(string(contents(t, path)), ",\n  \"checksum\"")
	overwrite(t, path, []byte(strings.Replace(text, "4611686018427387903", "1", 1)+"}"))
	require.NoError(t, os.Remove(path+signSuffix))
	require.NoError(t, os.RemoveAll(path+backupSuffix))
	again := opened(t, path)
	mustSet(t, again, "b", 2)
	require.Empty(t, again.recovered())
	require.Equal(t, map[string]int64{"a": 1, "b": 2}, saved(t, path))
}

func TestASaveThatLeavesGenerationsOutAndIsCutOffIsNoOlderState(t *testing.T) {
	path := statePath(t)
	f := NewJSONFile(path)
	require.NoError(t, f.Save(t.Context(), &State{Books: map[string]*Book{"a": importedBook(1, 0, 0)}}))
	f.files.rename = func(from, to string) error {
		if to == f.target {
			panic("killed")
		}
		return os.Rename(from, to)
	}
	require.PanicsWithValue(t, "killed", func() { _ = f.Save(t.Context(), &State{Generation: 1000}) })
	require.Contains(t, string(contents(t, path+signSuffix)), "saving")
	next := opened(t, path)
	require.Empty(t, next.recovered())
	require.Equal(t, map[string]int64{"a": 1}, saved(t, path))
}

func TestOnlyTheLibrarysOwnFilesAreRemoved(t *testing.T) {
	dir := t.TempDir()
	theirs := []string{
		".shard12", ".shard12.tmp-5", ".shard1-2026-01-05", ".shard1.bak", "shard1.corrupt-mine", "shard12.corrupt-20261123T120000.000Z",
		"shard1.corrupt-20261123T120000.000Z-copy", "shard1.corrupt-20261123T120000.000Z-", "shard1.history.2026",
	}
	ours := []string{
		".shard1.tmp-5", ".shard1.history.tmp-6", ".shard1.bak.tmp", "shard1.corrupt-20261123T120000.000Z",
		"shard1.corrupt-20261123T120000.000Z-2", "shard1.history.corrupt-20261123T120000.000Z",
	}
	for _, name := range append(ours, theirs...) {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), nil, 0o600))
	}
	f := NewJSONFile(filepath.Join(dir, "shard1"))
	release, err := f.open(t.Context(), false, testNow, quiet)
	require.NoError(t, err)
	release()
	require.NoError(t, f.Clear(t.Context()))
	require.ElementsMatch(t, theirs, files(t, f.target))
}

func TestTemporaryFilesAreTakenForThat(t *testing.T) {
	path := statePath(t)
	f := opened(t, path)
	for _, of := range []string{f.target, historyPath(f.target)} {
		temp, err := f.files.create(of)
		require.NoError(t, err)
		require.True(t, isTemp(filepath.Base(temp.Name()), filepath.Base(of)), temp.Name())
		require.NoError(t, temp.Cleanup())
	}
}
