package quota

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"time"
)

// fill makes the book what its JSON form says.
func (b *Book) fill(form *bookJSON) error {
	b.clock = int64(form.Clock)
	if form.ClosedUntil != 0 {
		b.details().closed = int64(form.ClosedUntil)
	}
	count := tally{form.Tally.Granted, form.Tally.Settled, form.Tally.Expired}
	if !counters(count.granted, count.settled, count.expired) || count.granted != count.settled+count.expired+int64(len(form.Holds)) {
		return errors.New("a tally that does not add up")
	}
	if count != (tally{}) {
		b.holding().tally = count
	}
	for _, text := range slices.Sorted(maps.Keys(form.Accounts)) {
		a, err := form.Accounts[text].account(text)
		if err != nil {
			return fmt.Errorf("account %q: %w", text, err)
		}
		if n := len(a.slices); !a.carries() && max(a.start, a.opened) > b.clock || n > 0 && a.slices[n-1].start > b.clock {
			return fmt.Errorf("account %q: its window begins after the time of the book", text)
		}
		b.accounts = append(b.accounts, *a)
	}
	if err := b.fillHolds(form); err != nil {
		return err
	}
	for _, one := range form.Settled {
		b.holding().settled.add(one.ID, int64(one.Until))
	}
	if form.Today != nil {
		if err := b.today.fill(form.Today); err != nil {
			return fmt.Errorf("today: %w", err)
		}
	}
	for h := range b.holds.each {
		if !b.today.countable(&h.amounts) {
			return errors.New("holds that add up to more than can be counted")
		}
		b.today.held(&h.amounts)
	}
	if len(form.Finished) > 0 {
		b.details().finished = form.Finished
	}
	for _, d := range form.Alerts {
		b.details().outbox = append(b.outbox(), delivery{d.Alert, uint64(d.Writer), int64(d.Claimed)})
	}
	if from := form.Imported; from != nil {
		if from.Used < 0 || from.Reserved < 0 || len(form.Holds) > 0 {
			return errors.New("a negative number imported, or beside holds")
		}
		b.details().imported = &imported{from.Used, from.Reserved, int64(from.Ends)}
	}
	for _, one := range form.Batches {
		b.details().batches = append(b.batches(), batch{uint64(one.Writer), one.Number, int64(one.At)})
	}
	return nil
}

// checked is a list whose elements are refused one by one as they are read, so that a damaged list is not first built in
// memory, where it would take many times the room.
type checked[T interface{ check() error }] []T

func (list *checked[T]) UnmarshalJSON(data []byte) error {
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.DisallowUnknownFields()
	if begin, err := decoder.Token(); err != nil || begin != json.Delim('[') {
		return errors.New("not a list")
	}
	for decoder.More() {
		var one T
		if err := decoder.Decode(&one); err != nil {
			return err
		}
		if err := one.check(); err != nil {
			return err
		}
		*list = append(*list, one)
	}
	return nil
}

func (form settledJSON) check() error {
	if form.ID == "" || form.Until == 0 {
		return errors.New("a settled reservation without an ID or an end")
	}
	return nil
}

func (form sliceJSON) check() error {
	if form.Used < 0 {
		return errors.New("a slice with a negative number")
	}
	return nil
}

func (form deliveryJSON) check() error {
	if form.Alert.ID == "" || form.Alert.Used < 0 || form.Alert.Threshold <= 0 {
		return errors.New("an alert that cannot have been raised")
	}
	return nil
}

func (form batchJSON) check() error {
	if form.Writer == 0 {
		return errors.New("a batch without its writer")
	}
	return nil
}

func (form holdJSON) check() error {
	_, err := form.hold()
	return err
}

func (form accountJSON) account(text string) (*account, error) {
	a := &account{
		limitKey: &limitKey{text: text, unit: form.Unit, place: form.Unit.place(), window: form.Window}, max: form.Max, seen: int64(form.Seen), used: form.Used,
		start: int64(form.Start), end: int64(form.End), since: int64(form.Since), opened: int64(form.Opened),
		first: int64(form.First), part: form.Part, armed: form.Armed, reserved: form.Reserved,
	}
	if wrong := cmp.Or(checkUnit(a.unit), a.window.check()); wrong != "" {
		return nil, errors.New(wrong)
	}
	if a.window.kind == kindUnset || (Limit{Unit: a.unit, Window: a.window}).String() != text {
		return nil, errors.New("its name is not that of its limit")
	}
	if a.max < 0 || a.used < 0 || a.reserved < 0 || a.part < 0 || !counters(a.armed) {
		return nil, errors.New("a number that is negative or too large")
	}
	if a.reserved != 0 && a.window.kind != kindRefill || !a.consistent() {
		return nil, errors.New("numbers that contradict each other")
	}
	if a.window.kind == kindRefill && a.part >= a.length() {
		return nil, errors.New("a part that is more than a whole")
	}
	sum := int64(0)
	for i, s := range form.Slices {
		if s.Used < 0 || int64(s.Start)%max(1, a.sliceLength()) != 0 || i > 0 && s.Start <= form.Slices[i-1].Start {
			return nil, errors.New("slices out of order")
		}
		a.slices = append(a.slices, slice{start: int64(s.Start), used: s.Used})
		sum = saturatingAdd(sum, s.Used)
	}
	if a.window.kind == kindRolling && sum != a.used || a.window.kind != kindRolling && len(a.slices) > 0 {
		return nil, errors.New("slices that do not add up")
	}
	for _, threshold := range slices.Sorted(maps.Keys(form.Alerted)) {
		if threshold <= 0 {
			return nil, errors.New("a threshold that is not positive")
		}
		a.marks = append(a.marks, mark{threshold, int64(form.Alerted[threshold])})
	}
	return a, nil
}

