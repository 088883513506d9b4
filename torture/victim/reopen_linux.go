//go:build amd64 || arm64

package victim

import (
	"context"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"example.com/quota"
	"example.com/quota/quotatest"
	"example.com/quota/torture/harness"
)

// takeover is after how long the alerts of a dead process are delivered by another.
const takeover = 2 * time.Minute

// A Found is what stands in a victim's directory after its end.
type Found struct {
	Open       []*Ledger // what it may say, one of them; not changed
	Delivered  []string  // alerts, by whomever
	Damaged    bool      // something had been damaged before
	ClearedNow bool      // it may be half cleared
	Once       bool      // nobody has died: alerts are delivered once
}

// Check opens the state in a directory as the next process would, in this one, and compares. It returns the ledger that
// is right.
func (f Found) Check(ctx context.Context, dir string) (*Ledger, error) {
	path := filepath.Join(dir, StatePath)
	could := make([]*Ledger, len(f.Open))
	lowered := slices.ContainsFunc(f.Open, func(l *Ledger) bool { return l.Lowered })
	for i, ledger := range f.Open {
		could[i] = ledger.Clone()
		if lowered && !ledger.Lowered {
			could[i].Apply(Step{Do: Configure})
		}
		could[i].MoveTo(Latest(f.Open).Add(takeover))
	}
	delivered := slices.Clone(f.Delivered)
	tracker, err := quota.New(ctx, quota.Config{
		Persistence: quota.NewJSONFile(path), Quotas: Quotas(lowered), Clock: quotatest.NewClock(could[0].Now),
		Logger:  slog.New(slog.DiscardHandler),
		OnAlert: func(a quota.Alert) { delivered = append(delivered, AlertText(a)) },
	})
	if err != nil {
		return nil, harness.Violated("the state cannot be opened again: %v", err)
	}
	right, err := f.compare(ctx, tracker, could, &delivered)
	if closing := tracker.Close(); err == nil && closing != nil {
		err = harness.Violated("the tracker that looked cannot be closed: %v", closing)
	}
	if err == nil {
		err = checkFiles(filepath.Dir(path), f.Damaged)
	}
	if err == nil {
		err = checkBackup(ctx, path)
	}
	return right, err
}

// Latest is the time that it is at least, if one of the ledgers is right.
func Latest(could []*Ledger) time.Time {
	latest := could[0].Now
	for _, ledger := range could {
		if ledger.Now.After(latest) {
			latest = ledger.Now
		}
	}
	return latest
}

// Also returns the ledgers after a further step.
func Also(could []*Ledger, step Step) []*Ledger {
	after := make([]*Ledger, len(could))
	for i, ledger := range could {
		after[i] = ledger.Clone()
		after[i].Apply(step)
	}
	return after
}

// WithoutPast adds the states of which the past days have been removed.
func WithoutPast(could []*Ledger) []*Ledger {
	for _, ledger := range could[:len(could):len(could)] {
		less := ledger.Clone()
		clear(less.View.Past)
		could = append(could, less)
	}
	return could
}

func (f Found) compare(ctx context.Context, tracker *quota.QuotaTracker, could []*Ledger, delivered *[]string) (*Ledger, error) {
	if said := tracker.Summary().Recovered; said != "" && !f.Damaged && !f.ClearedNow {
		return nil, harness.Violated("nothing had been damaged, and all the same it had to be recovered: %s", said)
	}
	if err := tracker.Verify(); err != nil {
		return nil, harness.Violated("Verify: %v", err)
	}
	view, err := viewOf(ctx, tracker, could[0].IDs())
	if err != nil {
		return nil, harness.Violated("looking at the state: %v", err)
	}
	at := slices.IndexFunc(could, func(l *Ledger) bool { return Differs(view, l.View) == "" })
	if at < 0 {
		var text strings.Builder
		for i, ledger := range could {
			fmt.Fprintf(&text, "\nit could be (%d):\n%s", i+1, Differs(view, ledger.View))
		}
		return nil, harness.Violated("the state is none that it could be:%s", text.String())
	}
	// The save of a usage is what has the alerts of a dead process delivered.
	if err := tracker.RecordUsage(ctx, "probe", quota.Requests(1)); err != nil {
		return nil, harness.Violated("usage cannot be recorded: %v", err)
	}
	return f.Open[at], f.checkAlerts(*delivered, could[at])
}

// checkAlerts compares what has been delivered with what was crossed.
func (f Found) checkAlerts(delivered []string, right *Ledger) error {
	times := map[string]int{}
	for _, text := range delivered {
		key, _, _ := strings.Cut(text, " | ")
		times[key]++
	}
	for key := range right.Alerts {
		if times[key] == 0 {
			return harness.Violated("the alert %s has never been delivered; these were: %s", key, strings.Join(delivered, ", "))
		}
	}
	for key, n := range times {
		if !right.Alerts[key] && !f.ClearedNow {
			return harness.Violated("the alert %s was delivered, but the state says nothing of it", key)
		}
		if n > 1 && f.Once {
			return harness.Violated("the alert %s was delivered %d times", key, n)
		}
	}
	return nil
}

// checkFiles looks for what should not be there, and for what should.
func checkFiles(dir string, damaged bool) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return harness.Violated("the directory cannot be read: %v", err)
	}
	const state = "quota_state.json"
	must := map[string]bool{state: true, state + ".bak": true, state + ".lock": true, state + ".owner": true}
	for _, entry := range entries {
		name := entry.Name()
		aside := strings.HasPrefix(name, state+".corrupt-") || strings.HasPrefix(name, "quota_history.json.corrupt-")
		if !must[name] && name != "quota_history.json" && (!aside || !damaged) {
			return harness.Violated("%s has been left behind", name)
		}
		delete(must, name)
		if info, err := entry.Info(); err == nil && info.Mode() != fs.FileMode(0o600) {
			return harness.Violated("%s has the mode %v", name, info.Mode())
		}
	}
	for name := range must {
		return harness.Violated("there is no %s", name)
	}
	return nil
}

// checkBackup opens the generation before, in a place of its own.
func checkBackup(ctx context.Context, path string) error {
	data, err := os.ReadFile(path + ".bak")
	if err != nil {
		return harness.Violated("the generation before cannot be read: %v", err)
	}
	dir, err := os.MkdirTemp(filepath.Dir(filepath.Dir(path)), "bak-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	copied := filepath.Join(dir, filepath.Base(path))
	if err := os.WriteFile(copied, data, 0o600); err != nil {
		return err
	}
	if _, err := quota.NewJSONFile(copied).Strict().Load(ctx); err != nil {
		return harness.Violated("the generation before is no state: %v", err)
	}
	return nil
}
