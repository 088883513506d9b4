package quota

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// A Quota is what one provider account allows, under a name. Without limits it is unlimited and its usage still counted.
type Quota struct {
	// Name is valid UTF-8 without control characters, 256 bytes at most. A trailing "*" makes the quota a template:
	// "user:*" gives each user a quota of its own, "*" alone catches every name that nothing else matches.
	Name    string   `json:"name"`
	Aliases []string `json:"aliases,omitempty"` // other names for it: "gemini"; those of a template end in "*" too
	Limits  []Limit  `json:"limits,omitempty"`
}

// A Limit is so much of a unit in a window. The zero value admits no request on any day. An Estimate is of the unit, and
// counts in every limit of the quota that has it: of several estimates of one unit the largest. One of requests takes the
// place of the one request that a call is otherwise.
type Limit struct {
	Unit            Unit   `json:"unit"`                       // "": UnitRequests
	Max             int64  `json:"max"`                        // 0 admits nothing; dollars as 5 * quota.Dollar
	Window          Window `json:"window,omitzero"`            // zero value: Daily(Config.Location)
	Soft            bool   `json:"soft,omitempty"`             // counts and alerts, never refuses
	Estimate        int64  `json:"estimate,omitempty"`         // what a call is taken to need of Unit when the caller does not say
	AlertThresholds []int  `json:"alert_thresholds,omitempty"` // nil or empty: Config's for windows of an hour or longer, none for shorter
	NoAlerts        bool   `json:"no_alerts,omitempty"`
}

// String returns the limit's text, "requests per day" or "requests in flight", by which errors, alerts and the saved
// state name it.
func (l Limit) String() string { return string(l.unit()) + " " + l.Window.phrase() }

// unit is the limit's unit with the default filled in.
func (l Limit) unit() Unit {
	if l.Unit == "" {
		return UnitRequests
	}
	return l.Unit
}

// DefaultQuotas returns the quotas a tracker has when Config names none: the command line tools and interfaces of three
// providers, with the limits of the tool this library grew out of. They are a start, not what the providers grant today;
// write your own from your account's page.
func DefaultQuotas() []Quota {
	daily := func(unit Unit, most int64, soft bool) []Limit {
		return []Limit{{Unit: unit, Max: most, Window: Daily(time.UTC), Soft: soft}}
	}
	return []Quota{
		{Name: "gemini_cli", Aliases: []string{"gemini"}, Limits: daily(UnitRequests, 1500, false)},
		{Name: "gemini_api_free", Limits: daily(UnitRequests, 1500, false)},
		{Name: "claude_code"},
		{Name: "chatgpt_plus", Aliases: []string{"chatgpt"}},
		{Name: "claude_api", Limits: daily(UnitTokens, 1_000_000, true)},
		{Name: "openai_api", Limits: daily(UnitTokens, 1_000_000, true)},
	}
}

const (
	maxLimits        = 64 // of one quota
	maxThreshold     = 1000
	maxConfigBytes   = 1 << 20
	dollarDecimals   = 12
	templateWildcard = "*"
)

// checkQuotas returns an ErrInvalidConfig that names what is wrong with the quotas, and what to do, or nil. loc is where
// the days of windows that name no zone begin.
func checkQuotas(quotas []Quota, loc *time.Location) error {
	if err := findFault(quotas, loc); err != nil {
		return fmt.Errorf("%w: %w", ErrInvalidConfig, err)
	}
	return nil
}

// findFault is checkQuotas without the sentinel.
func findFault(quotas []Quota, loc *time.Location) error {
	day := Daily(loc)
	if _, err := day.location(); err != nil {
		return fmt.Errorf("Config.Location: %w", err)
	}
	taken := make(map[string]string, len(quotas))
	for i, quota := range quotas {
		place := fmt.Sprintf("quotas[%d] %s", i, quoted(quota.Name))
		if wrong := checkName(quota.Name); wrong != "" {
			return fmt.Errorf("%s: %s", place, wrong)
		}
		if owner, found := taken[quota.Name]; found {
			return fmt.Errorf("%s: the name is taken by %s, choose another", place, owner)
		}
		taken[quota.Name] = place
		for _, alias := range quota.Aliases {
			if wrong := checkName(alias); wrong != "" {
				return fmt.Errorf("%s: alias %s: %s", place, quoted(alias), wrong)
			}
			if isTemplate(alias) != isTemplate(quota.Name) {
				return fmt.Errorf("%s: alias %s: aliases of a template end in \"*\", and no others do", place, quoted(alias))
			}
			if owner, found := taken[alias]; found {
				return fmt.Errorf("%s: alias %s is taken by %s, choose another", place, quoted(alias), owner)
			}
			taken[alias] = place
		}
		if err := findLimitFault(quota.Limits, day); err != nil {
			return fmt.Errorf("%s: %w", place, err)
		}
	}
	return nil
}

