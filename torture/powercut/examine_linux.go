package powercut

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"example.com/quota"
	"example.com/quota/torture/harness"
)

// A life is what is known of one state, over all the cuts it has been through.
type life struct {
	path   string
	ledger *ledger
}

// examine opens the state after a cut as any program would, and compares it with the ledger.
func (l *life) examine() error {
	delivered := map[int]bool{}
	tracker, err := quota.New(context.Background(), configuration(l.path, func(alert quota.Alert) { delivered[alert.Threshold] = true }))
	if err != nil {
		return harness.Violated("the state cannot be opened after the cut: %v", err)
	}
	err = l.compare(tracker)
	if err == nil {
		err = l.settleAll(tracker, delivered)
	}
	if closed := tracker.Close(); err == nil && closed != nil {
		err = harness.Violated("closing the tracker after the cut: %v", closed)
	}
	if err == nil {
		err = l.leftovers()
	}
	return err
}

func (l *life) compare(tracker *quota.QuotaTracker) error {
	if recovered := tracker.Summary().Recovered; recovered != "" {
		return harness.Violated("something had to be recovered: %s", recovered)
	}
	if err := tracker.Verify(); err != nil {
		return harness.Violated("the books are wrong: %v", err)
	}
	found, sum, fired := look(tracker)
	for caller := range most {
		if acceptable := l.ledger.acceptable(caller); !slices.Contains(acceptable, found[caller]) {
			return harness.Violated("caller %d: found %+v, acceptable is only %+v (what was acknowledged, and that with the calls under way)",
				caller, found[caller], acceptable)
		}
	}
	var used, held int64
	for _, effect := range found {
		used, held = used+effect.used, held+effect.held
	}
	if sum.Used != used || sum.Reserved != held {
		return harness.Violated("%d used and %d held of the total, but its callers have %d and %d", sum.Used, sum.Reserved, used, held)
	}
	for percent := range l.ledger.alerts {
		if !slices.Contains(fired, percent) {
			return harness.Violated("the alert at %d%% was delivered, and now it has never fired (fired: %d)", percent, fired)
		}
	}
	for percent := 1; percent < 100; percent++ {
		if used*100 >= totalMax*int64(percent) && !slices.Contains(fired, percent) {
			return harness.Violated("%d of %d are used, and the alert at %d%% has not fired", used, totalMax, percent)
		}
	}
	return l.compareHolds(tracker)
}

// compareHolds looks for each hold by its ID.
func (l *life) compareHolds(tracker *quota.QuotaTracker) error {
	ctx := context.Background()
	for id, n := range l.ledger.open {
		if l.ledger.maybe[id] {
			continue // it was being settled
		}
		r, err := tracker.Reservation(ctx, id)
		if err != nil {
			return harness.Violated("hold %s of %d was acknowledged and nobody settled it, but it is gone: %v", id, n, err)
		}
		for _, amount := range r.Amounts() {
			if amount.Unit != quota.UnitRequests && amount.N != n {
				return harness.Violated("hold %s is of %v, acknowledged were %d", id, r.Amounts(), n)
			}
		}
	}
	for id := range l.ledger.settled {
		if _, err := tracker.Acquire(ctx, quota.Request{All: []string{one}, ID: id}); !errors.Is(err, quota.ErrSettled) {
			return harness.Violated("hold %s was settled, acknowledged, and its ID is not remembered: %v", id, err)
		}
	}
	return nil
}

// settleAll settles what is open, so that what is found then is known for certain when the power is cut again.
func (l *life) settleAll(tracker *quota.QuotaTracker, delivered map[int]bool) error {
	ids := maps.Clone(l.ledger.maybe)
	for id := range l.ledger.open {
		ids[id] = true
	}
	for _, id := range slices.Sorted(maps.Keys(ids)) {
		r, err := tracker.Reservation(context.Background(), id)
		if errors.Is(err, quota.ErrSettled) || errors.Is(err, quota.ErrNoReservation) {
			continue // its beginning was not acknowledged, or its end has been saved
		}
		if err == nil {
			err = r.Commit(context.Background())
		}
		if err != nil {
			return harness.Violated("hold %s cannot be settled after the cut: %v", id, err)
		}
	}
	found, _, _ := look(tracker)
	for caller, effect := range found {
		if effect.held != 0 || effect.pairHeld != 0 {
			return harness.Violated("caller %d: all its holds are settled, and %+v is found", caller, effect)
		}
	}
	l.ledger = l.ledger.settle(found)
	maps.Copy(l.ledger.alerts, delivered)
	return nil
}

// look returns what a tracker shows: of each caller, of the total, and which alerts have fired.
func look(tracker *quota.QuotaTracker) (found [most]effect, sum quota.LimitStatus, fired []int) {
	work, _ := tracker.Status(one)
	pair, _ := tracker.Status(both)
	for caller := range most {
		a, b := work.Limits[caller+1], pair.Limits[caller]
		found[caller] = effect{a.Used, a.Reserved, b.Used, b.Reserved}
	}
	return found, work.Limits[0], work.Limits[0].AlertsFired
}

// leftovers looks for files that do not belong to a state that was closed in order.
func (l *life) leftovers() error {
	entries, err := os.ReadDir(filepath.Dir(l.path))
	if err != nil {
		return fmt.Errorf("looking for leftovers: %w", err)
	}
	for _, entry := range entries {
		suffix, ours := strings.CutPrefix(entry.Name(), filepath.Base(l.path))
		if !ours || !slices.Contains([]string{"", ".bak", ".lock", ".owner"}, suffix) {
			return harness.Violated("%s is left over", entry.Name())
		}
	}
	return nil
}
