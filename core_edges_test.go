package quota

import (
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// What happens at the very instant, and with the very amount, at which the core changes its mind.

func TestAnAmountThatOpenHoldsAloneKeepOutWaitsForThem(t *testing.T) {
	t.Parallel()
	for _, window := range []Window{Daily(nil), Weekly(nil, time.Monday), Monthly(nil, 1), Lifetime()} {
		l := newLedger(t, Limit{Max: 10, Window: window})
		l.book.use(amounting(Requests(4)), l.at)
		l.grant(hour, Requests(2))
		at, hopeless := l.account().fitsAt(6, 10, l.at)
		require.Zero(t, at)
		require.False(t, hopeless)
		at, hopeless = l.account().fitsAt(7, 10, l.at)
		require.Equal(t, l.account().end, at)
		require.Equal(t, window.kind == kindLifetime, hopeless)
	}
	require.Equal(t, int64(math.MaxInt64), saturatingAdd2(math.MaxInt64-1, 1, 1))
	require.Equal(t, int64(0), saturatingAdd2(-5, 2, 3))
	at, _ := (&account{limitKey: newLimitKey(UnitRequests, Rolling(time.Minute), nil)}).fitsAt(1, 0, noon)
	require.Equal(t, noon, at)
}

func TestAThresholdIsArmedAgainWhenUsageIsBelowItAndALengthHasPassed(t *testing.T) {
	t.Parallel()
	l := newLedger(t, Limit{Max: 10, Window: Refill(100 * time.Hour)})
	a := l.account()
	for _, c := range []struct {
		used, at int64
		armed    bool
	}{{4, noon + 100*hour, true}, {5, noon + 100*hour, false}, {4, noon + 100*hour - 1, false}} {
		a.used, a.marks = c.used, []mark{{50, noon}}
		a.ring()
		a.rearm(c.at)
		require.Equal(t, c.armed, len(a.marks) == 0, c)
		require.Equal(t, map[bool]int64{true: 5, false: 8}[c.armed], a.alarm)
	}
}

func TestALimitOfNothingAlertsAgainWhenWhatWasUsedIsOver(t *testing.T) {
	t.Parallel()
	l := newLedger(t, Limit{Max: 0, Soft: true, Window: Rolling(time.Hour)})
	l.record(Requests(1))
	require.Len(t, l.account().marks, 3)
	l.pass(2 * hour)
	require.Empty(t, l.account().marks)
	l.record(Requests(1))
	require.Len(t, l.account().marks, 3)
}

func TestASessionKnowsItsFirstUse(t *testing.T) {
	t.Parallel()
	for _, order := range [][2]int{{0, 1}, {1, 0}} {
		l := newLedger(t, Limit{Max: 10, Window: Session(time.Hour)})
		keys := [2]holdKey{l.grant(hour, Requests(1))}
		l.pass(minute)
		keys[1] = l.grant(hour, Requests(1))
		l.commit(keys[order[0]])
		require.Equal(t, noon+int64(order[0])*minute, l.account().first)
		l.commit(keys[order[1]])
		require.Equal(t, noon, l.account().first)
	}
	l := newLedger(t, Limit{Max: 10, Window: Session(time.Hour)})
	l.book.use(amounting(Requests(1)), l.at)
	l.pass(minute)
	l.book.use(amounting(Requests(1)), l.at)
	require.Equal(t, noon, l.account().first)
	l.book.reset(l.at)
	require.Equal(t, []int64{0, 0, 0}, []int64{l.account().start, l.account().end, l.account().first})
	l.grant(hour, Requests(1))
	l.book.reset(l.at)
	require.Equal(t, noon+minute, l.account().start, "what is held keeps it open")

	l = newLedger(t, Limit{Max: 10, Window: Session(time.Hour)})
	l.rules.onExpiry = ReleaseExpired
	l.grant(second, Requests(1))
	l.pass(second)
	require.Zero(t, l.account().start, "its only use has been given back")
	l.to(l.at - 2*day)
	require.Zero(t, l.account().start)
}

func TestASessionIsBegunByUseAlone(t *testing.T) {
	t.Parallel()
	l := newLedger(t, Limit{Max: 10, Window: Session(time.Hour)})
	none := l.grant(hour, Requests(0))
	require.Zero(t, l.account().start)
	expired := l.grant(second, Requests(3))
	l.commit(none, Requests(1))
	require.Equal(t, noon, l.account().first)
	l.pass(second)
	l.release(expired)
	require.Equal(t, []int64{noon, noon + hour}, []int64{l.account().start, l.account().end}, "something else was used in it")
	for _, held := range []int64{1, 2} { // used up, and used in part
		l = newLedger(t, Limit{Max: 10, Window: Session(time.Hour)})
		l.grant(hour, Requests(held))
		l.pass(second)
		l.record(Requests(1))
		require.Equal(t, noon, l.account().first)
	}
	rolling := newLedger(t, Limit{Max: 10, Window: Rolling(time.Hour)})
	rolling.grant(hour, Requests(0))
	require.Empty(t, rolling.account().slices)
}

func TestASessionWhoseFirstUseIsReleasedBeginsWithTheNext(t *testing.T) {
	t.Parallel()
	withID := func(l *ledger) {
		l.number++
		l.book.grant(&hold{key: holdKey{7, l.number}, id: "x", amounts: *amounting(Requests(1)), ttl: hour, expires: l.at + hour}, l.at)
	}
	start := func() (*ledger, holdKey) {
		l := newLedger(t, Limit{Max: 10, Window: Session(time.Hour)})
		return l, l.grant(hour, Requests(1))
	}
	l, first := start()
	l.pass(minute)
	l.grant(hour, Tokens(5)) // counts nothing here
	l.pass(minute)
	l.grant(hour, Requests(1))
	l.pass(minute)
	withID(l)
	l.release(first)
	require.Equal(t, noon+2*minute, l.account().start)

	l, first = start()
	l.pass(minute)
	withID(l)
	l.pass(minute)
	l.grant(hour, Requests(1))
	l.release(first)
	require.Equal(t, noon+minute, l.account().start)

	l, first = start()
	l.grant(hour, Requests(1))
	l.pass(minute)
	l.grant(hour, Requests(1))
	l.release(first)
	require.Equal(t, noon, l.account().start, "it was not the only one")

	l, first = start()
	l.commit(first, Requests(0))
	l.pass(minute)
	l.release(l.grant(hour, Requests(1)))
	require.Equal(t, noon, l.account().start, "it was dispatched, whatever it used")
}

func TestAThresholdIsReachedByTheWholeOfItsPart(t *testing.T) {
	t.Parallel()
	l := newLedger(t, Limit{Max: 7})
	l.book.use(amounting(Requests(3)), l.at)
	require.Empty(t, l.book.outbox())
	l.book.use(amounting(Requests(1)), l.at)
	require.Len(t, l.book.outbox(), 1)
}

func TestARefillKeepsApartWhatIsUsedAndWhatIsReserved(t *testing.T) {
	t.Parallel()
	l := newLedger(t, Limit{Max: 10, Window: Refill(10 * time.Second)})
	l.grant(hour, Requests(4))
	l.pass(3 * second)
	l.requireBalance(0, 1)
	l.commit(l.grant(hour, Requests(3)))
	l.requireBalance(3, 1)

	l = newLedger(t, Limit{Max: 10, Window: Refill(10 * time.Second)})
	l.book.use(amounting(Requests(10)), l.at)
	l.rules = rulesOfLimits(Limit{Max: 1, Window: Refill(10 * time.Second)})
	l.pass(5 * second)
	l.requireBalance(5, 0) // until now it has refilled at the rate of before
}

func TestAProviderThatResetsEarlierEndsNothingButASession(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		window    Window
		reset     int64
		remaining int64
		used, end int64
	}{
		{Daily(nil), hour, 3, 7, 12 * hour}, {Daily(nil), 0, 3, 2, 12 * hour}, {Session(2 * time.Hour), hour, 3, 7, hour},
		{Session(2 * time.Hour), 3 * hour, 3, 7, 2 * hour}, {Lifetime(), hour, 3, 7, -noon}, {Daily(nil), hour, 100, 2, 12 * hour},
	} {
		l := newLedger(t, Limit{Max: 10, Window: c.window})
		l.book.use(amounting(Requests(2)), l.at)
		l.book.observe(Observation{Remaining: &c.remaining, ResetAt: instant(noon + c.reset)}, UnitRequests, Window{}, l.at, l.at)
		l.requireBalance(c.used, 0)
		require.Equal(t, noon+c.end, l.account().end, c)
	}
	l := newLedger(t, Limit{Max: 10, Window: Session(time.Hour)})
	more := int64(100)
	l.book.observe(Observation{Remaining: &more, ResetAt: instant(noon + minute)}, UnitRequests, Window{}, l.at, l.at)
	l.requireBalance(0, 0)
	require.Zero(t, l.account().end, "it has not begun")
}

