package redisquota_test

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"example.com/quota"
	"example.com/quota/internal/offset"
	"example.com/quota/internal/storetest"
	"example.com/quota/redisquota"
	"example.com/quota/redisquota/internal/redistest"
)

// subject is a Store, to be tried by fleets of processes. The server syncs each change to its append-only file. It is asked
// on a socket, because a port of a server that is being restarted may be somebody else's for a moment.
var subject = storetest.Subject{
	Timed: true, Network: true,
	Open: func(ctx context.Context, place storetest.Place) (quota.Persistence, func(), error) {
		client := redis.NewClient(&redis.Options{Network: place.Network(), Addr: place.Address, ContextTimeoutEnabled: true})
		store, err := redisquota.New(offset.With(ctx, place.Ahead), client, redisquota.Options{
			Namespace: place.Name, Logger: slog.New(slog.DiscardHandler),
		})
		return store, func() { _ = client.Close() }, err
	},
	Start: func(tb testing.TB) storetest.Server {
		dir, err := os.MkdirTemp("", "redisquota-") // a path that is short enough for a socket
		require.NoError(tb, err)
		tb.Cleanup(func() { _ = os.RemoveAll(dir) })
		socket := filepath.Join(dir, "socket")
		server := redistest.Start(tb, "--unixsocket", socket)
		return storetest.Server{Address: socket, Restart: server.KillAndRestart}
	},
}

func TestMain(m *testing.M) {
	storetest.Process(subject)
	os.Exit(m.Run())
}

func TestFleet(t *testing.T) { storetest.TestFleet(t, subject) }

func TestSequences(t *testing.T) { storetest.TestSequences(t, subject) }
