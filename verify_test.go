package quota

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestVerifyFindsABrokenLedger(t *testing.T) {
	t.Parallel()
	start := func(window Window) *ledger {
		l := newLedger(t, Limit{Max: 10, Window: window})
		l.grant(hour, Requests(3))
		l.book.use(amounting(Requests(2)), l.at)
		l.verify()
		return l
	}
	for _, window := range everyWindow() {
		for name, harm := range map[string]func(b *Book){
			"held":      func(b *Book) { b.limits()[0].held++ },
			"reserved":  func(b *Book) { b.limits()[0].reserved++ },
			"negative":  func(b *Book) { b.limits()[0].used = -1 },
			"open":      func(b *Book) { b.today.known(atRequests).open-- },
			"estimate":  func(b *Book) { b.today.known(atRequests).estimated = 9 },
			"total":     func(b *Book) { b.today.known(atRequests).used = -1 },
			"tally":     func(b *Book) { b.holding().tally.settled++ },
			"lost":      func(b *Book) { b.holds.remove(b.holds.plain.oldest) },
			"immortal":  func(b *Book) { b.holds.expiry = nil },
			"late":      func(b *Book) { b.holds.plain.oldest.expires++ },
			"no slot":   func(b *Book) { b.holds.plain.oldest.slot = 0 },
			"by key":    func(b *Book) { b.holds.byKey = map[holdKey]*hold{} },
			"expired":   func(b *Book) { b.holds.late++ },
			"late keys": func(b *Book) { b.holds.lateByKey = map[holdKey]*hold{{}: nil} },
			"hold":      func(b *Book) { b.holds.plain.oldest.amounts.known[atRequests]++ },
		} {
			l := start(window)
			harm(l.book)
			err := l.book.verify()
			require.Error(t, err, "%v: %s", window, name)
			require.Contains(t, err.Error(), "quota: q: ")
		}
	}
	l := start(Rolling(time.Minute))
	l.account().slices[0].used--
	require.Error(t, l.book.verify())
	l = start(Rolling(time.Minute))
	l.account().slices[0].reserved--
	require.Error(t, l.book.verify())
}

func TestVerifyChangesNothing(t *testing.T) {
	t.Parallel()
	for _, window := range everyWindow() {
		l := newLedger(t, Limit{Max: 10, Window: window})
		l.grant(hour, Requests(3))
		before, reserved := l.text(), l.account().reserved
		l.verify()
		require.Equal(t, before, l.text())
		require.Equal(t, reserved, l.account().reserved)
	}
}
