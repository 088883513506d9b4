// Package calendar is the row that goes through the calendars of every time zone there is and looks where windows
// begin and end. Days are counted by a clock of its own.
package calendar

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"

	"example.com/quota/torture/harness"
)

// Row returns the row.
func Row() harness.Row {
	return harness.Row{
		Number:  7,
		Name:    "calendar",
		Promise: "windows tile time",
		Unit:    "time zones",
		Quick:   60,
		Full:    harness.All,
		Run:     run,
		Faults: []harness.Fault{{
			Name:  "the day starts at Date(y, m, d, 0, 0)",
			Cases: 2,
			Edits: []harness.Edit{{
				File: "window.go",
				Old:  "	midnight := date * secondsPerDay\n",
				New: "	midnight := date * secondsPerDay\n" +
					"	if date > math.MinInt64/secondsPerDay {\n" +
					"		return time.Date(1970, 1, 1+int(date), 0, 0, 0, 0, loc).Unix()\n" +
					"	}\n",
			}},
		}},
	}
}

func run(ctx context.Context, run *harness.Run) error {
	all, err := zones(ctx)
	if err != nil {
		return err
	}
	for _, name := range strange() {
		if !slices.Contains(all, name) {
			return fmt.Errorf("this machine has no time zone %s, install all of tzdata", name)
		}
	}
	others := slices.DeleteFunc(all, func(name string) bool { return slices.Contains(strange(), name) })
	run.Random(7).Shuffle(len(others), func(i, j int) { others[i], others[j] = others[j], others[i] })
	chosen := append(strange(), others...)
	if run.Cases != harness.All {
		chosen = chosen[:min(run.Cases, len(chosen))]
	}

	defer debug.SetGCPercent(debug.SetGCPercent(800)) // much is looked at, and nothing kept
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var (
		next  atomic.Int64
		group sync.WaitGroup
		errs  = make([]error, runtime.GOMAXPROCS(0))
	)
	for worker := range errs {
		group.Go(func() {
			for ctx.Err() == nil {
				i := int(next.Add(1)) - 1
				if i >= len(chosen) {
					return
				}
				if err := walk(ctx, chosen[i]); err != nil {
					errs[worker] = fmt.Errorf("%s: %w", chosen[i], err)
					cancel()
					return
				}
				run.Done(1)
			}
		})
	}
	group.Wait()
	for i, err := range errs {
		if err != nil && errors.Is(err, context.Canceled) {
			errs[i] = nil // another worker was quicker, or all were told to stop
		}
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	return ctx.Err()
}
