package main

import (
	"fmt"
	"runtime"
	"time"

	"golang.org/x/time/rate"

	"example.com/quota"
)

// measureCores is row 6: the same two goroutines on one processor and on two.
func (b *bench) measureCores() ([]finding, error) {
	if runtime.NumCPU() < 2 {
		b.say(6, "Left out: this machine has one core.")
		return nil, nil
	}
	const workers = 2
	names := []string{"first", "second"}
	t, err := b.tracker(quota.InMemory(), quota.Quota{Name: names[0], Limits: threeLimits(huge)},
		quota.Quota{Name: names[1], Limits: threeLimits(huge)})
	if err != nil {
		return nil, err
	}
	defer b.shut(t)
	was := runtime.GOMAXPROCS(0)
	defer runtime.GOMAXPROCS(was)
	on := func(processors int, s side) side {
		s.before = func() { runtime.GOMAXPROCS(processors) }
		s.name = fmt.Sprintf("%s, GOMAXPROCS %d", s.name, processors)
		return s
	}
	limiters := []*rate.Limiter{freeRate(), freeRate()}
	sums := make([]place, workers)
	kinds := []struct {
		work string
		goal *bound
		side side
	}{
		{"Reserve + Commit, distinct quotas", atLeast(1.7), counted(
			parallel("itself", workers, func(worker, n int) error { return b.reserveAndCommit(t, names[worker])(worker, n) }),
			"usage", 4, func() (int64, error) {
				first, err := used(t, names[0], tokensLimit)
				if err != nil {
					return 0, err
				}
				second, err := used(t, names[1], tokensLimit)
				return first + second, err
			})},
		{"for comparison: x/time/rate Reserve + Cancel, distinct limiters", nil,
			parallel("itself", workers, func(worker, n int) error { return reserveAndCancel(limiters[worker])(worker, n) })},
		{"for comparison: arithmetic that shares nothing", nil,
			parallel("itself", workers, func(worker, n int) error {
				sum := uint64(sums[worker].next)
				for range n * 100 {
					sum = sum*6364136223846793005 + 1442695040888963407
				}
				sums[worker].next = int(sum)
				return nil
			})},
	}
	var findings []finding
	for _, kind := range kinds {
		one, two := on(1, kind.side), on(2, kind.side)
		if kind.side.before != nil {
			one.before = func() { runtime.GOMAXPROCS(1); kind.side.before() }
			two.before = func() { runtime.GOMAXPROCS(2); kind.side.before() }
		}
		found, err := compare(b.pace, two, one)
		if err != nil {
			return nil, err
		}
		findings = append(findings, rates(6, kind.work+", GOMAXPROCS 1 to 2", found[0], found[1]).want(kind.goal))
	}
	return findings, nil
}

// measureLazy is row 11.
func (b *bench) measureLazy() ([]finding, error) {
	const workers = 64
	dir, err := b.scratch()
	if err != nil {
		return nil, err
	}
	file, err := b.fileWithHistory(dir)
	if err != nil {
		return nil, err
	}
	lazy, err := b.open(quota.Config{Persistence: file, Quotas: accounts(), FlushInterval: 100 * time.Millisecond})
	if err != nil {
		return nil, err
	}
	defer b.shut(lazy)
	forgetful, err := b.tracker(quota.InMemory(), accounts()...)
	if err != nil {
		return nil, err
	}
	defer b.shut(forgetful)
	p := b.pace
	p.time = max(p.time, b.fully(500*time.Millisecond)) // several flushes in each run
	found, err := compare(p,
		usedBy(parallel("FlushInterval", workers, b.record(lazy)), lazy, account, tokensLimit, 7),
		usedBy(parallel("in memory", workers, b.record(forgetful)), forgetful, account, tokensLimit, 7))
	if err != nil {
		return nil, err
	}
	return []finding{against(11, "RecordUsage, FlushInterval 100 ms, 64 callers", found[0], found[1]).want(atMost(1.3))}, nil
}