func TestWhatExpiresAfterAResetIsCorrected(t *testing.T) {
	t.Parallel()
	l := newLedger(t, Limit{Max: 10})
	key := l.grant(1, Requests(3))
	l.book.reset(l.at)
	l.pass(1)
	l.requireBalance(3, 0)
	l.release(key)
	l.requireBalance(0, 0)
}

func TestWhatExpiresAtMidnightIsOfTheNewDay(t *testing.T) {
	t.Parallel()
	l := newLedger(t, Limit{Max: 10})
	key := l.grant(12*hour, Requests(3))
	l.pass(12 * hour)
	l.requireBalance(3, 0)
	require.Equal(t, int64(3), l.book.today.used(UnitRequests))
	l.release(key)
	l.requireBalance(0, 0)
	require.Zero(t, l.book.today.used(UnitRequests))
}

func TestRatesThatAreAnchoredAnewCountAndAlertWhatWasHeld(t *testing.T) {
	t.Parallel()
	l := newLedger(t, Limit{Max: 10, Window: Every(time.Hour)})
	l.grant(100*day, Requests(6))
	l.to(noon - 2*day)
	l.requireBalance(6, 0)
	require.Len(t, l.book.outbox(), 1)
	for _, used := range []int64{0, 1} {
		l = newLedger(t, Limit{Max: 10, Window: Rolling(time.Minute)}, Limit{Max: 10, Window: Refill(time.Minute)})
		l.book.use(amounting(Requests(used)), l.at)
		l.pass(7)
		now := l.at - 2*day
		l.to(now)
		require.Len(t, l.account().slices, int(used))
		if used > 0 {
			require.Equal(t, now-now%l.account().sliceLength(), l.account().slices[0].start)
		}
		require.Zero(t, l.book.limits()[1].part)
	}
	for _, a := range []account{
		{limitKey: newLimitKey(UnitRequests, Daily(nil), nil), end: 5}, {limitKey: newLimitKey(UnitRequests, Daily(nil), time.UTC)},
	} {
		end := a.end
		a.reanchor(noon)
		require.Equal(t, []int64{0, end}, []int64{a.start, a.end}, "it has not begun, or its zone is not known")
	}
}

