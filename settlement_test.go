package quota

import (
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestFinalChargesWhatIsNotNamedAsHeld(t *testing.T) {
	t.Parallel()
	req, in, out, all := Requests, InputTokens, OutputTokens, Tokens
	for _, c := range []struct {
		held, named       []Amount
		tokens, estimated int64 // of tokens in all
	}{
		{[]Amount{req(1), all(9)}, nil, 9, 9},
		{[]Amount{req(1), all(9)}, []Amount{req(1)}, 9, 9},
		{[]Amount{req(1), all(9)}, []Amount{all(4)}, 4, 0},
		{[]Amount{req(1), all(9)}, []Amount{in(4)}, 4, 0},
		{[]Amount{req(1), all(9)}, []Amount{in(4), out(3)}, 7, 0},
		{[]Amount{req(1), in(5), out(6)}, nil, 11, 11},
		{[]Amount{req(1), in(5), out(6)}, []Amount{req(2)}, 11, 11},
		{[]Amount{req(1), in(5), out(6)}, []Amount{in(2)}, 8, 6},
		{[]Amount{req(1), in(5), out(6)}, []Amount{out(2)}, 7, 5},
		{[]Amount{req(1), in(5), out(6)}, []Amount{in(2), out(2)}, 4, 0},
		{[]Amount{req(1), in(5), out(6)}, []Amount{all(2)}, 2, 0},
		{[]Amount{req(1), in(5), all(9)}, []Amount{in(2)}, 2, 0},
		{[]Amount{req(1), in(5), all(9)}, []Amount{all(2)}, 2, 0},
		{[]Amount{req(1)}, []Amount{all(2)}, 2, 0},
	} {
		l := newLedger(t, Limit{Unit: UnitTokens, Max: 100, Window: Daily(nil)})
		l.commit(l.grant(hour, c.held...), c.named...)
		l.requireBalance(c.tokens, 0)
		total := l.book.today.known(atTokens)
		require.Equal(t, c.tokens, total.used, c)
		require.Equal(t, c.estimated, total.estimated, c)
		require.Zero(t, total.open)
		require.Equal(t, int64(1), l.book.today.calls)

		l = newLedger(t, Limit{Unit: UnitTokens, Max: 100, Window: Daily(nil)}) // and the same when it comes late
		key := l.grant(second, c.held...)
		l.pass(second)
		l.commit(key, c.named...)
		l.requireBalance(c.tokens, 0)
		require.Equal(t, c.tokens, l.book.today.used(UnitTokens), c)
		require.Equal(t, c.estimated, l.book.today.known(atTokens).estimated, c)
	}
}

func TestRecordMatchesHoldsInEveryFormOfTokens(t *testing.T) {
	t.Parallel()
	req, in, out, all := Requests, InputTokens, OutputTokens, Tokens
	for _, c := range []struct {
		name           string
		held, recorded []Amount
		used, reserved int64 // tokens, when a hold of two requests is met by one
		closed         int64 // tokens used, when a hold of one request is met by one
	}{
		{"all by all", []Amount{all(9)}, []Amount{all(4)}, 4, 5, 4},
		{"all by more", []Amount{all(9)}, []Amount{all(12)}, 12, 0, 12},
		{"all by parts", []Amount{all(9)}, []Amount{in(3), out(4)}, 7, 2, 7},
		{"all by nothing", []Amount{all(9)}, nil, 0, 9, 9},
		{"parts by parts", []Amount{in(5), out(6)}, []Amount{in(3), out(8)}, 11, 2, 11},
		{"parts by one", []Amount{in(5), out(6)}, []Amount{in(3)}, 3, 8, 9},
		{"parts by nothing", []Amount{in(5), out(6)}, nil, 0, 11, 11},
		{"parts by all", []Amount{in(5), out(6)}, []Amount{all(4)}, 4, 7, 4},
		{"one part by parts", []Amount{in(5)}, []Amount{in(3), out(4)}, 7, 2, 7},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := newLedger(t, Limit{Unit: UnitTokens, Max: 100, Window: Daily(nil)}, Limit{Unit: UnitInputTokens, Max: 100})
			l.grant(hour, append([]Amount{req(2)}, c.held...)...)
			l.record(append([]Amount{req(1)}, c.recorded...)...)
			l.requireBalance(c.used, c.reserved)
			require.Equal(t, c.used, l.book.today.used(UnitTokens))
			require.Equal(t, l.book.limits()[1].used, l.book.today.used(UnitInputTokens))
			l.reload()

			l = newLedger(t, Limit{Unit: UnitTokens, Max: 100, Window: Daily(nil)}, Limit{Unit: UnitInputTokens, Max: 100})
			l.grant(hour, append([]Amount{req(1)}, c.held...)...)
			l.record(append([]Amount{req(1)}, c.recorded...)...)
			require.Zero(t, l.book.holds.open())
			l.requireBalance(c.closed, 0)
			require.Equal(t, c.closed, l.book.today.used(UnitTokens))
			require.Equal(t, l.book.limits()[1].used, l.book.today.used(UnitInputTokens))
		})
	}
}

