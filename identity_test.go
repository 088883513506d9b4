package quota

import (
	"context"
	"fmt"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

func inMemoryTracker(t *testing.T, quotas ...Quota) *QuotaTracker {
	t.Helper()
	tracker, err := New(t.Context(), Config{Persistence: InMemory(), Quotas: quotas})
	require.NoError(t, err)
	t.Cleanup(func() {
		require.NoError(t, tracker.Verify())
		require.NoError(t, tracker.Close())
	})
	return tracker
}

func TestOneIDOpensOneReservationAlsoInParallelOnTwoQuotas(t *testing.T) {
	tracker := inMemoryTracker(t, Quota{Name: "a"}, Quota{Name: "b"})
	for round := range 300 {
		var wait sync.WaitGroup
		errs := make([]error, 2)
		for i, name := range []string{"a", "b"} {
			wait.Go(func() {
				_, errs[i] = tracker.Acquire(context.Background(), Request{All: []string{name}, ID: fmt.Sprint("task-", round)})
			})
		}
		wait.Wait()
		if errs[0] == nil {
			errs[0], errs[1] = errs[1], errs[0]
		}
		require.ErrorIs(t, errs[0], ErrIDConflict)
		require.NoError(t, errs[1])
	}
}

func TestIDsThatAreOverAreForgottenWhileOpenOnesAreKept(t *testing.T) {
	tracker := inMemoryTracker(t, Quota{Name: "a"})
	open, err := tracker.Acquire(t.Context(), Request{All: []string{"a"}, ID: "open"})
	require.NoError(t, err)
	for i := range 5 * leastSweep {
		r, err := tracker.Acquire(t.Context(), Request{All: []string{"a"}, ID: fmt.Sprint("task-", i)})
		require.NoError(t, err)
		require.NoError(t, r.Release(t.Context()))
	}
	tracker.ids.mu.Lock()
	known := len(tracker.ids.quotas)
	tracker.ids.mu.Unlock()
	require.Less(t, known, 3*leastSweep)
	require.Equal(t, []string{"a"}, tracker.ids.of("open"))
	require.NoError(t, open.Release(t.Context()))
}

func TestUsageCommittedThroughAFoundHandleIsChargedWhenMatchingUsageHasClosedItsHold(t *testing.T) {
	tracker := inMemoryTracker(t, Quota{Name: "a"})
	made, err := tracker.Reserve(t.Context(), "a")
	require.NoError(t, err)
	found, err := tracker.Reservation(t.Context(), made.ID())
	require.NoError(t, err)
	require.NoError(t, tracker.RecordUsage(t.Context(), "a"))
	require.NoError(t, found.Commit(t.Context(), Requests(2)))
	status, _ := tracker.Status("a")
	require.EqualValues(t, 3, status.Today.Used[UnitRequests])
}

func TestAReservationSettledThroughOneHandleIsSettledForTheOther(t *testing.T) {
	for _, first := range []string{"made", "found"} {
		tracker := inMemoryTracker(t, Quota{Name: "a"})
		made, err := tracker.Reserve(t.Context(), "a")
		require.NoError(t, err)
		found, err := tracker.Reservation(t.Context(), made.ID())
		require.NoError(t, err)
		if first == "found" {
			made, found = found, made
		}
		require.NoError(t, made.Commit(t.Context(), Requests(1)))
		require.ErrorIs(t, found.Commit(t.Context(), Requests(1)), ErrSettled, first)
		status, _ := tracker.Status("a")
		require.EqualValues(t, 1, status.Today.Used[UnitRequests])
	}
}

func TestWhoGivesUpAfterTheExpiryTakesNothingFromWhoHoldsTheSameReservation(t *testing.T) {
	l := newLedger(t, Limit{Max: 10})
	key := l.grant(minute, Requests(3))
	l.book.holds.open[key].joined = 1
	l.pass(minute)
	l.book.undo(key, l.at)
	require.EqualValues(t, 3, l.book.limits[0].used, "the other's charge stands")
	l.book.undo(key, l.at)
	require.Zero(t, l.book.limits[0].used, "nobody has it any more")
	require.NoError(t, l.book.verify())
}

func TestAnEntryThatIsDroppedWhileItIsConfiguredIsNotPinned(t *testing.T) {
	tracker := inMemoryTracker(t, Quota{Name: "u:*"})
	e, err := tracker.lookup("u:1", true)
	require.NoError(t, err)
	e.mu.Lock()
	tracker.entries.drop(e)
	e.mu.Unlock()
	require.NoError(t, tracker.SetQuotas(t.Context(), []Quota{{Name: "u:1", Limits: []Limit{{Max: 7}}}}))
	require.True(t, tracker.CanUse("u:1", Requests(7)))
	require.False(t, tracker.CanUse("u:1", Requests(8)))
	require.NotSame(t, e, tracker.entryOf("u:1"))
}
