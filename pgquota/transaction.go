package pgquota

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"example.com/quota"
	"example.com/quota/internal/form"
)

// How long the server lets one wait for the locks, carries out one statement, and lets a transaction be whose client
// does nothing, in milliseconds.
const (
	lockTimeout      = "10000"
	statementTimeout = "15000"
	idleTimeout      = "5000"
)

const (
	rollbackTime  = time.Second    // for a transaction that has come to nothing
	clockMayRecur = 24 * time.Hour // by how much a book's clock may step back and go on, instead of back
)

// A transaction holds the locks of some quotas, or the table of books, and knows what stands there.
type transaction struct {
	snapshot
	store *Store
	conn  *pgxpool.Conn
}

// A snapshot is what somebody has read.
type snapshot struct {
	rows map[string]row
	now  time.Time
}

// begin opens a transaction on the newest books of the named quotas, of all for nil, in one round trip. exclusive keeps
// everybody else from writing any book.
func (s *Store) begin(ctx context.Context, names []string, exclusive bool) (*transaction, error) {
	conn, err := s.pool.Acquire(ctx)
	if err != nil {
		return nil, err
	}
	tx := &transaction{store: s, conn: conn}
	if err := tx.begin(ctx, names, exclusive); err != nil {
		tx.end(ctx)
		return nil, err
	}
	return tx, nil
}

func (tx *transaction) begin(ctx context.Context, names []string, exclusive bool) error {
	s := tx.store
	var p pipeline
	p.add(s.tables.begin)
	p.add(s.tables.settings, lockTimeout, statementTimeout, idleTimeout)
	p.add(s.tables.lock, int(s.tables.class), locksOf(names))
	if exclusive {
		p.add(s.tables.lockBooks)
	}
	p.add(s.tables.clock) // after the locks
	if names != nil {
		p.add(s.tables.read, names)
	} else {
		p.add(s.tables.readAll)
	}
	replies, err := p.send(ctx, tx.conn.Conn().PgConn())
	if err != nil {
		return retryable(ctx, err)
	}
	read, err := s.snapshot(replies[len(replies)-2], replies[len(replies)-1])
	if err != nil {
		return err
	}
	tx.snapshot = *read
	s.decided(nil, names)
	if exclusive {
		s.decided(nil, []string{everything})
	}
	return nil
}

// look reads all books, without locks, in one round trip.
func (s *Store) look(ctx context.Context) (*snapshot, error) {
	if err := s.decide(ctx); err != nil {
		return nil, err
	}
	conn, err := s.pool.Acquire(ctx)
	if err != nil {
		return nil, err
	}
	defer conn.Release()
	var p pipeline
	p.add(s.tables.clock)
	p.add(s.tables.readAll)
	replies, err := p.send(ctx, conn.Conn().PgConn())
	if err != nil {
		return nil, retryable(ctx, err)
	}
	return s.snapshot(replies[0], replies[1])
}

// snapshot reads the replies to clock and read.
func (s *Store) snapshot(clock, books reply) (*snapshot, error) {
	if len(clock.rows) != 1 {
		return nil, s.corrupt("state", "its row is missing", nil)
	}
	version, err := parseInt(clock.rows[0][0])
	if err != nil {
		return nil, s.corrupt("state", "schema_version", err)
	}
	if version > schemaVersion {
		return nil, newer(s.opts.Schema, version)
	}
	micros, err := parseInt(clock.rows[0][1])
	if err != nil {
		return nil, fmt.Errorf("the server's time: %w", err)
	}
	now := micros + s.offset().Microseconds()
	read := &snapshot{rows: make(map[string]row, len(books.rows))}
	latest := now
	for _, columns := range books.rows {
		name, r := string(columns[0]), row{book: columns[4]}
		format, err := parseInt(columns[2])
		if err != nil {
			return nil, s.corrupt("books", fmt.Sprintf("quota %q, format", name), err)
		}
		if format > form.Version {
			return nil, fmt.Errorf("%w: the book of %q is of version %d", quota.ErrNewerState, name, format)
		}
		var errs [2]error
		r.revision, errs[0] = parseInt(columns[1])
		r.decided, errs[1] = parseInt(columns[3])
		if err := errors.Join(errs[:]...); err != nil {
			return nil, s.corrupt("books", fmt.Sprintf("quota %q", name), err)
		}
		// The server's clock may step back, and another server's may be behind. From further ahead it has been wrong: the
		// books themselves then go back.
		if ahead := r.decided - now; ahead > 0 && ahead <= clockMayRecur.Microseconds() {
			latest = max(latest, r.decided)
		}
		read.rows[name] = r
	}
	read.now = time.UnixMicro(latest).UTC()
	return read, nil
}

