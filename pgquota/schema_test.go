package pgquota_test

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"example.com/quota"
	"example.com/quota/pgquota"
	"example.com/quota/pgquota/internal/pgtest"
)

func TestManyProcessesMayMakeTheTablesAtOnce(t *testing.T) {
	schema := newSchema()
	var group sync.WaitGroup
	errs := make([]error, 8)
	for i := range errs {
		connections := pool(t)
		group.Go(func() {
			store, err := pgquota.New(t.Context(), connections, pgquota.Options{Schema: schema})
			if err == nil {
				err = store.Update(t.Context(), []string{"a"}, func(*quota.Tx) error { return nil })
			}
			errs[i] = err
		})
	}
	group.Wait()
	require.NoError(t, errors.Join(errs...))
	require.Equal(t, "1", query(t, pool(t), "SELECT schema_version::text FROM "+schema+".state"))
}

func TestTablesThatAreThereAreUsedAsTheyAre(t *testing.T) {
	schema := newSchema()
	put(t, open(t, pool(t), schema), "a", books(t, 1)[0])
	before := inStore(t, schema)
	require.NotEmpty(t, before)
	open(t, pool(t), schema)
	require.Equal(t, before, inStore(t, schema))
}

func TestTablesOfANewerVersionAreRefusedAndLeftAlone(t *testing.T) {
	schema := newSchema()
	connections := pool(t)
	store := open(t, connections, schema)
	put(t, store, "a", books(t, 1)[0])
	execute(t, connections, "UPDATE "+schema+".state SET schema_version = 2")
	_, err := openStore(t, connections, schema)
	require.ErrorIs(t, err, quota.ErrNewerState)

	// So does a store that was opened before.
	for _, names := range [][]string{nil, {"a"}} {
		err := store.Update(t.Context(), names, putting("a", books(t, 2)[1]))
		require.ErrorIs(t, err, quota.ErrNewerState)
	}
	_, err = store.Load(t.Context())
	require.ErrorIs(t, err, quota.ErrNewerState)
	require.ErrorIs(t, store.Save(t.Context(), &quota.State{}), quota.ErrNewerState)
	execute(t, connections, "UPDATE "+schema+".state SET schema_version = 1")
	require.Equal(t, text(t, books(t, 1)[0]), inStore(t, schema)["a"])
}

func TestABookOfANewerVersionIsRefusedAndLeftAlone(t *testing.T) {
	schema := newSchema()
	connections := pool(t)
	store := open(t, connections, schema)
	list := books(t, 2)
	put(t, store, "a", list[0])
	put(t, store, "b", list[0])
	execute(t, connections, "UPDATE "+schema+`.books SET format = 3, book = '{"new": true}' WHERE quota = 'a'`)
	require.ErrorIs(t, store.Update(t.Context(), []string{"a", "b"}, putting("a", list[1])), quota.ErrNewerState)
	_, err := store.Load(t.Context())
	require.ErrorIs(t, err, quota.ErrNewerState)
	put(t, store, "b", list[1]) // the others go on
	require.Equal(t, `{"new": true}`, query(t, connections, "SELECT book::text FROM "+schema+".books WHERE quota = 'a'"))
}

func TestTheVersionOfTheBooksIsTheOneThatTrackersWrite(t *testing.T) {
	var recorder recorder
	tracker := start(t, &recorder)
	require.NoError(t, tracker.RecordUsage(t.Context(), "calls"))
	schema := newSchema()
	tracker = start(t, open(t, pool(t), schema))
	require.NoError(t, tracker.RecordUsage(t.Context(), "calls"))
	require.Equal(t, fmt.Sprint(recorder.state.Version), query(t, pool(t), "SELECT format::text FROM "+schema+".books"))
}

func TestARowThatCannotBeReadIsAnErrorThatNamesItAndNeverZeroUsage(t *testing.T) {
	for name, change := range map[string]string{
		"no book":             `UPDATE SCHEMA.books SET book = '[]' WHERE quota = 'a'`,
		"null":                `UPDATE SCHEMA.books SET book = 'null' WHERE quota = 'a'`,
		"a negative number":   `UPDATE SCHEMA.books SET book = replace(book::text, '"used":1,', '"used":-1,')::json WHERE quota = 'a'`,
		"an unknown member":   `UPDATE SCHEMA.books SET book = ('{"x":1,' || substr(book::text, 2))::json WHERE quota = 'a'`,
		"no row of the state": `DELETE FROM SCHEMA.state`,
	} {
		t.Run(name, func(t *testing.T) {
			schema := newSchema()
			connections := pool(t)
			store := open(t, connections, schema)
			list := books(t, 2)
			put(t, store, "a", list[0])
			put(t, store, "b", list[0])
			execute(t, connections, replaceSchema(change, schema))
			row := `table books, quota "a"`
			if strings.Contains(change, "state") {
				row = "table state"
			}
			for _, names := range [][]string{nil, {"a"}, {"a", "b"}} {
				err := store.Update(t.Context(), names, putting("a", list[1]))
				require.ErrorIs(t, err, quota.ErrCorruptState)
				require.ErrorContains(t, err, schema)
				require.ErrorContains(t, err, row)
			}
			_, err := store.Load(t.Context())
			require.ErrorIs(t, err, quota.ErrCorruptState)
			_, err = quota.New(t.Context(), quota.Config{Persistence: store, Logger: quiet()})
			require.ErrorIs(t, err, quota.ErrCorruptState)
			require.NotEqual(t, text(t, list[1]), query(t, connections, "SELECT book::text FROM "+schema+".books WHERE quota = 'a'"))
			if row != "table state" {
				put(t, store, "b", list[1]) // the others go on
			}
		})
	}
}

