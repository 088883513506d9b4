package quota_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"example.com/quota"
)

var summaryTime = time.Date(2026, 1, 26, 17, 48, 0, 0, time.UTC)

func perDay(limit, used, reserved int64) quota.LimitStatus {
	return quota.LimitStatus{
		Limit: quota.Limit{Unit: quota.UnitRequests, Max: limit, Window: quota.Daily(nil)},
		Used:  used, Reserved: reserved, Remaining: limit - used - reserved,
		Percent:  float64(used) / float64(limit) * 100,
		ResetsAt: time.Date(2026, 1, 27, 0, 0, 0, 0, time.UTC),
	}
}

func summaryOf(quotas ...quota.QuotaStatus) quota.Summary {
	return quota.Summary{At: summaryTime, Quotas: quotas}
}

func requireText(t *testing.T, want string, s quota.Summary) {
	t.Helper()
	require.Equal(t, strings.TrimPrefix(want, "\n"), s.String())
}

func TestSummaryShowsALimitWithItsBarResetAlertsAndForecast(t *testing.T) {
	limit := perDay(1500, 750, 3)
	limit.AlertsFired = []int{50}
	limit.ExhaustsAt = time.Date(2026, 1, 26, 21, 40, 0, 0, time.UTC)
	requireText(t, `
gemini_cli  requests per day                       resets in 6h 12m
  [███████████████░░░░░░░░░░░░░░░]  50.0 %   750/1500   3 reserved   alerted 50
  at this pace: full at 21:40 UTC
`, summaryOf(quota.QuotaStatus{Name: "gemini_cli", Limits: []quota.LimitStatus{limit}}))
}

func TestSummaryLeavesOutWhatThereIsNothingToSayAbout(t *testing.T) {
	requireText(t, `
gemini_cli  requests per day                       resets in 6h 12m
  [████████████████░░░░░░░░░░░░░░]  53.3 %   800/1500
`, summaryOf(quota.QuotaStatus{
		Name: "gemini_cli", Limits: []quota.LimitStatus{perDay(1500, 800, 0)},
		Today: quota.DaySummary{Used: map[quota.Unit]int64{quota.UnitRequests: 800}, Calls: 800},
	}))
}

func TestSummaryShowsEveryLimitOfAQuotaAndWhatHappenedToItToday(t *testing.T) {
	daily := perDay(1500, 1500, 0)
	daily.AlertsFired = []int{50, 80, 90}
	q := quota.QuotaStatus{
		Name: "openai", Waiting: 4, ClosedUntil: summaryTime.Add(4*time.Minute + 59*time.Second),
		Limits: []quota.LimitStatus{
			daily,
			{
				Limit: quota.Limit{Unit: quota.UnitTokens, Max: 90000, Window: quota.Every(time.Minute), Soft: true},
				Used:  108000, Percent: 120, ResetsAt: summaryTime.Add(12 * time.Second),
			},
			{
				Limit: quota.Limit{Unit: quota.UnitUSD, Max: 5 * quota.Dollar, Window: quota.Lifetime()},
				Used:  5*quota.Dollar - 1, Percent: 99.99999, Reserved: 1,
			},
			{Limit: quota.Limit{Unit: quota.UnitRequests, Max: 5, Window: quota.InFlight()}, Reserved: 2, Remaining: 3},
			{Limit: quota.Limit{Unit: quota.UnitRequests, Max: 10, Window: quota.Rolling(5 * time.Hour)}, Used: 1, Percent: 10},
			{Limit: quota.Limit{Unit: quota.UnitRequests, Max: 10, Window: quota.Refill(time.Minute)}, Used: 0},
			{Limit: quota.Limit{Unit: quota.UnitRequests, Max: 10, Window: quota.Session(5 * time.Hour)}, Used: 0},
		},
		Today: quota.DaySummary{
			Used: map[quota.Unit]int64{quota.UnitRequests: 812}, Denied: 16, Expired: 1,
			DeniedBy: map[string]int64{"tokens per 1m0s": 12, "usd per lifetime": 2, "requests per day": 2},
		},
	}
	requireText(t, `
openai  requests per day                           resets in 6h 12m
  [██████████████████████████████] 100.0 %   1500/1500   alerted 50, 80, 90
openai  tokens per 1m0s                            resets in 12s
  [██████████████████████████████] 120.0 %   108000/90000   soft
openai  usd per lifetime                           never resets
  [█████████████████████████████░]  99.9 %   $4.999999999999/$5.00
    $0.000000000001 reserved
openai  requests in flight
  [████████████░░░░░░░░░░░░░░░░░░]  40.0 %   2/5 in flight
openai  requests per rolling 5h0m0s                rolling
  [███░░░░░░░░░░░░░░░░░░░░░░░░░░░]  10.0 %   1/10
openai  requests per refill 1m0s                   refills
  [░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░]   0.0 %   0/10
openai  requests per session 5h0m0s                begins with first use
  [░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░]   0.0 %   0/10
  closed by the provider until 17:52 UTC (in 4m)
  4 waiting
  today: 812 requests, 16 denied (tokens per 1m0s 12, requests per day 2,
    usd per lifetime 2), 1 expired
`, summaryOf(q))
}

