package mutants

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"time"
)

// A fate is what became of a mutant.
type fate struct {
	killed bool
	how    string // "failed", "timed out", "survived" or "reached by no test"
	tests  int    // that reach it
	took   time.Duration
}

// The tests that reach a mutant run in stages, each in one process: those that are over in that time, together.
var stages = [...]time.Duration{200 * time.Millisecond, 1500 * time.Millisecond, time.Hour}

const quickStages = 2

// A stage that takes patience times as long as it should, and grace, hangs.
const (
	patience = 5
	grace    = 2 * time.Second
	atOnce   = 2
)

// hunt looks for a test that fails under each of the mutants with these numbers. Those that are known to survive are
// tried with the quick tests only, which is what most of the time would go into.
func (b *bench) hunt(ctx context.Context, program string, tests []test, ids []int, known func(int) bool, done func(int, fate)) error {
	reaching := make(map[int][]*test)
	for i := range tests {
		for _, id := range tests[i].reaches {
			reaching[id] = append(reaching[id], &tests[i]) // the quickest first, as tests are
		}
	}
	next := make(chan int)
	var workers sync.WaitGroup
	var mu sync.Mutex
	var wrong error
	for range atOnce {
		workers.Go(func() {
			runtime.LockOSThread() // what it starts ends with the thread
			for id := range next {
				in := stages[:]
				if known(id) {
					in = in[:quickStages]
				}
				fate, err := b.try(ctx, program, id, reaching[id], in)
				if err == nil && fate.killed && known(id) { // once may be chance: it is what others rely on
					fate, err = b.try(ctx, program, id, reaching[id], in)
				}
				mu.Lock()
				if err != nil {
					wrong = err
				} else {
					done(id, fate)
				}
				mu.Unlock()
			}
		})
	}
	for _, id := range ids {
		if ctx.Err() != nil {
			break
		}
		next <- id
	}
	close(next)
	workers.Wait()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return wrong
}

// try runs the tests that reach a mutant until one fails.
func (b *bench) try(ctx context.Context, program string, id int, reaching []*test, stages []time.Duration) (fate, error) {
	if len(reaching) == 0 {
		return fate{how: "reached by no test"}, nil
	}
	began := time.Now()
	rest := reaching
	for _, most := range stages {
		var names []string
		total := time.Duration(0)
		for len(rest) > 0 && total+rest[0].takes <= most {
			names = append(names, rest[0].name)
			total += rest[0].takes
			rest = rest[1:]
		}
		if len(names) == 0 {
			continue
		}
		end, said := b.run(ctx, program, names, patience*total+grace, "QUOTA_MUTANT="+strconv.Itoa(id))
		how := "failed"
		switch end {
		case passed:
			continue
		case stopped:
			return fate{}, fmt.Errorf("running the tests: %s", said)
		case timedOut:
			how = "timed out"
		}
		return fate{true, how, len(reaching), time.Since(began)}, nil
	}
	return fate{false, "survived", len(reaching), time.Since(began)}, nil
}

// choose picks so many of the mutants, spread over all of them.
func choose(mutants, cases int, shuffled func(n int, swap func(i, j int))) []int {
	ids := make([]int, mutants)
	for i := range ids {
		ids[i] = i + 1
	}
	if cases < 0 || cases >= mutants {
		return ids
	}
	shuffled(len(ids), func(i, j int) { ids[i], ids[j] = ids[j], ids[i] })
	ids = ids[:cases]
	slices.Sort(ids)
	return ids
}
