package quota

import (
	"encoding/json"
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
	l.book.record(amounting(list...), l.at)
	l.verify()
}

// account returns that of the first limit.
func (l *ledger) account() *account { return l.book.limits[0] }

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

// listed are amounts as a test writes them.
func amounting(list ...Amount) *amounts {
	var m amounts
	for _, amount := range list {
		m.set(amount.Unit.place(), amount.Unit, amount.N)
	}
	return &m
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
	a := l.account()
	l.configure(Limit{Max: 10, Window: Daily(nil)})
	l.pass(40 * minute)
	require.Equal(t, int64(8), a.used)
	require.Equal(t, []mark{{50, noon}, {80, noon}}, a.marks, "what is still reached does not alert again")
	l.pass(hour)
	require.Empty(t, a.marks)
}
