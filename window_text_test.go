package quota

import (
	"encoding/json"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestWindowsThatCannotBeUsedAreExplained(t *testing.T) {
	t.Parallel()
	for _, w := range []Window{
		Every(0), Every(-time.Minute), Every(999), Every(longestWindow + 1), Every(math.MinInt64), Every(math.MaxInt64),
		Rolling(0), Rolling(-1), Refill(0), Refill(math.MaxInt64), Session(-time.Hour), Session(0),
		Weekly(nil, -1), Weekly(nil, 7), Weekly(nil, 256), Weekly(nil, math.MaxInt), Weekly(nil, math.MinInt),
		Monthly(nil, 0), Monthly(nil, -1), Monthly(nil, 32), Monthly(nil, 257), Monthly(nil, -255), Monthly(nil, math.MaxInt),
	} {
		require.NotEmpty(t, w.check(), w)
		_, err := w.MarshalText()
		require.ErrorIs(t, err, ErrInvalidConfig, w)
		_, err = ParseWindow(w.String())
		require.ErrorIs(t, err, ErrInvalidConfig, w)
	}
	for _, w := range goodWindows(t) {
		require.Empty(t, w.check(), w)
	}
}

// goodWindows are windows of all kinds by their text.
func goodWindows(tb testing.TB) map[string]Window {
	berlin := zone(tb, "Europe/Berlin")
	return map[string]Window{
		"day":                              Daily(nil),
		"day in America/Los_Angeles":       Daily(zone(tb, "America/Los_Angeles")),
		"day in Etc/GMT+5":                 Daily(zone(tb, "Etc/GMT+5")),
		"week from Monday":                 Weekly(nil, time.Monday),
		"week from Sunday":                 Weekly(nil, time.Sunday),
		"week from Saturday":               Weekly(nil, time.Saturday),
		"week from Friday in Pacific/Apia": Weekly(zone(tb, "Pacific/Apia"), time.Friday),
		"month":                            Monthly(nil, 1),
		"month in Europe/Berlin":           Monthly(berlin, 1),
		"month from 2":                     Monthly(nil, 2),
		"month from 15 in Europe/Berlin":   Monthly(berlin, 15),
		"month from 31":                    Monthly(nil, 31),
		"1m0s":                             Every(time.Minute),
		"24h0m0s":                          Every(24 * time.Hour),
		"1µs":                              Every(time.Microsecond),
		"1.5s":                             Every(1500 * time.Millisecond),
		"876000h0m0s":                      Every(longestWindow),
		"rolling 5h0m0s":                   Rolling(5 * time.Hour),
		"refill 1m0s":                      Refill(time.Minute),
		"session 5h0m0s":                   Session(5 * time.Hour),
		"lifetime":                         Lifetime(),
		"in flight":                        InFlight(),
	}
}

func TestParseWindowIsTheInverseOfString(t *testing.T) {
	t.Parallel()
	for text, w := range goodWindows(t) {
		require.Equal(t, text, w.String())
		parsed, err := ParseWindow(text)
		require.NoError(t, err)
		require.Equal(t, w, parsed, text)

		marshaled, err := json.Marshal(map[string]any{"w": w, "by": map[Window]int{w: 1}})
		require.NoError(t, err)
		var back struct {
			W  Window
			By map[Window]int
		}
		require.NoError(t, json.Unmarshal(marshaled, &back))
		require.Equal(t, w, back.W)
		require.Equal(t, map[Window]int{w: 1}, back.By)
	}
}

func TestParseWindowAcceptsOtherSpellings(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"60s": "1m0s", "1h": "1h0m0s", "90m": "1h30m0s", ".5s": "500ms", "1us": "1µs", "rolling 18000s": "rolling 5h0m0s",
		"day in UTC": "day", "month from 1": "month", "week from Monday in UTC": "week from Monday",
	} {
		w, err := ParseWindow(text)
		require.NoError(t, err, text)
		require.Equal(t, want, w.String(), text)
	}
}

func TestParseWindowNamesWhatIsWrong(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"":                           `"rolling 5h0m0s"`,
		"daily":                      `"rolling 5h0m0s"`,
		"Day":                        `"rolling 5h0m0s"`,
		" day":                       `"rolling 5h0m0s"`,
		"day ":                       `"rolling 5h0m0s"`,
		"day\n":                      `"rolling 5h0m0s"`,
		"per day":                    `"rolling 5h0m0s"`,
		"week":                       `"week from Monday"`,
		"week from monday":           `"monday" is not a day of the week`,
		"week from ":                 `"" is not a day of the week`,
		"month from 0":               "1 to 31",
		"month from 32":              "1 to 31",
		"month from 01":              "1 to 31",
		"month from +1":              "1 to 31",
		"month from 1e1":             "1 to 31",
		"month from -1":              "1 to 31",
		"month from 257":             "1 to 31",
		"day in Mars/Olympus":        `time zone "Mars/Olympus" is not known here`,
		"day in ":                    "not the name of a time zone",
		"day in Local":               "not the name of a time zone",
		"day in localtime":           "not the name of a time zone",
		"day in ../etc/passwd":       "not the name of a time zone",
		"day in /etc/passwd":         "not the name of a time zone",
		"day in Europe/":             "not the name of a time zone",
		"day in Europe":              "not known here",
		"day in UTC in UTC":          "not the name of a time zone",
		"day in Europe/Berlin ":      "not the name of a time zone",
		"day in Europe/\x00":         "not the name of a time zone",
		"0s":                         "from 1µs to 100 years",
		"0":                          "from 1µs to 100 years",
		"-1m":                        "from 1µs to 100 years",
		"999ns":                      "from 1µs to 100 years",
		"876001h":                    "from 1µs to 100 years",
		"60":                         "not a length of time",
		"1m0s in Europe/Berlin":      "not a length of time",
		"rolling":                    `"rolling 5h0m0s"`,
		"rolling ":                   "not a length of time",
		"rolling 5h ":                "not a length of time",
		"rolling day":                "not a length of time",
		"refill 0s":                  "from 1µs to 100 years",
		"session 9999999999h":        "not a length of time",
		"lifetime in UTC":            `"rolling 5h0m0s"`,
		"in flight ":                 `"rolling 5h0m0s"`,
		"\x1b[2J":                    `\x1b[2J`,
		strings.Repeat("9", 1<<20):   "longer than 256 bytes",
		"d" + strings.Repeat("é", 9): `"rolling 5h0m0s"`,
	} {
		w, err := ParseWindow(text)
		require.ErrorIs(t, err, ErrInvalidConfig, text)
		require.ErrorContains(t, err, want, text)
		require.Equal(t, Window{}, w)
		require.Less(t, len(err.Error()), 600)
		require.True(t, printableName(err.Error()), text)
	}
}

