package quota

import (
	"fmt"
	"math"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func daysFrom(first, n int) (days []DaySummary) {
	for i := range n {
		at := time.Date(2026, 1, first+i, 0, 0, 0, 0, time.UTC)
		days = append(days, DaySummary{Day: at, Calls: int64(first + i)})
	}
	return days
}

func callsOf(days []DaySummary) (calls []int64) {
	for i := range days {
		calls = append(calls, days[i].Calls)
	}
	return calls
}

func TestMergedDaysAreInOrderAndOnce(t *testing.T) {
	t.Parallel()
	kept := daysFrom(10, 3)
	merged := mergeDays(kept, []DaySummary{daysFrom(13, 1)[0], daysFrom(9, 1)[0], {Day: kept[1].Day, Calls: 99}})
	require.Equal(t, []int64{9, 10, 99, 12, 13}, callsOf(merged))
	require.Equal(t, []int64{10, 11, 12}, callsOf(kept), "what was given has changed")
	require.Equal(t, merged, mergeDays(merged, merged))
	require.Empty(t, mergeDays(nil, nil))

	require.Equal(t, daysFrom(2, daysKept), mergeDays(daysFrom(1, daysKept), daysFrom(daysKept+1, 1)))
	many := mergeDays(daysFrom(1, 85), daysFrom(80, 20))
	require.Len(t, many, daysKept)
	require.Equal(t, int64(10), many[0].Calls)
	require.Equal(t, int64(99), many[len(many)-1].Calls)
}

func TestADayCountsEveryFormOfTokens(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		list []Amount
		want map[Unit]int64
	}{
		{[]Amount{Tokens(3)}, map[Unit]int64{UnitTokens: 3}},
		{[]Amount{InputTokens(3)}, map[Unit]int64{UnitInputTokens: 3, UnitTokens: 3}},
		{[]Amount{OutputTokens(4), InputTokens(3)}, map[Unit]int64{UnitInputTokens: 3, UnitOutputTokens: 4, UnitTokens: 7}},
		{[]Amount{InputTokens(3), Tokens(9)}, map[Unit]int64{UnitInputTokens: 3, UnitTokens: 9}},
		{[]Amount{InputTokens(math.MaxInt64), OutputTokens(1)}, map[Unit]int64{
			UnitInputTokens: math.MaxInt64, UnitOutputTokens: 1, UnitTokens: math.MaxInt64,
		}},
		{[]Amount{{"images", 2}}, map[Unit]int64{"images": 2}},
	} {
		var d dayTotals
		d.add(amounting(c.list...))
		require.Equal(t, c.want, d.summary("q", time.UTC).Used)
		d = dayTotals{}
		d.held(amounting(c.list...))
		require.Equal(t, c.want, d.summary("q", time.UTC).PeakReserved)
		d.freed(amounting(c.list...))
		for _, total := range d.each {
			require.Zero(t, total.open)
		}
	}
}

func TestOnlyWhatCanBeCountedCanBeHeld(t *testing.T) {
	t.Parallel()
	var d dayTotals
	d.held(amounting(Tokens(math.MaxInt64 - 5)))
	require.True(t, d.countable(amounting(Tokens(5), Requests(math.MaxInt64))))
	require.False(t, d.countable(amounting(Tokens(6))))
	require.False(t, d.countable(amounting(InputTokens(3), OutputTokens(3))))
	require.True(t, d.countable(amounting(InputTokens(3), OutputTokens(2))))
}

func TestWhatIsHeldIsTheFirstPeakOfTheNextDay(t *testing.T) {
	t.Parallel()
	l := newLedger(t)
	l.grant(3*hour, Requests(2), Tokens(50))
	done := l.grant(day, Requests(1), Tokens(7))
	l.release(done)
	l.pass(11 * hour) // the first has expired
	l.grant(2*day, Requests(4))
	l.pass(hour)
	require.Equal(t, []DaySummary{{
		Quota: "q", Day: time.Date(2026, 1, 26, 0, 0, 0, 0, time.UTC), Expired: 1,
		Used:         map[Unit]int64{UnitRequests: 2, UnitTokens: 50},
		Estimated:    map[Unit]int64{UnitRequests: 2, UnitTokens: 50},
		PeakReserved: map[Unit]int64{UnitRequests: 4, UnitTokens: 57},
	}}, l.book.finished())
	require.Equal(t, unitTotal{open: 4, peak: 4}, l.book.today.requests)
	require.Nil(t, l.book.today.rest)
	require.Empty(t, l.book.today.own())
	require.Equal(t, noon+12*hour, l.book.today.last)
}

