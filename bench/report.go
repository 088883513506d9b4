package main

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
	"time"
)

// A part is a row with what was found.
type part struct {
	row      row
	findings []finding
	notes    []string
}

// results are what a run has found.
type results struct {
	parts  []part
	rounds int
	time   time.Duration
	seed   uint64
	took   time.Duration
	floor  *floor
}

func (r *results) findings() []finding {
	var all []finding
	for _, p := range r.parts {
		all = append(all, p.findings...)
	}
	return all
}

// String is the finding as a line for a terminal.
func (f finding) String() string {
	text := f.work + ": " + f.unit.stat(f.ours)
	if f.peer != "" {
		text += fmt.Sprintf("; %s: %s; ratio %s", f.peer, f.unit.stat(f.theirs), ratioText(f.ratio))
	}
	if f.goal != nil {
		text += "; goal " + f.goalText() + ": " + strings.Trim(f.verdict(), "*")
	}
	return text
}

func ratioText(s stat) string {
	if s.none() {
		return ""
	}
	return fmt.Sprintf("%s (%s .. %s)", trim(s.median), trim(s.low), trim(s.high))
}

// A machine is where and with what a run was made.
type machine struct {
	cpu, kernel, fileSystem, goVersion string
	cores, processors                  int
	at                                 time.Time
	modules                            []string
}

func machineOf(b *bench) machine {
	m := machine{cpu: cpuModel(), kernel: kernel(), fileSystem: fileSystem(b.dir), goVersion: runtime.Version(),
		cores: runtime.NumCPU(), processors: runtime.GOMAXPROCS(0), at: time.Now().UTC()}
	if info, ok := debug.ReadBuildInfo(); ok {
		m.modules = versions(info.Deps)
	}
	return m
}

// versions lists the modules that were measured; the others are what they need.
func versions(deps []*debug.Module) []string {
	var list []string
	for _, dep := range deps {
		for _, measured := range []string{"golang.org/x/time", "github.com/ulule/limiter/", "github.com/throttled/throttled/",
			"github.com/sethvargo/go-limiter", "go.etcd.io/bbolt", "modernc.org/sqlite", "github.com/go-redis/redis_rate/",
			"github.com/redis/go-redis/", "github.com/jackc/pgx/"} {
			if strings.HasPrefix(dep.Path, measured) {
				list = append(list, dep.Path+" "+dep.Version)
			}
		}
	}
	return list
}

// markdown is RESULTS.md.
func (r *results) markdown(m machine) string {
	var page strings.Builder
	write := func(format string, args ...any) { fmt.Fprintf(&page, format+"\n", args...) }
	write("# Side by side\n")
	write("Written by `make bench`; do not edit. Each row measures this library and its peers on the same work in one process and")
	write("one run: %d rounds in which the sides take turns in an order that rotates, %v for each side in each round (four times", r.rounds, r.time)
	write("as long where the disk is waited for, in slices). A number is the median of the rounds, in brackets the least and the")
	write("greatest; a ratio is that of the medians, in brackets those of the single rounds. Times are per call: with several")
	write("goroutines, the time that passed over the calls of all of them. Each run checks that what it measured happened: what was")
	write("admitted is what the tracker counts, and what should be refused was. Keys were drawn with seed %d before the clock started.\n", r.seed)
	write("| | |\n|---|---|")
	write("| date | %s, %.0f s |", m.at.Format("2006-01-02 15:04 UTC"), r.took.Seconds())
	write("| machine | %s, %d cores, GOMAXPROCS %d |", cell(m.cpu), m.cores, m.processors)
	write("| system | %s, %s, %s |", cell(m.kernel), m.fileSystem, m.goVersion)
	write("| peers | %s |\n", strings.Join(m.modules, ", "))
	write("%s\n%s%s\n", beginMark, r.short(), endMark)
	write("## Every row\n")
	write("| # | work | ours | theirs | ratio | goal | |\n|---|---|---|---|---|---|---|")
	for _, f := range r.findings() {
		theirs := f.unit.stat(f.theirs)
		if f.peer != "" {
			theirs = f.peer + ": " + theirs
		}
		write("| %d | %s | %s | %s | %s | %s | %s |", f.row, cell(f.work), f.unit.stat(f.ours), cell(theirs), ratioText(f.ratio), f.goalText(), f.verdict())
	}
	write("\n## What each row measures\n")
	for _, p := range r.parts {
		write("**%d. %s.** %s", p.row.number, p.row.title, p.row.explains)
		for _, note := range p.notes {
			write("- %s", note)
		}
		for _, f := range p.findings {
			if line := r.bound(f); line != "" {
				write("- %s", line)
			}
		}
		write("")
	}
	return page.String()
}

// bound says how far a judged time is from the floor of this run. Row 7 has the disk beside it.
func (r *results) bound(f finding) string {
	if f.goal == nil || f.unit != nanoseconds || f.peer == "" || f.row == 7 || r.floor == nil || r.floor.clock.none() {
		return ""
	}
	lower, what := r.floor.clock.median+r.floor.lock.median, "one clock read and one lock"
	if f.row == 2 {
		lower, what = 2*lower, "two clock reads and two locks"
	}
	return fmt.Sprintf("%s: %s is %s times the floor of %s (%s).", f.work, nanoseconds.text(f.ours.median),
		trim(f.ours.median/lower), nanoseconds.text(lower), what)
}

// short is the table for the README.
func (r *results) short() string {
	var table strings.Builder
	fmt.Fprint(&table, "| work | quota | the peer | ratio | what the peer does not do |\n|---|---|---|---|---|\n")
	for _, f := range r.findings() {
		if f.short == "" {
			continue
		}
		fmt.Fprintf(&table, "| %s | %s | %s: %s | %s x | %s |\n", cell(f.work), f.unit.text(f.ours.median), f.peer,
			f.unit.text(f.theirs.median), trim(f.ratio.median), cell(f.short))
	}
	return table.String()
}

// cell keeps a text inside its cell of a table.
func cell(text string) string {
	return strings.ReplaceAll(strings.ReplaceAll(text, "\n", " "), "|", "\\|")
}

// withoutPaths takes the directory of this run out of an error's text.
func withoutPaths(err error, dir string) string {
	text := strings.ReplaceAll(err.Error(), dir+string(os.PathSeparator), "")
	if absolute, failed := filepath.Abs(dir); failed == nil {
		text = strings.ReplaceAll(text, absolute+string(os.PathSeparator), "")
	}
	return text
}
