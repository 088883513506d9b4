package quota

import (
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestRetryAtIsTheFirstInstantAtWhichItFits(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		window   Window
		used     int64
		held     int64
		ask      int64
		want     int64 // after noon; 0: not known
		hopeless bool
	}{
		{Daily(nil), 8, 0, 5, 12 * hour, false},
		{Daily(nil), 8, 5, 5, 12 * hour, false},
		{Daily(nil), 8, 6, 5, 0, false}, // what carries over leaves no room
		{Daily(nil), 3, 6, 5, 0, false}, // open holds alone are in the way
		{Weekly(nil, time.Tuesday), 8, 0, 5, 12 * hour, false},
		{Monthly(nil, 31), 8, 0, 5, 4*day + 12*hour, false},
		{Every(time.Minute), 8, 2, 10, minute, false},
		{Every(time.Minute), 0, 6, 5, minute, false},
		{Session(time.Hour), 8, 2, 10, hour, false},
		{Session(time.Hour), 0, 6, 5, hour, false},
		{Rolling(time.Minute), 8, 2, 10, minute + minute/50, false},
		{Refill(10 * time.Second), 8, 2, 10, 10 * second, false},
		{Refill(10 * time.Second), 8, 2, 1, second, false},
		{Lifetime(), 8, 0, 5, 0, true},
		{Lifetime(), 3, 6, 5, 0, false},
		{InFlight(), 0, 8, 5, 0, false},
	} {
		l := newLedger(t, Limit{Max: 10, Window: c.window})
		if c.used > 0 {
			l.book.use(amounting(Requests(c.used)), l.at)
		}
		if c.held > 0 {
			l.grant(100*day, Requests(c.held))
		}
		ask := amounting(Requests(c.ask))
		v := l.book.judge(ask, l.at)
		want := verdict{asked: c.ask, refused: true, hopeless: c.hopeless}
		if c.want != 0 {
			want.retryAt = noon + c.want
		}
		require.Equal(t, want, v, c)
		require.Equal(t, c.hopeless, l.book.refusal(v, l.at).hopeless)
		require.Equal(t, v.retryAt, nanos(l.book.refusal(v, l.at).RetryAt))
		if v.retryAt != 0 {
			l.to(v.retryAt - 1)
			require.True(t, l.book.judge(ask, l.at).refused, c)
			l.to(v.retryAt)
			require.False(t, l.book.judge(ask, l.at).refused, c)
		}
	}
}

func TestWhatIsLargerThanTheLimitNeverFits(t *testing.T) {
	t.Parallel()
	for _, window := range everyWindow() {
		for _, limit := range []int64{0, 1, 10, math.MaxInt64 - 1} {
			l := newLedger(t, Limit{Max: limit, Window: window})
			v := l.book.judge(amounting(Requests(limit+1)), l.at)
			require.True(t, v.refused && v.never && v.retryAt == 0, window)
			require.False(t, l.book.judge(amounting(Requests(limit)), l.at).refused, window)
		}
	}
}

func TestTheLimitThatBindsLongestIsNamed(t *testing.T) {
	t.Parallel()
	l := newLedger(t,
		Limit{Max: 1, Window: Every(time.Minute)}, Limit{Max: 1, Window: Every(time.Hour)}, Limit{Max: 1, Window: Daily(nil), Soft: true},
		Limit{Unit: UnitTokens, Max: 5, Window: Lifetime()}, Limit{Unit: "images", Max: 2, Window: InFlight()})
	l.book.use(amounting(Requests(1), Tokens(4)), l.at)
	judge := func(list ...Amount) verdict { return l.book.judge(amounting(list...), l.at) }
	require.Equal(t, verdict{limit: 1, asked: 1, retryAt: noon + hour, refused: true}, judge(Requests(1)))
	require.Equal(t, verdict{limit: 3, asked: 2, hopeless: true, refused: true}, judge(Requests(1), Tokens(2)))
	require.Equal(t, verdict{limit: 4, asked: 3, never: true, refused: true}, judge(Requests(1), Tokens(2), Amount{"images", 3}))
	require.False(t, judge(Amount{"other", math.MaxInt64}).refused)
	require.False(t, judge(InputTokens(1)).refused)
	twins := newLedger(t, Limit{Max: 0, Window: Every(time.Minute)}, Limit{Unit: UnitTokens, Max: 0, Window: Every(time.Minute)})
	require.Equal(t, 0, twins.book.judge(amounting(Requests(1), Tokens(1)), noon).limit, "the first of equals")
	require.Equal(t, 3, judge(InputTokens(1), OutputTokens(1)).limit)

	l.book.observe(Observation{RetryAfter: time.Minute}, "", Window{}, l.at, l.at)
	require.Equal(t, verdict{limit: -1, closed: true, retryAt: noon + minute, refused: true}, judge(Amount{"other", 1}))
	require.Equal(t, 1, judge(Requests(1)).limit)
	l.book.observe(Observation{RetryAfter: time.Second}, "", Window{}, l.at, l.at)
	require.Equal(t, noon+minute, l.book.closed(), "it only ever lengthens")
	l.pass(minute)
	require.False(t, judge(Amount{"other", 1}).refused)
}

