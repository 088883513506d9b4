package pgquota_test

import (
	"errors"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/quota"
	"example.com/quota/pgquota/internal/pgtest"
)

// cut is what an Update through a proxy that spoils its COMMIT returns.
func cut(t *testing.T, fault pgtest.Fault) (proxy *pgtest.Proxy, schema string, update func(*quota.Book) error) {
	t.Helper()
	proxy = pgtest.StartProxy(t, shared.Server(t))
	schema = newSchema()
	store := open(t, pgtest.Pool(t, proxy.DSN()), schema)
	return proxy, schema, func(book *quota.Book) error {
		proxy.Commits(fault)
		return store.Update(t.Context(), []string{"a"}, putting("a", book))
	}
}

func TestAChangeWhoseCommitWasCutOffDoesNotStand(t *testing.T) {
	_, schema, update := cut(t, pgtest.CutBefore)
	require.ErrorIs(t, update(books(t, 1)[0]), quota.ErrNotSaved)
	require.Empty(t, inStore(t, schema))
}

func TestAChangeWhoseReplyWasLostStands(t *testing.T) {
	_, schema, update := cut(t, pgtest.CutAfter)
	book := books(t, 1)[0]
	require.ErrorIs(t, update(book), quota.ErrNotSaved)
	require.Equal(t, text(t, book), inStore(t, schema)["a"])
}

func TestWhoeverComesAfterACommitThatIsStillOnItsWayWaitsUntilItIsDecided(t *testing.T) {
	list := books(t, 2)
	for name, next := range map[string]func(t *testing.T, store quota.SharedPersistence) *quota.Book{
		"an Update": func(t *testing.T, store quota.SharedPersistence) (found *quota.Book) {
			require.NoError(t, store.Update(t.Context(), []string{"a", "b"}, func(tx *quota.Tx) error { found = tx.Books["a"]; return nil }))
			return found
		},
		"a look at all books": func(t *testing.T, store quota.SharedPersistence) (found *quota.Book) {
			require.NoError(t, store.Update(t.Context(), nil, func(tx *quota.Tx) error { found = tx.Books["a"]; return nil }))
			return found
		},
		"a Load": func(t *testing.T, store quota.SharedPersistence) *quota.Book {
			state, err := store.Load(t.Context())
			require.NoError(t, err)
			return state.Books["a"]
		},
	} {
		t.Run(name, func(t *testing.T) {
			proxy := pgtest.StartProxy(t, shared.Server(t))
			store := open(t, pgtest.Pool(t, proxy.DSN()), newSchema())
			put(t, store, "a", list[0])
			proxy.Commits(pgtest.Late)
			require.ErrorIs(t, store.Update(t.Context(), []string{"a"}, putting("a", list[1])), quota.ErrNotSaved)
			var found *quota.Book
			done := make(chan struct{})
			go func() {
				defer close(done)
				found = next(t, store)
			}()
			waiting(t, pool(t), 1)
			proxy.Deliver(t)
			<-done
			require.NotNil(t, found)
			require.Equal(t, text(t, list[1]), text(t, found))
		})
	}
}

func TestACommitThatComesAfterItsTransactionWasGivenUpHasNoEffect(t *testing.T) {
	proxy, schema, update := cut(t, pgtest.Late)
	require.ErrorIs(t, update(books(t, 1)[0]), quota.ErrNotSaved)
	// Nobody closes the server's end of the connection: the holder is out of reach.
	require.NoError(t, open(t, pool(t), schema).Update(t.Context(), []string{"a"}, func(tx *quota.Tx) error {
		require.Empty(t, tx.Books)
		return nil
	}))
	proxy.DeliverInVain(t)
	require.Empty(t, inStore(t, schema))
}

