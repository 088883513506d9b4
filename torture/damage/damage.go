// Package damage is the row that damages the files of a state in every way it can think of: each bit, each length, and
// whole files. What opens afterwards must be what was saved, or say that it is not.
package damage

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"sync"
	"sync/atomic"

	"example.com/quota/torture/harness"
)

// Row returns the row.
func Row() harness.Row {
	return harness.Row{
		Number:  6,
		Name:    "damage",
		Promise: "damage is never zero usage unseen",
		Unit:    "damaged states",
		Quick:   harness.All,
		Full:    harness.All,
		Run:     run,
		Faults: []harness.Fault{
			{
				Name:  "a decoder takes a negative number for none",
				Cases: 2000,
				Edits: []harness.Edit{{
					File: "bookread.go",
					Old:  "seen: int64(form.Seen), used: form.Used,",
					New:  "seen: int64(form.Seen), used: max(0, form.Used),",
				}},
			},
			{
				Name:  "the checksum is not compared",
				Cases: 4000,
				Edits: []harness.Edit{{
					File: "jsonfile_read.go",
					Old:  "		if !sealed(data) {",
					New:  "		if len(data) == 0 {",
				}},
			},
			{
				Name:  "what was recovered is not reported",
				Cases: 100,
				Edits: []harness.Edit{{
					File: "jsonfile.go",
					Old:  "	if len(f.report) < maxReport {",
					New:  "	if len(f.report) > maxReport {",
				}},
			},
		},
	}
}

// memory is where Linux keeps a file system in memory: the same code runs, and no disk is waited for.
const memory = "/dev/shm"

func run(ctx context.Context, run *harness.Run) error {
	defer debug.SetGCPercent(debug.SetGCPercent(1000)) // many small states, which leave nothing behind
	dir, err := os.MkdirTemp(memory, filepath.Base(run.Dir)+"-")
	if err != nil {
		dir = run.Dir
	} else {
		defer func() { _ = os.RemoveAll(dir) }()
	}
	whole, err := makeScene(filepath.Join(dir, "scene"))
	if err != nil {
		return err
	}
	cases := whole.cases(run.Random(6))
	giants := giants()
	if run.Cases != harness.All {
		cases, giants = cases[:min(run.Cases, len(cases))], nil
	}
	if err := inParallel(ctx, run, dir, whole, cases); err != nil {
		return err
	}
	debug.SetGCPercent(100)
	for _, one := range giants { // one after the other, because their memory is measured
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err := one.try(filepath.Join(dir, "giant"), whole); err != nil {
			return fmt.Errorf("%s: %w", one.name, err)
		}
		run.Done(1)
	}
	return nil
}

// inParallel tries the cases, each worker in a directory of its own, and returns the first case's error.
func inParallel(ctx context.Context, run *harness.Run, dir string, whole *scene, cases []damaged) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var (
		next  atomic.Int64
		group sync.WaitGroup
		errs  = make([]error, runtime.GOMAXPROCS(0))
	)
	for worker := range errs {
		group.Go(func() {
			place := filepath.Join(dir, fmt.Sprint("worker", worker))
			for ctx.Err() == nil {
				i := int(next.Add(1)) - 1
				if i >= len(cases) {
					return
				}
				if err := cases[i].try(place, whole); err != nil {
					errs[worker] = fmt.Errorf("case %d, %s: %w", i, cases[i].name(), err)
					cancel()
					return
				}
				run.Done(1)
			}
		})
	}
	group.Wait()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	return ctx.Err()
}