func TestExpiredHoldsAreForgottenToTheNanosecond(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		limit Limit
		ttl   int64
		kept  int64
	}{
		{Limit{Max: 10, Window: InFlight()}, second, day}, {Limit{Max: 10, Window: Lifetime()}, second, mostRemembered},
		{Limit{Unit: UnitTokens, Max: 10, Window: Weekly(nil, time.Monday)}, second, day},
		{Limit{Max: 10, Window: Every(24 * time.Hour)}, 12 * hour, day}, // it expires as a window begins
		{Limit{Max: 10, Window: Every(7 * 24 * time.Hour)}, 6*day + 12*hour, 7 * day},
		{Limit{Max: 10, Window: Session(72 * time.Hour)}, hour, 71 * hour},
		{Limit{Max: 10, Window: Rolling(48 * time.Hour)}, second, 48*hour + 1},
		{Limit{Max: 10, Window: Refill(48 * time.Hour)}, second, 48*hour + 1},
	} {
		l := newLedger(t, c.limit)
		key := l.grant(c.ttl, Requests(1))
		l.to(noon + c.ttl + c.kept - 1)
		require.NotNil(t, l.book.holds.findLate(key), c)
		l.pass(1)
		require.Nil(t, l.book.holds.findLate(key), c)
	}
}

func TestMarksOfBatchesAreForgottenToTheNanosecond(t *testing.T) {
	t.Parallel()
	l := newLedger(t)
	l.book.mark(1, 5, l.at)
	l.book.mark(2, 1, l.at)
	l.to(noon + mostRemembered - 1)
	require.Len(t, l.book.batches(), 2)
	l.pass(1)
	require.Empty(t, l.book.batches())
}

func TestASettledIDIsForgottenToTheNanosecond(t *testing.T) {
	t.Parallel()
	l := newLedger(t)
	l.grant(minute, Requests(1))
	key := holdKey{8, 1}
	l.book.grant(&hold{key: key, id: "job", amounts: *amounting(Requests(1)), ttl: hour, expires: l.at + hour}, l.at)
	require.False(t, l.book.commit(&settlement{key: key, id: "job", home: "q"}, l.at))
	l.pass(minute) // something else is due before
	l.to(noon + hour - 1)
	require.Len(t, l.book.settled().list(), 1)
	l.pass(1)
	require.Empty(t, l.book.settled().list())
}

