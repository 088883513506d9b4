package clocks

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"time"

	"example.com/quota"
	"example.com/quota/torture/harness"
)

const (
	ttl       = 10 * time.Minute
	atOnce    = 4  // quotas of a trace
	most      = 40 // steps of a trace
	patience  = 30 * time.Second
	raceEvery = 8 // traces
	waitEvery = 16
	lastSaid  = 60 // lines of a report
)

// A trace is one tracker whose clock is maltreated.
type trace struct {
	random  *rand.Rand
	clock   *wallClock
	begin   time.Time
	config  quota.Config
	tracker *quota.QuotaTracker
	all     []*witness
	open    []held
	said    []string
}

type held struct {
	r    *quota.Reservation
	of   *witness
	call *call
}

// store keeps a state as JSON text.
type store struct{ text []byte }

func (s *store) Load(context.Context) (*quota.State, error) {
	if s.text == nil {
		return nil, nil
	}
	state := new(quota.State)
	return state, json.Unmarshal(s.text, state)
}

func (s *store) Save(_ context.Context, state *quota.State) (err error) {
	s.text, err = json.Marshal(state)
	return err
}

func newTrace(random *rand.Rand, all []shape) (*trace, error) {
	tr := &trace{random: random, begin: time.Date(2026, time.March, 7, 23, 30, 0, 0, time.UTC)}
	tr.clock = &wallClock{wall: tr.begin}
	tr.config = quota.Config{
		Persistence: &store{}, FlushInterval: 1000 * time.Hour, // saved when it is closed
		Clock: tr.clock, ReservationTTL: ttl, OnAlert: func(quota.Alert) {}, Logger: slog.New(slog.DiscardHandler),
	}
	for _, at := range random.Perm(len(all))[:atOnce] {
		w := &witness{shape: all[at], name: all[at].window.String(), max: 1 + random.Int64N(3)}
		tr.all = append(tr.all, w)
		tr.config.Quotas = append(tr.config.Quotas, quota.Quota{
			Name: w.name, Limits: []quota.Limit{{Max: w.max, Window: w.window}},
		})
	}
	return tr, tr.start()
}

func (tr *trace) start() (err error) {
	tr.tracker, err = quota.New(context.Background(), tr.config)
	return err
}

func (tr *trace) say(format string, args ...any) {
	tr.said = append(tr.said, tr.clock.Now().Format("2006-01-02 15:04:05.999999999")+": "+fmt.Sprintf(format, args...))
}

func (tr *trace) broken(format string, args ...any) error {
	var limits strings.Builder
	for _, w := range tr.all {
		fmt.Fprintf(&limits, "%d per %s; ", w.max, w.name)
	}
	return harness.Violated("%s\nthe quotas are %sand this happened:\n%s",
		fmt.Sprintf(format, args...), limits.String(), strings.Join(tr.said[max(0, len(tr.said)-lastSaid):], "\n"))
}

// run does one trace.
func (tr *trace) run(race, wait bool) error {
	if err := tr.compare(); err != nil {
		return err
	}
	for range 1 + tr.random.IntN(most) {
		if err := tr.step(); err != nil {
			return err
		}
		if err := tr.use(); err != nil {
			return err
		}
	}
	if race {
		if err := tr.race(); err != nil {
			return err
		}
	}
	if err := tr.end(wait); err != nil {
		return err
	}
	return tr.tracker.Close()
}

// step lets one thing happen to the clock.
func (tr *trace) step() error {
	var sizes = []time.Duration{
		1, time.Second, time.Minute, time.Hour, 23 * time.Hour, 24*time.Hour - 1, 24 * time.Hour, 24*time.Hour + 1,
		48 * time.Hour, 40 * 24 * time.Hour, 365 * 24 * time.Hour, 3652 * 24 * time.Hour,
	}
	size := sizes[tr.random.IntN(len(sizes))]
	switch what := tr.random.IntN(12); {
	case what < 3:
		size = sizes[tr.random.IntN(5)] * time.Duration(1+tr.random.IntN(9))
		tr.clock.pass(size)
		tr.say("%v pass", size)
	case what < 4:
		tr.set(size, "suspended, or set forward")
	case what < 6:
		tr.set(-size, "set back")
	case what < 7:
		tr.set(tr.begin.Add(tr.clock.passed).Sub(tr.clock.Now()), "set right")
	case what < 10:
		return tr.oscillate()
	default:
		if tr.random.IntN(2) == 0 {
			size = sizes[tr.random.IntN(8)]
		}
		return tr.restart(-size)
	}
	return tr.compare()
}

