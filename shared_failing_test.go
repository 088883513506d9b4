package quota

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"math"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// Updates that fail, and callers that do not wait for them.

// A recordCounter counts what is logged.
type recordCounter struct{ n *atomic.Int64 }

func (c recordCounter) Enabled(context.Context, slog.Level) bool  { return true }
func (c recordCounter) Handle(context.Context, slog.Record) error { c.n.Add(1); return nil }
func (c recordCounter) WithAttrs([]slog.Attr) slog.Handler        { return c }
func (c recordCounter) WithGroup(string) slog.Handler             { return c }

// beginCounting is beginOn that counts the alerts and the records.
func beginCounting(t *testing.T, store Persistence, quotas ...Quota) (tracker *QuotaTracker, alerts, records *atomic.Int64) {
	t.Helper()
	alerts, records = new(atomic.Int64), new(atomic.Int64)
	tracker, err := New(t.Context(), Config{
		Persistence: store, Quotas: quotas, OnAlert: func(Alert) { alerts.Add(1) }, Logger: slog.New(recordCounter{records}),
	})
	require.NoError(t, err)
	t.Cleanup(func() { _ = tracker.Close() })
	return tracker, alerts, records
}

func fails(context.Context) error { return errScript }

func TestWhatACallHasCausedIsToldWhenItsCallerHasGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &scriptedStore{}
		tracker, alerts, records := beginCounting(t, store, Quota{Name: "q", Limits: []Limit{{Max: 100}}})
		recordAndGo := func(n int64, outcome error) {
			hold := make(chan struct{})
			store.play(func(context.Context) error { <-hold; return outcome })
			ctx, leave := context.WithCancel(t.Context())
			left := make(chan error, 1)
			go func() { left <- tracker.RecordUsage(ctx, "q", Requests(n)) }()
			synctest.Wait()
			leave()
			require.ErrorIs(t, <-left, ErrPending)
			close(hold)
			synctest.Wait()
		}
		recordAndGo(60, nil)
		require.EqualValues(t, 1, alerts.Load())
		recordAndGo(1, errScript)
		require.EqualValues(t, 1, records.Load(), "that usage is kept in memory")
		store.play(nil)
	})
}

func TestRefreshSavesWhatIsKeptAndSaysWhatIsWrong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &scriptedStore{script: fails}
		tracker := beginOn(t, store, Quota{Name: "q", Limits: []Limit{{Max: 10}}})
		require.ErrorIs(t, tracker.Refresh(t.Context()), errScript)
		require.ErrorContains(t, tracker.Refresh(t.Context()), "reading the state")
		require.ErrorIs(t, tracker.RecordUsage(t.Context(), "q"), ErrPending)
		require.ErrorIs(t, tracker.Refresh(t.Context()), errScript)
		store.play(nil)
		require.NoError(t, tracker.Refresh(t.Context()))
		require.EqualValues(t, 1, store.book("q").accounts[0].used)
	})
}

func TestRefreshIsOverWhenEverythingHasBeenRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hold, over := make(chan struct{}), false
		store := &scriptedStore{}
		tracker := beginOn(t, store, Quota{Name: "q"})
		store.play(func(context.Context) error { <-hold; return nil })
		go func() {
			_ = tracker.Refresh(t.Context())
			over = true
		}()
		synctest.Wait()
		require.False(t, over)
		close(hold)
		synctest.Wait()
		require.True(t, over)
	})
}

func TestThatUsageIsKeptIsLoggedOncePerPauseAndOnlyWhenItIs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &scriptedStore{}
		tracker, _, records := beginCounting(t, store, Quota{Name: "q", Limits: []Limit{{Max: 10}}})
		store.play(fails)
		require.ErrorIs(t, tracker.Reset(t.Context(), "q"), errScript)
		require.Zero(t, records.Load(), "a Reset is not kept")
		for range 3 {
			require.ErrorIs(t, tracker.RecordUsage(t.Context(), "q"), ErrPending)
		}
		require.EqualValues(t, 1, records.Load())
		for n := range 3 {
			<-time.After(pause) // what is kept is tried again
			synctest.Wait()
			require.EqualValues(t, 2+n, records.Load())
		}
		store.play(nil)
	})
}

