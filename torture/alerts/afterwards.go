package alerts

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"example.com/quota"
	"example.com/quota/quotatest"
	"example.com/quota/torture/harness"
)

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
