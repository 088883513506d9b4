// Torture tries to break each promise of the quota library, and shows for each attempt that it would have noticed: a
// row's harness runs against the library as it is, where it must find nothing, and against the library with a fault
// built in, where it must find it.
//
//	go run .                      a quick run of every row
//	go run . -full                the whole numbers
//	go run . -rows kill,alerts    only these
//	go run . -seed 42             the same random numbers again
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"example.com/quota/torture/alerts"
	"example.com/quota/torture/calendar"
	"example.com/quota/torture/clocks"
	"example.com/quota/torture/damage"
	"example.com/quota/torture/failing"
	"example.com/quota/torture/harness"
	"example.com/quota/torture/hostile"
	"example.com/quota/torture/kill"
	"example.com/quota/torture/ledger"
	"example.com/quota/torture/linear"
	"example.com/quota/torture/mutants"
	"example.com/quota/torture/powercut"
)

// Exit codes: a row that found a violation ends with broken, one that could not work with unable.
const (
	broken = 1
	usage  = 2
	unable = 3
)

// rows returns every row, by number.
func rows() []harness.Row {
	return []harness.Row{
		ledger.Row(), linear.Row(), kill.Row(), powercut.Row(), failing.Row(), damage.Row(), calendar.Row(), clocks.Row(),
		alerts.Row(), hostile.Row(), mutants.Row(),
	}
}

func main() { os.Exit(run()) }

func run() int {
	if len(os.Args) > 2 && os.Args[1] == harness.WorkerFlag {
		return work(os.Args[2], os.Args[3:])
	}
	var (
		full   = flag.Bool("full", false, "run the whole numbers")
		names  = flag.String("rows", "", "rows to run, by name, with commas between; none: all")
		seed   = flag.Uint64("seed", 0, "seed of the random numbers; 0: a new one")
		cases  = flag.Int("cases", 0, "cases of each row; 0: the row's own number, -1: all there are")
		faults = flag.Bool("faults", true, "look for the seeded faults too")
		record = flag.Bool("record", false, "write what a run of every row has found into README.md, if all pass")
		single = flag.String("row", "", "run one row in this process and print what it finds (what the program starts itself with)")
	)
	flag.Parse()
	if flag.NArg() > 0 {
		fmt.Fprintf(os.Stderr, "torture: %q is not a flag; see -help\n", flag.Arg(0))
		return usage
	}
	if *seed == 0 {
		*seed = uint64(time.Now().UnixNano()) % 1e9
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()

	if *single != "" {
		row, err := find(*single)
		if err != nil {
			fmt.Fprintln(os.Stderr, "torture:", err)
			return usage
		}
		return runHere(ctx, row, *seed, numberOf(row, *cases, *full))
	}
	chosen, err := choose(*names)
	if err != nil {
		fmt.Fprintln(os.Stderr, "torture:", err)
		return usage
	}
	driver := driver{seed: *seed, full: *full, cases: *cases, faults: *faults, record: *record, out: os.Stdout}
	if err := driver.run(ctx, chosen); err != nil {
		fmt.Fprintln(os.Stderr, "torture:", err)
		return broken
	}
	return 0
}

// work does what a worker of that name does.
func work(name string, args []string) int {
	for _, row := range rows() {
		if do, ok := row.Workers[name]; ok {
			if err := do(args); err != nil {
				fmt.Fprintf(os.Stderr, "torture: %s: %v\n", name, err)
				if harness.IsViolation(err) {
					return broken
				}
				return unable
			}
			return 0
		}
	}
	fmt.Fprintf(os.Stderr, "torture: no worker is called %q\n", name)
	return usage
}

// runHere runs one row in this process. Its last line on standard output is the number of cases.
func runHere(ctx context.Context, row harness.Row, seed uint64, cases int) int {
	dir, err := os.MkdirTemp("", "torture-"+row.Name+"-")
	if err != nil {
		fmt.Fprintln(os.Stderr, "torture:", err)
		return unable
	}
	defer func() { _ = os.RemoveAll(dir) }()
	one := &harness.Run{Seed: seed, Cases: cases, Dir: dir}
	err = row.Run(ctx, one)
	fmt.Println(one.Tried())
	if err == nil {
		return 0
	}
	fmt.Fprintf(os.Stderr, "%s, seed %d, after %d %s: %v\n", row.Name, seed, one.Tried(), row.Unit, err)
	if harness.IsViolation(err) {
		return broken
	}
	return unable
}

// numberOf is how many cases of the row to run.
func numberOf(row harness.Row, asked int, full bool) int {
	switch {
	case asked != 0:
		return asked
	case full:
		return row.Full
	default:
		return row.Quick
	}
}

func find(name string) (harness.Row, error) {
	all := rows()
	if i := slices.IndexFunc(all, func(row harness.Row) bool { return row.Name == name }); i >= 0 {
		return all[i], nil
	}
	known := make([]string, len(all))
	for i, row := range all {
		known[i] = row.Name
	}
	return harness.Row{}, fmt.Errorf("no row is called %q; there are %s", name, strings.Join(known, ", "))
}

// choose returns the rows named in a list with commas, or all of them.
func choose(names string) ([]harness.Row, error) {
	if names == "" {
		return rows(), nil
	}
	var chosen []harness.Row
	for name := range strings.SplitSeq(names, ",") {
		row, err := find(strings.TrimSpace(name))
		if err != nil {
			return nil, err
		}
		chosen = append(chosen, row)
	}
	return chosen, nil
}

// missing says what a row needs and this machine has not.
func missing(row harness.Row) []string {
	var missing []string
	if row.Root && os.Geteuid() != 0 {
		missing = append(missing, "to be root")
	}
	for _, tool := range row.Tools {
		if _, err := exec.LookPath(tool); err != nil {
			missing = append(missing, tool)
		}
	}
	return missing
}

var errFailed = errors.New("not every row passed")
