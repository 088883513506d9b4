// Package linear is the row that shows the tracker to be linearizable: whatever many goroutines and processes are told
// at the same time could also have been told them one after the other.
package linear

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/anishathalye/porcupine"

	"example.com/quota/torture/harness"
)

const (
	workerName = "linear-process"
	processes  = 4                // at most
	patience   = 30 * time.Second // of the checker with one quota of one history
	bound      = 30 * time.Second // of one history
	exactly    = 8                // calls at once of which everything is checked
)

// Row returns the row.
func Row() harness.Row {
	return harness.Row{
		Number:  2,
		Name:    "linear",
		Promise: "calls of many goroutines and processes take effect one after the other",
		Unit:    "histories",
		Quick:   50,
		Full:    1000,
		Race:    true,
		Run:     run,
		Workers: map[string]func([]string) error{workerName: work},
		Faults:  faults(),
	}
}

// run records histories and checks each.
func run(ctx context.Context, run *harness.Run) error {
	runtime.LockOSThread() // the workers end with the thread that starts them
	defer runtime.UnlockOSThread()
	var pool []*process
	defer func() {
		for _, one := range pool {
			one.stop()
		}
	}()
	if everyProcess {
		for range processes {
			one, err := startProcess(ctx)
			if err != nil {
				return err
			}
			pool = append(pool, one)
		}
	}
	var unknown error // that something is wrong says more than that something could not be found out
	for i := range run.Cases {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := history(ctx, run, i, pool); harness.IsViolation(err) {
			return err
		} else if err != nil {
			if unknown != nil {
				return errors.Join(unknown, err)
			}
			unknown = err
			continue
		}
		run.Done(1)
	}
	return unknown
}

// history records one history and checks it.
func history(ctx context.Context, run *harness.Run, number int, pool []*process) error {
	p, many := draw(run, number, len(pool))
	var events []event
	var err error
	within := make(chan struct{})
	go func() {
		defer close(within)
		if many > 0 {
			events, err = together(ctx, p, pool[:many])
		} else {
			events, err = alone(ctx, p)
		}
	}()
	select {
	case <-within:
	case <-time.After(bound):
		return harness.Violated("history %d (%+v, %d processes) is not over after %v:\n%s", number, p, many, bound, stacks())
	}
	if err != nil {
		return fmt.Errorf("history %d: %w", number, err)
	}
	for i := range names {
		if err := judge(events, i, p.Limits[i]); err != nil {
			return fmt.Errorf("history %d, %d processes, %+v: %w", number, many, p, err)
		}
	}
	return nil
}

// draw decides what a history is like. many is the number of processes; 0: this one.
func draw(run *harness.Run, number, pool int) (p plan, many int) {
	random := run.Random(uint64(number))
	p = plan{Seed: run.Seed, Case: number, Reads: random.IntN(30)}
	for i := range p.Limits {
		p.Limits[i] = 8 + random.Int64N(40)
	}
	if random.IntN(2) == 0 {
		p.Ending = 1 + random.IntN(6)
	}
	path := filepath.Join(run.Dir, fmt.Sprint("history-", number), "quota_state.json")
	p.Clients = []int{2, 3, 4, 6, 8, 8, 12, 16, 16, 24, 32, 64}[random.IntN(12)]
	p.Calls = max(2, (80+random.IntN(120))/p.Clients) // larger ones cannot be checked to the end
	if p.Clients >= 24 {
		p.Calls = max(1, (60+random.IntN(60))/p.Clients) // nor can those of which so many are at work at once
	}
	switch kind := number % 4; {
	case kind == 0:
	case kind == 1:
		p.Path, p.Lazy = path, true
	case kind == 2 || pool == 0:
		p.Path = path
	default:
		p.Path = path
		many = 2 + random.IntN(pool-1)
		p.Clients = 1 + random.IntN(8)
		p.Calls = max(3, (60+random.IntN(60))/(many*p.Clients))
	}
	// What many calls at once have seen has so many possible orders that only a part of it can be checked.
	p.Exact = 100
	if crowd := p.Clients * max(1, many); crowd > exactly {
		p.Crowd, p.Exact, p.Reads, p.Ending = true, 0, 0, min(p.Ending, 2)
		for i := range p.Limits {
			p.Limits[i] += int64(2 * crowd)
		}
	}
	return p, many
}

// alone records a history of this process.
func alone(ctx context.Context, p plan) ([]event, error) {
	tracker, err := p.open(ctx)
	if err != nil {
		return nil, harness.Violated("opening: %v", err)
	}
	events, err := p.run(tracker)
	if err != nil {
		return nil, harness.Violated("a call returned what it must not: %v", err)
	}
	if p.Path == "" {
		// Nothing is kept beyond the tracker: look before it is closed.
		if err := tracker.Flush(ctx); err != nil {
			return nil, harness.Violated("Flush: %v", err)
		}
		events, err = finish(p, tracker, events)
		if err != nil {
			return nil, err
		}
	}
	if err := tracker.Close(); err != nil {
		return nil, harness.Violated("Close: %v", err)
	}
	return reopened(ctx, p, events)
}

// together records a history of several processes.
func together(ctx context.Context, p plan, pool []*process) ([]event, error) {
	for i, one := range pool {
		p.Process = i
		if err := one.open(p); err != nil {
			return nil, err
		}
	}
	for _, one := range pool {
		if err := one.begin(); err != nil {
			return nil, one.ended(err)
		}
	}
	var events []event
	for _, one := range pool {
		said, err := one.answer()
		if err != nil {
			return nil, err
		}
		if said.Wrong != "" {
			return nil, harness.Violated("a call returned what it must not: %s", said.Wrong)
		}
		events = append(events, said.Events...)
	}
	return reopened(ctx, p, events)
}

// judge asks whether the calls could have followed each other, as one quota sees them.
func judge(events []event, which int, limit int64) error {
	list := slices.DeleteFunc(slices.Clone(events), func(e event) bool { return e.Quota != which })
	switch check(list, limit) {
	case porcupine.Ok:
		return nil
	case porcupine.Unknown:
		return fmt.Errorf("whether these %d calls on %s are linearizable could not be found out in %v", len(list),
			names[which], patience)
	}
	return harness.Violated("%s, with a limit of %d: no order explains what these calls were told:\n%s", names[which], limit,
		tell(list))
}

// tell writes a history down, by the time of the calls.
func tell(list []event) string {
	slices.SortFunc(list, func(x, y event) int { return cmp.Compare(x.Call, y.Call) })
	var text strings.Builder
	first := list[0].Call
	for _, e := range list {
		e.Call -= first
		e.Return -= first
		fmt.Fprintln(&text, e)
	}
	return text.String()
}

// stacks are those of every goroutine.
func stacks() string {
	buffer := make([]byte, 1<<20)
	return string(buffer[:runtime.Stack(buffer, true)])
}
