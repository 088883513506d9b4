package mutants

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A test of the library, how long it takes and which mutants it reaches.
type test struct {
	name    string
	takes   time.Duration
	reaches []int
}

// bench is where tests run: in the library's directory, with a directory of their own for what they write.
type bench struct {
	root, dir string
}

// record runs every test alone and returns them, the quickest first.
func (b *bench) record(ctx context.Context, program string) ([]test, error) {
	cmd := exec.CommandContext(ctx, program, "-test.list", ".")
	cmd.Dir = b.root
	reached := filepath.Join(b.dir, "reached")
	cmd.Env = append(os.Environ(), "QUOTA_MUTANTS_REACHED="+reached)
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("listing the tests of the library: %w", err)
	}
	var tests []test
	for _, name := range strings.Fields(string(out)) {
		one, err := b.recordOne(ctx, program, name, reached)
		if err != nil { // a test of random numbers may have found something by itself: once is not for ever
			one, err = b.recordOne(ctx, program, name, reached)
		}
		if err != nil {
			return nil, err
		}
		tests = append(tests, one)
	}
	slices.SortStableFunc(tests, func(x, y test) int { return cmp.Compare(x.takes, y.takes) })
	return tests, nil
}

func (b *bench) recordOne(ctx context.Context, program, name, reached string) (test, error) {
	one := test{name: name}
	if err := os.Remove(reached); err != nil && !errors.Is(err, os.ErrNotExist) {
		return one, err
	}
	began := time.Now()
	end, said := b.run(ctx, program, []string{name}, 5*time.Minute, "QUOTA_MUTANTS_REACHED="+reached)
	if end != passed {
		return one, fmt.Errorf("%s fails without any mutant, mend that first:\n%s", name, said)
	}
	one.takes = time.Since(began)
	data, err := os.ReadFile(reached)
	if err != nil {
		return one, err
	}
	for _, line := range strings.Fields(string(data)) {
		if id, err := strconv.Atoi(line); err == nil { // processes that are killed may leave half a line
			one.reaches = append(one.reaches, id)
		}
	}
	slices.Sort(one.reaches)
	one.reaches = slices.Compact(one.reaches)
	return one, nil
}

// ending is how tests ended.
type ending int

const (
	passed ending = iota
	failed
	timedOut
	stopped // the run itself was
)

// run runs the named tests in a process of their own, until the first fails.
func (b *bench) run(ctx context.Context, program string, names []string, limit time.Duration, env ...string) (ending, string) {
	dir, err := os.MkdirTemp(b.dir, "tests-")
	if err != nil {
		return stopped, err.Error()
	}
	defer func() { _ = os.RemoveAll(dir) }()
	within, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	cmd := exec.CommandContext(within, program, "-test.run", "^("+strings.Join(names, "|")+")$", "-test.failfast", "-test.timeout=0")
	cmd.Dir = b.root
	cmd.Env = append(append(os.Environ(), "TMPDIR="+dir), env...)
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	cmd.WaitDelay = time.Second
	if err := startConfined(cmd); err != nil {
		return stopped, err.Error()
	}
	err = cmd.Wait()
	killGroup(cmd)
	switch {
	case ctx.Err() != nil:
		return stopped, ctx.Err().Error()
	case err == nil:
		return passed, ""
	case within.Err() != nil:
		return timedOut, said.String()
	}
	return failed, said.String()
}
