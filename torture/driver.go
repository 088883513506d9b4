package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"example.com/quota/torture/harness"
)

// atOnce is how many rows run side by side.
const atOnce = 2

// driver runs rows in processes of their own and prints a line for each.
type driver struct {
	seed   uint64
	full   bool
	cases  int
	faults bool
	record bool // write the lines of a run in which every row has passed into README.md
	out    io.Writer

	module string // where this module's source is
	dir    string // for the programs that are built
	plain  program
	race   program

	printing sync.Mutex // protects lines, and prints one at a time
	lines    []string   // of rows that have passed
}

// program is this program, built once, when it is first wanted.
type program struct {
	once sync.Once
	path string
	err  error
}

func (d *driver) run(ctx context.Context, rows []harness.Row) error {
	out, err := exec.CommandContext(ctx, "go", "env", "GOMOD").Output()
	if err != nil {
		return fmt.Errorf("asking go where this module is: %w", err)
	}
	d.module = filepath.Dir(strings.TrimSpace(string(out)))
	if _, err := os.Stat(filepath.Join(d.module, "harness")); err != nil {
		return fmt.Errorf("run it in the torture directory: it builds itself anew with faults in the library (%w)", err)
	}
	if d.dir, err = os.MkdirTemp("", "torture-build-"); err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(d.dir) }()

	began := time.Now()
	d.print("seed %d", d.seed)
	failed := make(chan bool, len(rows))
	slots := make(chan struct{}, atOnce)
	for _, row := range rows {
		slots <- struct{}{}
		go func() {
			defer func() { <-slots }()
			failed <- !d.runRow(ctx, row)
		}()
	}
	wrong := 0
	for range rows {
		if <-failed {
			wrong++
		}
	}
	d.print("%d of %d rows passed in %s", len(rows)-wrong, len(rows), time.Since(began).Round(time.Second))
	if wrong > 0 {
		return errFailed
	}
	if d.record {
		return d.write()
	}
	return nil
}

// runRow runs a row and then its faults, prints its line, and tells whether it passed.
func (d *driver) runRow(ctx context.Context, row harness.Row) bool {
	if lacks := missing(row); len(lacks) > 0 {
		d.print("%2d %-10s not run: it needs %s", row.Number, row.Name, strings.Join(lacks, ", "))
		return os.Getenv("CI") == "" // elsewhere a machine may lack what it takes; CI is set up for it
	}
	cases := numberOf(row, d.cases, d.full)
	if cases == 0 {
		d.print("%2d %-10s left to a full run", row.Number, row.Name)
		return true
	}
	began := time.Now()
	path, err := d.program(ctx, row.Race)
	if err != nil {
		d.print("%2d %-10s FAILED: %v", row.Number, row.Name, err)
		return false
	}
	tried, log, err := d.start(ctx, path, row, cases)
	if err != nil {
		d.print("%2d %-10s FAILED: %v\n%s", row.Number, row.Name, err, log)
		return false
	}
	caught := 0
	var missed []string
	if d.faults {
		for _, fault := range row.Faults {
			if err := d.catch(ctx, row, fault); err != nil {
				missed = append(missed, err.Error())
				continue
			}
			caught++
		}
	}
	verdict := "passed"
	if len(missed) > 0 {
		verdict = "FAILED: " + strings.Join(missed, "\n")
	}
	took := time.Since(began).Round(time.Second)
	d.print("%2d %-10s %9d %-18s faults caught %d of %d  %6s  %s", row.Number, row.Name, tried, row.Unit, caught, len(row.Faults),
		took, verdict)
	if len(missed) == 0 {
		d.note(row, fmt.Sprintf("| %d | %s | %s | %d %s | %d of %d | %s |", row.Number, row.Name, row.Promise, tried, row.Unit,
			caught, len(row.Faults), took))
	}
	return len(missed) == 0
}

// catch builds the library with a fault in it and runs the row against it, which must find a broken promise.
func (d *driver) catch(ctx context.Context, row harness.Row, fault harness.Fault) error {
	dir, err := os.MkdirTemp(d.dir, "fault-")
	if err != nil {
		return err
	}
	path, err := harness.Build(ctx, d.module, dir, row.Race, &fault)
	if err != nil {
		return err
	}
	_, log, err := d.start(ctx, path, row, fault.Cases)
	var exit *exec.ExitError
	switch {
	case err == nil:
		return fmt.Errorf("fault %q went unseen in %d %s", fault.Name, fault.Cases, row.Unit)
	case errors.As(err, &exit) && exit.ExitCode() == broken:
		return nil
	default:
		return fmt.Errorf("fault %q: the row did not say what is broken: %w\n%s", fault.Name, err, log)
	}
}

// program builds this program, if it is not built yet.
func (d *driver) program(ctx context.Context, race bool) (string, error) {
	built, name := &d.plain, "plain"
	if race {
		built, name = &d.race, "race"
	}
	built.once.Do(func() {
		dir := filepath.Join(d.dir, name)
		if built.err = os.Mkdir(dir, 0o700); built.err == nil {
			built.path, built.err = harness.Build(ctx, d.module, dir, race, nil)
		}
	})
	return built.path, built.err
}

// start runs a row in a process of its own, and returns how many cases it tried and what it said.
func (d *driver) start(ctx context.Context, path string, row harness.Row, cases int) (tried int64, log string, err error) {
	cmd := exec.CommandContext(ctx, path, "-row", row.Name, "-seed", strconv.FormatUint(d.seed, 10), "-cases", strconv.Itoa(cases))
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 10 * time.Second
	var out, said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &said
	err = cmd.Run()
	lines := strings.Fields(out.String())
	if len(lines) > 0 {
		tried, _ = strconv.ParseInt(lines[len(lines)-1], 10, 64)
	}
	if err == nil && tried == 0 {
		err = errors.New("it tried nothing")
	}
	return tried, said.String(), err
}

func (d *driver) print(format string, args ...any) {
	d.printing.Lock()
	defer d.printing.Unlock()
	fmt.Fprintf(d.out, format+"\n", args...)
}
