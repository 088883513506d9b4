package redisquota_test

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"example.com/quota"
	"example.com/quota/redisquota"
	"example.com/quota/redisquota/internal/redistest"
)

func TestABatchIsOneRoundTripWhileNobodyElseWrites(t *testing.T) {
	proxy := redistest.StartProxy(t, redistest.Start(t).Addr())
	store := open(t, redistest.Client(t, proxy.Addr()), "alone")
	tracker := start(t, store, withQuotas(calls(100), quota.Quota{Name: "user:*", Limits: []quota.Limit{{Max: 100}}},
		quota.Quota{Name: "none", Limits: []quota.Limit{{Max: 1, NoAlerts: true}}}))
	ctx := t.Context()
	trips := func(what string, want int, call func()) {
		t.Helper()
		before := proxy.Commands()
		call()
		require.Equal(t, want, proxy.Commands()-before, what)
	}
	for _, name := range []string{"calls", "user:ann", "user:bob"} {
		var held *quota.Reservation
		var err error
		trips("Reserve "+name, 1, func() { held, err = tracker.Reserve(ctx, name) })
		require.NoError(t, err)
		trips("Commit "+name, 1, func() { require.NoError(t, held.Commit(ctx)) })
		trips("RecordUsage "+name, 1, func() { require.NoError(t, tracker.RecordUsage(ctx, name, quota.Requests(1))) })
	}
	require.NoError(t, tracker.RecordUsage(ctx, "none", quota.Requests(1)))
	trips("a refusal", 1, func() {
		_, err := tracker.Reserve(ctx, "none")
		require.ErrorIs(t, err, quota.ErrExceeded)
	})
	trips("reading everything", 1, func() { require.NoError(t, tracker.Refresh(ctx)) })
}

func TestAFirstWriteAfterNewIsOneRoundTripAndWithoutItOneMore(t *testing.T) {
	proxy := redistest.StartProxy(t, redistest.Start(t).Addr())
	client := redistest.Client(t, proxy.Addr())
	store := open(t, client, "first")
	before := proxy.Commands()
	put(t, store, "calls", books(t, 1)[0])
	require.Equal(t, 2, proxy.Commands()-before, "what is not known is asked for")
	put(t, store, "calls", books(t, 1)[0])
	require.Equal(t, 3, proxy.Commands()-before)
}

func TestAConflictRunsFnAgainOnTheNewestBooks(t *testing.T) {
	client := redistest.Start(t).Client()
	one, other := open(t, client, "both"), open(t, client, "both")
	book := books(t, 3)
	put(t, one, "calls", book[0])
	runs := 0
	require.NoError(t, one.Update(t.Context(), []string{"calls"}, func(tx *quota.Tx) error {
		if runs++; runs == 1 {
			require.Equal(t, text(t, book[0]), text(t, tx.Books["calls"]))
			put(t, other, "calls", book[1])
		} else {
			require.Equal(t, text(t, book[1]), text(t, tx.Books["calls"]))
		}
		tx.Books["calls"] = book[2]
		return nil
	}))
	require.Equal(t, 2, runs)
	require.Equal(t, map[string]string{"calls": text(t, book[2])}, inStore(t, client, "both"))
}

func TestWhatDidNotExistIsComparedToo(t *testing.T) {
	client := redistest.Start(t).Client()
	one, other := open(t, client, "both"), open(t, client, "both")
	book := books(t, 2)
	drop := func(tx *quota.Tx) error { delete(tx.Books, "calls"); return nil }
	for name, change := range map[string]func(){
		"made": func() { put(t, other, "calls", book[0]) },
		"made and dropped": func() {
			put(t, other, "calls", book[0])
			require.NoError(t, other.Update(t.Context(), []string{"calls"}, drop))
		},
	} {
		require.NoError(t, one.Update(t.Context(), []string{"calls"}, drop))
		runs := 0
		require.NoError(t, one.Update(t.Context(), []string{"calls"}, func(tx *quota.Tx) error {
			if runs++; runs == 1 {
				require.Empty(t, tx.Books)
				change()
			}
			tx.Books["calls"] = book[1]
			return nil
		}), name)
		require.Equal(t, 2, runs, name)
	}
}

