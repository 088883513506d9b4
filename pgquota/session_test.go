package pgquota_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"example.com/quota"
	"example.com/quota/pgquota"
	"example.com/quota/pgquota/internal/pgtest"
	"example.com/quota/quotatest"
)

func TestAStoreWorksBehindAPoolerThatGivesEachTransactionAnotherSession(t *testing.T) {
	pooler := pgtest.StartPooler(t, shared.Server(t))
	connections := pgtest.Pool(t, pooler.DSN(), func(cfg *pgxpool.Config) { cfg.MaxConns = 4 })
	require.NoError(t, quotatest.TestPersistence(func() (quota.Persistence, error) {
		return pgquota.New(t.Context(), connections, pgquota.Options{Schema: newSchema()})
	}))
	require.Equal(t, "0", query(t, pool(t), "SELECT count(*)::text FROM pg_locks WHERE locktype = 'advisory'"))
}

func TestAnUpdateLeavesNothingInItsSession(t *testing.T) {
	one := pool(t, func(cfg *pgxpool.Config) { cfg.MaxConns = 1 })
	schema := newSchema()
	state := func() string {
		return query(t, one, `SELECT concat_ws(' ', pg_backend_pid(),
			(SELECT count(*) FROM pg_prepared_statements WHERE statement NOT LIKE '%pg_prepared_statements%'),
			(SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()),
			(SELECT count(*) FROM pg_cursors WHERE name <> ''),
			(SELECT count(*) FROM pg_listening_channels()),
			current_setting('lock_timeout'), current_setting('statement_timeout'),
			current_setting('idle_in_transaction_session_timeout'), current_setting('search_path'),
			current_setting('default_transaction_isolation'))`)
	}
	before := state()
	store := open(t, one, schema)
	put(t, store, "a", books(t, 1)[0])
	require.Error(t, store.Update(t.Context(), []string{"a"}, func(*quota.Tx) error { return errors.New("refused") }))
	require.NoError(t, store.Update(t.Context(), nil, func(*quota.Tx) error { return nil }))
	runs := 0
	require.NoError(t, store.Update(t.Context(), []string{"a"}, func(tx *quota.Tx) error {
		if runs++; runs == 1 {
			tx.Until = tx.Now.Add(time.Microsecond) // over when it is written
		}
		return putting("a", books(t, 2)[1])(tx)
	}))
	require.Equal(t, 2, runs)
	state1, err := store.Load(t.Context())
	require.NoError(t, err)
	require.NoError(t, store.Save(t.Context(), state1))
	require.Equal(t, before, state())
}

func TestWhateverARoleIsSetToAStoreWorksAndCommitsDurably(t *testing.T) {
	t.Parallel()
	super := pool(t)
	execute(t, super, "CREATE ROLE odd SUPERUSER LOGIN")
	for name, value := range map[string]string{
		"synchronous_commit": "off", "default_transaction_isolation": "serializable", "default_transaction_read_only": "on",
		"DateStyle": "SQL, DMY", "IntervalStyle": "sql_standard", "TimeZone": "America/St_Johns", "search_path": "nowhere",
		"statement_timeout": "60000", "bytea_output": "escape", "extra_float_digits": "-15", "standard_conforming_strings": "off",
		"row_security": "off", "plan_cache_mode": "force_generic_plan",
	} {
		execute(t, super, fmt.Sprintf("ALTER ROLE odd SET %s = '%s'", name, value))
	}
	odd := pgtest.Pool(t, shared.Server(t).DSN("user=odd"), func(cfg *pgxpool.Config) { cfg.MaxConns = 4 })
	require.NoError(t, quotatest.TestPersistence(func() (quota.Persistence, error) {
		return pgquota.New(t.Context(), odd, pgquota.Options{Schema: newSchema()})
	}))
	schema := newSchema()
	store := open(t, odd, schema)
	// What holds when the COMMIT is carried out: no statement_timeout, which would end its wait for standbys as a success.
	execute(t, super, replaceSchema(`CREATE TABLE SCHEMA.seen (settings text);
		CREATE FUNCTION SCHEMA.see() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
			INSERT INTO SCHEMA.seen VALUES (current_setting('synchronous_commit') || ' ' || current_setting('statement_timeout'));
			RETURN NULL; END $$;
		CREATE CONSTRAINT TRIGGER see AFTER INSERT OR UPDATE ON SCHEMA.books DEFERRABLE INITIALLY DEFERRED
			FOR EACH ROW EXECUTE FUNCTION SCHEMA.see()`, schema))
	put(t, store, "a", books(t, 1)[0])
	require.Equal(t, "on 0", query(t, super, "SELECT settings FROM "+schema+".seen"))
	require.Equal(t, "1", query(t, odd, "SELECT count(*)::text FROM "+schema+".quota_status WHERE max = 1000"))
}

func TestNothingIsLeftOfTrackersAndTheirPoolAfterClose(t *testing.T) {
	watching := pool(t)
	query(t, watching, "SELECT 1")
	leaked := goleak.IgnoreCurrent()
	connections, err := pgxpool.New(t.Context(), shared.Server(t).DSN("application_name=leaving"))
	require.NoError(t, err)
	schema := newSchema()
	for range 2 {
		store, err := pgquota.New(t.Context(), connections, pgquota.Options{Schema: schema})
		require.NoError(t, err)
		tracker, err := quota.New(t.Context(), quota.Config{Persistence: store, Quotas: []quota.Quota{calls(10)}, OnAlert: func(quota.Alert) {}})
		require.NoError(t, err)
		for range 3 {
			require.NoError(t, tracker.RecordUsage(t.Context(), "calls"))
		}
		_, err = tracker.Reserve(t.Context(), "calls", quota.Requests(100))
		require.ErrorIs(t, err, quota.ErrExceeded)
		require.NoError(t, tracker.Close())
	}
	require.Zero(t, connections.Stat().AcquiredConns())
	connections.Close()
	pgtest.Eventually(t, "the server has no session of the pool", func() bool {
		return query(t, watching, "SELECT count(*)::text FROM pg_stat_activity WHERE application_name = 'leaving'") == "0"
	})
	goleak.VerifyNone(t, leaked)
}
