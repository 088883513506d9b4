package quota

import (
	"encoding/json"
	"math"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
)

func TestAmountsNameTheirUnit(t *testing.T) {
	t.Parallel()
	require.Equal(t, Amount{Unit: "requests", N: 3}, Requests(3))
	require.Equal(t, Amount{Unit: "tokens", N: 3}, Tokens(3))
	require.Equal(t, Amount{Unit: "input_tokens", N: 3}, InputTokens(3))
	require.Equal(t, Amount{Unit: "output_tokens", N: 3}, OutputTokens(3))
	require.Equal(t, Amount{Unit: "usd", N: 3}, PicoUSD(3))
	text, err := json.Marshal(Tokens(7))
	require.NoError(t, err)
	require.JSONEq(t, `{"unit": "tokens", "n": 7}`, string(text))
}

func TestDollarsBecomePicoUSD(t *testing.T) {
	t.Parallel()
	for dollars, want := range map[float64]int64{
		0: 0, math.Copysign(0, -1): 0, 1: Dollar, 5: 5 * Dollar, 0.1: Dollar / 10, 0.29: 29 * Dollar / 100, 1.1: 11 * Dollar / 10,
		1e-12: 1, 4e-13: 0, 6e-13: 1, 0.000003: 3_000_000, 9_000_000: 9_000_000 * Dollar,
	} {
		require.Equal(t, PicoUSD(want), USD(dollars), dollars)
	}
	for _, dollars := range []float64{
		-1, -1e-12, -1e-15, math.NaN(), math.Inf(1), math.Inf(-1), 1e7, math.MaxFloat64, float64(math.MaxInt64) / 1e12,
	} {
		amount := USD(dollars)
		require.Negative(t, amount.N, dollars)
		_, err := gather([]Amount{amount})
		require.ErrorIs(t, err, ErrInvalidAmount, dollars)
	}
}

func TestUnitsAreShortPrintableText(t *testing.T) {
	t.Parallel()
	for _, unit := range []Unit{
		UnitRequests, UnitTokens, UnitInputTokens, UnitOutputTokens, UnitUSD, "images", "per", "Bilder (groß)", "in flight",
		"x per", "per x", Unit(strings.Repeat("u", maxUnitBytes)),
	} {
		require.Empty(t, checkUnit(unit), unit)
	}
	for _, unit := range []Unit{
		"", "a\nb", "\x00", "\x7f", "\u2028", "\xff", "x per y", "x in flight", Unit(strings.Repeat("u", maxUnitBytes+1)),
	} {
		require.NotEmpty(t, checkUnit(unit), unit)
		for _, n := range []int64{1, -1} {
			_, err := gather([]Amount{{unit, n}})
			require.ErrorIs(t, err, ErrInvalidAmount)
			require.True(t, printableName(err.Error()), err)
			require.Less(t, len(err.Error()), 200)
		}
	}
}

func TestUnitsNamedTwiceAddUp(t *testing.T) {
	t.Parallel()
	named := []Amount{Tokens(1), Requests(2), Tokens(3), {"images", 4}, {"images", 5}, Requests(0)}
	before := append([]Amount(nil), named...)
	list, err := gather(named)
	require.NoError(t, err)
	require.Equal(t, []Amount{Requests(2), Tokens(4), {"images", 9}}, list.list())
	require.Equal(t, before, named, "the caller's amounts were changed")

	list, err = gather(nil)
	require.NoError(t, err)
	require.True(t, list.empty())
}

func TestAmountsNoCallCanMeanAreRefused(t *testing.T) {
	t.Parallel()
	for name, named := range map[string][]Amount{
		"negative":                 {Requests(-1)},
		"least":                    {Tokens(math.MinInt64)},
		"negative beside positive": {Requests(5), Requests(-5)},
		"overflow":                 {Tokens(math.MaxInt64), Tokens(1)},
		"overflow of both forms":   {InputTokens(math.MaxInt64), OutputTokens(1)},
		"both forms":               {Tokens(1), InputTokens(1)},
		"both forms, other order":  {OutputTokens(0), Tokens(0)},
		"both forms, apart":        {OutputTokens(1), Requests(1), Tokens(1)},
	} {
		_, err := gather(named)
		require.ErrorIs(t, err, ErrInvalidAmount, name)
	}
	_, err := gather([]Amount{Requests(-1)})
	require.ErrorContains(t, err, "must not be negative")
	for name, named := range map[string][]Amount{
		"as much as can be counted":               {Tokens(math.MaxInt64), Tokens(0)},
		"as much as can be counted in both forms": {InputTokens(math.MaxInt64 - 1), OutputTokens(1)},
		"nothing": {Tokens(0), Requests(0)},
	} {
		_, err := gather(named)
		require.NoError(t, err, name)
	}
}

