package quota

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

const (
	displayWidth  = 80 // runes per line
	displayQuotas = 20 // of more, the fullest
	displayColumn = 51 // where the right part of a limit's first line begins, room permitting
	displayCells  = 30 // of a bar
	displayUnits  = 8  // of the units an unlimited quota has used
	displayText   = 40 // runes of a unit that shares its line with numbers
	displayLimit  = 50 // runes of a limit's text that does
	displayZone   = 16 // runes of a time zone's abbreviation
)

// String returns the summary as plain text for a terminal, 80 columns wide at most: long names are shortened, numbers
// never, and nothing in a name can steer the terminal. Of more than 20 quotas it shows the 20 fullest, fullest first, and
// how many more there are. The wording may change; programs read the fields or the JSON form instead.
func (s Summary) String() string {
	var p paper
	if s.Recovered != "" {
		p.begin("! ", "! recovered:")
		for word := range strings.FieldsSeq(s.Recovered) {
			for part := range slices.Chunk([]rune(printable(word)), displayWidth-len(p.rest)) {
				p.add(" ", string(part))
			}
		}
		p.end()
	}
	shown := fullest(s.Quotas, s.At)
	for i := range shown {
		shown[i].display(&p, s.At)
	}
	if len(shown) == 0 {
		p.line("There are no quotas to show.")
	}
	if more := len(s.Quotas) - len(shown); more > 0 {
		p.line(fmt.Sprintf("... and %d more", more))
	}
	return p.text.String()
}

// WriteTo writes what String returns to w. It returns the number of bytes written and w's error.
func (s Summary) WriteTo(w io.Writer) (int64, error) {
	return strings.NewReader(s.String()).WriteTo(w)
}

// fullest returns quotas as they are when they are few, else a copy of the fullest.
func fullest(quotas []QuotaStatus, at time.Time) []QuotaStatus {
	if len(quotas) <= displayQuotas {
		return quotas
	}
	quotas = slices.Clone(quotas)
	slices.SortStableFunc(quotas, func(a, b QuotaStatus) int {
		return cmp.Or(cmp.Compare(b.fullness(at), a.fullness(at)), cmp.Compare(a.Name, b.Name))
	})
	return quotas[:displayQuotas]
}

// fullness is the percentage of the quota's fullest limit; a closed quota is full.
func (q *QuotaStatus) fullness(at time.Time) float64 {
	var most float64
	if q.ClosedUntil.After(at) {
		most = 100
	}
	for i := range q.Limits {
		most = max(most, q.Limits[i].fullness())
	}
	return most
}

// fullness is Percent, but of what is in flight nothing is ever used: there it is what is reserved of Max.
func (l *LimitStatus) fullness() float64 {
	if l.Window.kind == kindInFlight {
		switch {
		case l.Max > 0:
			return float64(l.Reserved) / float64(l.Max) * 100
		case l.Reserved > 0:
			return 100
		}
		return 0
	}
	return l.Percent
}

// display prints the quota. Every limit's first line repeats the name, so that each can be read, or grepped, alone.
func (q *QuotaStatus) display(p *paper, at time.Time) {
	for i := range q.Limits {
		q.Limits[i].display(p, q.Name, at)
	}
	if len(q.Limits) == 0 {
		p.begin("  ", shorten(printable(q.Name), displayWidth-len("  unlimited"))+"  unlimited")
		used := displayUsed(q.Today.Used)
		for i, text := range used {
			if i == len(used)-1 {
				text += " today"
			} else {
				text += ","
			}
			p.add(gapBefore(i), text)
		}
		if len(used) == 0 {
			p.add("   ", "nothing used today")
		}
		p.end()
	}
	if q.ClosedUntil.After(at) {
		p.begin("    ", "  closed by the provider until")
		p.add(" ", displayTime(q.ClosedUntil, at))
		p.add(" ", "(in "+displayDuration(q.ClosedUntil.Sub(at))+")")
		p.end()
	}
	if q.Waiting > 0 {
		p.line(fmt.Sprintf("  %d waiting", q.Waiting))
	}
	if q.Today.Denied > 0 || q.Today.Expired > 0 {
		q.displayToday(p)
	}
}

