package quota

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestLinesOfABookAreIndentedByTheirNesting(t *testing.T) {
	t.Parallel()
	l := fullLedger(t)
	l.book.details().imported = &imported{1, 2, 3}
	require.NotEmpty(t, l.book.finished())
	require.NotEmpty(t, l.book.outbox())
	text, err := l.book.form().appendTo(nil, true)
	require.NoError(t, err)
	depth, alone := 2, map[string]bool{}
	for i, line := range strings.Split(string(text), "\n") {
		content := strings.TrimLeft(line, " ")
		require.NotEmpty(t, content)
		if strings.ContainsRune("]}", rune(content[0])) {
			depth--
		}
		if i > 0 { // the first follows the name of the book
			require.Equal(t, 2*depth, len(line)-len(content), "%q", line)
		}
		depth += strings.Count(content, "{") + strings.Count(content, "[") - strings.Count(content, "}") - strings.Count(content, "]")
		if strings.ContainsRune("]}", rune(content[0])) {
			depth++
		}
		name, _, _ := strings.Cut(content, ":")
		alone[name] = true
	}
	require.Equal(t, 2, depth)
	for _, name := range []string{`"accounts"`, `"key"`, `"day"`, `"denied_by"`, `"threshold"`, `"limit"`} {
		require.True(t, alone[name], "%s has no line of its own", name)
	}
	require.Contains(t, string(text), `"imported": {"used": 1, "reserved": 2, "ends": `)
}

func TestABookDoesNotMentionWhatIsNotThere(t *testing.T) {
	t.Parallel()
	l := newLedger(t, Limit{Max: 10})
	for _, nothing := range []string{"{}", "[]", "null", ":0,", ":0}"} {
		require.NotContains(t, l.text(), nothing)
	}
}

func TestTheOneAlertOfADayIsReadAgain(t *testing.T) {
	t.Parallel()
	l := newLedger(t, Limit{Max: 10, AlertThresholds: []int{50}})
	l.record(Requests(5))
	require.Len(t, l.book.today.alerts(), 1)
	before := l.text()
	l.reload()
	requireSame(t, before, l.text())
}

func TestHoldsOfOtherQuotasAreRefusedInABook(t *testing.T) {
	t.Parallel()
	longest := strings.Repeat("x", maxNameBytes)
	for _, expired := range []bool{false, true} {
		l := newLedger(t, Limit{Max: 10})
		l.number++
		l.book.grant(&hold{
			key: holdKey{7, l.number}, quotas: []string{"q", longest}, amounts: *amounting(Requests(1)), ttl: minute, expires: l.at + minute,
		}, l.at)
		if expired {
			l.pass(minute)
		}
		var b Book
		require.NoError(t, json.Unmarshal([]byte(l.text()), &b))
		require.NoError(t, b.belongs("q"))
		require.NoError(t, b.belongs(longest))
		require.ErrorContains(t, b.belongs("other"), "of other quotas")
		require.Error(t, json.Unmarshal([]byte(strings.ReplaceAll(l.text(), longest, longest+"x")), &Book{}))
	}
}
