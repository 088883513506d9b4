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
	end       int64
	calls     int64
	requests  unitTotal
	start     int64
	last      int64 // the end of the last day on which something happened
	denied    int64
	expired   int64
	rest      *[places - 1]unitTotal // of the places but requests; nil: of those nothing has been counted yet
	more      *dayDetails            // nil: there is nothing special about the day
	saturated bool                   // more was used than can be counted, which nobody has logged (derived)
}

// dayDetails are what few days of few quotas need.
type dayDetails struct {
	other    []ownTotal
	deniedBy []denial // by limit
	alerts   []string
}

// A unitTotal is what a day counts of one unit. What is open outlives the day.
type unitTotal struct{ used, estimated, open, peak int64 }

// An ownTotal is that of a unit of a caller's own.
type ownTotal struct {
	unit Unit
	unitTotal
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
	if at != elsewhere {
		return d.known(at)
	}
	more := d.details()
	more.other = append(more.other, ownTotal{unit: unit})
	return &more.other[len(more.other)-1].unitTotal
}

// known is unit for one that has a place.
func (d *dayTotals) known(at place) *unitTotal {
	if at == atRequests {
		return &d.requests
	}
	if d.rest == nil {
		d.rest = new([places - 1]unitTotal)
	}
	return &d.rest[at-1]
}

// details are more, to be changed.
func (d *dayTotals) details() *dayDetails {
	if d.more == nil {
		d.more = &dayDetails{}
	}
	return d.more
}

// own are the totals of units of callers' own.
func (d *dayTotals) own() []ownTotal {
	if d.more == nil {
		return nil
	}
	return d.more.other
}

// deniedBy is by what calls were refused.
func (d *dayTotals) deniedBy() []denial {
	if d.more == nil {
		return nil
	}
	return d.more.deniedBy
}

func (d *dayTotals) alerts() []string {
	if d.more == nil {
		return nil
	}
	return d.more.alerts
}

// find returns what is counted of a unit, nil when it has not been counted yet.
func (d *dayTotals) find(at place, unit Unit) *unitTotal {
	switch {
	case at == atRequests:
		return &d.requests
	case at != elsewhere:
		if d.rest == nil {
			return nil
		}
		return &d.rest[at-1]
	}
	own := d.own()
	for i := range own {
		if own[i].unit == unit {
			return &own[i].unitTotal
		}
	}
	return nil
}

// open is how much of a unit that has a place is held.
func (d *dayTotals) open(at place) int64 {
	if at == atRequests {
		return d.requests.open
	}
	if d.rest == nil {
		return 0
	}
	return d.rest[at-1].open
}

// each visits what has been counted of every unit.
func (d *dayTotals) each(visit func(Unit, *unitTotal) bool) {
	for at := range place(places) {
		if total := d.find(at, at.unit()); total != nil && !visit(at.unit(), total) {
			return
		}
	}
	own := d.own()
	for i := range own {
		if !visit(own[i].unit, &own[i].unitTotal) {
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
	if d.calls > 0 || d.denied > 0 || d.expired > 0 || len(d.alerts()) > 0 {
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
	fresh := dayTotals{start: start, end: end, last: last, requests: d.requests.carried()}
	for at := atTokens; at < elsewhere; at++ {
		if d.open(at) > 0 {
			*fresh.known(at) = d.known(at).carried()
		}
	}
	for _, total := range d.own() {
		if total.open > 0 {
			more := fresh.details()
			more.other = append(more.other, ownTotal{total.unit, total.carried()})
		}
	}
	*d = fresh
}

// carried is what a new day begins with.
func (t *unitTotal) carried() unitTotal {
	return unitTotal{open: t.open, peak: t.open}
}

// add counts what has been used, and all tokens where only their parts are named.
func (d *dayTotals) add(list *amounts) {
	for left := list.sums; left != 0; left &= left - 1 {
		at := left.first()
		d.use(d.known(at), list.known[at])
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
		total := d.known(at)
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
		total := d.known(at)
		total.estimated = saturatingAdd(total.estimated, list.known[at])
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
		if at := left.first(); d.open(at) > math.MaxInt64-list.known[at] {
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
		d.known(at).hold(list.known[at])
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
		d.known(at).open -= list.known[at]
	}
	for _, amount := range list.other {
		d.unit(elsewhere, amount.Unit).open -= amount.N
	}
}

func (d *dayTotals) deny(by string, n int64) {
	d.denied += n
	more := d.details()
	for i := range more.deniedBy {
		if more.deniedBy[i].by == by {
			more.deniedBy[i].n += n
			return
		}
	}
	more.deniedBy = append(more.deniedBy, denial{by, n})
}

// clone returns a copy that shares nothing with d.
func (d *dayTotals) clone() dayTotals {
	c := *d
	if d.rest != nil {
		rest := *d.rest
		c.rest = &rest
	}
	if d.more != nil {
		c.more = &dayDetails{slices.Clone(d.more.other), slices.Clone(d.more.deniedBy), slices.Clone(d.more.alerts)}
	}
	return c
}

// summary is the day in the form that leaves the library.
func (d *dayTotals) summary(quota string, loc *time.Location) DaySummary {
	s := DaySummary{
		Quota: quota, Day: instant(d.start).In(loc), Calls: d.calls, Denied: d.denied, Expired: d.expired,
		Alerts: slices.Clone(d.alerts()),
	}
	for unit, total := range d.each {
		put(&s.Used, unit, total.used)
		put(&s.Estimated, unit, total.estimated)
		put(&s.PeakReserved, unit, total.peak)
	}
	for _, refusal := range d.deniedBy() {
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

// deny counts n refusals for one reason.
func (s *DaySummary) deny(by string, n int64) {
	s.Denied += n
	if s.DeniedBy == nil {
		s.DeniedBy = make(map[string]int64)
	}
	s.DeniedBy[by] += n
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
