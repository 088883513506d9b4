package quota

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Settlements that come late: after the hold has ended, after its day, after a report of the provider.

func TestAHandleWhoseHoldIsGoneTouchesNoOther(t *testing.T) {
	t.Parallel()
	l := newLedger(t, Limit{Max: 100})
	handle := func(key holdKey) *settlement {
		s := l.settlement(key)
		s.hold = l.book.holds.find(key)
		return s
	}
	settled := handle(l.grant(minute, Requests(1)))
	require.False(t, l.book.release(settled, l.at))
	l.number++
	again := l.book.holds.blank()
	require.Same(t, settled.hold, again, "its room is used again")
	again.key, again.amounts, again.ttl, again.expires = holdKey{7, l.number}, *amounting(Requests(2)), minute, l.at+minute
	l.book.grant(again, l.at)
	first, second := handle(l.grant(minute, Requests(3))), handle(l.grant(minute, Requests(4)))
	l.pass(minute)
	l.requireBalance(9, 0)

	require.True(t, l.book.release(settled, l.at))
	l.requireBalance(9, 0)
	require.False(t, l.book.release(first, l.at))
	require.True(t, l.book.release(first, l.at), "it has been given back already")
	l.verify()
	l.requireBalance(6, 0)
	require.False(t, l.book.release(second, l.at))
	l.verify()
	l.requireBalance(2, 0)
	require.Equal(t, 1, l.book.holds.late)
}

func TestALateReleaseInABookOfOthersLeavesTheDayThatIsOver(t *testing.T) {
	t.Parallel()
	for name, giveBack := range map[string]func(l *ledger, key holdKey){
		"release": func(l *ledger, key holdKey) { l.release(key) },
		"undo":    func(l *ledger, key holdKey) { l.book.undo(key, l.at) },
	} {
		l := newLedger(t, Limit{Max: 10})
		key := l.grant(minute, Requests(3))
		l.pass(minute)
		l.rules.foreign = true
		l.pass(day)
		giveBack(l, key)
		require.Len(t, l.book.finished(), 1, name)
		require.EqualValues(t, 3, l.book.finished()[0].Used[UnitRequests], name)
		require.Zero(t, l.book.holds.late, name)
	}
}

func TestALateReleaseOfAnotherUnitLeavesASession(t *testing.T) {
	t.Parallel()
	l := newLedger(t, Limit{Unit: UnitTokens, Max: 100, Window: Session(time.Hour)})
	other, sent := l.grant(minute, Requests(1)), l.grant(minute, Tokens(5))
	l.commit(sent, Tokens(0)) // it ran, whatever it used
	l.pass(minute)
	require.False(t, l.release(other))
	require.Equal(t, noon, l.account().start)
	require.Equal(t, noon, l.account().first)
}

func TestASessionBeginsWithTheNextUseOfItsUnit(t *testing.T) {
	t.Parallel()
	l := newLedger(t, Limit{Unit: UnitTokens, Max: 100, Window: Session(time.Hour)})
	first := l.grant(minute, Tokens(1))
	l.pass(second)
	l.grant(minute, Requests(1))
	l.pass(second)
	l.grant(minute, Tokens(2))
	l.pass(2 * minute)
	require.False(t, l.release(first))
	require.Equal(t, noon+2*second, l.account().start)
}

func TestASessionCountsWhatExpiresRightAfterAReset(t *testing.T) {
	t.Parallel()
	l := newLedger(t, Limit{Max: 100, Window: Session(time.Hour)})
	first := l.grant(minute+1, Requests(1))
	l.pass(second)
	l.grant(minute+1-second, Requests(2))
	l.to(noon + minute)
	l.book.reset(l.at)
	l.pass(1)
	l.requireBalance(3, 0)
	require.False(t, l.release(first))
	l.requireBalance(2, 0)
	require.Equal(t, noon+second, l.account().start)
}

func TestWhatHasExpiredWhenTheProviderReportsIsPartOfTheReport(t *testing.T) {
	t.Parallel()
	for late, want := range map[int64]int64{0: 5, 1: 2} {
		l := newLedger(t, Limit{Max: 100})
		l.grant(minute, Requests(2))
		key := l.grant(minute+late, Requests(3))
		l.pass(minute)
		l.book.changed = false
		remaining := 100 - l.account().used
		l.book.observe(Observation{Remaining: &remaining}, UnitRequests, Window{}, l.at, l.at)
		require.True(t, l.book.changed, "what no longer counts must be saved")
		l.pass(1)
		require.EqualValues(t, 5, l.account().used)
		require.False(t, l.release(key))
		require.EqualValues(t, want, l.account().used)
	}
}

func TestUsageLeavesAHoldWithoutRequestsBeforeOneThatHasThem(t *testing.T) {
	t.Parallel()
	l := newLedger(t, Limit{Unit: UnitTokens, Max: 100})
	without := l.grant(hour, Requests(0), Tokens(10))
	l.grant(hour, Requests(2), Tokens(5))
	l.record(Requests(1), Tokens(4))
	l.requireBalance(4, 11)
	require.NotNil(t, l.book.holds.find(without))
}

func TestAnAlertThatIsDisclaimedIsAsNew(t *testing.T) {
	t.Parallel()
	l := newLedger(t, Limit{Max: 10}, Limit{Max: 100})
	l.record(Requests(5))
	l.record(Requests(3))
	outbox := l.book.outbox()
	require.Len(t, outbox, 2)
	text := l.text()
	ids := []string{outbox[0].alert.ID, outbox[1].alert.ID}
	require.Len(t, l.book.claim(7, l.at), 2)
	claimed := l.text()
	l.book.disclaim(8, ids)
	require.Equal(t, claimed, l.text(), "they are another's")
	l.book.disclaim(7, []string{"others"})
	require.Equal(t, claimed, l.text())
	l.book.disclaim(7, ids)
	require.Equal(t, text, l.text())
	require.Len(t, l.book.claim(8, l.at), 2)
}

func TestAnAlertIsDeliveredThatTheBookDoesNotHaveAnyMore(t *testing.T) {
	t.Parallel()
	b := &Book{}
	b.delivered([]string{"gone"})
	require.False(t, b.changed)
}

func TestALateSettlementIsForgottenInItsTime(t *testing.T) {
	t.Parallel()
	l := newLedger(t, Limit{Max: 10})
	s := &settlement{key: holdKey{7, 1}, id: "id", home: "q"}
	l.book.grant(&hold{key: s.key, id: s.id, amounts: *amounting(Requests(1)), ttl: minute, expires: l.at + minute}, l.at)
	l.pass(minute)
	require.False(t, l.book.commit(s, l.at))
	require.Len(t, l.book.settled().list(), 1)
	l.pass(rememberSettled)
	require.Empty(t, l.book.settled().list())
}