func TestAnExpiredHoldIsSettledOnceByItsHandle(t *testing.T) {
	t.Parallel()
	for name, settle := range map[string]func(l *ledger, s *settlement) bool{
		"commit":  func(l *ledger, s *settlement) bool { return l.book.commit(s, l.at) },
		"release": func(l *ledger, s *settlement) bool { return l.book.release(s, l.at) },
	} {
		l := newLedger(t, Limit{Max: 10})
		key := l.grant(second, Requests(3))
		s := &settlement{key: key, hold: l.book.holds.find(key), home: "q", named: *amounting(Requests(1))}
		l.pass(second)
		require.False(t, settle(l, s), name)
		before := l.text()
		require.True(t, settle(l, s), name)
		l.verify()
		requireSame(t, before, l.text())
	}
}

func TestALimitThatBeginsWithUsageIsSaved(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		used           int64
		changed, saved bool
	}{{0, false, false}, {1, false, true}, {0, true, true}, {1, true, true}} {
		l := newLedger(t)
		l.record(Requests(c.used))
		l.book.changed = c.changed
		l.configure(Limit{Max: 10})
		l.requireBalance(c.used, 0)
		require.Equal(t, c.saved, l.book.changed, c)
	}
}

func TestTheLastBatchOfASoleWriterIsNeverForgotten(t *testing.T) {
	t.Parallel()
	l := newLedger(t)
	l.book.mark(1, 5, l.at)
	l.pass(mostRemembered)
	require.True(t, l.book.applied(1, 5))
	l.book.mark(2, 1, l.at)
	l.pass(0)
	require.False(t, l.book.applied(1, 5), "of two, what is that old goes")
	for writer := range uint64(mostBatches) {
		l.book.mark(10+writer, 1, l.at)
	}
	l.book.mark(2, 1, l.at-1)
	l.pass(0)
	require.Len(t, l.book.batches(), mostBatches)
	require.False(t, l.book.applied(2, 1), "of very many the oldest goes")
	require.True(t, l.book.applied(10, 1))
}

func TestAnAccountThatIsNotConfiguredTurnsAndDisturbsNoOther(t *testing.T) {
	t.Parallel()
	berlin := zone(t, "Europe/Berlin")
	l := newLedger(t, Limit{Unit: "images", Max: 10, Window: Daily(berlin)}, Limit{Max: 10, Window: Refill(100 * time.Hour)})
	l.book.use(amounting(Amount{"images", 3}, Requests(4)), l.at)
	l.rules = rulesOfLimits(Limit{Max: 10, Window: Refill(100 * time.Hour)})
	l.reload()
	l.requireBalance(4, 0)
	require.Len(t, l.book.accounts, 2)
	l.pass(day)
	require.Equal(t, "images per day in Europe/Berlin", l.book.accounts[1].text, "after those that are configured")
	require.Zero(t, l.book.accounts[1].used)
	l.pass(minute)
	l.configure(Limit{Max: 20, Window: Refill(100 * time.Hour)})
	require.Zero(t, l.account().part, "what has flowed back in part is let go with the old rate")
}

func TestItIsKnownToTheHourWhenAnAccountWasLastConfigured(t *testing.T) {
	t.Parallel()
	limit := Limit{Max: 10, Window: Lifetime()}
	l := newLedger(t, limit)
	saved := func() int64 { return l.account().seen }
	l.book.configured, l.account().rule = nil, nil // as one that has been read
	l.now += seenEvery - 1
	l.configure(limit)
	require.Equal(t, noon, saved())
	l.book.configured, l.account().rule = nil, nil
	l.now++
	l.configure(limit)
	require.Equal(t, noon+seenEvery, saved())
}

func TestItIsSavedAfterHalfADayThatAnAccountIsConfiguredStill(t *testing.T) {
	t.Parallel()
	limit := Limit{Max: 10, Window: Lifetime()}
	for _, c := range []struct {
		pause          int64
		changed, saved bool
	}{{seenEvery, false, false}, {day/2 - 1, false, false}, {day / 2, false, true}, {seenEvery, true, true}, {day / 2, true, true}} {
		l := newLedger(t, limit)
		l.book.configured, l.account().rule = nil, nil // as one that has been read
		l.book.changed = c.changed
		l.now += c.pause
		l.configure(limit)
		require.Equal(t, c.saved, l.book.changed, c)
	}
	for after, saved := range map[int64]bool{0: true, 1: false} { // midnight is half a day after noon
		l := newLedger(t)
		l.pass(after)
		l.configure(limit)
		l.book.changed = false
		l.to(noon + day/2)
		require.Equal(t, saved, l.book.changed)
		require.Equal(t, l.at, l.account().seen)
	}
	l := newLedger(t, limit)
	l.configure()
	l.book.changed = false
	l.book.dropUnseen(l.at + dropAccount - 1)
	require.False(t, l.book.changed)
	l.book.dropUnseen(l.at + dropAccount)
	require.True(t, l.book.changed, "an account is gone")
}

