package redisquota_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"example.com/quota"
	"example.com/quota/redisquota/internal/redistest"
)

// hold gives somebody a turn on the book of "calls" that begins and ends so long from the server's time.
func hold(t *testing.T, client *redis.Client, namespace, who string, begins, ends time.Duration) {
	t.Helper()
	now := client.Time(t.Context()).Val()
	entry := fmt.Sprintf(`["%d","%d",["calls"]]`, now.Add(begins).UnixMicro(), now.Add(ends).UnixMicro())
	require.NoError(t, client.HSet(t.Context(), "{quota:"+namespace+"}:lease", who, entry).Err())
}

func TestAfterFiveConflictsInARowAStoreHasATurn(t *testing.T) {
	client := redistest.Start(t).Client()
	one, rival := open(t, client, "turn"), open(t, client, "turn")
	book := books(t, 2)
	runs := 0
	require.NoError(t, one.Update(t.Context(), []string{"calls"}, func(tx *quota.Tx) error {
		runs++
		turns := client.HVals(t.Context(), "{quota:turn}:lease").Val()
		if runs <= 5 {
			require.Empty(t, turns, "after %d conflicts", runs-1)
			put(t, rival, "calls", book[0])
		} else {
			require.Len(t, turns, 1)
			require.Contains(t, turns[0], `["calls"]`)
			require.Positive(t, client.PTTL(t.Context(), "{quota:turn}:lease").Val())
			put(t, rival, "others", book[0]) // is not in its way
		}
		tx.Books["calls"] = book[1]
		return nil
	}))
	require.Equal(t, 6, runs)
	redistest.Eventually(t, "it is given back", func() bool {
		return client.Exists(t.Context(), "{quota:turn}:lease").Val() == 0
	})
}

func TestWhoeverComesDuringATurnOfAnotherWaitsForItsOwnAndIsTold(t *testing.T) {
	client := redistest.Start(t).Client()
	store := open(t, client, "wait")
	book := books(t, 3)
	put(t, store, "calls", book[0])
	hold(t, client, "wait", "another", 0, time.Hour)
	require.NoError(t, store.Update(t.Context(), []string{"calls"}, func(*quota.Tx) error { return nil }), "looking is free")
	put(t, store, "others", book[0])

	done := make(chan error, 1)
	go func() { done <- store.Update(t.Context(), []string{"calls"}, putting("calls", book[1])) }()
	redistest.Eventually(t, "it waits", func() bool { return client.HLen(t.Context(), "{quota:wait}:lease").Val() == 2 })
	require.Empty(t, done)
	require.Equal(t, text(t, book[0]), inStore(t, client, "wait")["calls"])
	var id string
	for _, id = range client.HKeys(t.Context(), "{quota:wait}:lease").Val() {
		if id != "another" {
			break
		}
	}
	require.NoError(t, client.HDel(t.Context(), "{quota:wait}:lease", "another").Err())
	require.NoError(t, client.RPush(t.Context(), "{quota:wait}:lease:"+id, 0).Err())
	require.NoError(t, <-done)
	require.Equal(t, text(t, book[1]), inStore(t, client, "wait")["calls"])
}

func TestATurnOfADeadClientDelaysForAMoment(t *testing.T) {
	client := redistest.Start(t).Client()
	store := open(t, client, "dead")
	book := books(t, 2)
	put(t, store, "calls", book[0])
	hold(t, client, "dead", "dead", 0, 250*time.Millisecond)
	begun := time.Now()
	put(t, store, "calls", book[1])
	require.Greater(t, time.Since(begun), 50*time.Millisecond)

	// One that never ends delays until the caller gives up.
	hold(t, client, "dead", "dead", 0, time.Hour)
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	other := open(t, client, "dead") // the first may still have its turn
	require.ErrorIs(t, other.Update(ctx, []string{"calls"}, putting("calls", book[0])), quota.ErrNotSaved)
	require.Equal(t, map[string]string{"calls": text(t, book[1])}, inStore(t, client, "dead"))
}

func TestATurnThatCannotBeReadIsNone(t *testing.T) {
	client := redistest.Start(t).Client()
	store := open(t, client, "torn")
	require.NoError(t, client.HSet(t.Context(), "{quota:torn}:lease", "a", "", "b", "{", "c", "[1]", "d", `["x","y",["calls"]]`).Err())
	put(t, store, "calls", books(t, 1)[0])
	require.Zero(t, client.Exists(t.Context(), "{quota:torn}:lease").Val())
}

func TestASlowClientAmongFastOnesIsServed(t *testing.T) {
	server := redistest.Start(t)
	t.Run("20 ms away", func(t *testing.T) { servesASlowClient(t, server, 20*time.Millisecond, 0) })
	t.Run("on another continent", func(t *testing.T) { servesASlowClient(t, server, 160*time.Millisecond, 4*time.Millisecond) })
}

// servesASlowClient has one client write whose replies are late, among four that write and pause.
func servesASlowClient(t *testing.T, server *redistest.Server, late, pause time.Duration) {
	proxy := redistest.StartProxy(t, server.Addr())
	proxy.Delay(late)
	namespace := late.String()
	slow := open(t, redistest.Client(t, proxy.Addr()), namespace)
	book := books(t, 2)
	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	var group sync.WaitGroup
	var fast atomic.Int64
	for range 4 {
		store := open(t, server.Client(), namespace)
		group.Go(func() {
			for ctx.Err() == nil {
				if err := store.Update(ctx, []string{"calls"}, putting("calls", book[0])); err == nil {
					fast.Add(1)
				} else if ctx.Err() == nil {
					t.Error(err)
					return
				}
				<-time.After(pause)
			}
		})
	}
	redistest.Eventually(t, "the fast ones are at work", func() bool { return fast.Load() > 100 })
	most := 0
	for range 3 {
		runs := 0
		require.NoError(t, slow.Update(ctx, []string{"calls"}, func(tx *quota.Tx) error {
			runs++
			return putting("calls", book[1])(tx)
		}))
		most = max(most, runs)
	}
	stop()
	group.Wait()
	require.Less(t, most, 50)
}

func TestATurnIsOnItsBooksOnly(t *testing.T) {
	client := redistest.Start(t).Client()
	one := open(t, client, "two")
	book := books(t, 1)
	hold(t, client, "two", "another", 0, time.Hour)
	runs := 0
	require.NoError(t, one.Update(t.Context(), []string{"mine"}, func(tx *quota.Tx) error {
		if runs++; runs <= 5 { // until it has a turn
			put(t, open(t, client, "two"), "mine", book[0])
			return putting("mine", book[0])(tx)
		}
		require.EqualValues(t, 2, client.HLen(t.Context(), "{quota:two}:lease").Val(), "it has one")
		return nil
	}))
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	require.ErrorIs(t, one.Update(ctx, []string{"calls"}, putting("calls", book[0])), quota.ErrNotSaved, "it is another's turn")
	require.NotContains(t, inStore(t, client, "two"), "calls")
}