func TestUsageIsCountedOnceHoweverMuchIsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store, asked := &scriptedStore{}, 0
		tracker := beginOn(t, store, Quota{Name: "q", Limits: []Limit{{Max: 1 << 40}}})
		require.NoError(t, tracker.RecordUsage(t.Context(), "q"))
		store.play(func(context.Context) error { asked++; return errScript })
		const calls = muchKept + 10
		for range calls {
			require.ErrorIs(t, tracker.RecordUsage(t.Context(), "q"), ErrPending)
		}
		require.Equal(t, muchKept+1, asked, "with so much kept the store is not asked at every call")
		store.play(nil)
		require.NoError(t, tracker.Flush(t.Context()))
		require.EqualValues(t, calls+1, store.book("q").accounts[0].used)
	})
}

func TestOfAFailedUpdateEveryCallHasItsAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &scriptedStore{}
		tracker := beginOn(t, store, Quota{Name: "q", Limits: []Limit{{Max: 10}}})
		r, err := tracker.Acquire(t.Context(), Request{All: []string{"q"}, ID: "id"})
		require.NoError(t, err)
		same, err := tracker.Acquire(t.Context(), Request{All: []string{"q"}, ID: "id"})
		require.NoError(t, err)
		require.NoError(t, r.Commit(t.Context()))
		hold := make(chan struct{})
		store.play(func(context.Context) error { <-hold; return errScript })
		var answers []chan error
		begin := func(call func() error) {
			answer := make(chan error, 1)
			answers = append(answers, answer)
			go func() { answer <- call() }()
			synctest.Wait() // each stands behind the one before
		}
		begin(func() error { return tracker.RecordUsage(t.Context(), "q") })
		begin(func() error { _, err := tracker.Reserve(t.Context(), "q"); return err })
		begin(func() error { _, err := tracker.Reservation(t.Context(), "1-1@q"); return err })
		begin(func() error { return tracker.Reset(t.Context(), "q") })
		begin(func() error { return same.Commit(t.Context()) })
		begin(func() error { return tracker.RecordUsage(t.Context(), "q") })
		close(hold)
		for i, want := range []error{ErrPending, ErrNotSaved, errScript, ErrNotSaved, ErrSettled, ErrPending} {
			err := <-answers[i]
			require.ErrorIs(t, err, want, "call %d", i)
			if !errors.Is(want, ErrPending) {
				require.NotErrorIs(t, err, ErrPending, "call %d", i)
			}
		}
		store.play(nil)
		require.NoError(t, tracker.Flush(t.Context()))
		require.EqualValues(t, 3, store.book("q").accounts[0].used)
		require.Zero(t, store.book("q").accounts[0].reserved)
	})
}

func TestABookInWhichKeptUsageIsReplayedIsSavedAtThePresentTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &scriptedStore{}
		tracker := beginOn(t, store, Quota{Name: "q", Limits: []Limit{{Max: 10, Window: Every(time.Minute)}}})
		require.NoError(t, tracker.RecordUsage(t.Context(), "q"))
		store.play(fails)
		require.ErrorIs(t, tracker.RecordUsage(t.Context(), "q"), ErrPending)
		<-time.After(5 * time.Minute)
		store.play(nil)
		require.NoError(t, tracker.Flush(t.Context()))
		require.Equal(t, tracker.now(), store.book("q").clock)
		require.Zero(t, store.book("q").accounts[0].used)
	})
}

func TestAWaiterIsServedAtOnceWhenACallMakesRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tracker := beginOn(t, &scriptedStore{}, Quota{Name: "q", Limits: []Limit{{Max: 1, Window: InFlight()}}})
		r, err := tracker.Reserve(t.Context(), "q")
		require.NoError(t, err)
		served := make(chan error, 1)
		go func() { _, err := tracker.Wait(t.Context(), "q"); served <- err }()
		synctest.Wait()
		began := time.Now()
		require.NoError(t, r.Release(t.Context()))
		require.NoError(t, <-served)
		require.Zero(t, time.Since(began))
	})
}

func TestThatMoreIsUsedThanCanBeCountedIsLoggedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tracker, _, records := beginCounting(t, &scriptedStore{}, Quota{Name: "q"})
		for range 2 {
			require.NoError(t, tracker.RecordUsage(t.Context(), "q", Requests(math.MaxInt64)))
		}
		require.EqualValues(t, 1, records.Load())
		require.NoError(t, tracker.Reset(t.Context(), "q"))
		require.EqualValues(t, 1, records.Load())
	})
}

