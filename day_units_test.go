package quota

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const images, clips = Unit("images"), Unit("clips")

func (l *ledger) today(unit Unit) unitTotal {
	if total := l.book.today.find(unit.place(), unit); total != nil {
		return *total
	}
	return unitTotal{}
}

func TestADayCountsUnitsOfOnesOwnAsItDoesTheOthers(t *testing.T) {
	t.Parallel()
	for _, unit := range []Unit{images, UnitTokens, UnitUSD} {
		l := newLedger(t, Limit{Unit: unit, Max: 100})
		list := func(n int64) []Amount { return []Amount{Requests(1), {unit, n}} }
		key := l.grant(hour, list(5)...)
		require.Equal(t, unitTotal{open: 5, peak: 5}, l.today(unit))
		l.commit(key, Requests(1))
		require.Equal(t, unitTotal{used: 5, estimated: 5, peak: 5}, l.today(unit), "what is not named is charged as held")
		l.commit(l.grant(hour, list(3)...), list(2)...)
		require.Equal(t, unitTotal{used: 7, estimated: 5, peak: 5}, l.today(unit))
		l.grant(hour, list(4)...)
		l.pass(hour)
		require.Equal(t, unitTotal{used: 11, estimated: 9, peak: 5}, l.today(unit), "what expires is charged as held")
	}
}

func TestWhatIsHeldGoesOnOnTheNextDayAndNothingElse(t *testing.T) {
	t.Parallel()
	for _, unit := range []Unit{images, UnitTokens} {
		l := newLedger(t)
		l.grant(2*day, Requests(1), Amount{unit, 1})
		l.record(Amount{clips, 3})
		l.to(noon + day)
		require.Equal(t, unitTotal{open: 1, peak: 1}, l.today(unit))
		require.Nil(t, l.book.today.find(elsewhere, clips), "of what is over there is no trace")
	}
}

func TestEveryUnitOfADayIsVisited(t *testing.T) {
	t.Parallel()
	l := newLedger(t)
	l.record(Requests(1), Tokens(2), Amount{images, 3}, Amount{clips, 4}, PicoUSD(5))
	found := map[Unit]int64{}
	for unit, total := range l.book.today.each {
		if total.used > 0 {
			found[unit] = total.used
		}
	}
	require.Equal(t, map[Unit]int64{UnitRequests: 1, UnitTokens: 2, images: 3, clips: 4, UnitUSD: 5}, found)
	visited := 0
	for range l.book.today.each {
		visited++
		break
	}
	require.Equal(t, 1, visited)
}

func TestDaysThatDifferInAnythingAreNotEqual(t *testing.T) {
	t.Parallel()
	one := func() DaySummary {
		return DaySummary{
			Quota: "q", Day: time.Unix(0, noon), Calls: 1, Denied: 2, Expired: 3,
			Used: map[Unit]int64{images: 4}, Estimated: map[Unit]int64{images: 5}, PeakReserved: map[Unit]int64{images: 6},
			DeniedBy: map[string]int64{"images per day": 2}, Alerts: []string{"50%"},
		}
	}
	require.True(t, one().equal(one()))
	for name, change := range map[string]func(*DaySummary){
		"quota":     func(s *DaySummary) { s.Quota = "other" },
		"day":       func(s *DaySummary) { s.Day = s.Day.Add(1) },
		"calls":     func(s *DaySummary) { s.Calls++ },
		"denied":    func(s *DaySummary) { s.Denied++ },
		"expired":   func(s *DaySummary) { s.Expired++ },
		"used":      func(s *DaySummary) { s.Used[images]++ },
		"estimated": func(s *DaySummary) { s.Estimated[images]++ },
		"peak":      func(s *DaySummary) { s.PeakReserved[images]++ },
		"denied by": func(s *DaySummary) { s.DeniedBy["images per day"]++ },
		"alerts":    func(s *DaySummary) { s.Alerts = nil },
	} {
		other := one()
		change(&other)
		require.False(t, one().equal(other), name)
		require.False(t, other.equal(one()), name)
	}
}

func TestARefillWithNothingInItKeepsNoPartOfAUnit(t *testing.T) {
	t.Parallel()
	l := newLedger(t, Limit{Max: 10, Window: Refill(10 * time.Second)})
	key := l.grant(hour, Requests(1))
	l.pass(9 * second / 10)
	l.release(key)
	l.pass(second / 10)
	l.grant(hour, Requests(1))
	l.pass(second / 10)
	l.requireBalance(0, 1)

	l.pass(second / 3)
	l.book.reset(l.at)
	require.Zero(t, l.account().part)
}

func TestALimitOfNothingAlertsAtTheFirstUseAndNotBefore(t *testing.T) {
	t.Parallel()
	l := newLedger(t, Limit{Max: 0, Soft: true})
	l.record(Requests(0), Tokens(5))
	require.Empty(t, l.account().marks)
	l.record(Requests(1))
	require.Len(t, l.account().marks, 3)
}
