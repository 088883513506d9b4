package quota

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// A scriptedStore is a SharedPersistence in memory, of which a test decides what becomes of each update.
type scriptedStore struct {
	mu    sync.Mutex // protects books, during a whole update
	books map[string]*Book

	part   sync.Mutex                      // protects script
	script func(ctx context.Context) error // after fn has run; nil: it is applied
}

// play gives the store another script.
func (s *scriptedStore) play(script func(ctx context.Context) error) {
	s.part.Lock()
	defer s.part.Unlock()
	s.script = script
}

func (s *scriptedStore) line() func(ctx context.Context) error {
	s.part.Lock()
	defer s.part.Unlock()
	return s.script
}

// book returns what the store has of a quota; nil: nothing.
func (s *scriptedStore) book(name string) *Book {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.books[name]
}

var errScript = errors.New("the script says no")

func (s *scriptedStore) Load(context.Context) (*State, error) { return nil, nil }
func (s *scriptedStore) Save(context.Context, *State) error   { return errScript }

func (s *scriptedStore) Update(ctx context.Context, names []string, fn func(*Tx) error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	tx := &Tx{Books: map[string]*Book{}}
	if names == nil {
		for name := range s.books {
			names = append(names, name)
		}
	}
	for _, name := range names {
		if b := s.books[name]; b != nil {
			tx.Books[name] = b.Clone()
		}
	}
	if err := fn(tx); err != nil {
		return err
	}
	if script := s.line(); script != nil {
		if err := script(ctx); err != nil {
			return err
		}
	}
	if s.books == nil {
		s.books = map[string]*Book{}
	}
	for _, name := range names {
		if b := tx.Books[name]; b != nil {
			s.books[name] = b.Clone()
		} else {
			delete(s.books, name)
		}
	}
	return nil
}

// beginOn returns a tracker on the clock of the bubble.
func beginOn(t *testing.T, store Persistence, quotas ...Quota) *QuotaTracker {
	t.Helper()
	tracker, err := New(t.Context(), Config{
		Persistence: store, Quotas: quotas, OnAlert: func(Alert) {}, Logger: slog.New(slog.DiscardHandler),
	})
	require.NoError(t, err)
	t.Cleanup(func() { _ = tracker.Close() })
	return tracker
}

func users() Quota { return Quota{Name: "user:*", Limits: []Limit{{Max: 10}}} }

func entriesOf(t *QuotaTracker) int { return len(t.entries.all()) }

func TestAnAlertThatCrossesWhileCloseBeginsIsToldByTheNextTrackerAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hold := make(chan struct{})
		store := &scriptedStore{}
		limits := []Quota{{Name: "q", Limits: []Limit{{Max: 100}}}}
		tracker := beginOn(t, store, limits...)
		store.play(func(context.Context) error { <-hold; return nil })
		go func() { _ = tracker.RecordUsage(t.Context(), "q", Requests(60)) }()
		synctest.Wait()
		go func() { _ = tracker.Close() }()
		synctest.Wait()
		close(hold)
		synctest.Wait()

		told := 0
		next, err := New(t.Context(), Config{Persistence: store, Quotas: limits, OnAlert: func(Alert) { told++ }})
		require.NoError(t, err)
		require.NoError(t, next.RecordUsage(t.Context(), "q"))
		require.Equal(t, 1, told)
		require.NoError(t, next.Close())
	})
}

func TestCloseSavesACallThatCameWhileItFlushed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &scriptedStore{}
		tracker := beginOn(t, store, Quota{Name: "q", Limits: []Limit{{Max: 1}}})
		require.NoError(t, tracker.RecordUsage(t.Context(), "q"))
		_, err := tracker.Reserve(t.Context(), "q")
		require.ErrorIs(t, err, ErrExceeded)
		updates, late := 0, make(chan error, 1)
		store.play(func(context.Context) error {
			switch updates++; updates {
			case 1: // Close saves the refusal; a call that has begun before is queued behind
				go func() {
					late <- tracker.shared.submit(t.Context(), &recording{name: "q", list: *amounting(Requests(1))})
				}()
				synctest.Wait()
			case 2:
				return errScript
			}
			return nil
		})
		require.NoError(t, tracker.Close())
		require.ErrorIs(t, <-late, ErrPending)
		require.EqualValues(t, 2, store.book("q").accounts[0].used)
	})
}

func TestCloseEndsAnUpdateThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &scriptedStore{}
		tracker := beginOn(t, store, Quota{Name: "q"})
		store.play(func(ctx context.Context) error {
			<-ctx.Done()
			select { // it takes a moment to give up
			case <-time.After(lastGrace / 2):
			case <-t.Context().Done():
			}
			return ctx.Err()
		})
		go func() { _ = tracker.RecordUsage(context.Background(), "q") }()
		synctest.Wait()
		began := time.Now()
		require.ErrorIs(t, tracker.Close(), ErrNotSaved)
		require.LessOrEqual(t, time.Since(began), closeGrace+lastGrace)
		require.False(t, tracker.shared.running)
	})
}