func TestRecordTakesTheOldestHoldsAndChargesTheRest(t *testing.T) {
	t.Parallel()
	l := newLedger(t, Limit{Max: 100}, Limit{Unit: UnitTokens, Max: 1000})
	for range 3 {
		l.grant(hour, Requests(2), Tokens(100))
		l.pass(1)
	}
	l.record(Requests(5), Tokens(130))
	// Two are closed, with 100 and 30 of the tokens; one request of the third is used.
	l.requireBalance(5, 1)
	require.Equal(t, []int64{130, 100}, []int64{l.book.limits()[1].used, l.book.limits()[1].reserved})
	require.Equal(t, int64(2), l.book.tally().settled)
	require.Equal(t, int64(1), l.book.today.calls)
	l.record(Requests(0), Tokens(40)) // no request: a part of the oldest
	require.Equal(t, []int64{170, 60}, []int64{l.book.limits()[1].used, l.book.limits()[1].reserved})
	l.record(Requests(3), Tokens(90))
	l.requireBalance(8, 0)
	require.Equal(t, []int64{260, 0}, []int64{l.book.limits()[1].used, l.book.limits()[1].reserved})
}

func TestReleaseOldestShrinksHoldsAndChargesNothing(t *testing.T) {
	t.Parallel()
	l := newLedger(t, Limit{Max: 100}, Limit{Unit: UnitTokens, Max: 1000})
	l.grant(hour, Requests(1), Tokens(50))
	l.pass(1)
	l.grant(hour, Requests(1), InputTokens(30), OutputTokens(20))
	l.book.releaseOldest(amounting(Tokens(70)), l.at, l.at)
	l.verify()
	require.Equal(t, int64(30), l.book.limits()[1].reserved, "50 of the older hold, 20 of the parts of the other")
	l.book.releaseOldest(amounting(OutputTokens(5)), l.at, l.at)
	l.verify()
	require.Equal(t, int64(25), l.book.limits()[1].reserved)
	l.requireBalance(0, 2)
	l.book.releaseOldest(amounting(Requests(9), OutputTokens(99), InputTokens(99)), l.at, l.at)
	l.verify()
	l.requireBalance(0, 0)
	require.Zero(t, l.book.limits()[1].reserved)
	require.Zero(t, l.book.holds.open())
	require.Zero(t, l.book.today.used(UnitTokens))
	require.Equal(t, tally{granted: 2, settled: 2}, l.book.tally())
}

func TestBudgetsCarryHoldsOverAndRatesDoNot(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		window Window
		carry  bool
		pass   int64
	}{
		{Daily(nil), true, 12 * hour}, {Weekly(nil, time.Tuesday), true, 12 * hour}, {Monthly(nil, 27), true, 12 * hour},
		{Lifetime(), true, 1000 * day}, {Every(time.Minute), false, minute}, {Session(time.Minute), false, minute},
		{Rolling(time.Minute), false, minute + minute/50}, {Refill(time.Minute), false, minute},
	} {
		t.Run(c.window.String(), func(t *testing.T) {
			l := newLedger(t, Limit{Max: 10, Window: c.window})
			less, more, released := l.grant(2000*day, Requests(4)), l.grant(2000*day, Requests(4)), l.grant(2000*day, Requests(2))
			l.requireBalance(0, 10)
			l.pass(c.pass - 1)
			reserved := l.account().reserved
			if c.window.kind != kindRefill {
				require.Equal(t, int64(10), reserved)
			}
			l.pass(1)
			if c.carry {
				l.requireBalance(0, 10)
			} else {
				l.requireBalance(0, 0)
			}
			l.book.use(amounting(Requests(3)), l.at)
			l.commit(less, Requests(1))
			l.commit(more, Requests(6))
			l.release(released)
			if c.carry {
				l.requireBalance(3+1+6, 0)
			} else {
				l.requireBalance(3+2, 0) // the overrun alone: a refund goes into no other window
			}
		})
	}
}