func TestARefusalOfFnIsDecidedOnTheNewestBooks(t *testing.T) {
	client := redistest.Start(t).Client()
	one, other := open(t, client, "both"), open(t, client, "both")
	book := books(t, 2)
	put(t, one, "calls", book[0])
	put(t, other, "calls", book[1])
	full := errors.New("full")
	var seen []string
	require.Equal(t, full, one.Update(t.Context(), []string{"calls"}, func(tx *quota.Tx) error {
		seen = append(seen, text(t, tx.Books["calls"]))
		return full
	}))
	require.Equal(t, []string{text(t, book[0]), text(t, book[1])}, seen)
}

func TestOtherNamespacesAndKeysStayAsTheyAre(t *testing.T) {
	client := redistest.Start(t).Client()
	ctx := t.Context()
	require.NoError(t, client.Set(ctx, "calls", "mine", 0).Err())
	one, other := open(t, client, "one"), open(t, client, "one:books")
	book := books(t, 2)
	put(t, one, "calls", book[0])
	put(t, other, "calls", book[1])
	before := dump(t, client, "one:books")
	tracker := start(t, one)
	_, err := tracker.Reserve(ctx, "calls")
	require.NoError(t, err)
	state, err := one.Load(ctx)
	require.NoError(t, err)
	require.NoError(t, one.Save(ctx, &quota.State{Version: state.Version}))
	require.Equal(t, before, dump(t, client, "one:books"))
	require.Equal(t, "mine", client.Get(ctx, "calls").Val())
	keys, err := client.Keys(ctx, "*").Result()
	require.NoError(t, err)
	for _, key := range keys {
		require.True(t, key == "calls" || strings.HasPrefix(key, "{quota:one}:") || strings.HasPrefix(key, "{quota:one:books}:"), key)
	}
}

func TestScriptsAreLoadedAgainWhenTheServerHasForgottenThem(t *testing.T) {
	server := redistest.Start(t)
	proxy := redistest.StartProxy(t, server.Addr())
	tracker := start(t, open(t, redistest.Client(t, proxy.Addr()), "flush"))
	require.NoError(t, tracker.RecordUsage(t.Context(), "calls", quota.Requests(1)))
	require.NoError(t, server.Client().ScriptFlush(t.Context()).Err())
	before := proxy.Commands()
	require.NoError(t, tracker.RecordUsage(t.Context(), "calls", quota.Requests(1)))
	require.Equal(t, 2, proxy.Commands()-before)
	require.Equal(t, stand{2, 0}, standOf(t, tracker, "calls"))
}

func TestARestartOfTheServerLosesNothing(t *testing.T) {
	server := redistest.Start(t)
	tracker := start(t, open(t, server.Client(), "restart"))
	held, err := tracker.Reserve(t.Context(), "calls", quota.Requests(3))
	require.NoError(t, err)
	server.Kill()
	_, err = tracker.Reserve(t.Context(), "calls")
	require.ErrorIs(t, err, quota.ErrNotSaved)
	err = held.Commit(t.Context(), quota.Requests(2))
	require.ErrorIs(t, err, quota.ErrPending, "usage counts, also while the server is away")
	server.Restart()
	require.NoError(t, tracker.Flush(t.Context()))
	require.Equal(t, stand{2, 0}, standOf(t, tracker, "calls"))
	server.Restart() // nobody has noticed
	_, err = tracker.Reserve(t.Context(), "calls")
	require.NoError(t, err)
}