// findLimitFault says what is wrong with the limits of one quota. day is what a window left out stands for.
func findLimitFault(limits []Limit, day Window) error {
	if len(limits) > maxLimits {
		return fmt.Errorf("%d limits, use %d at most", len(limits), maxLimits)
	}
	type counted struct {
		unit   Unit
		window Window
	}
	seen := make(map[counted]int, len(limits))
	for i, limit := range limits {
		wrong := checkLimit(limit)
		if wrong == "" {
			if _, err := limit.Window.location(); err != nil {
				wrong = err.Error()
			}
		}
		window := limit.Window
		if window == (Window{}) {
			window = day
		}
		key := counted{limit.unit(), window}
		if first, found := seen[key]; found && wrong == "" {
			wrong = fmt.Sprintf("limits[%d] has the same unit and window, keep one of them", first)
		}
		if wrong != "" {
			return fmt.Errorf("limits[%d] (%s): %s", i, cut(printable(limit.String())), wrong)
		}
		seen[key] = i
	}
	return nil
}

// checkLimit returns what is wrong with a limit by itself, or "".
func checkLimit(limit Limit) string {
	if wrong := checkUnit(limit.unit()); wrong != "" {
		return wrong
	}
	switch {
	case limit.Max < 0:
		return fmt.Sprintf("max is %d, it must not be negative (0 admits nothing)", limit.Max)
	case limit.Estimate < 0:
		return fmt.Sprintf("estimate is %d, it must not be negative", limit.Estimate)
	}
	if wrong := checkThresholds(limit.AlertThresholds); wrong != "" {
		return wrong
	}
	return limit.Window.check()
}

// checkThresholds returns what is wrong with a list of alert thresholds, or "".
func checkThresholds(percent []int) string {
	for _, threshold := range percent {
		if threshold < 1 || threshold > maxThreshold {
			return fmt.Sprintf("alert threshold %d must be 1 to %d percent", threshold, maxThreshold)
		}
	}
	return ""
}

// checkName returns what is wrong with the name of a quota, or "".
func checkName(name string) string {
	switch {
	case name == "":
		return "the name is empty"
	case len(name) > maxNameBytes:
		return fmt.Sprintf("the name is longer than %d bytes", maxNameBytes)
	case !printableName(name):
		return "the name is not valid UTF-8 or has control characters"
	}
	return ""
}

// isTemplate reports whether a quota of that name stands for many.
func isTemplate(name string) bool { return strings.HasSuffix(name, templateWildcard) }

// ParseQuotas reads quotas from a JSON array:
//
//	[{"name": "gemini", "aliases": ["g"], "limits": [
//	   {"unit": "requests", "max": 1500, "window": "day in America/Los_Angeles"},
//	   {"unit": "tokens", "max": 1000000, "window": "1m0s", "estimate": 2000, "soft": false, "alert_thresholds": [80, 95]},
//	   {"unit": "usd", "max": "5.00", "window": "month"}]}]
//
// A name, and a max in each limit, must be there. A limit without a unit counts requests; without a window, it counts
// days in Config.Location. Windows are written as ParseWindow reads them. The max and the estimate of a limit in usd are
// strings of dollars with up to 12 decimals, exact; those of other units are whole numbers.
//
// It is strict: unknown and repeated fields, repeated names, null, anything after the array, more than 1 MiB, and
// whatever New would refuse are ErrInvalidConfig, with the place. An empty array gives an empty slice, not nil, and so a
// tracker without quotas, not one with DefaultQuotas.
func ParseQuotas(data []byte) ([]Quota, error) {
	quotas, err := readQuotas(data)
	if err == nil {
		err = findFault(quotas, time.UTC)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalidConfig, err)
	}
	return quotas, nil
}

