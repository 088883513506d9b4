package storetest

import (
	"context"
	"fmt"
	"slices"
)

// inPeace lets the processes compete until the quota is used up.
func (f *fleet) inPeace(ctx context.Context) error {
	nodes, err := f.openAll(ctx)
	if err != nil {
		return err
	}
	if f.report.Shares, err = f.drain(ctx, nodes); err != nil {
		return err
	}
	if err := f.closeAll(ctx, nodes); err != nil {
		return err
	}
	if f.heard.Granted != f.Requests {
		return fmt.Errorf("%d were granted of a quota of %d", f.heard.Granted, f.Requests)
	}
	if err := f.expect(ctx, f.Requests, 0); err != nil {
		return err
	}
	if err := f.toldOnce(); err != nil {
		return err
	}
	fair := f.Requests / int64(f.Processes)
	if least := slices.Min(f.report.Shares); least < fair/3 {
		return fmt.Errorf("a process was granted %d, less than a third of its fair share of %d: %d", least, fair, f.report.Shares)
	}
	return nil
}
