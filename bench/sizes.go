package main

import (
	"errors"
	"fmt"
	"os"
	"time"

	"example.com/quota"
)

// measureSizes is row 14.
func (b *bench) measureSizes() ([]finding, error) {
	sizes := []int{10, 1000, 100_000}
	if b.quick {
		sizes = []int{10, 200}
	}
	var findings []finding
	for _, many := range sizes {
		lines, err := b.measureSize(many)
		if err != nil {
			return nil, fmt.Errorf("a state of %s quotas: %w", commas(many), err)
		}
		findings = append(findings, lines...)
	}
	return findings, nil
}

func (b *bench) measureSize(many int) ([]finding, error) {
	dir, err := b.scratch()
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(dir) }() // or with everything else
	names := keysOf("user:", many, b.seed)
	users := perUser(huge)
	// Saved together, or filling the state would take as many saves as there are quotas.
	filling, err := b.open(quota.Config{Persistence: quota.NewJSONFile(statePath(dir)), Quotas: []quota.Quota{users}, FlushInterval: time.Hour})
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		if err := filling.RecordUsage(b.ctx, name); err != nil {
			return nil, errors.Join(err, filling.Close())
		}
	}
	flushed := filling.Flush(b.ctx)
	closed := filling.Close()
	if errors.Is(flushed, quota.ErrNotSaved) && many > 1000 {
		b.say(14, "A state of %s quotas with one limit each was refused: %s. Half as many follow.", commas(many), withoutPaths(flushed, dir))
		return b.measureSize(many / 2)
	}
	if err := errors.Join(flushed, closed); err != nil {
		return nil, err
	}
	t, err := b.tracker(quota.NewJSONFile(statePath(dir)), users)
	if err != nil {
		return nil, err
	}
	defer b.shut(t)
	data, err := stateBytes(dir)
	if err != nil {
		return nil, err
	}
	cycle, err := newDiskCycle(dir, data)
	if err != nil {
		return nil, err
	}
	defer cycle.close()
	found, err := compare(b.durable(), usedBy(serial("save", func(n int) error {
		for range n {
			if err := t.RecordUsage(b.ctx, names[0]); err != nil {
				return err
			}
		}
		return nil
	}), t, names[0], requestsLimit, 1), serial("bare disk cycle of the same bytes", cycle.times))
	if err != nil {
		return nil, err
	}
	what := commas(many) + " quotas of one limit"
	return []finding{
		against(14, "save a state of "+what, found[0], found[1]),
		alone(14, "state file of "+what, bytesOf, []float64{float64(len(data))}),
	}, nil
}
