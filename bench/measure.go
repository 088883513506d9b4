package main

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"math"
	"runtime"
	"slices"
	"sync"
	"time"
)

// A side is one of those measured against each other on the same work.
type side struct {
	name string
	// run does the work for about budget, or once if that is longer, and says what came of it.
	run func(budget time.Duration) (effort, error)
	// before is called ahead of each run, outside its time. Nil: nothing.
	before func()
	// check fails if what was measured did not happen; ops is what the run says it has done. Nil: run checks by itself.
	check func(ops int) error
}

// An effort is what one run of a side came to.
type effort struct {
	ops     int
	elapsed time.Duration
	figures map[string]float64 // whatever else there was to see; several runs of a round count as their mean
}

// A series is what the rounds found of one side.
type series struct {
	name    string
	perOp   []float64 // nanoseconds, by round
	ops     int       // of all rounds
	figures map[string][]float64
}

// A pace says how long and how often the sides run.
type pace struct {
	rounds int
	time   time.Duration // of each side in each round
	slices int           // how often the sides take turns within a round, at least once
}

// compare lets the sides take turns, in an order that rotates, and returns a series for each.
func compare(p pace, sides ...side) ([]series, error) {
	found := make([]series, len(sides))
	for i, s := range sides {
		found[i] = series{name: s.name, figures: map[string][]float64{}}
		// What is used for the first time belongs to nobody's time.
		if _, err := s.measure(p.time / 8); err != nil {
			return nil, err
		}
	}
	runtime.GC() // what earlier rows have left is not to be swept here
	turns := max(1, p.slices)
	for round := range p.rounds {
		totals := make([]effort, len(sides))
		for turn := range turns {
			for k := range sides {
				i := (k + round + turn) % len(sides)
				one, err := sides[i].measure(p.time / time.Duration(turns))
				if err != nil {
					return nil, err
				}
				totals[i].add(one, turns)
			}
		}
		for i, total := range totals {
			found[i].add(total)
		}
	}
	return found, nil
}

func (s side) measure(budget time.Duration) (effort, error) {
	if s.before != nil {
		s.before()
	}
	done, err := s.run(budget)
	if err == nil && done.ops == 0 {
		err = errors.New("nothing was done")
	}
	if err == nil && s.check != nil {
		err = s.check(done.ops)
	}
	if err != nil {
		return done, fmt.Errorf("%s: %w", s.name, err)
	}
	return done, nil
}

func (e *effort) add(one effort, turns int) {
	e.ops += one.ops
	e.elapsed += one.elapsed
	for name, value := range one.figures {
		if e.figures == nil {
			e.figures = map[string]float64{}
		}
		e.figures[name] += value / float64(turns)
	}
}

func (s *series) add(total effort) {
	s.ops += total.ops
	s.perOp = append(s.perOp, float64(total.elapsed)/float64(total.ops))
	for _, name := range slices.Sorted(maps.Keys(total.figures)) {
		s.figures[name] = append(s.figures[name], total.figures[name])
	}
}

// perSecond turns nanoseconds per operation into operations per second.
func (s series) perSecond() []float64 {
	rates := make([]float64, len(s.perOp))
	for i, ns := range s.perOp {
		rates[i] = 1e9 / ns
	}
	return rates
}

// serial is a side of one goroutine. batch does n operations and fails if one of them did not do what it should.
func serial(name string, batch func(n int) error) side {
	return side{name: name, run: func(budget time.Duration) (effort, error) {
		start := time.Now()
		ops, err := repeat(start, budget, batch)
		return effort{ops: ops, elapsed: time.Since(start)}, err
	}}
}

// parallel is a side of several goroutines, each with its own number. Its time per operation is the time that passed
// over the operations of all of them.
func parallel(name string, workers int, batch func(worker, n int) error) side {
	return side{name: name, run: func(budget time.Duration) (effort, error) {
		ops, errs := make([]int, workers), make([]error, workers)
		var group sync.WaitGroup
		start := time.Now()
		for worker := range workers {
			group.Go(func() {
				ops[worker], errs[worker] = repeat(start, budget, func(n int) error { return batch(worker, n) })
			})
		}
		group.Wait()
		elapsed := time.Since(start)
		total := 0
		for _, n := range ops {
			total += n
		}
		return effort{ops: total, elapsed: elapsed}, errors.Join(errs...)
	}}
}

// repeat runs batches until budget has passed since start, at least one. They grow until the clock that is read after
// each takes no part worth mentioning.
func repeat(start time.Time, budget time.Duration, batch func(n int) error) (ops int, err error) {
	const largest = 4096
	n, last := 1, time.Duration(0)
	for {
		if err := batch(n); err != nil {
			return ops, err
		}
		ops += n
		passed := time.Since(start)
		if passed >= budget {
			return ops, nil
		}
		if n < largest && passed-last < min(budget/32, time.Millisecond) {
			n *= 2
		}
		last = passed
	}
}

// A stat is a median and what lies around it.
type stat struct{ median, low, high float64 }

func (s stat) none() bool { return s == stat{} }

// summarize returns the median of values with the least and the greatest of them.
func summarize(values []float64) stat {
	if len(values) == 0 {
		return stat{}
	}
	sorted := slices.Sorted(slices.Values(values))
	middle := len(sorted) / 2
	median := sorted[middle]
	if len(sorted)%2 == 0 {
		median = (sorted[middle-1] + sorted[middle]) / 2
	}
	return stat{median, sorted[0], sorted[len(sorted)-1]}
}

// ratio is that of the medians; around it lie the ratios of the single rounds.
func ratio(ours, theirs []float64) stat {
	each := make([]float64, 0, len(ours))
	for i := range min(len(ours), len(theirs)) {
		each = append(each, ours[i]/theirs[i])
	}
	found := summarize(each)
	found.median = summarize(ours).median / summarize(theirs).median
	return found
}

// percentile returns the value that a share of the values does not pass.
func percentile[T cmp.Ordered](values []T, share float64) T {
	sorted := slices.Sorted(slices.Values(values))
	at := int(math.Ceil(share*float64(len(sorted)))) - 1
	return sorted[max(0, min(at, len(sorted)-1))]
}
