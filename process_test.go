//go:build unix

package quota_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/quota"
	"example.com/quota/quotatest"
)

const childVariable = "QUOTA_TEST_STATE" // the path of the state that a child process works on

// TestChildProcess is not a test but what the other processes run: it carries out what its standard input says, one
// line after the other, answers each with lines on its standard output, and ends with its parent.
func TestChildProcess(t *testing.T) {
	path := os.Getenv(childVariable)
	if path == "" {
		return // this is not a child
	}
	lines := make(chan string)
	go func() {
		input := bufio.NewScanner(os.Stdin)
		for input.Scan() {
			lines <- input.Text()
		}
		os.Exit(0) // the parent has gone
	}()
	c := childProcess{lines: lines, file: quota.NewJSONFile(path)}
	for line := range lines {
		words := strings.Fields(line)
		c.run(words[0], words[1:])
	}
}

type childProcess struct {
	lines   chan string
	file    *quota.JSONFile
	tracker *quota.QuotaTracker
}

// say writes one line at one stroke, so that a kill does not cut it.
func say(format string, args ...any) {
	_, _ = fmt.Fprintf(os.Stdout, format+"\n", args...)
}

func answer(err error) {
	switch {
	case err == nil:
		say("ok")
	case errors.Is(err, quota.ErrExceeded):
		say("exceeded")
	default:
		say("error %q", err)
	}
}

func number(text string) int64 {
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		panic(err)
	}
	return n
}

func (c *childProcess) run(verb string, args []string) {
	ctx := context.Background()
	switch verb {
	case "open": // LIMIT ALERTS: a tracker whose clock stands still; "stuck" never comes back from an alert
		tracker, err := openOn(c.file, withQuotas(calls(number(args[0]))), withAlerts(func(a quota.Alert) {
			say("alert %s", a.ID)
			if args[1] == "stuck" {
				select {}
			}
		}))
		c.tracker = tracker
		answer(err)
	case "record": // N CALLS WORKERS
		answer(c.together(args[2], func() error {
			for range number(args[1]) {
				if err := c.tracker.RecordUsage(ctx, "calls", quota.Requests(number(args[0]))); err != nil {
					return err
				}
			}
			return nil
		}))
	case "drain": // WORKERS N: reserve N each until refused
		var mu sync.Mutex
		granted := int64(0)
		err := c.together(args[0], func() error {
			for {
				_, err := c.tracker.Reserve(ctx, "calls", quota.Requests(number(args[1])))
				if errors.Is(err, quota.ErrExceeded) {
					return nil
				}
				if err != nil {
					return err
				}
				mu.Lock()
				granted += number(args[1])
				mu.Unlock()
			}
		})
		say("granted %d", granted)
		answer(err)
	case "flood": // WORKERS: record for ever, and say so
		answer(c.together(args[0], func() error {
			for {
				if err := c.tracker.RecordUsage(ctx, "calls"); err != nil {
					return err
				}
				say("recorded")
			}
		}))
	case "reserve": // N
		r, err := c.tracker.Reserve(ctx, "calls", quota.Requests(number(args[0])))
		if err == nil {
			say("reserved %s", r.ID())
		}
		answer(err)
	case "commit": // ID N
		r, err := c.tracker.Reservation(ctx, args[0])
		if err == nil {
			err = r.Commit(ctx, quota.Requests(number(args[1])))
		}
		answer(err)
	case "hold": // the lock of the file, until the next line
		answer(c.file.Update(ctx, []string{"calls"}, func(*quota.Tx) error {
			say("held")
			<-c.lines
			return nil
		}))
	case "close":
		answer(c.tracker.Close())
	}
}

// together runs f in several goroutines.
func (c *childProcess) together(workers string, f func() error) error {
	errs := make(chan error)
	n := number(workers)
	for range n {
		go func() { errs <- f() }()
	}
	var all error
	for range n {
		all = errors.Join(all, <-errs)
	}
	return all
}

// A child is another process that works on the same state.
type child struct {
	t      *testing.T
	cmd    *exec.Cmd
	input  io.WriteCloser
	output *bufio.Scanner
}

func startChild(t *testing.T, path string) *child {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^TestChildProcess$", "-test.count=1")
	cmd.Env = append(os.Environ(), childVariable+"="+path)
	cmd.Stderr = os.Stderr
	input, err := cmd.StdinPipe()
	require.NoError(t, err)
	output, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	c := &child{t, cmd, input, bufio.NewScanner(output)}
	t.Cleanup(c.kill)
	return c
}

// openChild is startChild with a tracker on the state.
func openChild(t *testing.T, path string, limit int) *child {
	t.Helper()
	c := startChild(t, path)
	c.tell("open %d log", limit)
	require.Equal(t, []string{"ok"}, c.answer())
	return c
}

func (c *child) tell(format string, args ...any) {
	c.t.Helper()
	_, err := fmt.Fprintf(c.input, format+"\n", args...)
	require.NoError(c.t, err)
}

