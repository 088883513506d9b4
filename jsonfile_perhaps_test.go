package quota

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestATrackerThatOwnsItsFileGetsOverARenameOfUnknownOutcome(t *testing.T) {
	path := filepath.Join(t.TempDir(), "quota_state.json")
	f := NewJSONFile(path)
	tr, err := New(context.Background(), Config{Persistence: f, Logger: slog.New(slog.DiscardHandler), FlushInterval: time.Hour,
		Quotas: []Quota{{Name: "r", Limits: []Limit{{Max: 100}}}}})
	require.NoError(t, err)
	require.NoError(t, tr.RecordUsage(t.Context(), "r"))
	require.NoError(t, tr.Flush(t.Context()))
	good := f.files
	f.files.rename = func(a, b string) error {
		if b != f.target {
			return good.rename(a, b)
		}
		_ = good.rename(a, b)
		f.files.stat = func(string) (os.FileInfo, error) { return nil, syscall.EIO }
		return syscall.EIO
	}
	require.NoError(t, tr.RecordUsage(t.Context(), "r"))
	require.ErrorIs(t, tr.Flush(t.Context()), ErrNotSaved)
	f.files = good // the disk is well again
	require.NoError(t, tr.Flush(t.Context()))
	_, err = tr.Reserve(t.Context(), "r")
	require.NoError(t, err)
	require.NoError(t, tr.Close())
}

func TestAStateOfAnotherIsNotTakenForOnesOwnOfUnknownOutcome(t *testing.T) {
	ctx, path := t.Context(), filepath.Join(t.TempDir(), "quota_state.json")
	state := func(used int64) *State {
		return &State{Books: map[string]*Book{"q": importedBook(used, 0, latest)}}
	}
	mine, other := NewJSONFile(path), NewJSONFile(path)
	require.NoError(t, mine.Save(ctx, state(1)))
	good := mine.files
	mine.files.rename = func(a, b string) error {
		if b == mine.target {
			mine.files.stat = func(string) (os.FileInfo, error) { return nil, syscall.EIO }
			return syscall.EIO // nothing has been renamed
		}
		return good.rename(a, b)
	}
	require.ErrorIs(t, mine.Save(ctx, state(2)), ErrNotSaved)
	mine.files = good
	_, err := other.Load(ctx)
	require.NoError(t, err)
	require.NoError(t, other.Save(ctx, state(77)))
	err = mine.Save(ctx, state(3))
	require.ErrorIs(t, err, ErrConflict, "somebody else has changed the state")
}
