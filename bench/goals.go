package main

import (
	"fmt"
	"strings"
)

// tolerance is how far a goal may be missed before the run fails: what another hour of the same machine may make of it.
const tolerance = 0.10

// A bound is what a goal asks of a number.
type bound struct{ most, least float64 } // 0: not asked

func atMost(limit float64) *bound  { return &bound{most: limit} }
func atLeast(limit float64) *bound { return &bound{least: limit} }

// missedBy is how far value is beyond the bound, as a share of the bound; 0 or less: it is met.
func (b bound) missedBy(value float64) float64 {
	if b.most > 0 {
		return value/b.most - 1
	}
	return 1 - value/b.least
}

func (b bound) text(format func(float64) string) string {
	if b.most > 0 {
		return "<= " + format(b.most)
	}
	return ">= " + format(b.least)
}

// A finding is one line of the results: one kind of work, ours and one peer's.
type finding struct {
	row          int
	work         string
	peer         string // "": nothing to compare with
	unit         unit
	ours, theirs stat
	ratio        stat // ours to theirs
	goal         *bound
	short        string // for the README: what this peer does not do; "": not in the README
}

// against compares two series by their time per operation.
func against(row int, work string, ours, theirs series) finding {
	return finding{row: row, work: work, peer: theirs.name, unit: nanoseconds,
		ours: summarize(ours.perOp), theirs: summarize(theirs.perOp), ratio: ratio(ours.perOp, theirs.perOp)}
}

// rates compares two series by their operations per second.
func rates(row int, work string, ours, theirs series) finding {
	return finding{row: row, work: work, peer: theirs.name, unit: perSecond, ours: summarize(ours.perSecond()),
		theirs: summarize(theirs.perSecond()), ratio: ratio(ours.perSecond(), theirs.perSecond())}
}

// alone is a finding without a peer.
func alone(row int, work string, unit unit, values []float64) finding {
	return finding{row: row, work: work, unit: unit, ours: summarize(values)}
}

// want returns the finding with a goal.
func (f finding) want(goal *bound) finding {
	f.goal = goal
	return f
}

// lacks returns the finding as one for the README.
func (f finding) lacks(short string) finding {
	f.short = short
	return f
}

// judged is the number that the goal is about: the ratio, or without a peer the number itself.
func (f finding) judged() float64 {
	if f.peer == "" {
		return f.ours.median
	}
	return f.ratio.median
}

func (f finding) goalText() string {
	switch {
	case f.goal == nil:
		return "report"
	case f.peer == "":
		return f.goal.text(f.unit.text)
	}
	return f.goal.text(func(v float64) string { return trim(v) + " x" })
}

// verdict says whether the goal was met, and if not, by how much it was missed.
func (f finding) verdict() string {
	if f.goal == nil {
		return ""
	}
	missed := f.goal.missedBy(f.judged())
	switch {
	case missed <= 0:
		return "passed"
	case missed <= tolerance:
		return fmt.Sprintf("missed by %.0f %%, within the tolerance", 100*missed)
	case missed > 2:
		return fmt.Sprintf("**missed by a factor of %s**", trim(1+missed))
	}
	return fmt.Sprintf("**missed by %.0f %%**", 100*missed)
}

// failed tells whether the goal was missed by more than the tolerance.
func (f finding) failed() bool { return f.goal != nil && f.goal.missedBy(f.judged()) > tolerance }

// A unit is what a number is counted in.
type unit string

const (
	nanoseconds unit = "ns"
	perSecond   unit = "/s"
	bytesOf     unit = "bytes"
	plain       unit = ""
)

// text prints v with three digits, in the multiple of the unit that reads best.
func (u unit) text(v float64) string {
	switch u {
	case nanoseconds:
		return scaled(v, 1000, "ns", "µs", "ms", "s")
	case bytesOf:
		return scaled(v, 1024, "B", "KiB", "MiB", "GiB")
	case perSecond:
		return scaled(v, 1000, "/s", "k/s", "M/s", "G/s")
	}
	return strings.TrimSpace(trim(v) + " " + string(u))
}

func (u unit) stat(s stat) string {
	if s.none() {
		return ""
	}
	return fmt.Sprintf("%s (%s .. %s)", u.text(s.median), u.text(s.low), u.text(s.high))
}

func scaled(v, step float64, names ...string) string {
	for v >= step*0.9995 && len(names) > 1 {
		v, names = v/step, names[1:]
	}
	return trim(v) + " " + names[0]
}

// trim prints v with three significant digits, and large numbers whole.
func trim(v float64) string {
	switch {
	case v == 0:
		return "0"
	case v >= 100:
		return fmt.Sprintf("%.0f", v)
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	case v >= 0.1:
		return fmt.Sprintf("%.2f", v)
	}
	return fmt.Sprintf("%.2g", v)
}
