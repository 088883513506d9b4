package quota

import (
	"context"
	"fmt"
	"path/filepath"
	"sync"
	"testing"
	"time"

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

func TestACallThatNamesNoRequestsIsOneWhateverItIsComparedWith(t *testing.T) {
	t.Parallel()
	for requests, same := range map[int64]bool{1: true, 3: false} {
		h := &hold{amounts: *amounting(Requests(requests), Tokens(5))}
		require.Equal(t, same, h.isOf(amounting(Tokens(5))))
		require.True(t, h.isOf(amounting(Requests(requests), Tokens(5))))
	}
	all := &acquisition{asked: []asked{{canonical: "q", named: *amounting(Tokens(5))}}}
	for requests, want := range map[int64]int64{0: 1, 1: 1, 3: 3} {
		larger, err := all.atLeastAll("q", *amounting(Requests(requests)))
		require.NoError(t, err)
		require.Equal(t, *amounting(Requests(want), Tokens(5)), larger)
	}
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
	clock := &shiftedClock{}
	tracker, err := New(t.Context(), Config{Persistence: InMemory(), Quotas: []Quota{{Name: "a"}}, Clock: clock})
	require.NoError(t, err)
	open, err := tracker.Acquire(t.Context(), Request{All: []string{"a"}, ID: "open", TTL: 48 * time.Hour})
	require.NoError(t, err)
	for i := range 5 * leastSweep {
		if i%leastSweep == 0 {
			clock.by += 2 * time.Hour // settled ones are remembered for an hour
		}
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
	require.NoError(t, tracker.Verify())
	require.NoError(t, tracker.Close())
}

// A shiftedClock is ahead of the system's.
type shiftedClock struct {
	systemClock
	by time.Duration
}

func (c *shiftedClock) Now() time.Time { return c.systemClock.Now().Add(c.by) }

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
	l.book.holds.find(key).joined = 1
	l.pass(minute)
	l.book.undo(key, l.at)
	require.EqualValues(t, 3, l.book.limits()[0].used, "the other's charge stands")
	l.book.undo(key, l.at)
	require.Zero(t, l.book.limits()[0].used, "nobody has it any more")
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

func TestTheSameIDIsTheSameReservationAfterItsEstimateHasChanged(t *testing.T) {
	limit := func(estimate int64) Quota {
		return Quota{Name: "a", Limits: []Limit{{Unit: UnitTokens, Max: 10_000, Estimate: estimate}}}
	}
	path := filepath.Join(t.TempDir(), "state.json")
	open := func(estimate int64) *QuotaTracker {
		tracker, err := New(t.Context(), Config{Persistence: NewJSONFile(path), Quotas: []Quota{limit(estimate)}})
		require.NoError(t, err)
		return tracker
	}
	request := Request{All: []string{"a"}, ID: "task-1"}
	tracker := open(500)
	first, err := tracker.Acquire(t.Context(), request)
	require.NoError(t, err)
	require.NoError(t, tracker.SetQuotas(t.Context(), []Quota{limit(700)}))
	again, err := tracker.Acquire(t.Context(), request)
	require.NoError(t, err)
	require.Equal(t, first.Amounts(), again.Amounts())
	require.NoError(t, tracker.Close())

	tracker = open(900)
	again, err = tracker.Acquire(t.Context(), request)
	require.NoError(t, err, "a restart remembers what was estimated")
	require.Equal(t, first.Amounts(), again.Amounts())
	request.Amounts = []Amount{Tokens(400)}
	_, err = tracker.Acquire(t.Context(), request)
	require.ErrorIs(t, err, ErrIDConflict, "other amounts than are held")
	request.Amounts = []Amount{PicoUSD(1)}
	_, err = tracker.Acquire(t.Context(), request)
	require.ErrorIs(t, err, ErrIDConflict, "a unit that is not held")
	require.NoError(t, tracker.Close())
}

func TestAUnitThatWasNamedIsNotTakenForAnEstimate(t *testing.T) {
	tracker := inMemoryTracker(t, Quota{Name: "a", Limits: []Limit{{Unit: UnitTokens, Max: 10_000, Estimate: 500}}})
	_, err := tracker.Acquire(t.Context(), Request{All: []string{"a"}, ID: "task", Amounts: []Amount{Tokens(500)}})
	require.NoError(t, err)
	_, err = tracker.Acquire(t.Context(), Request{All: []string{"a"}, ID: "task"})
	require.ErrorIs(t, err, ErrIDConflict)
}

func TestASettledIDIsSettledOnEveryQuotaAlsoAfterARestart(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.json")
	open := func() *QuotaTracker {
		tracker, err := New(t.Context(), Config{
			Persistence: NewJSONFile(path), Quotas: []Quota{{Name: "a"}, {Name: "b"}}, FlushInterval: time.Hour,
		})
		require.NoError(t, err)
		return tracker
	}
	tracker := open()
	for i := range 3 * leastSweep { // so many that those which are over are swept
		r, err := tracker.Acquire(t.Context(), Request{All: []string{"a"}, ID: fmt.Sprint("task-", i)})
		require.NoError(t, err)
		require.NoError(t, r.Commit(t.Context()))
	}
	for _, when := range []string{"before", "after"} {
		_, err := tracker.Acquire(t.Context(), Request{All: []string{"b"}, ID: "task-7"})
		require.ErrorIs(t, err, ErrSettled, when)
		require.NoError(t, tracker.Close())
		tracker = open()
	}
	require.NoError(t, tracker.Close())
}

func TestWhatAllAndAnyBothNameIsHeldOnceForTheLargerAmount(t *testing.T) {
	tracker := inMemoryTracker(t, Quota{Name: "a", Limits: []Limit{{Unit: UnitTokens, Max: 100}}}, Quota{Name: "b"})
	request := Request{
		All: []string{"a"}, Amounts: []Amount{Tokens(10)}, ID: "task",
		Any: []Candidate{{Quota: "a", Amounts: []Amount{Tokens(60)}}, {Quota: "b"}},
	}
	first, err := tracker.Acquire(t.Context(), request)
	require.NoError(t, err)
	require.Equal(t, []string{"a"}, first.Quotas())
	require.Contains(t, first.Amounts(), Tokens(60))
	status, _ := tracker.Status("a")
	require.EqualValues(t, 60, status.Limits[0].Reserved)
	again, err := tracker.Acquire(t.Context(), request)
	require.NoError(t, err)
	require.Equal(t, first.Amounts(), again.Amounts())

	request.ID = "other"
	second, err := tracker.Acquire(t.Context(), request)
	require.NoError(t, err)
	require.Equal(t, []string{"a", "b"}, second.Quotas(), "there is room for what All asks, not for the candidate")
	again, err = tracker.Acquire(t.Context(), request)
	require.NoError(t, err)
	require.Equal(t, second.Quotas(), again.Quotas())

	_, err = tracker.Acquire(t.Context(), Request{
		All: []string{"a"}, Amounts: []Amount{Tokens(1)},
		Any: []Candidate{{Quota: "a", Amounts: []Amount{InputTokens(1)}}},
	})
	require.ErrorIs(t, err, ErrInvalidAmount, "two forms of tokens for one hold")
}

func TestWhatIsKeptOfIDsDependsOnHowManyAreRememberedNotOnHowManyTheyWere(t *testing.T) {
	clock := &shiftedClock{}
	tracker, err := New(t.Context(), Config{Persistence: InMemory(), Quotas: []Quota{{Name: "a"}}, Clock: clock})
	require.NoError(t, err)
	most := 0
	for i := range 30 * leastSweep {
		if i%100 == 0 {
			clock.by += 10 * time.Minute // 600 in the hour that they are remembered
		}
		r, err := tracker.Acquire(t.Context(), Request{All: []string{"a"}, ID: fmt.Sprint("task-", i)})
		require.NoError(t, err)
		require.NoError(t, r.Commit(t.Context()))
		most = max(most, len(tracker.ids.quotas))
	}
	require.Less(t, most, 2*leastSweep)
	require.NoError(t, tracker.Close())
}

func TestAnIDAddedWhileIDsAreSweptIsKept(t *testing.T) {
	var ids openIDs
	for i := range leastSweep {
		ids.add(fmt.Sprint(i), []string{"a"})
	}
	crowd := ids.crowded()
	require.Len(t, crowd, leastSweep)
	require.Nil(t, ids.crowded(), "one sweeps at a time")
	ids.add("7", []string{"a"})
	ids.forget(crowd)
	require.Equal(t, map[string][]string{"7": {"a"}}, ids.quotas)
}
