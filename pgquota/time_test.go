package pgquota_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/quota"
)

func TestTheTimeOfATransactionIsTheServers(t *testing.T) {
	connections := pool(t)
	store := open(t, connections, newSchema())
	for _, names := range [][]string{nil, {"a"}} {
		var first, now, last time.Time
		require.NoError(t, connections.QueryRow(t.Context(), "SELECT clock_timestamp()").Scan(&first))
		require.NoError(t, store.Update(t.Context(), names, func(tx *quota.Tx) error { now = tx.Now; return nil }))
		require.NoError(t, connections.QueryRow(t.Context(), "SELECT clock_timestamp()").Scan(&last))
		require.False(t, now.Before(first) || now.After(last), "%v, %v, %v", first, now, last)
	}
}

func TestTheTimeIsReadWhenTheLocksAreHeld(t *testing.T) {
	schema := newSchema()
	one, two := open(t, pool(t), schema), open(t, pool(t), schema)
	var released, now time.Time
	done := make(chan error)
	require.NoError(t, one.Update(t.Context(), []string{"a"}, func(*quota.Tx) error {
		go func() {
			done <- two.Update(t.Context(), []string{"a"}, func(tx *quota.Tx) error { now = tx.Now; return nil })
		}()
		waiting(t, pool(t), 1)
		require.NoError(t, pool(t).QueryRow(t.Context(), "SELECT clock_timestamp()").Scan(&released))
		return nil
	}))
	require.NoError(t, <-done)
	require.True(t, now.After(released))
}

func TestWhatIsDecidedIsDecidedAgainWhenItsEndHasComeBeforeTheCommit(t *testing.T) {
	var clock shift
	schema := newSchema()
	store := openWith(t, clock.in(t.Context()), pool(t), schema)
	list := books(t, 2)
	var times []time.Time
	require.NoError(t, store.Update(t.Context(), []string{"a"}, func(tx *quota.Tx) error {
		times = append(times, tx.Now)
		tx.Until = tx.Now.Add(time.Hour)
		if len(times) == 1 {
			clock.add(time.Hour)
		}
		return putting("a", list[len(times)-1])(tx)
	}))
	require.Len(t, times, 2)
	require.GreaterOrEqual(t, times[1].Sub(times[0]), time.Hour)
	require.Equal(t, map[string]string{"a": text(t, list[1])}, inStore(t, schema))
}

func TestATimeThatWasStoredIsNotFollowedByAnEarlierOneUnlessItWasFarAhead(t *testing.T) {
	var clock shift
	schema := newSchema()
	store := openWith(t, clock.in(t.Context()), pool(t), schema)
	now := func(change func(*quota.Tx) error) (now time.Time) {
		require.NoError(t, store.Update(t.Context(), []string{"a"}, func(tx *quota.Tx) error {
			now = tx.Now
			return change(tx)
		}))
		return now
	}
	nothing := func(*quota.Tx) error { return nil }
	stored := now(putting("a", books(t, 1)[0]))
	clock.add(-time.Hour)
	require.Equal(t, stored, now(nothing))
	again := now(putting("a", books(t, 1)[0]))
	require.Equal(t, stored, again, "what is decided at a time that has come before can be written")
	require.NoError(t, store.Update(t.Context(), nil, func(tx *quota.Tx) error {
		require.Equal(t, stored, tx.Now)
		return nil
	}))
	clock.add(-48 * time.Hour)
	require.WithinDuration(t, stored.Add(-49*time.Hour), now(nothing), time.Hour/2, "the clock had been wrong")
}

func TestADayEndsAtTheStoresMidnightWhateverTheClocksOfTheTrackersSay(t *testing.T) {
	var clock shift
	connections := pool(t)
	schema := newSchema()
	midnight := time.Now().UTC().Truncate(24*time.Hour).AddDate(0, 0, 1)
	clock.to(midnight.Add(-5 * time.Minute))
	ctx := clock.in(t.Context())
	ahead := start(t, openWith(t, ctx, connections, schema), withQuotas(calls(4)), withClock(skewed{by(&clock) + 10*time.Second}))
	behind := start(t, openWith(t, ctx, connections, schema), withQuotas(calls(4)), withClock(skewed{by(&clock) - 10*time.Second}))

	take := func() (granted int) {
		for _, tracker := range []*quota.QuotaTracker{ahead, behind, ahead, behind, ahead, behind} {
			r, err := tracker.Reserve(t.Context(), "calls")
			if err == nil {
				require.NoError(t, r.Commit(t.Context()))
				granted++
				continue
			}
			var refused *quota.ExceededError
			require.ErrorAs(t, err, &refused)
			require.True(t, refused.RetryAt.Equal(midnight), "%v", refused.RetryAt)
		}
		return granted
	}
	require.Equal(t, 4, take())
	clock.to(midnight.Add(-time.Second)) // of the one tracker it is past midnight
	require.Zero(t, take())
	clock.to(midnight.Add(time.Second)) // of the other not yet
	midnight = midnight.AddDate(0, 0, 1)
	require.Equal(t, 4, take())
	require.Len(t, behind.History("calls"), 1)
	require.EqualValues(t, 4, behind.History("calls")[0].Used[quota.UnitRequests])
}

func by(clock *shift) time.Duration { return time.Duration(clock.by.Load()) }
