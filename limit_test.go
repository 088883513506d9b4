package quota

import (
	"encoding/json"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestLimitsReadAsText(t *testing.T) {
	t.Parallel()
	for want, limit := range map[string]Limit{
		"requests per day":                        {},
		"requests per week from Monday":           {Unit: UnitRequests, Window: Weekly(nil, time.Monday)},
		"tokens per 1m0s":                         {Unit: UnitTokens, Window: Every(time.Minute)},
		"tokens per rolling 5h0m0s":               {Unit: UnitTokens, Window: Rolling(5 * time.Hour)},
		"requests in flight":                      {Window: InFlight()},
		"usd per month from 15 in Europe/Berlin":  {Unit: UnitUSD, Window: Monthly(zone(t, "Europe/Berlin"), 15)},
		"usd per lifetime":                        {Unit: UnitUSD, Window: Lifetime()},
		"images per session 1h0m0s":               {Unit: "images", Window: Session(time.Hour)},
		"output_tokens per refill 1m0s":           {Unit: UnitOutputTokens, Window: Refill(time.Minute)},
		"requests per day in America/Los_Angeles": {Window: Daily(zone(t, "America/Los_Angeles"))},
	} {
		require.Equal(t, want, limit.String())
	}
}

func TestDefaultQuotasAreFreshAndValid(t *testing.T) {
	t.Parallel()
	quotas := DefaultQuotas()
	require.NoError(t, checkQuotas(quotas, nil))
	var lines []string
	for _, quota := range quotas {
		line := quota.Name + " " + strings.Join(quota.Aliases, ",")
		for _, limit := range quota.Limits {
			line += fmt.Sprintf(" %d %s %v", limit.Max, limit, limit.Soft)
			require.Equal(t, Daily(nil), limit.Window)
		}
		lines = append(lines, line)
	}
	require.Equal(t, []string{
		"gemini_cli gemini 1500 requests per day false",
		"gemini_api_free  1500 requests per day false",
		"claude_code ",
		"chatgpt_plus chatgpt",
		"claude_api  1000000 tokens per day true",
		"openai_api  1000000 tokens per day true",
	}, lines)
	quotas[0].Limits[0].Max = 1
	require.Equal(t, int64(1500), DefaultQuotas()[0].Limits[0].Max)
}

func TestQuotasSurviveJSON(t *testing.T) {
	t.Parallel()
	quotas := append(DefaultQuotas(), Quota{Name: "user:*", Aliases: []string{"u:*"}, Limits: []Limit{
		{Max: 1},
		{Unit: UnitUSD, Max: 5 * Dollar, Window: Monthly(zone(t, "Europe/Berlin"), 15), Estimate: 7, NoAlerts: true},
		{Unit: "images", Max: math.MaxInt64, Window: Rolling(time.Hour), Soft: true, AlertThresholds: []int{80, 95}},
		{Window: InFlight(), Max: 4}, {Window: Lifetime()}, {Window: Session(time.Hour)}, {Window: Refill(time.Minute)},
	}})
	text, err := json.Marshal(quotas)
	require.NoError(t, err)
	var back []Quota
	require.NoError(t, json.Unmarshal(text, &back))
	require.Equal(t, quotas, back)
	require.Contains(t, string(text), `{"unit":"usd","max":5000000000000,"window":"month from 15 in Europe/Berlin","estimate":7,"no_alerts":true}`)
}

func TestQuotasThatCannotBeUsedAreExplained(t *testing.T) {
	t.Parallel()
	with := func(limits ...Limit) []Quota { return []Quota{{Name: "a"}, {Name: "b", Limits: limits}} }
	var unloadable Window
	require.NoError(t, unloadable.UnmarshalText([]byte("day in Mars/Olympus")))
	for _, c := range []struct {
		quotas []Quota
		want   string
	}{
		{[]Quota{{}}, `quotas[0] "": the name is empty`},
		{[]Quota{{Name: "a"}, {Name: strings.Repeat("n", 257)}}, "longer than 256 bytes"},
		{[]Quota{{Name: "a\x1b[2J"}}, `quotas[0] "a\x1b[2J": the name is not valid UTF-8 or has control characters`},
		{[]Quota{{Name: "a\xff"}}, "not valid UTF-8"},
		{[]Quota{{Name: "a"}, {Name: "b"}, {Name: "a"}}, `quotas[2] "a": the name is taken by quotas[0] "a"`},
		{[]Quota{{Name: "a", Aliases: []string{"b"}}, {Name: "b"}}, `quotas[1] "b": the name is taken by quotas[0] "a"`},
		{[]Quota{{Name: "a"}, {Name: "b", Aliases: []string{"a"}}}, `quotas[1] "b": alias "a" is taken by quotas[0] "a"`},
		{[]Quota{{Name: "a", Aliases: []string{"c"}}, {Name: "b", Aliases: []string{"c"}}}, `alias "c" is taken by quotas[0] "a"`},
		{[]Quota{{Name: "a", Aliases: []string{"a"}}}, `alias "a" is taken`},
		{[]Quota{{Name: "a", Aliases: []string{"x", "x"}}}, `alias "x" is taken`},
		{[]Quota{{Name: "a", Aliases: []string{""}}}, `alias "": the name is empty`},
		{[]Quota{{Name: "a:*", Aliases: []string{"b"}}}, `alias "b": aliases of a template end in "*"`},
		{[]Quota{{Name: "a", Aliases: []string{"b*"}}}, `alias "b*": aliases of a template end in "*"`},
		{with(Limit{Max: -1}), `quotas[1] "b": limits[0] (requests per day): max is -1`},
		{with(Limit{}, Limit{Unit: "x", Max: math.MinInt64}), `limits[1] (x per day): max is -9223372036854775808`},
		{with(Limit{Estimate: -1}), "estimate is -1"},
		{with(Limit{Unit: "x per y"}), "the unit must not contain"},
		{with(Limit{Unit: "\x1b"}), "control characters"},
		{with(Limit{Unit: Unit(strings.Repeat("u", 1<<20))}), "the unit is longer"},
		{with(Limit{AlertThresholds: []int{50, 0}}), "alert threshold 0 must be 1 to 1000"},
		{with(Limit{AlertThresholds: []int{1001}}), "alert threshold 1001"},
		{with(Limit{AlertThresholds: []int{-5}}), "alert threshold -5"},
		{with(Limit{Window: Every(0)}), "from 1µs to 100 years"},
		{with(Limit{Window: Monthly(nil, 32)}), "the day of the month must be 1 to 31"},
		{with(Limit{Window: Daily(time.FixedZone("CEST", 7200))}), "use time.LoadLocation"},
		{with(Limit{Window: unloadable}), "not known here"},
		{with(Limit{}, Limit{}), "limits[1] (requests per day): limits[0] has the same unit and window"},
		{with(Limit{}, Limit{Unit: UnitRequests, Max: 5, Window: Daily(nil)}), "limits[0] has the same unit and window"},
		{with(make([]Limit, 65)...), "65 limits, use 64 at most"},
	} {
		err := checkQuotas(c.quotas, nil)
		require.ErrorIs(t, err, ErrInvalidConfig, c.want)
		require.ErrorContains(t, err, c.want)
		require.True(t, printableName(err.Error()), c.want)
		require.Less(t, len(err.Error()), 600)
	}
	require.ErrorContains(t, checkQuotas(nil, time.FixedZone("X", 1)), "Config.Location")
	require.ErrorIs(t, checkQuotas(nil, time.FixedZone("X", 1)), ErrInvalidConfig)
}

func TestQuotasThatCanBeUsedAreAccepted(t *testing.T) {
	t.Parallel()
	berlin := zone(t, "Europe/Berlin")
	require.NoError(t, checkQuotas(nil, nil))
	require.NoError(t, checkQuotas([]Quota{
		{Name: "*"}, {Name: "user:*", Aliases: []string{"u:*", "v*"}}, {Name: "a*b"}, {Name: strings.Repeat("n", 256)},
		{Name: "ümläut and space", Limits: []Limit{
			{}, {Window: Daily(nil)}, {Window: Every(24 * time.Hour)}, {Window: Rolling(24 * time.Hour)}, {Unit: "x"},
			{Unit: UnitTokens, Max: math.MaxInt64, Estimate: math.MaxInt64, AlertThresholds: []int{1, 100, 1000}},
			{Window: InFlight(), NoAlerts: true},
		}},
	}, berlin))
	require.Error(t, checkQuotas([]Quota{{Name: "a", Limits: []Limit{{}, {Window: Daily(berlin)}}}}, berlin))
}

func TestParseQuotasReadsTheDocumentedForm(t *testing.T) {
	t.Parallel()
	quotas, err := ParseQuotas([]byte(`
	[{"name": "gemini", "aliases": ["g"], "limits": [
	   {"unit": "requests", "max": 1500, "window": "day in America/Los_Angeles"},
	   {"unit": "tokens", "max": 1000000, "window": "1m0s", "estimate": 2000, "soft": false, "alert_thresholds": [80, 95]},
	   {"unit": "usd", "max": "5.00", "window": "month", "estimate": "0.000000000001"}]},
	 {"name": "free"},
	 {"limits": [{"no_alerts": true, "soft": true, "max": 0}, {"window": "in flight", "max": 9223372036854775807}], "name": "user:*"},
	 {"name": "none", "limits": [], "aliases": []}]
	`))
	require.NoError(t, err)
	require.Equal(t, []Quota{
		{Name: "gemini", Aliases: []string{"g"}, Limits: []Limit{
			{Unit: UnitRequests, Max: 1500, Window: Daily(zone(t, "America/Los_Angeles"))},
			{Unit: UnitTokens, Max: 1_000_000, Window: Every(time.Minute), Estimate: 2000, AlertThresholds: []int{80, 95}},
			{Unit: UnitUSD, Max: 5 * Dollar, Window: Monthly(nil, 1), Estimate: 1},
		}},
		{Name: "free"},
		{Name: "user:*", Limits: []Limit{
			{Unit: UnitRequests, Soft: true, NoAlerts: true}, {Unit: UnitRequests, Max: math.MaxInt64, Window: InFlight()},
		}},
		{Name: "none"},
	}, quotas)
}

func TestNoQuotasAreNotTheDefaultQuotas(t *testing.T) {
	t.Parallel()
	quotas, err := ParseQuotas([]byte(" [ ] \n"))
	require.NoError(t, err)
	require.NotNil(t, quotas)
	require.Empty(t, quotas)
}

func TestParseQuotasNamesThePlace(t *testing.T) {
	t.Parallel()
	limit := func(fields string) string { return `[{"name": "a"}, {"name": "g", "limits": [{` + fields + `}]}]` }
	for text, want := range map[string]string{
		``:                                  "not JSON",
		`nope`:                              "not JSON",
		`[{"name": "a"}`:                    "not JSON",
		`[{"name": "a"}] []`:                "not JSON: invalid character '[' after top-level value (byte 17)",
		`[{"name": "a"},]`:                  "not JSON",
		`[{"name": "a"}]x`:                  "not JSON",
		"[{\"name\": \"\xff\"}]":            "not valid UTF-8",
		`null`:                              "quotas must be an array, not null",
		`{}`:                                "quotas must be an array, not an object",
		`[null]`:                            "quotas[0] must be an object, not null",
		`[[]]`:                              "quotas[0] must be an object, not an array",
		`[{}]`:                              "quotas[0]: the name is missing",
		`[{"Name": "a"}]`:                   `quotas[0]: unknown field "Name", use name, aliases, limits`,
		`[{"name": "a", "x": 1}]`:           `unknown field "x"`,
		`[{"name": "a", "name": "b"}]`:      "quotas[0]: name is there twice",
		`[{"name": "a", "n\u0061me": "b"}]`: "quotas[0]: name is there twice",
		`[{"name": null}]`:                  "quotas[0]: name is null",
		`[{"name": 5}]`:                     "quotas[0].name must be a string, not a number",
		`[{"name": ""}]`:                    "the name is empty",
		`[{"name": "a\u0000"}]`:             "control characters",
		`[{"name": "a"}, {"name": "a"}]`:    `quotas[1] "a": the name is taken by quotas[0] "a"`,
		`[{"name": "a", "aliases": "b"}]`:   `quotas[0] "a": aliases must be an array, not a string`,
		`[{"name": "a", "aliases": ["b", null]}]`:                          `quotas[0] "a": aliases[1] must be a string, not null`,
		`[{"name": "a", "aliases": ["a"]}]`:                                `alias "a" is taken`,
		`[{"name": "a", "limits": {}}]`:                                    `quotas[0] "a": limits must be an array, not an object`,
		`[{"name": "a", "limits": null}]`:                                  `quotas[0]: limits is null`,
		`[{"name": "a", "limits": [5]}]`:                                   `quotas[0] "a": limits[0] must be an object, not a number`,
		limit(``):                                                          `quotas[1] "g": limits[0]: max is missing`,
		limit(`"unit": "tokens"`):                                          "max is missing",
		limit(`"max": 1, "Max": 2`):                                        `quotas[1] "g": limits[0]: unknown field "Max"`,
		limit(`"max": 1, "max": 1`):                                        `quotas[1] "g": limits[0]: max is there twice`,
		limit(`"max": null`):                                               "max is null",
		limit(`"max": "1500"`):                                             `limits[0].max must be a whole number, not a string`,
		limit(`"max": 1.5`):                                                "whole number in digits alone, not 1.5",
		limit(`"max": 1e3`):                                                "whole number in digits alone, not 1e3",
		limit(`"max": -1`):                                                 `quotas[1] "g": limits[0] (requests per day): max is -1`,
		limit(`"max": 9223372036854775808`):                                "must be 9223372036854775807 at most",
		limit(`"max": ` + strings.Repeat("9", 999)):                        "must be 9223372036854775807 at most",
		limit(`"max": true`):                                               "not true or false",
		limit(`"max": [1]`):                                                "not an array",
		limit(`"max": 1, "unit": ""`):                                      "limits[0].unit is empty",
		limit(`"max": 1, "unit": 7`):                                       "limits[0].unit must be a string",
		limit(`"max": 1, "unit": "a per b"`):                               "the unit must not contain",
		limit(`"max": 1, "window": "fortnight"`):                           `quotas[1] "g": limits[0].window: "fortnight": not a window`,
		limit(`"max": 1, "window": ""`):                                    `limits[0].window: "": not a window, use "day"`,
		limit(`"max": 1, "window": "day in Mars/X"`):                       `limits[0].window: "day in Mars/X": time zone "Mars/X" is not known`,
		limit(`"max": 1, "window": null`):                                  "window is null",
		limit(`"max": 1, "window": 60`):                                    "limits[0].window must be a string, not a number",
		limit(`"max": 1, "soft": 1`):                                       "limits[0].soft must be true or false, not a number",
		limit(`"max": 1, "soft": "true"`):                                  "limits[0].soft must be true or false, not a string",
		limit(`"max": 1, "no_alerts": null`):                               "no_alerts is null",
		limit(`"max": 1, "estimate": -1`):                                  "estimate is -1",
		limit(`"max": 1, "estimate": "1"`):                                 "limits[0].estimate must be a whole number, not a string",
		limit(`"max": 1, "alert_thresholds": 80`):                          "limits[0].alert_thresholds must be an array, not a number",
		limit(`"max": 1, "alert_thresholds": [80, "90"]`):                  "limits[0].alert_thresholds[1] must be a whole number, not a string",
		limit(`"max": 1, "alert_thresholds": [0.5]`):                       "limits[0].alert_thresholds[0] must be a whole number",
		limit(`"max": 1, "alert_thresholds": [4294967376]`):                "alert threshold 2147483647 must be 1 to 1000",
		limit(`"max": 1, "alert_thresholds": [-4294967216]`):               "must be 1 to 1000",
		limit(`"max": 5, "unit": "usd"`):                                   `limits[0].max of usd must be a decimal string, write "5.00", not 5`,
		limit(`"max": 5.0, "unit": "usd"`):                                 `write "5.00", not 5.0`,
		limit(`"max": "1", "unit": "usd", "estimate": 1`):                  `limits[0].estimate of usd must be a decimal string`,
		limit(`"max": true, "unit": "usd"`):                                "limits[0].max must be a string, not true or false",
		limit(`"max": "five", "unit": "usd"`):                              `limits[0].max: "five" is not an amount of dollars`,
		limit(`"max": "9223372.036854775808", "unit": "usd"`):              "more than can be counted",
		limit(`"max": "1.0000000000001", "unit": "usd"`):                   "more than 12 decimals",
		limit(`"max": 1}, {"max": 2, "window": "day"`):                     `limits[1] (requests per day): limits[0] has the same unit and window`,
		strings.Repeat("[", 9000) + strings.Repeat("]", 9000):              "quotas[0] must be an object, not an array",
		strings.Repeat("[", 20000):                                         "not JSON",
		"[" + strings.Repeat(" ", maxConfigBytes) + "]":                    "use 1048576 at most",
		`[{"name": "` + strings.Repeat("n", maxConfigBytes-99):             "not JSON",
		`[{"` + strings.Repeat("n", 99999) + `": 1}]`:                      "unknown field",
		`[{"name": "a", "\u001b[2J": 1}]`:                                  `unknown field "\x1b[2J"`,
		`[{"name": "a", "aliases": ["` + strings.Repeat("b", 257) + `"]}]`: "longer than 256 bytes",
	} {
		quotas, err := ParseQuotas([]byte(text))
		name := cut(text)
		require.ErrorIs(t, err, ErrInvalidConfig, name)
		require.ErrorContains(t, err, want, name)
		require.Nil(t, quotas, name)
		require.Less(t, len(err.Error()), 800, name)
		require.True(t, printableName(err.Error()), name)
	}
}

func TestDollarsAreReadExactly(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]int64{
		"0": 0, "0.0": 0, "5": 5 * Dollar, "5.00": 5 * Dollar, "005": 5 * Dollar, "0.29": 290_000_000_000, "1.1": 1_100_000_000_000,
		"0.000000000001": 1, "0.1": Dollar / 10, "9223372.036854775807": math.MaxInt64, "4503599.627370497": 4503599_627370497000,
	} {
		pico, wrong := parseDollars(text)
		require.Empty(t, wrong, text)
		require.Equal(t, want, pico, text)
	}
	for _, text := range []string{
		"", ".", "5.", ".5", "-5", "+5", "5,00", "1_000", "1e3", "0x10", " 5", "5 ", "$5", "NaN", "Inf", "5.0.0", "5.-1", "٥",
		"0.0000000000001", "9223372.036854775808", "99999999", strings.Repeat("9", 9999), "0." + strings.Repeat("0", 13),
	} {
		_, wrong := parseDollars(text)
		require.NotEmpty(t, wrong, text)
	}
}

