package quota

import (
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestInstantsSurviveTheFormOfTheCore(t *testing.T) {
	t.Parallel()
	require.Zero(t, nanos(time.Time{}))
	require.True(t, instant(0).IsZero())
	for _, at := range []time.Time{
		time.Unix(0, 1), time.Unix(1, 0), time.Date(2026, 1, 26, 12, 0, 0, 123456789, time.FixedZone("x", 3600)),
		time.Date(2149, 12, 31, 23, 59, 59, 999999999, time.UTC),
	} {
		require.True(t, at.Equal(instant(nanos(at))), "%v", at)
		require.Equal(t, time.UTC, instant(nanos(at)).Location())
	}
}

func TestInstantsOutsideTheCoreBecomeItsFirstAndLast(t *testing.T) {
	t.Parallel()
	for _, at := range []time.Time{time.Unix(0, 0), time.Unix(-1, 999999999), time.Unix(math.MinInt64/2, 0), time.Date(1, 1, 1, 0, 0, 0, 1, time.UTC)} {
		require.Equal(t, earliest, nanos(at), "%v", at)
	}
	for _, at := range []time.Time{time.Date(2150, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC), time.Unix(math.MaxInt64/2, 0)} {
		require.Equal(t, latest, nanos(at), "%v", at)
	}
	require.Equal(t, time.Date(2150, 1, 1, 0, 0, 0, 0, time.UTC), instant(latest))
}

func TestTheLastInstantLeavesRoomForTheLongestWindow(t *testing.T) {
	t.Parallel()
	require.Less(t, latest, math.MaxInt64-int64(longestWindow))
}
