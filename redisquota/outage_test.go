package redisquota_test

import (
	"context"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"example.com/quota"
	"example.com/quota/redisquota"
	"example.com/quota/redisquota/internal/redistest"
)

// faulty returns a store behind a proxy, with one book, and a client that goes around the proxy.
func faulty(t *testing.T, namespace string) (*redisquota.Store, *redistest.Proxy, *redis.Client) {
	t.Helper()
	server := redistest.Start(t)
	proxy := redistest.StartProxy(t, server.Addr())
	store := open(t, redistest.Client(t, proxy.Addr()), namespace)
	put(t, store, "calls", books(t, 1)[0])
	return store, proxy, server.Client()
}

func TestACutConnectionDoesNoHarmWhileTheServerIsThere(t *testing.T) {
	for name, faults := range map[string][]redistest.Fault{
		"before the command":     {redistest.CutBefore},
		"before the reply":       {redistest.CutAfter},
		"again and again":        {redistest.CutAfter, redistest.CutBefore, redistest.CutAfter, redistest.CutBefore},
		"with a copy on its way": {redistest.Late, redistest.Pass},
	} {
		t.Run(name, func(t *testing.T) {
			store, proxy, client := faulty(t, "cut")
			book := books(t, 3)
			proxy.Plan(faults...)
			runs := 0
			require.NoError(t, store.Update(t.Context(), []string{"calls"}, func(tx *quota.Tx) error {
				runs++
				return putting("calls", book[1])(tx)
			}))
			require.Equal(t, 1, runs)
			require.Equal(t, map[string]string{"calls": text(t, book[1])}, inStore(t, client, "cut"))
			// What is still on its way finds that it has been done, or that somebody has gone on.
			for _, reply := range proxy.Deliver() {
				require.Contains(t, reply, "done")
			}
			put(t, open(t, client, "cut"), "calls", book[2])
			require.Equal(t, map[string]string{"calls": text(t, book[2])}, inStore(t, client, "cut"))
		})
	}
}

func TestALostReplyIsFoundAlsoWhenOthersHaveGoneOn(t *testing.T) {
	store, proxy, client := faulty(t, "overtaken")
	book := books(t, 3)
	proxy.Plan(redistest.CutAfter)
	rival := open(t, client, "overtaken")
	proxy.OnFault(func() {
		for range 200 { // more than are remembered to find what a failover has lost
			put(t, rival, "calls", book[2])
		}
	})
	runs := 0
	require.NoError(t, store.Update(t.Context(), []string{"calls"}, func(tx *quota.Tx) error {
		runs++
		return putting("calls", book[1])(tx)
	}))
	require.Equal(t, 1, runs, "it was applied, and must not be applied again")
	require.Equal(t, map[string]string{"calls": text(t, book[2])}, inStore(t, client, "overtaken"))
}

func TestAfterAnErrorACommandIsNeverCarriedOutLater(t *testing.T) {
	store, proxy, client := faulty(t, "late")
	book := books(t, 2)
	proxy.Plan(redistest.Late)
	proxy.Always(redistest.CutBefore)
	begun := time.Now()
	err := store.Update(t.Context(), []string{"calls"}, putting("calls", book[1]))
	require.ErrorIs(t, err, quota.ErrNotSaved)
	require.Greater(t, time.Since(begun), time.Second, "it is over when the server would refuse it")
	require.Less(t, time.Since(begun), 5*time.Second)
	proxy.Always(redistest.Pass)
	replies := proxy.Deliver()
	require.Len(t, replies, 1)
	require.Contains(t, replies[0], "late")
	require.Equal(t, map[string]string{"calls": text(t, book[0])}, inStore(t, client, "late"))
}

func TestAnUpdateThatIsNotAnsweredEndsSoonAlsoWhenItsContextIsDone(t *testing.T) {
	for name, change := range map[string]func(*redis.Options){
		"a client that heeds contexts":     func(opts *redis.Options) { opts.ContextTimeoutEnabled = true },
		"a client that heeds none of them": func(*redis.Options) {},
	} {
		t.Run(name, func(t *testing.T) {
			proxy := redistest.StartProxy(t, redistest.Start(t).Addr())
			store := open(t, redistest.Client(t, proxy.Addr(), change), "silent")
			book := books(t, 1)
			put(t, store, "calls", book[0])
			proxy.Always(redistest.Swallow)
			ctx, cancel := context.WithCancel(t.Context())
			begun := time.Now()
			err := store.Update(ctx, []string{"calls"}, func(tx *quota.Tx) error {
				cancel()
				return putting("calls", book[0])(tx)
			})
			require.ErrorIs(t, err, quota.ErrNotSaved)
			require.ErrorIs(t, err, context.Canceled)
			require.Less(t, time.Since(begun), 2500*time.Millisecond)
			begun = time.Now()
			ctx, cancel = context.WithTimeout(t.Context(), 100*time.Millisecond)
			defer cancel()
			err = store.Update(ctx, []string{"calls"}, putting("calls", book[0]))
			require.ErrorIs(t, err, context.DeadlineExceeded)
			require.Less(t, time.Since(begun), 900*time.Millisecond, "nothing was sent that would write")
		})
	}
}