func TestSummaryShowsUnlimitedQuotasWithWhatTheyUsedToday(t *testing.T) {
	requireText(t, `
api  unlimited   1 request, 1500 tokens, 1000 input_tokens, 500 output_tokens,
  $0.42, 1 images today
  closed by the provider until 2026-01-27 01:00 UTC (in 7h 12m)
  today: 2 denied, 1 expired
claude_code  unlimited   37 requests today
spare  unlimited   nothing used today
`, summaryOf(
		quota.QuotaStatus{
			Name: "api", ClosedUntil: summaryTime.Add(7*time.Hour + 12*time.Minute),
			Today: quota.DaySummary{
				Denied: 2, Expired: 1,
				Used: map[quota.Unit]int64{
					"images": 1, "videos": 0, quota.UnitUSD: 42 * quota.Dollar / 100, quota.UnitRequests: 1,
					quota.UnitInputTokens: 1000, quota.UnitOutputTokens: 500, quota.UnitTokens: 1500,
				},
			},
		},
		quota.QuotaStatus{Name: "claude_code", Today: quota.DaySummary{Used: map[quota.Unit]int64{quota.UnitRequests: 37}}},
		quota.QuotaStatus{Name: "spare"},
	))
}

func TestSummarySaysWhenItHasNothingToShow(t *testing.T) {
	require.Equal(t, "There are no quotas to show.\n", quota.Summary{}.String())
}

func TestSummaryBeginsWithWhatWasRecovered(t *testing.T) {
	s := summaryOf(quota.QuotaStatus{Name: "claude_code"})
	s.Recovered = "the state was damaged and is kept as .memory/quota_state.json.corrupt-20260126T174800Z;\n" +
		"the generation before is used, \x1b[31mthe last calls may be missing"
	requireText(t, `
! recovered: the state was damaged and is kept as
! .memory/quota_state.json.corrupt-20260126T174800Z; the generation before is
! used, \u001b[31mthe last calls may be missing
claude_code  unlimited   nothing used today
`, s)

	path := "/" + strings.Repeat("very/long/", 12) + "quota_state.json"
	s.Recovered = "set aside as " + path
	require.Contains(t, strings.ReplaceAll(s.String(), "\n! ", ""), path, "a path is continued without a gap")
}

func TestSummaryDatesTheForecastOfAnotherDayInItsOwnZone(t *testing.T) {
	at := func(text string, zone *time.Location) string {
		when, err := time.Parse(time.RFC3339, text)
		require.NoError(t, err)
		limit := perDay(1500, 750, 0)
		limit.ExhaustsAt = when.In(zone)
		lines := strings.Split(summaryOf(quota.QuotaStatus{Name: "g", Limits: []quota.LimitStatus{limit}}).String(), "\n")
		return lines[2]
	}
	tokyo := time.FixedZone("JST", 9*3600) // where 17:48 UTC is already tomorrow
	require.Equal(t, "  at this pace: full at 23:59 UTC", at("2026-01-26T23:59:00Z", time.UTC))
	require.Equal(t, "  at this pace: full at 2026-01-27 00:01 UTC", at("2026-01-27T00:01:00Z", time.UTC))
	require.Equal(t, "  at this pace: full at 09:01 JST", at("2026-01-27T00:01:00Z", tokyo))
	require.Equal(t, "  at this pace: full at 2026-01-28 00:00 JST", at("2026-01-27T15:00:00Z", tokyo))
	require.Equal(t, "  at this pace: full at 17:48:40 UTC", at("2026-01-26T17:48:40Z", time.UTC))
}

func TestSummaryForgetsAClosureThatIsOver(t *testing.T) {
	text := summaryOf(quota.QuotaStatus{Name: "g", ClosedUntil: summaryTime}).String()
	require.NotContains(t, text, "closed")
}

