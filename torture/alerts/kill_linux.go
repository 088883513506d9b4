//go:build amd64 || arm64

package alerts

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"example.com/quota/torture/harness"
	"example.com/quota/torture/victim"
)

// never is a call that is not reached.
const never = -1

func workers() map[string]func([]string) error {
	return map[string]func([]string) error{crossName: cross, victim.WorkerName: victim.Worker}
}

// crossings crosses every threshold in two calls: after 40 of 100, past 50 and 80, then past 90.
func crossings(sharing string) *victim.Plot {
	open := victim.Step{Do: victim.Open, At: noon(), Plain: sharing == "alone"}
	record := func(n int64) victim.Step {
		return victim.Step{Do: victim.Record, Quotas: []string{callsName}, Requests: n}
	}
	return &victim.Plot{
		Name:   sharing,
		Before: []victim.Step{open, record(40), {Do: victim.Close}},
		Setup:  []victim.Step{open},
		Attack: []victim.Step{record(45), record(8), {Do: victim.Close}},
	}
}

// kills are trials in which a victim dies at one of its calls, for every call that it makes while it crosses thresholds.
func kills(ctx context.Context, scratch string) ([]trial, error) {
	var trials []trial
	for _, sharing := range []string{"alone", "shared"} {
		plot := crossings(sharing)
		if err := plot.Prepare(ctx, scratch); err != nil {
			return nil, err
		}
		calls, err := killed(ctx, plot, filepath.Join(scratch, "points-"+sharing), never)
		if err != nil {
			return nil, err
		}
		for at := range calls {
			trials = append(trials, func(dir string, _ int) error {
				// How many calls share a save is up to the scheduler: now and then there is one call less.
				const attempts = 20
				for range attempts {
					made, err := killed(ctx, plot, dir, at)
					if err != nil || len(made) == at+1 {
						return err
					}
				}
				return fmt.Errorf("%s: call %d of %d, %s, was not reached again", sharing, at+1, len(calls), calls[at])
			})
		}
	}
	return trials, nil
}

// killed has a victim die at one call and looks at what is told by it and after it. It returns the calls that were seen.
func killed(ctx context.Context, plot *victim.Plot, dir string, at int) ([]victim.Call, error) {
	p, err := plot.Begin(ctx, dir, nil)
	if err != nil {
		return nil, err
	}
	defer p.Kill()
	var calls []victim.Call
	p.Trap.Judge(func(call victim.Call) victim.Verdict {
		if !call.Changes {
			return victim.Verdict{}
		}
		calls = append(calls, call)
		return victim.Verdict{Kill: len(calls) == at+1}
	})
	for _, step := range plot.Attack {
		err := p.Must(step)
		if errors.Is(err, victim.ErrDied) {
			break
		}
		if err != nil {
			return nil, err
		}
	}
	p.Kill()
	made := calls
	if len(calls) == at+1 {
		made = calls[:at]
	}
	told, marked, err := heard(made)
	if err != nil {
		return nil, err
	}
	if err := afterwards(ctx, filepath.Join(dir, victim.StatePath), told, marked); err != nil {
		return nil, harness.Violated("%s, killed after %v, having told %v: %v", plot.Name, made, told, err)
	}
	return calls, os.RemoveAll(dir)
}

// heard tells which alerts a victim has told, and after which of them the state was replaced: that saves that they were.
func heard(made []victim.Call) (told []entry, marked map[string]bool, err error) {
	marked = map[string]bool{}
	for _, call := range made {
		if call.To == victim.StatePath && strings.HasPrefix(call.Name, "rename") {
			for _, one := range told {
				marked[one.id] = true
			}
		}
		if call.Path != victim.Ack {
			continue
		}
		var said victim.Result
		if err := json.Unmarshal([]byte(call.Said), &said); err != nil {
			return nil, nil, fmt.Errorf("the victim said %q: %w", call.Said, err)
		}
		if said.Alert == "" {
			continue
		}
		one, err := entryOf(said.Alert)
		if err != nil {
			return nil, nil, err
		}
		told = append(told, one)
	}
	return told, marked, nil
}

// entryOf reads a victim's word of an alert: which crossing, and its ID.
func entryOf(text string) (entry, error) {
	key, id, _ := strings.Cut(text, " | ")
	key = key[strings.LastIndexByte(key, '/')+1:]
	percent, _, _ := strings.Cut(key, "@")
	threshold, err := strconv.Atoi(percent)
	if err != nil || id == "" {
		return entry{}, fmt.Errorf("nobody understands the alert %q", text)
	}
	return entry{threshold, id}, nil
}