// decode returns fresh books of what stands in the store.
func (s *Store) decode(rows map[string]row) (map[string]*quota.Book, error) {
	books := make(map[string]*quota.Book, len(rows))
	for name, r := range rows {
		book, err := s.cache.decode(name, r.book)
		if err != nil {
			return nil, s.corrupt("books", fmt.Sprintf("quota %q", name), err)
		}
		books[name] = book
	}
	return books, nil
}

// end ends a transaction that has not been committed, and gives the connection back.
func (tx *transaction) end(ctx context.Context) {
	defer tx.conn.Release() // which closes a connection that is still in a transaction
	rollback(ctx, tx.conn)
}

func rollback(ctx context.Context, c *pgxpool.Conn) {
	conn := c.Conn().PgConn()
	if conn.IsClosed() || conn.TxStatus() == 'I' {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), rollbackTime)
	defer cancel()
	_, _ = conn.Exec(ctx, "ROLLBACK").ReadAll() // else the connection is closed
}

// commit sends the statements and COMMIT in one round trip. When it returns an error that is not one to try again after,
// nobody knows whether the change stands, until somebody holds the locks of names.
func (tx *transaction) commit(ctx context.Context, p *pipeline, names []string) ([]reply, error) {
	p.add("COMMIT")
	tx.store.undecided(tx, names)
	replies, err := p.send(ctx, tx.conn.Conn().PgConn())
	var answer *pgconn.PgError
	switch {
	case err == nil:
		tx.store.decided(tx, names)
		if tag := replies[len(replies)-1].tag; tag != "COMMIT" {
			return nil, fmt.Errorf("the server has answered COMMIT with %s", tag)
		}
		return replies, nil
	case errors.As(err, &answer) && answer.SeverityUnlocalized == "ERROR":
		// The transaction has failed, and a COMMIT that comes after it is not carried out.
		tx.store.decided(tx, names)
		return nil, retryable(ctx, err)
	}
	return nil, fmt.Errorf("it is not known whether the change stands: %w", err)
}

// everything stands among the names of quotas for all of them. No quota can be called so.
const everything = "\x00"

// undecided remembers quotas whose change is on its way.
func (s *Store) undecided(tx *transaction, names []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, name := range names {
		s.unsure[name] = tx
	}
}

// decided forgets them again: tx has had its answer; nil: somebody has held their locks since.
func (s *Store) decided(tx *transaction, names []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, name := range names {
		if tx == nil || s.unsure[name] == tx {
			delete(s.unsure, name)
		}
	}
}

// decide waits until changes whose replies were lost stand or do not stand: the transaction that makes one holds the locks
// of its quotas until then. A call that takes those locks itself need not ask.
func (s *Store) decide(ctx context.Context) error {
	s.mu.Lock()
	_, exclusive := s.unsure[everything]
	names := make([]string, 0, len(s.unsure))
	for name := range s.unsure {
		if name != everything {
			names = append(names, name)
		}
	}
	s.mu.Unlock()
	if len(names) == 0 && !exclusive {
		return nil
	}
	tx, err := s.begin(ctx, names, exclusive)
	if err != nil {
		return err
	}
	tx.end(ctx)
	return nil
}