func TestWhatIsGoneWithAnIDOrOfSeveralQuotasWasSettledNotUsedUp(t *testing.T) {
	t.Parallel()
	b := newLedger(t).book
	for _, c := range []struct {
		s    settlement
		want bool
	}{
		{settlement{id: "x", home: "q"}, true}, {settlement{home: "p", several: true}, true},
		{settlement{home: "q"}, false},
	} {
		c.s.expires = noon
		require.Equal(t, c.want, b.wasSettled(&c.s, noon+rememberExpired-1))
		require.False(t, b.wasSettled(&c.s, noon+rememberExpired), "it may have been forgotten since")
	}
}

func TestALateSettlementIsRememberedCountedAndAlerts(t *testing.T) {
	t.Parallel()
	for name, settle := range map[string]func(l *ledger, s *settlement) bool{
		"commit":  func(l *ledger, s *settlement) bool { return l.book.commit(s, l.at) },
		"release": func(l *ledger, s *settlement) bool { return l.book.release(s, l.at) },
	} {
		for ttl, kept := range map[int64]int64{minute: hour, 3 * hour: 3 * hour} {
			l := newLedger(t, Limit{Max: 10})
			key := l.grant(ttl, Requests(3))
			l.pass(ttl)
			require.Empty(t, l.book.outbox())
			s := &settlement{key: key, id: "task", home: "q", named: *amounting(Requests(6))}
			require.False(t, settle(l, s), name)
			l.verify()
			require.True(t, l.book.settled().has("task", l.at+kept-1), name)
			require.False(t, l.book.settled().has("task", l.at+kept), name)
			if name == "commit" {
				require.Equal(t, int64(1), l.book.today.calls)
				require.Len(t, l.book.outbox(), 1)
			}
		}
	}
	// The ID has been given to another since: that one is open.
	l := newLedger(t, Limit{Max: 10})
	key := l.grant(minute, Requests(3))
	l.pass(minute)
	l.book.grant(&hold{key: holdKey{7, 99}, id: "task", amounts: *amounting(Requests(1)), ttl: hour, expires: l.at + hour}, l.at)
	require.False(t, l.book.release(&settlement{key: key, id: "task", home: "q"}, l.at))
	require.False(t, l.book.settled().has("task", l.at))
}

func TestUsageIsOneCallHoweverItIsRecorded(t *testing.T) {
	t.Parallel()
	l := newLedger(t, Limit{Max: 10})
	l.book.use(amounting(Requests(1)), l.at)
	l.record(Requests(1))
	l.commit(l.grant(hour, Requests(1)))
	require.Equal(t, int64(3), l.book.today.calls)
}

func TestUndoingAnExpiredHoldTakesBackItsChargeOnce(t *testing.T) {
	t.Parallel()
	l := newLedger(t, Limit{Max: 10, Window: Session(time.Hour)})
	key := l.grant(second, Requests(3))
	l.book.holds.find(key).joined = 1
	l.pass(second)
	l.book.undo(key, l.at)
	l.requireBalance(3, 0)
	l.book.undo(key, l.at)
	l.requireBalance(0, 0)
	require.Equal(t, []int64{0, 0, 0}, []int64{l.account().start, l.account().end, l.account().first}, "the session has not begun")
	require.Zero(t, l.book.holds.late)
	key = l.grant(hour, Requests(3))
	l.book.holds.find(key).joined = 1
	l.book.undo(key, l.at)
	l.requireBalance(0, 3)
	l.book.undo(key, l.at)
	l.requireBalance(0, 0)
}

func TestWhatAProviderReportsChangesTheBookOnlyWhereItSaysMore(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		remaining  int64
		retryAfter time.Duration
		used       int64
		changed    bool
	}{{10, 0, 3, false}, {7, 0, 3, false}, {6, 0, 4, true}, {100, 0, 3, false}, {0, 0, 10, true}, {10, 1, 3, true}, {10, -1, 3, false}} {
		l := newLedger(t, Limit{Max: 10})
		l.book.use(amounting(Requests(3)), l.at)
		l.book.changed = false
		l.book.observe(Observation{Remaining: &c.remaining, RetryAfter: c.retryAfter}, UnitRequests, Window{}, l.at, l.at)
		l.requireBalance(c.used, 0)
		require.Equal(t, c.changed, l.book.changed, c)
		l.book.changed = false
		l.book.observe(Observation{Remaining: &c.remaining, RetryAfter: c.retryAfter}, UnitRequests, Window{}, l.at, l.at)
		require.False(t, l.book.changed, "nothing new")
	}
}
