package quota

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"time"
)

// dayTotals are what a book counts of one day, limited or not.
type dayTotals struct {
	start, end int64
	last       int64 // the end of the last day on which something happened
	known      [places]unitTotal
	other      []unitTotal // units of callers' own
	calls      int64
	denied     int64
	expired    int64
	deniedBy   []denial // by limit
	alerts     []string

	saturated bool // more was used than can be counted, which nobody has logged (derived)
}

// A unitTotal is what a day counts of one unit. What is open outlives the day.
type unitTotal struct {
	unit                        Unit // only of callers' own
	used, estimated, open, peak int64
}

type denial struct {
	by string
	n  int64
}

// unit returns what is counted of a unit, to be changed.
func (d *dayTotals) unit(at place, unit Unit) *unitTotal {
	if total := d.find(at, unit); total != nil {
		return total
	}
	d.other = append(d.other, unitTotal{unit: unit})
	return &d.other[len(d.other)-1]
}

// find returns what is counted of a unit, nil when it has not been counted yet.
func (d *dayTotals) find(at place, unit Unit) *unitTotal {
	if at != elsewhere {
		return &d.known[at]
	}
	for i := range d.other {
		if d.other[i].unit == unit {
			return &d.other[i]
		}
	}
	return nil
}

// each visits what is counted of every unit.
func (d *dayTotals) each(visit func(Unit, *unitTotal) bool) {
	for at := range place(places) {
		if !visit(at.unit(), &d.known[at]) {
			return
		}
	}
	for i := range d.other {
		if !visit(d.other[i].unit, &d.other[i]) {
			return
		}
	}
}

func (d *dayTotals) used(unit Unit) int64 {
	if total := d.find(unit.place(), unit); total != nil {
		return total.used
	}
	return 0
}

// anyOpen reports whether an open hold has anything of what list, which is flat, has.
func (d *dayTotals) anyOpen(list *amounts) bool {
	for one := range list.each {
		if one.n > 0 {
			if total := d.find(one.at, one.unit); total != nil && total.open > 0 {
				return true
			}
		}
	}
	return false
}

// active reports whether anything happened on the day.
func (d *dayTotals) active() bool {
	if d.calls > 0 || d.denied > 0 || d.expired > 0 || len(d.alerts) > 0 {
		return true
	}
	for _, total := range d.each {
		if total.used > 0 || total.peak > 0 {
			return true
		}
	}
	return false
}

// restart begins a new day. What is held stays held, and is the new day's first peak.
func (d *dayTotals) restart(start, end int64) {
	last := d.last
	if d.active() {
		last = d.end
	}
	fresh := dayTotals{start: start, end: end, last: last, other: d.other[:0]}
	for at := range d.known {
		fresh.known[at] = d.known[at].carried()
	}
	for i := range d.other {
		if d.other[i].open > 0 {
			fresh.other = append(fresh.other, d.other[i].carried())
		}
	}
	*d = fresh
}

// carried is what a new day begins with.
func (t *unitTotal) carried() unitTotal {
	return unitTotal{unit: t.unit, open: t.open, peak: t.open}
}

// add counts what has been used, and all tokens where only their parts are named.
func (d *dayTotals) add(list *amounts) {
	for left := list.sums; left != 0; left &= left - 1 {
		at := left.first()
		d.use(&d.known[at], list.known[at])
	}
	for _, amount := range list.other {
		d.use(d.unit(elsewhere, amount.Unit), amount.N)
	}
}

func (d *dayTotals) use(total *unitTotal, n int64) {
	if total.used > math.MaxInt64-n {
		d.saturated = true
	}
	total.used = saturatingAdd(total.used, n)
}

// settled counts what a hold has been settled with: held is free, actual used, and so much of that estimated.
func (d *dayTotals) settled(held, actual, estimated *amounts) {
	for left := held.sums | actual.sums; left != 0; left &= left - 1 {
		at := left.first()
		total := &d.known[at]
		total.open -= held.known[at]
		d.use(total, actual.known[at])
		total.estimated = saturatingAdd(total.estimated, estimated.known[at])
	}
	for _, amount := range held.other {
		d.unit(elsewhere, amount.Unit).open -= amount.N
	}
	for _, amount := range actual.other {
		d.use(d.unit(elsewhere, amount.Unit), amount.N)
	}
	for _, amount := range estimated.other {
		total := d.unit(elsewhere, amount.Unit)
		total.estimated = saturatingAdd(total.estimated, amount.N)
	}
}

// estimate marks so much of what has been added as estimated. The list is flat.
func (d *dayTotals) estimate(list *amounts) {
	for left := list.named; left != 0; left &= left - 1 {
		at := left.first()
		d.known[at].estimated = saturatingAdd(d.known[at].estimated, list.known[at])
	}
	for _, amount := range list.other {
		total := d.unit(elsewhere, amount.Unit)
		total.estimated = saturatingAdd(total.estimated, amount.N)
	}
}

