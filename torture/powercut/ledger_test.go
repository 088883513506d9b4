package powercut

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestEventsAreReadAsTheyAreWritten(t *testing.T) {
	for _, e := range []event{
		{kind: begun, caller: 3, id: "7-3-1", effect: effect{1, -2, 3, -4}, settles: true},
		{kind: done, caller: 7, at: 123456789},
		{kind: failed, caller: 1, text: "two words\nand \"more\""},
		{kind: alerted, caller: 50, at: 5},
	} {
		read, err := parseEvent(e.String())
		require.NoError(t, err)
		require.Equal(t, e, read)
	}
	for _, line := range []string{"", "begun", "begun 1 - false 0 0 0 0 0", "begun x - false 0 0 0 0 0 \"\""} {
		_, err := parseEvent(line)
		require.Error(t, err, line)
	}
}

func TestWhatWasAcknowledgedMustBeFoundAndWhatWasUnderWayMay(t *testing.T) {
	l := newLedger()
	note := func(events ...event) {
		for _, e := range events {
			require.NoError(t, l.note(e))
		}
	}
	note(event{kind: begun, caller: 1, id: "a", effect: effect{held: 5}}, event{kind: done, caller: 1, at: 1})
	require.Equal(t, []effect{{held: 5}}, l.acceptable(1))
	require.Equal(t, map[string]int64{"a": 5}, l.open)

	note(event{kind: begun, caller: 1, id: "a", settles: true, effect: effect{used: 4, held: -5}})
	require.Equal(t, []effect{{held: 5}, {used: 4}}, l.acceptable(1))
	l.cut = 10
	note(event{kind: done, caller: 1, at: 9})
	require.Equal(t, []effect{{used: 4}}, l.acceptable(1))
	require.Equal(t, map[string]bool{"a": true}, l.settled)
	require.Empty(t, l.open)

	note(event{kind: begun, caller: 1, effect: effect{used: 1}}, event{kind: done, caller: 1, at: 11})
	note(event{kind: begun, caller: 1, effect: effect{used: 2}}, event{kind: failed, caller: 1})
	require.Equal(t, []effect{{used: 4}, {used: 5}, {used: 7}}, l.acceptable(1), "acknowledged after the cut")
	require.Error(t, l.note(event{kind: done, caller: 2, at: 9}), "it had not begun")

	l.alerts[20] = true
	next := l.settle([most]effect{1: {used: 7}})
	require.Equal(t, []effect{{used: 7}}, next.acceptable(1), "what was found is what is known")
	require.True(t, next.alerts[20])
	require.Empty(t, next.maybe)
}