func TestWhatACallNeedsIsFilledIn(t *testing.T) {
	t.Parallel()
	r := rulesOfLimits(Limit{Max: 10}, Limit{Unit: UnitTokens, Max: 10, Estimate: 7}, Limit{Unit: UnitInputTokens, Max: 9, Estimate: 3})
	for _, c := range []struct{ named, want []Amount }{
		{nil, []Amount{Requests(1), Tokens(7), InputTokens(3)}},
		{[]Amount{Requests(0)}, []Amount{Requests(0), Tokens(7), InputTokens(3)}},
		{[]Amount{Tokens(2)}, []Amount{Requests(1), Tokens(2), InputTokens(3)}},
		{[]Amount{OutputTokens(2)}, []Amount{Requests(1), OutputTokens(2), InputTokens(3)}},
		{[]Amount{InputTokens(2)}, []Amount{Requests(1), InputTokens(2)}},
		{[]Amount{InputTokens(2), Requests(1)}, []Amount{InputTokens(2), Requests(1)}},
	} {
		require.Equal(t, *amounting(c.want...), r.wanted(amounting(c.named...)))
	}
	for unit, want := range map[Unit][]Amount{UnitRequests: {Requests(5)}, "images": {Requests(1), {"images", 5}}} {
		r := rulesOfLimits(Limit{Unit: unit, Max: 10, Estimate: 5})
		require.Equal(t, *amounting(want...), r.wanted(&amounts{}))
		named := amounting(Requests(1), Amount{unit, 2})
		require.Equal(t, *named, r.wanted(named), "it says otherwise")
	}
}

func TestForecastIsAStraightLine(t *testing.T) {
	t.Parallel()
	l := newLedger(t, Limit{Max: 100, Window: Daily(nil)})
	exhausts := func() int64 { return nanos(l.book.limitStatus(0, l.at).ExhaustsAt) }
	require.Zero(t, exhausts())
	l.book.use(amounting(Requests(60)), l.at) // 60 in half a day: 100 in 20 hours
	require.Equal(t, noon+8*hour, exhausts())
	l.book.use(amounting(Requests(40)), l.at)
	require.Zero(t, exhausts(), "it is full")
	l.to(noon + 12*hour)
	l.book.use(amounting(Requests(1)), l.at)
	require.Zero(t, exhausts(), "too early to say")
	l.pass(hour)
	require.Equal(t, int64(0), exhausts(), "not at this pace")
}

func TestTheTightestLimitHasTheSmallestPartLeft(t *testing.T) {
	t.Parallel()
	require.Equal(t, -1, newLedger(t).book.tightest())
	l := newLedger(t, Limit{Max: 1, Window: Every(time.Minute), Soft: true}, Limit{Max: 100}, Limit{Unit: UnitTokens, Max: math.MaxInt64})
	l.book.use(amounting(Requests(50), Tokens(math.MaxInt64/2+math.MaxInt64/4)), l.at)
	require.Equal(t, 2, l.book.tightest())
	l.grant(hour, Requests(30))
	require.Equal(t, 1, l.book.tightest())
}

func TestTheTightestOfLimitsWithNothingLeftIsTheFirst(t *testing.T) {
	t.Parallel()
	tightest := func(used int64, limits ...int64) int {
		var list []Limit
		for i, limit := range limits {
			list = append(list, Limit{Max: limit, Window: Every(time.Duration(i+1) * time.Hour)})
		}
		l := newLedger(t, list...)
		l.book.use(amounting(Requests(used)), l.at)
		return l.book.tightest()
	}
	require.Equal(t, 1, tightest(0, 100, 0), "a limit of 0 leaves nothing")
	require.Equal(t, 0, tightest(1, 2, 0, 1)-1)
	require.Equal(t, 0, tightest(20, 20, 10, 0))
	require.Equal(t, 0, tightest(9, 10, 100))
	l := newLedger(t, Limit{Max: 100}, Limit{Unit: UnitTokens, Max: 1})
	l.book.use(amounting(Requests(50)), l.at)
	require.Equal(t, 0, l.book.tightest(), "a limit of 1 that is unused leaves all")
}

