// Package mutants checks the tests of the library: it changes the library in every small way, and looks whether a test
// fails. A mutant that survives shows a line that no test depends on.
package mutants

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"example.com/quota/torture/harness"
)

// mutated are the pure core, and the two halves of group commit.
var mutated = []string{
	"amounts.go", "window.go", "rules.go", "account.go", "hold.go", "expiry.go", "day.go", "book.go", "turn.go", "match.go", "admission.go",
	"settle.go", "correct.go", "refusal.go", "outbox.go",
	"verify.go", "bookjson.go", "bookread.go", "holdread.go", "bookwrite.go", "groupcommit.go", "shared.go", "updating.go",
}

// enough is how many percent of the mutants the tests must kill.
const enough = 90

// logVariable names a file that is told what became of each mutant.
const logVariable = "TORTURE_MUTANTS_LOG"

// Row is "the tests see bugs". Its mutants are its faults.
func Row() harness.Row {
	return harness.Row{
		Number:  11,
		Name:    "mutants",
		Promise: "the tests see bugs",
		Unit:    "mutants",
		Quick:   0,
		Full:    harness.All,
		Tools:   []string{"go"},
		Run:     run,
	}
}

func run(ctx context.Context, one *harness.Run) error {
	module, err := moduleDir(ctx)
	if err != nil {
		return err
	}
	text, err := os.ReadFile(filepath.Join(module, "MUTANTS.md"))
	if err != nil {
		return err
	}
	known, err := readLedger(string(text))
	if err != nil {
		return err
	}
	mutants, fates, err := try(ctx, filepath.Dir(module), mutated, one, known)
	if err != nil {
		return err
	}
	return known.judge(mutants, fates)
}

// try runs the tests of the library in root against mutants of the named files, and returns all of them and what
// became of those that were tried.
func try(ctx context.Context, root string, names []string, one *harness.Run, known *ledger) ([]mutant, map[int]fate, error) {
	source, texts, err := mutate(ctx, root, names)
	if err != nil {
		return nil, nil, err
	}
	recorder, hunter, err := source.build(ctx, one.Dir, texts)
	if err != nil {
		return nil, nil, err
	}
	bench := &bench{root: source.root, dir: one.Dir}
	tests, err := bench.record(ctx, recorder)
	if err != nil {
		return nil, nil, err
	}
	log, err := openLog()
	if err != nil {
		return nil, nil, err
	}
	defer log.Close()
	fates := make(map[int]fate)
	ids := choose(len(source.mutants), one.Cases, one.Random(0).Shuffle)
	explained := func(id int) bool {
		_, ok := known.reasons[source.mutants[id-1].key()]
		return ok
	}
	err = bench.hunt(ctx, hunter, tests, ids, explained, func(id int, f fate) {
		fates[id] = f
		one.Done(1)
		m := &source.mutants[id-1]
		fmt.Fprintf(log, "%t\t%s\t%d\t%dms\tline %d\t%s\n", f.killed, f.how, f.tests, f.took.Milliseconds(), m.line, m.key())
	})
	return source.mutants, fates, err
}

// moduleDir is where the source of this module is.
func moduleDir(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, "go", "env", "GOMOD").Output()
	if err != nil {
		return "", fmt.Errorf("asking go where this module is: %w", err)
	}
	dir := filepath.Dir(strings.TrimSpace(string(out)))
	if filepath.Base(dir) != "torture" {
		return "", errors.New("run it in the torture directory: it builds the tests of the library beside it")
	}
	return dir, nil
}

func openLog() (*os.File, error) {
	path := os.Getenv(logVariable)
	if path == "" {
		path = os.DevNull
	}
	return os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
}

// judge compares what became of the mutants with what MUTANTS.md says.
func (l *ledger) judge(mutants []mutant, fates map[int]fate) error {
	var unexplained, stale []string
	all := make(map[string]bool)
	killed := 0
	for i := range mutants {
		key := mutants[i].key()
		all[key] = true
		fate, tried := fates[mutants[i].id]
		sometimes, explained := l.reasons[key]
		switch {
		case !tried:
		case fate.killed:
			killed++
			if explained && !sometimes {
				stale = append(stale, entry(key)+" is killed")
			}
		case !explained:
			unexplained = append(unexplained, fmt.Sprintf("%s %s (line %d)", entry(key), fate.how, mutants[i].line))
		}
	}
	for key := range l.reasons {
		if !all[key] {
			stale = append(stale, entry(key)+" is no mutant any more")
		}
	}
	var wrong []string
	if killed*100 < enough*len(fates) {
		wrong = append(wrong, fmt.Sprintf("%d of %d mutants were killed, less than %d %%", killed, len(fates), enough))
	}
	if len(unexplained) > 0 {
		wrong = append(wrong, fmt.Sprintf("%d survivors are not in MUTANTS.md: write a test that fails, or say there why none can:\n%s",
			len(unexplained), strings.Join(unexplained, "\n")))
	}
	if len(stale) > 0 {
		wrong = append(wrong, fmt.Sprintf("%d entries of MUTANTS.md are out of date, remove them:\n%s", len(stale), strings.Join(stale, "\n")))
	}
	if len(wrong) > 0 {
		return harness.Violated("%s", strings.Join(wrong, "\n"))
	}
	return nil
}

func entry(key string) string { return entryMark + key + "`" }
