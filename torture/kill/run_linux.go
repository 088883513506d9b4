//go:build amd64 || arm64

package kill

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"example.com/quota"
	"example.com/quota/quotatest"
	"example.com/quota/torture/harness"
	"example.com/quota/torture/victim"
)

func workers() map[string]func(args []string) error {
	return map[string]func(args []string) error{victim.WorkerName: victim.Worker}
}

// How a case goes beyond the kill itself.
const (
	plain   = iota
	again   // the next process is killed too, before anybody looks
	visited // another process saves while the victim is at the call, and the victim is killed when it is done
	ways
)

const never = -1 // a call that is not reached

// run kills every plot at each of its calls, in one variation after the other until there were cases enough.
func run(ctx context.Context, run *harness.Run) error {
	runtime.LockOSThread() // the victims end with the thread that has started them
	defer runtime.UnlockOSThread()
	dir, err := victim.Scratch(run.Dir)
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	for variation := uint64(0); ; variation++ {
		most := int64(4)
		if variation > 0 {
			most = 14
		}
		plots := victim.Plots(run.Random, variation, most)
		random := run.Random(1<<40 | variation)
		random.Shuffle(len(plots), func(i, j int) { plots[i], plots[j] = plots[j], plots[i] })
		for _, plot := range plots {
			attack := &attack{run: run, plot: &plot, random: random, scratch: dir, dir: filepath.Join(dir, "case")}
			if err := attack.everywhere(ctx); err != nil {
				return err
			}
			if run.Cases != harness.All && run.Tried() >= int64(run.Cases) {
				return nil
			}
		}
		if run.Cases == harness.All {
			return nil
		}
	}
}

// attack is on one plot.
type attack struct {
	run     *harness.Run
	plot    *victim.Plot
	random  *rand.Rand
	scratch string
	dir     string // of the case
}

// everywhere tries every call in the plain way, and some of them in the others too.
func (a *attack) everywhere(ctx context.Context) error {
	if err := a.plot.Prepare(ctx, a.scratch); err != nil {
		return err
	}
	calls, err := a.once(ctx, never, plain)
	if err != nil {
		return a.context(err, nil, never, plain)
	}
	missed := 0
	for at := range calls {
		for way := range ways {
			if a.run.Cases != harness.All && a.run.Tried() >= int64(a.run.Cases) {
				return nil
			}
			if way == visited && (a.plot.Alone || a.plot.Fresh) || way != plain && a.random.IntN(6) > 0 {
				continue
			}
			made, err := a.once(ctx, at, way)
			if err != nil {
				return a.context(err, calls, at, way)
			}
			if len(made) <= at {
				missed++
			}
			a.run.Done(1)
		}
	}
	if missed > 3+len(calls)/4 {
		return fmt.Errorf("%s: %d of %d calls were not reached again", a.plot.Name, missed, len(calls))
	}
	return nil
}

// context says in which case a promise was broken.
func (a *attack) context(err error, calls []victim.Call, at, way int) error {
	if !harness.IsViolation(err) {
		return fmt.Errorf("%s: %w", a.plot.Name, err)
	}
	var text strings.Builder
	fmt.Fprintf(&text, "%s, ", a.plot.Name)
	if at == never {
		text.WriteString("without a kill")
	} else {
		said := map[int]string{plain: "killed at", again: "killed, and the next process too, at", visited: "another process saved, then killed, at"}
		fmt.Fprintf(&text, "%s call %d of %d, %s", said[way], at+1, len(calls), calls[at])
	}
	fmt.Fprintf(&text, ":\n%v\nbefore: %v\nsetup: %v\nattack: %v\n", err, a.plot.Before, a.plot.Setup, a.plot.Attack)
	for i, call := range calls {
		mark := "  "
		if i == at {
			mark = "->"
		}
		fmt.Fprintf(&text, "%s %3d %s\n", mark, i+1, call)
	}
	return harness.Violated("%s", text.String())
}

// once plays a plot and kills its victim at a call. It returns the calls that were seen.
func (a *attack) once(ctx context.Context, at, way int) ([]victim.Call, error) {
	p, err := a.plot.Begin(ctx, a.dir, nil)
	if err != nil {
		return nil, err
	}
	defer p.Kill()
	var guest *visitor
	if way == visited {
		if guest, err = newVisitor(ctx, a.dir, a.plot.Ledger.Now); err != nil {
			return nil, err
		}
	}
	var calls []victim.Call
	p.Trap.Judge(func(call victim.Call) victim.Verdict {
		if !call.Changes {
			return victim.Verdict{}
		}
		calls = append(calls, call)
		switch {
		case way == visited && len(calls) == at+1:
			guest.come()
		case way == visited && len(calls) > at+1 && call.Path == victim.Ack:
			return victim.Verdict{Kill: true}
		case way != visited && len(calls) == at+1:
			return victim.Verdict{Kill: true}
		}
		return victim.Verdict{}
	})
	could, err := attempt(p, a.plot.Attack, []*victim.Ledger{a.plot.Ledger})
	if err != nil {
		return calls, err
	}
	p.Kill()
	delivered := p.Alerts
	found := victim.Found{Damaged: a.plot.Damaged}
	if way == again && at != never {
		if could, err = a.killNext(ctx, could, &delivered); err != nil {
			return calls, err
		}
	}
	if way == visited {
		alerts, err := guest.leave()
		if err != nil {
			return calls, err
		}
		delivered = append(delivered, alerts...)
		could = victim.Also(could, guest.usage())
	}
	found.Open, found.Delivered = could, delivered
	for _, step := range a.plot.Attack {
		if step.Do == victim.Clear {
			found.ClearedNow = true
			found.Open = victim.WithoutPast(found.Open)
		}
	}
	_, err = found.Check(ctx, a.dir)
	return calls, err
}