func readQuotas(data []byte) ([]Quota, error) {
	if len(data) > maxConfigBytes {
		return nil, fmt.Errorf("%d bytes of JSON, use %d at most", len(data), maxConfigBytes)
	}
	if !utf8.Valid(data) {
		return nil, errors.New("the JSON is not valid UTF-8")
	}
	var whole json.RawMessage
	if err := json.Unmarshal(data, &whole); err != nil {
		var syntax *json.SyntaxError
		if errors.As(err, &syntax) {
			return nil, fmt.Errorf("not JSON: %w (byte %d)", err, syntax.Offset)
		}
		return nil, fmt.Errorf("not JSON: %w", err)
	}
	quotas := []Quota{}
	err := eachElement("quotas", whole, func(place string, value json.RawMessage) error {
		quota, err := readQuota(place, value)
		quotas = append(quotas, quota)
		return err
	})
	return quotas, err
}

func readQuota(place string, value json.RawMessage) (quota Quota, err error) {
	fields, err := readFields(place, value, "name", "aliases", "limits")
	if err != nil {
		return quota, err
	}
	if fields["name"] == nil {
		return quota, fmt.Errorf("%s: the name is missing", place)
	}
	if quota.Name, err = readString(place+".name", fields["name"]); err != nil {
		return quota, err
	}
	place += " " + quoted(quota.Name) + ": "
	err = eachElement(place+"aliases", fields["aliases"], func(place string, value json.RawMessage) error {
		alias, err := readString(place, value)
		quota.Aliases = append(quota.Aliases, alias)
		return err
	})
	if err != nil {
		return quota, err
	}
	return quota, eachElement(place+"limits", fields["limits"], func(place string, value json.RawMessage) error {
		limit, err := readLimit(place, value)
		quota.Limits = append(quota.Limits, limit)
		return err
	})
}

func readLimit(place string, value json.RawMessage) (limit Limit, err error) {
	limit.Unit = UnitRequests
	fields, err := readFields(place, value,
		"unit", "max", "window", "soft", "estimate", "alert_thresholds", "no_alerts")
	if err != nil {
		return limit, err
	}
	if fields["max"] == nil {
		return limit, fmt.Errorf("%s: max is missing (0 admits nothing)", place)
	}
	if unit := fields["unit"]; unit != nil {
		text, err := readString(place+".unit", unit)
		if err != nil {
			return limit, err
		}
		if limit.Unit = Unit(text); text == "" {
			return limit, fmt.Errorf("%s.unit is empty, leave it out for requests", place)
		}
	}
	if window := fields["window"]; window != nil {
		text, err := readString(place+".window", window)
		if err != nil {
			return limit, err
		}
		if limit.Window, err = parseWindow(text); err != nil {
			return limit, fmt.Errorf("%s.window: %w", place, err)
		}
	}
	if limit.Max, err = readAmount(place+".max", limit.Unit, fields["max"]); err != nil {
		return limit, err
	}
	if estimate := fields["estimate"]; estimate != nil {
		if limit.Estimate, err = readAmount(place+".estimate", limit.Unit, estimate); err != nil {
			return limit, err
		}
	}
	if limit.Soft, err = readBool(place+".soft", fields["soft"]); err != nil {
		return limit, err
	}
	if limit.NoAlerts, err = readBool(place+".no_alerts", fields["no_alerts"]); err != nil {
		return limit, err
	}
	thresholds := fields["alert_thresholds"]
	return limit, eachElement(place+".alert_thresholds", thresholds, func(place string, value json.RawMessage) error {
		percent, err := readInteger(place, value)
		// What does not fit an int is far beyond what is permitted, and refused as such.
		limit.AlertThresholds = append(limit.AlertThresholds, int(min(max(percent, math.MinInt32), math.MaxInt32)))
		return err
	})
}

// eachElement calls visit with each element of an array and its place. An array left out has none.
func eachElement(place string, value json.RawMessage, visit func(place string, value json.RawMessage) error) error {
	if value == nil {
		return nil
	}
	if kind := jsonKind(value); kind != "an array" {
		return fmt.Errorf("%s must be an array, not %s", place, kind)
	}
	var elements []json.RawMessage
	if err := json.Unmarshal(value, &elements); err != nil {
		return fmt.Errorf("%s: %w", place, err)
	}
	for i, element := range elements {
		if err := visit(fmt.Sprintf("%s[%d]", place, i), element); err != nil {
			return err
		}
	}
	return nil
}

