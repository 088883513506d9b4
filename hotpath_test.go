package quota

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// A countingClock counts how often it is read.
type countingClock struct {
	systemClock
	reads int
}

func (c *countingClock) Now() time.Time {
	c.reads++
	return c.systemClock.Now()
}

func TestTheWayInMemoryReadsTheClockOncePerCallAndAllocatesTheHandleAlone(t *testing.T) {
	ctx, clock := context.Background(), &countingClock{}
	tracker, err := New(ctx, Config{Persistence: InMemory(), Clock: clock, Quotas: []Quota{{Name: "q", Limits: []Limit{
		{Max: 1e15, Window: Every(time.Hour)},
		{Unit: UnitTokens, Max: 1e15, Window: Daily(nil), Estimate: 100},
		{Unit: UnitUSD, Max: 1e15, Window: Monthly(nil, 1), Estimate: 5},
	}}}})
	require.NoError(t, err)
	reserve := func() {
		r, err := tracker.Reserve(ctx, "q", Tokens(5))
		if err != nil || r.Commit(ctx, Tokens(4)) != nil {
			t.Error("refused")
		}
	}
	reserve() // opens the book and fills what is used again
	clock.reads = 0
	reserve()
	require.Equal(t, 2, clock.reads)
	clock.reads = 0
	require.True(t, tracker.CanUse("q"))
	require.Equal(t, 1, clock.reads)
	require.Zero(t, testing.AllocsPerRun(200, func() { tracker.CanUse("q") }))
	if !raceDetector {
		require.InDelta(t, 1, testing.AllocsPerRun(200, reserve), 0.1)
	}
	require.NoError(t, tracker.Close())
}
