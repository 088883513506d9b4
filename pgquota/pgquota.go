package pgquota

import (
	"context"
	"fmt"
	"hash/fnv"
	"log/slog"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/jackc/pgx/v5/pgxpool"

	"example.com/quota"
	"example.com/quota/internal/offset"
)

// Options say how a Store works. The zero value will do.
type Options struct {
	// Schema is where the tables are: trackers with the same database and schema share their quotas. "": "quota". It need
	// not exist yet. At most 63 bytes, as PostgreSQL has it, and not beginning with "pg_".
	Schema string
	// Logger takes warnings about the server's settings. Nil: slog.Default().
	Logger *slog.Logger
}

const (
	defaultSchema   = "quota"
	mostSchemaBytes = 63
)

// A Store is a quota.SharedPersistence in a PostgreSQL database. It is safe for concurrent use, by several trackers too.
// It takes a connection of its pool for the time of each call, has none of its own and no goroutines, and needs no Close:
// close its trackers, then the pool.
type Store struct {
	pool   *pgxpool.Pool
	opts   Options
	tables tables
	offset func() time.Duration // of the store's clock; nothing but in tests
	cache  cache

	mu     sync.Mutex              // guards what follows; not held while the server is asked
	unsure map[string]*transaction // that may or may not have changed a quota, by the name of that, see Store.decide
	loaded *identity               // of the state last loaded or saved by Load and Save
}

var (
	_ quota.Persistence       = (*Store)(nil)
	_ quota.SharedPersistence = (*Store)(nil)
)

// New returns the store in a schema of the database that pool connects to, and keeps pool, but never closes it. It creates
// the schema and its tables, or brings those of an older version up to date; several processes may do that at once. Where
// the role may not, the error says what to grant, or to whom to give the SQL of Setup. Tables of a newer version are
// quota.ErrNewerState and left alone. ctx bounds New alone.
func New(ctx context.Context, pool *pgxpool.Pool, opts Options) (*Store, error) {
	opts, err := opts.withDefaults()
	if err != nil {
		return nil, err
	}
	if pool == nil {
		return nil, fmt.Errorf("pgquota: %w: there is no pool", quota.ErrInvalidConfig)
	}
	s := &Store{
		pool: pool, opts: opts, tables: tablesOf(opts.Schema), offset: offset.From(ctx), unsure: map[string]*transaction{},
	}
	if err := s.open(ctx); err != nil {
		return nil, fmt.Errorf("pgquota: opening the schema %q: %w", opts.Schema, explain(opts.Schema, err))
	}
	return s, nil
}

func (opts Options) withDefaults() (Options, error) {
	if opts.Schema == "" {
		opts.Schema = defaultSchema
	}
	if opts.Logger == nil {
		opts.Logger = slog.Default()
	}
	if wrong := checkSchema(opts.Schema); wrong != "" {
		return opts, fmt.Errorf("pgquota: %w: Schema %q %s", quota.ErrInvalidConfig, opts.Schema, wrong)
	}
	return opts, nil
}

// checkSchema returns what is wrong with the name of a schema, or "".
func checkSchema(name string) string {
	switch {
	case len(name) > mostSchemaBytes:
		return fmt.Sprintf("is longer than %d bytes", mostSchemaBytes)
	case !utf8.ValidString(name) || strings.ContainsRune(name, 0):
		return "is not text"
	case strings.HasPrefix(name, "pg_"):
		return `begins with "pg_", which PostgreSQL keeps for itself`
	case strings.Contains(name, bodyTag):
		return "has " + bodyTag + " in it"
	}
	return ""
}

// A row is a book as it stands in the store.
type row struct {
	revision int64 // 0: there is none
	decided  int64 // when it last changed, in microseconds
	book     []byte
}

// locksOf returns the advisory locks of quotas: one of a fixed number for each, in the order in which everybody takes them,
// so that nobody waits for somebody who waits for him, and very many quotas do not fill the server's table of locks.
func locksOf(names []string) []int32 {
	var taken [stripes]bool
	for _, name := range names {
		taken[hash(name)%stripes] = true
	}
	var locks []int32
	for stripe, is := range taken {
		if is {
			locks = append(locks, int32(stripe))
		}
	}
	return locks
}

const (
	stripes       = 1024
	migrationLock = stripes
)

func hash(text string) uint32 {
	h := fnv.New32a()
	_, _ = h.Write([]byte(text)) // never fails
	return h.Sum32()
}
