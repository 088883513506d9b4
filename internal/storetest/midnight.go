package storetest

import (
	"context"
	"fmt"
	"time"

	"example.com/quota"
)

const (
	day          = 24 * time.Hour
	apart        = 5 * time.Second // half of what the clocks of two processes differ by
	beforeTurn   = 3 * time.Second
	afterTurn    = 1 * time.Second
	requestsADay = 200
)

// overMidnight lets the processes compete while the day of the store's clock ends. Their own clocks are ten seconds apart:
// of half of them it is past midnight all the time, of the others before it.
func (f *fleet) overMidnight(ctx context.Context) error {
	f.days, f.Requests = true, requestsADay
	midnight := time.Now().UTC().Truncate(day).Add(3 * day)
	f.ahead = time.Until(midnight.Add(-day / 2))
	nodes := make([]*node, f.Processes)
	if err := f.each(nodes, func(i int, _ *node) (err error) {
		nodes[i], err = f.open(ctx, i, apart-time.Duration(i%2)*2*apart)
		return err
	}); err != nil {
		return err
	}
	f.ahead = time.Until(midnight.Add(-beforeTurn))
	f.report.Shares = make([]int64, len(nodes))
	if err := f.each(nodes, func(i int, n *node) error {
		last, err := n.do(ctx, order{
			Do: "drain", Callers: f.Callers, Ahead: f.ahead, Until: time.Until(midnight) - f.ahead + afterTurn, Turn: midnight,
		}, f.hear)
		f.report.Shares[i] = last.Granted
		f.add(last.tally)
		return err
	}); err != nil {
		return err
	}
	if err := f.closeAll(ctx, nodes); err != nil {
		return err
	}
	status, past, err := f.inStore(ctx)
	if err != nil {
		return err
	}
	today, yesterday := status.Today.Used[quota.UnitRequests], int64(0)
	for _, old := range past {
		if !old.Day.Equal(midnight.Add(-day)) {
			return fmt.Errorf("requests were counted on the day of %v, of the store's clock it was not", old.Day)
		}
		yesterday += old.Used[quota.UnitRequests]
	}
	says := fmt.Sprintf("%d requests a day; %d were granted, %d of them before the store's midnight, and the books say %d and then %d",
		f.Requests, f.seen.Granted, f.seen.Early, yesterday, today)
	switch {
	case !status.Today.Day.Equal(midnight):
		return fmt.Errorf("the day after the store's midnight is that of %v", status.Today.Day)
	case f.seen.Granted != f.seen.Committed || f.seen.Granted != yesterday+today:
		return fmt.Errorf("the books do not say what was granted: %s", says)
	case yesterday > f.Requests || today > f.Requests || f.seen.Early > f.Requests:
		return fmt.Errorf("over-admitted: no process's clock may decide the day: %s", says)
	case yesterday == 0:
		return fmt.Errorf("nothing was counted before the store's midnight: no process's clock may decide the day: %s", says)
	case today != f.Requests || status.Limits[0].Used != today || status.Limits[0].Reserved != 0:
		return fmt.Errorf("the day after the store's midnight was not used up: %s", says)
	}
	return nil
}
