// Package hostile is the row that treats the tracker badly: callbacks that block, panic and call back, contexts that
// end at any moment, Close in the middle of everything, and another process that stops with the file's lock in its hand.
package hostile

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"

	"go.uber.org/goleak"

	"example.com/quota/torture/harness"
)

const holderName = "hostile-holder"

// Row returns the row.
func Row() harness.Row {
	return harness.Row{
		Number:  10,
		Name:    "hostile",
		Promise: "nothing that callers do blocks the tracker or loses what it has acknowledged",
		Unit:    "cases",
		Quick:   50,
		Full:    1000,
		Race:    true,
		Run:     run,
		Workers: map[string]func([]string) error{holderName: hold},
		Faults: []harness.Fault{{
			Name:  "the callback runs under the lock",
			Cases: 20,
			Edits: []harness.Edit{{
				File: "change.go",
				Old:  "\t\t\tdue = append(due, p.book.claim(t.writer, p.now)...)\n",
				New: `			for _, alert := range p.book.claim(t.writer, p.now) {
				t.call(alert)
				p.book.delivered([]string{alert.ID})
			}
`,
			}},
		}},
	}
}

// Every how many cases another process stops, and every how many it stays stopped for so long that bounds are reached.
const (
	stops     = 5
	longStops = 250
)

func run(ctx context.Context, run *harness.Run) error {
	runtime.LockOSThread() // the workers end with the thread that starts them
	defer runtime.UnlockOSThread()
	for number := range run.Cases {
		if err := ctx.Err(); err != nil {
			return err
		}
		dir := filepath.Join(run.Dir, fmt.Sprint(number))
		if err := os.Mkdir(dir, 0o700); err != nil {
			return err
		}
		before := descriptors()
		there := goleak.IgnoreCurrent()
		var what string
		var err error
		if number%stops == stops-1 {
			long := number%longStops == longStops-1
			what = fmt.Sprintf("another process that stops, for long: %v", long)
			err = stopped(ctx, filepath.Join(dir, "quota_state.json"), run.Random(uint64(number)), long)
		} else {
			l := draw(dir, run.Random(uint64(number)))
			what = l.String()
			err = guard(func() error { return l.run(ctx) })
		}
		if err == nil {
			if leak := goleak.Find(there); leak != nil {
				err = harness.Violated("goroutines are left: %v", leak)
			} else if after := descriptors(); number > 0 && len(after) > len(before) { // the first opens what the runtime keeps
				err = harness.Violated("descriptors are left: %v, there were %v", after, before)
			}
		}
		if err != nil {
			return fmt.Errorf("case %d (%s): %w", number, what, err)
		}
		if err := os.RemoveAll(dir); err != nil {
			return err
		}
		run.Done(1)
	}
	return nil
}

// descriptors lists the open files, where the system tells.
func descriptors() []string {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return nil
	}
	var list []string
	for _, entry := range entries {
		target, err := os.Readlink(filepath.Join("/proc/self/fd", entry.Name()))
		if errors.Is(err, os.ErrNotExist) {
			continue // the one that the list was read with
		}
		list = append(list, entry.Name()+" "+target)
	}
	return list
}
