package damage

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"time"

	"example.com/quota"
	"example.com/quota/quotatest"
	"example.com/quota/torture/harness"
)

// The files of a state.
const (
	state   = "quota_state.json"
	backup  = state + ".bak"
	lock    = state + ".lock"
	owner   = state + ".owner"
	history = "quota_history.json"
)

// files are contents by name; a name that is missing is a file that is missing.
type files map[string]string

// A picture is what can be seen of a state, as text.
type picture struct{ usage, days string }

// A scene is a state that was made by real use, and what must be seen of it.
type scene struct {
	files files
	truth picture // of the state
	old   picture // of its .bak
	fresh picture // of none at all
	past  picture // of none, beside the finished days, which count in long windows

	older      string // a state some generations back
	olderTruth picture
}

var now = time.Date(2026, time.March, 12, 9, 30, 0, 0, time.UTC)

// What the harness itself has recorded, to know the pictures by.
const (
	requestsUsed = 8
	lastTokens   = 77
)

func quotas() []quota.Quota {
	return []quota.Quota{
		{Name: "work", Limits: []quota.Limit{
			{Max: 14, Window: quota.Daily(nil)},
			{Unit: quota.UnitTokens, Max: 30_000, Window: quota.Rolling(5 * time.Hour)},
		}},
	}
}

// errorsOf counts what is logged as an error.
type errorsOf struct {
	slog.Handler
	count atomic.Int64
}

func (h *errorsOf) Enabled(context.Context, slog.Level) bool { return true }

func (h *errorsOf) Handle(_ context.Context, r slog.Record) error {
	if r.Level >= slog.LevelError {
		h.count.Add(1)
	}
	return nil
}

// open opens the state in dir.
func open(dir string, strict bool, clock quota.Clock, log slog.Handler) (*quota.QuotaTracker, error) {
	file := quota.NewJSONFile(filepath.Join(dir, state))
	if strict {
		file.Strict()
	}
	return quota.New(context.Background(), quota.Config{
		Persistence: file, Quotas: quotas(), Clock: clock, Logger: slog.New(log), OnAlert: func(quota.Alert) {},
	})
}

// take takes the picture of a tracker.
func take(tracker *quota.QuotaTracker) (picture, error) {
	summary := tracker.Summary()
	summary.Recovered = ""
	usage, err := json.Marshal(summary)
	if err != nil {
		return picture{}, err
	}
	past := map[string][]quota.DaySummary{}
	for _, one := range quotas() {
		past[one.Name] = tracker.History(one.Name)
	}
	days, err := json.Marshal(past)
	return picture{string(usage), string(days)}, err
}

// makeScene uses a tracker for three days and keeps what it has written.
func makeScene(dir string) (*scene, error) {
	clock := quotatest.NewClock(now.AddDate(0, 0, -2))
	tracker, err := open(dir, false, clock, slog.DiscardHandler)
	if err != nil {
		return nil, err
	}
	defer func() { _ = tracker.Close() }() // what counts is on the disk before
	s := &scene{}
	ctx := context.Background()
	var errs []error
	check := func(err error) { errs = append(errs, err) }
	for range 2 {
		check(tracker.RecordUsage(ctx, "work", quota.Tokens(1500)))
		clock.Advance(24 * time.Hour)
	}
	for n := range 3 {
		r, err := tracker.Acquire(ctx, quota.Request{All: []string{"work"}, ID: fmt.Sprint("task-", n), Amounts: []quota.Amount{quota.Tokens(900)}})
		check(err)
		if err == nil && n < 2 {
			check(r.Commit(ctx, quota.Tokens(700)))
		}
	}
	if _, err := tracker.Reserve(ctx, "work", quota.Tokens(10_000_000)); !errors.Is(err, quota.ErrExceeded) {
		check(fmt.Errorf("what is larger than its limit was not refused: %w", err))
	}
	check(tracker.RecordUsage(ctx, "work", quota.Requests(4), quota.Tokens(5000)))
	older, err := contents(dir)
	check(err)
	check(tracker.RecordUsage(ctx, "work", quota.Requests(1), quota.Tokens(33)))
	check(tracker.RecordUsage(ctx, "work", quota.Requests(1), quota.Tokens(lastTokens)))
	s.files, err = contents(dir)
	check(err)
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("making the state: %w", err)
	}
	s.older = older[state]
	for _, name := range []string{state, backup, lock, owner, history} {
		if _, ok := s.files[name]; !ok {
			return nil, fmt.Errorf("a state was saved, and there is no %s", name)
		}
	}
	return s, s.pictures(filepath.Join(filepath.Dir(dir), "pictures"))
}

// pictures takes the pictures of each state alone, and holds them against what was recorded.
func (s *scene) pictures(dir string) error {
	for _, one := range []struct {
		to               *picture
		state            string
		requests, tokens int64
		past             bool
	}{
		{&s.truth, s.files[state], requestsUsed, lastTokens + 33 + 5000 + 2*700, true},
		{&s.old, s.files[backup], requestsUsed - 1, 33 + 5000 + 2*700, true},
		{&s.olderTruth, s.older, requestsUsed - 2, 5000 + 2*700, true},
		{&s.fresh, "", 0, 0, false},
		{&s.past, "", 0, 0, true},
	} {
		all := files{}
		if one.state != "" {
			all[state] = one.state
		}
		if one.past {
			all[history] = s.files[history]
		}
		if err := all.put(dir); err != nil {
			return err
		}
		tracker, err := open(dir, false, quotatest.NewClock(now), slog.DiscardHandler)
		if err != nil {
			return harness.Violated("an undamaged state cannot be opened: %v", err)
		}
		*one.to, err = take(tracker)
		if err != nil {
			return err
		}
		work, _ := tracker.Status("work")
		if recovered := tracker.Summary().Recovered; recovered != "" {
			return harness.Violated("an undamaged state was recovered: %s", recovered)
		}
		today := work.Today.Used
		if today[quota.UnitRequests] != one.requests || today[quota.UnitTokens] != one.tokens {
			return harness.Violated("recorded were %d requests and %d tokens today, found is %v", one.requests, one.tokens, today)
		}
		if err := tracker.Close(); err != nil {
			return err
		}
	}
	return nil
}

// contents reads the files in dir.
func contents(dir string) (files, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	all := files{}
	for _, entry := range entries {
		data, err := os.ReadFile(filepath.Join(dir, entry.Name()))
		if err != nil {
			return nil, err
		}
		all[entry.Name()] = string(data)
	}
	return all, nil
}

// put makes dir hold these files and no others.
func (f files) put(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		err = os.Mkdir(dir, 0o700)
	}
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if _, ok := f[entry.Name()]; !ok {
			if err := os.RemoveAll(filepath.Join(dir, entry.Name())); err != nil {
				return err
			}
		}
	}
	for name, text := range f {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			return err
		}
	}
	return nil
}

// same tells whether dir still holds these files; locks may have come.
func (f files) same(dir string) bool {
	found, err := contents(dir)
	if err != nil {
		return false
	}
	for _, name := range []string{lock, owner} {
		delete(found, name)
	}
	for name, text := range f {
		if name != lock && name != owner && found[name] != text {
			return false
		}
		delete(found, name)
	}
	return len(found) == 0
}

// among tells whether a picture is one of some.
func (p picture) among(some []picture) bool {
	return slices.ContainsFunc(some, func(q picture) bool { return q.usage == p.usage })
}
