package quota_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/quota"
	"example.com/quota/quotatest"
)

// stranger opens a tracker on the state that has none of its quotas configured, and another policy.
func stranger(t *testing.T, path string, clock quota.Clock, change ...func(*quota.Config)) *quota.QuotaTracker {
	t.Helper()
	tracker, err := openOn(quota.NewJSONFile(path), append(change, withClock(clock), withQuotas(quota.Quota{Name: "other"}),
		func(cfg *quota.Config) {
			cfg.OnExpiry, cfg.Location = quota.ReleaseExpired, mustLoad(t, "Pacific/Auckland")
		})...)
	require.NoError(t, err)
	return tracker
}

func mustLoad(t *testing.T, name string) *time.Location {
	t.Helper()
	loc, err := time.LoadLocation(name)
	require.NoError(t, err)
	return loc
}

// looks are what a tracker may do that opens the books of quotas which it has not configured.
var looks = map[string]func(*testing.T, *quota.QuotaTracker){
	"nothing": func(*testing.T, *quota.QuotaTracker) {},
	"Reservation": func(t *testing.T, tracker *quota.QuotaTracker) {
		_, err := tracker.Reservation(t.Context(), "unknown")
		require.ErrorIs(t, err, quota.ErrNoReservation)
	},
	"Acquire with the same ID": func(t *testing.T, tracker *quota.QuotaTracker) {
		_, err := tracker.Acquire(t.Context(), quota.Request{All: []string{"other"}, ID: "job"})
		require.ErrorIs(t, err, quota.ErrIDConflict)
	},
	"Refresh": func(t *testing.T, tracker *quota.QuotaTracker) { require.NoError(t, tracker.Refresh(t.Context())) },
	"Verify":  func(t *testing.T, tracker *quota.QuotaTracker) { require.NoError(t, tracker.Verify()) },
	"a call of its own": func(t *testing.T, tracker *quota.QuotaTracker) {
		record(t, tracker, "other")
		require.NoError(t, tracker.Flush(t.Context()))
	},
}

// strangers runs a test for every look, on a file that is shared and on one that is owned.
func strangers(t *testing.T, test func(t *testing.T, look func(*testing.T, *quota.QuotaTracker), change ...func(*quota.Config))) {
	for name, look := range looks {
		t.Run(name, func(t *testing.T) { test(t, look) })
		t.Run(name+", alone", func(t *testing.T) { test(t, look, withFlushInterval(time.Second)) })
	}
}

func TestAHoldOfAQuotaOfOthersExpiresByTheirPolicyAlone(t *testing.T) {
	strangers(t, func(t *testing.T, look func(*testing.T, *quota.QuotaTracker), change ...func(*quota.Config)) {
		clock, path := quotatest.NewClock(morning), newStatePath(t)
		owner, err := openOn(quota.NewJSONFile(path), withClock(clock))
		require.NoError(t, err)
		_, err = owner.Acquire(t.Context(), quota.Request{All: []string{"calls"}, ID: "job", Amounts: []quota.Amount{quota.Requests(60)}})
		require.NoError(t, err)
		require.NoError(t, owner.Close())

		other := stranger(t, path, clock, change...)
		look(t, other)
		clock.Advance(16 * time.Minute) // it would release what expires
		require.NoError(t, other.Verify())
		require.NoError(t, other.Close())

		require.Equal(t, stand{60, 0}, standIn(t, quota.NewJSONFile(path), withClock(clock)))
	})
}

