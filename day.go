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
	units      []unitTotal
	calls      int64
	denied     int64
	expired    int64
	deniedBy   []denial // by limit
	alerts     []string

	saturated bool // more was used than can be counted, which nobody has logged (derived)
}

// A unitTotal is what a day counts of one unit. What is open outlives the day.
type unitTotal struct {
	unit                        Unit
	used, estimated, open, peak int64
}

type denial struct {
	by string
	n  int64
}

func (d *dayTotals) unit(unit Unit) *unitTotal {
	for i := range d.units {
		if d.units[i].unit == unit {
			return &d.units[i]
		}
	}
	d.units = append(d.units, unitTotal{unit: unit})
	return &d.units[len(d.units)-1]
}

func (d *dayTotals) used(unit Unit) int64 {
	for i := range d.units {
		if d.units[i].unit == unit {
			return d.units[i].used
		}
	}
	return 0
}

// active reports whether anything happened on the day.
func (d *dayTotals) active() bool {
	if d.calls > 0 || d.denied > 0 || d.expired > 0 || len(d.alerts) > 0 {
		return true
	}
	for i := range d.units {
		if d.units[i].used > 0 || d.units[i].peak > 0 {
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
	units := d.units[:0]
	for _, total := range d.units {
		if total.open > 0 {
			units = append(units, unitTotal{unit: total.unit, open: total.open, peak: total.open})
		}
	}
	*d = dayTotals{start: start, end: end, last: last, units: units}
}

// eachUnit visits what list amounts to of every unit: those it names, and all tokens.
func eachUnit(list []Amount, visit func(unit Unit, n int64)) {
	split := false
	for i := range list {
		visit(list[i].Unit, list[i].N)
		split = split || list[i].Unit == UnitInputTokens || list[i].Unit == UnitOutputTokens
	}
	if split && find(list, UnitTokens) < 0 {
		n, _ := count(list, UnitTokens)
		visit(UnitTokens, n)
	}
}

// add counts what has been used.
func (d *dayTotals) add(list []Amount) {
	eachUnit(list, d.addUnit)
}

func (d *dayTotals) addUnit(unit Unit, n int64) {
	total := d.unit(unit)
	d.saturated = d.saturated || total.used > math.MaxInt64-n
	total.used = saturatingAdd(total.used, n)
}

// estimate marks so much of what has been added as estimated. The list is flat.
func (d *dayTotals) estimate(list []Amount) {
	for i := range list {
		total := d.unit(list[i].Unit)
		total.estimated = saturatingAdd(total.estimated, list[i].N)
	}
}

// lower takes back what had been charged as an estimate.
func (d *dayTotals) lower(unit Unit, used, estimated int64) {
	total := d.unit(unit)
	total.used -= min(used, total.used)
	total.estimated -= min(estimated, total.estimated)
}

// countable reports whether list can be held beside all that is open.
func (d *dayTotals) countable(list []Amount) bool {
	fits := true
	eachUnit(list, func(unit Unit, n int64) {
		if d.unit(unit).open > math.MaxInt64-n {
			fits = false
		}
	})
	return fits
}

func (d *dayTotals) held(list []Amount) {
	eachUnit(list, func(unit Unit, n int64) {
		total := d.unit(unit)
		total.open += n // countable has made sure that it can be counted
		total.peak = max(total.peak, total.open)
	})
}

func (d *dayTotals) freed(list []Amount) {
	eachUnit(list, func(unit Unit, n int64) { d.unit(unit).open -= n })
}

func (d *dayTotals) deny(by string) {
	d.denied++
	for i := range d.deniedBy {
		if d.deniedBy[i].by == by {
			d.deniedBy[i].n++
			return
		}
	}
	d.deniedBy = append(d.deniedBy, denial{by, 1})
}

// summary is the day in the form that leaves the library.
func (d *dayTotals) summary(quota string, loc *time.Location) DaySummary {
	s := DaySummary{
		Quota: quota, Day: instant(d.start).In(loc), Calls: d.calls, Denied: d.denied, Expired: d.expired,
		Alerts: slices.Clone(d.alerts),
	}
	for _, total := range d.units {
		put(&s.Used, total.unit, total.used)
		put(&s.Estimated, total.unit, total.estimated)
		put(&s.PeakReserved, total.unit, total.peak)
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

// clone returns a copy that shares nothing.
func (s DaySummary) clone() DaySummary {
	s.Used, s.Estimated, s.PeakReserved = maps.Clone(s.Used), maps.Clone(s.Estimated), maps.Clone(s.PeakReserved)
	s.DeniedBy, s.Alerts = maps.Clone(s.DeniedBy), slices.Clone(s.Alerts)
	return s
}
