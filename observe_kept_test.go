package quota

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestAReportThatIsTakenOverLateConcernsTheWindowOfThen(t *testing.T) {
	t.Parallel()
	none := int64(0)
	for _, c := range []struct {
		window Window
		late   int64
		used   int64
	}{
		{Daily(nil), 12*hour - 1, 10},
		{Daily(nil), 12 * hour, 0},
		{Lifetime(), 40 * day, 10},
		{Every(2 * time.Hour), hour, 10},
		{Every(2 * time.Hour), 2 * hour, 0},
		{Rolling(2 * time.Hour), 2*hour - 1, 10},
		{Rolling(2 * time.Hour), 3 * hour, 0},
		{Refill(10 * time.Minute), 4 * minute, 6},
		{Refill(10 * time.Minute), 11 * minute, 0},
		{Session(2 * time.Hour), hour, 10},
		{Session(2 * time.Hour), 2 * hour, 0},
	} {
		l := newLedger(t, Limit{Max: 10, Window: c.window})
		l.pass(c.late)
		l.book.observe(Observation{Remaining: &none, RetryAfter: time.Hour}, UnitRequests, Window{}, l.at-c.late, l.at)
		l.verify()
		require.Equal(t, c.used, l.account().used, "%v, %v later", c.window, time.Duration(c.late))
		if c.late < hour {
			require.Equal(t, l.at-c.late+hour, l.book.closed())
		} else {
			require.Zero(t, l.book.closed())
		}
	}
}

func TestOfAReportThatIsTakenOverLateOnlyWholeUnitsHaveFlowedBack(t *testing.T) {
	t.Parallel()
	for passed, used := range map[int64]int64{second - 1: 6, second: 5, 3*second + 1: 3} {
		l := newLedger(t, Limit{Max: 10, Window: Refill(10 * time.Second)})
		l.pass(hour)
		remaining := int64(4)
		l.book.observe(Observation{Remaining: &remaining}, UnitRequests, Window{}, l.at-passed, l.at)
		l.requireBalance(used, 0)
	}
}

func TestAResetIsRememberedWhereTheNextAlertOfTheWindowIsAnotherOne(t *testing.T) {
	t.Parallel()
	for _, window := range everyWindow() {
		l := newLedger(t, Limit{Max: 10, Window: window})
		require.False(t, l.account().resets(), window)
		l.book.reset(l.at)
		counted := window.kind != kindRolling && window.kind != kindRefill && window.kind != kindInFlight
		require.Equal(t, counted, l.account().resets(), window)
	}
}
