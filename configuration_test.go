package quota_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/quota"
	"example.com/quota/quotatest"
)

func TestExactNameThenAliasThenLongestTemplate(t *testing.T) {
	tracker, _ := quotatest.New(t,
		quota.Quota{Name: "*", Limits: []quota.Limit{{Max: 1}}},
		quota.Quota{Name: "user:*", Aliases: []string{"u:*"}, Limits: []quota.Limit{{Max: 2}}},
		quota.Quota{Name: "user:vip:*", Limits: []quota.Limit{{Max: 3}}},
		quota.Quota{Name: "user:ann", Aliases: []string{"user:boss"}, Limits: []quota.Limit{{Max: 4}}})
	for name, want := range map[string]string{
		"user:ann": "user:ann 4", "user:boss": "user:ann 4", "user:bob": "user:bob 2", "u:bob": "user:bob 2",
		"user:vip:x": "user:vip:x 3", "user:vip:": "user:vip: 2", "user:": "user: 1", "anything": "anything 1",
	} {
		status := statusOf(t, tracker, name)
		require.Equal(t, want, fmt.Sprint(status.Name, " ", status.Limits[0].Max), name)
	}
	record(t, tracker, "u:bob")
	requireLimit(t, tracker, "user:bob", 1, 0)
	requireLimit(t, tracker, "user:bill", 0, 0)
	r := mustReserve(t, tracker, "u:bob")
	require.Equal(t, "u:bob", r.Quota())
	require.Equal(t, []string{"user:bob"}, r.Quotas())
	require.False(t, tracker.CanUse("user:bob"))
}

func TestNamesThatCannotBeAreUnknownEvenToTheCatchAll(t *testing.T) {
	tracker, _ := quotatest.New(t, quota.Quota{Name: "*"})
	for _, name := range []string{"", "a\x1b[2J", "a\nb", "\xff", strings.Repeat("x", 257)} {
		require.ErrorIs(t, tracker.RecordUsage(t.Context(), name), quota.ErrUnknownQuota, "%q", name)
		require.False(t, tracker.CanUse(name), "%q", name)
	}
	require.True(t, tracker.CanUse(strings.Repeat("x", 256)))
}

func TestTwoLimitsOfOneUnitAndWindowAreInvalid(t *testing.T) {
	tracker, _ := quotatest.New(t, daily(10))
	record(t, tracker, "q")
	wrong := map[string][]quota.Quota{
		"same unit and window": {{Name: "q", Limits: []quota.Limit{{Max: 1}, {Max: 2, Unit: quota.UnitRequests, Window: quota.Daily(nil)}}}},
		"same name":            {{Name: "q"}, {Name: "q"}},
		"alias taken":          {{Name: "q"}, {Name: "p", Aliases: []string{"q"}}},
		"negative limit":       {{Name: "q", Limits: []quota.Limit{{Max: -1}}}},
		"fixed zone":           {{Name: "q", Limits: []quota.Limit{{Max: 1, Window: quota.Daily(time.FixedZone("X", 3600))}}}},
		"local zone":           {{Name: "q", Limits: []quota.Limit{{Max: 1, Window: quota.Daily(time.FixedZone("Local", 3600))}}}},
		"empty name":           {{}},
	}
	for name, quotas := range wrong {
		require.ErrorIs(t, tracker.SetQuotas(t.Context(), quotas), quota.ErrInvalidConfig, name)
		_, err := quota.New(t.Context(), quota.Config{Persistence: quota.InMemory(), Quotas: quotas})
		require.ErrorIs(t, err, quota.ErrInvalidConfig, name)
	}
	_, err := quota.New(t.Context(), quota.Config{Persistence: quota.InMemory(), Location: time.FixedZone("X", 3600)})
	require.ErrorIs(t, err, quota.ErrInvalidConfig)
	requireLimit(t, tracker, "q", 1, 0)
	require.EqualValues(t, 10, limitOf(t, tracker, "q").Max, "a refused configuration changes nothing")
}

