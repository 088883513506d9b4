package redisquota_test

import (
	"log/slog"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"example.com/quota"
	"example.com/quota/redisquota"
	"example.com/quota/redisquota/internal/redistest"
)

func TestAServerThatEvictsIsRefused(t *testing.T) {
	client := redistest.Start(t, "--maxmemory-policy", "allkeys-lru").Client()
	log := &logBook{}
	opts := redisquota.Options{Namespace: "evict", Logger: slog.New(slog.NewTextHandler(log, nil))}
	_, err := redisquota.New(t.Context(), client, opts)
	require.ErrorIs(t, err, quota.ErrInvalidConfig)
	require.ErrorContains(t, err, "allkeys-lru")
	require.ErrorContains(t, err, "noeviction")
	require.Empty(t, client.Keys(t.Context(), "*").Val())
	opts.AllowEviction = true
	_, err = redisquota.New(t.Context(), client, opts)
	require.NoError(t, err)
	require.Contains(t, log.String(), "allkeys-lru")
}

func TestAServerThatKeepsNothingIsWarnedOf(t *testing.T) {
	log := &logBook{}
	open(t, redistest.Start(t).Client(), "kept", withLog(log))
	require.Empty(t, log.String())
	open(t, redistest.Start(t, "--appendonly", "no").Client(), "volatile", withLog(log))
	require.Contains(t, log.String(), "level=WARN")
	require.Contains(t, log.String(), "append-only")
}

func TestAServerThatDoesNotTellItsSettingsIsUsedWithAWarning(t *testing.T) {
	server := redistest.Start(t)
	admin := server.Client()
	require.NoError(t, admin.Do(t.Context(), "acl", "setuser", "app", "on", ">secret", "~*", "+@all", "-config", "-info").Err())
	client := server.Client(func(opts *redis.Options) { opts.Username, opts.Password = "app", "secret" })
	log := &logBook{}
	store := open(t, client, "managed", withLog(log))
	require.Contains(t, log.String(), "level=WARN")
	require.Contains(t, log.String(), "noeviction")
	put(t, store, "calls", books(t, 1)[0])
}

func TestWhoMayNotWriteIsToldAtNew(t *testing.T) {
	server := redistest.Start(t)
	admin := server.Client()
	require.NoError(t, admin.Do(t.Context(), "acl", "setuser", "reader", "on", ">secret", "~*",
		"+@read", "+evalsha", "+eval", "+info", "+time").Err())
	client := server.Client(func(opts *redis.Options) { opts.Username, opts.Password = "reader", "secret" })
	_, err := redisquota.New(t.Context(), client, redisquota.Options{Namespace: "reader"})
	require.Error(t, err)
	require.ErrorContains(t, err, "{quota:reader}")
}

func TestAUserNeedsNoMoreRightsThanTheDocumentationSays(t *testing.T) {
	server := redistest.Start(t)
	require.NoError(t, server.Client().Do(t.Context(), "acl", "setuser", "app", "on", ">secret", "~{quota:acl}:*",
		"+@hash", "+eval", "+evalsha", "+info", "+wait", "+time", "+get", "+set", "+del", "+exists", "+pexpire").Err())
	client := server.Client(func(opts *redis.Options) { opts.Username, opts.Password = "app", "secret" })
	book := books(t, 1)[0]
	store := open(t, client, "acl", func(opts *redisquota.Options) {
		opts.Replicas, opts.ReplicaTimeout = 1, time.Millisecond
	})
	err := store.Update(t.Context(), []string{"calls"}, putting("calls", book))
	require.ErrorIs(t, err, redisquota.ErrReplicas, "and not a matter of rights")
	tracker := start(t, open(t, client, "acl"))
	_, err = tracker.Reserve(t.Context(), "calls")
	require.NoError(t, err)
	state, err := store.Load(t.Context())
	require.NoError(t, err)
	require.NoError(t, store.Update(t.Context(), []string{"calls"}, func(*quota.Tx) error { return nil }))
	_, err = store.Load(t.Context())
	require.NoError(t, err)
	require.ErrorIs(t, store.Save(t.Context(), state), redisquota.ErrReplicas)
	require.ErrorContains(t, newError(t, client, "other"), "NOPERM")
}

func newError(t *testing.T, client redis.UniversalClient, namespace string) error {
	t.Helper()
	_, err := redisquota.New(t.Context(), client, redisquota.Options{Namespace: namespace})
	return err
}

