//go:build amd64 || arm64

package victim

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"example.com/quota"
)

// A View is what can be seen of a state through a tracker, without what two looks at the same state may say differently.
// Quotas, limits and units with nothing in them are left out.
type View struct {
	Used     map[string]int64     `json:"used"`     // by quota and limit
	Reserved map[string]int64     `json:"reserved"` // the same
	Open     map[string]int       `json:"open"`     // reservations, by quota
	Today    map[string]int64     `json:"today"`    // by quota and unit
	Past     map[string]int64     `json:"past"`     // by quota, day and unit
	Closed   map[string]time.Time `json:"closed"`   // until when, by quota
	Holds    map[string]string    `json:"holds"`    // by ID
}

func newView() View {
	return View{
		Used: map[string]int64{}, Reserved: map[string]int64{}, Open: map[string]int{}, Today: map[string]int64{},
		Past: map[string]int64{}, Closed: map[string]time.Time{}, Holds: map[string]string{},
	}
}

// names are the quotas that a View is of.
func names() []string { return []string{"alpha", "beta", "user:ann", "user:bob", "visitor", "probe"} }

// bystander tells whether a quota is there for those who come by: what they see as today depends on their clocks, so
// that their days are not looked at.
func bystander(name string) bool { return name == "visitor" || name == "probe" }

// viewOf looks at everything, and at the reservations that have these IDs.
func viewOf(ctx context.Context, t *quota.QuotaTracker, ids []string) (View, error) {
	view := newView()
	for _, name := range names() {
		status, ok := t.Status(name)
		if !ok {
			return view, fmt.Errorf("the quota %q is not known", name)
		}
		for _, limit := range status.Limits {
			if limit.Window == quota.InFlight() {
				continue // the number of open reservations says it
			}
			put(view.Used, name+"/"+limit.Limit.String(), limit.Used)
			put(view.Reserved, name+"/"+limit.Limit.String(), limit.Reserved)
		}
		if status.Reservations > 0 {
			view.Open[name] = status.Reservations
		}
		if !status.ClosedUntil.IsZero() {
			view.Closed[name] = status.ClosedUntil.UTC()
		}
		if bystander(name) {
			continue
		}
		for unit, n := range status.Today.Used {
			put(view.Today, name+"/"+string(unit), n)
		}
		for _, day := range t.History(name) {
			for unit, n := range day.Used {
				put(view.Past, name+"/"+day.Day.Format(time.DateOnly)+"/"+string(unit), n)
			}
		}
	}
	for _, id := range ids {
		r, err := t.Reservation(ctx, id)
		if errors.Is(err, quota.ErrNoReservation) || errors.Is(err, quota.ErrSettled) {
			continue
		}
		if err != nil {
			return view, fmt.Errorf("looking for the reservation %s: %w", id, err)
		}
		amounts := map[string]int64{}
		for _, amount := range r.Amounts() {
			amounts[string(amount.Unit)] += amount.N
		}
		view.Holds[id] = holdText(r.Quotas(), amounts, r.ExpiresAt())
	}
	return view, nil
}

func put(in map[string]int64, key string, n int64) {
	if n != 0 {
		in[key] = n
	}
}

func holdText(quotas []string, amounts map[string]int64, expires time.Time) string {
	quotas = slices.Sorted(slices.Values(quotas))
	var parts []string
	for _, unit := range slices.Sorted(maps.Keys(amounts)) {
		if amounts[unit] != 0 {
			parts = append(parts, fmt.Sprintf("%d %s", amounts[unit], unit))
		}
	}
	return fmt.Sprintf("%s of %s until %s", strings.Join(parts, " and "), strings.Join(quotas, ", "), expires.UTC().Format(time.RFC3339))
}

// Differs says in which lines a view is another one than it should be; "": in none.
func Differs(got, want View) string {
	lines := func(view View) []string {
		data, _ := json.MarshalIndent(view, "", " ") // of maps of plain values
		section := ""
		var lines []string
		for line := range strings.SplitSeq(string(data), "\n") {
			line = strings.TrimRight(strings.TrimSpace(line), ",")
			if strings.HasSuffix(line, "{") {
				section = strings.TrimRight(line, "{ ")
				continue
			}
			if strings.Contains(line, ": ") && !strings.HasSuffix(line, "{}") {
				lines = append(lines, section+" "+line)
			}
		}
		return lines
	}
	is, should := lines(got), lines(want)
	var out []string
	for _, line := range is {
		if !slices.Contains(should, line) {
			out = append(out, "is     "+line)
		}
	}
	for _, line := range should {
		if !slices.Contains(is, line) {
			out = append(out, "should "+line)
		}
	}
	return strings.Join(out, "\n")
}
