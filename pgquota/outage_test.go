package pgquota_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"example.com/quota"
	"example.com/quota/pgquota/internal/pgtest"
)

func TestWhatWasAcknowledgedSurvivesCrashesOfTheServerUnderLoad(t *testing.T) {
	server := pgtest.Start(t)
	connections := pgtest.Pool(t, server.DSN())
	schema := newSchema()
	const crashes, workers = 3, 4
	for crash := range crashes {
		trackers := make([]*quota.QuotaTracker, 2)
		for i := range trackers {
			tracker, err := quota.New(t.Context(), quota.Config{
				Persistence: open(t, connections, schema), Quotas: []quota.Quota{calls(1_000_000)},
				OnAlert: func(quota.Alert) {}, Logger: quiet(),
			})
			require.NoError(t, err)
			trackers[i] = tracker
		}
		before := usedIn(t, server, schema)
		var acknowledged, open atomic.Int64
		var group sync.WaitGroup
		for i := range workers {
			group.Go(func() {
				for {
					open.Add(1)
					err := trackers[i%2].RecordUsage(t.Context(), "calls")
					if errors.Is(err, quota.ErrNotSaved) {
						return // pending: it may stand or not
					}
					if err != nil {
						t.Error(err)
						return
					}
					acknowledged.Add(1)
					open.Add(-1)
				}
			})
		}
		pgtest.Eventually(t, "some usage is acknowledged", func() bool { return acknowledged.Load() >= 20 })
		if crash%2 == 0 {
			server.Crash(t)
		} else {
			server.Stop(t)
		}
		group.Wait()
		for _, tracker := range trackers {
			require.ErrorIs(t, tracker.Close(), quota.ErrNotSaved, "it could not save what was pending")
		}
		server.Restart(t)
		used := usedIn(t, server, schema) - before
		require.GreaterOrEqual(t, used, acknowledged.Load())
		require.LessOrEqual(t, used, acknowledged.Load()+open.Load())
	}
}

func TestATrackerThatOutlivesItsServerSavesWhatItKeptWhenTheServerIsBack(t *testing.T) {
	server := pgtest.Start(t)
	connections := pgtest.Pool(t, server.DSN())
	schema := newSchema()
	tracker := start(t, open(t, connections, schema))
	require.NoError(t, tracker.RecordUsage(t.Context(), "calls", quota.Requests(3)))
	server.Stop(t)
	err := tracker.RecordUsage(t.Context(), "calls", quota.Requests(4))
	require.ErrorIs(t, err, quota.ErrPending)
	require.ErrorIs(t, err, quota.ErrNotSaved)
	_, err = tracker.Reserve(t.Context(), "calls")
	require.ErrorIs(t, err, quota.ErrNotSaved)
	status, _ := tracker.Status("calls")
	require.EqualValues(t, 7, status.Limits[0].Used)
	server.Restart(t)
	require.NoError(t, tracker.Flush(t.Context()))
	require.EqualValues(t, 7, usedIn(t, server, schema))
	require.NoError(t, tracker.Close())
}

func TestAServerThatDoesNotAnswerIsAnErrorSoonAfterTheContextEnds(t *testing.T) {
	proxy := pgtest.StartProxy(t, shared.Server(t))
	store := open(t, pgtest.Pool(t, proxy.DSN(), func(cfg *pgxpool.Config) { cfg.PingTimeout = time.Second }), newSchema())
	for name, fault := range map[string]func([]byte) pgtest.Fault{
		"anything": func([]byte) pgtest.Fault { return pgtest.Swallow },
		"a COMMIT": func(request []byte) pgtest.Fault {
			if pgtest.HasCommit(request) {
				return pgtest.Swallow
			}
			return pgtest.Pass
		},
	} {
		t.Run(name, func(t *testing.T) {
			proxy.Plan(fault)
			ctx, cancel := context.WithCancel(t.Context())
			reached := proxy.Reached()
			go func() {
				<-reached
				cancel()
			}()
			err := store.Update(ctx, []string{"a"}, putting("a", books(t, 1)[0]))
			require.ErrorIs(t, err, context.Canceled)
			require.ErrorIs(t, err, quota.ErrNotSaved)
			proxy.Plan(nil)
			put(t, store, "a", books(t, 1)[0])
		})
	}
}

func TestAStandbyIsRefusedByName(t *testing.T) {
	server := pgtest.Start(t)
	server.Stop(t)
	server.Standby(t)
	server.Restart(t, "hot_standby=on")
	_, err := openStore(t, pgtest.Pool(t, server.DSN()), newSchema())
	require.ErrorIs(t, err, quota.ErrInvalidConfig)
	require.ErrorContains(t, err, "target_session_attrs=read-write")
}

func TestAServerThatDoesNotSyncIsWarnedOf(t *testing.T) {
	server := pgtest.Start(t, "fsync=off")
	var log logBook
	open(t, pgtest.Pool(t, server.DSN()), newSchema(), withLog(&log))
	require.Contains(t, log.String(), "fsync=off")
}

// usedIn returns how many calls a new tracker finds used.
func usedIn(t *testing.T, server *pgtest.Server, schema string) int64 {
	t.Helper()
	state, err := open(t, pgtest.Pool(t, server.DSN()), schema).Load(t.Context())
	require.NoError(t, err)
	if state == nil || state.Books["calls"] == nil {
		return 0
	}
	tracker := start(t, &recorder{state: state}, withQuotas(calls(1_000_000)))
	status, _ := tracker.Status("calls")
	return status.Limits[0].Used
}

func TestUsageThatNoStandbyHasIsNotCalledSaved(t *testing.T) {
	server := pgtest.Start(t)
	connections := pgtest.Pool(t, server.DSN())
	schema := newSchema()
	tracker := start(t, open(t, connections, schema))
	require.NoError(t, tracker.RecordUsage(t.Context(), "calls"))
	execute(t, connections, "ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
	execute(t, connections, "SELECT pg_reload_conf()")
	done := make(chan error)
	go func() { done <- tracker.RecordUsage(t.Context(), "calls") }()
	pgtest.Eventually(t, "the COMMIT waits", func() bool {
		return query(t, connections, "SELECT count(*)::text FROM pg_stat_activity WHERE wait_event = 'SyncRep'") == "1"
	})
	// As where the server is stopped: the change stands on it alone.
	execute(t, connections, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'")
	require.ErrorIs(t, <-done, quota.ErrPending)
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	require.Error(t, tracker.Flush(ctx), "no standby has it")
	execute(t, connections, "ALTER SYSTEM RESET synchronous_standby_names")
	execute(t, connections, "SELECT pg_reload_conf()")
	require.NoError(t, tracker.Flush(t.Context()))
	require.EqualValues(t, 2, usedIn(t, server, schema))
}
