// Bench measures the quota library and its peers on the same work, in one process and one run, and judges the ratios.
//
//	go run .                  measures everything, writes RESULTS.md, exits 1 if a goal is missed by more than 10 %
//	go run . -goal 1,2        measures these rows and prints them
//	go run . -quick           runs each row for a moment, checks the allocations and that the README has RESULTS.md's table
//	go run . -readme          puts that table into the README
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

func main() {
	if obey() {
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	failed, err := run(ctx, os.Args[1:])
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
	}
	if failed || err != nil {
		os.Exit(1)
	}
}

// background is what a child measures under: its parent ends it.
func background() context.Context { return context.Background() }

const million = 1_000_000

type options struct {
	quick, toREADME bool
	goals           string
	rounds          int
	time            time.Duration
	seed            uint64
	trace, root     string
}

func parse(args []string) (o options, err error) {
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.BoolVar(&o.quick, "quick", false, "run each row for a moment; check allocations, judge nothing else")
	flags.BoolVar(&o.toREADME, "readme", false, "put the table of RESULTS.md into the README, measure nothing")
	flags.StringVar(&o.goals, "goal", "", "rows to measure, as in 1,2,7; RESULTS.md stays as it is")
	flags.IntVar(&o.rounds, "rounds", 6, "how often each side is measured")
	flags.DurationVar(&o.time, "time", 200*time.Millisecond, "for how long each side is measured in each round; where the disk is waited for, four times as long")
	flags.Uint64Var(&o.seed, "seed", 1, "of the keys and the order in which they are drawn")
	flags.StringVar(&o.trace, "trace", filepath.FromSlash("../../shared/traces/azure_llm_code_2023.csv"), "an hour of real traffic, for row 13")
	flags.StringVar(&o.root, "root", "..", "where the README is; RESULTS.md is in bench below it")
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	if flags.NArg() > 0 || o.rounds < 1 || o.time <= 0 {
		return o, errors.New("wrong arguments: see -h")
	}
	return o, nil
}

func (o options) results() string { return filepath.Join(o.root, "bench", "RESULTS.md") }
func (o options) readme() string  { return filepath.Join(o.root, "README.md") }

// run does what the arguments say. failed: a goal was missed by more than the tolerance, or an exact check failed.
func run(ctx context.Context, args []string) (failed bool, err error) {
	o, err := parse(args)
	if errors.Is(err, flag.ErrHelp) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if o.toREADME {
		return false, fillREADME(o.readme(), o.results())
	}
	chosen, err := choose(o.goals)
	if err != nil {
		return false, err
	}
	b := &bench{pace: pace{rounds: o.rounds, time: o.time}, ctx: ctx, keys: million, seed: o.seed, trace: o.trace, log: os.Stdout}
	if o.quick {
		b.hurry()
	}
	// Beside this program's sources, on the disk that the results speak of: a temporary directory may be memory.
	if b.dir, err = os.MkdirTemp(".", ".scratch"); err != nil {
		return false, err
	}
	defer func() {
		if removed := os.RemoveAll(b.dir); err == nil {
			err = removed
		}
	}()
	begun := time.Now()
	results, err := b.measure(chosen)
	if err != nil {
		return false, err
	}
	for _, broken := range b.broken {
		fmt.Fprintln(b.log, "FAILED:", broken)
	}
	failed = len(b.broken) > 0
	if o.quick {
		fmt.Fprintf(b.log, "\n%.1f s. These numbers say that everything runs, not how fast.\n", time.Since(begun).Seconds())
		return failed, agree(o.readme(), o.results())
	}
	for _, line := range results.findings() {
		failed = failed || line.failed()
	}
	fmt.Fprintf(b.log, "\n%.0f s\n", time.Since(begun).Seconds())
	if o.goals != "" {
		return failed, nil
	}
	results.took = time.Since(begun)
	return failed, os.WriteFile(o.results(), []byte(results.markdown(machineOf(b))), 0o644)
}

// hurry makes each row run for a moment.
func (b *bench) hurry() {
	b.quick, b.rounds, b.time, b.keys = true, 2, 5*time.Millisecond, 20_000
}

// fully returns d, but nothing in a quick run.
func (b *bench) fully(d time.Duration) time.Duration {
	if b.quick {
		return 0
	}
	return d
}

// choose returns the rows that a list of numbers names; all, if it names none. The floor always runs.
func choose(list string) ([]row, error) {
	if list == "" {
		return rows(), nil
	}
	wanted := []int{0}
	for text := range strings.SplitSeq(list, ",") {
		n, err := strconv.Atoi(strings.TrimSpace(text))
		if err != nil || n < 0 || !slices.ContainsFunc(rows(), func(r row) bool { return r.number == n }) {
			return nil, fmt.Errorf("-goal: %q is not the number of a row", text)
		}
		wanted = append(wanted, n)
	}
	return slices.DeleteFunc(rows(), func(r row) bool { return !slices.Contains(wanted, r.number) }), nil
}

// measure runs rows and prints what they find as they find it.
func (b *bench) measure(chosen []row) (*results, error) {
	b.notes = map[int][]string{}
	all := &results{rounds: b.rounds, time: b.time, seed: b.seed, floor: &b.floor}
	for _, r := range chosen {
		begun := time.Now()
		lines, err := r.measure(b)
		if err != nil {
			return nil, fmt.Errorf("row %d (%s): %w", r.number, r.title, err)
		}
		all.parts = append(all.parts, part{r, lines, b.notes[r.number]})
		fmt.Fprintf(b.log, "\n%d. %s (%.1f s)\n", r.number, r.title, time.Since(begun).Seconds())
		for _, line := range lines {
			fmt.Fprintln(b.log, "  "+line.String())
		}
		for _, note := range b.notes[r.number] {
			fmt.Fprintln(b.log, "  "+note)
		}
		if err := b.ctx.Err(); err != nil {
			return nil, err
		}
	}
	return all, nil
}