func TestLateSettlementCorrectsWhatStillStands(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		window Window
		turn   int64 // after which nothing stands, 0: never
	}{
		{Daily(nil), 12 * hour}, {Weekly(nil, time.Tuesday), 12 * hour}, {Monthly(nil, 27), 12 * hour}, {Lifetime(), 0},
		{Every(24 * time.Hour), 12 * hour}, {Session(10 * time.Hour), 10 * hour}, {Rolling(10 * time.Hour), 11 * hour},
		{Refill(10 * time.Hour), 10 * hour}, {InFlight(), 1},
	} {
		t.Run(c.window.String(), func(t *testing.T) {
			start := func(pass int64) (l *ledger, keys [3]holdKey) {
				l = newLedger(t, Limit{Max: 1000, Window: c.window})
				for i := range keys {
					keys[i] = l.grant(second, Requests(100))
				}
				l.pass(pass)
				l.book.use(amounting(Requests(50)), l.at)
				return l, keys
			}
			settle := func(l *ledger, keys [3]holdKey) (change int64) {
				before := l.account().used
				require.False(t, l.commit(keys[0], Requests(40)))
				require.False(t, l.commit(keys[1], Requests(110)))
				require.False(t, l.release(keys[2]))
				for _, key := range keys {
					require.True(t, l.commit(key))
				}
				return l.account().used - before
			}
			stands := int64(-60 + 10 - 100)
			l, keys := start(second)
			switch c.window.kind {
			case kindInFlight:
				stands = 0
			case kindRefill:
				stands += 1 // of 60 and 100 a fraction has flowed back; 100 are more than the 99 left
			}
			require.Equal(t, stands, settle(l, keys))
			l.book.today.restart(0, 0)
			if c.turn == 0 {
				return
			}
			l, keys = start(c.turn)
			change := settle(l, keys)
			if c.window.kind == kindInFlight {
				require.Zero(t, change)
			} else {
				require.Equal(t, int64(10), change, "after the turn")
			}
			l, keys = start(second)
			l.book.reset(l.at)
			change = settle(l, keys)
			if c.window.kind != kindInFlight {
				require.Equal(t, int64(10), change, "after a reset at the same instant")
			}
		})
	}
}

func TestReleaseExpiredGivesBackAtExpiryAndChargesALateCommitInFull(t *testing.T) {
	t.Parallel()
	for _, window := range everyWindow() {
		l := newLedger(t, Limit{Max: 1000, Window: window})
		l.rules.onExpiry = ReleaseExpired
		late, never := l.grant(second, Requests(100)), l.grant(second, Requests(100))
		l.pass(second)
		left := int64(0)
		if window.kind == kindRefill {
			left = 200 - 16 - 2*(100-17) // what has flowed back since its grant, rounded up, counts against each
		}
		l.requireBalance(left, 0)
		require.False(t, l.commit(late, Requests(7)))
		require.False(t, l.release(never))
		want := left + 7
		if window.kind == kindInFlight {
			want = 0
		}
		l.requireBalance(want, 0)
		require.Equal(t, int64(7), l.book.today.used(UnitRequests))
		require.Equal(t, int64(2), l.book.today.expired)
	}
}

