package quota

import (
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Which transitions must be saved, and what usage and releases without a handle leave of the holds.

func TestWhateverMustBeSavedSaysSo(t *testing.T) {
	t.Parallel()
	ten := int64(10)
	none := int64(0)
	for name, c := range map[string]struct {
		prepare, change func(l *ledger, key holdKey)
	}{
		"commit":       {nil, func(l *ledger, key holdKey) { l.commit(key) }},
		"release":      {nil, func(l *ledger, key holdKey) { l.release(key) }},
		"expire":       {nil, func(l *ledger, _ holdKey) { l.pass(minute) }},
		"late commit":  {func(l *ledger, _ holdKey) { l.pass(minute) }, func(l *ledger, key holdKey) { l.commit(key) }},
		"late release": {func(l *ledger, _ holdKey) { l.pass(minute) }, func(l *ledger, key holdKey) { l.release(key) }},
		"undo":         {nil, func(l *ledger, key holdKey) { l.book.undo(key, l.at) }},
		"undo of a shared one": {func(l *ledger, key holdKey) { l.book.holds.find(key).joined = 1 },
			func(l *ledger, key holdKey) { l.book.undo(key, l.at) }},
		"late undo": {func(l *ledger, _ holdKey) { l.pass(minute) }, func(l *ledger, key holdKey) { l.book.undo(key, l.at) }},
		"late undo of a shared one": {func(l *ledger, key holdKey) { l.book.holds.find(key).joined = 1; l.pass(minute) },
			func(l *ledger, key holdKey) { l.book.undo(key, l.at) }},
		"grant":   {nil, func(l *ledger, _ holdKey) { l.grant(hour, Requests(1)) }},
		"extend":  {nil, func(l *ledger, key holdKey) { l.book.extend(l.settlement(key), hour, l.at) }},
		"record":  {nil, func(l *ledger, _ holdKey) { l.record(Requests(1)) }},
		"use":     {nil, func(l *ledger, _ holdKey) { l.book.use(amounting(Requests(1)), l.at) }},
		"by name": {nil, func(l *ledger, _ holdKey) { l.book.releaseOldest(amounting(Requests(1)), l.at, l.at) }},
		"reset":   {nil, func(l *ledger, _ holdKey) { l.book.reset(l.at) }},
		"remaining": {nil, func(l *ledger, _ holdKey) {
			l.book.observe(Observation{Remaining: &none}, UnitRequests, Window{}, l.at, l.at)
		}},
		"retry after": {nil, func(l *ledger, _ holdKey) {
			l.book.observe(Observation{RetryAfter: time.Second}, "", Window{}, l.at, l.at)
		}},
		"reset at": {nil, func(l *ledger, _ holdKey) {
			l.book.observe(Observation{Remaining: &ten, ResetAt: instant(l.at + minute)}, "images", Window{}, l.at, l.at)
		}},
		"claim": {func(l *ledger, _ holdKey) { l.book.details().outbox = make([]delivery, 1) }, func(l *ledger, _ holdKey) { l.book.claim(7, l.at) }},
		"delivered": {func(l *ledger, _ holdKey) { l.book.details().outbox = make([]delivery, 1) },
			func(l *ledger, _ holdKey) { l.book.delivered([]string{""}) }},
		"alert":      {func(l *ledger, _ holdKey) { l.account().used = 9 }, func(l *ledger, _ holdKey) { l.book.cross(l.at) }},
		"day":        {func(l *ledger, key holdKey) { l.commit(key) }, func(l *ledger, _ holdKey) { l.pass(day) }},
		"clock back": {nil, func(l *ledger, _ holdKey) { l.to(l.at - 2*day) }},
		"raised": {nil, func(l *ledger, _ holdKey) {
			l.configure(Limit{Max: 11}, Limit{Unit: "images", Max: 10, Window: Session(time.Hour)})
		}},
		"dropped": {func(l *ledger, key holdKey) {
			l.commit(key)
			l.configure(Limit{Max: 10})
			l.pass(day)
		}, func(l *ledger, _ holdKey) { l.pass(dropAccount) }},
		"imported": {func(l *ledger, _ holdKey) { l.book.details().imported = &imported{} }, func(l *ledger, _ holdKey) { l.book.bringIn(l.rules, l.at) }},
	} {
		l := newLedger(t, Limit{Max: 10}, Limit{Unit: "images", Max: 10, Window: Session(time.Hour)})
		l.book.use(amounting(Amount{"images", 1}), l.at)
		key := l.grant(minute, Requests(1))
		if c.prepare != nil {
			c.prepare(l, key)
		}
		l.book.changed = false
		l.pass(0)
		require.False(t, l.book.changed, name)
		c.change(l, key)
		require.True(t, l.book.changed, name)
	}
	text := newLedger(t).text()
	var b Book
	require.NoError(t, b.UnmarshalJSON([]byte(text)))
	require.True(t, b.changed, "what has been read replaces what was there")
}

func TestTheRestOfWhatIsReleasedByNameIsExact(t *testing.T) {
	t.Parallel()
	rest := amounting(InputTokens(5), OutputTokens(5))
	rest.subtractParts(7)
	require.Equal(t, amounting(InputTokens(0), OutputTokens(3)), rest)
	l := newLedger(t, Limit{Unit: UnitTokens, Max: 100})
	l.grant(hour, Tokens(4))
	l.grant(hour, Tokens(50))
	l.book.releaseOldest(amounting(InputTokens(3), OutputTokens(3)), l.at, l.at)
	l.verify()
	l.requireBalance(0, 48)
	l.grant(hour, InputTokens(9))
	l.book.releaseOldest(amounting(Tokens(50)), l.at, l.at)
	l.verify()
	l.requireBalance(0, 7)
}

func TestUsageOfTokensInAllTakesThePartsOfAHold(t *testing.T) {
	t.Parallel()
	for _, held := range [][]Amount{{InputTokens(6), OutputTokens(6), Requests(2)}, {Requests(2), InputTokens(6), OutputTokens(6)}} {
		for _, used := range [][]Amount{{Tokens(8), Requests(1)}, {Requests(1), Tokens(8)}} {
			l := newLedger(t, Limit{Max: 10}, Limit{Unit: UnitTokens, Max: 100})
			l.grant(hour, slices.Clone(held)...)
			l.record(used...)
			require.Equal(t, []int64{8, 4}, []int64{l.book.limits()[1].used, l.book.limits()[1].reserved})
			require.Equal(t, map[Unit]int64{UnitInputTokens: 6, UnitOutputTokens: 2}, l.book.today.summary("q", time.UTC).Estimated)
			require.Equal(t, 1, l.book.holds.open())
			l.record(Requests(1), Tokens(4))
			require.Zero(t, l.book.holds.open())
			require.Equal(t, []int64{12, 0}, []int64{l.book.limits()[1].used, l.book.limits()[1].reserved})
			require.Equal(t, int64(1), l.book.tally().settled)
		}
	}
}

func TestUsageStopsAtTheRequestsItNames(t *testing.T) {
	t.Parallel()
	l := newLedger(t, Limit{Max: 10}, Limit{Unit: UnitTokens, Max: 100})
	for range 3 {
		l.grant(hour, Requests(2), Tokens(10))
	}
	l.record(Requests(3), Tokens(5))
	require.Equal(t, 2, l.book.holds.open())
	l.requireBalance(3, 3)
	more := newLedger(t, Limit{Max: 10}, Limit{Unit: UnitTokens, Max: 100})
	for range 3 {
		more.grant(hour, Requests(2), Tokens(10))
	}
	more.record(Requests(2), Tokens(50))
	require.Equal(t, []int64{50, 20}, []int64{more.book.limits()[1].used, more.book.limits()[1].reserved}, "the other holds are of other calls")
	more.record(Requests(0), Tokens(3))
	for _, h := range more.book.holds.inOrder()[1:] {
		require.Nil(t, h.asked, "nothing was left to take from it")
	}
	l.record(Tokens(5), Requests(0))
	require.Equal(t, []int64{10, 15}, []int64{l.book.limits()[1].used, l.book.limits()[1].reserved})
	require.Equal(t, int64(3), l.account().reserved)
}

func TestUsageOfRequestsTakesNothingFromWhatIsOfOtherCalls(t *testing.T) {
	t.Parallel()
	start := func(holds ...[]Amount) *ledger {
		l := newLedger(t, Limit{Max: 10}, Limit{Unit: UnitTokens, Max: 100})
		for _, held := range holds {
			l.grant(hour, held...)
		}
		return l
	}
	tokens := func(l *ledger) []int64 { return []int64{l.book.limits()[1].used, l.book.limits()[1].reserved} }
	l := start([]Amount{Requests(0), Tokens(10)})
	l.record(Requests(1), Tokens(4))
	require.Equal(t, []int64{4, 10}, tokens(l), "a hold of no request")
	l = start([]Amount{Requests(2), Tokens(10)}, []Amount{Requests(2), Tokens(10)})
	l.record(Requests(1), Tokens(15))
	require.Equal(t, []int64{15, 10}, tokens(l), "a hold of a later call")
	l = start([]Amount{Tokens(10)})
	l.record(Requests(0), Tokens(10))
	require.Zero(t, l.book.holds.open(), "nothing is left of it")
	l = start([]Amount{Tokens(4)}, []Amount{InputTokens(9)})
	l.book.releaseOldest(amounting(InputTokens(3), OutputTokens(3)), l.at, l.at)
	require.Equal(t, []int64{0, 9}, tokens(l), "the input tokens have been given back as tokens in all")
}

func TestARefillIsFullAgainHoweverLongItTook(t *testing.T) {
	t.Parallel()
	const most = int64(1<<63 - 1)
	l := newLedger(t, Limit{Max: most, Window: Refill(time.Second)})
	l.grant(hour, Requests(most))
	l.book.use(amounting(Requests(most)), l.at)
	l.pass(1)
	l.pass(3 * second)
	l.requireBalance(0, 0)
	require.Zero(t, l.account().part)
	l.book.use(amounting(Requests(3)), l.at)
	l.configure(Limit{Max: 1, Window: Refill(longestWindow)})
	l.book.use(amounting(Requests(3)), l.at)
	require.Equal(t, latest, l.retryAt(Requests(1)))
	for _, used := range []int64{2, 3, 6, 7} { // in 200 years, and in more than can be counted
		l.account().used = used
		require.Equal(t, latest, l.retryAt(Requests(1)))
	}

	l = newLedger(t, Limit{Max: 10, Window: Refill(10 * time.Second)})
	l.book.use(amounting(Requests(5)), l.at)
	l.pass(second / 2)
	l.book.reset(l.at)
	l.pass(second)
	l.book.use(amounting(Requests(10)), l.at)
	require.Equal(t, l.at+second, l.retryAt(Requests(1)), "a part from before the reset does not count")
}