// line returns the next line, "" at the end.
func (c *child) line() string {
	c.output.Scan()
	return c.output.Text()
}

// answer returns the lines up to the one that ends a command.
func (c *child) answer() []string {
	c.t.Helper()
	var lines []string
	for {
		line := c.line()
		require.NotEmpty(c.t, line, "the process has ended after %q", lines)
		lines = append(lines, line)
		if line == "ok" || line == "exceeded" || strings.HasPrefix(line, "error") {
			return lines
		}
	}
}

func (c *child) signal(s syscall.Signal) {
	c.t.Helper()
	require.NoError(c.t, c.cmd.Process.Signal(s))
}

// kill ends the process with SIGKILL, if it has not ended, and waits for its end.
func (c *child) kill() {
	_ = c.cmd.Process.Kill()
	for c.output.Scan() {
	}
	_ = c.cmd.Wait()
}

func TestTwoProcessesThatRecordTwoHundredRequestsEachReadFourHundred(t *testing.T) {
	path := newStatePath(t)
	children := []*child{openChild(t, path, 1000), openChild(t, path, 1000)}
	for _, c := range children {
		c.tell("record 1 50 4")
	}
	for _, c := range children {
		require.Equal(t, []string{"ok"}, c.answer())
	}
	for _, c := range children {
		c.tell("close")
		require.Equal(t, []string{"ok"}, c.answer())
	}
	require.Equal(t, stand{400, 0}, standIn(t, quota.NewJSONFile(path), withQuotas(calls(1000))))
}

func TestFourProcessesTogetherAreGrantedExactlyTheLimit(t *testing.T) {
	const limit = 1500
	path := newStatePath(t)
	var children []*child
	for range 4 {
		children = append(children, openChild(t, path, limit))
	}
	for _, c := range children {
		c.tell("drain 8 5")
	}
	granted := int64(0)
	for _, c := range children {
		lines := c.answer()
		require.Equal(t, "ok", lines[len(lines)-1])
		granted += number(strings.TrimPrefix(lines[0], "granted "))
	}
	require.EqualValues(t, limit, granted)
	require.Equal(t, stand{0, limit}, standIn(t, quota.NewJSONFile(path), withQuotas(calls(limit))))
}

func TestAlertsAreToldOnceAcrossProcesses(t *testing.T) {
	path := newStatePath(t)
	var children []*child
	for range 3 {
		children = append(children, openChild(t, path, 100))
	}
	for _, c := range children {
		c.tell("record 1 10 4") // 40 each: 120 of 100
	}
	var alerts []string
	for _, c := range children {
		lines := c.answer()
		require.Equal(t, "ok", lines[len(lines)-1])
		alerts = append(alerts, lines[:len(lines)-1]...)
	}
	slices.Sort(alerts)
	require.Len(t, alerts, 3)
	require.Len(t, slices.Compact(alerts), 3)
}

func TestAHoldOfOneProcessIsSettledByAnotherThroughItsID(t *testing.T) {
	path := newStatePath(t)
	one, two := openChild(t, path, 100), openChild(t, path, 100)
	one.tell("reserve 30")
	lines := one.answer()
	require.Len(t, lines, 2)
	id := strings.TrimPrefix(lines[0], "reserved ")
	two.tell("reserve 80")
	require.Equal(t, []string{"exceeded"}, two.answer())
	two.tell("commit %s 10", id)
	require.Equal(t, []string{"ok"}, two.answer())
	one.tell("commit %s 10", id)
	require.Contains(t, one.answer()[0], "no open reservation")
	two.tell("reserve 80")
	require.Equal(t, "ok", two.answer()[1])
	require.Equal(t, stand{10, 80}, standIn(t, quota.NewJSONFile(path)))
}

func TestAHoldOfAKilledProcessExpiresAndIsCharged(t *testing.T) {
	path := newStatePath(t)
	clock := quotatest.NewClock(morning)
	tracker := startOn(t, quota.NewJSONFile(path), withClock(clock))
	c := openChild(t, path, 100)
	c.tell("reserve 30")
	c.answer()
	c.kill()
	require.Equal(t, stand{0, 30}, standOf(t, tracker, "calls"))
	_, err := tracker.Reserve(t.Context(), "calls", quota.Requests(71))
	require.ErrorIs(t, err, quota.ErrExceeded)
	clock.Advance(15*time.Minute - 1)
	require.Equal(t, stand{0, 30}, standIn(t, quota.NewJSONFile(path), withClock(clock)))
	clock.Advance(1)
	require.Equal(t, stand{30, 0}, standOf(t, tracker, "calls"))
	require.Equal(t, stand{30, 0}, standIn(t, quota.NewJSONFile(path), withClock(clock)))
}