func TestSameUnitAndWindowKeepsUsageWhenTheLimitChanges(t *testing.T) {
	alerts := &firedAlerts{}
	tracker := start(t, quota.Config{OnAlert: alerts.add, Quotas: []quota.Quota{daily(100)}})
	record(t, tracker, "q", quota.Requests(60))
	mustReserve(t, tracker, "q", quota.Requests(10))
	require.NoError(t, tracker.SetQuotas(t.Context(), []quota.Quota{daily(1000)}))
	requireLimit(t, tracker, "q", 60, 10)
	require.Equal(t, []int{50}, alerts.thresholds(), "a raised limit repeats nothing")
	require.NoError(t, tracker.SetQuotas(t.Context(), []quota.Quota{daily(65)}))
	requireLimit(t, tracker, "q", 60, 10)
	require.Zero(t, limitOf(t, tracker, "q").Remaining)
	require.False(t, tracker.CanUse("q"))
	require.Equal(t, []int{50, 80, 90}, alerts.thresholds(), "a lowered one fires what it now crosses")
}

func TestNewLimitStartsWithTheDaysThatFallIntoItsWindowAndOpenHoldsIfItIsABudget(t *testing.T) {
	tracker, clock := quotatest.New(t, quota.Quota{Name: "q"})
	record(t, tracker, "q", quota.Tokens(100))
	clock.Advance(24 * time.Hour)
	record(t, tracker, "q", quota.Tokens(20))
	clock.Advance(24*time.Hour + 30*time.Minute)
	record(t, tracker, "q", quota.Tokens(3))
	mustReserve(t, tracker, "q", quota.Tokens(7))
	clock.Advance(time.Minute)
	windows := []quota.Window{
		quota.Daily(nil), quota.Weekly(nil, time.Monday), quota.Weekly(nil, time.Tuesday), quota.Monthly(nil, 1), quota.Lifetime(),
		quota.InFlight(), quota.Every(time.Hour), quota.Every(time.Minute), quota.Rolling(24 * time.Hour), quota.Session(time.Hour),
		quota.Refill(time.Hour),
	}
	var limits []quota.Limit
	for _, window := range windows {
		limits = append(limits, quota.Limit{Unit: quota.UnitTokens, Max: 1000, Window: window})
	}
	require.NoError(t, tracker.SetQuotas(t.Context(), []quota.Quota{{Name: "q", Limits: limits}}))
	want := [][2]int64{{3, 7}, {123, 7}, {23, 7}, {123, 7}, {123, 7}, {0, 7}, {3, 0}, {0, 0}, {3, 0}, {0, 0}, {0, 0}}
	for i, limit := range statusOf(t, tracker, "q").Limits {
		require.Equal(t, want[i], [2]int64{limit.Used, limit.Reserved}, limit.String())
	}
}

func TestRateThatIsNewTakesNoNoticeOfOlderHolds(t *testing.T) {
	windows := []quota.Window{
		quota.Every(time.Hour), quota.Rolling(time.Hour), quota.Rolling(24 * time.Hour), quota.Session(time.Hour), quota.Refill(time.Hour),
	}
	for _, window := range windows {
		for _, apart := range []time.Duration{0, time.Second, 10 * time.Minute} {
			t.Run(fmt.Sprint(window, " ", apart), func(t *testing.T) {
				kept, clock := &memory{}, quotatest.NewClock(monday.Add(5*time.Minute))
				quotas := []quota.Quota{{Name: "q"}}
				tracker := start(t, quota.Config{Persistence: kept, Clock: clock, Quotas: quotas})
				for id, n := range map[string]int64{"released": 7, "committed": 8} {
					_, err := tracker.Acquire(t.Context(), quota.Request{All: []string{"q"}, ID: id, Amounts: []quota.Amount{quota.Tokens(n)}})
					require.NoError(t, err)
				}
				clock.Advance(apart)
				quotas = []quota.Quota{per(window, quota.UnitTokens, 100)}
				require.NoError(t, tracker.SetQuotas(t.Context(), quotas))
				require.NoError(t, tracker.Verify())
				record(t, tracker, "q", quota.Tokens(20), quota.Requests(0))
				r := mustReserve(t, tracker, "q", quota.Tokens(10))
				require.NoError(t, tracker.Verify())
				require.NoError(t, tracker.Close())
				tracker = start(t, quota.Config{Persistence: kept, Clock: clock, Quotas: quotas})
				for _, id := range []string{"released", "committed", r.ID()} {
					found, err := tracker.Reservation(t.Context(), id)
					require.NoError(t, err)
					if id == "released" {
						require.NoError(t, found.Release(t.Context()))
					} else {
						require.NoError(t, found.Commit(t.Context()))
					}
					require.NoError(t, tracker.Verify())
				}
				require.Zero(t, limitOf(t, tracker, "q").Reserved)
				require.GreaterOrEqual(t, limitOf(t, tracker, "q").Used, int64(30))
			})
		}
	}
}

