package quota_test

import (
	"context"
	"errors"
	"math"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/quota"
	"example.com/quota/quotatest"
)

func TestWhatAPlainPersistenceHasSavedIsThereAfterARestart(t *testing.T) {
	ctx := t.Context()
	var log alertLog
	clock := quotatest.NewClock(morning)
	store := &plainStore{}
	first := startOn(t, store, withClock(clock), withAlerts(log.note))
	require.NoError(t, first.RecordUsage(ctx, "calls", quota.Requests(60)))
	open, err := first.Reserve(ctx, "calls", quota.Requests(10))
	require.NoError(t, err)
	settled, err := first.Acquire(ctx, quota.Request{All: []string{"calls"}, ID: "job 1"})
	require.NoError(t, err)
	require.NoError(t, settled.Commit(ctx))
	require.Equal(t, stand{61, 10}, standOf(t, first, "calls"))
	// No Close: what was acknowledged is saved.

	second := startOn(t, store.copied(), withClock(clock), withAlerts(log.note))
	require.Equal(t, stand{61, 10}, standOf(t, second, "calls"))
	_, err = second.Acquire(ctx, quota.Request{All: []string{"calls"}, ID: "job 1"})
	require.ErrorIs(t, err, quota.ErrSettled)
	_, err = second.Reserve(ctx, "calls", quota.Requests(30))
	require.ErrorIs(t, err, quota.ErrExceeded)
	found, err := second.Reservation(ctx, open.ID())
	require.NoError(t, err)
	require.NoError(t, found.Commit(ctx, quota.Requests(7)))
	require.Equal(t, stand{68, 0}, standOf(t, second, "calls"))
	require.Equal(t, []int{50}, log.thresholds(), "an alert is told once, also across a restart")
}

func TestFinishedDaysOutliveMidnightAndARestart(t *testing.T) {
	ctx := t.Context()
	clock := quotatest.NewClock(morning)
	store := &plainStore{}
	first := startOn(t, store, withClock(clock))
	require.NoError(t, first.RecordUsage(ctx, "calls", quota.Requests(7)))
	clock.Advance(24 * time.Hour)
	require.NoError(t, first.RecordUsage(ctx, "calls"))
	require.NoError(t, first.Close())

	second := startOn(t, store, withClock(clock))
	days := second.History("calls")
	require.Len(t, days, 1)
	require.Equal(t, map[quota.Unit]int64{quota.UnitRequests: 7}, days[0].Used)
	require.Equal(t, stand{1, 0}, standOf(t, second, "calls"))
}

func TestUsageThatCouldNotBeSavedCountsAndGoesOutWithTheNextSave(t *testing.T) {
	ctx := t.Context()
	store := &plainStore{}
	var log alertLog
	tracker := startOn(t, store, withAlerts(log.note))
	store.script = failing(1, 2)
	err := tracker.RecordUsage(ctx, "calls", quota.Requests(60))
	require.ErrorIs(t, err, quota.ErrNotSaved)
	require.ErrorIs(t, err, quota.ErrPending)
	require.ErrorIs(t, err, errStore)
	require.False(t, tracker.CanUse("calls", quota.Requests(41)), "it counts in every decision")
	require.True(t, tracker.CanUse("calls", quota.Requests(40)))
	_, err = tracker.Reserve(ctx, "calls", quota.Requests(41))
	require.ErrorIs(t, err, quota.ErrExceeded)
	require.Equal(t, stand{}, standIn(t, store.copied()))
	require.Empty(t, log.thresholds(), "no alert before its crossing is saved")

	require.ErrorIs(t, tracker.Flush(ctx), quota.ErrNotSaved)
	require.NoError(t, tracker.RecordUsage(ctx, "calls"))
	require.Equal(t, stand{61, 0}, standIn(t, store.copied()))
	require.Equal(t, []int{50}, log.thresholds())
}

func TestFlushSavesWhatAnEarlierSaveCouldNot(t *testing.T) {
	ctx := t.Context()
	store := &plainStore{}
	tracker := startOn(t, store)
	store.script = failing(1)
	require.ErrorIs(t, tracker.RecordUsage(ctx, "calls"), quota.ErrPending)
	require.NoError(t, tracker.Flush(ctx))
	require.Equal(t, stand{1, 0}, standIn(t, store.copied()))
	saves := store.count()
	require.NoError(t, tracker.Flush(ctx))
	require.Equal(t, saves, store.count(), "nothing is left to save")
}

