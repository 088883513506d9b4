package storetest

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"example.com/quota"
)

// hotQuota is what the processes of a fleet compete for.
const hotQuota = "hot"

const processVariable = "QUOTA_STORETEST_PROCESS" // set: this is a process of a fleet

// Process makes the program one of a fleet's processes where a fleet has started it, and then does not return. Call it
// first in TestMain, with the Subject that is tested. It ends with the process that has started it.
func Process(subject Subject) {
	if os.Getenv(processVariable) == "" {
		return
	}
	orders := make(chan order)
	go func() {
		input := json.NewDecoder(bufio.NewReader(os.Stdin))
		for {
			var o order
			if err := input.Decode(&o); err != nil {
				os.Exit(0) // the parent has gone, or wants no more
			}
			orders <- o
		}
	}()
	p := process{subject: subject, output: os.Stdout}
	for o := range orders {
		p.say(p.run(o))
	}
}

// An order is what a fleet tells a process to do.
type order struct {
	Do    string        `json:"do"`
	Place Place         `json:"place"`
	Ahead time.Duration `json:"ahead,omitempty"` // by which the store's clock is ahead from now on
	Skew  time.Duration `json:"skew,omitempty"`  // by which the process's clock is ahead of the store's
	Max   int64         `json:"max,omitempty"`   // of the hot quota
	Days  bool          `json:"days,omitempty"`  // it is a quota for each day, not for ever

	Callers int           `json:"callers,omitempty"`
	Tell    bool          `json:"tell,omitempty"`  // every acknowledgement at once
	Until   time.Duration `json:"until,omitempty"` // go on for so long, also when refused
	Turn    time.Time     `json:"turn,omitzero"`   // when the store's day ends
	N       int64         `json:"n,omitempty"`
	ID      string        `json:"id,omitempty"`
}

// A word is what a process says. Each is written at one stroke, so that a kill does not cut it.
type word struct {
	Say   string `json:"say"` // "done" ends what an order has begun
	ID    string `json:"id,omitempty"`
	Error string `json:"error,omitempty"`
	tally
}

// A tally is what callers have seen.
type tally struct {
	Granted   int64 `json:"granted,omitempty"`
	Committed int64 `json:"committed,omitempty"` // acknowledged, or certain to be saved later (ErrPending)
	Unsaved   int64 `json:"unsaved,omitempty"`   // calls that could not be saved
	Early     int64 `json:"early,omitempty"`     // of Granted: before the store's day has ended
}

// MarshalJSON leaves out what cannot be sent.
func (p Place) MarshalJSON() ([]byte, error) {
	return json.Marshal(map[string]string{"Address": p.Address, "Name": p.Name})
}

type process struct {
	subject Subject
	output  io.Writer
	tracker *quota.QuotaTracker
	close   func()
	ahead   atomic.Int64 // of the store's clock
}

func (p *process) say(w word) {
	line, err := json.Marshal(w)
	if err != nil {
		panic(err)
	}
	_, _ = p.output.Write(append(line, '\n'))
}

// run carries an order out.
func (p *process) run(o order) (answer word) {
	ctx := context.Background()
	answer.Say = "done"
	var err error
	switch o.Do {
	case "open":
		err = p.open(ctx, o)
	case "drain":
		answer.tally, err = p.drain(ctx, o)
	case "flush":
		err = p.flush(ctx)
	case "hold":
		var held *quota.Reservation
		if held, err = p.tracker.Acquire(ctx, quota.Request{
			All: []string{hotQuota}, Amounts: []quota.Amount{quota.Requests(o.N)}, ID: o.ID,
		}); err == nil {
			answer.ID = held.ID()
		}
	case "commit":
		var held *quota.Reservation
		if held, err = p.tracker.Reservation(ctx, o.ID, hotQuota); err == nil {
			err = held.Commit(ctx, quota.Requests(o.N))
		}
	case "close":
		err = p.tracker.Close()
		if p.close != nil {
			p.close()
		}
	default:
		err = fmt.Errorf("there is no order %q", o.Do)
	}
	if err != nil {
		answer.Error = err.Error()
	}
	return answer
}

func (p *process) open(ctx context.Context, o order) error {
	p.ahead.Store(int64(o.Ahead))
	place := o.Place
	place.Ahead = func() time.Duration { return time.Duration(p.ahead.Load()) }
	store, closeStore, err := p.subject.Open(ctx, place)
	if err != nil {
		return err
	}
	p.close = closeStore
	limit := quota.Limit{Max: o.Max, Window: quota.Lifetime(), AlertThresholds: []int{50, 80, 90}}
	if o.Days {
		limit.Window = quota.Daily(nil)
	}
	p.tracker, err = quota.New(ctx, quota.Config{
		Persistence: store,
		Quotas:      []quota.Quota{{Name: hotQuota, Limits: []quota.Limit{limit}}},
		Clock:       skewedClock{func() time.Duration { return time.Duration(p.ahead.Load()) + o.Skew }},
		OnAlert:     func(a quota.Alert) { p.say(word{Say: "alert", ID: a.ID}) },
		Logger:      slog.New(slog.DiscardHandler),
	})
	return err
}

// drain has callers reserve and commit one request after the other until they are refused.
func (p *process) drain(ctx context.Context, o order) (tally, error) {
	var granted, committed, unsaved, early atomic.Int64
	errs := make([]error, o.Callers)
	p.ahead.Store(int64(o.Ahead))
	end := time.Now().Add(o.Until)
	var group sync.WaitGroup
	for i := range errs {
		group.Go(func() {
			for errs[i] == nil {
				held, err := p.tracker.Reserve(ctx, hotQuota)
				switch {
				case errors.Is(err, quota.ErrExceeded):
					if o.Until == 0 || !time.Now().Before(end) {
						return
					}
					time.Sleep(breath)
					continue
				case errors.Is(err, quota.ErrNotSaved):
					unsaved.Add(1)
					time.Sleep(breath)
					continue
				case err != nil:
					errs[i] = err
					return
				}
				granted.Add(1)
				if time.Now().Add(o.Ahead + doubt).Before(o.Turn) {
					early.Add(1)
				}
				if o.Tell {
					p.say(word{Say: "granted"})
				}
				err = held.Commit(ctx)
				switch {
				case errors.Is(err, quota.ErrPending):
					unsaved.Add(1)
				case err != nil:
					errs[i] = fmt.Errorf("what was granted cannot be committed: %w", err)
					return
				case o.Tell:
					p.say(word{Say: "committed"})
				}
				committed.Add(1)
			}
		})
	}
	group.Wait()
	return tally{granted.Load(), committed.Load(), unsaved.Load(), early.Load()}, errors.Join(errs...)
}

// flush saves what could not be saved.
func (p *process) flush(ctx context.Context) error {
	var err error
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(breath) {
		if err = p.tracker.Flush(ctx); err == nil {
			return nil
		}
	}
	return err
}

const (
	breath   = 5 * time.Millisecond  // before a call is made again that was refused or not saved
	doubt    = 50 * time.Millisecond // about what the time is at a server of this machine
	patience = 30 * time.Second      // for a store that has been put right to be right
)

// A skewedClock is the system's clock, so much ahead.
type skewedClock struct{ by func() time.Duration }

func (c skewedClock) Now() time.Time { return time.Now().Add(c.by()) }

func (c skewedClock) AfterFunc(d time.Duration, f func()) (stop func() bool) {
	return time.AfterFunc(d, f).Stop
}
