// Package clocks checks what becomes of the windows when the clock steps, stands still or comes back: none is opened
// again, none gets stuck, and nothing is admitted above Max but what the documentation says it cannot promise.
package clocks

import (
	"context"
	"fmt"

	"example.com/quota/torture/harness"
)

// Row returns the row.
func Row() harness.Row {
	return harness.Row{
		Number:  8,
		Name:    "clocks",
		Promise: "a clock that steps reopens no window and leaves none stuck",
		Unit:    "traces",
		Quick:   2000,
		Full:    100_000,
		Run:     run,
		Faults: []harness.Fault{
			{
				Name:  "now is read before the lock",
				Cases: 200,
				Edits: []harness.Edit{
					{File: "change.go", Old: "\tfor i := range pages {\n\t\tfor {\n", New: "\tnow := t.bookTime()\n\tfor i := range pages {\n\t\tfor {\n"},
					{File: "change.go", Old: "\tnow := t.bookTime()\n\tfor i := range pages {\n\t\tp := &pages[i]\n", New: "\tfor i := range pages {\n\t\tp := &pages[i]\n"},
				},
			},
			{
				Name:  "a window is opened again by a clock that steps back",
				Cases: 200,
				Edits: []harness.Edit{{
					File: "turn.go",
					Old:  "\tcase b.clock-now > day:\n",
					New:  "\tcase b.clock-now > day/4:\n",
				}},
			},
			{
				Name:  "a clock that comes back leaves the windows ahead",
				Cases: 200,
				Edits: []harness.Edit{{
					File: "turn.go",
					Old:  "\tcase b.clock-now > day:\n",
					New:  "\tcase b.clock-now > 1000*day:\n",
				}},
			},
			{
				Name:  "expiries are not clamped",
				Cases: 200,
				Edits: []harness.Edit{{
					File: "turn.go",
					Old:  "\t\tb.holds.extend(h, min(h.expires, now+h.ttl))\n",
					New:  "\n",
				}},
			},
		},
	}
}

func run(ctx context.Context, run *harness.Run) error {
	all := shapes()
	for n := 0; n < run.Cases && ctx.Err() == nil; n++ {
		tr, err := newTrace(run.Random(uint64(n)), all)
		if err == nil {
			err = tr.run(n%raceEvery == 0, n%waitEvery == 1)
		}
		if err != nil {
			if harness.IsViolation(err) {
				return harness.Violated("trace %d: %v", n, err)
			}
			return fmt.Errorf("trace %d: %w", n, err)
		}
		run.Done(1)
	}
	return ctx.Err()
}