func TestASessionBeginsWithItsFirstUse(t *testing.T) {
	t.Parallel()
	const length = 5 * hour
	start := func() *ledger {
		return newLedger(t, Limit{Max: 100, Window: Session(time.Duration(length))}, Limit{Unit: UnitTokens, Max: 100, Window: Session(time.Duration(length))})
	}
	requireBegun := func(l *ledger, at int64) {
		t.Helper()
		end := int64(0)
		if at != 0 {
			end = at + length
		}
		require.Equal(t, []int64{at, end}, []int64{l.account().start, l.account().end})
	}
	l := start()
	requireBegun(l, 0)
	first := l.grant(day, Requests(1))
	requireBegun(l, noon)
	l.release(first)
	requireBegun(l, 0) // only released uses

	first = l.grant(day, Requests(1))
	l.pass(hour)
	second, third := l.grant(day, Requests(1)), l.grant(day, Requests(1))
	l.release(first)
	requireBegun(l, noon+hour)
	l.release(third)
	requireBegun(l, noon+hour)
	l.commit(second, Requests(0)) // it ran, whatever it used
	requireBegun(l, noon+hour)
	l.pass(length)
	requireBegun(l, 0)

	l = start()
	l.grant(day, Requests(1))
	l.pass(hour)
	l.record(Requests(1)) // uses it up
	require.Zero(t, l.book.holds.open())
	requireBegun(l, noon)

	l = start()
	first = l.grant(day, Requests(1))
	l.pass(hour)
	second = l.grant(hour, Tokens(5)) // nothing of the first limit's unit
	l.pass(hour)
	require.NotNil(t, l.book.holds.findLate(second))
	l.release(first)
	requireBegun(l, 0)
	require.Equal(t, noon+hour, l.book.limits()[1].start)
	require.False(t, l.release(second)) // late
	require.Zero(t, l.book.limits()[1].start)
}

func TestASessionThatBeginsAnewAlertsAnew(t *testing.T) {
	t.Parallel()
	l := newLedger(t, Limit{Max: 10, Window: Session(time.Hour)})
	key := l.grant(second, Requests(6))
	l.pass(second)
	require.Len(t, l.book.outbox(), 1)
	l.release(key)
	require.Zero(t, l.account().start)
	l.book.use(amounting(Requests(6)), l.at)
	require.Len(t, l.book.outbox(), 2)
	require.NotEqual(t, l.book.outbox()[0].alert.ID, l.book.outbox()[1].alert.ID)
}

func TestAnObservedSessionDoesNotCountHoldsOfTheOneBefore(t *testing.T) {
	t.Parallel()
	l := newLedger(t, Limit{Max: 100, Window: Session(time.Hour)})
	old := l.grant(day, Requests(10))
	l.pass(hour + minute)
	fresh := l.grant(day, Requests(1))
	remaining := int64(20)
	reset := l.now + 2*minute // so the provider's began before old
	l.book.observe(Observation{Remaining: &remaining, ResetAt: instant(reset)}, UnitRequests, Window{}, l.at, l.at)
	l.verify()
	l.requireBalance(80, 1)
	require.Equal(t, reset, l.account().end)
	l.reload()
	l.release(old)
	l.commit(fresh)
	l.requireBalance(81, 0)
	l.to(reset)
	l.requireBalance(0, 0)
}

func TestUndoLeavesNothingButThePeak(t *testing.T) {
	t.Parallel()
	for _, window := range everyWindow() {
		l := newLedger(t, Limit{Max: 10, Window: window})
		l.book.undo(l.grant(hour, Requests(3)), l.at)
		l.verify()
		l.requireBalance(0, 0)
		require.Equal(t, int64(3), l.book.today.known(atRequests).peak)
		require.Zero(t, l.book.today.calls)
		require.True(t, window.kind != kindSession || l.account().start == 0)
		l.book.undo(holdKey{1, 1}, l.at)
	}
}

func TestExtendPutsExpiryOffAndNeverShortens(t *testing.T) {
	t.Parallel()
	l := newLedger(t, Limit{Max: 10})
	key := l.grant(minute, Requests(3))
	expires, settled := l.book.extend(l.settlement(key), second, l.at)
	require.Equal(t, noon+minute, expires)
	require.False(t, settled)
	expires, _ = l.book.extend(l.settlement(key), hour, l.at)
	require.Equal(t, noon+hour, expires)
	require.Equal(t, hour, l.book.holds.find(key).ttl)
	l.pass(hour - 1)
	require.NotNil(t, l.book.holds.find(key))
	l.pass(1)
	require.NotNil(t, l.book.holds.findLate(key))
	_, settled = l.book.extend(l.settlement(key), hour, l.at)
	require.True(t, settled)
}

