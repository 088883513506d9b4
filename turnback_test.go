package quota

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestABooksTimeStandsStillWhileTheClockIsBehindByUpToADay(t *testing.T) {
	t.Parallel()
	for _, window := range everyWindow() {
		l := newLedger(t, Limit{Max: 10, Window: window})
		l.grant(day, Requests(4))
		l.book.use(amounting(Requests(3)), l.at)
		before := l.text()
		for _, back := range []int64{1, hour, day} {
			l.to(noon - back)
			require.Equal(t, noon, l.at)
			requireSame(t, before, l.text())
		}
		l.to(noon - day - 1)
		require.Equal(t, noon-day-1, l.at)
	}
}

func TestAClockThatComesBackFromFarAheadAnchorsWindowsAtNow(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		window         Window
		used, reserved int64 // of 3 used and 4 held
		start, end     int64 // from two days before noon
	}{
		{Daily(nil), 3, 4, -12 * hour, 12 * hour}, {Weekly(nil, time.Monday), 3, 4, -5*day - 12*hour, day + 12*hour},
		{Monthly(nil, 15), 3, 4, -9*day - 12*hour, 21*day + 12*hour}, {Lifetime(), 3, 4, 0, 0}, {InFlight(), 0, 4, 0, 0},
		{Every(time.Minute), 7, 0, 0, minute}, {Session(time.Hour), 7, 0, 0, hour}, {Rolling(time.Minute), 7, 0, 0, 0},
		{Refill(time.Minute), 7, 0, 0, 0},
	} {
		t.Run(c.window.String(), func(t *testing.T) {
			l := newLedger(t, Limit{Max: 20, Window: c.window})
			l.to(noon - 1)
			l.to(noon)
			expired := l.grant(second, Requests(2))
			l.pass(second)
			require.NotNil(t, l.book.holds.findLate(expired))
			l.book.reset(l.at)
			l.pass(10 * minute)
			key := l.grant(100*day, Requests(4))
			l.book.use(amounting(Requests(3)), l.at)
			l.book.details().closed = l.at + hour
			l.book.holding().settled.add("id", l.at+5*hour)
			now := noon - 2*day
			l.to(now)
			require.Equal(t, now, l.at)
			l.requireBalance(c.used, c.reserved)
			if c.end != 0 {
				require.Equal(t, []int64{now + c.start, now + c.end}, []int64{l.account().start, l.account().end})
			}
			require.Equal(t, now+100*day, l.book.holds.find(key).expires)
			require.Equal(t, now+hour, l.book.closed())
			require.Equal(t, []settledID{{"id", now + 5*hour}}, l.book.settled().list())
			l.reload()

			// What has been charged ahead is no longer there to be corrected, and in a rate nothing is given back.
			l.release(expired)
			l.requireBalance(c.used, c.reserved)
			l.release(key)
			l.requireBalance(c.used, 0)
		})
	}
}

func TestExpiriesAreClampedWhenTheClockComesBackFromFarAhead(t *testing.T) {
	t.Parallel()
	l := newLedger(t, Limit{Max: 10})
	key := l.grant(hour, Requests(1))
	l.to(noon + minute)
	l.to(noon - 10*day)
	require.Equal(t, noon-10*day+hour, l.book.holds.find(key).expires)
	l.pass(hour)
	require.NotNil(t, l.book.holds.findLate(key))
	l.requireBalance(1, 0)
	l.commit(key, Requests(0)) // it was charged after the clock came back
	l.requireBalance(0, 0)
}

func TestUsageOfOthersIsNotGivenBackAfterTheClockCameBack(t *testing.T) {
	t.Parallel()
	l := newLedger(t, Limit{Max: 10})
	key := l.grant(hour, Requests(5))
	l.to(noon + 5*day) // charged on the way
	l.book.use(amounting(Requests(4)), l.at)
	l.requireBalance(4, 0)
	l.to(noon)
	l.requireBalance(4, 0)
	l.release(key)
	l.requireBalance(4, 0)
}

