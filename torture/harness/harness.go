// Package harness is what the rows of the torture program have in common: what a row is, how it counts and reports,
// how it starts workers in processes of their own, and how a fault is built into the library to see it caught.
package harness

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"sync/atomic"
)

// A Row is one promise of the library and the attempt to break it.
type Row struct {
	Number  int
	Name    string // one word, as on the command line
	Promise string
	Unit    string // what its cases are: "histories"
	Quick   int    // cases of a quick run; All: every one there is; 0: it is left to a full run
	Full    int    // cases of a full run
	Race    bool   // run under the race detector
	Root    bool   // needs to be root
	Tools   []string
	Run     func(ctx context.Context, run *Run) error // nil: the promise held
	Workers map[string]func(args []string) error      // what its workers do, by name
	Faults  []Fault
}

// All is the number of cases that stands for every one there is.
const All = -1

// A Fault is a defect built into the library's own source, which a row has to catch within Cases cases.
type Fault struct {
	Name  string // a sentence: "the directory is not synced"
	Edits []Edit
	Cases int
}

// An Edit replaces the one occurrence of Old in a file of the library by New.
type Edit struct {
	File string // below the library's root: "jsonfile_save.go"
	Old  string
	New  string
}

// Run is one run of a row.
type Run struct {
	Seed  uint64
	Cases int    // or All
	Dir   string // empty, on a disk, removed afterwards
	done  atomic.Int64
}

// Random is a source of random numbers of the run's seed; the same stream of the same seed gives the same numbers.
func (r *Run) Random(stream uint64) *rand.Rand {
	return rand.New(rand.NewPCG(r.Seed, stream))
}

// Done counts cases that were tried.
func (r *Run) Done(cases int) { r.done.Add(int64(cases)) }

// Tried is how many cases Done has counted.
func (r *Run) Tried() int64 { return r.done.Load() }

// Violation says how a promise was broken. Everything else a row returns says that the row itself could not work.
type Violation struct{ What string }

func (v *Violation) Error() string { return v.What }

// Violated returns a Violation.
func Violated(format string, args ...any) error {
	return &Violation{What: fmt.Sprintf(format, args...)}
}

// IsViolation tells whether an error says that a promise was broken.
func IsViolation(err error) bool {
	var violation *Violation
	return errors.As(err, &violation)
}

// WorkerFlag is the first argument of a program that is a worker: its name and arguments follow.
const WorkerFlag = "-worker"

// Worker is this program again, doing what the worker of that name does. It ends with this process, at the latest.
func Worker(ctx context.Context, name string, args ...string) (*exec.Cmd, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("finding this program: %w", err)
	}
	cmd := exec.CommandContext(ctx, self, append([]string{WorkerFlag, name}, args...)...)
	cmd.Stderr = os.Stderr
	endWithParent(cmd)
	return cmd, nil
}