func TestAFailedSaveIsTriedAgainWithoutAFurtherCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &plainStore{}
		clock := quotatest.NewClock(morning)
		tracker := startOn(t, store, withClock(clock))
		store.script = failing(1, 2)
		require.ErrorIs(t, tracker.RecordUsage(t.Context(), "calls"), quota.ErrPending)
		for range 3 {
			clock.Advance(time.Second)
			synctest.Wait()
		}
		require.Equal(t, 3, store.count())
		require.Equal(t, stand{1, 0}, standIn(t, store.copied()))
	})
}

func TestARefusalNeedsNoStore(t *testing.T) {
	store := &plainStore{}
	clock := quotatest.NewClock(morning)
	tracker := startOn(t, store, withClock(clock))
	require.NoError(t, tracker.RecordUsage(t.Context(), "calls"))
	store.script = alwaysFailing
	clock.Advance(24 * time.Hour) // the end of the day is there to be saved
	_, err := tracker.Reserve(t.Context(), "calls", quota.Requests(101))
	require.ErrorIs(t, err, quota.ErrExceeded)
	require.NotErrorIs(t, err, quota.ErrNotSaved)
}

func TestARepeatedAcquireReturnsWhenTheReservationIsSaved(t *testing.T) {
	for _, fails := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			store := &plainStore{gate: make(chan struct{})}
			if fails {
				store.script = failing(1)
			}
			tracker := startOn(t, store)
			request := quota.Request{All: []string{"calls"}, ID: "job"}
			var first, second error
			var group sync.WaitGroup
			group.Go(func() { _, first = tracker.Acquire(t.Context(), request) })
			synctest.Wait()
			returned := make(chan struct{})
			group.Go(func() {
				_, second = tracker.Acquire(t.Context(), request)
				close(returned)
			})
			synctest.Wait()
			select {
			case <-returned:
				require.Fail(t, "it is granted before it is saved")
			default:
			}
			close(store.gate)
			group.Wait()
			require.Equal(t, fails, first != nil)
			require.NoError(t, second)
			synctest.Wait()
			require.Equal(t, stand{0, 1}, standIn(t, store.copied()), "it is the second's, also when the first holds nothing")
		})
	}
}

func TestAReservationThatCouldNotBeSavedHoldsNothing(t *testing.T) {
	ctx := t.Context()
	store := &plainStore{}
	tracker := startOn(t, store)
	store.script = failing(1)
	r, err := tracker.Reserve(ctx, "calls", quota.Requests(100))
	require.Nil(t, r)
	require.ErrorIs(t, err, quota.ErrNotSaved)
	require.NotErrorIs(t, err, quota.ErrPending)
	require.Equal(t, stand{}, standOf(t, tracker, "calls"))
	_, err = tracker.Reserve(ctx, "calls", quota.Requests(100))
	require.NoError(t, err)
	require.Equal(t, stand{0, 100}, standIn(t, store.copied()))
}

func TestAReservationThatReachedTheStoreInSpiteOfAnErrorIsTakenBack(t *testing.T) {
	ctx := t.Context()
	store := &plainStore{}
	tracker := startOn(t, store)
	store.script = func(n int) error {
		if n == 1 {
			store.mu.Lock()
			defer store.mu.Unlock()
			store.state = nil // whatever stands there: it is replaced by the next
			return errStore
		}
		return nil
	}
	_, err := tracker.Reserve(ctx, "calls", quota.Requests(100))
	require.ErrorIs(t, err, quota.ErrNotSaved)
	require.NoError(t, tracker.Close())
	require.Equal(t, stand{}, standIn(t, store))
	require.NotNil(t, store.state, "the hold is taken back without a further call")
}

func TestAStoreThatAlwaysFailsStopsReservationsButLosesNoUsage(t *testing.T) {
	ctx := t.Context()
	store := &plainStore{}
	tracker := startOn(t, store)
	held, err := tracker.Reserve(ctx, "calls", quota.Requests(10))
	require.NoError(t, err)
	store.script = alwaysFailing
	for range 5 {
		err := tracker.RecordUsage(ctx, "calls", quota.Requests(2))
		require.ErrorIs(t, err, quota.ErrPending)
		_, err = tracker.Reserve(ctx, "calls")
		require.ErrorIs(t, err, quota.ErrNotSaved)
	}
	err = held.Commit(ctx, quota.Requests(4))
	require.ErrorIs(t, err, quota.ErrNotSaved)
	require.ErrorIs(t, err, quota.ErrPending)
	used := standOf(t, tracker, "calls")
	require.Zero(t, used.reserved)
	require.ErrorIs(t, tracker.Flush(ctx), errStore)
	err = tracker.Close()
	require.ErrorIs(t, err, quota.ErrNotSaved)
	require.ErrorIs(t, err, errStore)
	require.Equal(t, err, tracker.Close())
}