func TestSaveRefusesWhatOthersHaveChanged(t *testing.T) {
	client := redistest.Start(t).Client()
	ctx := t.Context()
	one, other := open(t, client, "save"), open(t, client, "save")
	book := books(t, 2)
	put(t, other, "calls", book[0])
	state := &quota.State{Books: map[string]*quota.Book{"calls": book[1]}}
	require.ErrorIs(t, one.Save(ctx, state), quota.ErrConflict, "not loaded")
	loaded, err := one.Load(ctx)
	require.NoError(t, err)
	require.Equal(t, uint64(1), loaded.Generation)
	put(t, other, "more", book[0])
	require.ErrorIs(t, one.Save(ctx, state), quota.ErrConflict)
	_, err = one.Load(ctx)
	require.NoError(t, err)
	require.NoError(t, one.Save(ctx, state))
	require.NoError(t, one.Save(ctx, state))
	require.Equal(t, map[string]string{"calls": text(t, book[1])}, inStore(t, client, "save"))
}

func TestTheStateIsOfTheLibrarysVersion(t *testing.T) {
	file := quota.NewJSONFile(t.TempDir() + "/state.json")
	tracker := start(t, file)
	require.NoError(t, tracker.RecordUsage(t.Context(), "calls", quota.Requests(1)))
	want, err := file.Load(t.Context())
	require.NoError(t, err)
	client := redistest.Start(t).Client()
	store := open(t, client, "version")
	put(t, store, "calls", want.Books["calls"])
	got, err := store.Load(t.Context())
	require.NoError(t, err)
	require.Equal(t, want.Version, got.Version)

	require.NoError(t, client.HSet(t.Context(), "{quota:version}:meta", "version", want.Version+1).Err())
	before := dump(t, client, "version")
	_, err = store.Load(t.Context())
	require.ErrorIs(t, err, quota.ErrNewerState)
	err = store.Update(t.Context(), []string{"calls"}, putting("calls", books(t, 1)[0]))
	require.ErrorIs(t, err, quota.ErrNewerState)
	require.Equal(t, before, dump(t, client, "version"))
}

func TestAnUpdateDoesNotAddABookThatItHasNotNamed(t *testing.T) {
	client := redistest.Start(t).Client()
	store := open(t, client, "named")
	err := store.Update(t.Context(), []string{"calls"}, putting("others", books(t, 1)[0]))
	require.ErrorIs(t, err, quota.ErrInvalidRequest)
	require.Empty(t, inStore(t, client, "named"))
}

func TestAHoldIsCommittedByAnotherTracker(t *testing.T) {
	server := redistest.Start(t)
	one, other := start(t, open(t, server.Client(), "share")), start(t, open(t, server.Client(), "share"))
	ctx := t.Context()
	held, err := one.Acquire(ctx, quota.Request{All: []string{"calls"}, Amounts: []quota.Amount{quota.Requests(5)}, ID: "job 7"})
	require.NoError(t, err)
	found, err := other.Reservation(ctx, "job 7")
	require.NoError(t, err)
	require.NoError(t, found.Commit(ctx, quota.Requests(4)))
	require.ErrorIs(t, held.Commit(ctx), quota.ErrSettled)
	require.Equal(t, stand{4, 0}, standOf(t, one, "calls"))
}

func TestTrackersTogetherAdmitNoMoreThanTheLimitAndAlertOnce(t *testing.T) {
	server := redistest.Start(t)
	const limit, trackers, each = 100, 4, 40
	var mu sync.Mutex
	var alerts []int
	var granted atomic.Int64
	var group sync.WaitGroup
	for range trackers {
		tracker := start(t, open(t, server.Client(), "race"), withQuotas(calls(limit)), func(cfg *quota.Config) {
			cfg.OnAlert = func(a quota.Alert) {
				mu.Lock()
				defer mu.Unlock()
				alerts = append(alerts, a.Threshold)
			}
		})
		for range 2 {
			group.Go(func() {
				for range each / 2 {
					held, err := tracker.Reserve(context.Background(), "calls")
					if errors.Is(err, quota.ErrExceeded) {
						continue
					}
					if err == nil {
						granted.Add(1)
						err = held.Commit(context.Background())
					}
					if err != nil {
						t.Error(err)
						return
					}
				}
			})
		}
	}
	group.Wait()
	require.EqualValues(t, limit, granted.Load())
	require.Equal(t, stand{limit, 0}, standOf(t, start(t, open(t, server.Client(), "race")), "calls"))
	require.ElementsMatch(t, []int{50, 80, 90}, alerts)
}

