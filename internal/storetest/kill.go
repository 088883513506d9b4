package storetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
)

// killed lets the processes compete while one after the other is killed, and another takes its place.
func (f *fleet) killed(ctx context.Context) error {
	kills := f.moments(f.Kills)
	running := make([]*node, f.Processes)
	hear := func(w word) {
		f.hear(w)
		f.mu.Lock()
		defer f.mu.Unlock()
		if len(kills) == 0 || f.told.Granted < kills[0] {
			return
		}
		victim := running[f.random.IntN(len(running))]
		if victim == nil || victim.killed.Load() {
			return // another one, at the next word
		}
		kills = kills[1:]
		f.report.Kills++
		victim.killed.Store(true)
		victim.kill()
	}
	set := func(i int, n *node) {
		f.mu.Lock()
		defer f.mu.Unlock()
		running[i] = n
	}
	// One process after the other in each place, until one has been refused.
	run := func(i int) error {
		for {
			n, err := f.open(ctx, i, 0)
			if err != nil {
				return err
			}
			set(i, n)
			_, err = n.do(ctx, order{Do: "drain", Callers: f.Callers, Tell: true}, hear)
			if !errors.Is(err, errEnded) || !n.killed.Load() {
				set(i, nil)
				return err
			}
			n.end()
		}
	}
	if err := f.each(running, func(i int, _ *node) error { return run(i) }); err != nil {
		return err
	}
	if len(kills) > 0 {
		return fmt.Errorf("%d processes less were killed than planned: too little was acknowledged", len(kills))
	}
	return f.afterKills(ctx)
}

// afterKills compares what the killed processes have said with the books.
func (f *fleet) afterKills(ctx context.Context) error {
	status, _, err := f.inStore(ctx)
	if err != nil {
		return err
	}
	used, reserved := status.Limits[0].Used, status.Limits[0].Reserved
	unheard := int64(f.report.Kills * f.Callers) // calls whose callers were killed before they could say
	says := fmt.Sprintf("the books say %d used and %d reserved of %d; %d grants and %d commits were acknowledged, %d processes "+
		"of %d callers were killed", used, reserved, f.Requests, f.told.Granted, f.told.Committed, f.report.Kills, f.Callers)
	switch {
	case f.told.Granted > used+reserved:
		return fmt.Errorf("acknowledged grants are lost: %s", says)
	case f.told.Committed > used:
		return fmt.Errorf("acknowledged usage is lost: %s", says)
	case used+reserved != f.Requests:
		return fmt.Errorf("not what the quota admits: %s", says)
	case used+reserved > f.told.Granted+unheard, reserved > unheard:
		return fmt.Errorf("more is held than anybody has asked for: %s", says)
	}
	// Whoever is killed while it delivers has perhaps told; another tells again, a minute later.
	told := slices.Sorted(slices.Values(f.alerts))
	if each := slices.Compact(slices.Clone(told)); len(each) > 3 || len(told) > 3+f.report.Kills {
		return fmt.Errorf("there are three alerts, and these were told: %q", told)
	}
	return nil
}

// moments returns n counts of acknowledged grants, in order, at which something is to happen: early enough to happen before the
// quota is used up.
func (f *fleet) moments(n int) []int64 {
	list := make([]int64, n)
	for i := range list {
		list[i] = 1 + f.random.Int64N(f.Requests/2)
	}
	slices.Sort(list)
	return list
}
