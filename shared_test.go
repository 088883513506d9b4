package quota_test

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/quota"
	"example.com/quota/quotatest"
)

// A fault is what becomes of an Update.
type fault int

const (
	fine      fault = iota
	before          // it fails, and nothing is applied
	inVain          // fn runs, and nothing is applied
	lostReply       // it is applied, and fails all the same
	twice           // fn runs on books that turn out to be out of date, and again
	elsewhere       // another writer is quicker: as twice, with what it has changed
)

// A sharedStore is a SharedPersistence as a server would be one: books as JSON, changed by whoever comes.
type sharedStore struct {
	now   func() time.Time // nil: Tx.Now stays zero
	rival func()           // changes the store, for elsewhere
	gate  chan struct{}    // nil: open; else each Update takes one from it, or waits for its context
	turn  chan struct{}    // one Update at a time; a channel, so that a bubble knows who waits

	mu      sync.Mutex
	faults  []fault // of the Updates to come
	always  fault   // of those after them
	books   map[string][]byte
	updates int
	writes  int        // of a book
	names   [][]string // of each Update
	until   time.Time  // of the last
}

func newSharedStore() *sharedStore {
	return &sharedStore{turn: make(chan struct{}, 1), books: map[string][]byte{}}
}

func (s *sharedStore) Load(context.Context) (*quota.State, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	books, err := s.read(nil)
	return &quota.State{Version: 2, Books: books}, err
}

func (s *sharedStore) Save(context.Context, *quota.State) error {
	return errors.New("a tracker never calls Save of a SharedPersistence")
}

// read returns fresh books. s is locked.
func (s *sharedStore) read(names []string) (map[string]*quota.Book, error) {
	books := map[string]*quota.Book{}
	for name, data := range s.books {
		if names != nil && !slices.Contains(names, name) {
			continue
		}
		books[name] = new(quota.Book)
		if err := json.Unmarshal(data, books[name]); err != nil {
			return nil, err
		}
	}
	return books, nil
}

func (s *sharedStore) Update(ctx context.Context, names []string, fn func(*quota.Tx) error) error {
	select {
	case s.turn <- struct{}{}:
		defer func() { <-s.turn }()
	case <-ctx.Done():
		return ctx.Err()
	}
	what := s.next(names)
	if s.gate != nil {
		select {
		case <-s.gate:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if what == before {
		return errStore
	}
	if what == inVain {
		_, _, err := s.run(names, fn)
		return errors.Join(errStore, err)
	}
	if what == twice || what == elsewhere {
		if _, _, err := s.run(names, fn); err != nil {
			return err
		}
		if what == elsewhere {
			s.rival()
		}
	}
	if err := s.commit(names, fn); err != nil {
		return err
	}
	if what == lostReply {
		return errStore
	}
	return nil
}

// commit runs fn until what it decides holds, and writes that.
func (s *sharedStore) commit(names []string, fn func(*quota.Tx) error) error {
	const mostRuns = 10
	for range mostRuns {
		tx, handed, err := s.run(names, fn)
		if err != nil {
			return err
		}
		if s.now == nil || tx.Until.IsZero() || s.now().Before(tx.Until) {
			return s.write(names, tx, handed)
		}
	}
	return errLate
}

var errLate = errors.New("the store comes too late, however often it runs fn")

func (s *sharedStore) next(names []string) fault {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.updates++
	s.names = append(s.names, slices.Clone(names))
	if len(s.faults) == 0 {
		return s.always
	}
	what := s.faults[0]
	s.faults = s.faults[1:]
	return what
}

// run returns what fn leaves, and the books that it was handed.
func (s *sharedStore) run(names []string, fn func(*quota.Tx) error) (*quota.Tx, map[string]*quota.Book, error) {
	s.mu.Lock()
	books, err := s.read(names)
	s.mu.Unlock()
	if err != nil {
		return nil, nil, err
	}
	tx, handed := &quota.Tx{Books: books}, maps.Clone(books)
	if s.now != nil {
		tx.Now = s.now()
	}
	err = fn(tx)
	s.mu.Lock()
	s.until = tx.Until
	s.mu.Unlock()
	return tx, handed, err
}

// write writes what has changed.
func (s *sharedStore) write(names []string, tx *quota.Tx, handed map[string]*quota.Book) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for name := range s.books {
		if tx.Books[name] == nil && (names == nil || slices.Contains(names, name)) {
			delete(s.books, name)
		}
	}
	for name, book := range tx.Books {
		if book == handed[name] {
			continue
		}
		data, err := json.Marshal(book)
		if err != nil {
			return err
		}
		s.books[name] = data
		s.writes++
	}
	return nil
}

// plan sets what becomes of the Updates to come, and of all after them.
func (s *sharedStore) plan(always fault, faults ...fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.always, s.faults = always, faults
}

func (s *sharedStore) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.updates
}

