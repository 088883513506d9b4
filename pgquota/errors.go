package pgquota

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5/pgconn"

	"example.com/quota"
)

// What the server says, by the codes of its documentation, and by those of write in the schema.
const (
	codeConflict        = "QU001"
	codeLate            = "QU002"
	codeSerialization   = "40001"
	codeDeadlock        = "40P01"
	codeLockTimeout     = "55P03"
	codeReadOnly        = "25006"
	codeNoPrivilege     = "42501"
	codeUndefinedSchema = "3F000"
	codeUndefinedTable  = "42P01"
	codeUndefined       = "42883" // function
)

// A retry says that nothing has changed, and why a further run may succeed.
type retry struct {
	why why
	err error
}

type why int

const (
	conflict why = iota // somebody else has been quicker
	late                // what fn decided did not hold until the commit
	broken              // the connection was, before anything could be committed
)

func (r *retry) Error() string { return r.err.Error() }
func (r *retry) Unwrap() error { return r.err }

// retryable makes err a retry if it is one. Nothing has been committed.
func retryable(ctx context.Context, err error) error {
	var answer *pgconn.PgError
	answered := errors.As(err, &answer)
	switch {
	case ctx.Err() != nil:
		return err
	case !answered, answer.SeverityUnlocalized == "FATAL", answer.SeverityUnlocalized == "PANIC":
		return &retry{broken, err}
	case answer.Code == codeConflict, answer.Code == codeSerialization, answer.Code == codeDeadlock:
		return &retry{conflict, err}
	case answer.Code == codeLate:
		return &retry{late, err}
	}
	return err
}

// notSaved gives err the mark of an Update or a Save that failed, and names the store.
func (s *Store) notSaved(err error) error {
	return fmt.Errorf("pgquota: %w: schema %q: %w", quota.ErrNotSaved, s.opts.Schema, explain(s.opts.Schema, err))
}

// explain adds to what the server says what to do about it.
func explain(schema string, err error) error {
	var answer *pgconn.PgError
	if !errors.As(err, &answer) || errors.Is(err, quota.ErrInvalidConfig) {
		return err
	}
	switch answer.Code {
	case codeNoPrivilege:
		return fmt.Errorf("%w; as the owner of the schema, run: %s", err, grants(schema, "the_role"))
	case codeUndefinedSchema, codeUndefinedTable, codeUndefined:
		return fmt.Errorf("%w; a part of the schema is missing: restore it from a backup, or drop the schema and call New again to count anew", err)
	case codeReadOnly:
		return fmt.Errorf("%w; connect to the primary (target_session_attrs=read-write)", err)
	case codeLockTimeout:
		return fmt.Errorf("%w; others have held the same quotas for longer than %s ms", err, lockTimeout)
	}
	return err
}

// corrupt names the table and the row in which something stands that cannot be read.
func (s *Store) corrupt(table, where string, err error) error {
	if err == nil {
		return fmt.Errorf("%w: schema %q, table %s: %s; restore it from a backup", quota.ErrCorruptState, s.opts.Schema, table, where)
	}
	return fmt.Errorf("%w: schema %q, table %s, %s: %w; restore the row from a backup, or delete it to count that quota anew",
		quota.ErrCorruptState, s.opts.Schema, table, where, err)
}

func newer(schema string, version int64) error {
	return fmt.Errorf("%w: schema %q is of version %d, this program knows up to %d", quota.ErrNewerState, schema, version, schemaVersion)
}