// consistent reports whether what is used and the window's bounds can be those of its kind.
func (a *account) consistent() bool {
	switch a.window.kind {
	case kindDaily, kindWeekly, kindMonthly:
		return a.start < a.end
	case kindEvery:
		start, end := a.window.period(max(a.start, earliest), time.UTC)
		return a.start == start && a.end == end
	case kindSession:
		return 0 < a.start && a.start < a.end || a.start == 0 && a.end == 0 && a.used == 0
	case kindInFlight:
		return a.used == 0 && a.start == 0 && a.end == 0
	}
	return a.end == 0
}

// counters reports whether numbers that only ever grow by one are not negative and can go on growing.
func counters(numbers ...int64) bool {
	return slices.Min(numbers) >= 0 && slices.Max(numbers) < math.MaxInt64/4
}

// fillHolds reads the holds and works out what the accounts have reserved.
func (b *Book) fillHolds(form *bookJSON) error {
	for _, one := range form.Holds {
		h, err := one.hold()
		if err != nil {
			return err
		}
		if h.charged != 0 || h.granted > b.clock || b.holds.find(h.key) != nil || h.id != "" && b.holds.called(h.id) != nil {
			return fmt.Errorf("hold %s is there twice, has ended or has not been granted yet", h.key.text(""))
		}
		b.holding().add(h)
	}
	for _, one := range form.Expired {
		h, err := one.hold()
		if err != nil {
			return err
		}
		if h.charged == 0 || b.holds.find(h.key) != nil || b.holds.findLate(h.key) != nil {
			return fmt.Errorf("expired hold %s is there twice or has not ended", h.key.text(""))
		}
		b.holding().remember(h)
	}
	for i := range b.accounts {
		a := &b.accounts[i]
		if err := b.reserve(a); err != nil {
			return fmt.Errorf("account %q: %w", a.text, err)
		}
	}
	return nil
}

// reserve works out what an account has reserved from the open holds.
func (b *Book) reserve(a *account) error {
	for h := range b.holds.each {
		n, _ := h.amounts.of(a.place, a.unit)
		if a.held > math.MaxInt64-n {
			return errors.New("holds that add up to more than can be counted")
		}
		a.held += n
		switch a.window.kind {
		case kindEvery, kindSession:
			if a.counts(h.granted) {
				a.reserved += n
			}
		case kindRolling:
			if s := a.sliceOf(h.granted); s != nil {
				s.reserved += n
				a.reserved += n
			} else if n > 0 && h.granted >= max(a.opened, b.clock-b.clock%a.sliceLength()) {
				return errors.New("the slice that counts a hold is missing")
			}
		case kindRefill:
		default:
			a.reserved += n
		}
	}
	if a.reserved > a.held {
		return errors.New("more is reserved than is held")
	}
	return nil
}

func (form holdJSON) hold() (*hold, error) {
	h := &hold{
		key: holdKey(form.Key), id: form.ID, name: form.Name, quotas: form.Quotas, amounts: amounts(form.Amounts), asked: (*amounts)(form.Asked),
		estimated: form.Estimated, granted: int64(form.Granted), expires: int64(form.Expires), ttl: int64(form.TTL), charged: int64(form.Charged),
		joined: form.Joined, released: form.Released, found: form.Found,
	}
	if h.expires == 0 || !counters(h.joined) || h.ttl <= 0 || h.ttl > int64(longestWindow) || h.amounts.empty() {
		return nil, fmt.Errorf("hold %s is not complete", h.key.text(""))
	}
	if h.amounts.known[atInput] > math.MaxInt64-h.amounts.known[atOutput] {
		return nil, fmt.Errorf("hold %s is of more than can be counted", h.key.text(""))
	}
	if len(h.quotas) == 0 {
		h.quotas = nil
	}
	for i, name := range h.quotas {
		if len(h.quotas) == 1 || i > 0 && name <= h.quotas[i-1] || name == "" || len(name) > maxNameBytes || !printableName(name) {
			return nil, fmt.Errorf("hold %s: its quotas are not several names in order, each once", h.key.text(""))
		}
	}
	return h, nil
}