func TestSavedWindowsStayReadableWithoutTheirZone(t *testing.T) {
	t.Parallel()
	const text = "month from 15 in Mars/Olympus_Mons"
	var w Window
	require.NoError(t, w.UnmarshalText([]byte(text)))
	require.Equal(t, text, w.String())
	require.Empty(t, w.check())
	marshaled, err := w.MarshalText()
	require.NoError(t, err)
	require.Equal(t, text, string(marshaled))
	_, err = w.location()
	require.ErrorContains(t, err, "tzdata")

	for _, bad := range []string{"day in Local", "day in ../x", "day in \x1b", "fortnight", "0s", "rolling -1s"} {
		kept := w
		require.ErrorIs(t, w.UnmarshalText([]byte(bad)), ErrInvalidConfig, bad)
		require.Equal(t, kept, w, "changed by text that is refused")
	}
}

func TestZeroWindowIsTheDayOfTheConfiguration(t *testing.T) {
	t.Parallel()
	var zero Window
	require.Equal(t, "day", zero.String())
	require.Equal(t, "per day", zero.phrase())
	require.Empty(t, zero.check())
	require.True(t, zero.budget())
	text, err := zero.MarshalText()
	require.NoError(t, err)
	require.NotNil(t, text)
	require.Empty(t, text)
	w := Lifetime()
	require.NoError(t, w.UnmarshalText(text))
	require.Equal(t, zero, w)

	berlin := zone(t, "Europe/Berlin")
	require.Equal(t, Daily(berlin), zero.in(berlin))
	require.Equal(t, Daily(nil), zero.in(nil))
	require.Equal(t, Daily(nil), Daily(nil).in(berlin))
	require.Equal(t, Rolling(time.Hour), Rolling(time.Hour).in(berlin))
}

func TestBudgetsAreTheWindowsThatCarryHoldsOver(t *testing.T) {
	t.Parallel()
	for _, w := range []Window{Daily(nil), Weekly(nil, 0), Monthly(nil, 1), Lifetime()} {
		require.True(t, w.budget(), w)
	}
	for _, w := range []Window{Every(time.Hour), Rolling(time.Hour), Refill(time.Hour), Session(time.Hour), InFlight()} {
		require.False(t, w.budget(), w)
	}
}

func FuzzParseWindow(f *testing.F) {
	for text := range goodWindows(f) {
		f.Add(text)
	}
	for _, text := range []string{
		"", "60s", "day in UTC", "day in Local", "day in Mars/Olympus", "month from 1", "month from 99", "week from monday",
		"rolling -1s", "refill 1", "session \x00", "day in ../x", "day in a in b", "292y", "9223372036854775807ns", "\xff",
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		parsed, err := ParseWindow(text)
		var read Window
		readErr := read.UnmarshalText([]byte(text))
		if err != nil {
			require.ErrorIs(t, err, ErrInvalidConfig)
			require.Equal(t, Window{}, parsed)
		} else {
			require.NoError(t, readErr)
			require.Equal(t, parsed, read)
		}
		if readErr != nil {
			return
		}
		require.Empty(t, read.check())
		canonical, err := read.MarshalText()
		require.NoError(t, err)
		require.True(t, printableName(string(canonical)))
		var again Window
		require.NoError(t, again.UnmarshalText(canonical))
		require.Equal(t, read, again)
		loc, err := read.location()
		if err != nil {
			return
		}
		const at = 1772718451_500_000_000
		switch read.kind {
		case kindDaily, kindWeekly, kindMonthly, kindEvery:
			start, end := read.period(at, loc)
			require.LessOrEqual(t, start, int64(at))
			require.Greater(t, end, int64(at))
		}
	})
}

func TestTextsOfWindowsAreNotLong(t *testing.T) {
	t.Parallel()
	zeros := strings.Repeat("0", maxWindowBytes-len("1m"))
	window, err := ParseWindow(zeros + "1m")
	require.NoError(t, err)
	require.Equal(t, Every(time.Minute), window)
	_, err = ParseWindow("0" + zeros + "1m")
	require.ErrorContains(t, err, "longer than 256 bytes")
}