func TestADayOnWhichNothingHappenedIsNotKept(t *testing.T) {
	t.Parallel()
	l := newLedger(t)
	l.pass(3 * day)
	require.Empty(t, l.book.finished())
	l.record(Requests(1))
	l.pass(3 * day)
	require.Len(t, l.book.finished(), 1)
	require.Len(t, l.book.takeFinished(), 1)
	require.Empty(t, l.book.takeFinished())
	l.book.today.deny("a", 1)
	l.book.today.deny("b", 1)
	l.book.today.deny("a", 1)
	l.pass(day)
	require.Equal(t, map[string]int64{"a": 2, "b": 1}, l.book.finished()[0].DeniedBy)
	require.Equal(t, int64(3), l.book.finished()[0].Denied)

	l = newLedger(t)
	l.rules.template = true
	l.record(Requests(1))
	l.pass(day)
	require.Empty(t, l.book.finished(), "templates keep no past days")
	l.rules.template = false
	l.record(Requests(1))
	l.pass(day)
	require.Len(t, l.book.finished(), 1)
	l.rules.template = true // it has become one
	l.pass(day)
	require.Empty(t, l.book.finished())
}

func TestASummaryCountsRefusalsByTheirReason(t *testing.T) {
	t.Parallel()
	var s DaySummary
	s.deny("a", 2)
	s.deny("b", 1)
	s.deny("a", 3)
	require.Equal(t, DaySummary{Denied: 6, DeniedBy: map[string]int64{"a": 5, "b": 1}}, s)
}

func TestTheEndOfADayIsSavedWhereSomethingHappened(t *testing.T) {
	t.Parallel()
	l := newLedger(t)
	l.record(Requests(1))
	for _, changed := range []bool{true, false} {
		l.book.changed = false
		l.pass(day)
		require.Equal(t, changed, l.book.changed)
	}
}

func TestADayOfAQuotaOfOthersEndsWhenItsOwnersWouldHaveEnded(t *testing.T) {
	t.Parallel()
	foreign := rulesOfLimits()
	foreign.foreign = true
	end := noon + 12*hour
	l := newLedger(t, Limit{Max: 10})
	l.record(Requests(3))
	l.grant(100*day, Requests(1))
	l.rules = foreign
	l.to(end - 1)
	requireDays := func(changed bool, start int64, finished ...int64) {
		t.Helper()
		var starts []int64
		for _, one := range l.book.finished() {
			starts = append(starts, nanos(one.Day))
		}
		require.Equal(t, changed, l.book.changed)
		require.Equal(t, []int64{start, start + day}, []int64{l.book.today.start, l.book.today.end})
		require.Equal(t, finished, starts)
		l.book.changed = false
	}
	l.book.changed = false
	l.book.turnForeign(end - 1)
	requireDays(false, end-day)
	l.book.turnForeign(end)
	requireDays(true, end, end-day)
	require.Equal(t, int64(3), l.book.finished()[0].Used[UnitRequests])
	require.Zero(t, l.book.today.used(UnitRequests))
	l.book.turnForeign(end + 2*day + hour)
	requireDays(true, end+2*day, end-day, end)
	l.book.today.freed(amounting(Requests(1)))
	l.book.today.restart(end+2*day, end+3*day)
	l.book.turnForeign(end + 3*day)
	requireDays(true, end+3*day, end-day, end) // on the day before nothing happened

	unopened := &Book{configured: foreign}
	unopened.turnForeign(noon)
	require.Equal(t, &Book{configured: foreign, clock: noon}, unopened)
	require.Zero(t, l.book.nextTurn(), "nobody here knows")
}

