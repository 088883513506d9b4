package quota

import (
	"math"
	"math/big"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestSharesAreExact(t *testing.T) {
	rng := random(t)
	corners := []int64{0, 1, 2, 3, 99, 100, 101, math.MaxInt32, math.MaxInt64 - 1, math.MaxInt64}
	number := func() int64 {
		if rng.IntN(2) == 0 {
			return corners[rng.IntN(len(corners))]
		}
		return rng.Int64() >> rng.IntN(63)
	}
	for range 20000 {
		n, part, whole := number(), number(), max(1, number())
		exact := product(n, part)
		down := min64(new(big.Int).Div(exact, bigOf(whole)))
		require.Equal(t, down, share(n, part, whole, false), "%d x %d / %d", n, part, whole)
		require.Equal(t, min64(ceil(exact, whole)), share(n, part, whole, true), "%d x %d / %d, up", n, part, whole)
	}
}

func min64(n *big.Int) int64 {
	if !n.IsInt64() {
		return math.MaxInt64
	}
	return n.Int64()
}

func TestDaysOfTheTotalsAreThoseOfTheLocation(t *testing.T) {
	t.Parallel()
	berlin := zone(t, "Europe/Berlin")
	r := &rules{location: berlin}
	at := time.Date(2026, 3, 29, 12, 0, 0, 0, berlin) // the day of 23 hours
	start, end := r.day(nanos(at))
	require.Equal(t, time.Date(2026, 3, 29, 0, 0, 0, 0, berlin).UnixNano(), start)
	require.Equal(t, 23*hour, end-start)
}

func TestALimitThatLeavesTheLibraryIsACopy(t *testing.T) {
	t.Parallel()
	rule := limitRule{Limit: Limit{AlertThresholds: []int{50}}}
	rule.copied().AlertThresholds[0] = 1
	require.Equal(t, []int{50}, rule.AlertThresholds)
}
