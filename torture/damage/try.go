package damage

import (
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"example.com/quota"
	"example.com/quota/quotatest"
	"example.com/quota/torture/harness"
)

// damaged is a case: a scene with some of its files changed.
type damaged struct {
	what   string
	change func(files) // changes the files of the scene; called for each try
	strict bool

	// What may be seen, when something was recovered; nil: what the files that are whole say.
	recovered []picture
	silent    bool // it may also be seen without a report: nothing is left that would know better
}

func (d damaged) name() string {
	if d.strict {
		return d.what + ", strict"
	}
	return d.what
}

// try opens the damaged state in dir and judges what it says.
func (d damaged) try(dir string, whole *scene) error {
	all := maps.Clone(whole.files)
	d.change(all)
	if err := all.put(dir); err != nil {
		return err
	}
	log := &errorsOf{}
	tracker, err := open(dir, d.strict, quotatest.NewClock(now), log)
	if err != nil {
		return d.refused(err, dir, all)
	}
	seen, err := take(tracker)
	if err != nil {
		return err
	}
	summary, verified := tracker.Summary(), tracker.Verify()
	if err := tracker.Close(); err != nil {
		return harness.Violated("closing: %v", err)
	}
	if verified != nil {
		return harness.Violated("it was accepted, and its books are wrong: %v", verified)
	}
	if summary.Recovered != "" && log.count.Load() == 0 {
		return harness.Violated("nothing was logged of %q", summary.Recovered)
	}
	return d.judge(seen, summary.Recovered, dir, all, whole)
}

// refused judges an error of New.
func (d damaged) refused(err error, dir string, all files) error {
	clear := errors.Is(err, quota.ErrNewerState) || d.strict && errors.Is(err, quota.ErrCorruptState)
	if !clear || !strings.Contains(err.Error(), dir) {
		return harness.Violated("the error does not say what is wrong with which file: %v", err)
	}
	if !all.same(dir) {
		return harness.Violated("it was refused (%v), and the files are not what they were", err)
	}
	return nil
}

// judge judges what is seen of a state that was accepted.
func (d damaged) judge(seen picture, report string, dir string, before files, whole *scene) error {
	sameState, samePast := before[state] == whole.files[state], before[history] == whole.files[history]
	wanted := d.recovered
	if wanted == nil {
		switch {
		case sameState:
			wanted = []picture{whole.truth}
		case before[backup] == whole.files[backup]:
			wanted = []picture{whole.old}
		case samePast:
			wanted = []picture{whole.past}
		default:
			wanted = []picture{whole.fresh}
		}
	}
	if report == "" && !d.silent {
		wanted = []picture{whole.truth}
	}
	if !seen.among(wanted) {
		return harness.Violated("reported was %q, but seen is not what it must be:\n%s", report, difference(seen.usage, wanted[0].usage))
	}
	_, hadState := before[state]
	_, hadBackup := before[backup]
	if d.strict && report != "" && !sameState && d.recovered == nil && (hadState || hadBackup) {
		return harness.Violated("it is strict, and recovered: %s", report)
	}
	_, hadPast := before[history]
	if seen.days != whole.truth.days && (samePast || hadPast && report == "") {
		return harness.Violated("reported was %q, but the finished days are\n%s\ninstead of\n%s", report, seen.days, whole.truth.days)
	}
	if report == "" {
		return nil
	}
	for _, name := range []string{state, history} {
		text, had := before[name]
		if had && text != whole.files[name] && d.recovered == nil && !setAside(filepath.Join(dir, name), text) {
			return harness.Violated("it was recovered (%s), but the damaged %s is not set aside", report, name)
		}
	}
	return nil
}

// setAside tells whether a file was kept under another name.
func setAside(path, text string) bool {
	aside, _ := filepath.Glob(path + ".corrupt-*") // the pattern is none that could be wrong
	return slices.ContainsFunc(aside, func(other string) bool {
		kept, err := os.ReadFile(other)
		return err == nil && string(kept) == text
	})
}

// difference says where two texts part.
func difference(found, wanted string) string {
	a, b := strings.SplitAfter(found, ","), strings.SplitAfter(wanted, ",")
	var lines []string
	for i := range max(len(a), len(b)) {
		switch {
		case i >= len(a):
			lines = append(lines, "missing: "+b[i])
		case i >= len(b):
			lines = append(lines, "too much: "+a[i])
		case a[i] != b[i]:
			lines = append(lines, a[i]+" wanted: "+b[i])
		}
		if len(lines) == 10 {
			return strings.Join(append(lines, "..."), "\n")
		}
	}
	return strings.Join(lines, "\n")
}