// displayToday prints what went wrong today, beside the day's requests where no line above has them.
func (q *QuotaStatus) displayToday(p *paper) {
	var parts []string
	if n := q.Today.Used[UnitRequests]; n > 0 && len(q.Limits) > 0 {
		parts = append(parts, displayCount(UnitRequests, n)+",")
	}
	if q.Today.Denied > 0 {
		parts = append(parts, fmt.Sprintf("%d denied", q.Today.Denied))
		limits := slices.SortedFunc(maps.Keys(q.Today.DeniedBy), func(a, b string) int {
			return cmp.Or(cmp.Compare(q.Today.DeniedBy[b], q.Today.DeniedBy[a]), cmp.Compare(a, b))
		})
		for i, limit := range limits {
			text := fmt.Sprintf("%s %d,", shorten(shortenLimit(printable(limit), displayText), displayLimit), q.Today.DeniedBy[limit])
			if i == 0 {
				text = "(" + text
			}
			if i == len(limits)-1 {
				text = strings.TrimSuffix(text, ",") + ")"
			}
			parts = append(parts, text)
		}
		parts[len(parts)-1] += ","
	}
	if q.Today.Expired > 0 {
		parts = append(parts, fmt.Sprintf("%d expired", q.Today.Expired))
	}
	p.begin("    ", "  today:")
	for i, text := range parts {
		if i == len(parts)-1 {
			text = strings.TrimSuffix(text, ",")
		}
		p.add(" ", text)
	}
	p.end()
}

// display prints one limit of the quota called name.
func (l *LimitStatus) display(p *paper, name string, at time.Time) {
	p.line(displayHead(printable(name), printable(l.Limit.String()), l.displayReset(at)))

	percent := l.fullness()
	p.begin("    ", "  ["+displayBar(percent)+"] "+displayPercent(percent))
	inFlight := l.Window.kind == kindInFlight
	if inFlight {
		p.add("   ", displayAmount(l.Unit, l.Reserved)+"/"+displayAmount(l.Unit, l.Max)+" in flight")
	} else {
		p.add("   ", displayAmount(l.Unit, l.Used)+"/"+displayAmount(l.Unit, l.Max))
	}
	if l.Reserved > 0 && !inFlight {
		p.add("   ", displayAmount(l.Unit, l.Reserved)+" reserved")
	}
	for i, threshold := range l.AlertsFired {
		text := strconv.Itoa(threshold)
		if i < len(l.AlertsFired)-1 {
			text += ","
		}
		if i == 0 {
			text = "alerted " + text
		}
		p.add(gapBefore(i), text)
	}
	if l.Soft {
		p.add("   ", "soft")
	}
	p.end()

	if !l.ExhaustsAt.IsZero() {
		p.line("  at this pace: full at " + displayTime(l.ExhaustsAt, at))
	}
}

// displayReset says when the limit starts again, "" where that has no meaning.
func (l *LimitStatus) displayReset(at time.Time) string {
	switch kind := l.Window.kind; {
	case kind == kindInFlight:
		return ""
	case !l.ResetsAt.IsZero():
		return "resets in " + displayDuration(l.ResetsAt.Sub(at))
	case kind == kindLifetime:
		return "never resets"
	case kind == kindRolling:
		return "rolling"
	case kind == kindRefill:
		return "refills"
	case kind == kindSession:
		return "begins with first use"
	}
	return ""
}

// displayHead is a limit's first line. The right part stands in its column unless the left one needs the room; what does
// not fit at all is shortened, the name first.
func displayHead(name, limit, right string) string {
	room := displayWidth - len("  ")
	if right != "" {
		room -= len("  ") + runes(right)
	}
	limit = shorten(shortenLimit(limit, room-min(runes(name), 20)), room-min(runes(name), 8))
	left := shorten(name, room-runes(limit)) + "  " + limit
	if right == "" {
		return left
	}
	return left + strings.Repeat(" ", max(displayColumn-runes(left), len("  "))) + right
}

// shortenLimit shortens the time zone and the unit in a limit's text, but not the window between them with its numbers:
// the result may still be longer than width runes.
func shortenLimit(text string, width int) string {
	const least = 6 // runes that zone and unit keep
	unit, window, zone := text, "", ""
	if i := strings.Index(text, " per "); i >= 0 {
		unit, window = text[:i], text[i:]
	} else if before, found := strings.CutSuffix(text, " in flight"); found {
		unit, window = before, " in flight"
	}
	if i := strings.Index(window, " in "); i > 0 {
		window, zone = window[:i+len(" in ")], window[i+len(" in "):]
	}
	zone = shorten(zone, max(width-runes(unit)-runes(window), least))
	unit = shorten(unit, max(width-runes(window)-runes(zone), least))
	return unit + window + zone
}

// shorten returns text in at most width runes, with an ellipsis for its middle: names often differ only at the end.
func shorten(text string, width int) string {
	if runes(text) <= width {
		return text
	}
	all := []rune(text)
	tail := max(width-1, 0) / 2
	head := max(width-1, 0) - tail
	return string(all[:head]) + "…" + string(all[len(all)-tail:])
}

func runes(text string) int { return utf8.RuneCountInString(text) }

// gapBefore sets the first of several parts that belong together off from what stands before them.
func gapBefore(i int) string {
	if i == 0 {
		return "   "
	}
	return " "
}

