//go:build amd64 || arm64

package failing

import (
	"context"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"

	"example.com/quota/torture/harness"
	"example.com/quota/torture/victim"
)

const longEnough = 2000 // calls with a fault

const never = -1 // a call that is not reached

// A trial is one failure in one plot.
type trial struct {
	plot   *victim.Plot
	at     int // the call that fails
	call   victim.Call
	errno  syscall.Errno
	mode   int
	place  string // instead of a call
	killed bool   // while it still fails

	dir      string
	seen     []victim.Call // with those that were let fail
	said     []string      // what came of each step
	failed   int           // calls that failed
	unclosed int           // descriptors that are open because their close failed
	lifted   bool
	unsynced map[string]bool // files whose sync has failed
	misused  string          // what was done with one of those
	early    error           // of a fault that was lifted in the middle of a step
	sound    *surrounding
}

// play disturbs a plot, and checks everything.
func (one *trial) play(ctx context.Context) (err error) {
	one.unsynced = map[string]bool{}
	one.sound = newSurrounding(one.place, filepath.Join(one.dir, filepath.Dir(victim.StatePath)))
	defer one.sound.end()
	p, err := one.plot.Begin(ctx, one.dir, one.sound.prepare)
	if err != nil {
		return err
	}
	defer p.Kill()
	if err := one.sound.spoil(); err != nil {
		return err
	}
	p.Trap.Judge(one.judge)
	ledger := one.plot.Ledger.Clone()
	could := []*victim.Ledger{ledger.Clone()} // what may be on the disk
	var left []victim.Step                    // that cannot be done before it works again
	steps := flat(one.plot.Attack)
	for i, step := range steps {
		result, err := one.do(p, step)
		if err != nil {
			return err
		}
		if err := one.checkError(step, result); err != nil {
			return err
		}
		effective := result.Error == "" || result.Matches("ErrPending") || step.Do == victim.Configure
		if effective {
			ledger.Apply(step)
		}
		could = onDisk(could, step, result.Error == "" && (!one.plot.Lazy || step.Do == victim.Flush || step.Do == victim.Close))
		if result.Error != "" && again(step) {
			left = steps[i:]
			break
		}
	}
	found := victim.Found{Damaged: one.plot.Damaged}
	if one.killed {
		p.Kill()
		if err := one.sound.lift(); err != nil {
			return err
		}
		one.lifted = true
		found.Open = could
		for _, step := range left {
			found.ClearedNow = found.ClearedNow || step.Do == victim.Clear
		}
		if found.ClearedNow {
			found.Open = victim.WithoutPast(found.Open)
		}
	} else {
		right := []*victim.Ledger{ledger}
		if len(left) > 0 && left[0].Do == victim.Close {
			right = could // what a Close could not save is gone with the tracker
		}
		if right, err = one.recover(p, right, left); err != nil {
			return err
		}
		p.Kill()
		found.Open, found.Once = right, true
	}
	if one.early != nil {
		return one.early
	}
	if one.misused != "" {
		return harness.Violated("%s", one.misused)
	}
	found.Delivered = p.Alerts
	_, err = found.Check(ctx, one.dir)
	return err
}

// do has the victim do a step, and notes what came of it.
func (one *trial) do(p *victim.Process, step victim.Step) (victim.Result, error) {
	result, err := p.Do(step)
	switch {
	case err != nil:
		one.said = append(one.said, step.String()+": "+err.Error())
		if !harness.IsViolation(err) {
			err = harness.Violated("%s: %v", step, err)
		}
	case result.Error != "":
		one.said = append(one.said, step.String()+": "+result.Error)
	default:
		one.said = append(one.said, step.String()+": done")
	}
	return result, err
}

// flat is steps without bursts.
func flat(steps []victim.Step) []victim.Step {
	var all []victim.Step
	for _, step := range steps {
		if step.Do == victim.Burst {
			all = append(all, step.Steps...)
			continue
		}
		all = append(all, step)
	}
	return all
}

// again tells whether a step that has failed has to be done again before anything else can be done.
func again(step victim.Step) bool {
	switch step.Do {
	case victim.Open, victim.Clear, victim.Store, victim.Close:
		return true
	}
	return false
}

// onDisk is what may be on the disk after a further step: with it, and, if it was not acknowledged, without it.
func onDisk(could []*victim.Ledger, step victim.Step, durable bool) []*victim.Ledger {
	after := victim.Also(could, step)
	if durable {
		return after[len(after)-1:]
	}
	return append(could, after...)
}

// judge lets calls fail until the fault is lifted, and watches over files whose sync has failed.
func (one *trial) judge(call victim.Call) victim.Verdict {
	if call.Path == victim.Ack {
		return victim.Verdict{}
	}
	if one.unsynced[call.Path] && (call.Name == "fsync" || call.Name == "renameat" || call.Name == "renameat2") && one.misused == "" {
		one.misused = "the sync of " + call.Path + " has failed, and all the same: " + call.String()
	}
	if one.lifted {
		return victim.Verdict{}
	}
	if len(one.seen) == longEnough { // the clock has moved by hours: somebody tries again each second of them
		one.lifted, one.early = true, one.sound.lift()
		return victim.Verdict{}
	}
	one.seen = append(one.seen, call)
	n := len(one.seen) - 1
	fails := false
	switch {
	case one.at == never || n < one.at:
	case n == one.at:
		fails = true
	case one.mode == sameCall:
		fails = call.Name == one.seen[one.at].Name
	case one.mode == allCalls:
		fails = call.Name != "close" && call.Name != victim.Unlock
	}
	if !fails {
		return victim.Verdict{}
	}
	one.failed++
	switch call.Name {
	case "close":
		one.unclosed++
	case "fsync":
		if strings.HasPrefix(filepath.Base(call.Path), ".") && call.Path != filepath.Dir(victim.StatePath) {
			one.unsynced[call.Path] = true
		}
	}
	return victim.Verdict{Errno: one.errno}
}