func FuzzParseQuotas(f *testing.F) {
	for _, text := range []string{
		`[]`, `null`, `{}`, `[{}]`, `[{"name": "a"}]`, `[{"name": "a"}, {"name": "a"}]`, `[{"name": "a", "Name": "b"}]`,
		`[{"name": "user:*", "aliases": ["u:*"]}]`, `[{"name": "*", "limits": [{"max": 0}]}]`, `[{"name": "a"}] x`, "\xef\xbb\xbf[]",
		`[{"name": "gemini", "aliases": ["g"], "limits": [
			{"unit": "requests", "max": 1500, "window": "day in America/Los_Angeles"},
			{"unit": "tokens", "max": 1000000, "window": "1m0s", "estimate": 2000, "soft": false, "alert_thresholds": [80, 95]},
			{"unit": "usd", "max": "5.00", "window": "month", "no_alerts": true}]}]`,
		`[{"name": "a", "limits": [{"unit": "usd", "max": "9223372.036854775807", "estimate": "0.000000000001"}]}]`,
		`[{"name": "a", "limits": [{"max": 1e3}, {"max": -1}, {"max": "1"}, {"max": 1.5}]}]`,
		`[{"name": "\ud800", "limits": [{"max": 1, "window": "rolling 5h0m0s"}, {"max": 1, "window": "in flight"}]}]`,
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		quotas, err := ParseQuotas(data)
		if err != nil {
			require.ErrorIs(t, err, ErrInvalidConfig)
			require.Nil(t, quotas)
			require.True(t, printableName(err.Error()), err)
			require.Less(t, len(err.Error()), 2000)
			return
		}
		require.NotNil(t, quotas)
		require.NoError(t, checkQuotas(quotas, time.UTC))
		for _, quota := range quotas {
			require.True(t, printableName(quota.Name))
			for _, limit := range quota.Limits {
				require.GreaterOrEqual(t, limit.Max, int64(0))
				require.GreaterOrEqual(t, limit.Estimate, int64(0))
				require.True(t, printableName(limit.String()))
			}
		}
		// What is strict is also what encoding/json understands, but for the dollars.
		text, err := json.Marshal(quotas)
		require.NoError(t, err)
		var back []Quota
		require.NoError(t, json.Unmarshal(text, &back))
		require.Equal(t, len(quotas), len(back))
		require.NoError(t, checkQuotas(back, time.UTC))
		again, err := json.Marshal(back)
		require.NoError(t, err)
		require.Equal(t, string(text), string(again))
	})
}
