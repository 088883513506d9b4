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
)

// limit and thresholds of the one quota that the workers cross.
const (
	callsMax  = 100
	callsName = "alpha" // also one of a victim's
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
