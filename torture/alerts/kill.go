package alerts

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"example.com/quota"
	"example.com/quota/quotatest"
	"example.com/quota/torture/harness"
)

// calls of the system at which a worker may die: those that change something, or open it. A death at any other leaves
// what a death at the next of these leaves.
const calls = "openat,write,pwrite64,fsync,fdatasync,rename,renameat,renameat2,link,linkat,unlink,unlinkat,flock,fchmod," +
	"fchmodat,ftruncate,mkdirat"

// prepare puts a state with 40 of 100 used into dir.
func prepare(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	tracker, err := open(quota.NewJSONFile(filepath.Join(dir, stateFile)), quotatest.NewClock(noon()), nil)
	if err != nil {
		return harness.Violated("a new state cannot be opened: %v", err)
	}
	if err := errors.Join(tracker.RecordUsage(context.Background(), callsName, quota.Requests(40)), tracker.Close()); err != nil {
		return harness.Violated("a new state cannot be written: %v", err)
	}
	return nil
}

// A point is a call of the worker at which it is killed.
type point struct {
	sharing string
	call    string // its name; "": the worker lives
	nth     int    // of the calls of that name of the worker's thread, which is how strace counts
	place   int    // among all calls of the thread that are traced
}

// worker runs the worker that dies at a point. It returns its trace: what its thread did, call by call.
func worker(ctx context.Context, dir string, p point) (trace []string, err error) {
	cmd, err := harness.Worker(ctx, dieName, dir, p.sharing)
	if err != nil {
		return nil, err
	}
	strace, err := exec.LookPath("strace")
	if err != nil {
		return nil, err
	}
	output := filepath.Join(dir, traceFile)
	args := []string{strace, "-f", "-qq", "-s", "256", "-o", output, "-e", "trace=" + calls}
	if p.call != "" {
		args = append(args, "-e", fmt.Sprintf("inject=%s:signal=SIGKILL:when=%d", p.call, p.nth))
	}
	cmd.Args = append(append(args, cmd.Path), cmd.Args[1:]...)
	cmd.Path = strace
	err = cmd.Run()
	var exit *exec.ExitError
	if err != nil && (!errors.As(err, &exit) || exit.Exited() || p.call == "") {
		return nil, fmt.Errorf("the worker under strace, at %+v: %w", p, err)
	}
	data, err := os.ReadFile(output)
	if err != nil {
		return nil, err
	}
	return ofThread(string(data))
}

// wakeUp is what the Go runtime writes to end a wait for files.
const wakeUp = `, "\1\0\0\0\0\0\0\0", 8)`

// ofThread returns the calls in a trace of the thread that made the padding.
func ofThread(text string) ([]string, error) {
	all := strings.Split(text, "\n")
	id := ""
	for _, line := range all {
		if strings.Contains(line, padding) {
			id, _, _ = strings.Cut(line, " ")
			break
		}
	}
	if id == "" {
		return nil, errors.New("the trace has no thread that worked")
	}
	var list []string
	for _, line := range all {
		call, mine := strings.CutPrefix(line, id+" ")
		call = strings.TrimSpace(call)
		switch {
		case !mine, strings.HasPrefix(call, "+++"), strings.HasPrefix(call, "---"):
		case strings.Contains(call, wakeUp): // of the runtime, at any time
		case strings.HasPrefix(call, "<..."): // the end of a call during which another thread made one
			if last := len(list) - 1; last >= 0 {
				_, rest, _ := strings.Cut(call, "resumed>")
				list[last] = strings.Replace(list[last], " <unfinished ...>", rest, 1)
			}
		default:
			list = append(list, call)
		}
	}
	return list, nil
}

// points are the calls from the first crossing to the end, and the end.
func points(ctx context.Context, dir, sharing string) ([]point, error) {
	if err := prepare(dir); err != nil {
		return nil, err
	}
	trace, err := worker(ctx, dir, point{sharing: sharing})
	if err != nil {
		return nil, err
	}
	var list []point
	counts := map[string]int{}
	crossing := false
	for i, line := range trace {
		name, _, _ := strings.Cut(line, "(")
		counts[name]++
		if crossing = crossing || strings.Contains(line, begins); crossing {
			list = append(list, point{sharing, name, counts[name], i})
		}
	}
	if len(list) == 0 {
		return nil, errors.New("the trace has no crossing")
	}
	return append(list, point{sharing: sharing}), nil
}

// died tells what a trace says of alerts: those written down, and those of them after which the state was replaced,
// which saves that they were delivered.
func died(trace []string) (marked map[string]bool) {
	marked = map[string]bool{}
	var written []string
	for _, call := range trace {
		name, rest, _ := strings.Cut(call, "(")
		succeeded := !strings.Contains(call, "unfinished") && !strings.Contains(call, "= -1") && !strings.HasSuffix(call, "= ?")
		switch {
		case !succeeded:
		case name == "write":
			_, line, _ := strings.Cut(rest, `"`)
			line, _, _ = strings.Cut(line, `\n"`)
			if _, id, ok := strings.Cut(line, " "); ok {
				written = append(written, id)
			}
		case strings.HasPrefix(name, "rename") && strings.Contains(rest, "/"+stateFile+`")`):
			for _, id := range written {
				marked[id] = true
			}
		}
	}
	return marked
}