func TestKilledProcessesLoseNothingThatWasAcknowledged(t *testing.T) {
	const rounds, workers, limit = 15, 6, 400
	path := newStatePath(t)
	clock := quotatest.NewClock(morning)
	var told []string // IDs of alerts
	acknowledged := int64(0)
	for round := range rounds {
		c := openChild(t, path, limit)
		c.tell("flood %d", workers)
		hear := func(line string) {
			switch {
			case line == "recorded":
				acknowledged++
			case strings.HasPrefix(line, "alert "):
				told = append(told, line)
			default:
				require.Fail(t, "the process says "+line)
			}
		}
		for range 1 + rand.IntN(60) {
			hear(c.line())
		}
		require.NoError(t, c.cmd.Process.Kill())
		for c.output.Scan() {
			hear(c.output.Text())
		}
		c.kill()

		tracker, err := openOn(quota.NewJSONFile(path), withClock(clock), withQuotas(calls(limit)))
		require.NoError(t, err, "no lock outlives its process")
		used := standOf(t, tracker, "calls").used
		require.GreaterOrEqual(t, used, acknowledged, "round %d", round)
		require.LessOrEqual(t, used, acknowledged+workers, "as many calls may have been under way, round %d", round)
		require.Empty(t, tracker.Summary().Recovered)
		require.NoError(t, tracker.Verify())
		require.NoError(t, tracker.Close())
		for _, name := range besides(t, path) {
			require.False(t, strings.HasPrefix(name, "."), "a leftover: %s", name)
		}
		acknowledged = used
	}
	slices.Sort(told)
	require.Equal(t, slices.Compact(slices.Clone(told)), told, "no alert is told twice")
	// What a killed process had crossed and not told is told now, a minute later.
	clock.Advance(time.Minute)
	var log alertLog
	last := startOn(t, quota.NewJSONFile(path), withClock(clock), withQuotas(calls(limit)), withAlerts(log.note))
	require.NoError(t, last.RecordUsage(t.Context(), "calls", quota.Requests(limit)))
	for _, id := range log.ids() {
		told = append(told, "alert "+id)
	}
	slices.Sort(told)
	require.Len(t, slices.Compact(told), 3)
	status, _ := last.Status("calls")
	require.Equal(t, []int{50, 80, 90}, status.Limits[0].AlertsFired)
}

func TestAnAlertOfAProcessKilledBeforeItsDeliveryIsTakenOver(t *testing.T) {
	ctx := t.Context()
	path := newStatePath(t)
	c := startChild(t, path)
	c.tell("open 100 stuck")
	require.Equal(t, []string{"ok"}, c.answer())
	c.tell("record 60 1 1")
	alert := c.line()
	c.kill()

	clock := quotatest.NewClock(morning)
	var log alertLog
	tracker := startOn(t, quota.NewJSONFile(path), withClock(clock), withAlerts(log.note))
	require.Equal(t, stand{60, 0}, standOf(t, tracker, "calls"))
	clock.Advance(time.Minute - 1)
	require.NoError(t, tracker.RecordUsage(ctx, "calls"))
	require.Empty(t, log.ids())
	clock.Advance(1)
	require.NoError(t, tracker.RecordUsage(ctx, "calls"))
	require.Len(t, log.ids(), 1)
	require.Equal(t, alert, "alert "+log.ids()[0])
	clock.Advance(time.Hour)
	require.NoError(t, tracker.RecordUsage(ctx, "calls"))
	require.Len(t, log.ids(), 1)
}

func TestAStoppedProcessThatHoldsTheLockBlocksNobodyBeyondItsContext(t *testing.T) {
	path := newStatePath(t)
	tracker := startOn(t, quota.NewJSONFile(path))
	c := startChild(t, path)
	c.tell("hold")
	require.Equal(t, "held", c.line())
	c.signal(syscall.SIGSTOP)

	ctx, cancel := context.WithCancel(t.Context())
	var reserved, recorded error
	var group sync.WaitGroup
	group.Go(func() { _, reserved = tracker.Reserve(ctx, "calls", quota.Requests(50)) })
	group.Go(func() { recorded = tracker.RecordUsage(ctx, "calls", quota.Requests(7)) })
	// While they wait, looking waits for nobody.
	require.True(t, tracker.CanUse("calls"))
	cancel()
	group.Wait()
	require.ErrorIs(t, reserved, context.Canceled)
	require.NotErrorIs(t, reserved, quota.ErrPending)
	require.ErrorIs(t, recorded, context.Canceled)
	require.ErrorIs(t, recorded, quota.ErrPending)
	timeout, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	err := tracker.RecordUsage(timeout, "calls")
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.ErrorIs(t, err, quota.ErrPending)

	c.signal(syscall.SIGCONT)
	c.tell("go on")
	require.Equal(t, []string{"ok"}, c.answer())
	require.NoError(t, tracker.Flush(t.Context()))
	require.Equal(t, stand{8, 0}, standOf(t, tracker, "calls"))
	require.NoError(t, tracker.Close())
	require.Equal(t, stand{8, 0}, standIn(t, quota.NewJSONFile(path)))
	require.NotContains(t, strings.Join(besides(t, path), " "), filepath.Base(path)+".corrupt")
}