func TestLimitTakenAwayForAMomentKeepsItsUsage(t *testing.T) {
	both := []quota.Quota{per(quota.Lifetime(), quota.UnitTokens, 1000)}
	tracker, clock := quotatest.New(t, both...)
	left := int64(400)
	require.NoError(t, tracker.Observe(t.Context(), "q", quota.Observation{Unit: quota.UnitTokens, Remaining: &left}))
	clock.Advance(5 * 24 * time.Hour)
	requireLimit(t, tracker, "q", 600, 0)
	require.NoError(t, tracker.SetQuotas(t.Context(), []quota.Quota{{Name: "q"}}))
	record(t, tracker, "q", quota.Tokens(50))
	clock.Advance(47 * time.Hour)
	record(t, tracker, "q", quota.Tokens(5))
	require.NoError(t, tracker.SetQuotas(t.Context(), both))
	requireLimit(t, tracker, "q", 655, 0)
}

func TestLimitThatNobodyConfiguredForTwoDaysIsDropped(t *testing.T) {
	kept, clock := &memory{}, quotatest.NewClock(monday)
	with, without := []quota.Quota{per(quota.Lifetime(), quota.UnitTokens, 1000)}, []quota.Quota{{Name: "q"}}
	first := start(t, quota.Config{Persistence: kept, Clock: clock, Quotas: with})
	left := int64(400)
	require.NoError(t, first.Observe(t.Context(), "q", quota.Observation{Unit: quota.UnitTokens, Remaining: &left}))
	require.NoError(t, first.Close())
	clock.Advance(49 * time.Hour)
	second := start(t, quota.Config{Persistence: kept, Clock: clock, Quotas: without})
	record(t, second, "q", quota.Tokens(5))
	require.NoError(t, second.Close())
	third := start(t, quota.Config{Persistence: kept, Clock: clock, Quotas: with})
	requireLimit(t, third, "q", 5, 0)
}

func TestQuotaThatIsNotConfiguredIsKeptUntouched(t *testing.T) {
	kept, clock := &memory{}, quotatest.NewClock(monday)
	first := start(t, quota.Config{Persistence: kept, Clock: clock, Quotas: []quota.Quota{daily(10), {Name: "other"}}})
	record(t, first, "q", quota.Requests(4))
	require.NoError(t, first.Close())
	second := start(t, quota.Config{Persistence: kept, Clock: clock, Quotas: []quota.Quota{{Name: "other"}}})
	record(t, second, "other")
	require.ErrorIs(t, second.RecordUsage(t.Context(), "q"), quota.ErrUnknownQuota)
	require.Len(t, second.Summary().Quotas, 1)
	require.NoError(t, second.Close())
	third := start(t, quota.Config{Persistence: kept, Clock: clock, Quotas: []quota.Quota{daily(10)}})
	requireLimit(t, third, "q", 4, 0)
}

func TestReservationOfAQuotaThatIsGoneCanStillBeSettled(t *testing.T) {
	tracker, _ := quotatest.New(t, daily(10), quota.Quota{Name: "other"})
	r := mustReserve(t, tracker, "q", quota.Requests(3))
	require.NoError(t, tracker.SetQuotas(t.Context(), []quota.Quota{{Name: "other"}}))
	_, err := tracker.Reserve(t.Context(), "q")
	require.ErrorIs(t, err, quota.ErrUnknownQuota)
	require.NoError(t, r.Commit(t.Context(), quota.Requests(2)))
	require.NoError(t, tracker.SetQuotas(t.Context(), []quota.Quota{daily(10)}))
	requireLimit(t, tracker, "q", 2, 0)
}

func TestTemplateBooksBeginWithUseAndEndWhenNothingCounts(t *testing.T) {
	kept, clock := &memory{}, quotatest.NewClock(monday.Add(12*time.Hour))
	quotas := []quota.Quota{{Name: "user:*", Limits: []quota.Limit{{Max: 10}}}}
	tracker := start(t, quota.Config{Persistence: kept, Clock: clock, Quotas: quotas})
	require.True(t, tracker.CanUse("user:ann"))
	require.True(t, tracker.Check("user:ann").Allowed)
	statusOf(t, tracker, "user:ann")
	require.Empty(t, tracker.Summary().Quotas, "asking creates none")
	record(t, tracker, "user:ann")
	mustReserve(t, tracker, "user:bob")
	require.Len(t, tracker.Summary().Quotas, 2)
	clock.Advance(24 * time.Hour)
	require.Len(t, tracker.Summary().Quotas, 2)
	require.Empty(t, tracker.History("user:ann"), "quotas of a template keep no past days")
	clock.Advance(48 * time.Hour)
	require.Empty(t, tracker.Summary().Quotas)
	require.NoError(t, tracker.Flush(t.Context()))
	state, err := kept.Load(t.Context())
	require.NoError(t, err)
	require.Empty(t, state.Books)
	requireLimit(t, tracker, "user:ann", 0, 0)
	mustReserve(t, tracker, "user:ann", quota.Requests(10))
}

