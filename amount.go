package quota

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// A Unit says what is counted. Those below have a meaning of their own; any other short text is a unit too ("images").
type Unit string

// The units with a meaning of their own.
const (
	UnitRequests     Unit = "requests"      // calls; every Reserve and RecordUsage is one unless it says otherwise
	UnitTokens       Unit = "tokens"        // all tokens; a call that names input and output tokens counts their sum
	UnitInputTokens  Unit = "input_tokens"  // prompt tokens
	UnitOutputTokens Unit = "output_tokens" // generated tokens
	UnitUSD          Unit = "usd"           // picoUSD, 1e-12 dollars, so that tokens x price is exact
)

// Dollar is one US dollar in picoUSD: Limit{Unit: UnitUSD, Max: 5 * Dollar}.
const Dollar int64 = 1e12

// An Amount is so many of a unit. N must not be negative; dollars are counted in picoUSD.
type Amount struct {
	Unit Unit  `json:"unit"`
	N    int64 `json:"n"`
}

// Requests is an amount of calls.
func Requests(n int64) Amount { return Amount{UnitRequests, n} }

// Tokens is an amount of tokens, input and output together.
func Tokens(n int64) Amount { return Amount{UnitTokens, n} }

// InputTokens is an amount of prompt tokens.
func InputTokens(n int64) Amount { return Amount{UnitInputTokens, n} }

// OutputTokens is an amount of generated tokens.
func OutputTokens(n int64) Amount { return Amount{UnitOutputTokens, n} }

// PicoUSD is an amount of money in 1e-12 dollars: price per token in picoUSD x tokens, without rounding.
func PicoUSD(n int64) Amount { return Amount{UnitUSD, n} }

// USD is an amount of money in dollars, rounded to a picoUSD. What is not a number, negative, or beyond 9.2 million
// dollars gives an amount that every call refuses with ErrInvalidAmount.
func USD(dollars float64) Amount {
	pico := math.Round(dollars * float64(Dollar))
	if math.IsNaN(pico) || dollars < 0 || pico >= math.MaxInt64 {
		return Amount{UnitUSD, -1}
	}
	return Amount{UnitUSD, int64(pico)}
}

const maxUnitBytes = 64

// checkUnit returns what is wrong with a unit's text, or "".
func checkUnit(unit Unit) string {
	text := string(unit)
	switch {
	case text == "":
		return "the unit is empty"
	case len(text) > maxUnitBytes:
		return fmt.Sprintf("the unit is longer than %d bytes", maxUnitBytes)
	case !printableName(text):
		return "the unit is not valid UTF-8 or has control characters"
	case strings.Contains(text, " per ") || strings.HasSuffix(text, " in flight"):
		return `the unit must not contain " per " or end in " in flight"`
	}
	return ""
}

// saturatingAdd adds two amounts that are not negative and stops at what can be counted.
func saturatingAdd(a, b int64) int64 {
	if a > math.MaxInt64-b {
		return math.MaxInt64
	}
	return a + b
}

// printableName reports whether text is valid UTF-8 without control characters.
func printableName(text string) bool {
	if !utf8.ValidString(text) {
		return false
	}
	for _, r := range text {
		if unicode.IsControl(r) || r == '\u2028' || r == '\u2029' {
			return false
		}
	}
	return true
}

// printable returns text fit for a terminal or a log: what could steer either is escaped.
func printable(text string) string {
	clean := true
	for _, r := range text {
		if !unicode.IsPrint(r) || r == utf8.RuneError {
			clean = false
			break
		}
	}
	if clean {
		return text
	}
	var out strings.Builder
	for _, r := range text {
		if unicode.IsPrint(r) && r != utf8.RuneError {
			out.WriteRune(r)
			continue
		}
		fmt.Fprintf(&out, `\u%04x`, r)
	}
	return out.String()
}

// quoted returns text in quotes, escaped, and cut where it is too long to read.
func quoted(text string) string {
	if short := cut(text); len(short) < len(text) {
		return strconv.Quote(short) + "..."
	}
	return strconv.Quote(text)
}

// cut returns what of a text is short enough to read in an error.
func cut(text string) string {
	const readable = 80
	if len(text) <= readable {
		return text
	}
	end := readable
	for end > readable-utf8.UTFMax && !utf8.RuneStart(text[end]) {
		end--
	}
	return text[:end]
}
