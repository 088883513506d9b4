package pgquota_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"example.com/quota"
	"example.com/quota/internal/offset"
	"example.com/quota/internal/storetest"
	"example.com/quota/pgquota"
	"example.com/quota/pgquota/internal/pgtest"
	"example.com/quota/quotatest"
)

// shared is the server of all tests that leave it as it is.
var shared pgtest.Shared

func TestMain(m *testing.M) {
	storetest.Process(subject)
	code := m.Run()
	shared.Stop()
	os.Exit(code)
}

var schemas atomic.Int64

// newSchema returns the name of a schema that nobody else uses.
func newSchema() string { return fmt.Sprintf("test_%d", schemas.Add(1)) }

// pool returns connections to the shared server.
func pool(t *testing.T, change ...func(*pgxpool.Config)) *pgxpool.Pool {
	t.Helper()
	return pgtest.Pool(t, shared.Server(t).DSN(), change...)
}

// open returns the store of a schema.
func open(t *testing.T, pool *pgxpool.Pool, schema string, change ...func(*pgquota.Options)) *pgquota.Store {
	t.Helper()
	return openWith(t, t.Context(), pool, schema, change...)
}

func openWith(t *testing.T, ctx context.Context, pool *pgxpool.Pool, schema string, change ...func(*pgquota.Options)) *pgquota.Store {
	t.Helper()
	opts := pgquota.Options{Schema: schema}
	for _, f := range change {
		f(&opts)
	}
	store, err := pgquota.New(ctx, pool, opts)
	require.NoError(t, err)
	return store
}