func TestANewBudgetCountsOpenHoldsAndTheDaysInItsWindow(t *testing.T) {
	t.Parallel()
	past := []DaySummary{
		{Day: time.Date(2026, 1, 14, 0, 0, 0, 0, time.UTC), Used: map[Unit]int64{UnitRequests: 1000}},
		{Day: time.Date(2026, 1, 15, 0, 0, 0, 0, time.UTC), Used: map[Unit]int64{UnitRequests: 100}},
		{Day: time.Date(2026, 1, 25, 0, 0, 0, 0, time.UTC), Used: map[Unit]int64{UnitRequests: 10}},
	}
	for _, c := range []struct {
		window         Window
		used, reserved int64
	}{
		{Daily(nil), 5, 3}, {Weekly(nil, time.Monday), 5, 3}, {Weekly(nil, time.Sunday), 15, 3}, {Monthly(nil, 15), 115, 3},
		{Lifetime(), 1115, 3}, {InFlight(), 0, 3}, {Daily(zone(t, "Asia/Tokyo")), 5, 3}, {Daily(zone(t, "America/Los_Angeles")), 0, 3}, {Every(time.Minute), 0, 0},
		{Every(24 * time.Hour), 5, 0}, {Rolling(24 * time.Hour), 5, 0}, {Rolling(time.Hour), 0, 0}, {Refill(time.Hour), 0, 0},
		{Session(time.Hour), 0, 0},
	} {
		t.Run(c.window.String(), func(t *testing.T) {
			start := func() (l *ledger, key, late holdKey) {
				l = newLedger(t)
				late = l.grant(second, Requests(2))
				key = l.grant(hour, Requests(3))
				l.book.use(amounting(Requests(3)), l.at)
				l.pass(second)
				return l, key, late
			}
			for _, pause := range []int64{0, 1, minute} { // the hold is as old as the limit, or older
				l, key, late := start()
				same := l.grant(hour, Requests(1))
				l.pass(pause)
				l.rules = rulesOfLimits(Limit{Max: 2000, Window: c.window})
				l.rules.history = func(string) []DaySummary { return past }
				l.to(l.now)
				reserved := c.reserved
				if reserved > 0 {
					reserved++
				}
				l.requireBalance(c.used, reserved)
				l.reload()
				l.requireBalance(c.used, reserved)

				fresh := l.grant(hour, Requests(7)) // counts everywhere
				l.requireBalance(c.used, reserved+7)
				l.release(fresh)
				l.requireBalance(c.used, reserved)
				l.release(same)
				l.requireBalance(c.used, c.reserved)
				l.commit(key, Requests(3))
				committed := int64(0)
				if c.window.budget() {
					committed = 3
				}
				l.requireBalance(c.used+committed, 0)
				before := l.account().used
				l.release(late)
				if c.window.budget() && c.used > 0 {
					before -= 2 // it was among the totals of the day
				}
				require.Equal(t, before, l.account().used, "others' usage has been given back")
				l.reload()
			}
		})
	}
}

func TestAnAccountIsKeptWhileSomebodyConfiguresItAndTwoDaysLonger(t *testing.T) {
	t.Parallel()
	l := newLedger(t, Limit{Max: 10}, Limit{Unit: UnitTokens, Max: 10})
	l.pass(hour)
	l.configure(Limit{Max: 20})
	l.book.use(amounting(Requests(1), Tokens(4)), l.at)
	require.Len(t, l.book.accounts, 2)
	require.Equal(t, int64(4), l.book.accounts[1].used, "everything in a book is charged")
	l.pass(dropAccount - 1)
	l.configure(Limit{Max: 21})
	require.Len(t, l.book.accounts, 2)
	l.pass(1)
	l.configure(Limit{Max: 22})
	require.Len(t, l.book.accounts, 1)
	require.Equal(t, int64(22), l.account().max)
}

func TestImportedUsageIsThatOfTheDay(t *testing.T) {
	t.Parallel()
	for _, limits := range [][]Limit{{{Max: 10}}, nil} {
		l := &ledger{t: t, book: importedBook(5, 3, noon+hour), rules: rulesOfLimits(limits...), now: noon}
		l.book.name = "q"
		l.to(noon)
		require.Equal(t, int64(5), l.book.today.used(UnitRequests))
		require.Nil(t, l.book.imported())
		require.Equal(t, 1, l.book.holds.open())
		if limits != nil {
			l.requireBalance(5, 3)
		}
		l.pass(int64(l.rules.ttl))
		require.Equal(t, int64(8), l.book.today.used(UnitRequests))
	}
	l := &ledger{t: t, book: importedBook(5, 0, noon), rules: rulesOfLimits(Limit{Max: 10}), now: noon}
	l.to(noon)
	l.requireBalance(0, 0)
	require.Zero(t, l.book.holds.open())

	l = &ledger{t: t, book: importedBook(1, 1, noon+hour), rules: rulesOfLimits(Limit{Unit: "images", Max: 10}), now: noon}
	l.to(noon)
	l.requireBalance(1, 1)
	require.Zero(t, l.book.today.used(UnitRequests), "it is in the unit of the day's first limit")
}