func TestAContextThatEndsDuringTheSaveBoundsOnlyTheWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &plainStore{}
		tracker := startOn(t, store)
		held, err := tracker.Reserve(t.Context(), "calls", quota.Requests(20))
		require.NoError(t, err)

		store.gate = make(chan struct{})
		ctx, cancel := context.WithCancel(t.Context())
		var reserved, recorded, committed error
		var group sync.WaitGroup
		group.Go(func() { _, reserved = tracker.Reserve(ctx, "calls", quota.Requests(50)) })
		group.Go(func() { recorded = tracker.RecordUsage(ctx, "calls", quota.Requests(3)) })
		group.Go(func() { committed = held.Commit(ctx, quota.Requests(5)) })
		synctest.Wait()
		cancel()
		group.Wait()
		require.ErrorIs(t, reserved, context.Canceled)
		require.NotErrorIs(t, reserved, quota.ErrPending)
		for _, err := range []error{recorded, committed} {
			require.ErrorIs(t, err, context.Canceled)
			require.ErrorIs(t, err, quota.ErrPending)
			require.NotErrorIs(t, err, quota.ErrNotSaved)
		}
		require.Zero(t, standOf(t, tracker, "calls").reserved)
		used := standOf(t, tracker, "calls").used

		close(store.gate)
		synctest.Wait()
		require.Equal(t, stand{used, 0}, standIn(t, store.copied()), "the hold was taken back by the next save")
		require.NoError(t, store.complaint())
	})
}

func TestAContextThatHasEndedReservesNothingAndRecordsAllTheSame(t *testing.T) {
	store := &plainStore{}
	tracker := startOn(t, store)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := tracker.Reserve(ctx, "calls")
	require.ErrorIs(t, err, context.Canceled)
	if err := tracker.RecordUsage(ctx, "calls"); err != nil { // the save may have been quicker
		require.ErrorIs(t, err, quota.ErrPending)
	}
	require.NoError(t, tracker.Close())
	require.Equal(t, stand{1, 0}, standIn(t, store))
}

func TestCloseSavesForAtMostFiveSeconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &plainStore{gate: make(chan struct{})}
		tracker := startOn(t, store)
		ctx, cancel := context.WithCancel(t.Context())
		go func() { _ = tracker.RecordUsage(ctx, "calls") }()
		synctest.Wait()
		cancel()
		began := time.Now()
		err := tracker.Close()
		require.ErrorIs(t, err, quota.ErrNotSaved)
		require.Equal(t, 5*time.Second, time.Since(began))
		require.Equal(t, err, tracker.Close())
		require.Equal(t, 5*time.Second, time.Since(began), "the second Close does not wait again")
		require.ErrorIs(t, tracker.RecordUsage(t.Context(), "calls"), quota.ErrClosed)
	})
}

func TestCallsThatArriveDuringASaveShareTheNextOne(t *testing.T) {
	const many = 200
	synctest.Test(t, func(t *testing.T) {
		store := &plainStore{gate: make(chan struct{})}
		tracker := startOn(t, store, withQuotas(calls(math.MaxInt32)))
		var group sync.WaitGroup
		group.Go(func() { require.NoError(t, tracker.RecordUsage(t.Context(), "calls")) })
		synctest.Wait()
		require.Equal(t, 1, store.count())
		var mu sync.Mutex
		done := 0
		for i := range many {
			group.Go(func() {
				var err error
				if i%2 == 0 {
					err = tracker.RecordUsage(t.Context(), "calls")
				} else {
					_, err = tracker.Reserve(t.Context(), "calls")
				}
				require.NoError(t, err)
				mu.Lock()
				defer mu.Unlock()
				done++
			})
		}
		synctest.Wait()
		require.Equal(t, 1, store.count(), "Saves do not overlap")
		store.gate <- struct{}{}
		synctest.Wait()
		require.Equal(t, 2, store.count())
		require.Zero(t, done, "none returns before its save has")
		store.gate <- struct{}{}
		group.Wait()
		require.Equal(t, 2, store.count())
		require.Equal(t, many, done)
		close(store.gate)
		require.NoError(t, store.complaint())
	})
}

