package mutants

import (
	"fmt"
	"strings"
)

// ledger is MUTANTS.md: the mutants that survive, each with the reason why.
type ledger struct {
	reasons map[string]bool // by key; whether it is killed at times
}

const (
	entryMark  = "- `"
	groupMark  = "## "
	timesWords = "not always"
)

// readLedger reads the entries, "- `key`", below headings that are followed by the reason. Those below a heading that
// says "not always" are killed by chance.
func readLedger(text string) (*ledger, error) {
	l := &ledger{reasons: make(map[string]bool)}
	reason, sometimes := false, false
	for i, line := range strings.Split(text, "\n") {
		switch {
		case strings.HasPrefix(line, groupMark):
			reason, sometimes = false, strings.Contains(line, timesWords)
		case strings.HasPrefix(line, entryMark):
			key := strings.TrimSuffix(strings.TrimPrefix(line, entryMark), "`")
			if _, twice := l.reasons[key]; twice || !reason {
				return nil, fmt.Errorf("MUTANTS.md, line %d: an entry that is there twice, or below no reason", i+1)
			}
			l.reasons[key] = sometimes
		case strings.TrimSpace(line) != "":
			reason = true
		}
	}
	return l, nil
}
