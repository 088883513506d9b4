package quota_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"math"
	"sync/atomic"
	"testing"
	"time"

	"example.com/quota"
	"example.com/quota/quotatest"
	"github.com/stretchr/testify/require"
)

// A lateClock never lets a timer go off, as where the machine is busy or asleep.
type lateClock struct{ *quotatest.Clock }

func (lateClock) AfterFunc(time.Duration, func()) func() bool { return func() bool { return true } }

// A memStore keeps the JSON form of a state in memory.
type memStore struct{ data []byte }

func (m *memStore) Load(context.Context) (*quota.State, error) {
	if m.data == nil {
		return nil, nil
	}
	var s quota.State
	if err := json.Unmarshal(m.data, &s); err != nil {
		return nil, err
	}
	return &s, nil
}

func (m *memStore) Save(_ context.Context, s *quota.State) error {
	data, err := json.Marshal(s)
	m.data = data
	return err
}

var midMorning = time.Date(2026, 3, 25, 10, 0, 0, 0, time.UTC)

func trackerAt(t *testing.T, clock quota.Clock, store quota.Persistence, on func(quota.Alert), quotas ...quota.Quota) *quota.QuotaTracker {
	tr, err := quota.New(context.Background(), quota.Config{
		Persistence: store, Quotas: quotas, Clock: clock, OnAlert: on, Logger: slog.New(slog.NewTextHandler(io.Discard, nil)),
	})
	require.NoError(t, err)
	t.Cleanup(func() { _ = tr.Close() })
	return tr
}

func TestUsageDoesNotSettleWhatHasExpiredHoweverMuchIsDue(t *testing.T) {
	ctx := context.Background()
	used := func(store quota.Persistence) int64 {
		clock := quotatest.NewClock(midMorning)
		tr := trackerAt(t, lateClock{clock}, store, nil, quota.Quota{Name: "a", Limits: []quota.Limit{{Max: 5000}}})
		for range 600 {
			_, err := tr.Reserve(ctx, "a")
			require.NoError(t, err)
		}
		clock.Advance(time.Hour) // all have expired, and ChargeExpired charges them
		require.NoError(t, tr.RecordUsage(ctx, "a", quota.Requests(88)))
		s, _ := tr.Status("a")
		return s.Limits[0].Used
	}
	require.EqualValues(t, 688, used(quota.NewJSONFile(t.TempDir()+"/s.json")))
	require.EqualValues(t, 688, used(quota.InMemory()))
}

func TestAnAlertAfterAResetHasAnotherIDAlsoOfAQuotaThatWasIdle(t *testing.T) {
	ctx := context.Background()
	clock := quotatest.NewClock(midMorning)
	var ids []string
	tr := trackerAt(t, clock, quota.InMemory(), func(a quota.Alert) { ids = append(ids, a.ID) },
		quota.Quota{Name: "u:*", Limits: []quota.Limit{{Max: 10, Window: quota.Lifetime(), AlertThresholds: []int{50}}}})
	require.NoError(t, tr.RecordUsage(ctx, "u:x", quota.Requests(5)))
	require.NoError(t, tr.Reset(ctx, "u:x")) // topped up
	for range 4 {
		clock.Advance(24 * time.Hour)
	}
	require.NoError(t, tr.RecordUsage(ctx, "u:x", quota.Requests(5)))
	require.Len(t, ids, 2)
	require.NotEqual(t, ids[0], ids[1])
}

func TestLookingForAReservationTellsTheAlertsThatItSaves(t *testing.T) {
	ctx := context.Background()
	store := &memStore{}
	clock := quotatest.NewClock(midMorning)
	first := trackerAt(t, clock, struct{ quota.Persistence }{store}, nil, quota.Quota{Name: "a", Limits: []quota.Limit{{Max: 100}}})
	_, err := first.Reserve(ctx, "a")
	require.NoError(t, err)
	require.NoError(t, first.RecordUsage(ctx, "a", quota.Requests(40)))
	r2, err := first.Reserve(ctx, "a", quota.Requests(2))
	require.NoError(t, err)
	require.NoError(t, first.Close())
	var alerts atomic.Int32
	// The limit has been lowered: what New finds goes out with the first call that changes something.
	second := trackerAt(t, clock, struct{ quota.Persistence }{store}, func(quota.Alert) { alerts.Add(1) },
		quota.Quota{Name: "a", Limits: []quota.Limit{{Max: 60}}})
	_, err = second.Reservation(ctx, r2.ID())
	require.NoError(t, err)
	require.EqualValues(t, 1, alerts.Load())
}

func TestARefusalOfWhatCannotBeCountedTellsTheAlertsOfWhatHasExpired(t *testing.T) {
	ctx := context.Background()
	for _, general := range []bool{true, false} {
		clock := quotatest.NewClock(midMorning)
		var alerts int
		tr := trackerAt(t, lateClock{clock}, quota.InMemory(), func(quota.Alert) { alerts++ },
			quota.Quota{Name: "a", Limits: []quota.Limit{{Max: 10}}})
		_, err := tr.Reserve(ctx, "a", quota.Requests(6))
		require.NoError(t, err)
		_, err = tr.Acquire(ctx, quota.Request{All: []string{"a"}, Amounts: []quota.Amount{quota.Tokens(math.MaxInt64)}, TTL: 10 * time.Hour})
		require.NoError(t, err)
		clock.Advance(time.Hour)
		if general {
			_, err = tr.ReserveAll(ctx, []string{"a"}, quota.Tokens(1))
		} else {
			_, err = tr.Reserve(ctx, "a", quota.Tokens(1))
		}
		require.ErrorIs(t, err, quota.ErrInvalidAmount)
		require.Equal(t, 1, alerts, "general %v", general)
	}
}

