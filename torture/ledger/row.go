// Package ledger checks that the tracker never admits too much and conserves usage: random sequences of calls, clock
// steps and restarts, compared after every step with a small model written from the documentation.
package ledger

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"example.com/quota/torture/harness"
)

const (
	steps      = "100" // of one check, on average
	shrinkTime = "5s"
)

// Row returns the row.
func Row() harness.Row {
	return harness.Row{
		Number:  1,
		Name:    "ledger",
		Promise: "never over-admits; usage is conserved",
		Unit:    "checks",
		Quick:   2000,
		Full:    100_000,
		Run:     run,
		Faults:  faults(),
	}
}

func faults() []harness.Fault {
	return []harness.Fault{
		{
			Name:  "a hold that was given back at its expiry is given back again",
			Cases: 1000,
			Edits: []harness.Edit{
				{
					File: "settle.go",
					Old:  "\t\tif !h.released {\n\t\t\tb.amend(h, &amounts{}, &amounts{}, now)\n\t\t\tb.unbegin(h)\n\t\t}\n\t\tb.rememberLate(h, s, now)",
					New:  "\t\tb.amend(h, &amounts{}, &amounts{}, now)\n\t\tb.unbegin(h)\n\t\tb.rememberLate(h, s, now)",
				},
				{
					File: "settle.go",
					Old:  "\tif !h.released {\n\t\tcharged = h.amounts\n\t}\n",
					New:  "\tcharged = h.amounts\n",
				},
			},
		},
		{
			Name:  "a refund goes into the next window",
			Cases: 2000,
			Edits: []harness.Edit{
				{File: "account.go", Old: "\tstands := at >= a.since\n", New: "\tstands := true\n"},
				{File: "account.go", Old: "\t\tstands = stands && at >= a.start\n", New: "\n"},
			},
		},
		{
			Name:  "a refund of a Refill mints",
			Cases: 1000,
			Edits: []harness.Edit{{
				File: "account.go",
				Old:  "\treturn max(0, n-share(a.max, max(0, now-granted, a.start-granted), a.length(), true))",
				New:  "\treturn n",
			}},
		},
	}
}

// run lets rapid try sequences and make the first that breaks a promise as short as it can.
func run(ctx context.Context, run *harness.Run) error {
	testing.Init() // rapid asks testing whether the run is to be short
	for name, value := range map[string]string{
		"rapid.checks": strconv.Itoa(run.Cases), "rapid.seed": strconv.FormatUint(run.Seed, 10), "rapid.steps": steps,
		"rapid.nofailfile": "true", "rapid.shrinktime": shrinkTime,
	} {
		if err := flag.Set(name, value); err != nil {
			return fmt.Errorf("setting up rapid: %w", err)
		}
	}
	defer debug.SetGCPercent(debug.SetGCPercent(400)) // little lives long
	found := &findings{}
	found.check(func(t *rapid.T) {
		if ctx.Err() != nil {
			return
		}
		whole := false
		defer func() { found.any = found.any || !whole }()
		play(t)
		if whole = true; !found.any { // what is tried to make a failure shorter does not count
			run.Done(1)
		}
	})
	if found.failed {
		const head, tail = 8, 80 // of what is too long to read
		if n := len(found.said); n > head+tail {
			found.said = slices.Concat(found.said[:head], []string{"..."}, found.said[n-tail:])
		}
		return harness.Violated("%s", strings.Join(found.said, "\n"))
	}
	return ctx.Err()
}

// findings take what rapid says, in place of a test.
type findings struct {
	said   []string
	failed bool
	any    bool // a check has not come to its end
}

var errStopped = errors.New("rapid has found what it looked for")

func (f *findings) check(property func(*rapid.T)) {
	defer func() {
		if r := recover(); r != nil && r != any(errStopped) {
			panic(r)
		}
	}()
	rapid.Check(f, property)
}

func (f *findings) say(text string) {
	for _, noise := range []string{"[rapid] draw", "[rapid] OK"} {
		if strings.HasPrefix(text, noise) {
			return
		}
	}
	f.said = append(f.said, text)
}

// The rest makes findings a rapid.TB.

func (f *findings) Helper()                         {}
func (f *findings) Name() string                    { return "ledger" }
func (f *findings) Logf(format string, args ...any) { f.say(fmt.Sprintf(format, args...)) }
func (f *findings) Log(args ...any)                 { f.say(fmt.Sprint(args...)) }
func (f *findings) Skipf(string, ...any)            {}
func (f *findings) Skip(...any)                     {}
func (f *findings) SkipNow()                        {}
func (f *findings) Fail()                           { f.failed = true }
func (f *findings) Failed() bool                    { return f.failed }
func (f *findings) FailNow()                        { f.Fail(); panic(errStopped) }
func (f *findings) Errorf(format string, args ...any) {
	f.Logf(format, args...)
	f.Fail()
}
func (f *findings) Error(args ...any)                 { f.Log(args...); f.Fail() }
func (f *findings) Fatalf(format string, args ...any) { f.Logf(format, args...); f.FailNow() }
func (f *findings) Fatal(args ...any)                 { f.Log(args...); f.FailNow() }
