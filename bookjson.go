package quota

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

// The JSON form of a book. It is part of the stable format of the state: times are UTC, amounts are objects from unit to
// number, and what can be worked out from the holds is not in it.
type bookJSON struct {
	Clock       moment                 `json:"clock"`
	Accounts    map[string]accountJSON `json:"accounts,omitempty"`
	Holds       holdList               `json:"holds,omitempty"`
	Expired     holdList               `json:"expired,omitempty"`
	Settled     checked[settledJSON]   `json:"settled,omitempty"`
	Today       *todayJSON             `json:"today,omitempty"`
	Finished    checked[DaySummary]    `json:"finished,omitempty"`
	Alerts      checked[deliveryJSON]  `json:"alerts,omitempty"`
	ClosedUntil moment                 `json:"closed_until,omitempty"`
	Imported    *importedJSON          `json:"imported,omitempty"`
	Batches     checked[batchJSON]     `json:"batches,omitempty"`
	Tally       tallyJSON              `json:"tally,omitzero"`

	finished []byte // the list of Finished, if it has been encoded already
}

type accountJSON struct {
	Unit     Unit               `json:"unit"`
	Window   Window             `json:"window"`
	Max      int64              `json:"max"`
	Seen     moment             `json:"seen"`
	Used     int64              `json:"used,omitempty"`
	Reserved int64              `json:"reserved,omitempty"` // of a refill only, which a part of the holds may have left
	Start    moment             `json:"start,omitempty"`
	End      moment             `json:"end,omitempty"`
	Since    moment             `json:"since,omitempty"`
	Opened   moment             `json:"opened,omitempty"`
	First    moment             `json:"first,omitempty"`
	Part     int64              `json:"part,omitempty"`
	Slices   checked[sliceJSON] `json:"slices,omitempty"`
	Alerted  map[int]moment     `json:"alerted,omitempty"`
	Armed    int64              `json:"armed,omitempty"`
}

type sliceJSON struct {
	Start moment `json:"start"`
	Used  int64  `json:"used"`
}

type holdJSON struct {
	Key       keyText    `json:"key"`
	ID        string     `json:"id,omitempty"`
	Name      string     `json:"name,omitempty"`
	Quotas    []string   `json:"quotas,omitempty"`
	Amounts   amountsOf  `json:"amounts"`
	Asked     *amountsOf `json:"asked,omitempty"`
	Estimated []Unit     `json:"estimated,omitempty"`
	Granted   moment     `json:"granted,omitempty"`
	Expires   moment     `json:"expires"`
	TTL       span       `json:"ttl"`
	Charged   moment     `json:"charged,omitempty"`
	Joined    int64      `json:"joined,omitempty"`
	Released  bool       `json:"released,omitempty"`
	Found     bool       `json:"found,omitempty"`
}

type settledJSON struct {
	ID    string `json:"id"`
	Until moment `json:"until"`
}

type todayJSON struct {
	Start     moment           `json:"start"`
	End       moment           `json:"end"`
	Last      moment           `json:"last,omitempty"`
	Used      amountsOf        `json:"used,omitzero"`
	Estimated amountsOf        `json:"estimated,omitzero"`
	Peak      amountsOf        `json:"peak_reserved,omitzero"`
	Calls     int64            `json:"calls,omitempty"`
	Denied    int64            `json:"denied,omitempty"`
	Expired   int64            `json:"expired,omitempty"`
	DeniedBy  map[string]int64 `json:"denied_by,omitempty"`
	Alerts    []string         `json:"alerts,omitempty"`
}

type deliveryJSON struct {
	Alert   Alert  `json:"alert"`
	Writer  number `json:"writer,omitempty"`
	Claimed moment `json:"claimed,omitempty"`
}

type importedJSON struct {
	Used     int64  `json:"used"`
	Reserved int64  `json:"reserved"`
	Ends     moment `json:"ends,omitempty"`
}

type batchJSON struct {
	Writer number `json:"writer"`
	Number uint64 `json:"number"`
	At     moment `json:"at"`
}

type tallyJSON struct {
	Granted int64 `json:"granted"`
	Settled int64 `json:"settled"`
	Expired int64 `json:"expired"`
}

// A moment is an instant of the core as text.
type moment int64

func (m moment) MarshalText() ([]byte, error) {
	return instant(int64(m)).AppendFormat(nil, time.RFC3339Nano), nil
}

