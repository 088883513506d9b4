//go:build amd64 || arm64

package victim

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"time"

	"example.com/quota/torture/harness"
)

// A Plot is one kind of operation to be disturbed, with what comes before it.
type Plot struct {
	Name   string
	Before []Step                 // done by an earlier process; it ends with a Close
	Damage func(dir string) error // what then happens to the files; nil: nothing
	Setup  []Step                 // done by the victim before anything is disturbed
	Attack []Step
	Ledger *Ledger // of the state after Setup

	Damaged bool // something is recovered from, and set aside
	Alone   bool // no other tracker may be there
	Fresh   bool // the directory is not there yet
	Lazy    bool // calls return before they are saved

	template  string   // the directory after Before and Damage
	delivered []string // alerts of the earlier process
}

// StatePath is where the state is, below a case's directory.
const StatePath = ".memory/quota_state.json"

// start is the time at which every plot begins: in the morning of a day without a change of the clocks.
func start() time.Time { return time.Date(2026, 3, 10, 9, 30, 0, 0, time.UTC) }

// pen writes steps that have to succeed, and keeps the ledger of them.
type pen struct {
	random *rand.Rand
	ledger *Ledger
	steps  []Step
	next   int    // of the IDs
	kept   string // the ID of what stays open for the attack
}

func (p *pen) write(steps ...Step) {
	for _, step := range steps {
		p.steps = append(p.steps, step)
		p.ledger.Apply(step)
	}
}

// cut returns the steps since the last cut.
func (p *pen) cut() []Step {
	steps := p.steps
	p.steps = nil
	return steps
}

func (p *pen) id() string {
	p.next++
	return idOf(p.next - 1)
}

func (p *pen) between(least, most int64) int64 { return least + p.random.Int64N(most-least+1) }

// reserve holds something, and returns its ID.
func (p *pen) reserve(quotas ...string) string {
	step := Step{Do: Reserve, Quotas: quotas, ID: p.id(), Requests: p.between(1, 3), Tokens: p.between(10, 90)}
	p.write(step)
	return step.ID
}

// some writes n steps of any kind; what they use leaves room enough for the attack.
func (p *pen) some(n int64) {
	for range n {
		open := slices.DeleteFunc(p.ledger.OpenIDs(), func(id string) bool { return id == p.kept })
		switch kind := p.random.IntN(9); {
		case kind < 3:
			name := []string{"alpha", "beta", "user:ann"}[kind]
			p.write(Step{Do: Record, Quotas: []string{name}, Requests: p.between(1, 2), Tokens: p.between(5, 60)})
		case kind < 6 && len(open) < 5:
			p.reserve([][]string{{"alpha"}, {"beta"}, {"alpha", "beta"}}[kind-3]...)
		case len(open) == 0:
		case kind == 6:
			p.write(Step{Do: Commit, ID: open[0], Requests: p.between(0, 3), Tokens: p.between(0, 99)})
		case kind == 7:
			p.write(Step{Do: Release, ID: open[len(open)-1]})
		case kind == 8:
			p.write(Step{Do: Extend, ID: open[0], For: time.Duration(p.between(150, 300)) * time.Minute})
		}
	}
}

func (p *pen) opening(lazy time.Duration) Step {
	return Step{Do: Open, At: p.ledger.Now, Lazy: lazy}
}

// Plots are all of them, with what comes before made up from random numbers: at most `most` steps in an earlier process
// and half as many in the victim's.
func Plots(random func(stream uint64) *rand.Rand, variation uint64, most int64) []Plot {
	var plots []Plot
	for i, shape := range shapes() {
		p := &pen{random: random(variation<<16 | uint64(i)), ledger: NewLedger(start())}
		plot := Plot{Name: shape.name, Damage: shape.damage, Damaged: shape.damaged, Alone: shape.alone, Fresh: shape.fresh, Lazy: shape.lazy > 0}
		if !shape.fresh {
			p.write(p.opening(0))
			p.some(p.between(1, most))
			if shape.before != nil {
				shape.before(p)
			}
			p.write(Step{Do: Close})
			plot.Before = p.cut()
		}
		if shape.python {
			plot.Before = nil
			*p.ledger = *imported()
		}
		if shape.setup != nil {
			p.write(p.opening(shape.lazy))
			p.some(p.between(0, most/2))
			shape.setup(p)
			plot.Setup = p.cut()
		}
		if shape.forgets {
			clear(p.ledger.View.Past)
		}
		plot.Ledger = p.ledger.Clone()
		shape.attack(p)
		plot.Attack = p.cut()
		plots = append(plots, plot)
	}
	return plots
}

// Scratch makes a directory for cases in which processes die, but no machine: in memory, where there is a place for it,
// else below dir.
func Scratch(dir string) (string, error) {
	if made, err := os.MkdirTemp("/dev/shm", "torture-"); err == nil {
		return made, nil
	}
	return os.MkdirTemp(dir, "scratch-")
}

// Prepare makes the plot's files once, below dir.
func (plot *Plot) Prepare(ctx context.Context, dir string) error {
	plot.template = filepath.Join(dir, "template-"+plot.Name)
	if err := os.RemoveAll(plot.template); err != nil {
		return err
	}
	if err := os.Mkdir(plot.template, 0o700); err != nil {
		return err
	}
	if len(plot.Before) > 0 {
		p, err := Start(ctx, plot.template)
		if err != nil {
			return err
		}
		defer p.Kill()
		if err := p.steps(plot.Before); err != nil {
			return fmt.Errorf("before %s: %w", plot.Name, err)
		}
		p.end()
		plot.delivered = p.Alerts
	}
	if plot.Damage != nil {
		return plot.Damage(plot.template)
	}
	return nil
}

// Begin starts a victim on a copy of the plot's files at dir, and does Setup. What ready does comes before; nil: nothing.
func (plot *Plot) Begin(ctx context.Context, dir string, ready func() error) (*Process, error) {
	if err := os.RemoveAll(dir); err != nil {
		return nil, err
	}
	if err := copyDir(plot.template, dir); err != nil {
		return nil, err
	}
	if ready != nil {
		if err := ready(); err != nil {
			return nil, err
		}
	}
	p, err := Start(ctx, dir)
	if err != nil {
		return nil, err
	}
	p.Alerts = append(p.Alerts, plot.delivered...)
	if err := p.steps(append(plot.Setup, Step{Do: Trapped})); err != nil {
		p.Kill()
		return nil, fmt.Errorf("%s, before anything was disturbed: %w", plot.Name, err)
	}
	return p, nil
}

// steps does what has to succeed.
func (p *Process) steps(steps []Step) error {
	for _, step := range steps {
		err := p.Must(step)
		if errors.Is(err, ErrDied) {
			err = harness.Violated("%s: %v: %s", step, err, p.said)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func copyDir(from, to string) error {
	if err := os.Mkdir(to, 0o700); err != nil {
		return err
	}
	entries, err := os.ReadDir(from)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		source, target := filepath.Join(from, entry.Name()), filepath.Join(to, entry.Name())
		if entry.IsDir() {
			if err := copyDir(source, target); err != nil {
				return err
			}
			continue
		}
		data, err := os.ReadFile(source)
		if err != nil {
			return err
		}
		if err := os.WriteFile(target, data, 0o600); err != nil {
			return err
		}
	}
	return nil
}