func TestASaveCopiesOnlyTheBooksThatHaveChanged(t *testing.T) {
	quotas := []quota.Quota{{Name: "one"}, {Name: "two"}}
	var books []*quota.Book
	store := &plainStore{look: func(s *quota.State) { books = append(books, s.Books["one"], s.Books["two"]) }}
	tracker := startOn(t, store, withQuotas(quotas...))
	require.NoError(t, tracker.RecordUsage(t.Context(), "one"))
	require.NoError(t, tracker.RecordUsage(t.Context(), "two"))
	require.NoError(t, tracker.RecordUsage(t.Context(), "two"))
	require.Len(t, books, 6)
	require.Same(t, books[2], books[4], "what has not changed is not copied again")
	require.NotSame(t, books[3], books[5])
}

func TestSavesNeverOverlapAndAreNeverDisturbed(t *testing.T) {
	ctx := t.Context()
	store := &plainStore{script: func(n int) error {
		if n%7 == 3 {
			return errStore
		}
		return nil
	}}
	generations := uint64(0)
	store.look = func(s *quota.State) {
		if s.Generation <= generations || s.Version == 0 || !s.UpdatedAt.Equal(morning) {
			store.note(errors.New("a state without a version, a time and a generation of its own"))
		}
		generations = s.Generation
	}
	tracker := startOn(t, store, withQuotas(
		quota.Quota{Name: "calls", Limits: []quota.Limit{{Max: math.MaxInt32}}},
		quota.Quota{Name: "user:*", Limits: []quota.Limit{{Max: 1000, Window: quota.Rolling(time.Hour)}}},
	))
	const workers, each = 8, 40
	var group sync.WaitGroup
	for i := range workers {
		group.Go(func() {
			for j := range each {
				name := "calls"
				if j%4 == 3 {
					name = "user:" + string(rune('a'+i))
				}
				if r, err := tracker.Reserve(ctx, name); err == nil {
					_ = r.Release(ctx)
				}
				_ = tracker.RecordUsage(ctx, name)
				_ = tracker.CanUse(name)
				_ = tracker.Summary()
			}
		})
	}
	group.Wait()
	if err := tracker.Flush(ctx); err != nil {
		require.NoError(t, tracker.Flush(ctx), "two saves in a row do not fail here")
	}
	require.NoError(t, store.complaint())
	status, _ := tracker.Status("calls")
	require.EqualValues(t, workers*each*3/4, status.Today.Calls)
	require.Equal(t, stand{workers * each * 3 / 4, 0}, standIn(t, store.copied(), withQuotas(calls(math.MaxInt32))))
}

func TestRefusalsAreSavedWithTheNextChangeOrAtClose(t *testing.T) {
	ctx := t.Context()
	store := &plainStore{}
	tracker := startOn(t, store, withQuotas(calls(1)))
	refuse := func() {
		_, err := tracker.Reserve(ctx, "calls", quota.Requests(2))
		require.ErrorIs(t, err, quota.ErrExceeded)
	}
	denied := func() int64 {
		other, err := openOn(store.copied())
		require.NoError(t, err)
		status, _ := other.Status("calls")
		require.NoError(t, other.Close())
		return status.Today.Denied
	}
	require.NoError(t, tracker.RecordUsage(ctx, "calls"))
	saves := store.count()
	refuse()
	require.Equal(t, saves, store.count(), "a refusal alone saves nothing")
	require.Zero(t, denied())
	require.NoError(t, tracker.RecordUsage(ctx, "calls"))
	require.EqualValues(t, 1, denied())
	refuse()
	require.EqualValues(t, 1, denied())
	require.NoError(t, tracker.Close())
	require.EqualValues(t, 2, denied())
}

func TestAnAlertIsDeliveredAfterItsCrossingIsSavedAndBeforeTheCallReturns(t *testing.T) {
	store := &plainStore{}
	var seen []stand
	tracker := startOn(t, store, withAlerts(func(quota.Alert) { seen = append(seen, standIn(t, store.copied())) }))
	require.NoError(t, tracker.RecordUsage(t.Context(), "calls", quota.Requests(50)))
	require.Equal(t, []stand{{50, 0}}, seen)
}

func TestNewSaysWhyAPersistenceCannotBeUsed(t *testing.T) {
	_, err := openOn(&plainStore{state: []byte(`{"version": 1000}`)})
	require.ErrorIs(t, err, quota.ErrNewerState)
	_, err = openOn(&plainStore{state: []byte(`{`)})
	require.ErrorContains(t, err, "loading the state")
}
