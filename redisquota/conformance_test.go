package redisquota_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"sync/atomic"
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

// stores returns a function that makes a new store at each call.
func stores(client redis.UniversalClient, opts redisquota.Options) func() (quota.Persistence, error) {
	var n atomic.Int64
	return func() (quota.Persistence, error) {
		opts := opts
		opts.Namespace = fmt.Sprintf("new %d", n.Add(1))
		opts.Logger = slog.New(slog.DiscardHandler)
		return redisquota.New(context.Background(), client, opts)
	}
}

func TestStoreIsASharedPersistence(t *testing.T) {
	server := redistest.Start(t)
	require.NoError(t, quotatest.TestPersistence(stores(server.Client(), redisquota.Options{})))
}

func TestStoreIsASharedPersistenceInACluster(t *testing.T) {
	cluster := redistest.StartCluster(t)
	require.NoError(t, quotatest.TestPersistence(stores(cluster.Client(), redisquota.Options{})))
}
