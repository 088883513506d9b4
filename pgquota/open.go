package pgquota

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"example.com/quota"
)

// open checks the server, makes the tables what this version knows, and checks that the role may use them.
func (s *Store) open(ctx context.Context) error {
	conn, err := s.pool.Acquire(ctx)
	if err != nil {
		return err
	}
	defer conn.Release()
	if err := s.checkServer(ctx, conn); err != nil {
		return err
	}
	version, _, err := s.version(ctx, conn)
	if err != nil {
		return err
	}
	if version < schemaVersion {
		if err := s.migrate(ctx, conn); err != nil {
			return err
		}
	}
	return s.checkTables(ctx, conn)
}

func (s *Store) checkServer(ctx context.Context, conn *pgxpool.Conn) error {
	settings, err := ask(ctx, conn, `SELECT current_setting('server_encoding'), current_setting('fsync'), current_setting('full_page_writes'),
		pg_is_in_recovery()`)
	if err != nil {
		return err
	}
	encoding, fsync, fullPages, standby := string(settings[0][0]), string(settings[0][1]), string(settings[0][2]), string(settings[0][3])
	switch {
	case encoding != "UTF8":
		return fmt.Errorf("%w: the database has the encoding %s, which has not every name: make one with UTF8", quota.ErrInvalidConfig, encoding)
	case standby == "t":
		return fmt.Errorf("%w: the server is a standby: connect to the primary (target_session_attrs=read-write)", quota.ErrInvalidConfig)
	case fsync != "on" || fullPages != "on":
		s.opts.Logger.Warn("pgquota: the server may lose or damage what it has saved when its machine fails, set fsync and full_page_writes on",
			"schema", s.opts.Schema, "fsync", fsync, "full_page_writes", fullPages)
	}
	return nil
}

// version returns the version of the tables, 0 when there are none, and whether there is a schema.
func (s *Store) version(ctx context.Context, conn *pgxpool.Conn) (version int64, schema bool, err error) {
	found, err := ask(ctx, conn, s.tables.exists, s.opts.Schema)
	if err != nil {
		return 0, false, err
	}
	schema = string(found[0][0]) == "t"
	if string(found[0][1]) != "t" {
		return 0, schema, nil
	}
	rows, err := ask(ctx, conn, s.tables.version)
	if err != nil {
		return 0, schema, err
	}
	if len(rows) != 1 {
		return 0, schema, s.corrupt("state", "its row is missing", nil)
	}
	if version, err = parseInt(rows[0][0]); err != nil || version < 1 {
		return 0, schema, s.corrupt("state", "schema_version", errors.Join(err, fmt.Errorf("%d", version)))
	}
	if version > schemaVersion {
		return 0, schema, newer(s.opts.Schema, version)
	}
	return version, schema, nil
}

// migrate makes the tables, or brings them up to date. Whoever does it at the same time waits, and finds it done.
func (s *Store) migrate(ctx context.Context, conn *pgxpool.Conn) error {
	defer rollback(ctx, conn)
	if _, err := ask(ctx, conn, s.tables.begin); err != nil {
		return err
	}
	if _, err := ask(ctx, conn, s.tables.lock, int(s.tables.class), []int32{migrationLock}); err != nil {
		return err
	}
	version, schema, err := s.version(ctx, conn)
	if err != nil || version == schemaVersion {
		return err
	}
	sql := upgrade(s.opts.Schema, version)
	if !schema {
		sql = inSchema(s.opts.Schema, "CREATE SCHEMA :schema;\n") + sql
	}
	_, err = conn.Conn().PgConn().Exec(ctx, sql+"COMMIT").ReadAll()
	var answer *pgconn.PgError
	if !errors.As(err, &answer) || answer.Code != codeNoPrivilege {
		return err
	}
	rollback(ctx, conn)
	who, asked := ask(ctx, conn, "SELECT quote_ident(current_user), quote_ident(current_database())")
	if asked != nil {
		return err
	}
	return fmt.Errorf("%w: the role may not make the tables: have an owner run the SQL that pgquota.Setup returns, or "+
		"GRANT CREATE ON DATABASE %s TO %s (of a schema that exists: GRANT CREATE ON SCHEMA): %w",
		quota.ErrInvalidConfig, who[0][1], who[0][0], err)
}

// checkTables makes sure that the role may use the tables, and that they outlive a crash of the server.
func (s *Store) checkTables(ctx context.Context, conn *pgxpool.Conn) error {
	unlogged, err := ask(ctx, conn, s.tables.unlogged, s.opts.Schema)
	if err != nil {
		return err
	}
	if len(unlogged) > 0 {
		return fmt.Errorf("%w: %s is not kept through a crash of the server: ALTER TABLE ... SET LOGGED", quota.ErrInvalidConfig, unlogged[0][0])
	}
	missing, err := ask(ctx, conn, s.tables.privileges, s.opts.Schema)
	if err != nil || len(missing) == 0 {
		return err
	}
	var list []string
	for _, row := range missing {
		list = append(list, string(row[0]))
	}
	who, err := ask(ctx, conn, "SELECT quote_ident(current_user)")
	if err != nil {
		return err
	}
	role := string(who[0][0])
	return fmt.Errorf("%w: the role %s lacks %s; as the owner of the schema, run: %s",
		quota.ErrInvalidConfig, role, strings.Join(list, ", "), grants(s.opts.Schema, role))
}

// ask has one statement carried out and returns its rows.
func ask(ctx context.Context, conn *pgxpool.Conn, sql string, args ...any) ([][][]byte, error) {
	var p pipeline
	p.add(sql, args...)
	replies, err := p.send(ctx, conn.Conn().PgConn())
	if err != nil {
		return nil, err
	}
	return replies[0].rows, nil
}
