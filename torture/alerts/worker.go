package alerts

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strconv"
	"sync"
	"time"

	"example.com/quota"
	"example.com/quota/quotatest"
	"example.com/quota/torture/harness"
)

// What the workers leave in their directory.
const (
	stateFile = "quota_state.json"
	logFile   = "delivered.log"
	traceFile = "trace"
)

// What stands in the trace, as paths that do not exist.
const (
	padding = "/torture-padding"
	begins  = "/torture-crossing-begins"
)

// paddings is more than any other thread of a worker makes calls that are traced.
const paddings = 100

// limit and thresholds of the one quota that the workers cross.
const (
	callsMax  = 100
	callsName = "calls"
)

func thresholds() []int { return []int{50, 80, 90} }

// noon is when the workers live. Their clock stands still.
func noon() time.Time { return time.Date(2026, 3, 2, 12, 0, 0, 0, time.UTC) }

func open(persistence quota.Persistence, clock quota.Clock, onAlert func(quota.Alert)) (*quota.QuotaTracker, error) {
	return quota.New(context.Background(), quota.Config{
		Persistence: persistence,
		Quotas: []quota.Quota{{
			Name: callsName, Limits: []quota.Limit{{Max: callsMax, Window: quota.Daily(nil), AlertThresholds: thresholds()}},
		}},
		Clock:   clock,
		OnAlert: onAlert,
		Logger:  slog.New(slog.NewTextHandler(io.Discard, nil)),
	})
}

// appender returns an OnAlert that writes each alert down, with one write.
func appender(dir string) (func(quota.Alert), error) {
	file, err := os.OpenFile(dir+"/"+logFile, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	return func(a quota.Alert) {
		if _, err := file.WriteString(logLine(a)); err != nil {
			panic(err)
		}
	}, nil
}

func logLine(a quota.Alert) string { return fmt.Sprintf("%d %s\n", a.Threshold, a.ID) }

// die crosses every threshold in two calls, with all its calls to the system on one thread. It is killed at one of them.
// Arguments: the directory, and whether the state is shared.
func die(args []string) error {
	t := startThread()
	if err := t.pad(paddings); err != nil {
		return err
	}
	log, err := appender(args[0])
	if err != nil {
		return err
	}
	var persistence quota.Persistence
	one := alone{quota.NewJSONFile(args[0] + "/" + stateFile), t}
	if persistence = &one; args[1] == "shared" {
		persistence = &shared{one}
	}
	tracker, err := open(persistence, quotatest.NewClock(noon()), func(a quota.Alert) { t.do(func() { log(a) }) })
	if err != nil {
		return err
	}
	for _, n := range []int64{45, 8} { // of 100, after 40: past 50 and 80, then past 90
		t.mark(begins, 1)
		if err := tracker.RecordUsage(context.Background(), callsName, quota.Requests(n)); err != nil {
			return err
		}
	}
	return tracker.Close()
}

// cross makes calls from several goroutines at once, on a state that other processes use too. Arguments: the directory,
// goroutines, calls of each.
func cross(args []string) error {
	log, err := appender(args[0])
	if err != nil {
		return err
	}
	goroutines, _ := strconv.Atoi(args[1])
	calls, _ := strconv.Atoi(args[2])
	tracker, err := open(quota.NewJSONFile(args[0]+"/"+stateFile), quotatest.NewClock(noon()), log)
	if err != nil {
		return err
	}
	errs := make(chan error, goroutines*calls)
	var group sync.WaitGroup
	for range goroutines {
		group.Go(func() {
			for range calls {
				errs <- tracker.RecordUsage(context.Background(), callsName)
			}
		})
	}
	group.Wait()
	close(errs)
	for err := range errs {
		if err != nil {
			return harness.Violated("RecordUsage: %v", err)
		}
	}
	return tracker.Close()
}
