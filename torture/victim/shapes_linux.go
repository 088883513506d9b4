//go:build amd64 || arm64

package victim

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// A shape is what is the same in all plots of a name. Without setup the victim has nothing open when it is disturbed.
type shape struct {
	name    string
	before  func(*pen)
	damage  func(dir string) error
	setup   func(*pen)
	attack  func(*pen)
	lazy    time.Duration
	damaged bool
	alone   bool
	fresh   bool
	python  bool
	forgets bool // the past days
}

// shapes are every kind of operation on a file.
func shapes() []shape {
	nothing := func(*pen) {}
	one := func(step Step) func(*pen) { return func(p *pen) { p.write(step) } }
	open := func(p *pen) { p.write(p.opening(0)) }
	openAndRecord := func(p *pen) {
		p.write(p.opening(0), Step{Do: Record, Quotas: []string{"beta"}, Requests: 1, Tokens: p.between(5, 50)})
	}
	settling := func(p *pen) { p.kept = p.reserve("alpha", "beta") }
	return []shape{
		{name: "new", fresh: true, attack: openAndRecord},
		{name: "restart", attack: open},
		{name: "leftovers", damage: leaveTemps, attack: open},
		{name: "reserve", setup: nothing, attack: func(p *pen) { p.reserve("alpha") }},
		{name: "reserve-all", setup: nothing, attack: func(p *pen) { p.reserve("alpha", "beta") }},
		{name: "commit", setup: settling, attack: func(p *pen) {
			p.write(Step{Do: Commit, ID: p.kept, Requests: p.between(1, 9), Tokens: p.between(1, 300)})
		}},
		{name: "commit-found", before: settling, setup: nothing, attack: func(p *pen) {
			p.write(Step{Do: Commit, ID: p.kept, Requests: p.between(1, 9), Tokens: p.between(1, 300)})
		}},
		{name: "release", setup: settling, attack: func(p *pen) { p.write(Step{Do: Release, ID: p.kept}) }},
		{name: "record", setup: nothing, attack: func(p *pen) {
			p.write(Step{Do: Record, Quotas: []string{"alpha"}, Requests: p.between(1, 9), Tokens: p.between(1, 300)})
		}},
		{name: "record-template", setup: nothing, attack: one(Step{Do: Record, Quotas: []string{"user:bob"}, Requests: 2})},
		{name: "alert", setup: nothing, attack: func(p *pen) {
			p.write(Step{Do: Record, Quotas: []string{"alpha"}, Requests: 81}, Step{Do: Record, Quotas: []string{"beta"}, Requests: 1, Tokens: 2600})
		}},
		{name: "auto-release", setup: func(p *pen) {
			p.write(Step{Do: Anonymous, Quotas: []string{"alpha"}, Requests: 2, Tokens: 70},
				Step{Do: Anonymous, Quotas: []string{"alpha"}, Requests: 3, Tokens: 50})
		}, attack: func(p *pen) {
			p.write(Step{Do: Record, Quotas: []string{"alpha"}, Requests: 2, Tokens: 70},
				Step{Do: GiveBack, Quotas: []string{"alpha"}, Requests: 3, Tokens: 50})
		}},
		{name: "extend", setup: settling, attack: func(p *pen) { p.write(Step{Do: Extend, ID: p.kept, For: 10 * time.Hour}) }},
		{name: "observe", setup: nothing, attack: one(Step{Do: Observe, Quotas: []string{"beta"}, Tokens: 1200, For: 3 * time.Hour})},
		{name: "set-quotas", setup: func(p *pen) {
			p.write(Step{Do: Record, Quotas: []string{"alpha"}, Requests: 20})
		}, attack: one(Step{Do: Configure})},
		{name: "reset", setup: nothing, attack: one(Step{Do: Reset, Quotas: []string{"alpha"}})},
		{name: "turn", setup: func(p *pen) {
			p.write(Step{Do: Record, Quotas: []string{"alpha"}, Requests: 3, Tokens: 7}, Step{Do: Record, Quotas: []string{"beta"}, Requests: 1, Tokens: 7})
		}, attack: func(p *pen) {
			p.write(Step{Do: Advance, For: 15 * time.Hour},
				Step{Do: Record, Quotas: []string{"alpha"}, Requests: 2, Tokens: p.between(1, 99)},
				Step{Do: Record, Quotas: []string{"beta"}, Requests: 2, Tokens: p.between(1, 99)})
		}},
		{name: "expire", setup: settling, attack: one(Step{Do: Advance, For: 5*time.Hour + time.Minute})},
		{name: "flush", setup: one(Step{Do: Refused, Quotas: []string{"alpha"}, Requests: 1000}), attack: one(Step{Do: Flush})},
		{name: "close", setup: one(Step{Do: Refused, Quotas: []string{"beta"}, Tokens: 1e6}), attack: one(Step{Do: Close})},
		{name: "clear", before: turnBefore, setup: one(Step{Do: Close}), attack: one(Step{Do: Clear}), alone: true},
		{name: "store", before: turnBefore, setup: one(Step{Do: Close}), attack: one(Step{Do: Store})},
		{name: "lazy-flush", setup: one(Step{Do: Flush}), lazy: time.Second, alone: true, attack: func(p *pen) { p.write(burst(p, Step{Do: Flush})) }},
		{name: "lazy-timer", setup: one(Step{Do: Flush}), lazy: time.Second, alone: true, attack: func(p *pen) {
			p.write(burst(p, Step{Do: Advance, For: 2 * time.Second}))
		}},
		{name: "lazy-close", setup: one(Step{Do: Flush}), lazy: time.Second, alone: true, attack: func(p *pen) { p.write(burst(p, Step{Do: Close})) }},
		{name: "lazy-turn", setup: one(Step{Do: Flush}), lazy: time.Second, alone: true, attack: func(p *pen) {
			p.write(Step{Do: Advance, For: 15 * time.Hour}, burst(p, Step{Do: Flush}))
		}},
		{name: "corrupt", damage: corrupt, damaged: true, attack: openAndRecord},
		{name: "missing", damage: removeState, damaged: true, attack: openAndRecord},
		{name: "corrupt-history", before: turnBefore, damage: corruptHistory, damaged: true, forgets: true, attack: openAndRecord},
		{name: "python", python: true, damage: writePython, attack: openAndRecord},
	}
}

