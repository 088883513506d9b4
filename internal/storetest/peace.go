package storetest

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"example.com/quota"
)

// inPeace lets the processes compete until the quota is used up.
func (f *fleet) inPeace(ctx context.Context) error {
	nodes, err := f.openAll(ctx)
	if err != nil {
		return err
	}
	if f.report.Shares, err = f.drain(ctx, nodes, false); err != nil {
		return err
	}
	if err := f.usedUp(ctx, nodes); err != nil {
		return err
	}
	fair := f.Requests / int64(f.Processes)
	if least := slices.Min(f.report.Shares); least < fair/3 && f.Requests >= manyRequests {
		return fmt.Errorf("a process was granted %d, less than a third of its fair share of %d: %d", least, fair, f.report.Shares)
	}
	return nil
}

// manyRequests are enough to tell what is fair: of fewer, a process gets less that begins a moment later.
const manyRequests = 10_000

// usedUp closes the trackers and makes sure that exactly as much was granted as the quota admits, and committed, and that
// its alerts were told once.
func (f *fleet) usedUp(ctx context.Context, nodes []*node) error {
	if err := f.closeAll(ctx, nodes); err != nil {
		return err
	}
	if f.seen.Granted != f.Requests || f.seen.Committed != f.Requests {
		return fmt.Errorf("%d were granted and %d committed of a quota of %d", f.seen.Granted, f.seen.Committed, f.Requests)
	}
	if err := f.expect(ctx, f.Requests, 0); err != nil {
		return err
	}
	return f.toldOnce()
}

// handedOver has one process commit what another has reserved, by its ID: the caller's, and one that was made up.
func (f *fleet) handedOver(ctx context.Context) error {
	f.Requests = 100
	var nodes [2]*node
	for i := range nodes {
		var err error
		if nodes[i], err = f.open(ctx, i, 0); err != nil {
			return err
		}
	}
	used := int64(0)
	for i, id := range []string{"job 1", "", "job 2", ""} {
		holder, other := nodes[i%2], nodes[1-i%2]
		const held, actual = 10, 7
		hold, err := holder.do(ctx, order{Do: "hold", ID: id, N: held}, nil)
		if err != nil {
			return err
		}
		if err := f.expect(ctx, used, held); err != nil {
			return fmt.Errorf("a hold of one process: %w", err)
		}
		commit := order{Do: "commit", ID: hold.ID, N: actual}
		if _, err := other.do(ctx, commit, nil); err != nil {
			return fmt.Errorf("a hold of another process: %w", err)
		}
		used += actual
		if err := f.expect(ctx, used, 0); err != nil {
			return fmt.Errorf("a hold that another process has committed: %w", err)
		}
		if _, err := holder.do(ctx, commit, nil); err == nil || !strings.Contains(err.Error(), quota.ErrNoReservation.Error()) {
			return fmt.Errorf("a hold that another process has committed can be committed again: %w", err)
		}
	}
	return f.closeAll(ctx, nodes[:])
}
