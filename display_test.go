package quota

import (
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
)

func TestAmountsOfMoneyAreShownExactly(t *testing.T) {
	for n, want := range map[int64]string{
		0:                    "$0.00",
		1:                    "$0.000000000001",
		10_000_000_000:       "$0.01",
		5 * Dollar / 2:       "$2.50",
		5 * Dollar:           "$5.00",
		1_230_000_000_000:    "$1.23",
		1_234_000_000_000:    "$1.234",
		1_200_300_000_000:    "$1.2003",
		math.MaxInt64:        "$9223372.036854775807",
		-5 * Dollar / 2:      "-$2.50",
		math.MinInt64:        "-$9223372.036854775808",
		1_000_000*Dollar - 1: "$999999.999999999999",
	} {
		require.Equal(t, want, displayAmount(UnitUSD, n))
	}
	require.Equal(t, "1500", displayAmount(UnitRequests, 1500))
	require.Equal(t, "9223372036854775807", displayAmount("images", math.MaxInt64))
	require.Equal(t, "7", displayAmount("", 7))
}

func TestDurationsAreShownInTheirLargestUnitsRoundedDown(t *testing.T) {
	for d, want := range map[time.Duration]string{
		math.MinInt64:                   "less than 1s",
		0:                               "less than 1s",
		time.Second - 1:                 "less than 1s",
		time.Second:                     "1s",
		45 * time.Second:                "45s",
		time.Minute - 1:                 "59s",
		time.Minute:                     "1m",
		12*time.Minute + 59*time.Second: "12m",
		time.Hour - 1:                   "59m",
		time.Hour:                       "1h",
		6*time.Hour + 12*time.Minute:    "6h 12m",
		7*time.Hour - 1:                 "6h 59m",
		24*time.Hour - 1:                "23h 59m",
		24 * time.Hour:                  "1d",
		24*time.Hour + 59*time.Minute:   "1d",
		76*time.Hour + 59*time.Minute:   "3d 4h",
		4*24*time.Hour - 1:              "3d 23h",
		math.MaxInt64:                   "106751d 23h",
	} {
		require.Equal(t, want, displayDuration(d), "%v", d)
	}
}

func TestBarsAreFullOnlyWhenAllIsUsed(t *testing.T) {
	for percent, filled := range map[float64]int{
		-5: 0, 0: 0, 3.3: 0, 3.4: 1, 10: 3, 50: 15, 70: 21, 99.99: 29, 100: 30, 350: 30, 1e300: 30,
		math.Inf(1): 30, math.Inf(-1): 0, math.NaN(): 0,
	} {
		require.Equal(t, strings.Repeat("█", filled)+strings.Repeat("░", 30-filled), displayBar(percent), "%v", percent)
	}
}

func TestPercentagesNeverClaimToBeFullTooEarly(t *testing.T) {
	for percent, want := range map[float64]string{
		0: "  0.0 %", 4.06: "  4.1 %", 99.94: " 99.9 %", 99.99: " 99.9 %", 100: "100.0 %", 1234.5: "1234.5 %", 9.3e20: "9.3e+20 %",
		-1e300: "  0.0 %",
	} {
		require.Equal(t, want, displayPercent(percent))
	}
}

func TestLimitsOnWhatIsInFlightAreAsFullAsTheyAreReserved(t *testing.T) {
	for _, c := range []struct {
		reserved, limit int64
		want            float64
	}{{0, 0, 0}, {1, 0, 100}, {2, 5, 40}, {6, 5, 120}} {
		l := LimitStatus{Limit: Limit{Max: c.limit, Window: InFlight()}, Reserved: c.reserved}
		require.InDelta(t, c.want, l.fullness(), 1e-9)
	}
}

func TestShorteningKeepsBothEndsAndNeverExceedsTheWidth(t *testing.T) {
	require.Equal(t, "gemini", shorten("gemini", 6))
	require.Equal(t, "ge…ni", shorten("gemini_gemini", 5))
	require.Equal(t, "äö…ü", shorten("äöäöäöäöü", 4))
	require.Equal(t, "…", shorten("gemini", 1))
	for width := 1; width < 10; width++ {
		require.Len(t, []rune(shorten(strings.Repeat("日", 20), width)), width)
	}
}