// openStore is open that may fail.
func openStore(t *testing.T, pool *pgxpool.Pool, schema string) (*pgquota.Store, error) {
	t.Helper()
	return pgquota.New(t.Context(), pool, pgquota.Options{Schema: schema})
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// A shift is a store's clock that a test turns: the server's, and so much more.
type shift struct{ by atomic.Int64 }

func (s *shift) add(d time.Duration) { s.by.Add(int64(d)) }

func (s *shift) in(ctx context.Context) context.Context {
	return offset.With(ctx, func() time.Duration { return time.Duration(s.by.Load()) })
}

// to moves the clock so that it is then at.
func (s *shift) to(at time.Time) { s.by.Store(int64(time.Until(at))) }

// calls is a quota of so many requests a day.
func calls(limit int64) quota.Quota {
	return quota.Quota{Name: "calls", Limits: []quota.Limit{{Max: limit}}}
}

// start returns a tracker on a store. It is verified and closed at the end.
func start(t *testing.T, store quota.Persistence, change ...func(*quota.Config)) *quota.QuotaTracker {
	t.Helper()
	cfg := quota.Config{
		Persistence: store,
		Quotas:      []quota.Quota{calls(100)},
		OnAlert:     func(quota.Alert) {},
		Logger:      quiet(),
	}
	for _, f := range change {
		f(&cfg)
	}
	tracker, err := quota.New(t.Context(), cfg)
	require.NoError(t, err)
	t.Cleanup(func() {
		require.NoError(t, tracker.Verify())
		_ = tracker.Close() // where it matters the test looks at it
	})
	return tracker
}

func withQuotas(quotas ...quota.Quota) func(*quota.Config) {
	return func(cfg *quota.Config) { cfg.Quotas = quotas }
}

func withClock(clock quota.Clock) func(*quota.Config) {
	return func(cfg *quota.Config) { cfg.Clock = clock }
}

func withAlerts(f func(quota.Alert)) func(*quota.Config) {
	return func(cfg *quota.Config) { cfg.OnAlert = f }
}

// skewed is the system's clock, so much ahead.
type skewed struct{ by time.Duration }

func (c skewed) Now() time.Time { return time.Now().Add(c.by) }

func (c skewed) AfterFunc(d time.Duration, f func()) (stop func() bool) {
	return time.AfterFunc(d, f).Stop
}

// stand is what the first limit of a quota has used and reserved, in the store.
type stand struct{ used, reserved int64 }

func standOf(t *testing.T, tracker *quota.QuotaTracker, name string) stand {
	t.Helper()
	require.NoError(t, tracker.Refresh(t.Context()))
	status, ok := tracker.Status(name)
	require.True(t, ok)
	return stand{status.Limits[0].Used, status.Limits[0].Reserved}
}

// A Monday, far from midnight.
var morning = time.Date(2026, time.January, 5, 9, 0, 0, 0, time.UTC)

// books returns n different books, to see which of them a store has: the nth has n requests used.
func books(t *testing.T, n int) []*quota.Book {
	t.Helper()
	var saved []*quota.Book
	recorder := &recorder{}
	tracker, err := quota.New(t.Context(), quota.Config{
		Persistence: recorder, Quotas: []quota.Quota{calls(1000)}, Clock: quotatest.NewClock(morning), OnAlert: func(quota.Alert) {},
	})
	require.NoError(t, err)
	for range n {
		require.NoError(t, tracker.RecordUsage(t.Context(), "calls", quota.Requests(1)))
		book := new(quota.Book)
		require.NoError(t, json.Unmarshal(recorder.book, book))
		saved = append(saved, book)
	}
	require.NoError(t, tracker.Close())
	return saved
}

// A recorder is a store that keeps the last state, and the book of calls as JSON.
type recorder struct {
	state *quota.State
	book  []byte
}

func (r *recorder) Load(context.Context) (*quota.State, error) { return r.state, nil }

func (r *recorder) Save(_ context.Context, s *quota.State) (err error) {
	r.state = s
	r.book, err = json.Marshal(s.Books["calls"])
	return err
}

// putting makes a book that of a quota.
func putting(name string, book *quota.Book) func(*quota.Tx) error {
	return func(tx *quota.Tx) error {
		tx.Books[name] = book
		return nil
	}
}

func put(t *testing.T, store *pgquota.Store, name string, book *quota.Book) {
	t.Helper()
	require.NoError(t, store.Update(t.Context(), []string{name}, putting(name, book)))
}

// inStore returns the books that a new store finds, as JSON.
func inStore(t *testing.T, schema string) map[string]string {
	t.Helper()
	state, err := open(t, pool(t), schema).Load(t.Context())
	require.NoError(t, err)
	found := map[string]string{}
	if state != nil {
		for name, book := range state.Books {
			found[name] = text(t, book)
		}
	}
	return found
}

func text(t *testing.T, book *quota.Book) string {
	t.Helper()
	data, err := json.Marshal(book)
	require.NoError(t, err)
	return string(data)
}

// query returns the one value of an SQL query, as text.
func query(t *testing.T, pool *pgxpool.Pool, sql string, args ...any) string {
	t.Helper()
	var value any
	require.NoError(t, pool.QueryRow(t.Context(), sql, args...).Scan(&value))
	return fmt.Sprint(value)
}

func execute(t *testing.T, pool *pgxpool.Pool, sql string, args ...any) {
	t.Helper()
	_, err := pool.Exec(t.Context(), sql, args...)
	require.NoError(t, err)
}

// A logBook is what a Logger was told.
type logBook struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logBook) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logBook) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func withLog(log *logBook) func(*pgquota.Options) {
	return func(opts *pgquota.Options) { opts.Logger = slog.New(slog.NewTextHandler(log, nil)) }
}

// An alertLog is an OnAlert that remembers.
type alertLog struct {
	mu     sync.Mutex
	alerts []quota.Alert
}

func (l *alertLog) note(a quota.Alert) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.alerts = append(l.alerts, a)
}

func (l *alertLog) thresholds() []int {
	l.mu.Lock()
	defer l.mu.Unlock()
	var list []int
	for _, a := range l.alerts {
		list = append(list, a.Threshold)
	}
	return list
}

func replaceSchema(sql, schema string) string { return strings.ReplaceAll(sql, "SCHEMA", schema) }

// waiting returns when so many sessions wait for an advisory lock.
func waiting(t *testing.T, pool *pgxpool.Pool, n int) {
	t.Helper()
	pgtest.Eventually(t, "others wait for the lock", func() bool {
		return query(t, pool, "SELECT count(*)::text FROM pg_locks WHERE locktype = 'advisory' AND NOT granted") == fmt.Sprint(n)
	})
}