func TestAlertsOfUpdatesThatDidNotHappenAreForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &scriptedStore{}
		rolling := Quota{Name: "q", Limits: []Limit{{Max: 10, Window: Rolling(time.Hour)}}}
		one, other := beginOn(t, store, rolling), beginOn(t, store, rolling)
		store.play(func(context.Context) error { return errScript })
		require.ErrorIs(t, one.RecordUsage(t.Context(), "q", Requests(9)), ErrPending)
		require.NotEmpty(t, one.shared.unsure)
		store.play(nil)
		<-time.After(pause / 2)
		require.NoError(t, other.RecordUsage(t.Context(), "q", Requests(9))) // its alerts, at its time
		require.NoError(t, one.Flush(t.Context()))
		require.Empty(t, one.shared.unsure)
	})
}

func TestAskingMakesNoEntries(t *testing.T) {
	for what, open := range map[string]func(*testing.T) Persistence{
		"server": func(*testing.T) Persistence { return &scriptedStore{} },
		"file":   func(t *testing.T) Persistence { return NewJSONFile(filepath.Join(t.TempDir(), "state.json")) },
	} {
		t.Run(what, func(t *testing.T) {
			tracker := beginOn(t, open(t), Quota{Name: "q"}, users())
			before := entriesOf(tracker)
			for i := range 50 {
				require.True(t, tracker.CanUse(fmt.Sprint("user:", i)))
				for _, home := range []string{"user:", "q", "\x1b[31mevil"} {
					_, err := tracker.Reservation(t.Context(), fmt.Sprintf("1-%d@%s%d", i, home, i))
					require.ErrorIs(t, err, ErrNoReservation)
				}
			}
			require.NoError(t, tracker.Refresh(t.Context()))
			require.Equal(t, before, entriesOf(tracker))
			require.LessOrEqual(t, len(tracker.shared.asked), mostAsked)
		})
	}
}

func TestWhatTheStoreIsAskedForIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tracker := beginOn(t, &scriptedStore{}, users())
		tracker.shared.mu.Lock()
		for i := range 2 * mostAsked {
			require.Equal(t, i < mostAsked, tracker.shared.mayAsk(fmt.Sprint(i), tracker.now()))
			require.False(t, tracker.shared.mayAsk(fmt.Sprint(i), tracker.now()))
		}
		tracker.shared.mu.Unlock()
	})
}

func TestEntriesOfOthersBooksGoWithTheBooks(t *testing.T) {
	for what, configured := range map[string][]Quota{"of a template": {users()}, "not configured": {{Name: "q"}}} {
		for _, kind := range []string{"server", "file"} {
			t.Run(kind+", "+what, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					ctx := t.Context()
					var store Persistence = &scriptedStore{}
					if kind == "file" {
						store = NewJSONFile(filepath.Join(t.TempDir(), "state.json"))
					}
					one, other := beginOn(t, store, configured...), beginOn(t, store, users())
					before := entriesOf(one)
					for i := range 20 {
						require.NoError(t, other.RecordUsage(ctx, fmt.Sprint("user:", i)))
					}
					look := func() int {
						_ = one.Summary()
						synctest.Wait()
						return entriesOf(one)
					}
					require.Equal(t, before+20, look())
					<-time.After(4 * 24 * time.Hour)
					synctest.Wait()
					require.Equal(t, before, look())
				})
			})
		}
	}
}

func TestAServerShowsTheTemplateQuotasThatOthersBegan(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, store := t.Context(), &scriptedStore{}
		one, other := beginOn(t, store, users()), beginOn(t, store, users())
		moment := func() {
			<-time.After(lookAgain)
			synctest.Wait()
		}
		require.True(t, one.CanUse("user:bob"), "nobody has used it")
		require.NoError(t, other.RecordUsage(ctx, "user:bob", Requests(10)))
		require.NoError(t, other.RecordUsage(ctx, "user:eve", Requests(1)))
		moment()
		_ = one.CanUse("user:bob") // somebody asks
		synctest.Wait()
		require.False(t, one.CanUse("user:bob"))
		_ = one.Summary()
		synctest.Wait()
		require.Len(t, one.Summary().Quotas, 2)
		require.NoError(t, other.RecordUsage(ctx, "user:eve", Requests(2)))
		moment()
		_ = one.Summary()
		synctest.Wait()
		status, _ := one.Status("user:eve")
		require.EqualValues(t, 3, status.Limits[0].Used)
		require.Empty(t, store.book("user:nobody"))
	})
}