func TestWhileTheServerIsAwayNothingIsGrantedAndUsageIsKept(t *testing.T) {
	server := redistest.Start(t)
	proxy := redistest.StartProxy(t, server.Addr())
	tracker := start(t, open(t, redistest.Client(t, proxy.Addr()), "away"))
	ctx := t.Context()
	held, err := tracker.Reserve(ctx, "calls", quota.Requests(10))
	require.NoError(t, err)
	for _, fault := range []redistest.Fault{redistest.CutBefore, redistest.CutAfter, redistest.Late} {
		proxy.Always(fault)
		_, err = tracker.Reserve(ctx, "calls", quota.Requests(20))
		require.ErrorIs(t, err, quota.ErrNotSaved)
		require.ErrorIs(t, tracker.RecordUsage(ctx, "calls", quota.Requests(1)), quota.ErrPending)
	}
	require.ErrorIs(t, held.Commit(ctx, quota.Requests(2)), quota.ErrPending)
	proxy.Always(redistest.Pass)
	require.NoError(t, tracker.Flush(ctx))
	other := start(t, open(t, server.Client(), "away"))
	require.Equal(t, stand{5, 0}, standOf(t, other, "calls"))
	for _, reply := range proxy.Deliver() {
		require.Regexp(t, "late|conflict|read", reply)
	}
	require.Equal(t, stand{5, 0}, standOf(t, other, "calls"))
}

func TestAReplyThatWasLostCountsOnceWhateverTheTrackerThinks(t *testing.T) {
	server := redistest.Start(t)
	proxy := redistest.StartProxy(t, server.Addr())
	tracker := start(t, open(t, redistest.Client(t, proxy.Addr()), "once"))
	ctx := t.Context()
	require.NoError(t, tracker.RecordUsage(ctx, "calls", quota.Requests(1)))
	proxy.Plan(redistest.CutAfter)
	proxy.Always(redistest.CutBefore) // so that nobody learns what became of it
	require.ErrorIs(t, tracker.RecordUsage(ctx, "calls", quota.Requests(2)), quota.ErrPending)
	require.Equal(t, stand{3, 0}, standOf(t, start(t, open(t, server.Client(), "once")), "calls"), "it has been applied")
	proxy.Always(redistest.Pass)
	require.NoError(t, tracker.Flush(ctx))
	require.Equal(t, stand{3, 0}, standOf(t, tracker, "calls"))
}

func TestAServerThatRefusesIsNotWaitedFor(t *testing.T) {
	store, _, client := faulty(t, "full")
	ctx := t.Context()
	require.NoError(t, client.ConfigSet(ctx, "maxmemory", "1").Err())
	begun := time.Now()
	err := store.Update(ctx, []string{"calls"}, putting("calls", books(t, 1)[0]))
	require.ErrorIs(t, err, quota.ErrNotSaved)
	require.ErrorContains(t, err, "OOM")
	require.Less(t, time.Since(begun), 900*time.Millisecond)
	require.NoError(t, client.ConfigSet(ctx, "maxmemory", "0").Err())
	put(t, store, "calls", books(t, 1)[0])
}

func TestARefusalSaysNothingOfACopyThatIsStillOnItsWay(t *testing.T) {
	store, proxy, client := faulty(t, "copy")
	book := books(t, 2)
	require.NoError(t, client.ConfigSet(t.Context(), "maxmemory", "1").Err())
	proxy.Plan(redistest.Late)
	err := store.Update(t.Context(), []string{"calls"}, putting("calls", book[1]))
	require.ErrorIs(t, err, quota.ErrNotSaved)
	require.NoError(t, client.ConfigSet(t.Context(), "maxmemory", "0").Err())
	proxy.Deliver()
	require.Equal(t, map[string]string{"calls": text(t, book[0])}, inStore(t, client, "copy"))
}
