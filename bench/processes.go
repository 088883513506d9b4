package main

import (
	"fmt"
	"time"

	"example.com/quota"
)

// callAsChild is what a process of row 10 does: its callers record on the shared file for as long as it is told.
func callAsChild(o order) (done answer, err error) {
	b := &bench{ctx: background()}
	t, err := b.tracker(quota.NewJSONFile(o.Path), accounts()...)
	if err != nil {
		return done, err
	}
	defer b.shut(t)
	if err := t.RecordUsage(b.ctx, account, quota.Tokens(0)); err != nil {
		return done, err
	}
	if err := awaitStart(); err != nil {
		return done, err
	}
	effort, err := parallel("callers", o.Callers, b.record(t)).run(o.Time)
	return answer{Ops: effort.ops, Elapsed: effort.elapsed}, err
}

// measureProcesses is row 10.
func (b *bench) measureProcesses() ([]finding, error) {
	dir, err := b.scratch()
	if err != nil {
		return nil, err
	}
	if _, err := b.fileWithHistory(dir); err != nil {
		return nil, err
	}
	p := b.durable()
	least := make([]float64, 0, p.rounds)
	crowd := func(name string, processes, callers int) side {
		s := side{name: name, run: func(budget time.Duration) (effort, error) {
			orders := make([]order, processes)
			for i := range orders {
				orders[i] = order{Kind: "callers", Path: statePath(dir), Callers: callers, Time: budget}
			}
			answers, err := together(b.ctx, nil, orders...)
			if err != nil {
				return effort{}, err
			}
			total, smallest := effort{}, 1.0
			for _, one := range answers {
				total.ops += one.Ops
				total.elapsed = max(total.elapsed, one.Elapsed)
			}
			for _, one := range answers {
				smallest = min(smallest, float64(one.Ops)/float64(total.ops))
			}
			total.figures = map[string]float64{"smaller share": smallest}
			return total, nil
		}}
		// Each process also counts one call before the start, which is not among its operations.
		last := int64(0)
		s.before = func() { last, err = b.tokensInFile(dir) }
		s.check = func(ops int) error {
			now, readErr := b.tokensInFile(dir)
			if err != nil || readErr != nil {
				return fmt.Errorf("reading the state: %w %w", err, readErr)
			}
			if now-last != int64(7*ops) {
				return fmt.Errorf("%d calls acknowledged, but the file counts %d tokens more", ops, now-last)
			}
			return nil
		}
		return s
	}
	p.slices = 1 // starting processes costs more than a slice
	found, err := compare(p, crowd("2 processes", 2, 32), crowd("1 process x 64", 1, 64))
	if err != nil {
		return nil, err
	}
	least = append(least, found[0].figures["smaller share"]...)
	return []finding{
		rates(10, "durable RecordUsage, 2 processes x 32 callers on one file", found[0], found[1]).want(atLeast(0.4)),
		alone(10, "share of the slower of the two processes", plain, least).want(atLeast(1.0 / 3)),
	}, nil
}

// tokensInFile is what anybody who opens the state finds.
func (b *bench) tokensInFile(dir string) (int64, error) {
	t, err := b.tracker(quota.NewJSONFile(statePath(dir)), accounts()...)
	if err != nil {
		return 0, err
	}
	tokens, err := used(t, account, tokensLimit)
	if closed := t.Close(); err == nil {
		err = closed
	}
	return tokens, err
}