// readFields returns the fields of an object by name. json.Unmarshal would let Name pass for name, and the last of two
// fields for both.
func readFields(place string, value json.RawMessage, known ...string) (map[string]json.RawMessage, error) {
	if kind := jsonKind(value); kind != "an object" {
		return nil, fmt.Errorf("%s must be an object, not %s", place, kind)
	}
	fields := make(map[string]json.RawMessage, len(known))
	decoder := json.NewDecoder(bytes.NewReader(value))
	if _, err := decoder.Token(); err != nil {
		return nil, fmt.Errorf("%s: %w", place, err)
	}
	for decoder.More() {
		token, err := decoder.Token()
		if err != nil {
			return nil, fmt.Errorf("%s: %w", place, err)
		}
		var field json.RawMessage
		if err := decoder.Decode(&field); err != nil {
			return nil, fmt.Errorf("%s: %w", place, err)
		}
		name := token.(string) // nothing else stands there in an object
		switch {
		case !slices.Contains(known, name):
			return nil, fmt.Errorf("%s: unknown field %s, use %s", place, quoted(name), strings.Join(known, ", "))
		case fields[name] != nil:
			return nil, fmt.Errorf("%s: %s is there twice", place, name)
		case jsonKind(field) == "null":
			return nil, fmt.Errorf("%s: %s is null, leave it out or give it a value", place, name)
		}
		fields[name] = field
	}
	return fields, nil
}

func readString(place string, value json.RawMessage) (text string, err error) {
	if kind := jsonKind(value); kind != "a string" {
		return "", fmt.Errorf("%s must be a string, not %s", place, kind)
	}
	if err := json.Unmarshal(value, &text); err != nil {
		return "", fmt.Errorf("%s: %w", place, err)
	}
	return text, nil
}

// readBool reads a switch that is off when it is left out.
func readBool(place string, value json.RawMessage) (bool, error) {
	if kind := jsonKind(value); value != nil && kind != "true or false" {
		return false, fmt.Errorf("%s must be true or false, not %s", place, kind)
	}
	return string(value) == "true", nil
}

func readInteger(place string, value json.RawMessage) (int64, error) {
	if kind := jsonKind(value); kind != "a number" {
		return 0, fmt.Errorf("%s must be a whole number, not %s", place, kind)
	}
	n, err := strconv.ParseInt(string(value), 10, 64)
	if errors.Is(err, strconv.ErrRange) {
		return 0, fmt.Errorf("%s must be %d at most, not %s", place, int64(math.MaxInt64), cut(string(value)))
	}
	if err != nil {
		return 0, fmt.Errorf("%s must be a whole number in digits alone, not %s", place, cut(string(value)))
	}
	return n, nil
}

// readAmount reads a max or an estimate: dollars as text, anything else as a whole number.
func readAmount(place string, unit Unit, value json.RawMessage) (int64, error) {
	if unit != UnitUSD {
		return readInteger(place, value)
	}
	if jsonKind(value) == "a number" {
		return 0, fmt.Errorf(`%s of usd must be a decimal string, write "5.00", not %s`, place, cut(string(value)))
	}
	text, err := readString(place, value)
	if err != nil {
		return 0, err
	}
	n, wrong := parseDollars(text)
	if wrong != "" {
		return 0, fmt.Errorf("%s: %s %s", place, quoted(text), wrong)
	}
	return n, nil
}

// parseDollars returns "5.00" in picoUSD, or what is wrong with the text.
func parseDollars(text string) (pico int64, wrong string) {
	whole, decimals, point := strings.Cut(text, ".")
	if !digits(whole) || point && !digits(decimals) {
		return 0, `is not an amount of dollars, write digits like "5.00"`
	}
	if len(decimals) > dollarDecimals {
		return 0, fmt.Sprintf("has more than %d decimals", dollarDecimals)
	}
	pico, err := strconv.ParseInt(whole+decimals+strings.Repeat("0", dollarDecimals-len(decimals)), 10, 64)
	if err != nil {
		return 0, "is more than can be counted, 9 million dollars"
	}
	return pico, ""
}

func digits(text string) bool {
	return text != "" && strings.Trim(text, "0123456789") == ""
}

// jsonKind names what kind of JSON value it is, for people.
func jsonKind(value json.RawMessage) string {
	if len(value) == 0 {
		return "nothing"
	}
	switch value[0] {
	case '{':
		return "an object"
	case '[':
		return "an array"
	case '"':
		return "a string"
	case 't', 'f':
		return "true or false"
	case 'n':
		return "null"
	}
	return "a number"
}