func TestSummaryOfManyQuotasShowsTheFullestAndCountsTheRest(t *testing.T) {
	var quotas []quota.QuotaStatus
	for i := range 30 {
		quotas = append(quotas, quota.QuotaStatus{
			Name:   fmt.Sprintf("user:%02d", i),
			Limits: []quota.LimitStatus{perDay(100, 0, 0), perDay(100, int64(i/2), 0)},
		})
	}
	quotas[3].ClosedUntil = summaryTime.Add(time.Minute)
	quotas[4].Limits[0] = quota.LimitStatus{Limit: quota.Limit{Max: 4, Window: quota.InFlight()}, Reserved: 3}
	before := slices.Clone(quotas)
	text := summaryOf(quotas...).String()

	var shown []string
	for line := range strings.Lines(text) {
		if name, _, _ := strings.Cut(line, "  "); name != "" && (len(shown) == 0 || shown[len(shown)-1] != name) {
			shown = append(shown, name)
		}
	}
	want := []string{
		"user:03", "user:04", "user:28", "user:29", "user:26", "user:27", "user:24", "user:25", "user:22", "user:23", "user:20",
		"user:21", "user:18", "user:19", "user:16", "user:17", "user:14", "user:15", "user:12", "user:13", "... and 10 more\n",
	}
	require.Equal(t, want, shown)
	require.Equal(t, before, quotas, "the caller's order stays")

	text = summaryOf(quotas[:20]...).String()
	require.NotContains(t, text, "more")
	require.Less(t, strings.Index(text, "user:00"), strings.Index(text, "user:19"), "few stay in their order")
}

func TestSummaryShortensLongNamesButNeverNumbers(t *testing.T) {
	limit := perDay(1, 0, 0)
	limit.Limit = quota.Limit{
		Unit: quota.Unit(strings.Repeat("u", 64)), Max: 9223372036854775807,
		Window: quota.Weekly(nil, time.Wednesday),
	}
	limit.Used, limit.Reserved, limit.Percent = 9223372036854775806, 9223372036854775805, 99.99
	zoned := quota.LimitStatus{
		Limit: quota.Limit{Unit: quota.UnitUSD, Max: 9223372036854775807}, Used: 9223372036854775806, Percent: 9.3e20,
	}
	require.NoError(t, zoned.Window.UnmarshalText([]byte("month from 15 in America/Argentina/ComodRivadavia")))
	zoned.ResetsAt = summaryTime.Add(27*24*time.Hour + 23*time.Hour)
	name := "tenant:" + strings.Repeat("x", 240) + "-east"
	requireText(t, `
tenant:xxx…xxxx-east  uuuuuuuu…uuuuuuu per week from Wednesday  resets in 6h 12m
  [█████████████████████████████░]  99.9 %
    9223372036854775806/9223372036854775807   9223372036854775805 reserved
tenant:xxx…xxxx-east  usd per month from 15 in America…adavia  resets in 27d 23h
  [██████████████████████████████] 9.3e+20 %
    $9223372.036854775806/$9223372.036854775807
`, summaryOf(quota.QuotaStatus{Name: name, Limits: []quota.LimitStatus{limit, zoned}}))
}

func TestSummaryEscapesNamesThatCouldSteerATerminal(t *testing.T) {
	hostile := "a\x1b[2J\r\nb\u202e\u2066\x07\u200b\u0085\xff"
	limit := perDay(10, 1, 0)
	limit.Unit = quota.Unit(hostile)
	limit.ExhaustsAt = summaryTime.In(time.FixedZone(hostile, 3600))
	s := summaryOf(
		quota.QuotaStatus{
			Name: hostile, ClosedUntil: summaryTime.Add(time.Hour).In(time.FixedZone(hostile, 3600)),
			Limits: []quota.LimitStatus{limit},
			Today:  quota.DaySummary{Denied: 1, DeniedBy: map[string]int64{hostile + " per day": 1}},
		},
		quota.QuotaStatus{Name: hostile, Today: quota.DaySummary{Used: map[quota.Unit]int64{quota.Unit(hostile): 1}}},
	)
	s.Recovered = hostile
	requirePrintable(t, s.String())
	require.Contains(t, s.String(), `a\u001b[2J\u000d\u000ab\u202e\u2066\u0007\u200b\u0085\ufffd  unlimited`)
}

func TestSummaryWritesWhatStringReturns(t *testing.T) {
	s := summaryOf(quota.QuotaStatus{Name: "gemini_cli", Limits: []quota.LimitStatus{perDay(1500, 750, 0)}})
	var out bytes.Buffer
	n, err := s.WriteTo(&out)
	require.NoError(t, err)
	require.Equal(t, s.String(), out.String())
	require.EqualValues(t, out.Len(), n)

	broken := errors.New("pipe is closed")
	n, err = s.WriteTo(brokenWriter{7, broken})
	require.ErrorIs(t, err, broken)
	require.EqualValues(t, 7, n)
}

