package main

import (
	"encoding/csv"
	"errors"
	"fmt"
	"os"
	"strconv"
	"sync/atomic"
	"time"

	"example.com/quota"
)

// A request is one line of the trace.
type request struct{ input, output int64 }

// readTrace reads TIMESTAMP,ContextTokens,GeneratedTokens.
func readTrace(path string) ([]request, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	records, err := csv.NewReader(file).ReadAll()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if len(records) < 2 || len(records[0]) != 3 {
		return nil, fmt.Errorf("%s is no trace: its lines are TIMESTAMP,ContextTokens,GeneratedTokens", path)
	}
	var requests []request
	for _, record := range records[1:] {
		input, inputErr := strconv.ParseInt(record[1], 10, 64)
		output, outputErr := strconv.ParseInt(record[2], 10, 64)
		if err := errors.Join(inputErr, outputErr); err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		requests = append(requests, request{input, output})
	}
	return requests, nil
}

func (r request) tokens() int64 { return r.input + r.output }

// estimatedOutput is what a router sets aside for an answer it does not know yet.
const estimatedOutput = 512

// measureTraffic is row 13.
func (b *bench) measureTraffic() ([]finding, error) {
	if _, err := os.Stat(b.trace); err != nil {
		b.say(13, "Left out: there is no trace of real traffic at the path that -trace names.")
		return nil, nil
	}
	requests, err := readTrace(b.trace)
	if err != nil {
		return nil, err
	}
	if b.quick {
		requests = requests[:min(len(requests), 200)]
	}
	var tokens int64
	for _, r := range requests {
		tokens += r.tokens()
	}
	var findings []finding
	for _, kind := range []struct {
		work    string
		callers int
		durable bool
		most    int64 // tokens
	}{
		{"in memory, 1 caller", 1, false, huge},
		{"in memory, 64 callers", 64, false, huge},
		{"in memory, 1 caller, a limit of half its tokens", 1, false, tokens / 2},
		{"durable, 64 callers", 64, true, huge},
	} {
		s, closeAll, err := b.replay(kind.work, requests, kind.callers, kind.durable, kind.most)
		if err != nil {
			return nil, err
		}
		p := b.pace
		p.time = 0 // the hour, once
		found, err := compare(p, s)
		if err := errors.Join(err, closeAll()); err != nil {
			return nil, err
		}
		findings = append(findings, alone(13, commas(len(requests))+" real calls, Reserve + Commit, "+kind.work, perSecond, found[0].perSecond()))
	}
	return findings, nil
}

// replay is a side that sends the whole trace through a tracker once, on a name of its own each time.
func (b *bench) replay(work string, requests []request, callers int, durable bool, most int64) (s side, closeAll func() error, err error) {
	store := quota.InMemory()
	if durable {
		dir, err := b.scratch()
		if err != nil {
			return s, nil, err
		}
		store = quota.NewJSONFile(statePath(dir))
	}
	limits := threeLimits(huge)
	limits[tokensLimit].Max = most
	t, err := b.tracker(store, quota.Quota{Name: "run:*", Limits: limits})
	if err != nil {
		return s, nil, err
	}
	run := 0
	return side{name: work, run: func(time.Duration) (effort, error) {
		run++
		name := "run:" + strconv.Itoa(run)
		var next, spent, refused atomic.Int64
		call := func(_, _ int) error {
			for {
				i := int(next.Add(1)) - 1
				if i >= len(requests) {
					return nil
				}
				r := requests[i]
				held, err := t.Reserve(b.ctx, name, quota.InputTokens(r.input), quota.OutputTokens(estimatedOutput))
				if errors.Is(err, quota.ErrExceeded) {
					refused.Add(1)
					continue
				}
				if err == nil {
					err = held.Commit(b.ctx, quota.InputTokens(r.input), quota.OutputTokens(r.output))
				}
				if err != nil {
					return err
				}
				spent.Add(r.tokens())
			}
		}
		done, err := parallel(work, callers, call).run(0)
		if err != nil {
			return effort{}, err
		}
		done.ops = len(requests)
		counts, err := used(t, name, tokensLimit)
		switch {
		case err != nil:
			return effort{}, err
		case counts != spent.Load():
			return effort{}, fmt.Errorf("%d tokens spent, but the tracker counts %d", spent.Load(), counts)
		case most == huge && refused.Load() > 0:
			return effort{}, errDenied
		case most != huge && refused.Load() == 0:
			return effort{}, errAdmitted
		}
		return done, nil
	}}, t.Close, nil
}