// texts returns the books as they are stored.
func (s *sharedStore) texts() map[string]string {
	s.mu.Lock()
	defer s.mu.Unlock()
	texts := map[string]string{}
	for name, data := range s.books {
		texts[name] = string(data)
	}
	return texts
}

// copied returns a store with the same books, without faults.
func (s *sharedStore) copied() *sharedStore {
	s.mu.Lock()
	defer s.mu.Unlock()
	other := newSharedStore()
	for name, data := range s.books {
		other.books[name] = data
	}
	return other
}

func TestTwoTrackersOnOneStoreNeverAdmitMoreThanTheLimit(t *testing.T) {
	ctx := t.Context()
	store := newSharedStore()
	var log alertLog
	one, two := startOn(t, store, withAlerts(log.note)), startOn(t, store, withAlerts(log.note))
	var group sync.WaitGroup
	var mu sync.Mutex
	granted := 0
	for i := range 8 {
		tracker := []*quota.QuotaTracker{one, two}[i%2]
		group.Go(func() {
			for {
				r, err := tracker.Reserve(ctx, "calls")
				if err != nil {
					require.ErrorIs(t, err, quota.ErrExceeded)
					return
				}
				require.NoError(t, r.Commit(ctx))
				mu.Lock()
				granted++
				mu.Unlock()
			}
		})
	}
	group.Wait()
	require.Equal(t, 100, granted)
	require.Equal(t, stand{100, 0}, standIn(t, store.copied()))
	require.ElementsMatch(t, []int{50, 80, 90}, log.thresholds(), "each once; which of the two trackers tells first is open")
}

func TestAReservationOfOneTrackerIsSettledByAnotherThroughItsID(t *testing.T) {
	ctx := t.Context()
	store := newSharedStore()
	one, two := startOn(t, store), startOn(t, store)
	r, err := one.Reserve(ctx, "calls", quota.Requests(5))
	require.NoError(t, err)
	found, err := two.Reservation(ctx, r.ID())
	require.NoError(t, err)
	require.NoError(t, found.Commit(ctx, quota.Requests(4)))
	require.ErrorIs(t, r.Commit(ctx), quota.ErrSettled)
	require.Equal(t, stand{4, 0}, standIn(t, store.copied()))
}

func TestAnUpdateThatRunsItsFunctionTwiceAppliesItOnce(t *testing.T) {
	ctx := t.Context()
	store := newSharedStore()
	tracker := startOn(t, store)
	store.plan(twice)
	r, err := tracker.Reserve(ctx, "calls", quota.Requests(10))
	require.NoError(t, err)
	require.NoError(t, tracker.RecordUsage(ctx, "calls", quota.Requests(3)))
	require.NoError(t, r.Commit(ctx, quota.Requests(7)))
	require.Equal(t, stand{10, 0}, standIn(t, store.copied()))
	_, err = tracker.Reserve(ctx, "calls", quota.Requests(91))
	require.ErrorIs(t, err, quota.ErrExceeded)
	require.NoError(t, tracker.Close())
	final := startOn(t, store.copied())
	status, _ := final.Status("calls")
	require.EqualValues(t, 1, status.Today.Denied)
	require.EqualValues(t, 2, status.Today.Calls)
}

func TestAConflictDecidesAgainOnTheNewestBooks(t *testing.T) {
	ctx := t.Context()
	store := newSharedStore()
	tracker := startOn(t, store)
	store.plan(fine, elsewhere)
	store.rival = func() {
		// What somebody else records between the two runs of fn, in a copy of the store that then takes its place.
		other := store.copied()
		rival, err := openOn(other)
		require.NoError(t, err)
		require.NoError(t, rival.RecordUsage(ctx, "calls", quota.Requests(95)))
		require.NoError(t, rival.Close())
		store.mu.Lock()
		defer store.mu.Unlock()
		store.books = other.books
	}
	_, err := tracker.Reserve(ctx, "calls", quota.Requests(10))
	require.ErrorIs(t, err, quota.ErrExceeded, "it had fitted when fn ran first")
	require.Equal(t, stand{95, 0}, standIn(t, store.copied()))
	require.Equal(t, stand{95, 0}, standOf(t, tracker, "calls"))
}