func TestExpiredHoldsAreForgottenWhenTheirWindowsHaveTurned(t *testing.T) {
	t.Parallel()
	_, turn := Every(72*time.Hour).period(noon, time.UTC)
	require.Greater(t, turn-noon, day)
	for _, c := range []struct {
		window Window
		kept   int64
	}{
		{Daily(nil), day}, {Weekly(nil, time.Monday), 7*day - 12*hour}, {Lifetime(), mostRemembered}, {InFlight(), day},
		{Every(time.Minute), day}, {Every(72 * time.Hour), turn - noon}, {Rolling(time.Minute), day}, {Rolling(100 * time.Hour), 100*hour + second},
		{Refill(100 * time.Hour), 100*hour + second}, {Session(time.Hour), day}, {Session(50 * time.Hour), 50 * hour},
	} {
		l := newLedger(t, Limit{Max: 10, Window: c.window})
		key := l.grant(second, Requests(1))
		l.to(noon + c.kept - 1)
		require.NotNil(t, l.book.holds.findLate(key), c.window)
		l.to(noon + c.kept + 2*second)
		require.Nil(t, l.book.holds.findLate(key), c.window)
	}
}

func TestABookIsBlankWhenNothingInItCounts(t *testing.T) {
	t.Parallel()
	require.True(t, newLedger(t, Limit{Max: 1}).book.untouched())
	for _, window := range everyWindow() {
		l := newLedger(t, Limit{Max: 10, Window: window})
		l.rules.template = true
		key := l.grant(hour, Requests(1))
		require.False(t, l.book.blank())
		l.commit(key)
		require.False(t, l.book.blank())
		l.pass(11 * hour)
		require.False(t, l.book.blank(), "today")
		l.pass(day)
		require.False(t, l.book.blank(), "yesterday")
		l.pass(day)
		require.Equal(t, window.kind != kindWeekly && window.kind != kindMonthly && window.kind != kindLifetime, l.book.blank(), window)
		l.pass(40 * day)
		require.Equal(t, window.kind != kindLifetime, l.book.blank(), window)
		require.False(t, l.book.untouched())
	}
	l := newLedger(t, Limit{Max: 10, Window: Session(200 * time.Hour)})
	l.rules.template = true
	l.commit(l.grant(hour, Requests(1)), Requests(0))
	l.pass(100 * hour)
	require.False(t, l.book.blank(), "the session has begun")
	l.pass(100 * hour)
	require.True(t, l.book.blank())
}

func TestBatchesAreKnownUntilTheirWriterHasBeenSilentForLong(t *testing.T) {
	t.Parallel()
	l := newLedger(t)
	l.book.mark(1, 5, l.at)
	l.pass(minute)
	l.book.mark(2, 7, l.at)
	require.True(t, l.book.applied(1, 5) && l.book.applied(1, 4) && l.book.applied(2, 7))
	require.False(t, l.book.applied(1, 6) || l.book.applied(3, 1))
	l.pass(minute)
	l.book.mark(1, 6, l.at)
	l.pass(minute)
	for writer := range uint64(mostBatches - 1) {
		l.book.mark(10+writer, 1, l.at)
	}
	l.pass(minute)
	require.True(t, l.book.applied(1, 6))
	require.False(t, l.book.applied(2, 7), "of very many the one that marked first is forgotten")
	l.book.unmark(1)
	require.False(t, l.book.applied(1, 6), "its writer knows that it was saved")
	l.pass(mostRemembered - 2*minute)
	require.True(t, l.book.applied(10, 1), "what could not be saved may come back after days")
	l.pass(minute)
	require.False(t, l.book.applied(10, 1))
}

func TestABookIsNotBlankWhileAnyOneThingInItCounts(t *testing.T) {
	t.Parallel()
	for name, count := range map[string]func(b *Book){
		"open":     func(b *Book) { b.holding().add(&hold{key: holdKey{7, 1}, expires: noon + hour}) },
		"expired":  func(b *Book) { b.holding().remember(&hold{key: holdKey{7, 1}}) },
		"settled":  func(b *Book) { b.holding().settled.add("id", noon+hour) },
		"alert":    func(b *Book) { b.details().outbox = make([]delivery, 1) },
		"finished": func(b *Book) { b.details().finished = make([]DaySummary, 1) },
		"imported": func(b *Book) { b.details().imported = &imported{} },
		"closed":   func(b *Book) { b.details().closed = b.clock + 1 },
		"used":     func(b *Book) { b.limits()[0].used = 1 },
		"reserved": func(b *Book) { b.limits()[0].reserved = 1 },
		"alerted":  func(b *Book) { b.limits()[0].marks = make([]mark, 1) },
		"begun":    func(b *Book) { b.limits()[0].first = 1 },
		"today":    func(b *Book) { b.today.calls = 1 },
		"last day": func(b *Book) { b.today.last = b.clock - day + 1 },
	} {
		b := newLedger(t, Limit{Max: 10, Window: Session(time.Hour)}).book
		b.details().closed, b.today.last = b.clock, b.clock-day
		require.True(t, b.blank())
		count(b)
		require.False(t, b.blank(), name)
	}
}

