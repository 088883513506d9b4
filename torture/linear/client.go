package linear

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"example.com/quota"
)

// names of the two quotas of every history.
var names = [2]string{"east", "west"}

// clientsOfAProcess is more than any process has.
const clientsOfAProcess = 1000

// A plan is what one process does in a history.
type plan struct {
	Seed    uint64   `json:"seed"`
	Case    int      `json:"case"`
	Process int      `json:"process"`
	Path    string   `json:"path"` // "": in memory
	Lazy    bool     `json:"lazy"` // with FlushInterval
	Clients int      `json:"clients"`
	Calls   int      `json:"calls"`  // of each client
	Limits  [2]int64 `json:"limits"` // of the two quotas
	Ending  int      `json:"ending"` // how many calls may have a context that ends
	Reads   int      `json:"reads"`  // in percent of the calls
	Crowd   bool     `json:"crowd"`  // every reservation has an ID, so that usage without a handle uses none up
	Exact   int      `json:"exact"`  // in percent of the refusals: what they say of the usage is checked too
}

// open opens a tracker as the plan says.
func (p plan) open(ctx context.Context) (*quota.QuotaTracker, error) {
	cfg := quota.Config{
		Persistence: quota.InMemory(),
		Logger:      slog.New(slog.NewTextHandler(io.Discard, nil)),
	}
	for i, name := range names {
		cfg.Quotas = append(cfg.Quotas, quota.Quota{
			Name:   name,
			Limits: []quota.Limit{{Max: p.Limits[i], Window: quota.Lifetime(), NoAlerts: true}},
		})
	}
	if p.Path != "" {
		cfg.Persistence = quota.NewJSONFile(p.Path)
	}
	if p.Lazy {
		cfg.FlushInterval = 2 * time.Millisecond
	}
	return quota.New(ctx, cfg)
}

// run does what the plan says, all clients at once, and returns what they saw. An error is one that no call may return.
func (p plan) run(tracker *quota.QuotaTracker) ([]event, error) {
	var ending atomic.Int64
	ending.Store(int64(p.Ending))
	clients := make([]*client, p.Clients)
	errs := make([]error, p.Clients)
	var group sync.WaitGroup
	start := make(chan struct{})
	for i := range clients {
		number := p.Process*clientsOfAProcess + i
		c := &client{
			plan: p, tracker: tracker, number: number, ending: &ending,
			random: rand.New(rand.NewPCG(p.Seed, uint64(p.Case)<<20|uint64(number))),
		}
		clients[i] = c
		group.Go(func() {
			<-start
			for range p.Calls {
				if errs[i] = c.call(); errs[i] != nil {
					return
				}
			}
		})
	}
	close(start)
	group.Wait()
	var events []event
	for _, c := range clients {
		events = append(events, c.events...)
	}
	return events, errors.Join(errs...)
}

// client is one goroutine: it makes one call after the other and writes down what it saw.
type client struct {
	plan
	tracker *quota.QuotaTracker
	number  int
	random  *rand.Rand
	ending  *atomic.Int64 // how many more calls may have a context that ends
	held    []held
	holds   int
	events  []event
}

// held is a reservation of a client that it has not settled.
type held struct {
	number      int
	plain       bool
	quotas      []int
	reservation *quota.Reservation
}

// call makes one call.
func (c *client) call() error {
	ctx, cancel := c.context()
	defer cancel()
	if c.random.IntN(4) == 0 {
		runtime.Gosched()
	}
	if c.random.IntN(100) < c.Reads {
		return c.read()
	}
	which, n := c.random.IntN(len(names)), 1+c.random.Int64N(6)
	switch dice := c.random.IntN(100); {
	case dice < 15 && len(c.held) < 8:
		return c.reserve(ctx, []int{0, 1}, n, false)
	case dice < 28 && len(c.held) < 8:
		return c.reserve(ctx, []int{which}, n, true)
	case dice < 45 && len(c.held) < 8:
		return c.reserve(ctx, []int{which}, n, c.Crowd)
	case dice < 83 && len(c.held) > 0:
		return c.settle(ctx)
	case dice < 90:
		return c.simple(event{Kind: record, Quota: which, N: 1 + n/3}, func() error {
			return c.tracker.RecordUsage(ctx, names[which], quota.Requests(1+n/3))
		})
	case dice < 93:
		return c.simple(event{Kind: giveBack, Quota: which, N: n}, func() error {
			return c.tracker.Release(ctx, names[which], quota.Requests(n))
		})
	default:
		return c.simple(event{Kind: reset, Quota: which}, func() error { return c.tracker.Reset(ctx, names[which]) })
	}
}

// context is one that ends, now and then.
func (c *client) context() (context.Context, context.CancelFunc) {
	if c.random.IntN(12) != 0 || c.ending.Add(-1) < 0 {
		return context.Background(), func() {}
	}
	if c.random.IntN(4) == 0 {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		return ctx, cancel
	}
	return context.WithTimeout(context.Background(), time.Duration(c.random.IntN(3000))*time.Microsecond)
}