// displayUsed lists what was used: the units with a meaning of their own first, then the others by name.
func displayUsed(used map[Unit]int64) []string {
	known := []Unit{UnitRequests, UnitTokens, UnitInputTokens, UnitOutputTokens, UnitUSD}
	others := slices.DeleteFunc(slices.Sorted(maps.Keys(used)), func(unit Unit) bool { return slices.Contains(known, unit) })
	var list []string
	for _, unit := range append(known, others...) {
		if n := used[unit]; n != 0 {
			list = append(list, displayCount(unit, n))
		}
	}
	if more := len(list) - displayUnits; more > 0 {
		list = append(list[:displayUnits], fmt.Sprintf("and %d more units", more))
	}
	return list
}

// displayCount is an amount with its unit: "37 requests", "1 request", "$0.42".
func displayCount(unit Unit, n int64) string {
	text := string(unit)
	switch {
	case unit == UnitUSD:
		return displayAmount(unit, n)
	case n == 1 && unit.place() != elsewhere:
		text = strings.TrimSuffix(text, "s")
	}
	return displayAmount(unit, n) + " " + shorten(printable(text), displayText)
}

// displayAmount is an amount without its unit: picoUSD exactly as dollars and cents, with further digits only where they
// are not zero; of other units plain digits.
func displayAmount(unit Unit, n int64) string {
	if unit != UnitUSD {
		return strconv.FormatInt(n, 10)
	}
	sign, pico := "", uint64(n)
	if n < 0 {
		sign, pico = "-", -pico
	}
	fraction := fmt.Sprintf("%012d", pico%uint64(Dollar))
	return fmt.Sprintf("%s$%d.%s%s", sign, pico/uint64(Dollar), fraction[:2], strings.TrimRight(fraction[2:], "0"))
}

// displayDuration is d in its one or two largest units, rounded down: "3d 4h", "6h 12m", "12m", "45s".
func displayDuration(d time.Duration) string {
	const day = 24 * time.Hour
	switch {
	case d < time.Second:
		return "less than 1s"
	case d < time.Minute:
		return fmt.Sprintf("%ds", d/time.Second)
	case d < time.Hour:
		return fmt.Sprintf("%dm", d/time.Minute)
	case d < day:
		return twoUnits(d/time.Hour, "h", d%time.Hour/time.Minute, "m")
	}
	return twoUnits(d/day, "d", d%day/time.Hour, "h")
}

func twoUnits(large time.Duration, largeUnit string, small time.Duration, smallUnit string) string {
	if small == 0 {
		return fmt.Sprintf("%d%s", large, largeUnit)
	}
	return fmt.Sprintf("%d%s %d%s", large, largeUnit, small, smallUnit)
}

// displayTime is t in its own zone, with its date unless that is at's, and with seconds when it is within a minute of at.
func displayTime(t, at time.Time) string {
	layout := "15:04"
	if t.Sub(at).Abs() < time.Minute {
		layout = "15:04:05"
	}
	year, month, day := t.Date()
	if y, m, d := at.In(t.Location()).Date(); y != year || m != month || d != day {
		layout = "2006-01-02 " + layout
	}
	return t.Format(layout) + " " + shorten(printable(t.Format("MST")), displayZone)
}

// displayPercent keeps its decimal point in place up to 999.9 and says 100.0 only of what is full.
func displayPercent(percent float64) string {
	switch {
	case percent < 100:
		percent = max(min(percent, 99.9), 0)
	case percent >= 1e9:
		return fmt.Sprintf("%.3g %%", percent)
	}
	return fmt.Sprintf("%5.1f %%", percent)
}

// displayBar draws percent, from 0 to 100, in whole cells: the last one is filled only when all is used.
func displayBar(percent float64) string {
	filled := 0
	if percent > 0 { // false for what is not a number
		filled = int(min(percent, 100) * displayCells / 100)
	}
	return strings.Repeat("█", filled) + strings.Repeat("░", displayCells-filled)
}

// A paper collects lines of at most displayWidth runes.
type paper struct {
	text  strings.Builder
	width int    // of the current line
	rest  string // what the lines begin with on which the current one is continued
}

func (p *paper) begin(rest, text string) {
	p.rest, p.width = rest, runes(text)
	p.text.WriteString(text)
}

// add continues the line with gap and text, or the next one with text when that does not fit.
func (p *paper) add(gap, text string) {
	if p.width+runes(gap)+runes(text) > displayWidth {
		p.end()
		p.begin(p.rest, p.rest)
		gap = ""
	}
	p.text.WriteString(gap + text)
	p.width += runes(gap) + runes(text)
}

func (p *paper) end() { p.text.WriteByte('\n') }

func (p *paper) line(text string) {
	p.begin("", text)
	p.end()
}