func TestAnAccountOfAQuotaOfOthersIsNeverDropped(t *testing.T) {
	prepaid := withQuotas(
		per(quota.Lifetime(), "", 10),
		quota.Quota{Name: "user:*", Limits: []quota.Limit{{Max: 10, Window: quota.Lifetime()}}},
	)
	strangers(t, func(t *testing.T, look func(*testing.T, *quota.QuotaTracker), change ...func(*quota.Config)) {
		clock, path := quotatest.NewClock(morning), newStatePath(t)
		owner, err := openOn(quota.NewJSONFile(path), withClock(clock), prepaid)
		require.NoError(t, err)
		record(t, owner, "q", quota.Requests(10))
		record(t, owner, "user:bob", quota.Requests(9))
		r, err := owner.Acquire(t.Context(), quota.Request{All: []string{"user:bob"}, ID: "job", TTL: 100 * 24 * time.Hour})
		require.NoError(t, err)
		require.NoError(t, owner.Close())

		clock.Advance(3 * 24 * time.Hour)
		other := stranger(t, path, clock, change...)
		look(t, other)
		found, err := other.Reservation(t.Context(), r.ID())
		require.NoError(t, err)
		require.NoError(t, found.Commit(t.Context()))
		require.NoError(t, other.Close())

		owner, err = openOn(quota.NewJSONFile(path), withClock(clock), prepaid)
		require.NoError(t, err)
		require.Equal(t, stand{10, 0}, standOf(t, owner, "q"))
		require.Equal(t, stand{10, 0}, standOf(t, owner, "user:bob"))
		require.Equal(t, int64(10), owner.History("q")[0].Used[quota.UnitRequests], "its day is that of its owner")
		require.NoError(t, owner.Close())
	})
}

func TestWhatIsSettledInAQuotaOfOthersIsChargedInTheWindowThatThenIs(t *testing.T) {
	clock, path := quotatest.NewClock(morning), newStatePath(t)
	limits := withQuotas(quota.Quota{Name: "calls", Limits: []quota.Limit{
		{Max: 100}, {Max: 100, Window: quota.Session(time.Hour)}, {Max: 100, Window: quota.Every(time.Hour)},
	}})
	owner := startOn(t, quota.NewJSONFile(path), withClock(clock), limits)
	record(t, owner, "calls", quota.Requests(30))
	open, err := owner.Acquire(t.Context(), quota.Request{All: []string{"calls"}, Amounts: []quota.Amount{quota.Requests(40)}, TTL: 48 * time.Hour})
	require.NoError(t, err)
	other := stranger(t, path, clock)
	clock.Advance(24 * time.Hour)
	found, err := other.Reservation(t.Context(), open.ID())
	require.NoError(t, err)
	require.NoError(t, found.Commit(t.Context(), quota.Requests(50)))
	status := statusOf(t, owner, "calls")
	require.Equal(t, int64(50), status.Limits[0].Used, "a budget counts it where it is settled")
	require.Equal(t, int64(10), status.Limits[1].Used, "a rate the overrun alone")
	require.Equal(t, int64(10), status.Limits[2].Used)
	require.Zero(t, status.Reservations)
	require.ErrorIs(t, open.Release(t.Context()), quota.ErrSettled)
	require.NoError(t, other.Close())
}

func TestAHoldOfAQuotaOfOthersWhoseTimeIsOverIsNotFound(t *testing.T) {
	clock, path := quotatest.NewClock(morning), newStatePath(t)
	owner, err := openOn(quota.NewJSONFile(path), withClock(clock))
	require.NoError(t, err)
	_, err = owner.Acquire(t.Context(), quota.Request{All: []string{"calls"}, ID: "job", Amounts: []quota.Amount{quota.Requests(60)}})
	require.NoError(t, err)
	require.NoError(t, owner.Close())

	other := stranger(t, path, clock)
	found, err := other.Reservation(t.Context(), "job")
	require.NoError(t, err)
	clock.Advance(15 * time.Minute)
	_, err = other.Reservation(t.Context(), "job")
	require.ErrorIs(t, err, quota.ErrNoReservation)
	require.ErrorIs(t, found.Extend(t.Context(), time.Hour), quota.ErrSettled)
	_, err = other.Acquire(t.Context(), quota.Request{All: []string{"other"}, ID: "job"})
	require.NoError(t, err, "after it has expired it is admitted anew")
	require.NoError(t, found.Commit(t.Context(), quota.Requests(20)), "a late one")
	require.NoError(t, other.Close())
	require.Equal(t, stand{20, 0}, standIn(t, quota.NewJSONFile(path), withClock(clock)))
}
