package quota

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// peekOn is a tracker on a file whose directory cannot be synced while broken is set; somebody looks meanwhile.
func peekOn(t *testing.T) (tr *QuotaTracker, broken *atomic.Bool) {
	f := NewJSONFile(filepath.Join(t.TempDir(), "quota_state.json"))
	tr, err := New(context.Background(), Config{Persistence: f, Logger: slog.New(slog.DiscardHandler),
		Quotas: []Quota{{Name: "a", Limits: []Limit{{Max: 100}}}}})
	require.NoError(t, err)
	broken = new(atomic.Bool)
	good := f.files.syncDir
	f.files.syncDir = func(d *os.File) error {
		if broken.Load() {
			tr.Status("a") // as another goroutine may do now
			return syscall.EIO
		}
		return good(d)
	}
	return tr, broken
}

func TestACommitThatSomebodySawBeforeItFailedIsPendingNotSettled(t *testing.T) {
	tr, broken := peekOn(t)
	r, err := tr.Reserve(t.Context(), "a")
	require.NoError(t, err)
	broken.Store(true)
	err = r.Commit(t.Context())
	require.NotErrorIs(t, err, ErrSettled, "it is the first that settles it")
	require.ErrorIs(t, err, ErrPending)
}

func TestACommitThatSomebodySawBeforeItFailedIsOwedAtClose(t *testing.T) {
	tr, broken := peekOn(t)
	r, err := tr.Reserve(t.Context(), "a")
	require.NoError(t, err)
	broken.Store(true)
	_ = r.Commit(t.Context())
	require.ErrorIs(t, tr.Close(), ErrNotSaved, "the directory has not been synced since: a power cut undoes the Commit")
}

func TestUsageThatSomebodySawBeforeItFailedCountsOnceInMemory(t *testing.T) {
	tr, broken := peekOn(t)
	broken.Store(true)
	require.ErrorIs(t, tr.RecordUsage(t.Context(), "a", Requests(60)), ErrPending)
	s, _ := tr.Status("a")
	require.EqualValues(t, 60, s.Limits[0].Used)
	require.True(t, tr.CanUse("a", Requests(40)))
}
