package quota

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strings"
)

// pastDays is the history file. It is not changed once others can see it.
type pastDays struct {
	days  map[string][]DaySummary
	given map[string][]DaySummary // what days were made of: more than them where not all fitted in
	info  os.FileInfo             // nil: there is no file
}

// historyPath returns where the finished days of the state at target are kept.
func historyPath(target string) string {
	if name, ok := strings.CutSuffix(target, "_state.json"); ok {
		return name + "_history.json"
	}
	return target + ".history"
}

// history returns the finished days of a quota that have been saved, oldest first, not to be changed.
func (f *JSONFile) history(name string) ([]DaySummary, error) {
	target, err := f.resolve()
	if err != nil {
		return nil, err
	}
	past, err := f.readPast(historyPath(target))
	if err != nil {
		return nil, fmt.Errorf("quota: %w", err)
	}
	return past.days[name], nil
}

// readPast returns the history file, read again only when it is another one than before.
func (f *JSONFile) readPast(path string) (*pastDays, error) {
	f.mu.RLock()
	known := f.past
	f.mu.RUnlock()
	if info, err := os.Stat(path); err == nil && known != nil && sameFile(info, known.info) {
		return known, nil
	}
	past := &pastDays{}
	data, info, err := readFile(path)
	if err == nil {
		past.info = info
		past.days, err = decodeHistory(data)
		if err != nil {
			err = fmt.Errorf("%w: %s", err, path)
		}
		past.given = past.days
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	f.setPast(past)
	return past, nil
}

func (f *JSONFile) setPast(past *pastDays) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.past = past
}

// pastDays returns the history file; one that cannot be read is set aside.
func (c *cycle) pastDays() (*pastDays, error) {
	path := historyPath(c.target)
	past, err := c.f.readPast(path)
	if !errors.Is(err, ErrCorruptState) || c.f.isStrict() {
		return past, err
	}
	aside, asideErr := c.setAside(path)
	if asideErr != nil {
		return nil, asideErr
	}
	c.f.tell("the finished days could not be read (%v), set aside as %s: days before today may be missing", err, aside)
	past = &pastDays{}
	c.f.setPast(past)
	return past, nil
}

// saveHistory makes days the history, durably. The save of the state that follows syncs the directory once more.
func (c *cycle) saveHistory(days map[string][]DaySummary) error {
	past, err := c.pastDays()
	if err != nil {
		return err
	}
	if !c.f.pastUnsettled && sameHistory(days, past.given) {
		return nil
	}
	next := &pastDays{given: mergeHistory(days, nil)}
	data, err := c.fitHistory(next)
	if err != nil {
		return err
	}
	path := historyPath(c.target)
	if next.info, err = c.replace(path, data, nil); err != nil {
		return err
	}
	c.f.setPast(next)
	c.f.pastUnsettled = true
	if err := c.syncDir(path); err != nil {
		return err
	}
	c.f.pastUnsettled = false
	return nil
}

// fitHistory chooses as many of the days given as a history file may hold, the last ones, and returns that file: the
// ledger must not stop for the sake of what has been.
func (c *cycle) fitHistory(next *pastDays) ([]byte, error) {
	next.days = next.given
	for most := daysKept; ; most -= 1 + most/10 {
		if most < daysKept {
			next.days = lastDays(next.given, most)
		}
		data, err := encodeHistory(next.days)
		if err != nil {
			return nil, fmt.Errorf("encode the finished days: %w", err)
		}
		if len(data) <= c.f.limit || most == 0 {
			if most < daysKept {
				c.f.tell("%s: the finished days would have more than the %d bytes that are read again: only the last %d of each quota are kept",
					historyPath(c.target), c.f.limit, most)
			}
			return data, nil
		}
	}
}

// lastDays returns the last days of each quota, most of them at most.
func lastDays(days map[string][]DaySummary, most int) map[string][]DaySummary {
	last := make(map[string][]DaySummary, len(days))
	for name, list := range days {
		if list = list[max(0, len(list)-most):]; len(list) > 0 {
			last[name] = list
		}
	}
	return last
}

// sameHistory reports whether both say the same.
func sameHistory(a, b map[string][]DaySummary) bool {
	return maps.EqualFunc(a, b, func(x, y []DaySummary) bool { return slices.EqualFunc(x, y, DaySummary.equal) })
}

// mergeHistory returns copies of both, of each quota the last days, oldest first. What more says of a day counts.
func mergeHistory(days, more map[string][]DaySummary) map[string][]DaySummary {
	merged := make(map[string][]DaySummary, len(days)+len(more))
	for _, from := range []map[string][]DaySummary{days, more} {
		for name, list := range from {
			if len(list) > 0 {
				merged[name] = mergeDays(merged[name], list)
			}
		}
	}
	for _, list := range merged {
		for i := range list {
			list[i] = list[i].clone()
		}
	}
	return merged
}

// encodeHistory returns the history file of days.
func encodeHistory(days map[string][]DaySummary) ([]byte, error) {
	if days == nil {
		days = map[string][]DaySummary{}
	}
	body, err := json.MarshalIndent(days, "  ", "  ")
	if err != nil {
		return nil, err
	}
	return seal(fmt.Appendf(nil, "{\n  \"version\": %d,\n  \"days\": %s", stateVersion, body)), nil
}

func decodeHistory(data []byte) (map[string][]DaySummary, error) {
	fields, err := fieldsOf(data)
	if newer := checkVersion(fields["version"]); errors.Is(newer, ErrNewerState) || err == nil {
		err = newer
	}
	if errors.Is(err, ErrNewerState) {
		return nil, err
	}
	if err == nil {
		err = checkSeal(data, fields)
	}
	for key := range fields {
		if err == nil && key != "version" && key != "days" && key != "checksum" {
			err = fmt.Errorf("%q: it is not known", key)
		}
	}
	var days map[string][]DaySummary
	if err == nil {
		days, err = decodeDays(fields["days"])
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrCorruptState, err)
	}
	return days, nil
}

// decodeDays reads finished days and refuses what no day can have.
func decodeDays(data []byte) (map[string][]DaySummary, error) {
	if data == nil {
		return nil, errors.New("it has no days")
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	var read map[string]checked[DaySummary]
	if err := dec.Decode(&read); err != nil {
		return nil, err
	}
	days := make(map[string][]DaySummary, len(read))
	for name, list := range read {
		days[name] = list
	}
	return mergeHistory(days, nil), nil
}
