// Package alerts is the row that shows each crossing of a threshold to be told, and told once, unless a process dies
// between telling it and saving that.
package alerts

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"

	"example.com/quota/torture/harness"
)

// crossName is the name of a worker.
const crossName = "alerts-cross"

// Crowds and groups of processes among the cases, beside every point at which a process can be killed.
const (
	crowds = 20
	groups = 8
)

// Row returns the row.
func Row() harness.Row {
	return harness.Row{
		Number:  9,
		Name:    "alerts",
		Promise: "each threshold is told once",
		Unit:    "kills and crowds",
		Quick:   harness.All,
		Full:    1200,
		Run:     run,
		Workers: workers(),
		Faults:  faults(),
	}
}

// A trial is one case, in an empty directory of its own.
type trial func(dir string, number int) error

// run tries every case once, in an order of the seed, and then from the beginning with other random numbers.
func run(ctx context.Context, run *harness.Run) error {
	runtime.LockOSThread() // the workers end with the thread that starts them
	defer runtime.UnlockOSThread()
	scratch, err := os.MkdirTemp(run.Dir, "kills-")
	if err != nil {
		return err
	}
	trials, err := kills(ctx, scratch)
	if err != nil {
		return err
	}
	for range crowds {
		trials = append(trials, func(dir string, number int) error {
			return crowded(ctx, dir, run.Random(uint64(number)))
		})
	}
	for range groups {
		trials = append(trials, func(dir string, number int) error {
			return processes(ctx, dir, run.Random(uint64(number)))
		})
	}
	cases := run.Cases
	if cases == harness.All {
		cases = len(trials)
	}
	order := run.Random(0).Perm(len(trials))
	for number := range cases {
		if err := ctx.Err(); err != nil {
			return err
		}
		dir := filepath.Join(run.Dir, fmt.Sprint(number))
		if err := trials[order[number%len(order)]](dir, number+1); err != nil {
			return fmt.Errorf("case %d: %w", number, err)
		}
		if err := os.RemoveAll(dir); err != nil {
			return err
		}
		run.Done(1)
	}
	return nil
}

func faults() []harness.Fault {
	return []harness.Fault{
		{
			Name:  "marks are saved after delivery",
			Cases: 40,
			Edits: []harness.Edit{{
				File: "updating.go",
				Old:  "\t\tb.due = append(b.due, book.claim(t.writer, b.now)...)\n",
				New: `		for _, alert := range book.claim(t.writer, b.now) {
			t.call(alert)
			book.delivered([]string{alert.ID})
		}
`,
			}},
		},
		{
			Name:  "an alert that was claimed is never taken over",
			Cases: 40,
			Edits: []harness.Edit{{
				File: "outbox.go",
				Old:  "\t\tif d.writer == 0 || d.writer != writer && now-d.claimed >= takeOverAlerts {\n",
				New:  "\t\tif d.writer == 0 {\n",
			}},
		},
	}
}
