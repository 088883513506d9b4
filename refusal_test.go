package quota

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const byRequests = "requests per day"

func TestARefusalCountsOnItsDayWhereverThatIsKept(t *testing.T) {
	l := newLedger(t, Limit{Max: 1})
	one := l.book.refusalFor(byRequests)
	require.Equal(t, inBook, l.book.refuse(l.rules, one, l.at))
	require.EqualValues(t, 1, l.book.today.denied)

	l.pass(day)
	require.Equal(t, inBook, l.book.refuse(l.rules, one, l.at))
	require.Zero(t, l.book.today.denied)
	past := l.book.takeFinished()
	require.Len(t, past, 1)
	require.Equal(t, map[string]int64{byRequests: 2}, past[0].DeniedBy)

	l.rules.history = func(string) []DaySummary { return past }
	require.Equal(t, inHistory, l.book.refuse(l.rules, one, l.at))
	require.Zero(t, l.book.today.denied)
	again := l.book.takeFinished()
	require.Len(t, again, 1)
	require.EqualValues(t, 3, again[0].Denied)
	require.EqualValues(t, 2, past[0].Denied, "which others may be reading")

	l.rules.history = func(string) []DaySummary { return nil }
	require.Equal(t, inBook, l.book.refuse(l.rules, one, l.at), "nothing is known of its day: it counts today")
	require.EqualValues(t, 1, l.book.today.denied)
	require.Empty(t, l.book.finished())
}

func TestATemplateForgetsRefusalsOfPastDays(t *testing.T) {
	l := newLedger(t, Limit{Max: 1})
	l.rules.template = true
	one := l.book.refusalFor(byRequests)
	require.Equal(t, inBook, l.book.refuse(l.rules, one, l.at))
	l.pass(day)
	require.Equal(t, nowhere, l.book.refuse(l.rules, one, l.at))
	require.Zero(t, l.book.today.denied)
}

func TestARefusalDoesNotMoveABookIntoTheFuture(t *testing.T) {
	l := newLedger(t, Limit{Max: 1})
	one := l.book.refusalFor(byRequests)
	one.at += int64(time.Hour) // by a clock that has stepped back since
	require.Equal(t, inBook, l.book.refuse(l.rules, one, l.at))
	require.Equal(t, l.now, l.book.clock)
	require.EqualValues(t, 1, l.book.today.denied)
}

func TestRefusalsAreAddedUpByReasonDayAndUpdate(t *testing.T) {
	list := refusals{}
	base := refusal{by: "a", n: 1, day: 1}
	others := []refusal{{by: "b", n: 1, day: 1}, {by: "a", n: 1, day: 2}, {by: "a", n: 1, day: 1, batch: 3}}
	for range 2 {
		list.add("q", base)
		for _, other := range others {
			list.add("q", other)
		}
	}
	require.Len(t, list["q"], 4)
	for _, one := range list["q"] {
		require.EqualValues(t, 2, one.n)
	}
	list.settle("q", append(others, base))
	require.Len(t, list["q"], 4)
	list.settle("q", append(others, base))
	require.Empty(t, list)
}