func TestUsageWhoseReplyWasLostIsAppliedOnce(t *testing.T) {
	ctx := t.Context()
	store := newSharedStore()
	tracker := startOn(t, store)
	held, err := tracker.Reserve(ctx, "calls", quota.Requests(20))
	require.NoError(t, err)
	store.plan(fine, lostReply, lostReply, before)
	for _, err := range []error{
		tracker.RecordUsage(ctx, "calls", quota.Requests(1)), held.Commit(ctx, quota.Requests(30)),
		tracker.RecordUsage(ctx, "calls", quota.Requests(400)),
	} {
		require.ErrorIs(t, err, quota.ErrNotSaved)
		require.ErrorIs(t, err, quota.ErrPending)
		require.ErrorIs(t, err, errStore)
	}
	// The record was matched with the hold, so that the commit of a handle is further usage.
	require.Equal(t, stand{431, 0}, standOf(t, tracker, "calls"))
	require.NoError(t, tracker.RecordUsage(ctx, "calls", quota.Requests(5000)))
	require.Equal(t, stand{5431, 0}, standOf(t, tracker, "calls"))
	require.Equal(t, stand{5431, 0}, standIn(t, store.copied()))
	status, _ := tracker.Status("calls")
	require.EqualValues(t, 4, status.Today.Calls)
}

func TestAReservationWhoseReplyWasLostIsTakenBack(t *testing.T) {
	ctx := t.Context()
	store := newSharedStore()
	clock := quotatest.NewClock(morning)
	tracker := startOn(t, store, withClock(clock))
	store.plan(fine, lostReply)
	_, err := tracker.Reserve(ctx, "calls", quota.Requests(100))
	require.ErrorIs(t, err, quota.ErrNotSaved)
	require.NotErrorIs(t, err, quota.ErrPending)
	require.Equal(t, stand{0, 100}, standIn(t, store.copied()), "it did reach the store")
	clock.Advance(time.Second)
	require.Equal(t, stand{}, standIn(t, store.copied()), "the hold is taken back without a further call")
	_, err = tracker.Reserve(ctx, "calls", quota.Requests(100))
	require.NoError(t, err)
}

func TestAnAlertWhoseSaveLostItsReplyIsDeliveredOnce(t *testing.T) {
	ctx := t.Context()
	store := newSharedStore()
	var log alertLog
	tracker := startOn(t, store, withAlerts(log.note))
	store.plan(fine, lostReply)
	require.ErrorIs(t, tracker.RecordUsage(ctx, "calls", quota.Requests(60)), quota.ErrPending)
	require.Empty(t, log.thresholds(), "nobody knows whether the crossing is saved")
	require.NoError(t, tracker.RecordUsage(ctx, "calls"))
	require.NoError(t, tracker.RecordUsage(ctx, "calls"))
	require.Equal(t, []int{50}, log.thresholds())
}

func TestUsageKeptDuringAnOutageGoesOutOnceAndByItself(t *testing.T) {
	ctx := t.Context()
	store := newSharedStore()
	var log alertLog
	clock := quotatest.NewClock(morning)
	tracker, other := startOn(t, store, withClock(clock), withAlerts(log.note)), startOn(t, store)
	store.plan(before)
	for range 3 {
		require.ErrorIs(t, tracker.RecordUsage(ctx, "calls", quota.Requests(20)), quota.ErrPending)
	}
	require.False(t, tracker.CanUse("calls", quota.Requests(41)), "what is kept counts in every decision")
	require.True(t, tracker.CanUse("calls", quota.Requests(40)))
	require.Equal(t, stand{60, 0}, standOf(t, tracker, "calls"))
	r, err := tracker.Reserve(ctx, "calls")
	require.Nil(t, r)
	require.ErrorIs(t, err, quota.ErrNotSaved)
	require.NotErrorIs(t, err, quota.ErrPending)
	require.ErrorIs(t, tracker.Flush(ctx), quota.ErrNotSaved)
	require.Empty(t, log.thresholds())

	clock.Advance(5 * time.Second)
	require.Equal(t, stand{60, 0}, standOf(t, tracker, "calls"), "it is kept for as long as it takes")
	store.plan(fine)
	require.NoError(t, other.RecordUsage(ctx, "calls", quota.Requests(3)))
	clock.Advance(time.Second)
	require.Equal(t, stand{63, 0}, standIn(t, store.copied()))
	require.Equal(t, stand{63, 0}, standOf(t, tracker, "calls"))
	require.Equal(t, []int{50}, log.thresholds())
	updates := store.count()
	clock.Advance(time.Hour)
	require.Equal(t, updates, store.count(), "once it is saved, nothing is tried again")
}