// attempt has the victim do steps until it dies, and returns what the state may then say: all that was acknowledged,
// with the step under way or without.
func attempt(p *victim.Process, steps []victim.Step, could []*victim.Ledger) ([]*victim.Ledger, error) {
	for _, step := range steps {
		result, err := p.Do(step)
		if errors.Is(err, victim.ErrDied) {
			return append(could, victim.Also(could, step)...), nil
		}
		if err != nil {
			return nil, err
		}
		if result.Error != "" {
			return nil, harness.Violated("%s: %s", step, result.Error)
		}
		could = victim.Also(could, step)
	}
	return could, nil
}

// killNext starts another process on what the first has left, and kills it while it takes over.
func (a *attack) killNext(ctx context.Context, could []*victim.Ledger, delivered *[]string) ([]*victim.Ledger, error) {
	p, err := victim.Start(ctx, a.dir)
	if err != nil {
		return nil, err
	}
	defer p.Kill()
	if err := p.Must(victim.Step{Do: victim.Trapped}); err != nil {
		return nil, err
	}
	left := 1 + a.random.IntN(60) // New alone makes about 40
	p.Trap.Judge(func(call victim.Call) victim.Verdict {
		if call.Changes {
			left--
		}
		return victim.Verdict{Kill: left == 0}
	})
	could, err = attempt(p, []victim.Step{
		{Do: victim.Open, At: victim.Latest(could), Lowered: could[len(could)-1].Lowered},
		{Do: victim.Record, Quotas: []string{"visitor"}, Requests: 3},
	}, could)
	p.Kill()
	*delivered = append(*delivered, p.Alerts...)
	return could, err
}

// A visitor is another tracker on the same file that saves once.
type visitor struct {
	tracker *quota.QuotaTracker
	ctx     context.Context
	alerts  []string
	done    chan error
	came    bool
}

const (
	visitorUsage = 7
	patience     = 15 * time.Millisecond // of the victim, for a visitor that is not kept out
	visitorBound = 20 * time.Second      // of its own wait for the lock
)

func newVisitor(ctx context.Context, dir string, now time.Time) (*visitor, error) {
	v := &visitor{ctx: ctx, done: make(chan error, 1)}
	var err error
	v.tracker, err = quota.New(ctx, quota.Config{
		Persistence: quota.NewJSONFile(filepath.Join(dir, victim.StatePath)), Quotas: victim.Quotas(false),
		Clock: quotatest.NewClock(now), Logger: slog.New(slog.DiscardHandler),
		OnAlert: func(alert quota.Alert) { v.alerts = append(v.alerts, victim.AlertText(alert)) },
	})
	if err != nil {
		return nil, harness.Violated("a second tracker cannot be opened: %v", err)
	}
	return v, nil
}

// come has it save, and returns when it has, or has been kept waiting.
func (v *visitor) come() {
	v.came = true
	go func() { v.done <- v.tracker.RecordUsage(v.ctx, "visitor", quota.Requests(visitorUsage)) }()
	wait := time.NewTimer(patience)
	defer wait.Stop()
	select {
	case err := <-v.done:
		v.done <- err
	case <-wait.C:
	}
}

// leave ends it, and returns the alerts that it has delivered.
func (v *visitor) leave() ([]string, error) {
	var err error
	if v.came {
		bound := time.NewTimer(visitorBound)
		defer bound.Stop()
		select {
		case err = <-v.done:
		case <-bound.C:
			return nil, harness.Violated("a second tracker still waits %v after the death of the first", visitorBound)
		}
	}
	if closing := v.tracker.Close(); err == nil {
		err = closing
	}
	if err != nil {
		return nil, harness.Violated("a second tracker could not save: %v", err)
	}
	return v.alerts, nil
}

// usage is what it has recorded.
func (v *visitor) usage() victim.Step {
	if !v.came {
		return victim.Step{}
	}
	return victim.Step{Do: victim.Record, Quotas: []string{"visitor"}, Requests: visitorUsage}
}