func TestAChangeWaitsForReplicas(t *testing.T) {
	master := redistest.Start(t)
	log := &logBook{}
	patient := func(opts *redisquota.Options) { opts.Replicas, opts.ReplicaTimeout = 1, 2*time.Second }
	hasty := func(opts *redisquota.Options) { opts.Replicas, opts.ReplicaTimeout = 1, 20*time.Millisecond }
	open(t, master.Client(), "replicas", withLog(log), hasty)
	require.Contains(t, log.String(), "Options.Replicas")
	replica := redistest.StartReplica(t, master)
	require.ErrorIs(t, newError(t, replica.Client(), "replicas"), quota.ErrInvalidConfig, "a replica is not asked itself")
	proxy := redistest.StartProxy(t, master.Addr())
	store := open(t, redistest.Client(t, proxy.Addr()), "replicas", patient)
	book := books(t, 3)
	put(t, store, "calls", book[0])
	before := proxy.Commands()
	put(t, store, "calls", book[1])
	require.Equal(t, 1, proxy.Commands()-before, "still one round trip")
	require.Equal(t, text(t, book[1]), replica.Client().HGet(t.Context(), "{quota:replicas}:books", "calls").Val())

	replica.Kill()
	store = open(t, master.Client(), "replicas", hasty)
	err := store.Update(t.Context(), []string{"calls"}, putting("calls", book[2]))
	require.ErrorIs(t, err, redisquota.ErrReplicas)
	require.ErrorIs(t, err, quota.ErrNotSaved)
	require.ErrorContains(t, err, "0 of 1")
	require.Equal(t, map[string]string{"calls": text(t, book[2])}, inStore(t, master.Client(), "replicas"),
		"it stands on the master")
	look := func(*quota.Tx) error { return nil }
	require.NoError(t, store.Update(t.Context(), []string{"calls"}, look), "there is nothing to wait for")

	replica.Restart()
	require.NoError(t, master.Client().ScriptFlush(t.Context()).Err())
	redistest.Eventually(t, "the replica is back", func() bool {
		return store.Update(t.Context(), []string{"calls"}, putting("calls", book[2])) == nil
	})
}

func TestAChangeWaitsForReplicasInAClusterToo(t *testing.T) {
	cluster := redistest.StartCluster(t)
	store := open(t, cluster.Client(), "replicas", func(opts *redisquota.Options) {
		opts.Replicas, opts.ReplicaTimeout = 1, 10*time.Millisecond
	})
	err := store.Update(t.Context(), []string{"calls"}, putting("calls", books(t, 1)[0]))
	require.ErrorIs(t, err, redisquota.ErrReplicas)
	require.ErrorContains(t, err, "0 of 1")
	require.Len(t, inStore(t, cluster.Client(), "replicas"), 1)
}

func TestATrackerCountsOnceWhatTooFewReplicasHaveReceived(t *testing.T) {
	master := redistest.Start(t)
	replica := redistest.StartReplica(t, master)
	tracker := start(t, open(t, master.Client(), "count", func(opts *redisquota.Options) {
		opts.Replicas, opts.ReplicaTimeout = 1, 50*time.Millisecond
	}))
	_ = tracker.RecordUsage(t.Context(), "calls", quota.Requests(1)) // the replica may be busy
	redistest.Eventually(t, "it is saved", func() bool { return tracker.Flush(t.Context()) == nil })
	replica.Kill()
	err := tracker.RecordUsage(t.Context(), "calls", quota.Requests(2))
	require.ErrorIs(t, err, redisquota.ErrReplicas)
	require.ErrorIs(t, err, quota.ErrPending)
	_, err = tracker.Reserve(t.Context(), "calls", quota.Requests(4))
	require.ErrorIs(t, err, redisquota.ErrReplicas)
	replica.Restart()
	redistest.Eventually(t, "the replica is back", func() bool { return tracker.Flush(t.Context()) == nil })
	require.Equal(t, stand{3, 0}, standOf(t, start(t, open(t, master.Client(), "count")), "calls"))
}

func TestFlushIsNotNilWhileNoReplicaHasTheUsage(t *testing.T) {
	master := redistest.Start(t)
	tracker := start(t, open(t, master.Client(), "flush", func(opts *redisquota.Options) {
		opts.Replicas, opts.ReplicaTimeout = 1, 20*time.Millisecond
	}))
	err := tracker.RecordUsage(t.Context(), "calls", quota.Requests(2))
	require.ErrorIs(t, err, redisquota.ErrReplicas)
	require.ErrorIs(t, err, quota.ErrPending)
	require.ErrorIs(t, tracker.Flush(t.Context()), redisquota.ErrReplicas, "there is still no replica")
}

func TestCloseIsNotNilWhileNoReplicaHasTheUsage(t *testing.T) {
	master := redistest.Start(t)
	tracker := start(t, open(t, master.Client(), "close", func(opts *redisquota.Options) {
		opts.Replicas, opts.ReplicaTimeout = 1, 20*time.Millisecond
	}))
	err := tracker.RecordUsage(t.Context(), "calls", quota.Requests(2))
	require.ErrorIs(t, err, quota.ErrPending)
	require.ErrorIs(t, tracker.Close(), quota.ErrNotSaved, "there is still no replica")
}