func TestABookIsUntouchedUntilAnyOneThingIsCounted(t *testing.T) {
	t.Parallel()
	for name, count := range map[string]func(b *Book){
		"used":     func(b *Book) { b.limits()[0].used = 1 },
		"reset":    func(b *Book) { b.limits()[0].armed = 1 },
		"granted":  func(b *Book) { b.holding().tally.granted = 1 },
		"today":    func(b *Book) { b.today.denied = 1 },
		"last day": func(b *Book) { b.today.last = 1 },
		"imported": func(b *Book) { b.details().imported = &imported{} },
		"finished": func(b *Book) { b.details().finished = make([]DaySummary, 1) },
		"closed":   func(b *Book) { b.details().closed = 1 },
		"alert":    func(b *Book) { b.details().outbox = make([]delivery, 1) },
	} {
		b := newLedger(t, Limit{Max: 10}).book
		require.True(t, b.untouched())
		count(b)
		require.False(t, b.untouched(), name)
	}
}

func TestTheNextTurnIsWhateverComesFirst(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ expiry, day, closed, window, want int64 }{
		{0, 0, 0, 0, 0}, {1, 2, 3, 4, 1}, {2, 1, 3, 4, 1}, {2, 3, 1, 4, 1}, {2, 3, 4, 1, 1}, {0, 1, 0, 0, 1}, {0, 0, 1, 0, 1}, {0, 0, 0, 1, 1},
		{5, 0, -1, 0, 5}, {0, 5, -1, -1, 5},
	} {
		at := func(after int64) int64 {
			if after == 0 {
				return 0
			}
			return noon + max(0, after)
		}
		b := &Book{clock: noon, more: &bookDetails{closed: at(c.closed)}, accounts: []account{{limitKey: newLimitKey(UnitRequests, Every(time.Hour), time.UTC), end: at(c.window)}}}
		b.today.end = at(c.day)
		if c.expiry > 0 {
			b.holding().add(&hold{expires: at(c.expiry)})
		}
		require.Equal(t, at(c.want), b.nextTurn(), c)
	}
	sole := &Book{today: dayTotals{end: 1}}
	require.Equal(t, int64(1), sole.nextTurn())
}

func TestTimesLeaveTheBookInTheZoneOfItsWindows(t *testing.T) {
	t.Parallel()
	berlin := zone(t, "Europe/Berlin")
	l := newLedger(t, Limit{Max: 10, Window: Daily(berlin)})
	l.rules.location = berlin
	for _, local := range []func(int64) time.Time{l.account().time, l.book.local} {
		require.Equal(t, instant(noon).In(berlin), local(noon))
		require.Equal(t, instant(1).In(berlin), local(1))
		require.Equal(t, time.Time{}, local(0))
	}
	require.Equal(t, berlin, l.book.zone())
	require.Equal(t, time.UTC, (&Book{}).zone())
	for _, local := range []func(int64) time.Time{(&account{limitKey: &limitKey{}}).time, (&Book{}).local} {
		require.Equal(t, instant(noon), local(noon))
	}
}

func TestAClockThatComesBackFromFarAheadTakesAlongWhatIsRemembered(t *testing.T) {
	t.Parallel()
	l := newLedger(t, Limit{Max: 10})
	l.pass(10 * day)
	ahead := l.at
	l.book.holding().settled.add("again", ahead+hour)
	l.book.holding().settled.add("long", ahead+5*hour)
	l.book.holding().settled.add("again", ahead+3*hour)
	l.book.mark(3, 1, ahead)
	l.book.details().outbox = []delivery{{writer: 3, claimed: ahead}}
	l.account().marks = []mark{{50, ahead}}
	l.book.details().closed = ahead
	l.to(noon)
	require.Equal(t, []settledID{{"again", noon + hour}, {"long", noon + 5*hour}, {"again", noon + 3*hour}}, l.book.settled().list())
	require.Equal(t, map[string]int64{"again": noon + 3*hour, "long": noon + 5*hour}, l.book.holds.settled.until)
	require.Equal(t, noon, l.book.batches()[0].at)
	require.Equal(t, noon, l.book.outbox()[0].claimed)
	require.Equal(t, []mark{{50, noon}}, l.account().marks)
	require.Equal(t, noon, l.account().seen)
	require.Zero(t, l.book.closed())
	require.Equal(t, []int64{noon - 12*hour, noon + 12*hour}, []int64{l.book.today.start, l.book.today.end})

	l.pass(10 * day)
	early := l.at - 11*day
	l.book.mark(4, 1, early)
	l.book.details().outbox = append(l.book.outbox(), delivery{writer: 4, claimed: early})
	l.account().marks, l.account().seen = []mark{{50, early}}, early
	l.to(noon)
	require.Equal(t, early, l.book.batches()[1].at)
	require.Equal(t, early, l.book.outbox()[1].claimed)
	require.Equal(t, early, l.account().marks[0].at)
	require.Equal(t, early, l.account().seen)
}
