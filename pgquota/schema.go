package pgquota

import (
	_ "embed"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"

	"example.com/quota"
)

const (
	schemaVersion = 1 // of the tables
	bodyTag       = "$body$"
)

//go:embed sql/1.sql
var firstVersion string

// versions returns the scripts that bring the tables to each version from the one before. A program whose tables have
// become newer while it runs refuses them from then on.
func versions() []string { return []string{firstVersion} }

// inSchema puts the name of a schema into SQL.
func inSchema(name, sql string) string {
	schema := pgx.Identifier{name}.Sanitize()
	return strings.NewReplacer(
		":schema", schema,
		":sequence", "'"+strings.ReplaceAll(schema+".revisions", "'", "''")+"'",
	).Replace(sql)
}

// Setup returns the SQL that New would run in an empty database, for somebody who may create a schema where the program's
// role may not, with the grants that the role needs.
func Setup(opts Options, role string) (string, error) {
	opts, err := opts.withDefaults()
	if err != nil {
		return "", err
	}
	if role == "" {
		return "", fmt.Errorf("pgquota: %w: there is no role to grant anything to", quota.ErrInvalidConfig)
	}
	return "BEGIN;\n" + inSchema(opts.Schema, "CREATE SCHEMA :schema;\n") + upgrade(opts.Schema, 0) + grants(opts.Schema, pgx.Identifier{role}.Sanitize()) + "COMMIT;\n", nil
}

// upgrade returns the SQL that brings the tables from one version to the newest.
func upgrade(schema string, from int64) string {
	var sql strings.Builder
	for _, script := range versions()[from:] {
		sql.WriteString(inSchema(schema, script))
	}
	sql.WriteString(inSchema(schema, fmt.Sprintf(
		"\nINSERT INTO :schema.state (schema_version) VALUES (%d) ON CONFLICT (only_row) DO UPDATE SET schema_version = EXCLUDED.schema_version;\n",
		schemaVersion)))
	return sql.String()
}

// grants returns what a role, an identifier, needs.
func grants(schema, role string) string {
	return strings.ReplaceAll(inSchema(schema, `GRANT USAGE ON SCHEMA :schema TO :role;
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA :schema TO :role;
GRANT USAGE, SELECT ON ALL SEQUENCES IN SCHEMA :schema TO :role;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA :schema TO :role;
`), ":role", role)
}

// tables are the statements for one schema.
type tables struct {
	class int32 // of its advisory locks

	begin, beginLook, settings, lock, lockBooks, clock, read, readAll, write string
	state, revisions, days, clearDays, finish, saved                         string
	exists, version, privileges, unlogged                                    string
}

func tablesOf(name string) tables {
	sql := func(text string) string { return inSchema(name, text) }
	const columns = "SELECT quota, revision, format, (extract(epoch FROM decided_at) * 1000000)::bigint, book FROM :schema.books"
	return tables{
		class: int32(hash("pgquota " + name)),

		// Whatever the role's defaults are. Each statement of the first sees what was committed before it.
		begin:     "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE",
		beginLook: "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
		settings: `SELECT set_config('lock_timeout', $1, true), set_config('statement_timeout', $2, true),
			set_config('idle_in_transaction_session_timeout', $3, true), set_config('synchronous_commit',
			CASE current_setting('synchronous_commit') WHEN 'off' THEN 'on' ELSE current_setting('synchronous_commit') END, true)`,
		lock:      "SELECT pg_advisory_xact_lock($1, stripe) FROM unnest($2) AS stripe",
		lockBooks: sql("LOCK TABLE :schema.books IN EXCLUSIVE MODE"),
		clock:     sql("SELECT schema_version, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint FROM :schema.state"),
		read:      sql(columns + " WHERE quota = ANY($1)"),
		readAll:   sql(columns),
		// A COMMIT that a statement_timeout ended would be acknowledged without the standbys it waits for.
		write: sql("SELECT :schema.write($1, $2, $3, $4, $5, $6, $7), set_config('statement_timeout', '0', true)"),

		state:     sql("SELECT saved_revision, saved_at, generation_ahead + last_value FROM :schema.state, :schema.revisions"),
		revisions: sql("SELECT quota, revision FROM :schema.books"),
		days: sql(`SELECT json_build_object('quota', quota, 'starts_at', starts_at AT TIME ZONE 'UTC', 'utc_offset', utc_offset,
			'calls', calls, 'denied', denied, 'expired', expired, 'used', used, 'estimated', estimated, 'peak_reserved', peak_reserved,
			'denied_by', denied_by, 'alerts', alerts) FROM :schema.finished_days WHERE in_history ORDER BY quota, starts_at`),
		clearDays: sql("DELETE FROM :schema.finished_days"),
		finish:    sql("SELECT :schema.finish($1, $2::boolean)"),
		saved: sql(`UPDATE :schema.state SET saved_revision = (SELECT last_value FROM :schema.revisions), saved_at = $1,
			generation_ahead = greatest(generation_ahead, $2 - (SELECT last_value FROM :schema.revisions))`),

		exists: sql(`SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = $1),
			EXISTS (SELECT FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace WHERE nspname = $1 AND relname = 'state')`),
		version: sql("SELECT schema_version FROM :schema.state"),
		privileges: sql(`SELECT privilege || ' on ' || name FROM (
				SELECT privilege, relname AS name, has_table_privilege(pg_class.oid, privilege) AS has
				FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace, unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) AS privilege
				WHERE nspname = $1 AND relname IN ('state', 'books', 'finished_days')
				UNION ALL
				SELECT privilege, relname, has_sequence_privilege(pg_class.oid, privilege)
				FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace, unnest(ARRAY['USAGE', 'SELECT']) AS privilege
				WHERE nspname = $1 AND relname = 'revisions'
				UNION ALL
				SELECT 'EXECUTE', proname, has_function_privilege(pg_proc.oid, 'EXECUTE')
				FROM pg_proc JOIN pg_namespace ON pg_namespace.oid = pronamespace
				WHERE nspname = $1 AND proname IN ('write', 'finish', 'status')
			) AS needed WHERE NOT has ORDER BY 1`),
		unlogged: `SELECT relname FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
			WHERE nspname = $1 AND relkind IN ('r', 'S') AND relpersistence <> 'p' ORDER BY relname`,
	}
}
