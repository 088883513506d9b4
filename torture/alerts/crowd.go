package alerts

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"time"

	"example.com/quota"
	"example.com/quota/quotatest"
	"example.com/quota/torture/harness"
)

// crossing is what the same alert has in common, whoever tells it.
type crossing struct {
	limit     string
	threshold int
	start     int64
}

// crowded lets 64 goroutines cross thresholds of two limits in many windows, now and then with a restart in between,
// and looks after each step whether exactly what has been crossed was told.
func crowded(ctx context.Context, dir string, random *rand.Rand) error {
	const crowd, windows = 64, 5
	hourly, daily := 20+random.Int64N(100), 200+random.Int64N(400)
	hours := some(random)
	days := some(random)
	cfg := quota.Config{
		Persistence: quota.InMemory(),
		Quotas: []quota.Quota{{Name: callsName, Limits: []quota.Limit{
			{Max: hourly, Soft: true, Window: quota.Every(time.Hour), AlertThresholds: hours},
			{Max: daily, Soft: true, Window: quota.Daily(nil), AlertThresholds: days},
		}}},
		Logger: slog.New(slog.NewTextHandler(io.Discard, nil)),
	}
	path := filepath.Join(dir, stateFile)
	kept := random.IntN(3)
	switch kept {
	case 1:
		cfg.Persistence = quota.NewJSONFile(path)
	case 2:
		cfg.Persistence, cfg.FlushInterval = quota.NewJSONFile(path), time.Hour
	}
	start := time.Date(2026, 3, 2, 10, 0, 0, 0, time.UTC)
	clock := quotatest.NewClock(start)
	var told collector
	cfg.Clock, cfg.OnAlert = clock, told.note
	tracker, err := quota.New(ctx, cfg)
	if err != nil {
		return harness.Violated("New: %v", err)
	}
	expected := map[crossing]bool{}
	today := int64(0)
	for window := range windows {
		clock.Set(start.Add(time.Duration(window) * time.Hour))
		hour := int64(0)
		for range 1 + random.IntN(3) {
			n := 1 + random.Int64N(2)
			var group sync.WaitGroup
			errs := make([]error, crowd)
			for i := range crowd {
				group.Go(func() { errs[i] = tracker.RecordUsage(ctx, callsName, quota.Requests(n)) })
			}
			group.Wait()
			if err := errors.Join(errs...); err != nil {
				return harness.Violated("RecordUsage: %v", err)
			}
			hour += crowd * n
			today += crowd * n
			expect(expected, "requests per 1h0m0s", hours, hour, hourly, clock.Now())
			expect(expected, "requests per day", days, today, daily, start.Truncate(24*time.Hour))
			if err := compare(told.alerts(), expected); err != nil {
				return harness.Violated("in window %d, persistence %d, limits %d and %d, %d and %d used: %v",
					window, kept, hourly, daily, hour, today, err)
			}
			if kept > 0 && random.IntN(2) == 0 {
				if err := tracker.Close(); err != nil {
					return harness.Violated("Close: %v", err)
				}
				if tracker, err = quota.New(ctx, cfg); err != nil {
					return harness.Violated("New after Close: %v", err)
				}
			}
		}
	}
	clock.Advance(2 * time.Minute)
	if err := errors.Join(tracker.RecordUsage(ctx, callsName, quota.Requests(0)), tracker.Verify(), tracker.Close()); err != nil {
		return harness.Violated("at the end: %v", err)
	}
	if err := compare(told.alerts(), expected); err != nil {
		return harness.Violated("two minutes later: %v", err)
	}
	return nil
}

// some draws thresholds.
func some(random *rand.Rand) []int {
	list := []int{1 + random.IntN(100)}
	for range random.IntN(8) {
		list = append(list, 1+random.IntN(100))
	}
	slices.Sort(list)
	return slices.Compact(list)
}

func expect(expected map[crossing]bool, limit string, thresholds []int, used, most int64, start time.Time) {
	for _, threshold := range thresholds {
		if used*100 >= int64(threshold)*most {
			expected[crossing{limit, threshold, start.UnixNano()}] = true
		}
	}
}

// compare looks whether exactly what was expected has been told, once, and in the order of the thresholds.
func compare(told []quota.Alert, expected map[crossing]bool) error {
	seen := map[crossing]bool{}
	ids := map[string]bool{}
	highest := map[crossing]int{} // of each limit and window
	for _, a := range told {
		c := crossing{a.Limit.String(), a.Threshold, a.WindowStart.UnixNano()}
		window := crossing{limit: c.limit, start: c.start}
		switch {
		case seen[c] || ids[a.ID]:
			return fmt.Errorf("%s is told twice", a.ID)
		case !expected[c]:
			return fmt.Errorf("%s is told, but was not crossed: %+v", a.ID, a)
		case a.Threshold < highest[window]:
			return fmt.Errorf("%s is told after %d%%", a.ID, highest[window])
		case a.Used*100 < int64(a.Threshold)*a.Limit.Max:
			return fmt.Errorf("%s is told at %d used", a.ID, a.Used)
		}
		seen[c], ids[a.ID], highest[window] = true, true, a.Threshold
	}
	for c := range expected {
		if !seen[c] {
			return fmt.Errorf("%d%% of %s in the window from %s was crossed and not told", c.threshold, c.limit,
				time.Unix(0, c.start).UTC().Format(time.TimeOnly))
		}
	}
	return nil
}

// processes lets several processes cross the thresholds of one file together.
func processes(ctx context.Context, dir string, random *rand.Rand) error {
	if err := prepare(dir); err != nil {
		return err
	}
	many := 2 + random.IntN(2)
	goroutines := 2 + random.IntN(6)
	each := 60/(many*goroutines) + 1
	errs := make(chan error, many)
	for range many {
		cmd, err := harness.Worker(ctx, crossName, dir, strconv.Itoa(goroutines), strconv.Itoa(each))
		if err != nil {
			return err
		}
		if err := cmd.Start(); err != nil {
			return err
		}
		go func() { errs <- cmd.Wait() }()
	}
	var failed error
	for range many {
		failed = errors.Join(failed, <-errs)
	}
	if failed != nil {
		return harness.Violated("%d processes that cross together: %v", many, failed)
	}
	told, err := readLog(dir)
	if err != nil {
		return err
	}
	for _, threshold := range thresholds() {
		if n := count(told, threshold); n != 1 {
			return harness.Violated("%d processes of %d goroutines crossed %d%% and told it %d times: %v", many, goroutines,
				threshold, n, told)
		}
	}
	all := map[string]bool{}
	for _, one := range told {
		all[one.id] = true
	}
	if err := afterwards(ctx, filepath.Join(dir, stateFile), told, all); err != nil {
		return harness.Violated("after %d processes of %d goroutines: %v", many, goroutines, err)
	}
	return nil
}
