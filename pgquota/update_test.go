package pgquota_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/quota"
	"example.com/quota/pgquota"
	"example.com/quota/pgquota/internal/pgtest"
)

func TestAnUpdateTakesTwoRoundTripsAndALookAtAllBooksOne(t *testing.T) {
	proxy := pgtest.StartProxy(t, shared.Server(t))
	store := open(t, pgtest.Pool(t, proxy.DSN()), newSchema())
	trips := func(f func() error) int {
		before := proxy.Requests()
		require.NoError(t, f())
		return proxy.Requests() - before
	}
	book := books(t, 1)[0]
	nothing := func(*quota.Tx) error { return nil }
	require.Equal(t, 2, trips(func() error { return store.Update(t.Context(), []string{"a"}, putting("a", book)) }))
	require.Equal(t, 2, trips(func() error { return store.Update(t.Context(), []string{"a", "b", "c"}, nothing) }))
	require.Equal(t, 1, trips(func() error { return store.Update(t.Context(), nil, nothing) }))
	require.Equal(t, 1, trips(func() error { _, err := store.Load(t.Context()); return err }))
}

func TestOfTwoUpdatesOfOneQuotaThatDoesNotExistYetTheSecondSeesWhatTheFirstHasMade(t *testing.T) {
	schema := newSchema()
	one, two := open(t, pool(t), schema), open(t, pool(t), schema)
	begun, goOn := make(chan struct{}), make(chan struct{})
	var group sync.WaitGroup
	list := books(t, 2)
	var first, second error
	group.Go(func() {
		first = one.Update(t.Context(), []string{"a", "b"}, func(tx *quota.Tx) error {
			close(begun)
			<-goOn
			return putting("b", list[0])(tx)
		})
	})
	<-begun
	found := ""
	group.Go(func() {
		second = two.Update(t.Context(), []string{"b", "c"}, func(tx *quota.Tx) error {
			if tx.Books["b"] != nil {
				found = text(t, tx.Books["b"])
			}
			return putting("b", list[1])(tx)
		})
	})
	waiting(t, pool(t), 1)
	close(goOn)
	group.Wait()
	require.NoError(t, errors.Join(first, second))
	require.Equal(t, text(t, list[0]), found)
	require.Equal(t, map[string]string{"b": text(t, list[1])}, inStore(t, schema))
}

func TestUpdatesOfDifferentQuotasDoNotWaitForEachOther(t *testing.T) {
	store := open(t, pool(t), newSchema())
	require.NoError(t, store.Update(t.Context(), []string{"a"}, func(*quota.Tx) error {
		return store.Update(t.Context(), []string{"b"}, putting("b", books(t, 1)[0]))
	}))
}

func TestUpdatesThatNameTheSameQuotasInAnyOrderNeverDeadlock(t *testing.T) {
	schema := newSchema()
	connections := pool(t)
	names := []string{"a", "b", "c", "d", "e"}
	var group sync.WaitGroup
	errs := make([]error, 8)
	for i := range errs {
		store := open(t, connections, schema)
		group.Go(func() {
			for round := range 20 {
				mine := []string{names[(i+round)%5], names[(i+round*2)%5], names[(i+round*3)%5]}
				err := store.Update(t.Context(), mine, func(tx *quota.Tx) error {
					for _, name := range mine {
						book := new(quota.Book)
						if tx.Books[name] != nil {
							*book = *tx.Books[name]
						}
						tx.Books[name] = book
					}
					return nil
				})
				errs[i] = errors.Join(errs[i], err)
			}
		})
	}
	group.Wait()
	require.NoError(t, errors.Join(errs...))
	require.Equal(t, "0", query(t, connections, "SELECT deadlocks::text FROM pg_stat_database WHERE datname = current_database()"))
}

func TestAnUpdateThatChangesNothingWritesNothing(t *testing.T) {
	connections := pool(t)
	schema := newSchema()
	store := open(t, connections, schema)
	put(t, store, "a", books(t, 1)[0])
	revision := func() string {
		return query(t, connections, "SELECT revision::text || xmin::text || xmax::text FROM "+schema+".books")
	}
	before := revision()
	for _, names := range [][]string{nil, {"a"}, {"a", "b"}} {
		require.NoError(t, store.Update(t.Context(), names, func(*quota.Tx) error { return nil }))
		refusal := errors.New("refused")
		require.Equal(t, refusal, store.Update(t.Context(), names, func(*quota.Tx) error { return refusal }))
	}
	require.Equal(t, before, revision(), "not even a row lock")
}