// burst is usage that a tracker with a FlushInterval saves at once.
func burst(p *pen, end Step) Step {
	return Step{Do: Burst, Steps: []Step{
		{Do: Record, Quotas: []string{"alpha"}, Requests: p.between(1, 5), Tokens: p.between(1, 90)},
		{Do: Reserve, Quotas: []string{"alpha", "beta"}, ID: p.id(), Requests: 1, Tokens: p.between(1, 90)},
		{Do: Record, Quotas: []string{"user:ann"}, Requests: 1},
		end,
	}}
}

// turnBefore leaves a history file.
func turnBefore(p *pen) {
	p.write(Step{Do: Record, Quotas: []string{"alpha"}, Requests: 1, Tokens: 2}, Step{Do: Record, Quotas: []string{"beta"}, Requests: 1, Tokens: 2},
		Step{Do: Advance, For: 15 * time.Hour},
		Step{Do: Record, Quotas: []string{"alpha"}, Requests: 1, Tokens: 2}, Step{Do: Record, Quotas: []string{"beta"}, Requests: 1, Tokens: 2})
}

// leaveTemps makes the temporary files of processes that were killed.
func leaveTemps(dir string) error {
	dir = filepath.Join(dir, filepath.Dir(StatePath))
	var errs []error
	for _, name := range []string{".quota_state.json.tmp-123456789", ".quota_history.json.tmp-987654321", ".quota_state.json.bak.tmp"} {
		errs = append(errs, os.WriteFile(filepath.Join(dir, name), []byte(`{"version": 2, "gener`), 0o600))
	}
	return errors.Join(errs...)
}

// corrupt makes the .bak say the same as the state, and breaks the state.
func corrupt(dir string) error {
	path := filepath.Join(dir, StatePath)
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	return errors.Join(os.WriteFile(path+".bak", data, 0o600), os.WriteFile(path, data[:len(data)/2], 0o600))
}

func removeState(dir string) error {
	path := filepath.Join(dir, StatePath)
	return errors.Join(corrupt(dir), os.Remove(path))
}

func corruptHistory(dir string) error {
	path := filepath.Join(dir, filepath.Dir(StatePath), "quota_history.json")
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return errors.New("there is no history file to damage")
	}
	return os.WriteFile(path, []byte(`{"version": 2, "days": {"alpha": [`), 0o600)
}

// writePython writes what the Python tool leaves, see imported.
func writePython(dir string) error {
	path := filepath.Join(dir, StatePath)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	return os.WriteFile(path, []byte(`{
  "limits": {
    "alpha": {"limit": 100, "used": 55, "reserved": 0, "resets_at": "2026-03-11T00:00:00+00:00", "unlimited": false},
    "user:ann": {"limit": 60, "used": 4, "reserved": 0, "resets_at": "2026-03-11T00:00:00+00:00", "unlimited": false}
  },
  "last_updated": "2026-03-10T08:00:00.123456+00:00",
  "version": "1.0"
}
`), 0o600)
}

// imported is the ledger of writePython.
func imported() *Ledger {
	l := NewLedger(start())
	l.use("alpha", 55, 0)
	l.use("user:ann", 4, 0)
	return l
}