// checkError looks at the error of a step: it says what failed, and that it is not saved.
func (one *trial) checkError(step victim.Step, result victim.Result) error {
	if result.Error == "" {
		return nil
	}
	if one.failed == 0 && one.place == "" {
		return harness.Violated("%s failed, although nothing had: %s", step, result.Error)
	}
	if result.Matches("ErrSettled") {
		return nil // an answer that no saving changes; the ledger knows whether it is right
	}
	if !strings.Contains(result.Error, one.dir) {
		return harness.Violated("%s: the error names no path: %s", step, result.Error)
	}
	if !operation().MatchString(result.Error) {
		return harness.Violated("%s: the error does not say what was tried: %s", step, result.Error)
	}
	causes := map[string]syscall.Errno{
		"EIO": syscall.EIO, "ENOSPC": syscall.ENOSPC, "EDQUOT": syscall.EDQUOT, "EROFS": syscall.EROFS, "EACCES": syscall.EACCES,
		"EMFILE": syscall.EMFILE, "EBUSY": syscall.EBUSY, "EXDEV": syscall.EXDEV,
	}
	cause := false
	for name, errno := range causes {
		cause = cause || result.Matches(name) && (errno == one.errno || one.place != "")
	}
	if !cause {
		return harness.Violated("%s: the error does not match its cause: %s (%v)", step, result.Error, result.Is)
	}
	if !result.Matches("ErrNotSaved") && step.Do != victim.Clear && step.Do != victim.Open && step.Do != victim.Store {
		return harness.Violated("%s: the error does not match ErrNotSaved: %s (%v)", step, result.Error, result.Is)
	}
	return nil
}

// operation matches the operations that errors name.
func operation() *regexp.Regexp {
	return regexp.MustCompile(`\b(open|create|read|write|sync|link|rename|remove|lock|stat|close|set aside|use|resolve)\b`)
}

// recover lifts the fault, and has the victim do what it could not. Memory then says what a ledger says, which it
// returns.
func (one *trial) recover(p *victim.Process, could []*victim.Ledger, left []victim.Step) ([]*victim.Ledger, error) {
	if err := one.sound.lift(); err != nil {
		return nil, err
	}
	p.Trap.Judge(func(call victim.Call) victim.Verdict {
		one.lifted = true
		return one.judge(call)
	})
	must := func(step victim.Step) error {
		result, err := one.do(p, step)
		if err == nil && result.Error != "" {
			err = harness.Violated("nothing fails any more, but %s does: %s", step, result.Error)
		}
		if err == nil {
			could = victim.Also(could, step)
		}
		return err
	}
	open := true
	for i, step := range left {
		if i == 0 {
			open = false
			if err := one.checkFiles(p, 0); err != nil {
				return nil, err
			}
			if step.Do == victim.Close {
				break // a tracker is closed, if not in order
			}
		}
		if err := must(step); err != nil {
			return nil, err
		}
		open = open || step.Do == victim.Open
	}
	if last := one.plot.Attack[len(one.plot.Attack)-1].Do; len(left) == 0 && (last == victim.Clear || last == victim.Store || closes(one.plot.Attack)) {
		open = false
	}
	rest := []victim.Step{
		{Do: victim.Advance, For: 2 * time.Second},
		{Do: victim.Flush},
		{Do: victim.Record, Quotas: []string{"visitor"}, Requests: 3},
		{Do: victim.Flush},
	}
	if !open {
		rest = append([]victim.Step{{Do: victim.Open, At: victim.Latest(could), Lowered: could[0].Lowered}}, rest...)
	}
	for _, step := range rest {
		if err := must(step); err != nil {
			return nil, err
		}
	}
	result, err := one.do(p, victim.Step{Do: victim.Look, IDs: could[0].IDs()})
	if err != nil {
		return nil, err
	}
	if result.Error != "" {
		return nil, harness.Violated("looking at the state: %s", result.Error)
	}
	at := slices.IndexFunc(could, func(l *victim.Ledger) bool { return victim.Differs(*result.View, l.View) == "" })
	if at < 0 {
		return nil, harness.Violated("after all is well again, the tracker says:\n%s", victim.Differs(*result.View, could[len(could)-1].View))
	}
	right := could[at : at+1]
	const ofATracker = 3 // the directory, the lock file with the sign, the owner's lock
	if err := one.checkFiles(p, ofATracker); err != nil {
		return nil, err
	}
	if err := must(victim.Step{Do: victim.Close}); err != nil {
		return nil, err
	}
	return right, one.checkFiles(p, 0)
}

func closes(steps []victim.Step) bool {
	all := flat(steps)
	return all[len(all)-1].Do == victim.Close
}

// checkFiles counts the descriptors that the victim has on files of the state.
func (one *trial) checkFiles(p *victim.Process, most int) error {
	result, err := p.Do(victim.Step{Do: victim.Look})
	if err != nil {
		return err
	}
	if len(result.Files) > most+one.unclosed {
		return harness.Violated("it has %d files open, %d are needed: %s", len(result.Files), most, strings.Join(result.Files, ", "))
	}
	return nil
}