type brokenWriter struct {
	n   int
	err error
}

func (w brokenWriter) Write([]byte) (int, error) { return w.n, w.err }

func TestSummaryComesBackFromJSONAsItWas(t *testing.T) {
	tokyo := time.FixedZone("", 9*3600)
	limits := []quota.LimitStatus{{
		Limit: quota.Limit{
			Unit: quota.UnitUSD, Max: 9223372036854775807, Window: quota.Session(5 * time.Hour), Soft: true,
			Estimate: 3, AlertThresholds: []int{10, 20}, NoAlerts: true,
		},
		Used: 9223372036854775806, Reserved: 9007199254740993, Remaining: 1, Percent: 100.0 / 3,
		ResetsAt:   time.Date(2026, 1, 27, 0, 0, 0, 123456789, time.UTC),
		ExhaustsAt: time.Date(2026, 1, 26, 21, 40, 0, 1, tokyo), AlertsFired: []int{50, 80},
	}, {}}
	var week quota.Window
	require.NoError(t, week.UnmarshalText([]byte("week from Monday in America/New_York")))
	for _, window := range []quota.Window{
		quota.Daily(nil), week, quota.Monthly(nil, 31), quota.Every(time.Minute), quota.Rolling(time.Hour),
		quota.Refill(time.Second), quota.Lifetime(), quota.InFlight(),
	} {
		limits = append(limits, quota.LimitStatus{Limit: quota.Limit{Unit: "images", Window: window}})
	}
	want := quota.Summary{
		At: time.Date(2026, 1, 26, 17, 48, 0, 999999999, tokyo), Recovered: "the state\nwas \"damaged\" <&>",
		Quotas: []quota.QuotaStatus{
			{
				Name: "gemini_cli \u2028", Reservations: 2, Waiting: 3, ClosedUntil: summaryTime, Limits: limits,
				Today: quota.DaySummary{
					Quota: "gemini_cli", Day: time.Date(2026, 1, 26, 0, 0, 0, 0, tokyo),
					Used:         map[quota.Unit]int64{quota.UnitRequests: 1, "images <b>": 9223372036854775807},
					Estimated:    map[quota.Unit]int64{quota.UnitTokens: 4},
					PeakReserved: map[quota.Unit]int64{quota.UnitTokens: 5}, Calls: 6, Denied: 7, Expired: 8,
					DeniedBy: map[string]int64{"requests per day": 9}, Alerts: []string{"50% of requests per day"},
				},
			},
			{Name: "claude_code"},
		},
	}
	data, err := json.Marshal(want)
	require.NoError(t, err)
	var got quota.Summary
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.DisallowUnknownFields()
	require.NoError(t, decoder.Decode(&got))

	again, err := json.Marshal(got)
	require.NoError(t, err)
	require.Equal(t, string(data), string(again))
	for _, times := range [][2]*time.Time{
		{&want.At, &got.At},
		{&want.Quotas[0].ClosedUntil, &got.Quotas[0].ClosedUntil},
		{&want.Quotas[0].Today.Day, &got.Quotas[0].Today.Day},
		{&want.Quotas[0].Limits[0].ResetsAt, &got.Quotas[0].Limits[0].ResetsAt},
		{&want.Quotas[0].Limits[0].ExhaustsAt, &got.Quotas[0].Limits[0].ExhaustsAt},
	} {
		require.True(t, times[0].Equal(*times[1]), "%v became %v", times[0], times[1])
		*times[1] = *times[0] // the same instant may name its zone differently
	}
	require.Equal(t, want, got)
}

func TestLimitStatusHasTheFieldsOfItsLimitAndItsOwnInJSON(t *testing.T) {
	limit := perDay(1500, 750, 3)
	limit.AlertsFired = []int{50}
	data, err := json.Marshal(limit)
	require.NoError(t, err)
	require.JSONEq(t, `{"unit": "requests", "max": 1500, "window": "day", "used": 750, "reserved": 3, "remaining": 747,
		"percent": 50, "resets_at": "2026-01-27T00:00:00Z", "alerts_fired": [50]}`, string(data))
}

func TestSummaryIsAStringerAndAWriterTo(t *testing.T) {
	require.Equal(t, quota.Summary{}.String(), fmt.Sprint(quota.Summary{}))
}

// requirePrintable fails when text could steer a terminal.
func requirePrintable(t *testing.T, text string) {
	t.Helper()
	for _, r := range strings.ReplaceAll(text, "\n", "") {
		require.True(t, unicode.IsPrint(r) && r != utf8.RuneError, "%q in %q", r, text)
	}
}