func TestABookThatSomebodyChangesPastTheLocksIsNotOverwritten(t *testing.T) {
	connections := pool(t)
	for name, change := range map[string]string{
		"changed": "UPDATE SCHEMA.books SET book = '{\"clock\":\"2026-01-05T09:00:00Z\"}', revision = nextval('SCHEMA.revisions') WHERE quota = 'a'",
		"dropped": "DELETE FROM SCHEMA.books WHERE quota = 'a'",
		"made":    "INSERT INTO SCHEMA.books SELECT 'b', nextval('SCHEMA.revisions'), format, decided_at, book FROM SCHEMA.books",
	} {
		t.Run(name, func(t *testing.T) {
			schema := newSchema()
			store := open(t, connections, schema)
			list := books(t, 2)
			put(t, store, "a", list[0])
			runs := 0
			require.NoError(t, store.Update(t.Context(), []string{"a", "b"}, func(tx *quota.Tx) error {
				if runs++; runs == 1 {
					execute(t, connections, replaceSchema(change, schema))
				}
				tx.Books["b"] = list[1]
				return nil
			}))
			require.Equal(t, 2, runs)
		})
	}
}

func TestAnUpdateThatIsAlwaysOvertakenTakesTheTableInTheEnd(t *testing.T) {
	connections := pool(t)
	schema := newSchema()
	store := open(t, connections, schema)
	list := books(t, 2)
	put(t, store, "a", list[0])
	runs := 0
	require.NoError(t, store.Update(t.Context(), []string{"a"}, func(tx *quota.Tx) error {
		runs++
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := connections.Exec(ctx, replaceSchema("UPDATE SCHEMA.books SET revision = nextval('SCHEMA.revisions')", schema))
		if err != nil {
			require.ErrorIs(t, err, context.DeadlineExceeded, "others wait")
		}
		tx.Books["a"] = list[1]
		return nil
	}))
	require.Equal(t, 6, runs)
	require.Equal(t, text(t, list[1]), inStore(t, schema)["a"])
}

func TestTrackersOnTwoStoresTogetherAreGrantedExactlyTheLimit(t *testing.T) {
	schema := newSchema()
	var log alertLog
	trackers := []*quota.QuotaTracker{
		start(t, open(t, pool(t), schema), withAlerts(log.note)),
		start(t, open(t, pool(t), schema), withAlerts(log.note)),
		start(t, open(t, pool(t), schema), withAlerts(log.note)),
	}
	var group sync.WaitGroup
	var mu sync.Mutex
	granted := 0
	for i := range 12 {
		group.Go(func() {
			for {
				r, err := trackers[i%3].Reserve(t.Context(), "calls")
				if errors.Is(err, quota.ErrExceeded) {
					return
				}
				if err == nil {
					err = r.Commit(t.Context())
				}
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				granted++
				mu.Unlock()
			}
		})
	}
	group.Wait()
	require.Equal(t, 100, granted)
	require.Equal(t, stand{100, 0}, standOf(t, trackers[0], "calls"))
	for _, tracker := range trackers {
		require.NoError(t, tracker.Close())
	}
	require.ElementsMatch(t, []int{50, 80, 90}, log.thresholds(), "once each")
}

func TestAHoldOfOneTrackerIsCommittedByAnotherThroughItsID(t *testing.T) {
	schema := newSchema()
	one, two := start(t, open(t, pool(t), schema)), start(t, open(t, pool(t), schema))
	r, err := one.Reserve(t.Context(), "calls", quota.Requests(5))
	require.NoError(t, err)
	found, err := two.Reservation(t.Context(), r.ID())
	require.NoError(t, err)
	require.NoError(t, found.Commit(t.Context(), quota.Requests(4)))
	require.ErrorIs(t, r.Commit(t.Context()), quota.ErrSettled)
	require.Equal(t, stand{4, 0}, standOf(t, one, "calls"))
}

func TestAnUpdateMayNotAddTheBookOfAQuotaItHasNotNamed(t *testing.T) {
	schema := newSchema()
	store := open(t, pool(t), schema)
	err := store.Update(t.Context(), []string{"a"}, putting("b", books(t, 1)[0]))
	require.ErrorIs(t, err, quota.ErrInvalidRequest)
	require.ErrorIs(t, err, quota.ErrNotSaved)
	require.Empty(t, inStore(t, schema))
}

func TestAnUpdateEndsSoonAfterItsContext(t *testing.T) {
	store := open(t, pool(t), newSchema())
	ctx, cancel := context.WithCancel(t.Context())
	require.NoError(t, store.Update(t.Context(), []string{"a"}, func(*quota.Tx) error {
		time.AfterFunc(50*time.Millisecond, cancel)
		err := store.Update(ctx, []string{"a"}, func(*quota.Tx) error { return nil }) // waits for this one
		require.ErrorIs(t, err, context.Canceled)
		require.ErrorIs(t, err, quota.ErrNotSaved)
		return nil
	}))
	require.ErrorIs(t, store.Update(ctx, []string{"a"}, func(*quota.Tx) error { return nil }), context.Canceled)
}

var _ quota.SharedPersistence = (*pgquota.Store)(nil)