// lower takes back what had been charged as an estimate.
func (t *unitTotal) lower(used, estimated int64) {
	t.used -= min(used, t.used)
	t.estimated -= min(estimated, t.estimated)
}

// countable reports whether list can be held beside all that is open.
func (d *dayTotals) countable(list *amounts) bool {
	if list.known[atInput] > math.MaxInt64-list.known[atOutput] {
		return false // an estimate has been added to what the call names
	}
	for left := list.sums; left != 0; left &= left - 1 {
		if at := left.first(); d.known[at].open > math.MaxInt64-list.known[at] {
			return false
		}
	}
	for _, amount := range list.other {
		if total := d.find(elsewhere, amount.Unit); total != nil && total.open > math.MaxInt64-amount.N {
			return false
		}
	}
	return true
}

// held counts what has been set aside, which is countable.
func (d *dayTotals) held(list *amounts) {
	for left := list.sums; left != 0; left &= left - 1 {
		at := left.first()
		d.known[at].hold(list.known[at])
	}
	for _, amount := range list.other {
		d.unit(elsewhere, amount.Unit).hold(amount.N)
	}
}

func (t *unitTotal) hold(n int64) {
	t.open += n
	t.peak = max(t.peak, t.open)
}

func (d *dayTotals) freed(list *amounts) {
	for left := list.sums; left != 0; left &= left - 1 {
		at := left.first()
		d.known[at].open -= list.known[at]
	}
	for _, amount := range list.other {
		d.unit(elsewhere, amount.Unit).open -= amount.N
	}
}

func (d *dayTotals) deny(by string, n int64) {
	d.denied += n
	for i := range d.deniedBy {
		if d.deniedBy[i].by == by {
			d.deniedBy[i].n += n
			return
		}
	}
	d.deniedBy = append(d.deniedBy, denial{by, n})
}

// summary is the day in the form that leaves the library.
func (d *dayTotals) summary(quota string, loc *time.Location) DaySummary {
	s := DaySummary{
		Quota: quota, Day: instant(d.start).In(loc), Calls: d.calls, Denied: d.denied, Expired: d.expired,
		Alerts: slices.Clone(d.alerts),
	}
	for unit, total := range d.each {
		put(&s.Used, unit, total.used)
		put(&s.Estimated, unit, total.estimated)
		put(&s.PeakReserved, unit, total.peak)
	}
	for _, refusal := range d.deniedBy {
		put(&s.DeniedBy, refusal.by, refusal.n)
	}
	return s
}

// put sets what is not zero, and makes the map for the first.
func put[K comparable](m *map[K]int64, key K, n int64) {
	if n == 0 {
		return
	}
	if *m == nil {
		*m = make(map[K]int64)
	}
	(*m)[key] = n
}

func alertNote(threshold int, limit string) string {
	return fmt.Sprintf("%d%% of %s", threshold, limit)
}

const daysKept = 90

// mergeDays adds finished days to those kept, oldest first. A day that is there already is replaced, so that adding
// the same days again changes nothing.
func mergeDays(kept, more []DaySummary) []DaySummary {
	merged := slices.Clone(kept)
	for _, one := range more {
		at, found := slices.BinarySearchFunc(merged, one, func(x, y DaySummary) int { return x.Day.Compare(y.Day) })
		if found {
			merged[at] = one
		} else {
			merged = slices.Insert(merged, at, one)
		}
	}
	if surplus := len(merged) - daysKept; surplus > 0 {
		merged = slices.Delete(merged, 0, surplus)
	}
	return merged
}

// equal reports whether both say the same.
func (s DaySummary) equal(other DaySummary) bool {
	return s.Quota == other.Quota && s.Day.Equal(other.Day) &&
		s.Calls == other.Calls && s.Denied == other.Denied && s.Expired == other.Expired &&
		maps.Equal(s.Used, other.Used) && maps.Equal(s.Estimated, other.Estimated) &&
		maps.Equal(s.PeakReserved, other.PeakReserved) && maps.Equal(s.DeniedBy, other.DeniedBy) &&
		slices.Equal(s.Alerts, other.Alerts)
}

// clone returns a copy that shares nothing.
func (s DaySummary) clone() DaySummary {
	s.Used, s.Estimated, s.PeakReserved = maps.Clone(s.Used), maps.Clone(s.Estimated), maps.Clone(s.PeakReserved)
	s.DeniedBy, s.Alerts = maps.Clone(s.DeniedBy), slices.Clone(s.Alerts)
	return s
}
