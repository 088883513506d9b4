package main

import (
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func timed(ours, theirs float64, goal *bound) finding {
	return against(1, "work", series{name: "ours", perOp: []float64{ours}}, series{name: "peer", perOp: []float64{theirs}}).want(goal)
}

func TestGoalsAreJudgedByTheRatioOrWithoutAPeerByTheNumber(t *testing.T) {
	for _, test := range []struct {
		line    finding
		verdict string
		failed  bool
	}{
		{timed(80, 100, atMost(0.80)), "passed", false},
		{timed(87, 100, atMost(0.80)), "missed by 9 %, within the tolerance", false},
		{timed(120, 100, atMost(0.80)), "**missed by 50 %**", true},
		{timed(800, 100, atMost(0.80)), "**missed by a factor of 10.0**", true},
		{timed(120, 100, nil), "", false},
		{rates(8, "w", series{perOp: []float64{10}}, series{name: "p", perOp: []float64{14}}).want(atLeast(1.3)), "passed", false},
		{rates(8, "w", series{perOp: []float64{10}}, series{name: "p", perOp: []float64{10}}).want(atLeast(1.3)), "**missed by 23 %**", true},
		{alone(8, "w", plain, []float64{58}).want(atLeast(60)), "missed by 3 %, within the tolerance", false},
		{alone(5, "w", nanoseconds, []float64{9e6}).want(atMost(1e7)), "passed", false},
	} {
		require.Equal(t, test.verdict, test.line.verdict())
		require.Equal(t, test.failed, test.line.failed(), test.verdict)
	}
	require.Equal(t, "<= 0.80 x", timed(1, 1, atMost(0.8)).goalText())
	require.Equal(t, ">= 60.0", alone(8, "w", plain, nil).want(atLeast(60)).goalText())
	require.Equal(t, "report", timed(1, 1, nil).goalText())
}

func TestNumbersArePrintedInTheUnitThatReadsBest(t *testing.T) {
	for want, got := range map[string]string{
		"12.3 ns":    nanoseconds.text(12.34),
		"1.50 µs":    nanoseconds.text(1500),
		"1.00 µs":    nanoseconds.text(999.9),
		"3.20 ms":    nanoseconds.text(3.2e6),
		"2.00 s":     nanoseconds.text(2e9),
		"120 s":      nanoseconds.text(1.2e11),
		"1.50 KiB":   bytesOf.text(1536),
		"19.7 k/s":   perSecond.text(19_700),
		"61.2":       plain.text(61.2),
		"1.20 saves": unit("saves").text(1.2),
		"0.05":       plain.text(0.05),
		"0":          plain.text(0),
	} {
		require.Equal(t, want, got)
	}
	require.Equal(t, "1,234,567", commas(1_234_567))
	require.Equal(t, "999", commas(999))
}

func measured() *results {
	return &results{rounds: 6, time: time.Second, seed: 3, took: time.Minute, floor: &floor{clock: stat{40, 40, 40}, lock: stat{10, 10, 10}},
		parts: []part{
			{rows()[1], []finding{timed(120, 100, atMost(0.80)).lacks("names | reasons"), timed(1, 2, nil)}, []string{"A note."}},
			{rows()[8], []finding{alone(8, "calls per save", plain, []float64{61, 62, 60}).want(atLeast(60))}, nil},
		}}
}

func TestTheReportHasMachineTablesAndWhatBoundsThem(t *testing.T) {
	page := measured().markdown(machine{cpu: "Some CPU", kernel: "Linux 6", fileSystem: "ext4", goVersion: "go1.25", cores: 2,
		processors: 2, at: time.Date(2026, 1, 27, 10, 0, 0, 0, time.UTC), modules: []string{"a v1", "b v2"}})
	for _, want := range []string{
		"| date | 2026-01-27 10:00 UTC, 60 s |",
		"| machine | Some CPU, 2 cores, GOMAXPROCS 2 |",
		"| peers | a v1, b v2 |",
		"| 1 | work | 120 ns (120 ns .. 120 ns) | peer: 100 ns (100 ns .. 100 ns) | 1.20 (1.20 .. 1.20) | <= 0.80 x | **missed by 50 %** |",
		"| 8 | calls per save | 61.0 (60.0 .. 62.0) |  |  | >= 60.0 | passed |",
		"- A note.",
		"- work: 120 ns is 2.40 times the floor of 50.0 ns (one clock read and one lock).",
		"**1. CanUse in memory.** One question",
		"| work | 120 ns | peer: 100 ns | 1.20 x | names \\| reasons |",
	} {
		require.Contains(t, page, want)
	}
	require.Equal(t, "work: 120 ns (120 ns .. 120 ns); peer: 100 ns (100 ns .. 100 ns); ratio 1.20 (1.20 .. 1.20); goal <= 0.80 x: missed by 50 %",
		measured().findings()[0].String())
}

func TestOnlyTheModulesThatWereMeasuredAreListed(t *testing.T) {
	require.Equal(t, []string{"golang.org/x/time v0.15.0"}, versions([]*debug.Module{
		{Path: "golang.org/x/sys", Version: "v0.47.0"}, {Path: "golang.org/x/time", Version: "v0.15.0"}}))
}

func TestEveryRowIsExplained(t *testing.T) {
	for i, r := range rows() {
		require.Equal(t, i, r.number)
		require.NotEmpty(t, r.title)
		require.Greater(t, len(r.explains), 60, r.title)
	}
}

func TestTheREADMEShowsTheTableOfTheResults(t *testing.T) {
	root := t.TempDir()
	readme, page := filepath.Join(root, "README.md"), filepath.Join(root, "RESULTS.md")
	write := func(path, text string) { require.NoError(t, os.WriteFile(path, []byte(text), 0o600)) }
	read := func() string {
		text, err := os.ReadFile(readme)
		require.NoError(t, err)
		return string(text)
	}
	write(readme, "# quota\n\nabove\n\nbelow\n")
	require.NoError(t, agree(readme, page), "nothing is shown")
	write(page, measured().markdown(machine{}))
	require.NoError(t, agree(readme, page), "nothing is shown")
	require.ErrorIs(t, fillREADME(readme, page), errNoMarks)

	write(readme, "# quota\r\n\r\nabove\r\n"+beginMark+"\r\nold\r\n"+endMark+"\r\nbelow\r\n")
	require.ErrorContains(t, agree(readme, page), "-readme")
	require.NoError(t, fillREADME(readme, page))
	require.Equal(t, "# quota\n\nabove\n"+beginMark+"\n"+measured().short()+endMark+"\nbelow\n", read())
	require.NoError(t, agree(readme, page))
	require.NoError(t, fillREADME(readme, page))
	require.Equal(t, 1, strings.Count(read(), "peer: 100 ns"))

	write(page, "# Side by side\n\nnothing yet\n")
	require.ErrorContains(t, agree(readme, page), "make bench", "the README shows what was not measured")
}