func (c *client) read() error {
	e := event{Client: c.number, Quota: c.random.IntN(len(names)), Kind: look, Outcome: done}
	if c.random.IntN(3) == 0 {
		e.Kind, e.N, e.Outcome = canUse, 1+c.random.Int64N(9), refused
		e.Call = now()
		if c.tracker.CanUse(names[e.Quota], quota.Requests(e.N)) {
			e.Outcome = done
		}
		e.Return = now()
	} else {
		e.Call = now()
		status, ok := c.tracker.Status(names[e.Quota])
		e.Return = now()
		if !ok || len(status.Limits) != 1 {
			return fmt.Errorf("Status(%q) = %+v, %v", names[e.Quota], status, ok)
		}
		e.Seen, e.Used, e.Reserved = true, status.Limits[0].Used, status.Limits[0].Reserved
	}
	c.events = append(c.events, e)
	return nil
}

// reserve holds the same in one quota or both.
func (c *client) reserve(ctx context.Context, quotas []int, n int64, identified bool) error {
	c.holds++
	h := held{number: c.number*1000 + c.holds, quotas: quotas, plain: len(quotas) == 1 && !identified}
	e := event{Client: c.number, Kind: reserve, N: n, Hold: h.number, Plain: h.plain, Outcome: done}
	var err error
	e.Call = now()
	switch {
	case len(quotas) > 1:
		h.reservation, err = c.tracker.ReserveAll(ctx, names[:], quota.Requests(n))
	case identified:
		h.reservation, err = c.tracker.Acquire(ctx, quota.Request{
			All: []string{names[quotas[0]]}, Amounts: []quota.Amount{quota.Requests(n)}, ID: fmt.Sprint("task-", h.number),
		})
	default:
		h.reservation, err = c.tracker.Reserve(ctx, names[quotas[0]], quota.Requests(n))
	}
	e.Return = now()
	var exceeded *quota.ExceededError
	switch {
	case err == nil:
		c.held = append(c.held, h)
		for _, e.Quota = range quotas {
			c.events = append(c.events, e)
		}
		return nil
	case ctx.Err() != nil && errors.Is(err, ctx.Err()):
		for _, e.Quota = range quotas {
			e.Return, e.Outcome = 0, pending
			e.Kind = mayReserve
			c.events = append(c.events, e)
			e.Kind = undo
			c.events = append(c.events, e)
		}
		return nil
	case errors.As(err, &exceeded):
		// Of several quotas this one has refused; what the others would have said nobody knows.
		for e.Quota = range names {
			if names[e.Quota] == exceeded.Quota {
				e.Outcome, e.Seen = refused, c.random.IntN(100) < c.Exact
				e.Used, e.Reserved = exceeded.Limit.Used, exceeded.Limit.Reserved
				c.events = append(c.events, e)
				return nil
			}
		}
	}
	return fmt.Errorf("%v: %w", e, err)
}

// settle ends one of the client's reservations.
func (c *client) settle(ctx context.Context) error {
	i := c.random.IntN(len(c.held))
	h := c.held[i]
	c.held = append(c.held[:i], c.held[i+1:]...)
	e := event{Client: c.number, Kind: commit, Hold: h.number, Plain: h.plain, Outcome: done}
	var err error
	switch dice := c.random.IntN(10); {
	case dice < 5:
		e.Kind = release
		e.Call = now()
		err = h.reservation.Release(ctx)
	case dice < 7:
		e.AsHeld = true
		e.Call = now()
		err = h.reservation.Commit(ctx)
	default:
		e.N = c.random.Int64N(4)
		e.Call = now()
		err = h.reservation.Commit(ctx, quota.Requests(e.N))
	}
	e.Return = now()
	switch {
	case errors.Is(err, quota.ErrPending) && ctx.Err() != nil:
		e.Outcome, e.Return = pending, 0
	case errors.Is(err, quota.ErrSettled):
		e.Outcome = settled
	case err != nil:
		return fmt.Errorf("%v: %w", e, err)
	}
	for _, e.Quota = range h.quotas {
		c.events = append(c.events, e)
	}
	return nil
}

// simple makes a call that cannot be refused.
func (c *client) simple(e event, do func() error) error {
	e.Client, e.Outcome = c.number, done
	e.Call = now()
	err := do()
	e.Return = now()
	switch {
	case err == nil:
	case (e.Kind == reset || errors.Is(err, quota.ErrPending)) && (errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)):
		// A Reset that nobody waits for is made all the same: here every save comes about.
		e.Outcome, e.Return = pending, 0
	default:
		return fmt.Errorf("%v: %w", e, err)
	}
	c.events = append(c.events, e)
	return nil
}