func TestExtendingWhatHasExpiredTellsTheAlertsOfIt(t *testing.T) {
	ctx := context.Background()
	clock := quotatest.NewClock(midMorning)
	var alerts int
	tr := trackerAt(t, lateClock{clock}, quota.InMemory(), func(quota.Alert) { alerts++ },
		quota.Quota{Name: "a", Limits: []quota.Limit{{Max: 10}}})
	r, err := tr.Reserve(ctx, "a", quota.Requests(6))
	require.NoError(t, err)
	clock.Advance(time.Hour)
	require.ErrorIs(t, r.Extend(ctx, time.Hour), quota.ErrSettled)
	require.Equal(t, 1, alerts)
}

func TestANewLimitOfATemplateKeepsWhatItStartedWith(t *testing.T) {
	ctx := context.Background()
	path := t.TempDir() + "/s.json"
	plain := struct{ quota.Persistence }{&memStore{}}
	for name, store := range map[string]func() quota.Persistence{
		"file":  func() quota.Persistence { return quota.NewJSONFile(path) },
		"plain": func() quota.Persistence { return plain },
	} {
		t.Run(name, func(t *testing.T) {
			clock := quotatest.NewClock(midMorning)
			limited := quota.Quota{Name: "u:*", Limits: []quota.Limit{{Max: 100, Window: quota.Monthly(nil, 1)}}}
			used := func(tr *quota.QuotaTracker) int64 { s, _ := tr.Status("u:x"); return s.Limits[0].Used }

			first := trackerAt(t, clock, store(), nil, quota.Quota{Name: "u:*"})
			require.NoError(t, first.RecordUsage(ctx, "u:x", quota.Requests(40)))
			require.NoError(t, first.Close())

			second := trackerAt(t, clock, store(), nil, limited) // with a limit that is new
			require.EqualValues(t, 40, used(second))
			require.NoError(t, second.Flush(ctx))
			require.NoError(t, second.Close())

			clock.Advance(24 * time.Hour) // the same month
			third := trackerAt(t, clock, store(), nil, limited)
			require.EqualValues(t, 40, used(third))
		})
	}
}

func TestTwoTrackersKeepWhatANewLimitStartedWith(t *testing.T) {
	ctx := context.Background()
	path := t.TempDir() + "/s.json"
	clock := quotatest.NewClock(midMorning)
	limited := quota.Quota{Name: "u:*", Limits: []quota.Limit{{Max: 100, Window: quota.Monthly(nil, 1)}}}
	used := func(tr *quota.QuotaTracker) int64 { s, _ := tr.Status("u:x"); return s.Limits[0].Used }
	one := trackerAt(t, clock, quota.NewJSONFile(path), nil, quota.Quota{Name: "u:*"})
	two := trackerAt(t, clock, quota.NewJSONFile(path), nil, quota.Quota{Name: "u:*"})
	require.NoError(t, one.RecordUsage(ctx, "u:x", quota.Requests(40)))
	require.NoError(t, one.SetQuotas(ctx, []quota.Quota{limited}))
	require.NoError(t, two.SetQuotas(ctx, []quota.Quota{limited}))
	require.EqualValues(t, 40, used(one))
	require.EqualValues(t, 40, used(two))
	require.NoError(t, two.RecordUsage(ctx, "u:y")) // somebody else works
	clock.Advance(24 * time.Hour)
	require.NoError(t, two.RecordUsage(ctx, "u:y"))
	require.EqualValues(t, 40, used(one))
	require.EqualValues(t, 40, used(two))
	_, err := one.Reserve(ctx, "u:x", quota.Requests(61))
	require.ErrorIs(t, err, quota.ErrExceeded)
}

// A countingStore counts its saves.
type countingStore struct {
	*memStore
	saves atomic.Int32
}

func (c *countingStore) Save(ctx context.Context, s *quota.State) error {
	c.saves.Add(1)
	return c.memStore.Save(ctx, s)
}

func TestLookingEverywhereDoesNotSaveForEachQuota(t *testing.T) {
	ctx, clock, store := t.Context(), quotatest.NewClock(morning), &countingStore{memStore: &memStore{}}
	tracker := startOn(t, struct{ quota.Persistence }{store}, withClock(lateClock{clock}),
		withQuotas(quota.Quota{Name: "u:*", Limits: []quota.Limit{{Max: 10, Window: quota.Lifetime()}}}))
	for i := range 100 {
		require.NoError(t, tracker.RecordUsage(ctx, fmt.Sprint("u:", i)))
	}
	clock.Advance(24 * time.Hour)
	before := store.saves.Load()
	_, err := tracker.Reservation(ctx, "nobody's")
	require.ErrorIs(t, err, quota.ErrNoReservation)
	require.LessOrEqual(t, store.saves.Load()-before, int32(10))
}