func TestAForecastBeginsAfterAHundredthOfTheWindowAndEndsWithIt(t *testing.T) {
	t.Parallel()
	l := newLedger(t, Limit{Max: 100, Window: Every(100 * time.Second)})
	l.to(l.account().end)
	start := l.account().start
	l.to(start + second)
	l.book.use(amounting(Requests(50)), l.at)
	require.Equal(t, start+2*second, l.account().exhaustsAt(l.at))
	require.Zero(t, l.account().exhaustsAt(l.at-1), "too early to say")
	require.Zero(t, l.account().exhaustsAt(start+50*second), "full when it starts again")
	require.Equal(t, start+100*second-2, l.account().exhaustsAt(start+50*second-1))
	l.account().used = 1
	require.Equal(t, int64(0), l.account().exhaustsAt(start+second))
	l.account().max = 200
	l.account().used = 150
	require.Equal(t, start+second*200/150+1, l.account().exhaustsAt(start+second))
}

func TestARefusalSaysWhatIsInTheWay(t *testing.T) {
	t.Parallel()
	l := newLedger(t, Limit{Max: 10}, Limit{Unit: UnitTokens, Max: 10, Window: Lifetime()})
	l.grant(hour, Requests(10))
	l.book.use(amounting(Tokens(10)), l.at)
	for _, c := range []struct {
		v              verdict
		reason, denial string
	}{
		{verdict{limit: -1, closed: true, retryAt: noon + 1}, "the provider has closed it", "closed by the provider"},
		{verdict{limit: -1, behind: true}, "others wait for it, who come first", "others were waiting"},
		{l.book.judge(amounting(Requests(1)), l.at), "open reservations are in the way", "requests per day"},
		{l.book.judge(amounting(Requests(11)), l.at), "is more than the whole limit", "requests per day"},
		{l.book.judge(amounting(Tokens(1)), l.at), "which never start again", "tokens per lifetime"},
		{verdict{limit: 0, asked: 1, retryAt: noon + hour}, "10 reserved of 10)", "requests per day"},
	} {
		e := l.book.refusal(c.v, l.at)
		require.NotEmpty(t, e.Reason)
		require.Contains(t, e.Error(), c.reason)
		require.Equal(t, instant(c.v.retryAt), e.RetryAt)
		require.Equal(t, c.denial, l.book.denialOf(c.v))
	}
	require.NotContains(t, l.book.refusal(verdict{limit: 0, retryAt: 1}, l.at).Error(), "open reservations")
}

func TestTheSameRefusalIsTheSameErrorUntilItSaysSomethingElse(t *testing.T) {
	t.Parallel()
	l := newLedger(t, Limit{Max: 10, Window: Every(time.Hour)}, Limit{Unit: UnitTokens, Max: 10, Window: Lifetime()})
	l.book.use(amounting(Requests(10), Tokens(4)), l.at)
	refuse := func(list ...Amount) *ExceededError {
		return l.book.refusal(l.book.judge(amounting(list...), l.at), l.at)
	}
	var before *ExceededError
	differs := func(what string, list ...Amount) {
		e := refuse(list...)
		require.NotSame(t, before, e, what)
		require.Equal(t, l.book.newRefusal(l.book.judge(amounting(list...), l.at), l.at), e, what)
		require.Same(t, e, refuse(list...), what)
		before = e
	}
	differs("the first", Requests(1))
	differs("another amount", Requests(2))
	l.book.use(amounting(Requests(1)), l.at)
	differs("more is used", Requests(2))
	l.book.accounts[0].marks = l.book.accounts[0].marks[:1]
	differs("other alerts", Requests(2))
	l.grant(hour, Tokens(1))
	differs("another limit", Tokens(6))
	l.grant(hour, Tokens(1))
	differs("more is reserved", Tokens(6))
	l.pass(hour)
	l.book.use(amounting(Requests(10)), l.at)
	differs("another window", Requests(1))
	l.rules = rulesOfLimits(Limit{Max: 9, Window: Every(time.Hour)}, Limit{Unit: UnitTokens, Max: 10, Window: Lifetime()})
	l.pass(0)
	differs("another configuration", Requests(1))
	l = newLedger(t, Limit{Max: 10, Window: Every(time.Hour)})
	l.book.use(amounting(Requests(8)), l.at)
	l.pass(hour / 2)
	l.book.use(amounting(Requests(1)), l.at)
	differs("a forecast", Requests(2))
	l.pass(minute)
	differs("another forecast", Requests(2))
	l.book.observe(Observation{RetryAfter: 2 * time.Hour}, "", Window{}, l.at, l.at)
	differs("the provider", Requests(2))
}

func TestPercentOfALimitOfOneAndOfNone(t *testing.T) {
	t.Parallel()
	l := newLedger(t, Limit{Max: 1}, Limit{Max: 0, Window: Lifetime()})
	require.Zero(t, l.book.limitStatus(1, l.at).Percent)
	l.book.use(amounting(Requests(1)), l.at)
	require.Equal(t, 100.0, l.book.limitStatus(1, l.at).Percent)
	l.book.use(amounting(Requests(1)), l.at)
	require.Equal(t, 200.0, l.book.limitStatus(0, l.at).Percent)
}
