package quota

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// pythonLimit is one quota in a state of version "1.0", which a Python tool wrote. Its limit is not read: limits are
// configuration.
type pythonLimit struct {
	Used     *int64  `json:"used"`
	Reserved int64   `json:"reserved"`
	ResetsAt *string `json:"resets_at"`
}

// pythonVersion reports whether raw is the version of a state of the Python tool.
func pythonVersion(raw json.RawMessage) bool {
	var version string
	return json.Unmarshal(raw, &version) == nil && version == "1.0"
}

// decodePython reads a state of version "1.0". Other members than those it needs are ignored.
func decodePython(fields map[string]json.RawMessage) (*snapshot, error) {
	for _, needed := range []string{"limits", "last_updated"} {
		if _, ok := fields[needed]; !ok {
			return nil, fmt.Errorf("it has no %s", needed)
		}
	}
	var updated string
	if err := json.Unmarshal(fields["last_updated"], &updated); err != nil {
		return nil, fmt.Errorf("last_updated: %w", err)
	}
	updatedAt, err := pythonTime(updated)
	if err != nil {
		return nil, fmt.Errorf("last_updated: %w", err)
	}
	limits, err := fieldsOf(fields["limits"])
	if err != nil {
		return nil, fmt.Errorf("limits: %w", err)
	}
	s := &snapshot{updatedAt: updatedAt, books: make(map[string]savedBook, len(limits))}
	for name, raw := range limits {
		book, err := pythonBook(raw, updatedAt)
		if err != nil {
			return nil, fmt.Errorf("limits: %q: %w", name, err)
		}
		s.books[name] = savedBook{book: book}
	}
	return s, nil
}

func pythonBook(raw json.RawMessage, updatedAt time.Time) (*Book, error) {
	if _, err := fieldsOf(raw); err != nil {
		return nil, err
	}
	var limit pythonLimit
	if err := json.Unmarshal(raw, &limit); err != nil {
		return nil, err
	}
	if limit.Used == nil {
		return nil, errors.New("it does not say what was used")
	}
	if *limit.Used < 0 || limit.Reserved < 0 {
		return nil, errors.New("an amount is negative")
	}
	// A reset that is not a UTC midnight is the moment at which the tool started: the usage is of the day of the save.
	ends := nextMidnight(updatedAt)
	if limit.ResetsAt != nil {
		resetsAt, err := pythonTime(*limit.ResetsAt)
		if err != nil {
			return nil, fmt.Errorf("resets_at: %w", err)
		}
		if resetsAt.Equal(resetsAt.Truncate(24 * time.Hour)) {
			ends = resetsAt
		}
	}
	return importedBook(*limit.Used, limit.Reserved, nanos(ends)), nil
}

func pythonTime(text string) (time.Time, error) {
	t, err := time.Parse(time.RFC3339Nano, text)
	return t.UTC(), err
}

// nextMidnight returns the end of t's day in UTC.
func nextMidnight(t time.Time) time.Time {
	year, month, day := t.UTC().Date()
	return time.Date(year, month, day+1, 0, 0, 0, 0, time.UTC)
}