func TestNothingIsLeftAfterClose(t *testing.T) {
	server := redistest.Start(t)
	watcher := server.Client()
	require.NoError(t, watcher.Ping(t.Context()).Err())
	before := goleak.IgnoreCurrent()
	proxy := redistest.StartProxy(t, server.Addr())
	client := redis.NewClient(&redis.Options{Addr: proxy.Addr()})
	store := open(t, client, "leak")
	tracker := start(t, store)
	require.NoError(t, tracker.RecordUsage(t.Context(), "calls", quota.Requests(1)))
	proxy.Plan(redistest.Swallow)
	require.Error(t, tracker.RecordUsage(t.Context(), "calls", quota.Requests(1)))
	require.NoError(t, tracker.Flush(t.Context()))
	require.NoError(t, tracker.Close())
	require.NoError(t, client.Ping(t.Context()).Err(), "the client stays open")
	require.NoError(t, client.Close())
	proxy.Close()
	goleak.VerifyNone(t, before)
	redistest.Eventually(t, "the server has no more connections", func() bool {
		list, err := watcher.ClientList(t.Context()).Result()
		return err == nil && strings.Count(list, "\n") == 1
	})
}

func TestAContextThatIsDoneEndsAnUpdate(t *testing.T) {
	server := redistest.Start(t)
	store := open(t, server.Client(), "done")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	ran := false
	err := store.Update(ctx, []string{"calls"}, func(*quota.Tx) error { ran = true; return nil })
	require.ErrorIs(t, err, context.Canceled)
	require.ErrorIs(t, err, quota.ErrNotSaved)
	require.False(t, ran)
	_, err = store.Load(ctx)
	require.ErrorIs(t, err, context.Canceled)
}

func TestFarMoreBooksThanAreRememberedAreKept(t *testing.T) {
	client := redistest.Start(t).Client()
	store := open(t, client, "many")
	data := text(t, books(t, 1)[0])
	const many, atOnce = 5000, 200
	for from := 0; from < many; from += atOnce {
		var names []string
		for i := from; i < from+atOnce; i++ {
			names = append(names, "user:"+string(rune('a'+i%26))+strings.Repeat("x", i/26))
		}
		require.NoError(t, store.Update(t.Context(), names, func(tx *quota.Tx) error {
			for _, name := range names {
				book := new(quota.Book)
				if err := json.Unmarshal([]byte(data), book); err != nil {
					return err
				}
				tx.Books[name] = book
			}
			return nil
		}))
	}
	for range 2 {
		require.NoError(t, store.Update(t.Context(), nil, func(tx *quota.Tx) error {
			require.Len(t, tx.Books, many)
			return nil
		}))
	}
}

func TestOptionsThatCannotWorkAreRefused(t *testing.T) {
	client := redis.NewClient(&redis.Options{Addr: "127.0.0.1:1"})
	defer client.Close()
	for name, opts := range map[string]redisquota.Options{
		"no namespace":      {},
		"braces":            {Namespace: "a{b}"},
		"control character": {Namespace: "a\nb"},
		"long":              {Namespace: strings.Repeat("n", 129)},
		"replicas":          {Namespace: "a", Replicas: -1},
		"replica timeout":   {Namespace: "a", ReplicaTimeout: time.Minute},
	} {
		_, err := redisquota.New(t.Context(), client, opts)
		require.ErrorIs(t, err, quota.ErrInvalidConfig, name)
	}
	_, err := redisquota.New(t.Context(), nil, redisquota.Options{Namespace: "a"})
	require.ErrorIs(t, err, quota.ErrInvalidConfig)
	ring := redis.NewRing(&redis.RingOptions{Addrs: map[string]string{"a": "127.0.0.1:1"}})
	defer ring.Close()
	_, err = redisquota.New(t.Context(), ring, redisquota.Options{Namespace: "a"})
	require.ErrorIs(t, err, quota.ErrInvalidConfig)
	_, err = redisquota.New(t.Context(), client, redisquota.Options{Namespace: "a"})
	require.ErrorContains(t, err, "{quota:a}")
}
