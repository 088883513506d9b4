package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"strconv"
	"time"

	"example.com/quota"
)

// A bench is one run of this program.
type bench struct {
	pace
	ctx    context.Context
	keys   int // what the goals call a million
	quick  bool
	seed   uint64
	trace  string // of real traffic; "": none
	dir    string // for states, removed at the end
	log    io.Writer
	notes  map[int][]string // by row: what this run has to say about it
	floor  floor
	broken []string // exact checks that failed
}

// say adds a sentence to a row.
func (b *bench) say(row int, format string, args ...any) {
	b.notes[row] = append(b.notes[row], fmt.Sprintf(format, args...))
}

// scratch returns a directory of its own on the disk that is measured.
func (b *bench) scratch() (string, error) { return os.MkdirTemp(b.dir, "row") }

// durable is the pace of whatever waits for the disk: longer, and in slices, because the disk's mood changes.
func (b *bench) durable() pace {
	return pace{rounds: b.rounds, time: 4 * b.time, slices: 4}
}

const huge = 1_000_000_000_000_000

// threeLimits are what a provider account typically has: calls, tokens and dollars, in three kinds of window.
func threeLimits(most int64) []quota.Limit {
	return []quota.Limit{
		{Max: most, Window: quota.Every(time.Hour)},
		{Unit: quota.UnitTokens, Max: most, Window: quota.Weekly(nil, time.Monday), Estimate: 100},
		{Unit: quota.UnitUSD, Max: most, Window: quota.Monthly(nil, 1), Estimate: 5},
	}
}

// The places of threeLimits.
const (
	requestsLimit = iota
	tokensLimit
)

// tracker returns one that keeps its state in store, quietly.
func (b *bench) tracker(store quota.Persistence, quotas ...quota.Quota) (*quota.QuotaTracker, error) {
	return b.open(quota.Config{Persistence: store, Quotas: quotas})
}

func (b *bench) open(cfg quota.Config) (*quota.QuotaTracker, error) {
	cfg.Logger = slog.New(slog.DiscardHandler)
	return quota.New(b.ctx, cfg)
}

// shut closes a tracker; one that cannot save its last state is a failure of the run.
func (b *bench) shut(t *quota.QuotaTracker) {
	if err := t.Close(); err != nil {
		b.broken = append(b.broken, err.Error())
	}
}

// used is what the state says has been used of one limit.
func used(t *quota.QuotaTracker, name string, limit int) (int64, error) {
	status, known := t.Status(name)
	if !known {
		return 0, fmt.Errorf("%q is unknown", name)
	}
	return status.Limits[limit].Used, nil
}

// A counter checks that a side has moved a number by what it says: usage, refusals, rows in a database.
type counter struct {
	what string
	read func() (int64, error)
	per  int64 // by operation
	last int64
}

// counted makes s fail if read does not rise by per with each of its operations.
func counted(s side, what string, per int64, read func() (int64, error)) side {
	c := &counter{what: what, read: read, per: per}
	before, ahead := s.before, error(nil)
	s.before = func() {
		if before != nil {
			before()
		}
		c.last, ahead = c.read()
	}
	s.check = func(ops int) error {
		now, err := c.read()
		if err := errors.Join(ahead, err); err != nil {
			return err
		}
		if moved := now - c.last; moved != int64(ops)*c.per {
			return fmt.Errorf("%d operations moved %s by %d, not by %d", ops, c.what, moved, int64(ops)*c.per)
		}
		return nil
	}
	return s
}

// usedBy is counted for one quota's usage.
func usedBy(s side, t *quota.QuotaTracker, name string, limit int, per int64) side {
	return counted(s, "usage", per, func() (int64, error) { return used(t, name, limit) })
}

// keysOf returns n names as they come from a real system: a prefix and numbers without a pattern.
func keysOf(prefix string, n int, seed uint64) []string {
	random := rand.New(rand.NewPCG(seed, uint64(n)))
	keys, taken := make([]string, 0, n), make(map[uint64]bool, n)
	for len(keys) < n {
		id := random.Uint64() >> 24
		if !taken[id] {
			taken[id] = true
			keys = append(keys, prefix+strconv.FormatUint(id, 36))
		}
	}
	return keys
}

// draws is an endless list of keys, drawn at random before the clock starts. Each worker goes on from its own place.
type draws struct {
	keys  []string
	order []int32
	at    []place
}

type place struct {
	next int
	_    [120]byte // workers must not slow each other down by sharing a cache line
}

const drawn = 1 << 20

func draw(keys []string, workers int, seed uint64) *draws {
	random := rand.New(rand.NewPCG(seed, 7))
	d := &draws{keys: keys, order: make([]int32, drawn), at: make([]place, workers)}
	for i := range d.order {
		d.order[i] = int32(random.IntN(len(keys)))
	}
	for worker := range d.at {
		d.at[worker].next = worker * (drawn / workers)
	}
	return d
}

func (d *draws) key(worker int) string {
	p := &d.at[worker]
	p.next = (p.next + 1) & (drawn - 1)
	return d.keys[d.order[p.next]]
}

func goroutines(n int) string {
	if n == 1 {
		return "1 goroutine"
	}
	return fmt.Sprintf("%d goroutines", n)
}

var errDenied = errors.New("denied, although there is room")

var errAdmitted = errors.New("admitted, although there is no room")

// all fails if not every one of n operations went as it should.
func all(went, n int, otherwise error) error {
	if went != n {
		return fmt.Errorf("%d of %d: %w", n-went, n, otherwise)
	}
	return nil
}
