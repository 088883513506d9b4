package pgquota

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"example.com/quota"
)

// A finishedDay is a row of finished_days, in the form in which SQL reads and builds it.
type finishedDay struct {
	Quota        string          `json:"quota"`
	StartsAt     string          `json:"starts_at"` // RFC 3339
	UTCOffset    int             `json:"utc_offset"`
	Day          string          `json:"day,omitempty"` // of the calendar where the day began
	Calls        int64           `json:"calls"`
	Denied       int64           `json:"denied"`
	Expired      int64           `json:"expired"`
	Used         json.RawMessage `json:"used"`
	Estimated    json.RawMessage `json:"estimated"`
	PeakReserved json.RawMessage `json:"peak_reserved"`
	DeniedBy     json.RawMessage `json:"denied_by"`
	Alerts       json.RawMessage `json:"alerts"`
}

func rowOf(name string, s quota.DaySummary) (finishedDay, error) {
	_, offset := s.Day.Zone()
	row := finishedDay{
		Quota: name, StartsAt: s.Day.Format(time.RFC3339Nano), UTCOffset: offset, Day: s.Day.Format(time.DateOnly),
		Calls: s.Calls, Denied: s.Denied, Expired: s.Expired,
	}
	for _, column := range []struct {
		to    *json.RawMessage
		value any
		empty bool
	}{
		{&row.Used, s.Used, len(s.Used) == 0},
		{&row.Estimated, s.Estimated, len(s.Estimated) == 0},
		{&row.PeakReserved, s.PeakReserved, len(s.PeakReserved) == 0},
		{&row.DeniedBy, s.DeniedBy, len(s.DeniedBy) == 0},
	} {
		data, err := json.Marshal(column.value)
		if err != nil {
			return row, fmt.Errorf("encode a finished day of %q: %w", name, err)
		}
		if *column.to = data; column.empty {
			*column.to = json.RawMessage("{}")
		}
	}
	data, err := json.Marshal(s.Alerts)
	if row.Alerts = data; len(s.Alerts) == 0 {
		row.Alerts = json.RawMessage("[]")
	}
	return row, err
}

func (row finishedDay) summary() (quota.DaySummary, error) {
	s := quota.DaySummary{Quota: row.Quota, Calls: row.Calls, Denied: row.Denied, Expired: row.Expired}
	starts, err := time.Parse("2006-01-02T15:04:05.999999", row.StartsAt)
	if err != nil {
		return s, fmt.Errorf("starts_at: %w", err)
	}
	if s.Day = starts; row.UTCOffset != 0 {
		s.Day = starts.In(time.FixedZone("", row.UTCOffset))
	}
	for _, column := range []struct {
		name string
		from json.RawMessage
		to   any
	}{
		{"used", row.Used, &s.Used},
		{"estimated", row.Estimated, &s.Estimated},
		{"peak_reserved", row.PeakReserved, &s.PeakReserved},
		{"denied_by", row.DeniedBy, &s.DeniedBy},
		{"alerts", row.Alerts, &s.Alerts},
	} {
		if text := string(column.from); text == "{}" || text == "[]" {
			continue
		}
		if err := json.Unmarshal(column.from, column.to); err != nil {
			return s, fmt.Errorf("%s: %w", column.name, err)
		}
	}
	return s, nil
}

// newDays returns the finished days that a book has now and did not have before.
func newDays(name string, before, after []byte) ([]finishedDay, error) {
	list, old := finishedIn(after), finishedIn(before)
	if list == nil || bytes.Equal(list, old) {
		return nil, nil
	}
	known := map[string]bool{}
	var now, then []json.RawMessage
	if err := json.Unmarshal(list, &now); err != nil {
		return nil, fmt.Errorf("the finished days of %q: %w", name, err)
	}
	if old != nil {
		if err := json.Unmarshal(old, &then); err != nil {
			return nil, fmt.Errorf("the finished days of %q: %w", name, err)
		}
	}
	for _, day := range then {
		known[string(day)] = true
	}
	var days []finishedDay
	for _, data := range now {
		if known[string(data)] {
			continue
		}
		var s quota.DaySummary
		if err := json.Unmarshal(data, &s); err != nil {
			return nil, fmt.Errorf("a finished day of %q: %w", name, err)
		}
		row, err := rowOf(name, s)
		if err != nil {
			return nil, err
		}
		days = append(days, row)
	}
	return days, nil
}

// finishedIn returns the list of finished days in the JSON form of a book, nil when there is none. It does not decode the
// book, of which that list is the largest part and changes once a day.
func finishedIn(book []byte) []byte {
	// In a string the quotes would be escaped. Another member that is so called, a unit, has a number.
	_, list, found := bytes.Cut(book, []byte(`"finished":[`))
	if !found {
		return nil
	}
	list = book[len(book)-len(list)-1:]
	depth, quoted := 0, false
	for i := 0; i < len(list); i++ {
		switch c := list[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '[':
			depth++
		case c == ']':
			if depth--; depth == 0 {
				return list[:i+1]
			}
		}
	}
	return nil
}

// encodeDays returns the argument of write and finish; nil for none.
func encodeDays(p *pipeline, days []finishedDay) *string {
	if len(days) == 0 {
		return nil
	}
	data, err := json.Marshal(days)
	if err != nil {
		p.err = errors.Join(p.err, fmt.Errorf("finished days: %w", err))
	}
	text := string(data)
	return &text
}
