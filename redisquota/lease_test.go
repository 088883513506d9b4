package redisquota_test

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/quota"
	"example.com/quota/redisquota/internal/redistest"
)

func TestAfterFiveConflictsInARowOthersLetAnUpdatePass(t *testing.T) {
	client := redistest.Start(t).Client()
	one, rival := open(t, client, "lease"), open(t, client, "lease")
	book := books(t, 2)
	runs := 0
	blocked := make(chan error, 1)
	require.NoError(t, one.Update(t.Context(), []string{"calls"}, func(tx *quota.Tx) error {
		if runs++; runs <= 5 {
			put(t, rival, "calls", book[0])
		} else {
			require.Positive(t, client.PTTL(t.Context(), "{quota:lease}:lease").Val())
			put(t, rival, "others", book[0]) // is not in its way
			begun := make(chan struct{})
			go func() {
				first := true
				blocked <- rival.Update(t.Context(), []string{"calls"}, func(tx *quota.Tx) error {
					if first {
						first = false
						close(begun)
					}
					return putting("calls", book[0])(tx)
				})
			}()
			<-begun
			select {
			case err := <-blocked:
				t.Error("the rival did not wait", err)
			case <-time.After(20 * time.Millisecond):
			}
		}
		tx.Books["calls"] = book[1]
		return nil
	}))
	require.Equal(t, 6, runs)
	require.Zero(t, client.Exists(t.Context(), "{quota:lease}:lease").Val(), "it is given back at once")
	require.NoError(t, <-blocked)
}

func TestALeaseOfADeadClientDelaysForAMoment(t *testing.T) {
	client := redistest.Start(t).Client()
	store := open(t, client, "dead")
	book := books(t, 2)
	put(t, store, "calls", book[0])
	require.NoError(t, client.HSet(t.Context(), "{quota:dead}:lease", "holder", "dead", "of:calls", "").Err())
	require.NoError(t, client.PExpire(t.Context(), "{quota:dead}:lease", 250*time.Millisecond).Err())
	require.NoError(t, store.Update(t.Context(), []string{"calls"}, func(*quota.Tx) error { return nil }), "looking is free")
	begun := time.Now()
	put(t, store, "calls", book[1])
	require.Greater(t, time.Since(begun), 50*time.Millisecond)
	require.Zero(t, client.Exists(t.Context(), "{quota:dead}:lease").Val())

	// One that never ends delays until the decision is too old, again and again, and is given up at last; or sooner.
	require.NoError(t, client.HSet(t.Context(), "{quota:dead}:lease", "holder", "dead", "of:calls", "").Err())
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	require.ErrorIs(t, store.Update(ctx, []string{"calls"}, putting("calls", book[0])), quota.ErrNotSaved)
	require.Equal(t, map[string]string{"calls": text(t, book[1])}, inStore(t, client, "dead"))
}

func TestASlowClientAmongFastOnesIsServed(t *testing.T) {
	server := redistest.Start(t)
	proxy := redistest.StartProxy(t, server.Addr())
	proxy.Delay(20 * time.Millisecond)
	slow := open(t, redistest.Client(t, proxy.Addr()), "slow")
	book := books(t, 2)
	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	var group sync.WaitGroup
	var fast atomic.Int64
	for range 4 {
		store := open(t, server.Client(), "slow")
		group.Go(func() {
			for ctx.Err() == nil {
				if err := store.Update(ctx, []string{"calls"}, putting("calls", book[0])); err == nil {
					fast.Add(1)
				} else if ctx.Err() == nil {
					t.Error(err)
					return
				}
			}
		})
	}
	redistest.Eventually(t, "the fast ones are at work", func() bool { return fast.Load() > 100 })
	most := 0
	for range 5 {
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