// belongs checks that the holds of a book that has just been read are also those of the quota called name.
func (b *Book) belongs(name string) error {
	check := func(h *hold) error {
		if h.quotas != nil && !slices.Contains(h.quotas, name) {
			return fmt.Errorf("book: hold %s is of other quotas", h.key.text(""))
		}
		return nil
	}
	for h := range b.holds.each {
		if err := check(h); err != nil {
			return err
		}
	}
	for h := b.holds.oldestLate(); h != nil; h = h.newer {
		if err := check(h); err != nil {
			return err
		}
	}
	return nil
}

func (d *dayTotals) fill(form *todayJSON) error {
	if form.Start == 0 || form.Start >= form.End || !counters(form.Calls, form.Denied, form.Expired) {
		return errors.New("numbers that contradict each other")
	}
	d.start, d.end, d.last = int64(form.Start), int64(form.End), int64(form.Last)
	d.calls, d.denied, d.expired = form.Calls, form.Denied, form.Expired
	if len(form.Alerts) > 0 {
		d.details().alerts = form.Alerts
	}
	for one := range (*amounts)(&form.Used).each {
		d.unit(one.at, one.unit).used = one.n
	}
	for one := range (*amounts)(&form.Estimated).each {
		total := d.unit(one.at, one.unit)
		total.estimated = min(one.n, total.used) // a statistic is not worth a ledger
	}
	for one := range (*amounts)(&form.Peak).each {
		d.unit(one.at, one.unit).peak = one.n
	}
	for _, by := range slices.Sorted(maps.Keys(form.DeniedBy)) {
		if !counters(form.DeniedBy[by]) {
			return errors.New("a number of refusals that is negative or too large")
		}
		more := d.details()
		more.deniedBy = append(more.deniedBy, denial{by, form.DeniedBy[by]})
	}
	return nil
}

// check refuses a day that no book can have written.
func (s DaySummary) check() error {
	if s.Day.IsZero() || s.Calls < 0 || s.Denied < 0 || s.Expired < 0 {
		return errors.New("a finished day with a negative number or without a date")
	}
	for _, numbers := range [3]map[Unit]int64{s.Used, s.Estimated, s.PeakReserved} {
		for _, n := range numbers {
			if n < 0 {
				return errors.New("a finished day with a negative number")
			}
		}
	}
	for _, n := range s.DeniedBy {
		if n < 0 {
			return errors.New("a finished day with a negative number")
		}
	}
	return nil
}

// Clone returns a copy that shares nothing with b that changes: what reading the JSON form of b again would give, for a
// fraction of the time. A SharedPersistence may keep books in memory with it, and hand out copies.
func (b *Book) Clone() *Book {
	c := b.clone()
	// Whoever gets it matches it with the limits of its own configuration, as it does with what it reads.
	c.configured, c.limited, c.flowing, c.changed = nil, 0, false, true
	c.today.saturated = false // which is logged where the original is
	for i := range c.accounts {
		c.accounts[i].rule = nil
	}
	if c.more != nil {
		c.more.refused = nil
	}
	return c
}

// clone returns a book that shares nothing with b but its rules and its finished days, which do not change.
func (b *Book) clone() *Book {
	c := *b
	c.accounts = slices.Clone(b.accounts)
	for i := range c.accounts {
		a := &c.accounts[i]
		a.slices, a.marks = slices.Clone(a.slices), slices.Clone(a.marks)
	}
	c.holds, c.more, c.quiet = b.holds.clone(), b.more.clone(), 0
	c.today = b.today.clone()
	return &c
}

func (s *holds) clone() *holds {
	if s == nil {
		return nil
	}
	c := &holds{tally: s.tally, settled: settledIDs{until: maps.Clone(s.settled.until), queue: slices.Clone(s.settled.list())}}
	for _, h := range s.inOrder() { // what adds a copy sets what ties it to the others
		copied := *h
		c.add(&copied)
	}
	for h := s.ended.oldest; h != nil; h = h.newer {
		copied := *h
		c.remember(&copied)
	}
	return c
}

func (d *bookDetails) clone() *bookDetails {
	if d == nil {
		return nil
	}
	c := *d
	c.outbox, c.batches = slices.Clone(d.outbox), slices.Clone(d.batches)
	if d.imported != nil {
		copied := *d.imported
		c.imported = &copied
	}
	return &c
}