func TestATrackerCountsOnceWhateverBecomesOfItsReplies(t *testing.T) {
	proxy := pgtest.StartProxy(t, shared.Server(t))
	connections, schema := pgtest.Pool(t, proxy.DSN()), newSchema()
	store := open(t, connections, schema)
	tracker := start(t, store, withQuotas(calls(1_000_000)))
	other := start(t, open(t, pool(t), schema), withQuotas(calls(1_000_000)))
	random := rand.New(rand.NewPCG(1, 2))
	proxy.Plan(func(request []byte) pgtest.Fault {
		switch n := random.IntN(10); {
		case n == 0:
			return pgtest.CutBefore
		case n <= 2 && pgtest.HasCommit(request):
			return pgtest.CutAfter
		}
		return pgtest.Pass
	})
	const rounds, workers = 30, 4
	var group sync.WaitGroup
	for range workers {
		group.Go(func() {
			for range rounds {
				err := tracker.RecordUsage(t.Context(), "calls", quota.Requests(3))
				if err != nil && !errors.Is(err, quota.ErrPending) {
					t.Error(err)
				}
				if err := other.RecordUsage(t.Context(), "calls", quota.Requests(5)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	group.Wait()
	proxy.Plan(nil)
	require.NoError(t, tracker.Flush(t.Context()))
	require.Equal(t, stand{rounds * workers * 8, 0}, standOf(t, other, "calls"))
	require.Equal(t, stand{rounds * workers * 8, 0}, standOf(t, tracker, "calls"))
}

func TestAReservationWhoseReplyWasLostHoldsNothingInTheEnd(t *testing.T) {
	for name, fault := range map[string]pgtest.Fault{"before": pgtest.CutBefore, "after": pgtest.CutAfter} {
		t.Run(name, func(t *testing.T) {
			proxy := pgtest.StartProxy(t, shared.Server(t))
			schema := newSchema()
			tracker := start(t, open(t, pgtest.Pool(t, proxy.DSN()), schema))
			proxy.Commits(fault)
			_, err := tracker.Reserve(t.Context(), "calls", quota.Requests(7))
			require.ErrorIs(t, err, quota.ErrNotSaved)
			require.NoError(t, tracker.Flush(t.Context()))
			require.Equal(t, stand{0, 0}, standOf(t, start(t, open(t, pool(t), schema)), "calls"))
		})
	}
}

func TestAConnectionThatWasLostWhileItRestedCostsNothing(t *testing.T) {
	connections, schema := pool(t), newSchema()
	store := open(t, connections, schema)
	put(t, store, "a", books(t, 1)[0])
	for _, use := range map[string]func() error{
		"Update": func() error { return store.Update(t.Context(), []string{"a"}, putting("a", books(t, 2)[1])) },
		"look":   func() error { return store.Update(t.Context(), nil, func(*quota.Tx) error { return nil }) },
		"Load":   func() error { _, err := store.Load(t.Context()); return err },
	} {
		for range 3 { // no connection must rest so long that the pool asks it how it is
			_, err := pool(t).Exec(t.Context(), "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE state = 'idle' AND backend_type = 'client backend' AND pid <> pg_backend_pid()")
			require.NoError(t, err)
			require.NoError(t, use())
		}
	}
}

func TestAHolderThatDoesNothingLosesItsTransactionAndKnowsIt(t *testing.T) {
	schema := newSchema()
	one, two := open(t, pool(t), schema), open(t, pool(t), schema)
	list := books(t, 2)
	runs := 0
	done := make(chan error, 1)
	err := one.Update(t.Context(), []string{"a"}, func(tx *quota.Tx) error {
		if runs++; runs == 1 {
			go func() { done <- two.Update(t.Context(), []string{"a"}, putting("a", list[1])) }()
			select { // longer than a transaction may do nothing
			case err := <-done:
				done <- err
			case <-time.After(20 * time.Second):
				return errors.New("the other one has not had its turn")
			}
		}
		return putting("a", list[0])(tx)
	})
	require.NoError(t, <-done)
	require.ErrorIs(t, err, quota.ErrNotSaved)
	require.Equal(t, text(t, list[1]), inStore(t, schema)["a"])
}