func TestTemplateBookStaysWhileAnythingCounts(t *testing.T) {
	tracker, clock := quotatest.New(t, quota.Quota{Name: "user:*", Limits: []quota.Limit{{Unit: quota.UnitTokens, Max: 100, Window: quota.Lifetime()}}},
		quota.Quota{Name: "job:*"})
	record(t, tracker, "user:ann", quota.Tokens(60))
	_, err := tracker.Acquire(t.Context(), quota.Request{All: []string{"job:1"}, TTL: 60 * 24 * time.Hour})
	require.NoError(t, err)
	clock.Advance(45 * 24 * time.Hour)
	requireLimit(t, tracker, "user:ann", 60, 0)
	require.Equal(t, 1, statusOf(t, tracker, "job:1").Reservations)
	require.Len(t, tracker.Summary().Quotas, 2)
	clock.Advance(100 * 24 * time.Hour)
	require.Len(t, tracker.Summary().Quotas, 1, "the job's hold has expired, its windows are over")
}

func TestRefusedTemplateNamesDoNotStayForEver(t *testing.T) {
	tracker, clock := quotatest.New(t, quota.Quota{Name: "user:*", Limits: []quota.Limit{{Max: 1}}})
	for i := range 50 {
		_, err := tracker.Reserve(t.Context(), fmt.Sprint("user:", i), quota.Requests(2))
		require.True(t, refusal(t, err).Never)
	}
	clock.Advance(72 * time.Hour)
	require.Empty(t, tracker.Summary().Quotas)
}

func TestResetMakesUsedZeroAndKeepsHoldsAndTheDaysTotals(t *testing.T) {
	alerts := &firedAlerts{}
	tracker := start(t, quota.Config{OnAlert: alerts.add, Quotas: []quota.Quota{{Name: "q", Aliases: []string{"alias"}, Limits: []quota.Limit{{Max: 10}}}}})
	record(t, tracker, "q", quota.Requests(5))
	r := mustReserve(t, tracker, "q", quota.Requests(2))
	require.NoError(t, tracker.Reset(t.Context(), "alias"))
	requireLimit(t, tracker, "q", 0, 2)
	require.EqualValues(t, 5, statusOf(t, tracker, "q").Today.Used[quota.UnitRequests])
	require.NoError(t, r.Commit(t.Context(), quota.Requests(5)))
	requireLimit(t, tracker, "q", 5, 0)
	require.Equal(t, []int{50, 50}, alerts.thresholds())
	require.NotEqual(t, alerts.all()[0].ID, alerts.all()[1].ID)
}

func TestReleaseAfterAResetGivesBackUnderEveryWindow(t *testing.T) {
	for _, window := range []quota.Window{
		quota.Daily(nil), quota.Lifetime(), quota.InFlight(), quota.Every(time.Hour), quota.Rolling(time.Hour), quota.Refill(time.Hour),
		quota.Session(time.Hour),
	} {
		t.Run(window.String(), func(t *testing.T) {
			tracker, clock := quotatest.New(t, per(window, quota.UnitTokens, 100))
			r, late := mustReserve(t, tracker, "q", quota.Tokens(40)), mustReserve(t, tracker, "q", quota.Tokens(10))
			clock.Advance(time.Nanosecond)
			require.NoError(t, tracker.Reset(t.Context(), "q"))
			require.NoError(t, r.Release(t.Context()))
			require.EqualValues(t, 10, limitOf(t, tracker, "q").Reserved)
			require.LessOrEqual(t, limitOf(t, tracker, "q").Used, int64(1), "a Refill has refilled by a part of one since the grant")
			clock.Advance(15 * time.Minute)
			require.NoError(t, late.Release(t.Context()))
			requireLimit(t, tracker, "q", 0, 0)
		})
	}
}