func (m *moment) UnmarshalText(text []byte) error {
	t, err := time.Parse(time.RFC3339Nano, string(text))
	if err != nil {
		return fmt.Errorf("not a time: %q", text)
	}
	// What begins before latest may end after it.
	if *m = 0; !t.IsZero() {
		*m = moment(t.UnixNano())
	}
	if *m < 0 || !instant(int64(*m)).Equal(t) {
		return fmt.Errorf("a time out of range: %q", text)
	}
	return nil
}

// A span is a duration as text.
type span int64

func (s span) MarshalText() ([]byte, error) { return []byte(time.Duration(s).String()), nil }

func (s *span) UnmarshalText(text []byte) error {
	d, err := time.ParseDuration(string(text))
	if err != nil || d <= 0 {
		return fmt.Errorf("not a positive duration: %q", text)
	}
	*s = span(d)
	return nil
}

// A number is a writer's, in few letters.
type number uint64

func (n number) MarshalText() ([]byte, error) { return strconv.AppendUint(nil, uint64(n), 36), nil }

func (n *number) UnmarshalText(text []byte) error {
	v, err := strconv.ParseUint(string(text), 36, 64)
	if err != nil {
		return fmt.Errorf("not a writer: %q", text)
	}
	*n = number(v)
	return nil
}

// A keyText is the key of a hold.
type keyText holdKey

func (k keyText) MarshalText() ([]byte, error) {
	return []byte(strings.TrimSuffix(holdKey(k).text(""), "@")), nil
}

func (k *keyText) UnmarshalText(text []byte) error {
	key, _, ok := parseHoldKey(string(text) + "@")
	if !ok {
		return fmt.Errorf("not the key of a hold: %q", text)
	}
	*k = keyText(key)
	return nil
}

// amountsOf is amounts as an object, requests first.
type amountsOf amounts

// IsZero reports whether they name nothing.
func (m amountsOf) IsZero() bool { return (*amounts)(&m).empty() }

func (m amountsOf) MarshalJSON() ([]byte, error) {
	out := []byte{'{'}
	for i, amount := range slices.SortedFunc(slices.Values((*amounts)(&m).list()), byUnit) {
		if i > 0 {
			out = append(out, ',')
		}
		unit, err := json.Marshal(string(amount.Unit))
		if err != nil {
			return nil, err
		}
		out = append(append(out, unit...), ':')
		out = strconv.AppendInt(out, amount.N, 10)
	}
	return append(out, '}'), nil
}

func (m *amountsOf) UnmarshalJSON(data []byte) error {
	var list map[Unit]int64
	if err := json.Unmarshal(data, &list); err != nil {
		return err
	}
	*m = amountsOf{}
	for _, unit := range slices.Sorted(maps.Keys(list)) {
		if wrong := checkUnit(unit); wrong != "" {
			return errors.New(wrong)
		}
		if list[unit] < 0 {
			return fmt.Errorf("a negative amount of %q", unit)
		}
		(*amounts)(m).set(unit.place(), unit, list[unit])
	}
	return nil
}

// byUnit orders amounts by their units, requests first.
func byUnit(x, y Amount) int {
	if (x.Unit == UnitRequests) != (y.Unit == UnitRequests) {
		if x.Unit == UnitRequests {
			return -1
		}
		return 1
	}
	return cmp.Compare(x.Unit, y.Unit)
}

// MarshalJSON returns the book in its stable form.
func (b *Book) MarshalJSON() ([]byte, error) {
	form := b.form()
	form.finished = b.finishedText()
	return form.appendTo(make([]byte, 0, commonBook+commonHold*len(form.Holds)+len(form.finished)), false)
}

const commonHold = 256 // bytes: most holds take less

// finishedText returns the JSON form of the finished days, which in a store that several trackers share stand in every
// save and change once a day.
func (b *Book) finishedText() []byte {
	days := b.finished()
	if len(days) == 0 {
		return nil
	}
	text := &b.more.finishedText
	if len(text.days) != len(days) || &text.days[0] != &days[0] { // a list that has changed is another list
		data, err := json.Marshal(days)
		if err != nil {
			return nil // appendTo says so
		}
		*text = finishedText{days, data}
	}
	return text.data
}