// set steps the clock.
func (tr *trace) set(by time.Duration, what string) {
	to := tr.clock.Now().Add(by)
	if to.Year() < 1990 || to.Year() > 2100 {
		to = tr.begin
	}
	tr.clock.set(to)
	tr.say("%s, by %v", what, by)
}

// oscillate steps to and fro over a turn.
func (tr *trace) oscillate() error {
	w := tr.all[tr.random.IntN(len(tr.all))]
	turn := w.turnsAt()
	if turn == 0 {
		return nil
	}
	for range 2 + tr.random.IntN(4) {
		offs := []time.Duration{0, 1, time.Second, time.Hour, 12 * time.Hour}
		off := offs[tr.random.IntN(len(offs))]
		if tr.random.IntN(2) == 0 {
			off = -off - 1
		}
		tr.set(time.Unix(0, turn).UTC().Add(off).Sub(tr.clock.Now()), "set near the turn of "+w.name)
		if err := tr.compare(); err != nil {
			return err
		}
		if err := tr.use(); err != nil {
			return err
		}
	}
	return nil
}

// restart closes the tracker and opens another at an earlier time.
func (tr *trace) restart(by time.Duration) error {
	for _, w := range tr.all { // what a turn alone has changed need not have been saved
		if err := tr.tracker.RecordUsage(context.Background(), w.name, quota.Requests(0)); err != nil {
			return err
		}
	}
	if err := tr.tracker.Close(); err != nil {
		return err
	}
	tr.open = tr.open[:0]
	tr.say("closed")
	tr.set(by, "while it is closed, set back")
	if err := tr.start(); err != nil {
		return err
	}
	return tr.compare()
}

// compare asks every quota how it stands.
func (tr *trace) compare() error {
	now := tr.clock.Now().UnixNano()
	for _, w := range tr.all {
		w.advance(now)
		status, ok := tr.tracker.Status(w.name)
		if !ok {
			return fmt.Errorf("Status(%s): unknown", w.name)
		}
		low, high := w.total()
		if is := status.Limits[0].Used + status.Limits[0].Reserved; is < low || is > high {
			return tr.broken("%s: %d used and %d reserved, together they must be %d to %d",
				w.name, status.Limits[0].Used, status.Limits[0].Reserved, low, high)
		}
		open := 0
		for _, c := range w.calls {
			if c.open {
				open++
			}
		}
		if status.Reservations != open {
			return tr.broken("%s: %d reservations are open, must be %d", w.name, status.Reservations, open)
		}
	}
	if err := tr.tracker.Verify(); err != nil {
		return tr.broken("Verify: %v", err)
	}
	return nil
}

// use takes what can be had, and settles some of it.
func (tr *trace) use() error {
	for _, w := range tr.all {
		for range tr.random.IntN(5) {
			admitted, err := tr.reserve(w)
			if err != nil {
				return err
			}
			if !admitted {
				break
			}
		}
	}
	kept := tr.open[:0]
	for _, h := range tr.open {
		if !h.call.open { // it has expired: what it was charged stands, so a late settlement would change nothing
			continue
		}
		if tr.random.IntN(3) > 0 {
			kept = append(kept, h)
			continue
		}
		if err := h.r.Commit(context.Background()); err != nil {
			return tr.broken("%s: Commit: %v", h.of.name, err)
		}
		tr.say("%s: Commit", h.of.name)
		h.call.open, h.call.settled = false, h.of.seen
	}
	tr.open = kept
	return tr.compare()
}

// reserve asks for one request.
func (tr *trace) reserve(w *witness) (admitted bool, err error) {
	now := tr.clock.Now().UnixNano()
	w.advance(now)
	r, err := tr.tracker.Reserve(context.Background(), w.name)
	return err == nil, tr.judge(w, r, err)
}

// judge compares what came of a call with what must come of it at the time that the witness has seen.
func (tr *trace) judge(w *witness, r *quota.Reservation, err error) error {
	low, high := w.total()
	switch {
	case err != nil && !errors.Is(err, quota.ErrExceeded):
		return fmt.Errorf("Reserve(%s): %w", w.name, err)
	case err == nil && low >= w.max:
		return tr.broken("%s: admitted, though %d of %d are taken", w.name, low, w.max)
	case err != nil && high < w.max:
		return tr.broken("%s: refused, though %d of %d are taken: %v", w.name, high, w.max, err)
	case err != nil:
		tr.say("%s: refused", w.name)
		return nil
	}
	tr.say("%s: admitted", w.name)
	c := w.grant()
	if is := r.ExpiresAt().UnixNano(); is != c.expires {
		return tr.broken("%s: it expires %v later than it must", w.name, time.Duration(is-c.expires))
	}
	tr.open = append(tr.open, held{r, w, c})
	return nil
}
