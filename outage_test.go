package quota_test

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"example.com/quota"
	"example.com/quota/quotatest"
	"github.com/stretchr/testify/require"
)

// A cutOff is one tracker's way to a shared store, which may be down while others reach it.
type cutOff struct {
	*sharedStore
	down atomic.Bool
}

func (c *cutOff) Update(ctx context.Context, names []string, fn func(*quota.Tx) error) error {
	if c.down.Load() {
		return errStore
	}
	return c.sharedStore.Update(ctx, names, fn)
}

func TestUsageKeptForMoreThanADayDoesNotTurnBackTheBook(t *testing.T) {
	ctx, clock, store := t.Context(), quotatest.NewClock(morning), newSharedStore()
	way := &cutOff{sharedStore: store}
	alone, other := startOn(t, way, withClock(clock)), startOn(t, store, withClock(clock))
	way.down.Store(true)
	require.ErrorIs(t, alone.RecordUsage(ctx, "calls"), quota.ErrPending)
	clock.Advance(26 * time.Hour)
	require.NoError(t, other.RecordUsage(ctx, "calls", quota.Requests(100)))
	way.down.Store(false)
	require.NoError(t, alone.Flush(ctx))
	require.NoError(t, other.Refresh(ctx))
	status, _ := other.Status("calls")
	require.GreaterOrEqual(t, status.Limits[0].Used, int64(100), "today's usage of the other tracker stays")
}

func TestABatchOfUnknownOutcomeIsRecognisedAfterHours(t *testing.T) {
	ctx, clock, store := t.Context(), quotatest.NewClock(morning), newSharedStore()
	way := &cutOff{sharedStore: store}
	alone, other := startOn(t, way, withClock(clock)), startOn(t, store, withClock(clock))
	store.plan(fine, lostReply)
	require.ErrorIs(t, alone.RecordUsage(ctx, "calls", quota.Requests(10)), quota.ErrPending)
	way.down.Store(true)
	require.NoError(t, other.RecordUsage(ctx, "calls"))
	clock.Advance(3 * time.Hour)
	require.NoError(t, other.RecordUsage(ctx, "calls"))
	way.down.Store(false)
	require.NoError(t, alone.Flush(ctx))
	require.NoError(t, other.Refresh(ctx))
	require.Equal(t, stand{12, 0}, standOf(t, other, "calls"))
}

func TestAStateSavedAfterAClockCorrectionAndALateCommitCanBeRead(t *testing.T) {
	ctx, clock, path := t.Context(), quotatest.NewClock(morning), newStatePath(t)
	tracker := startOn(t, quota.NewJSONFile(path), withClock(clock))
	r, err := tracker.Reserve(ctx, "calls", quota.Requests(5))
	require.NoError(t, err)
	clock.Advance(24 * time.Hour) // it has expired, and the day has turned
	require.NoError(t, tracker.RecordUsage(ctx, "calls", quota.Requests(0)))
	clock.Set(clock.Now().Add(-48 * time.Hour))
	require.NoError(t, tracker.RecordUsage(ctx, "calls", quota.Requests(0)))
	require.NoError(t, r.Commit(ctx))
	require.NoError(t, tracker.RecordUsage(ctx, "calls", quota.Requests(0), quota.Tokens(77)))
	require.NoError(t, tracker.Verify())
	require.NoError(t, tracker.Close())
	require.Empty(t, startOn(t, quota.NewJSONFile(path), withClock(clock)).Summary().Recovered)
}