func (b *Book) form() *bookJSON {
	tally := b.tally()
	form := &bookJSON{
		Clock: moment(b.clock), Finished: b.finished(), ClosedUntil: moment(b.closed()), Tally: tallyJSON{tally.granted, tally.settled, tally.expired},
	}
	if len(b.accounts) > 0 {
		form.Accounts = make(map[string]accountJSON, len(b.accounts))
	}
	for i := range b.accounts {
		a := &b.accounts[i]
		form.Accounts[a.text] = a.form()
	}
	if open := b.holds.inOrder(); len(open) > 0 {
		form.Holds = make([]holdJSON, len(open))
		for i, h := range open {
			form.Holds[i] = h.form()
		}
	}
	for h := b.holds.oldestLate(); h != nil; h = h.newer {
		form.Expired = append(form.Expired, h.form())
	}
	for _, one := range b.settled().list() {
		form.Settled = append(form.Settled, settledJSON{one.id, moment(one.forget)})
	}
	if b.today.end != 0 {
		form.Today = b.today.form()
	}
	for _, d := range b.outbox() {
		form.Alerts = append(form.Alerts, deliveryJSON{d.alert, number(d.writer), moment(d.claimed)})
	}
	if from := b.imported(); from != nil {
		form.Imported = &importedJSON{from.used, from.reserved, moment(from.ends)}
	}
	for _, one := range b.batches() {
		form.Batches = append(form.Batches, batchJSON{number(one.writer), one.number, moment(one.at)})
	}
	return form
}

func (a *account) form() accountJSON {
	form := accountJSON{
		Unit: a.unit, Window: a.window, Max: a.max, Seen: moment(a.seen), Used: a.used, Start: moment(a.start),
		End: moment(a.end), Since: moment(a.since), Opened: moment(a.opened), First: moment(a.first), Part: a.part, Armed: a.armed,
	}
	if a.window.kind == kindRefill {
		form.Reserved = a.reserved
	}
	for _, s := range a.slices {
		form.Slices = append(form.Slices, sliceJSON{moment(s.start), s.used})
	}
	if len(a.marks) > 0 {
		form.Alerted = make(map[int]moment, len(a.marks))
		for _, m := range a.marks {
			form.Alerted[m.threshold] = moment(m.at)
		}
	}
	return form
}

func (h *hold) form() holdJSON {
	return holdJSON{
		Key: keyText(h.key), ID: h.id, Name: h.name, Quotas: h.quotas, Amounts: amountsOf(h.amounts), Asked: (*amountsOf)(h.asked),
		Estimated: h.estimated, Granted: moment(h.granted), Expires: moment(h.expires), TTL: span(h.ttl), Charged: moment(h.charged),
		Joined: h.joined, Released: h.released, Found: h.found,
	}
}

func (d *dayTotals) form() *todayJSON {
	form := &todayJSON{
		Start: moment(d.start), End: moment(d.end), Last: moment(d.last), Calls: d.calls, Denied: d.denied,
		Expired: d.expired, Alerts: d.alerts(),
	}
	for unit, total := range d.each {
		for _, one := range [3]struct {
			to *amountsOf
			n  int64
		}{{&form.Used, total.used}, {&form.Estimated, total.estimated}, {&form.Peak, total.peak}} {
			if one.n > 0 {
				(*amounts)(one.to).set(unit.place(), unit, one.n)
			}
		}
	}
	if deniedBy := d.deniedBy(); len(deniedBy) > 0 {
		form.DeniedBy = make(map[string]int64, len(deniedBy))
		for _, refusal := range deniedBy {
			form.DeniedBy[refusal.by] = refusal.n
		}
	}
	return form
}

// UnmarshalJSON reads the stable form. It refuses what no book can have written.
func (b *Book) UnmarshalJSON(data []byte) error {
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.DisallowUnknownFields()
	if err := checkNulls(data); err != nil {
		return fmt.Errorf("book: %w", err)
	}
	var form bookJSON
	if err := decoder.Decode(&form); err != nil {
		return fmt.Errorf("book: %w", err)
	}
	if _, err := decoder.Token(); err != io.EOF {
		return errors.New("book: something follows it")
	}
	read := Book{changed: true}
	if err := read.fill(&form); err != nil {
		return fmt.Errorf("book: %w", err)
	}
	*b = read
	return nil
}

// checkNulls refuses nulls, which would be read as 0, in the JSON form of a book. Those of a
// finished day stand for empty maps.
func checkNulls(data []byte) error {
	if !bytes.Contains(data, []byte("null")) {
		return nil
	}
	return eachField(json.NewDecoder(bytes.NewReader(data)), func(key string, value json.RawMessage) error {
		tokens := json.NewDecoder(bytes.NewReader(value))
		for key != "finished" {
			token, err := tokens.Token()
			if err != nil {
				return nil // its end: eachField knows it to be valid
			}
			if token == nil {
				return fmt.Errorf("%q: null", key)
			}
		}
		return nil
	})
}