func TestUsageKeptDuringAnOutageGoesOutInOrder(t *testing.T) {
	ctx := t.Context()
	store := newSharedStore()
	tracker := startOn(t, store)
	held, err := tracker.Acquire(ctx, quota.Request{All: []string{"calls"}, Amounts: []quota.Amount{quota.Requests(9)}, ID: "job"})
	require.NoError(t, err)
	store.plan(fine, before, before, before)
	require.ErrorIs(t, held.Extend(ctx, time.Hour), quota.ErrPending)
	require.ErrorIs(t, held.Commit(ctx, quota.Requests(2)), quota.ErrPending)
	require.ErrorIs(t, tracker.RecordUsage(ctx, "calls", quota.Requests(5)), quota.ErrPending)
	require.Equal(t, morning.Add(time.Hour), held.ExpiresAt())
	require.Equal(t, stand{7, 0}, standOf(t, tracker, "calls"))
	require.NoError(t, tracker.RecordUsage(ctx, "calls"))
	require.Equal(t, stand{8, 0}, standIn(t, store.copied()))
}

func TestUsageRecordedBeforeMidnightIsSavedAsOfItsDay(t *testing.T) {
	ctx := t.Context()
	store := newSharedStore()
	clock := quotatest.NewClock(time.Date(2026, time.January, 5, 23, 59, 59, 0, time.UTC))
	tracker := startOn(t, store, withClock(clock))
	store.plan(before)
	require.ErrorIs(t, tracker.RecordUsage(ctx, "calls", quota.Requests(5)), quota.ErrPending)
	clock.Advance(time.Minute)
	store.plan(fine)
	require.NoError(t, tracker.RecordUsage(ctx, "calls", quota.Requests(2)))
	require.Equal(t, stand{2, 0}, standIn(t, store.copied(), withClock(clock)))
	days := tracker.History("calls")
	require.Len(t, days, 1)
	require.EqualValues(t, 5, days[0].Used[quota.UnitRequests])
}

func TestTheClockOfTheStoreDecidesTheDay(t *testing.T) {
	ctx := t.Context()
	store := newSharedStore()
	now := time.Date(2026, time.January, 5, 23, 59, 0, 0, time.UTC)
	store.now = func() time.Time { return now }
	behind := startOn(t, store, withClock(quotatest.NewClock(now.Add(-time.Minute))))
	ahead := startOn(t, store, withClock(quotatest.NewClock(now.Add(time.Hour))))
	require.NoError(t, behind.RecordUsage(ctx, "calls", quota.Requests(60)))
	_, err := ahead.Reserve(ctx, "calls", quota.Requests(60))
	require.ErrorIs(t, err, quota.ErrExceeded, "the day of its own clock has begun, that of the store has not")
	now = now.Add(2 * time.Minute)
	_, err = behind.Reserve(ctx, "calls", quota.Requests(60))
	require.NoError(t, err, "the day of the store has begun")
}

func TestAClockThatDiffersFromTheStoresCausesNoStorm(t *testing.T) {
	for _, skew := range []time.Duration{-time.Hour, time.Hour} {
		synctest.Test(t, func(t *testing.T) {
			ctx := t.Context()
			store := newSharedStore()
			clock := quotatest.NewClock(morning)
			store.now = func() time.Time { return clock.Now().Add(skew) }
			tracker := startOn(t, store, withClock(clock))
			_, err := tracker.Acquire(ctx, quota.Request{All: []string{"calls"}, TTL: time.Minute})
			require.NoError(t, err)
			updates := store.count()
			for range 20 {
				tracker.CanUse("calls")
				synctest.Wait()
			}
			require.LessOrEqual(t, store.count()-updates, 1, "asking looks again only after a while")
			clock.Advance(10 * time.Minute)
			require.LessOrEqual(t, store.count()-updates, 1000, "an expiry that the store does not see yet is not tried incessantly")
		})
	}
}

func TestAnExpiryThatCannotBeSavedIsTriedAgainWithoutHurry(t *testing.T) {
	store := newSharedStore()
	clock := quotatest.NewClock(morning)
	tracker := startOn(t, store, withClock(clock))
	_, err := tracker.Reserve(t.Context(), "calls", quota.Requests(7))
	require.NoError(t, err)
	updates := store.count()
	store.plan(before)
	clock.Advance(15*time.Minute + 10*time.Second)
	require.InDelta(t, 10, store.count()-updates, 9)
	store.plan(fine)
	clock.Advance(time.Minute)
	require.Equal(t, stand{7, 0}, standIn(t, store.copied(), withClock(clock)))
}
