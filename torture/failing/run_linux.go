//go:build amd64 || arm64

package failing

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"

	"example.com/quota/torture/harness"
	"example.com/quota/torture/victim"
)

func workers() map[string]func(args []string) error {
	return map[string]func(args []string) error{victim.WorkerName: victim.Worker}
}

// How long a call fails.
const (
	once     = iota
	sameCall // that call, from then on
	allCalls // every call, from then on
	modes
)

// perVariation is how many failures are tried with the same plots.
const perVariation = 600

func errnos() []syscall.Errno {
	return []syscall.Errno{syscall.EIO, syscall.ENOSPC, syscall.EDQUOT, syscall.EROFS, syscall.EACCES, syscall.EMFILE}
}

// run tries failures until there were enough: first those that a save must survive, then the surroundings, then any.
func run(ctx context.Context, run *harness.Run) error {
	runtime.LockOSThread() // the victims end with the thread that has started them
	defer runtime.UnlockOSThread()
	scratch, err := victim.Scratch(run.Dir)
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(scratch) }()
	t := &trials{run: run, scratch: scratch}
	for variation := uint64(0); run.Cases == harness.All && variation == 0 || run.Tried() < int64(run.Cases); variation++ {
		t.plots = victim.Plots(run.Random, variation, 4+8*int64(min(variation, 1)))
		t.random = run.Random(1<<40 | variation)
		t.calls = map[string][]victim.Call{}
		for i := range t.plots {
			if err := t.plots[i].Prepare(ctx, scratch); err != nil {
				return err
			}
		}
		for _, try := range []func(context.Context) error{t.syncsAndRenames, t.surroundings, t.anything} {
			if err := try(ctx); err != nil {
				return err
			}
		}
	}
	return nil
}

// trials are those of one variation.
type trials struct {
	run     *harness.Run
	scratch string
	random  *rand.Rand
	plots   []victim.Plot
	calls   map[string][]victim.Call // of each plot, when nothing fails; made when first wanted
}

func (t *trials) enough() bool {
	return t.run.Cases != harness.All && t.run.Tried() >= int64(t.run.Cases)
}

// syncsAndRenames lets each sync and each rename of two kinds of save fail once.
func (t *trials) syncsAndRenames(ctx context.Context) error {
	for i := range t.plots {
		plot := &t.plots[i]
		if plot.Name != "record" && plot.Name != "turn" {
			continue
		}
		calls, err := t.baseline(ctx, plot)
		if err != nil {
			return err
		}
		for at, call := range calls {
			if call.Name != "fsync" && call.Name != "renameat" {
				continue
			}
			if t.enough() {
				return nil
			}
			if err := t.try(ctx, &trial{plot: plot, at: at, call: call, errno: syscall.EIO}); err != nil {
				return err
			}
		}
	}
	return nil
}

// surroundings tries each plot in a place that goes bad. A quick run tries some.
func (t *trials) surroundings(ctx context.Context) error {
	for i := range t.plots {
		plot := &t.plots[i]
		for _, place := range []string{fullDisk, readOnly, mountedFile} {
			if plot.Fresh || t.random.IntN(3) > 0 {
				continue
			}
			if t.enough() {
				return nil
			}
			if err := t.try(ctx, &trial{plot: plot, at: never, place: place, killed: t.random.IntN(4) == 0}); err != nil {
				return err
			}
		}
	}
	return nil
}

// anything lets any call of any plot fail in any way.
func (t *trials) anything(ctx context.Context) error {
	for i := range perVariation {
		if t.enough() {
			return nil
		}
		plot := &t.plots[i%len(t.plots)]
		calls, err := t.baseline(ctx, plot)
		if err != nil {
			return err
		}
		one := &trial{
			plot: plot, errno: errnos()[t.random.IntN(len(errnos()))], mode: t.random.IntN(modes), killed: t.random.IntN(4) == 0,
		}
		one.at = t.choose(calls)
		one.call = calls[one.at]
		if one.call.Name == "close" || one.call.Name == victim.Unlock {
			one.mode = once // what is not closed is not closed by the next attempt either
		}
		if err := t.try(ctx, one); err != nil {
			return err
		}
	}
	return nil
}

// choose picks a kind of call and then one of its kind.
func (t *trials) choose(calls []victim.Call) int {
	var kinds []string
	for _, call := range calls {
		if !slices.Contains(kinds, call.Name) {
			kinds = append(kinds, call.Name)
		}
	}
	kind := kinds[t.random.IntN(len(kinds))]
	var of []int
	for i, call := range calls {
		if call.Name == kind {
			of = append(of, i)
		}
	}
	return of[t.random.IntN(len(of))]
}

// baseline returns the calls that a plot makes when nothing fails.
func (t *trials) baseline(ctx context.Context, plot *victim.Plot) ([]victim.Call, error) {
	if calls, ok := t.calls[plot.Name]; ok {
		return calls, nil
	}
	none := &trial{plot: plot, at: never}
	if err := t.play(ctx, none); err != nil {
		return nil, none.context(err)
	}
	t.calls[plot.Name] = none.seen
	return none.seen, nil
}

func (t *trials) try(ctx context.Context, one *trial) error {
	if err := t.play(ctx, one); err != nil {
		return one.context(err)
	}
	t.run.Done(1)
	return nil
}

func (t *trials) play(ctx context.Context, one *trial) error {
	one.dir = filepath.Join(t.scratch, "case")
	return one.play(ctx)
}

// context says in which case a promise was broken.
func (one *trial) context(err error) error {
	if !harness.IsViolation(err) {
		return fmt.Errorf("%s: %w", one.plot.Name, err)
	}
	how := map[int]string{once: "once", sameCall: "from then on", allCalls: "and every call from then on"}[one.mode]
	what := "nothing fails"
	switch {
	case one.place != "":
		what = one.place
	case one.at != never:
		what = fmt.Sprintf("call %d, %s, fails with %v %s", one.at+1, one.call, one.errno, how)
	}
	if one.killed {
		what += ", then it is killed"
	}
	var text strings.Builder
	fmt.Fprintf(&text, "%s, %s:\n%v\nbefore: %v\nsetup: %v\nattack: %v\n", one.plot.Name, what, err, one.plot.Before, one.plot.Setup, one.plot.Attack)
	for _, line := range one.said {
		fmt.Fprintf(&text, "%s\n", line)
	}
	for i, call := range one.seen {
		fmt.Fprintf(&text, "  %3d %s\n", i+1, call)
	}
	return harness.Violated("%s", text.String())
}