func TestANameOfASchemaIsQuoted(t *testing.T) {
	connections := pool(t)
	for _, schema := range []string{
		`we"ird`, `a'b`, `x; DROP SCHEMA public CASCADE; --`, "with space", "CASE", "Ünï", "$tag$", "a.b", `back\slash`, "select",
		strings.Repeat("s", 63),
	} {
		t.Run(schema, func(t *testing.T) {
			store := open(t, connections, schema)
			book := books(t, 1)[0]
			put(t, store, "a", book)
			state, err := store.Load(t.Context())
			require.NoError(t, err)
			require.Equal(t, text(t, book), text(t, state.Books["a"]))
			require.NoError(t, store.Save(t.Context(), state))
			require.Equal(t, "1", query(t, connections, "SELECT count(*)::text FROM pg_namespace WHERE nspname = $1", schema))
			require.Equal(t, "1", query(t, connections, "SELECT count(*)::text FROM "+pgx.Identifier{schema}.Sanitize()+".quota_status"))
		})
	}
	for _, schema := range []string{strings.Repeat("s", 64), "pg_quota", "a\x00b", "\xff", "a$body$b"} {
		_, err := openStore(t, connections, schema)
		require.ErrorIs(t, err, quota.ErrInvalidConfig, schema)
	}
	_, err := pgquota.New(t.Context(), nil, pgquota.Options{})
	require.ErrorIs(t, err, quota.ErrInvalidConfig)
}

func TestTablesThatAreNotOfTheStoreAreNeverTouched(t *testing.T) {
	connections := pool(t)
	schema := newSchema()
	execute(t, connections, "CREATE SCHEMA "+schema)
	execute(t, connections, replaceSchema("CREATE TABLE SCHEMA.books (title text); INSERT INTO SCHEMA.books VALUES ('mine')", schema))
	_, err := openStore(t, connections, schema)
	require.ErrorContains(t, err, `relation "books" already exists`)
	require.Equal(t, "mine", query(t, connections, "SELECT title FROM "+schema+".books"))
	require.Equal(t, "1", query(t, connections, "SELECT count(*)::text FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace WHERE nspname = $1", schema))
}

func TestTablesThatACrashWouldEmptyAreRefused(t *testing.T) {
	connections := pool(t)
	schema := newSchema()
	open(t, connections, schema)
	execute(t, connections, "ALTER TABLE "+schema+".books SET UNLOGGED")
	_, err := openStore(t, connections, schema)
	require.ErrorIs(t, err, quota.ErrInvalidConfig)
	require.ErrorContains(t, err, "SET LOGGED")
}

func TestADatabaseThatCannotHoldEveryNameIsRefused(t *testing.T) {
	execute(t, pool(t), "CREATE DATABASE narrow ENCODING 'LATIN1' TEMPLATE template0")
	_, err := openStore(t, pgtest.Pool(t, shared.Server(t).DSN("dbname=narrow")), newSchema())
	require.ErrorIs(t, err, quota.ErrInvalidConfig)
	require.ErrorContains(t, err, "UTF8")
}

func TestARoleThatMayNotMakeTheTablesIsToldWhatToDoAndWorksWithThoseOfSetup(t *testing.T) {
	super := pool(t)
	schema, role := newSchema(), `the "app"`
	execute(t, super, "CREATE ROLE "+pgx.Identifier{role}.Sanitize()+" LOGIN")
	app := pgtest.Pool(t, shared.Server(t).DSN(`user='the "app"'`))

	_, err := openStore(t, app, schema)
	require.ErrorIs(t, err, quota.ErrInvalidConfig)
	require.ErrorContains(t, err, `GRANT CREATE ON DATABASE postgres TO "the ""app"""`)
	require.ErrorContains(t, err, "pgquota.Setup")

	sql, err := pgquota.Setup(pgquota.Options{Schema: schema}, role)
	require.NoError(t, err)
	execute(t, super, sql)
	store := open(t, app, schema)
	book := books(t, 1)[0]
	put(t, store, "a", book)
	state, err := store.Load(t.Context())
	require.NoError(t, err)
	require.NoError(t, store.Save(t.Context(), state))
	require.Equal(t, map[string]string{"a": text(t, book)}, inStore(t, schema))
	require.Equal(t, "1", query(t, app, "SELECT count(*)::text FROM "+schema+".quota_status"))

	execute(t, super, replaceSchema(`REVOKE UPDATE ON SCHEMA.books FROM "the ""app"""`, schema))
	_, err = openStore(t, app, schema)
	require.ErrorIs(t, err, quota.ErrInvalidConfig)
	require.ErrorContains(t, err, "lacks UPDATE on books")
	require.ErrorContains(t, err, `GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA "`+schema+`" TO "the ""app"""`)
	err = store.Update(t.Context(), []string{"a"}, putting("a", books(t, 2)[1]))
	require.ErrorIs(t, err, quota.ErrNotSaved)
	require.ErrorContains(t, err, "GRANT SELECT, INSERT, UPDATE, DELETE")

	_, err = pgquota.Setup(pgquota.Options{}, "")
	require.ErrorIs(t, err, quota.ErrInvalidConfig)
}

func TestWhatIsMissingInASchemaIsSaid(t *testing.T) {
	connections := pool(t)
	schema := newSchema()
	store := open(t, connections, schema)
	execute(t, connections, "DROP SCHEMA "+schema+" CASCADE")
	err := store.Update(t.Context(), []string{"a"}, putting("a", books(t, 1)[0]))
	require.ErrorIs(t, err, quota.ErrNotSaved)
	require.ErrorContains(t, err, "a part of the schema is missing")
}
