package powercut

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"

	"example.com/quota"
)

const (
	most      = 8                // callers at once, in all workers
	total     = quota.UnitTokens // the unit that all callers count in
	totalMax  = 40_000           // few enough that thresholds are crossed all the time
	both      = "pair"           // the quota that only holds over both touch
	one       = "work"           // the quota of every call
	callerMax = int64(1_000_000_000_000)
)

// unitOf is the unit in which nobody but one caller counts.
func unitOf(caller int) quota.Unit { return quota.Unit("caller" + strconv.Itoa(caller)) }

// configuration is what every tracker of this row is opened with.
func configuration(path string, onAlert func(quota.Alert)) quota.Config {
	var thresholds []int
	for percent := 1; percent < 100; percent++ {
		thresholds = append(thresholds, percent)
	}
	limits := []quota.Limit{{Unit: total, Max: totalMax, Window: quota.Lifetime(), Soft: true, AlertThresholds: thresholds}}
	for caller := range most {
		limits = append(limits, quota.Limit{Unit: unitOf(caller), Max: callerMax, Window: quota.Lifetime(), NoAlerts: true})
	}
	return quota.Config{
		Persistence: quota.NewJSONFile(path),
		Quotas:      []quota.Quota{{Name: one, Limits: limits}, {Name: both, Limits: limits[1:]}},
		OnAlert:     onAlert,
		Logger:      slog.New(slog.DiscardHandler),
	}
}

// load is the worker under whose feet the file system goes: path, seed, the first of its callers and how many. It tells
// standard output what it begins and what was acknowledged, at once, and ends when calls begin to fail.
func load(args []string) error {
	if len(args) != 4 {
		return errors.New("it takes a path, a seed, the first caller and how many callers")
	}
	seed, err := strconv.ParseUint(args[1], 10, 64)
	if err != nil {
		return err
	}
	first, err := strconv.Atoi(args[2])
	if err != nil {
		return err
	}
	callers, err := strconv.Atoi(args[3])
	if err != nil {
		return err
	}
	log := &journal{out: os.Stdout}
	tracker, err := quota.New(context.Background(), configuration(args[0], func(alert quota.Alert) {
		log.write(event{kind: alerted, caller: alert.Threshold, at: monotonic()})
	}))
	if err != nil {
		log.write(event{kind: failed, caller: first, text: err.Error()})
		return nil // what that means depends on whether the power was cut, which this process cannot know
	}
	var group sync.WaitGroup
	for number := first; number < first+callers; number++ {
		group.Go(func() {
			c := &caller{tracker: tracker, log: log, number: number, seed: seed}
			c.random = rand.New(rand.NewPCG(seed, uint64(number)))
			for c.call() {
			}
		})
	}
	group.Wait()
	return nil
}

// journal takes events, each with one write, so that those of several goroutines do not mix.
type journal struct{ out io.Writer }

func (j *journal) write(e event) { _, _ = io.WriteString(j.out, e.String()+"\n") }

// caller makes one call after the other.
type caller struct {
	tracker *quota.QuotaTracker
	log     *journal
	number  int
	seed    uint64
	random  *rand.Rand
	calls   int
	open    []opened
}

type opened struct {
	reservation *quota.Reservation
	n           int64
	pair        bool
}

// call makes one call and tells whether there should be another.
func (c *caller) call() bool {
	c.calls++
	n := 1 + c.random.Int64N(40)
	amounts := []quota.Amount{{Unit: unitOf(c.number), N: n}, quota.Tokens(n)}
	ctx := context.Background()
	kind := c.random.IntN(10)
	if kind >= 7 && len(c.open) == 0 {
		kind = 3
	}
	switch {
	case kind < 3:
		return c.do(event{kind: begun, effect: effect{used: n}}, func() error {
			return c.tracker.RecordUsage(ctx, one, amounts...)
		})
	case kind < 7:
		req := quota.Request{All: []string{one}, Amounts: amounts}
		// The seed of every cut is another one, so that no ID is used twice in the life of a state.
		req.ID = fmt.Sprintf("%d-%d-%d", c.seed, c.number, c.calls)
		e := event{kind: begun, id: req.ID, effect: effect{held: n}}
		if kind >= 5 {
			req.All, e.effect.pairHeld = []string{one, both}, n
		}
		return c.do(e, func() error {
			r, err := c.tracker.Acquire(ctx, req)
			if err == nil {
				c.open = append(c.open, opened{r, n, kind >= 5})
			}
			return err
		})
	}
	i := c.random.IntN(len(c.open))
	hold := c.open[i]
	c.open = append(c.open[:i], c.open[i+1:]...)
	e := event{kind: begun, id: hold.reservation.ID(), settles: true, effect: effect{held: -hold.n}}
	if hold.pair {
		e.effect.pairHeld = -hold.n
	}
	if kind == 7 {
		return c.do(e, func() error { return hold.reservation.Release(ctx) })
	}
	e.effect.used = n
	if hold.pair {
		e.effect.pairUsed = n
	}
	return c.do(e, func() error { return hold.reservation.Commit(ctx, amounts...) })
}

// do makes a call between the events that tell of it.
func (c *caller) do(e event, call func() error) bool {
	e.caller = c.number
	c.log.write(e)
	if err := call(); err != nil {
		c.log.write(event{kind: failed, caller: c.number, text: err.Error()})
		return false
	}
	c.log.write(event{kind: done, caller: c.number, at: monotonic()})
	return true
}