// killed has the worker die at one point and looks at what is told by it and after it.
func killed(ctx context.Context, dir string, p point) error {
	// strace counts what the runtime writes to wake itself, too, on whichever thread that happens: where one died too early or
	// too late says where to look for the call next.
	const attempts = 24
	for attempt, nth := 0, p.nth; attempt < attempts; attempt++ {
		dir, p := filepath.Join(dir, strconv.Itoa(attempt)), p
		p.nth = max(1, nth)
		if err := prepare(dir); err != nil {
			return err
		}
		trace, err := worker(ctx, dir, p)
		if err != nil {
			return err
		}
		told, err := readLog(dir)
		if err != nil {
			return err
		}
		if err := afterwards(ctx, filepath.Join(dir, stateFile), told, died(trace)); err != nil {
			return harness.Violated("a worker that was killed at %+v, having told %v: %v", p, told, err)
		}
		if p.call == "" || len(trace) == p.place+1 && strings.HasPrefix(trace[p.place], p.call+"(") {
			return nil
		}
		switch {
		case p.call != "write":
		case len(trace) > p.place+1:
			nth--
		case len(trace) <= p.place:
			nth++
		}
	}
	return fmt.Errorf("no worker died at %+v", p)
}

// afterwards opens the state that a dead process has left and looks whether each crossing is told, and told again only
// where the process cannot have saved that it was.
func afterwards(ctx context.Context, path string, told []entry, marked map[string]bool) error {
	clock := quotatest.NewClock(noon().Add(30 * time.Second))
	var after collector
	tracker, err := open(quota.NewJSONFile(path), clock, after.note)
	if err != nil {
		return fmt.Errorf("the state cannot be opened: %w", err)
	}
	status, _ := tracker.Status(callsName)
	used := status.Limits[0].Used
	for _, one := range told {
		if used*100 < int64(one.threshold)*callsMax {
			return fmt.Errorf("%s was told, but the usage that crossed it was not saved: %d used", one.id, used)
		}
	}
	record := func(n int64) error { return tracker.RecordUsage(ctx, callsName, quota.Requests(n)) }
	if err := record(1); err != nil {
		return err
	}
	if len(after.entries()) > 0 {
		return fmt.Errorf("%v told again within a minute", after.entries())
	}
	clock.Advance(time.Minute)
	if err := record(1); err != nil {
		return err
	}
	for _, threshold := range thresholds() {
		crossed := used*100 >= int64(threshold)*callsMax
		if crossed && count(told, threshold)+count(after.entries(), threshold) == 0 {
			return fmt.Errorf("%d%% was crossed and is never told (%d used)", threshold, used)
		}
	}
	if err := record(60); err != nil {
		return err
	}
	clock.Advance(2 * time.Minute)
	if err := errors.Join(record(1), tracker.Verify(), tracker.Close()); err != nil {
		return err
	}
	all := append(append([]entry(nil), told...), after.entries()...)
	ids := map[int]string{}
	for _, one := range all {
		if was, ok := ids[one.threshold]; ok && was != one.id {
			return fmt.Errorf("one crossing has two IDs, %s and %s", was, one.id)
		}
		ids[one.threshold] = one.id
	}
	for _, threshold := range thresholds() {
		before, again := count(told, threshold), count(after.entries(), threshold)
		switch {
		case before+again == 0:
			return fmt.Errorf("%d%% is never told", threshold)
		case before > 1, again > 1:
			return fmt.Errorf("%d%% is told %d times by one process", threshold, max(before, again))
		case before+again > 1 && marked[ids[threshold]]:
			return fmt.Errorf("%s is told again, although it was saved that it had been", ids[threshold])
		}
	}
	return nil
}

// entry is an alert that was told.
type entry struct {
	threshold int
	id        string
}

func count(list []entry, threshold int) int {
	n := 0
	for _, one := range list {
		if one.threshold == threshold {
			n++
		}
	}
	return n
}

// readLog returns what the workers of dir have told.
func readLog(dir string) ([]entry, error) {
	data, err := os.ReadFile(filepath.Join(dir, logFile))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var list []entry
	for line := range strings.Lines(string(data)) {
		number, id, ok := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		threshold, err := strconv.Atoi(number)
		if err != nil || !ok {
			return nil, fmt.Errorf("a line of the log cannot be read: %q", line)
		}
		list = append(list, entry{threshold, id})
	}
	return list, nil
}

// collector is an OnAlert that remembers.
type collector struct {
	mu   sync.Mutex
	list []quota.Alert
}

func (c *collector) note(a quota.Alert) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.list = append(c.list, a)
}

func (c *collector) alerts() []quota.Alert {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]quota.Alert(nil), c.list...)
}

func (c *collector) entries() []entry {
	var list []entry
	for _, a := range c.alerts() {
		list = append(list, entry{a.Threshold, a.ID})
	}
	return list
}
