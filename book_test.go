package quota

import (
	"encoding/json"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// noon is when the ledgers of these tests begin: a Monday.
var noon = nanos(time.Date(2026, 1, 26, 12, 0, 0, 0, time.UTC))

const (
	second = int64(time.Second)
	minute = int64(time.Minute)
	hour   = int64(time.Hour)
)

// rulesOfLimits are the rules of a quota with these limits, days and thresholds in UTC and of 50, 80 and 90 percent.
func rulesOfLimits(limits ...Limit) *rules {
	cfg := Config{Location: time.UTC, ReservationTTL: 15 * time.Minute, AlertThresholds: []int{50, 80, 90}}
	r, err := cfg.rules(&Quota{Name: "q", Limits: limits}, &zones{}, nil)
	if err != nil {
		panic(err)
	}
	return r
}

// A ledger is a book with its rules and its clock. After each step it must obey its laws.
type ledger struct {
	t      *testing.T
	book   *Book
	rules  *rules
	now    int64 // of the clock
	at     int64 // of the book
	number uint64
}

func newLedger(t *testing.T, limits ...Limit) *ledger {
	l := &ledger{t: t, book: &Book{name: "q"}, rules: rulesOfLimits(limits...), now: noon}
	l.to(noon)
	return l
}

func (l *ledger) verify() {
	l.t.Helper()
	require.NoError(l.t, l.book.verify())
}

func (l *ledger) to(now int64) {
	l.t.Helper()
	l.now = now
	l.at = l.book.advance(l.rules, now)
	l.verify()
}

func (l *ledger) pass(d int64) {
	l.t.Helper()
	l.to(l.now + d)
}

// reload replaces the book by what its JSON form says.
func (l *ledger) reload() {
	l.t.Helper()
	text, err := json.Marshal(l.book)
	require.NoError(l.t, err)
	l.book = &Book{}
	require.NoError(l.t, json.Unmarshal(text, l.book), "%s", text)
	l.book.name = "q"
	l.to(l.now)
}

func (l *ledger) configure(limits ...Limit) {
	l.t.Helper()
	l.rules = rulesOfLimits(limits...)
	l.to(l.now)
}

// grant opens a hold whatever the limits say.
func (l *ledger) grant(ttl int64, list ...Amount) holdKey {
	l.t.Helper()
	l.number++
	key := holdKey{7, l.number}
	l.book.grant(&hold{key: key, name: "q", amounts: *amounting(list...), ttl: ttl, expires: l.at + ttl}, l.at)
	l.verify()
	return key
}

// reserve opens a hold if the limits allow.
func (l *ledger) reserve(ttl int64, list ...Amount) (holdKey, bool) {
	l.t.Helper()
	if l.book.judge(amounting(list...), l.at).refused {
		return holdKey{}, false
	}
	return l.grant(ttl, list...), true
}

func (l *ledger) settlement(key holdKey) *settlement {
	return &settlement{key: key, home: "q"}
}

func (l *ledger) commit(key holdKey, named ...Amount) (settled bool) {
	l.t.Helper()
	s := l.settlement(key)
	s.named = *amounting(named...)
	settled = l.book.commit(s, l.at)
	l.verify()
	return settled
}

func (l *ledger) release(key holdKey) (settled bool) {
	l.t.Helper()
	settled = l.book.release(l.settlement(key), l.at)
	l.verify()
	return settled
}

func (l *ledger) record(list ...Amount) {
	l.t.Helper()
	l.book.record(amounting(list...), l.at, l.at)
	l.verify()
}

// account returns that of the first limit.
func (l *ledger) account() *account { return &l.book.limits()[0] }

func (l *ledger) requireBalance(used, reserved int64) {
	l.t.Helper()
	require.Equal(l.t, []int64{used, reserved}, []int64{l.account().used, l.account().reserved}, "used, reserved")
}

func (l *ledger) retryAt(list ...Amount) int64 {
	l.t.Helper()
	v := l.book.judge(amounting(list...), l.at)
	require.True(l.t, v.refused, "admitted")
	return v.retryAt
}

// requireSame fails where two JSON forms differ, and shows no more than that.
func requireSame(t *testing.T, want, got string) {
	t.Helper()
	at := 0
	for at < min(len(want), len(got)) && want[at] == got[at] {
		at++
	}
	from := max(0, at-150)
	require.Equal(t, want[from:min(at+50, len(want))], got[from:min(at+50, len(got))])
}

// text is the book's JSON form.
func (l *ledger) text() string {
	l.t.Helper()
	text, err := json.Marshal(l.book)
	require.NoError(l.t, err)
	return string(text)
}

// amounting are amounts as a test writes them.
func amounting(list ...Amount) *amounts {
	var m amounts
	for _, amount := range list {
		m.set(amount.Unit.place(), amount.Unit, amount.N)
	}
	return &m
}

func TestWhatCannotBeReadInABookIsNamed(t *testing.T) {
	t.Parallel()
	for want, read := range map[string]func() error{
		`not a time: "x"`:                   func() error { return new(moment).UnmarshalText([]byte("x")) },
		`a time out of range: "1960-01-01T`: func() error { return new(moment).UnmarshalText([]byte("1960-01-01T00:00:00Z")) },
		`a time out of range: "2900-01-01T`: func() error { return new(moment).UnmarshalText([]byte("2900-01-01T00:00:00Z")) },
		`not a positive duration: "0s"`:     func() error { return new(span).UnmarshalText([]byte("0s")) },
		`not a positive duration: "x"`:      func() error { return new(span).UnmarshalText([]byte("x")) },
		`not a writer: "!"`:                 func() error { return new(number).UnmarshalText([]byte("!")) },
		`not the key of a hold: "x"`:        func() error { return new(keyText).UnmarshalText([]byte("x")) },
		`a negative amount of "requests"`:   func() error { return new(amountsOf).UnmarshalJSON([]byte(`{"requests":-1}`)) },
		"cannot unmarshal array":            func() error { return new(amountsOf).UnmarshalJSON([]byte(`[]`)) },
		"unit":                              func() error { return new(amountsOf).UnmarshalJSON([]byte(`{"":1}`)) },
		"a batch without its writer":        func() error { return new(checked[batchJSON]).UnmarshalJSON([]byte(`[{"writer":"0"}]`)) },
		"not a list":                        func() error { return new(checked[batchJSON]).UnmarshalJSON([]byte(`{}`)) },
		"negative number imported": func() error {
			return new(Book).UnmarshalJSON([]byte(`{"clock":"2026-01-26T12:00:00Z","imported":{"used":-1,"reserved":0}}`))
		},
		"a negative number imported": func() error {
			return new(Book).UnmarshalJSON([]byte(`{"clock":"2026-01-26T12:00:00Z","imported":{"used":0,"reserved":-1}}`))
		},
		"hold 0-0@ is not complete": func() error { return holdJSON{Expires: 1, TTL: 1}.check() },
		"is not complete":           func() error { return holdJSON{}.check() },
	} {
		require.ErrorContains(t, read(), want)
	}
}

func TestAmountsAreReadInOrderWhateverWasThere(t *testing.T) {
	t.Parallel()
	list := amountsOf(*amounting(Amount{"images", 7}, Amount{"clips", 7}, InputTokens(7)))
	require.NoError(t, list.UnmarshalJSON([]byte(`{"tokens":3,"requests":1,"images":2,"usd":0}`)))
	require.Equal(t, amountsOf(*amounting(Requests(1), Amount{"images", 2}, Tokens(3), PicoUSD(0))), list)
	text, err := amountsOf(*amounting(Tokens(3), Amount{"images", 2}, Requests(1))).MarshalJSON()
	require.NoError(t, err)
	require.Equal(t, `{"requests":1,"images":2,"tokens":3}`, string(text))
	require.Zero(t, byUnit(Requests(1), Requests(2)))
	require.Negative(t, byUnit(Requests(2), Amount{"images", 1}))
}

func TestAnEmptyBookSaysNothingButItsTime(t *testing.T) {
	t.Parallel()
	form := (&dayTotals{start: 1, end: 2, requests: unitTotal{used: 1}, more: &dayDetails{deniedBy: []denial{{"x", 1}}}}).form()
	require.Equal(t, &todayJSON{Start: 1, End: 2, Used: amountsOf(*amounting(Requests(1))), DeniedBy: map[string]int64{"x": 1}}, form)
	require.Equal(t, &todayJSON{}, (&dayTotals{more: &dayDetails{other: []ownTotal{{unit: "images"}}}}).form())
	require.Equal(t, accountJSON{Unit: UnitRequests, Window: Daily(nil)}, (&account{limitKey: newLimitKey(UnitRequests, Daily(nil), nil)}).form())
	text, err := json.Marshal(&Book{clock: noon})
	require.NoError(t, err)
	require.JSONEq(t, `{"clock":"2026-01-26T12:00:00Z"}`, string(text))
}

func TestHoldsThatAddUpToMoreThanCanBeCountedAreRefused(t *testing.T) {
	t.Parallel()
	l := newLedger(t, Limit{Unit: "images", Max: 10})
	l.grant(hour, Requests(1), Amount{"images", math.MaxInt64 - 1})
	l.grant(hour, Requests(1), Amount{"images", 1})
	l.reload()
	for _, limited := range []string{"images", "pages"} {
		text := strings.Replace(strings.ReplaceAll(l.text(), `"images":1}`, `"`+limited+`":2}`), `"images":9223372036854775806}`, `"`+limited+`":9223372036854775806}`, 1)
		require.ErrorContains(t, json.Unmarshal([]byte(text), &Book{}), "more than can be counted", limited)
	}
}

func TestAlertsAreMarkedInOrderWhateverTheOrderOfTheirCrossing(t *testing.T) {
	t.Parallel()
	l := newLedger(t, Limit{Max: 10, Window: Rolling(time.Hour)})
	l.account().marks = []mark{{90, noon}}
	l.account().ring()
	l.book.use(amounting(Requests(8)), l.at)
	require.Equal(t, []int{50, 80, 90}, l.book.limitStatus(0, l.at).AlertsFired)
}

func TestIDsOfAlertsNameTheWindowAndHowOftenItWasReset(t *testing.T) {
	t.Parallel()
	for window, ids := range map[Window][2]string{
		Daily(nil):              {"q/requests per day/50%/2026-01-26T00:00:00Z", "q/requests per day/50%/2026-01-26T00:00:00Z/2"},
		Rolling(time.Minute):    {"q/requests per rolling 1m0s/50%/2026-01-26T12:00:00Z", "q/requests per rolling 1m0s/50%/2026-01-26T12:00:01Z/2"},
		Refill(100 * time.Hour): {"q/requests per refill 100h0m0s/50%/2026-01-26T12:00:00Z", "q/requests per refill 100h0m0s/50%/2026-01-26T12:00:01Z/2"},
		Lifetime():              {"q/requests per lifetime/50%", "q/requests per lifetime/50%/2"},
		Session(time.Hour):      {"q/requests per session 1h0m0s/50%/2026-01-26T12:00:00Z", "q/requests per session 1h0m0s/50%/2026-01-26T12:00:01Z"},
	} {
		l := newLedger(t, Limit{Max: 10, Window: window, AlertThresholds: []int{50}})
		l.book.use(amounting(Requests(6)), l.at)
		l.book.reset(l.at)
		l.pass(second)
		l.book.use(amounting(Requests(6)), l.at)
		require.Equal(t, ids, [2]string{l.book.outbox()[0].alert.ID, l.book.outbox()[1].alert.ID})
	}
}

func TestTheNextTurnOfAWindowIsArmedLikeTheFirst(t *testing.T) {
	t.Parallel()
	l := newLedger(t, Limit{Max: 10})
	l.pass(day)
	require.Zero(t, l.account().armed)
}

func TestAlertsThatNobodyDeliversAreDueAMinuteAfterTheyWereClaimed(t *testing.T) {
	t.Parallel()
	overdue := func(list ...delivery) (int64, bool) { return (&Book{more: &bookDetails{outbox: list}}).overdue(1) }
	for _, c := range []struct {
		list []delivery
		at   int64
		want bool
	}{
		{nil, 0, false},
		{[]delivery{{writer: 1, claimed: 5}}, 0, false},
		{[]delivery{{writer: 1, claimed: 5}, {writer: 2, claimed: 7}}, 7 + minute, true},
		{[]delivery{{writer: 2, claimed: 9}, {writer: 3, claimed: 7}}, 7 + minute, true},
		{[]delivery{{writer: 2, claimed: 7}, {writer: 3, claimed: 9}}, 7 + minute, true},
		{[]delivery{{writer: 2, claimed: 7}, {}}, 0, true},
	} {
		at, waiting := overdue(c.list...)
		require.Equal(t, c.at, at)
		require.Equal(t, c.want, waiting)
	}
}

func TestAHoldOfOneQuotaIsPlainHoweverItIsWritten(t *testing.T) {
	t.Parallel()
	h, err := holdJSON{Expires: 1, TTL: 1, Amounts: amountsOf(*amounting(Requests(1))), Quotas: []string{}}.hold()
	require.NoError(t, err)
	require.True(t, h.plain())
	h, err = holdJSON{Expires: 1, TTL: 1, Amounts: amountsOf(*amounting(Requests(1))), Quotas: []string{"p", "q"}}.hold()
	require.NoError(t, err)
	require.False(t, h.plain())
}

func TestAnIDOfTwoOpenHoldsIsRefused(t *testing.T) {
	t.Parallel()
	l := newLedger(t, Limit{Max: 0})
	for number, id := range []string{"one", "two"} {
		l.book.grant(&hold{key: holdKey{7, uint64(number)}, id: id, amounts: *amounting(Requests(1)), ttl: hour, expires: l.at + hour}, l.at)
	}
	l.reload()
	require.Error(t, new(Book).UnmarshalJSON([]byte(strings.ReplaceAll(l.text(), `"two"`, `"one"`))))
}

func TestVerifyFindsWhatIsLessThanNothingByOne(t *testing.T) {
	t.Parallel()
	l := newLedger(t, Limit{Max: 10, Window: Refill(time.Minute)}, Limit{Max: 10, Window: Rolling(time.Minute)})
	l.book.use(amounting(Requests(2)), l.at)
	harmed := func(harm func(b *Book)) {
		t.Helper()
		b := l.book.clone()
		b.name = "q"
		require.NoError(t, b.verify())
		harm(b)
		require.Error(t, b.verify())
	}
	harmed(func(b *Book) { b.limits()[0].reserved = -1 })
	harmed(func(b *Book) {
		b.limits()[1].slices = []slice{{start: noon - minute, used: -1}, {start: noon, used: 3}}
	})
	harmed(func(b *Book) { b.limits()[1].slices[0].used++ })
	harmed(func(b *Book) { b.today.known(atRequests).estimated = -1 })
}

func TestSlicesOfARollingWindowAreAlignedAndPositive(t *testing.T) {
	t.Parallel()
	read := func(list ...sliceJSON) error {
		_, err := accountJSON{Unit: UnitRequests, Window: Rolling(50 * time.Second), Max: 1, Used: 1, Slices: list}.account("requests per rolling 50s")
		return err
	}
	at := moment(noon)
	require.NoError(t, read(sliceJSON{at, 1}))
	require.NoError(t, read(sliceJSON{at, 0}, sliceJSON{at + moment(second), 1}))
	for _, list := range [][]sliceJSON{{{at + 1, 1}}, {{at, -1}, {at + moment(second), 2}}, {{at, 0}, {at, 1}}, {{at, 1}, {at - moment(second), 0}}} {
		require.ErrorContains(t, read(list...), "slices out of order")
	}
}

func TestAnAccountThatNobodyHasConfiguredForLongIsDroppedByTheTurnOfADay(t *testing.T) {
	l := newLedger(t, Limit{Max: 10, Window: Lifetime(), NoAlerts: true})
	l.record(Requests(10))
	l.configure(Limit{Max: 10, Window: Daily(nil), NoAlerts: true})
	l.rules.template = true
	l.pass(day)
	require.Len(t, l.book.accounts, 2, "only since yesterday")
	l.pass(2 * day)
	require.Len(t, l.book.accounts, 1)
	require.True(t, l.book.blank(), "so that a template's book may go too")
}

func TestAnAccountThatIsNotConfiguredForgetsThatItHasAlertedAsAnyOther(t *testing.T) {
	l := newLedger(t, Limit{Max: 10, Window: Rolling(time.Hour)})
	l.record(Requests(10))
	l.pass(30 * minute)
	l.record(Requests(8))
	l.configure(Limit{Max: 10, Window: Daily(nil)})
	l.pass(40 * minute)
	a := &l.book.accounts[1] // after those that are configured
	require.Equal(t, Rolling(time.Hour), a.window)
	require.Equal(t, int64(8), a.used)
	require.Equal(t, []mark{{50, noon}, {80, noon}}, a.marks, "what is still reached does not alert again")
	l.pass(hour)
	require.Empty(t, a.marks)
}