func TestABookOfOthersDoesNotSayUntilWhenAnUpdateHolds(t *testing.T) {
	tracker := beginOn(t, &scriptedStore{}, Quota{Name: "q"})
	foreign := *rulesOfLimits()
	foreign.foreign = true
	book := &Book{name: "q", clock: noon, configured: &foreign}
	until := instant(noon + hour)
	tx := &Tx{Books: map[string]*Book{"q": book}, Until: until}
	(&updating{shared: &tracker.shared, now: noon, books: map[string]*Book{}}).close(tx, "q", book, false)
	require.Equal(t, until, tx.Until)
}

func TestWhatIsToBeLoggedIsLoggedInOrderOutsideOfLocks(t *testing.T) {
	tracker := beginOn(t, &scriptedStore{}, Quota{Name: "q"})
	s := &tracker.shared
	var told []int
	note := func(n int) { s.note(func() { told = append(told, n) }) }
	note(1)
	note(2)
	require.Empty(t, told)
	s.tell()
	require.Equal(t, []int{1, 2}, told)
	s.note(func() {
		note(4)
		s.tell() // as a handler does that calls the tracker
		told = append(told, 3)
	})
	s.tell()
	require.Equal(t, []int{1, 2, 3, 4}, told)
	require.False(t, s.noted.Load(), "nothing is left")
	note(5)
	require.NoError(t, tracker.Close())
	require.Equal(t, []int{1, 2, 3, 4, 5}, told)
	note(6)
	require.Equal(t, []int{1, 2, 3, 4, 5, 6}, told, "nobody comes after")
	s.running = true
	note(7)
	require.Len(t, told, 6, "the update that runs holds locks")
	s.running = false
	s.tell()
	require.Len(t, told, 7)
}

// A doubtfulStore applies every update, but does not always say so.
type doubtfulStore struct {
	scriptedStore
	silent bool
	saved  []string // the quotas whose books the last update has replaced
}

func (s *doubtfulStore) Update(ctx context.Context, names []string, fn func(*Tx) error) error {
	err := s.scriptedStore.Update(ctx, names, func(tx *Tx) error {
		before := maps.Clone(tx.Books)
		err := fn(tx)
		s.saved = nil
		for name, book := range tx.Books {
			if before[name] != book {
				s.saved = append(s.saved, name)
			}
		}
		return err
	})
	if s.silent {
		return errScript
	}
	return err
}

func TestUsageOfAnUpdateInDoubtIsSavedAgainAndCountedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &doubtfulStore{silent: true}
		tracker := beginOn(t, store, Quota{Name: "q", Limits: []Limit{{Max: 10}}})
		require.ErrorIs(t, tracker.RecordUsage(t.Context(), "q"), ErrPending)
		store.silent = false
		require.NoError(t, tracker.Flush(t.Context()))
		require.Equal(t, []string{"q"}, store.saved, "it is not known to be as safe as the store makes it")
		require.EqualValues(t, 1, store.book("q").accounts[0].used)
	})
}

func TestARefusalOfAnUpdateInDoubtIsSavedAgainAndCountedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &doubtfulStore{}
		tracker := beginOn(t, store, Quota{Name: "q", Limits: []Limit{{Max: 0}}})
		_, err := tracker.Reserve(t.Context(), "q")
		require.ErrorIs(t, err, ErrExceeded)
		store.silent = true
		require.ErrorIs(t, tracker.Flush(t.Context()), ErrNotSaved)
		store.silent = false
		require.NoError(t, tracker.Flush(t.Context()))
		require.Equal(t, []string{"q"}, store.saved, "it is not known to be as safe as the store makes it")
		require.EqualValues(t, 1, store.book("q").today.denied)
	})
}

func TestAnAlertClaimedByAnUpdateInDoubtIsToldAfterTheNextOneOfAnyQuota(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &doubtfulStore{}
		limits := []Limit{{Max: 10}}
		tracker, alerts, _ := beginCounting(t, store, Quota{Name: "q", Limits: limits}, Quota{Name: "other", Limits: limits})
		require.NoError(t, tracker.RecordUsage(t.Context(), "q"))
		left := delivery{alert: Alert{ID: "left", Quota: "q", Threshold: 50}} // by another tracker that has closed
		store.book("q").details().outbox = []delivery{left}
		store.silent = true
		require.ErrorIs(t, tracker.Reset(t.Context(), "q"), ErrNotSaved)
		require.Zero(t, alerts.Load())
		store.silent = false
		require.NoError(t, tracker.RecordUsage(t.Context(), "other"))
		require.EqualValues(t, 1, alerts.Load())
		require.Empty(t, store.book("q").outbox())
	})
}
