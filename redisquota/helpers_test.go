package redisquota_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"example.com/quota"
	"example.com/quota/quotatest"
	"example.com/quota/redisquota"
)

// A Monday, far from midnight.
var morning = time.Date(2026, time.January, 5, 9, 0, 0, 0, time.UTC)

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
		Logger:      slog.New(slog.DiscardHandler),
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

// books returns n different books, to see which of them a store has.
func books(t *testing.T, n int) []*quota.Book {
	t.Helper()
	var saved []*quota.Book
	clock := quotatest.NewClock(morning)
	recorder := &recorder{}
	tracker, err := quota.New(t.Context(), quota.Config{
		Persistence: recorder, Quotas: []quota.Quota{calls(1000)}, Clock: clock, OnAlert: func(quota.Alert) {},
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

// A recorder is a store that keeps the book of calls as JSON.
type recorder struct{ book []byte }

func (r *recorder) Load(context.Context) (*quota.State, error) { return nil, nil }

func (r *recorder) Save(_ context.Context, s *quota.State) (err error) {
	r.book, err = json.Marshal(s.Books["calls"])
	return err
}

// put makes a book that of a quota.
func put(t *testing.T, store *redisquota.Store, name string, book *quota.Book) {
	t.Helper()
	require.NoError(t, store.Update(t.Context(), []string{name}, putting(name, book)))
}

func putting(name string, book *quota.Book) func(*quota.Tx) error {
	return func(tx *quota.Tx) error {
		tx.Books[name] = book
		return nil
	}
}

// inStore returns the books that a new client finds, as JSON.
func inStore(t *testing.T, client redis.UniversalClient, namespace string) map[string]string {
	t.Helper()
	state, err := open(t, client, namespace).Load(t.Context())
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

// stand is what the first limit of a quota has used and reserved, in the store.
type stand struct{ used, reserved int64 }

func standOf(t *testing.T, tracker *quota.QuotaTracker, name string) stand {
	t.Helper()
	require.NoError(t, tracker.Refresh(t.Context()))
	status, ok := tracker.Status(name)
	require.True(t, ok)
	return stand{status.Limits[0].Used, status.Limits[0].Reserved}
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

func withLog(log *logBook) func(*redisquota.Options) {
	return func(opts *redisquota.Options) { opts.Logger = slog.New(slog.NewTextHandler(log, nil)) }
}

// skewed is the system's clock, so much ahead.
type skewed struct{ by time.Duration }

func (c skewed) Now() time.Time { return time.Now().Add(c.by) }

func (c skewed) AfterFunc(d time.Duration, f func()) (stop func() bool) {
	return time.AfterFunc(d, f).Stop
}

// dump returns what every key of a namespace holds, to bring it back later.
func dump(t *testing.T, client *redis.Client, namespace string) map[string]string {
	t.Helper()
	keys, err := client.Keys(t.Context(), fmt.Sprintf("{quota:%s}:*", namespace)).Result()
	require.NoError(t, err)
	dumped := map[string]string{}
	for _, key := range keys {
		dumped[key], err = client.Dump(t.Context(), key).Result()
		require.NoError(t, err)
	}
	return dumped
}

// restore makes a namespace what it was.
func restore(t *testing.T, client *redis.Client, dumped map[string]string) {
	t.Helper()
	require.NoError(t, client.FlushAll(t.Context()).Err())
	for key, value := range dumped {
		require.NoError(t, client.Restore(t.Context(), key, 0, value).Err())
	}
}