func TestTokensCountInputAndOutput(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		list  []Amount
		unit  Unit
		want  int64
		named bool
	}{
		{nil, UnitTokens, 0, false},
		{[]Amount{Requests(1)}, UnitTokens, 0, false},
		{[]Amount{Requests(2)}, UnitRequests, 2, true},
		{[]Amount{Tokens(5)}, UnitTokens, 5, true},
		{[]Amount{Tokens(0)}, UnitTokens, 0, true},
		{[]Amount{InputTokens(2), OutputTokens(3)}, UnitTokens, 5, true},
		{[]Amount{InputTokens(2)}, UnitTokens, 2, true},
		{[]Amount{OutputTokens(0)}, UnitTokens, 0, true},
		{[]Amount{InputTokens(2), OutputTokens(3)}, UnitInputTokens, 2, true},
		{[]Amount{InputTokens(2), OutputTokens(3)}, UnitOutputTokens, 3, true},
		{[]Amount{Tokens(5)}, UnitInputTokens, 0, false},
		{[]Amount{InputTokens(math.MaxInt64), OutputTokens(math.MaxInt64)}, UnitTokens, math.MaxInt64, true},
	} {
		n, named := amounting(c.list...).of(c.unit.place(), c.unit)
		require.Equal(t, c.want, n, c)
		require.Equal(t, c.named, named, c)
	}
}

func TestWhatIsTakenOverAddsUpAsWhatIsNamed(t *testing.T) {
	t.Parallel()
	from := amounting(Requests(1), InputTokens(2), OutputTokens(3), USD(4))
	var m amounts
	m.take(from, 1<<atRequests|1<<atUSD)
	_, named := m.of(atTokens, UnitTokens)
	require.False(t, named, "no part of the tokens has been taken")
	m.take(from, 1<<atOutput)
	n, named := m.of(atTokens, UnitTokens)
	require.True(t, named)
	require.Equal(t, int64(3), n)
	m.take(amounting(Tokens(9)), 1<<atTokens)
	n, _ = m.of(atTokens, UnitTokens)
	require.Equal(t, int64(9), n, "what is named comes before its parts")
}

func TestACopyOfAmountsSharesNothingThatIsChanged(t *testing.T) {
	t.Parallel()
	first := amounting(Amount{"images", 1}, Amount{"pages", 2})
	second := *first
	second.set(elsewhere, "images", 5)
	second.set(elsewhere, "songs", 6)
	require.Equal(t, []Amount{{"images", 1}, {"pages", 2}}, first.list())
	require.Equal(t, []Amount{{"images", 5}, {"pages", 2}, {"songs", 6}}, second.list())
	_, named := first.exactly(elsewhere, "songs")
	require.False(t, named)
	for range second.each {
		break // wherever it stops
	}
	seen := 0
	for one := range second.each {
		if seen++; one.unit == "images" {
			break
		}
	}
	require.Equal(t, 1, seen)
	require.True(t, first.same(amounting(Amount{"images", 1}, Amount{"pages", 2})))
	for _, other := range []*amounts{
		amounting(Amount{"images", 1}), amounting(Amount{"images", 1}, Amount{"pages", 3}),
		amounting(Requests(0), Amount{"images", 1}, Amount{"pages", 2}), amounting(Requests(3), Amount{"images", 1}, Amount{"pages", 2}),
	} {
		require.False(t, first.same(other))
	}
}

func TestSaturatingAddStopsAtWhatCanBeCounted(t *testing.T) {
	t.Parallel()
	require.Equal(t, int64(3), saturatingAdd(1, 2))
	require.Equal(t, int64(math.MaxInt64), saturatingAdd(math.MaxInt64-1, 1))
	require.Equal(t, int64(math.MaxInt64), saturatingAdd(math.MaxInt64, 1))
	require.Equal(t, int64(math.MaxInt64), saturatingAdd(math.MaxInt64, math.MaxInt64))
}

func TestPrintedTextCannotSteerATerminal(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"":                  "",
		"gemini_cli":        "gemini_cli",
		"Überwachung 日本":    "Überwachung 日本",
		"\x1b[31mred\x1b[m": `\u001b[31mred\u001b[m`,
		"a\nb\tc\r":         `a\u000ab\u0009c\u000d`,
		"\u202egnp.exe":     `\u202egnp.exe`,
		"\u2028":            `\u2028`,
		"\x80\xff":          `\ufffd\ufffd`,
		"\u009b31m":         `\u009b31m`,
	} {
		require.Equal(t, want, printable(text))
		require.True(t, printableName(printable(text)))
	}
}

func TestLongTextIsCutBetweenCharacters(t *testing.T) {
	t.Parallel()
	for length := range 6 {
		text := strings.Repeat("x", length) + strings.Repeat("日", 100)
		require.LessOrEqual(t, len(cut(text)), 80)
		require.True(t, utf8.ValidString(cut(text)))
		require.True(t, strings.HasPrefix(text, cut(text)))
	}
	require.Equal(t, "short", cut("short"))
	require.Equal(t, `"a\nb"`, quoted("a\nb"))
	require.Equal(t, `"`+strings.Repeat("y", 80)+`"...`, quoted(strings.Repeat("y", 81)))
	require.LessOrEqual(t, len(cut(strings.Repeat("\x80", 100))), 80)
}