func TestSummaryListsOnlySomeOfVeryManyUnits(t *testing.T) {
	used := map[Unit]int64{UnitRequests: 1}
	for r := 'a'; r <= 'z'; r++ {
		used[Unit(r)] = 5
	}
	list := displayUsed(used)
	require.Len(t, list, displayUnits+1)
	require.Equal(t, []string{"1 request", "5 a", "5 b"}, list[:3])
	require.Equal(t, "and 19 more units", list[displayUnits])
}

// Whatever a summary holds, its lines fit the terminal, nothing in them steers it, and no number is cut.
func TestSummaryLinesNeverExceedTheTerminal(t *testing.T) {
	const rounds = 500
	random := rand.New(rand.NewPCG(1, 2))
	for range rounds {
		s := randomSummary(random)
		text := s.String()
		require.True(t, strings.HasSuffix(text, "\n"))
		for line := range strings.Lines(text) {
			line = strings.TrimSuffix(line, "\n")
			require.LessOrEqual(t, utf8.RuneCountInString(line), 80, "%q", line)
			require.NotEmpty(t, line)
			require.Equal(t, line, printable(line))
		}
		if len(s.Quotas) > displayQuotas {
			continue
		}
		for _, q := range s.Quotas {
			for _, l := range q.Limits {
				require.Contains(t, text, displayAmount(l.Unit, l.Max))
				if l.Reserved > 0 {
					require.Contains(t, text, displayAmount(l.Unit, l.Reserved))
				}
				if l.Window.length > 0 {
					require.Contains(t, text, l.Window.String())
				}
			}
		}
	}
}

func randomSummary(random *rand.Rand) Summary {
	alphabet := []rune("abc019 _-:/…日é\u0301\u202e\u200b\x1b\n\r\t\x00\u2028█")
	text := func(most int) string {
		out := make([]rune, random.IntN(most+1))
		for i := range out {
			out[i] = alphabet[random.IntN(len(alphabet))]
		}
		return string(out)
	}
	number := func() int64 { return random.Int64() >> random.IntN(64) }
	moment := func() time.Time {
		if random.IntN(3) == 0 {
			return time.Time{}
		}
		return time.Unix(random.Int64N(1<<36), 0).In(time.FixedZone(text(30), random.IntN(86400)-43200))
	}
	length := func() time.Duration {
		return shortestWindow + time.Duration(random.Int64N(int64(longestWindow-shortestWindow)))
	}
	unit := func() Unit {
		return []Unit{UnitRequests, UnitTokens, UnitUSD, Unit(text(64)), Unit(text(64)), ""}[random.IntN(6)]
	}
	zoned := func(window Window) Window {
		window.zone = "America/" + strings.Repeat("z", random.IntN(100))
		return window
	}
	window := func() Window {
		return []Window{
			{}, zoned(Daily(nil)), zoned(Weekly(nil, time.Wednesday)), zoned(Monthly(nil, 31)), Every(length()), Rolling(length()),
			Refill(length()), Session(length()), Lifetime(), InFlight(),
		}[random.IntN(10)]
	}
	limit := func() LimitStatus {
		l := LimitStatus{
			Limit: Limit{Unit: unit(), Max: number(), Window: window(), Soft: random.IntN(2) == 0},
			Used:  number(), Reserved: number(), Remaining: number(), ResetsAt: moment(), ExhaustsAt: moment(),
			Percent: []float64{0, random.Float64() * 100, math.NaN(), math.Inf(1), -1, 1e300, float64(number())}[random.IntN(7)],
		}
		for range random.IntN(30) {
			l.AlertsFired = append(l.AlertsFired, int(number()))
		}
		return l
	}
	status := func() QuotaStatus {
		q := QuotaStatus{Name: text(256), Waiting: int(number()), ClosedUntil: moment()}
		for range random.IntN(4) {
			q.Limits = append(q.Limits, limit())
		}
		q.Today = DaySummary{Denied: number(), Expired: number(), Used: map[Unit]int64{}, DeniedBy: map[string]int64{}}
		for range random.IntN(12) {
			q.Today.Used[unit()] = number()
			q.Today.DeniedBy[limit().String()] = number()
		}
		return q
	}
	s := Summary{At: moment(), Recovered: text(400)}
	for range random.IntN(24) >> random.IntN(4) {
		s.Quotas = append(s.Quotas, status())
	}
	return s
}
