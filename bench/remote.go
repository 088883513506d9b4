package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"example.com/quota"
)

// A wire counts the round trips of the connections that are made through it: how often something was sent and then
// answered.
type wire struct {
	dialer net.Dialer
	trips  atomic.Int64
}

func (w *wire) dial(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := w.dialer.DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return &wireConn{Conn: conn, wire: w}, nil
}

type wireConn struct {
	net.Conn
	wire *wire
	sent atomic.Bool
}

func (c *wireConn) Write(data []byte) (int, error) {
	c.sent.Store(true)
	return c.Conn.Write(data)
}

func (c *wireConn) Read(data []byte) (int, error) {
	n, err := c.Conn.Read(data)
	if n > 0 && c.sent.Swap(false) {
		c.wire.trips.Add(1)
	}
	return n, err
}

// SyscallConn is that of the connection, which clients look at to see whether it still stands.
func (c *wireConn) SyscallConn() (syscall.RawConn, error) {
	if raw, ok := c.Conn.(syscall.Conn); ok {
		return raw.SyscallConn()
	}
	return nil, errors.ErrUnsupported
}

// A step is one call of a worker: one decision.
type step func(worker int) error

// reserveThenCommit are the two decisions of a call: to hold what the limits estimate, and to settle it as a little less.
func reserveThenCommit(ctx context.Context, t *quota.QuotaTracker, workers int) []step {
	open := make([]*quota.Reservation, workers)
	return []step{
		func(worker int) (err error) {
			open[worker], err = t.Reserve(ctx, account, quota.Tokens(5))
			return err
		},
		func(worker int) error { return open[worker].Commit(ctx, quota.Tokens(4)) },
	}
}

// tokensPerDecision is what each of these has used on average.
const tokensPerDecision = 2

// refusedBy reserves from a quota that is used up.
func refusedBy(ctx context.Context, t *quota.QuotaTracker, name string) step {
	return func(int) error {
		_, err := t.Reserve(ctx, name, quota.Tokens(1))
		var refused *quota.ExceededError
		switch {
		case err == nil:
			return errAdmitted
		case errors.As(err, &refused) && refused.Quota == name:
			return nil
		}
		return err
	}
}

// The figures of decisions.
const (
	opsInTime        = "decisions within the budget"
	medianCall       = "median of a call"
	tailCall         = "99th percentile of a call"
	tripsPerDecision = "round trips per decision"
)

// decide lets workers repeat their steps, one after the other, and returns how long each took. A worker ends after its
// last step, when budget has passed.
func decide(budget time.Duration, workers int, steps ...step) (effort, []time.Duration, error) {
	times, errs, late := make([][]time.Duration, workers), make([]error, workers), make([]int, workers)
	var group sync.WaitGroup
	start := time.Now()
	for worker := range workers {
		group.Go(func() {
			for at := start; errs[worker] == nil && (len(times[worker]) == 0 || at.Sub(start) < budget); {
				for _, one := range steps {
					if errs[worker] = one(worker); errs[worker] != nil {
						return
					}
					now := time.Now()
					times[worker] = append(times[worker], now.Sub(at))
					if at = now; at.Sub(start) > budget {
						late[worker]++
					}
				}
			}
		})
	}
	group.Wait()
	elapsed := time.Since(start)
	all, inTime := slices.Concat(times...), 0
	for worker := range workers {
		inTime += len(times[worker]) - late[worker]
	}
	if inTime == 0 { // as when everything is to run for a moment
		inTime = len(all)
	}
	return effort{ops: len(all), elapsed: elapsed, figures: map[string]float64{opsInTime: float64(inTime)}}, all, errors.Join(errs...)
}

// deciding is a side of workers that ask a server over a wire.
func deciding(name string, w *wire, workers int, steps ...step) side {
	return side{name: name, run: func(budget time.Duration) (effort, error) {
		before := w.trips.Load()
		done, times, err := decide(budget, workers, steps...)
		if err != nil {
			return done, err
		}
		done.figures = figuresOf(times, w.trips.Load()-before)
		return done, nil
	}}
}

func figuresOf(times []time.Duration, trips int64) map[string]float64 {
	return map[string]float64{
		medianCall:       float64(percentile(times, 0.5)),
		tailCall:         float64(percentile(times, 0.99)),
		tripsPerDecision: float64(trips) / float64(len(times)),
	}
}

// aside are the lines beside a ratio: how long a call took, and what it cost.
func aside(row int, work string, ours, theirs series) []finding {
	var lines []finding
	for _, figure := range []struct {
		name string
		unit unit
	}{{medianCall, nanoseconds}, {tailCall, nanoseconds}, {tripsPerDecision, plain}} {
		us, them := ours.figures[figure.name], theirs.figures[figure.name]
		lines = append(lines, finding{row: row, work: figure.name + ", " + work, peer: theirs.name, unit: figure.unit,
			ours: summarize(us), theirs: summarize(them), ratio: ratio(us, them)})
	}
	return lines
}

// saveHistory gives a store that is empty a book with 90 finished days. They stand in the book, as a tracker leaves them in
// a store that several share.
func (b *bench) saveHistory(store quota.Persistence) error {
	days, err := json.Marshal(ninetyDays())
	if err != nil {
		return err
	}
	book := new(quota.Book)
	yesterday := time.Now().UTC().AddDate(0, 0, -1).Format(time.RFC3339)
	if err := json.Unmarshal(fmt.Appendf(nil, `{"clock":%q,"finished":%s}`, yesterday, days), book); err != nil {
		return err
	}
	if _, err := store.Load(b.ctx); err != nil {
		return err
	}
	return store.Save(b.ctx, &quota.State{Books: map[string]*quota.Book{account: book}})
}