func TestResetKeepsHoldsAndTotals(t *testing.T) {
	t.Parallel()
	for _, window := range everyWindow() {
		l := newLedger(t, Limit{Max: 10, Window: window})
		key := l.grant(hour, Requests(3))
		l.book.use(amounting(Requests(6)), l.at)
		l.book.reset(l.at)
		l.requireBalance(0, 3)
		require.Empty(t, l.account().marks)
		require.Equal(t, int64(6), l.book.today.used(UnitRequests))
		l.reload()
		l.requireBalance(0, 3)
		l.commit(key, Requests(2))
		if window.kind == kindInFlight {
			l.requireBalance(0, 0)
		} else {
			l.requireBalance(2, 0)
		}
		l.reload()
	}
}

func TestRaiseNeverLowersWhatIsUsed(t *testing.T) {
	t.Parallel()
	for _, window := range everyWindow() {
		l := newLedger(t, Limit{Max: math.MaxInt64, Window: window})
		for _, n := range []int64{5, 3, math.MaxInt64, 7} {
			before := l.account().used
			l.account().raise(n, l.at)
			l.verify()
			if window.kind != kindInFlight {
				require.Equal(t, max(before, n), l.account().used)
			}
		}
	}
}

func TestASessionWhoseUsesWereAllReleasedHasNotBegunInWhateverOrder(t *testing.T) {
	for _, order := range [][]int{{0, 1, 2}, {0, 2, 1}, {1, 0, 2}, {1, 2, 0}, {2, 0, 1}, {2, 1, 0}} {
		for late := range 4 { // that many of them have expired before they are released
			l := newLedger(t, Limit{Max: 10, Window: Session(5 * time.Hour)})
			var keys []holdKey
			for i := range 3 {
				ttl := 4 * hour
				if i < late {
					ttl = minute
				}
				keys = append(keys, l.grant(ttl, Requests(1)))
				l.pass(second)
			}
			l.pass(hour)
			released := map[int]bool{}
			for _, i := range order {
				require.False(t, l.release(keys[i]))
				released[i] = true
				first := 0
				for released[first] {
					first++
				}
				if begun := noon + int64(first)*second; first < 3 {
					require.Equal(t, begun, l.account().start, "it begins with the first use that there was")
				}
			}
			require.Zero(t, l.account().end, "order %v, %d late", order, late)
			l.requireBalance(0, 0)
		}
	}
}

func TestASessionWithUsageOfUnknownBeginningStaysWhenALateReleaseTakesItsFirstUse(t *testing.T) {
	l := newLedger(t, Limit{Max: 10, Window: Session(5 * time.Hour)})
	first := l.grant(minute, Requests(1))
	l.pass(second)
	sent := l.grant(hour, Requests(1))
	l.pass(second)
	last := l.grant(minute, Requests(1))
	l.commit(sent)
	l.pass(hour)
	l.release(first)
	require.Equal(t, noon, l.account().start)
	l.release(last)
	require.Equal(t, noon, l.account().start)
	l.requireBalance(1, 0)
}

func TestUsageOfUnitsThatNoHoldHasLeavesTheHoldsAlone(t *testing.T) {
	l := newLedger(t, Limit{Unit: UnitTokens, Max: 1000})
	for range 100 {
		l.grant(hour, Requests(1))
	}
	withTokens := l.grant(hour, Requests(1), Tokens(5))
	for range 100 {
		l.grant(hour, Requests(1), Amount{"pages", 0})
	}
	l.record(Requests(0), Tokens(3))
	l.requireBalance(3, 2)
	l.book.releaseOldest(amounting(Tokens(1)), l.at, l.at)
	l.requireBalance(3, 1)
	for h := range l.book.holds.each {
		require.Equal(t, h.key == withTokens, h.asked != nil, "it remembers what it was granted only where that has shrunk")
	}
	l.record(Requests(0), Tokens(3))
	l.requireBalance(6, 0)

	require.False(t, l.book.today.anyOpen(amounting(Tokens(7))))
	require.True(t, l.book.today.anyOpen(amounting(Tokens(7), Requests(1))))
	require.False(t, l.book.today.anyOpen(amounting(Requests(0), Amount{"others", 5})))
}