func TestABookAdvancedLateIsTheSameAsOneAdvancedInTime(t *testing.T) {
	rng := random(t)
	var limits []Limit
	for _, window := range append(everyWindow(), Every(7*time.Hour), Rolling(30*time.Hour), Session(20*time.Hour), Refill(30*time.Hour)) {
		limits = append(limits, Limit{Max: 20, Window: window}, Limit{Unit: UnitTokens, Max: 1000, Window: window})
	}
	for _, policy := range []ExpiryPolicy{ChargeExpired, ReleaseExpired} {
		for range 8 {
			l := newLedger(t, limits...)
			l.rules.onExpiry = policy
			for range 12 {
				l.pass(rng.Int64N(6 * hour))
				key := l.grant(1+rng.Int64N(int64(1)<<(36+rng.IntN(14))), Requests(1+rng.Int64N(3)), Tokens(rng.Int64N(100)))
				switch rng.IntN(4) {
				case 0:
					l.commit(key, Tokens(rng.Int64N(120)))
				case 1:
					l.release(key)
				}
			}
			late := &ledger{t: t, book: l.book.clone(), rules: l.rules, now: l.now}
			if rng.IntN(2) == 0 {
				late.reload()
			}
			end := l.now + rng.Int64N(20*day)
			for steps := 0; ; steps++ {
				next := l.book.nextTurn()
				if next == 0 || next >= end || steps > 2000 {
					break
				}
				l.to(min(next, l.now+13*hour)) // also where nothing happens
			}
			l.to(end)
			late.to(end)
			for i, a := range l.book.limits() {
				late.book.limits()[i].seen = a.seen // when somebody last looked
			}
			requireSame(t, l.text(), late.text())
			require.True(t, slices.EqualFunc(l.book.limits(), late.book.limits(), func(x, y account) bool {
				return x.reserved == y.reserved && x.held == y.held
			}))
		}
	}
}

func TestAHoldThatStaysOpenForYearsDoesNotMakeADayOfEach(t *testing.T) {
	t.Parallel()
	l := newLedger(t)
	l.grant(int64(longestWindow), Requests(1))
	l.to(latest)
	require.Len(t, l.book.finished(), daysKept)
}

func TestLoweringTotalsStopsAtNothing(t *testing.T) {
	t.Parallel()
	var d dayTotals
	d.add(amounting(Tokens(5)))
	d.estimate(amounting(Tokens(3)))
	d.known(atTokens).lower(4, 9)
	require.Equal(t, unitTotal{used: 1}, *d.known(atTokens))
	d.known(atTokens).lower(4, 9)
	require.Zero(t, *d.known(atTokens))
	require.Equal(t, "50% of requests per day", alertNote(50, "requests per day"), fmt.Sprint(d))
}

func TestADayIsActiveWhenAnyOneThingHappened(t *testing.T) {
	t.Parallel()
	for name, d := range map[string]dayTotals{
		"call": {calls: 1}, "refusal": {denied: 1}, "expiry": {expired: 1}, "alert": {more: &dayDetails{alerts: []string{"50%"}}},
		"usage": {requests: unitTotal{used: 1}}, "tokens": {rest: &[places - 1]unitTotal{{used: 1}}},
		"hold": {more: &dayDetails{other: []ownTotal{{"images", unitTotal{peak: 1}}}}},
	} {
		require.True(t, d.active(), name)
	}
	require.False(t, (&dayTotals{more: &dayDetails{other: []ownTotal{{unit: "images"}}}}).active())
}

func TestAClonedDaySharesNothing(t *testing.T) {
	t.Parallel()
	whole := func() DaySummary {
		one := func() map[Unit]int64 { return map[Unit]int64{UnitRequests: 1} }
		return DaySummary{Used: one(), Estimated: one(), PeakReserved: one(), DeniedBy: map[string]int64{"a": 1}, Alerts: []string{"b"}}
	}
	s := whole()
	c := s.clone()
	require.Equal(t, s, c)
	for _, numbers := range []map[Unit]int64{c.Used, c.Estimated, c.PeakReserved} {
		numbers[UnitRequests]++
	}
	c.DeniedBy["a"]++
	c.Alerts[0] = "c"
	require.Equal(t, whole(), s)
}

func TestAskingForUnitsThatNobodyUsesLeavesNoTrace(t *testing.T) {
	l := newLedger(t, Limit{Max: 10})
	l.record(Requests(1))
	before := l.text()
	for i := range 100 {
		require.True(t, l.book.today.countable(amounting(Amount{Unit(fmt.Sprint("unit", i)), 1})))
	}
	require.Empty(t, l.book.today.own())
	require.Equal(t, before, l.text())
}

func TestADayNotesEachThresholdOnceHoweverOftenItIsCrossed(t *testing.T) {
	l := newLedger(t, Limit{Max: 2, Window: Every(time.Second), AlertThresholds: []int{50, 80}})
	for range 10 {
		l.record(Requests(2))
		l.pass(second)
	}
	require.Len(t, l.book.outbox(), 20)
	require.Equal(t, []string{"50% of requests per 1s", "80% of requests per 1s"}, l.book.today.alerts())
}
