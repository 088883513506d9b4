package redisquota_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"testing"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"example.com/quota"
	"example.com/quota/quotatest"
	"example.com/quota/redisquota"
	"example.com/quota/redisquota/internal/redistest"
)

// open returns the store of a namespace, whose log goes nowhere unless a test changes that.
func open(tb testing.TB, client redis.UniversalClient, namespace string, change ...func(*redisquota.Options)) *redisquota.Store {
	tb.Helper()
	return openWith(tb.Context(), tb, client, namespace, change...)
}

func openWith(
	ctx context.Context, tb testing.TB, client redis.UniversalClient, namespace string, change ...func(*redisquota.Options),
) *redisquota.Store {
	tb.Helper()
	opts := redisquota.Options{Namespace: namespace, Logger: slog.New(slog.NewTextHandler(io.Discard, nil))}
	for _, f := range change {
		f(&opts)
	}
	store, err := redisquota.New(ctx, client, opts)
	require.NoError(tb, err)
	return store
}

// A reopener is a Store that a second client can open.
type reopener struct {
	*redisquota.Store
	reopen func() (quota.Persistence, error)
}

func (r reopener) Reopen() (quota.Persistence, error) { return r.reopen() }

// conform tries the stores of a server, each of which two clients open.
func conform(t *testing.T, newClient func() redis.UniversalClient) {
	t.Helper()
	one, other := newClient(), newClient()
	names := 0
	require.NoError(t, quotatest.TestPersistence(func() (quota.Persistence, error) {
		names++
		opts := redisquota.Options{Namespace: fmt.Sprintf("new %d", names), Logger: slog.New(slog.DiscardHandler)}
		store, err := redisquota.New(t.Context(), one, opts)
		return reopener{store, func() (quota.Persistence, error) { return redisquota.New(t.Context(), other, opts) }}, err
	}))
}

func TestStoreIsASharedPersistence(t *testing.T) {
	server := redistest.Start(t)
	conform(t, func() redis.UniversalClient { return server.Client() })
}

func TestStoreIsASharedPersistenceInACluster(t *testing.T) {
	cluster := redistest.StartCluster(t)
	conform(t, func() redis.UniversalClient { return cluster.Client() })
}
