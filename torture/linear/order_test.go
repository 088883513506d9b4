package linear

import (
	"testing"

	"github.com/anishathalye/porcupine"
	"github.com/stretchr/testify/require"

	"example.com/quota/torture/harness"
)

// at is an event that lasts from call to end.
func at(call, end int64, e event) event {
	e.Call, e.Return = call, end
	if e.Outcome == "" {
		e.Outcome = done
	}
	return e
}

func TestTheModelTellsRightHistoriesFromWrongOnes(t *testing.T) {
	saw := func(used, reserved int64) event { return event{Kind: look, Seen: true, Used: used, Reserved: reserved} }
	held := func(number int, n int64) event { return event{Kind: reserve, Hold: number, N: n, Plain: true} }
	for _, one := range []struct {
		name    string
		limit   int64
		history []event
		want    porcupine.CheckResult
	}{
		{"one after the other", 10, []event{
			at(1, 2, held(1, 6)), at(3, 4, event{Kind: commit, Hold: 1, N: 2, Plain: true}), at(5, 6, saw(2, 0)),
		}, porcupine.Ok},
		{"granted beyond the limit", 10, []event{at(1, 4, held(1, 6)), at(2, 3, held(2, 6))}, porcupine.Illegal},
		{"refused with room", 10, []event{
			at(1, 2, held(1, 6)), at(3, 4, event{Kind: reserve, Hold: 2, N: 4, Outcome: refused}),
		}, porcupine.Illegal},
		{"refused before the room came", 10, []event{
			at(1, 2, held(1, 6)), at(3, 9, event{Kind: reserve, Hold: 2, N: 5, Outcome: refused}),
			at(4, 5, event{Kind: release, Hold: 1, Plain: true}),
		}, porcupine.Ok},
		{"lost usage", 10, []event{at(1, 2, event{Kind: record, N: 3}), at(3, 4, saw(0, 0))}, porcupine.Illegal},
		{"usage uses up the oldest hold", 10, []event{
			at(1, 2, held(1, 2)), at(3, 4, held(2, 4)), at(5, 6, event{Kind: record, N: 3}), at(7, 8, saw(3, 3)),
			at(9, 10, event{Kind: release, Hold: 1, Plain: true, Outcome: settled}),
			at(11, 12, event{Kind: commit, Hold: 2, Plain: true, AsHeld: true}), at(13, 14, saw(6, 0)),
		}, porcupine.Ok},
		{"an unknown outcome that was seen and taken back", 10, []event{
			at(1, 20, event{Kind: mayReserve, Hold: 1, N: 5}), at(1, 20, event{Kind: undo, Hold: 1, N: 5}),
			at(3, 4, saw(0, 5)), at(5, 6, saw(0, 0)), at(21, 22, saw(0, 0)),
		}, porcupine.Ok},
		{"an unknown outcome that comes back", 10, []event{
			at(1, 20, event{Kind: mayReserve, Hold: 1, N: 5}), at(1, 20, event{Kind: undo, Hold: 1, N: 5}),
			at(3, 4, saw(0, 5)), at(5, 6, saw(0, 0)), at(7, 8, saw(0, 5)),
		}, porcupine.Illegal},
	} {
		require.Equal(t, one.want, check(one.history, one.limit), one.name)
	}
}

func TestRow(t *testing.T) {
	for number := range 9 {
		if number%4 == 3 {
			continue // processes are what the program starts
		}
		run := &harness.Run{Seed: 7, Cases: 1, Dir: t.TempDir()}
		require.NoError(t, history(t.Context(), run, number, nil))
	}
}
