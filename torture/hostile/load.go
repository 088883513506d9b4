package hostile

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"example.com/quota"
	"example.com/quota/torture/harness"
)

// The quotas, and who calls them: usage without handles, reservations with handles, and those who wait.
const (
	usage = "usage"
	held  = "held"
	tight = "tight"
)

// quotas with many thresholds, so that callbacks are called all the time.
func quotas() []quota.Quota {
	var often []int
	for percent := 2; percent <= 100; percent += 2 {
		often = append(often, percent)
	}
	return []quota.Quota{
		{Name: usage, Limits: []quota.Limit{{Max: 100, Soft: true, Window: quota.Lifetime(), AlertThresholds: often}}},
		{Name: held, Limits: []quota.Limit{{Max: 200, Soft: true, Window: quota.Lifetime(), AlertThresholds: often}}},
		{Name: tight, Limits: []quota.Limit{{Max: 2, Window: quota.InFlight()}}},
	}
}

// load is one case: callers, a callback, and a way to close.
type load struct {
	path     string // "": in memory
	lazy     bool
	callback string
	closing  string
	callers  int
	calls    int
	seed     uint64

	tracker *quota.QuotaTracker
	opened  chan struct{} // closed when tracker is set
	ledger  ledger
	made    atomic.Int64  // calls
	inside  atomic.Int64  // callbacks that block
	proceed chan struct{} // lets them go on
	closers sync.WaitGroup
	closes  atomic.Int64
	close1  sync.Once // of the callback

	mu    sync.Mutex
	wrong error
}

func (l *load) String() string {
	return fmt.Sprintf("file %q, flush interval %v, %d callers, callback %s, close %s, seed %d", l.path, l.lazy, l.callers,
		l.callback, l.closing, l.seed)
}

func draw(dir string, random *rand.Rand) *load {
	l := &load{
		callback: []string{"blocks", "panics", "calls back", "calls back", "is slow"}[random.IntN(5)],
		closing:  []string{"at the end", "in between", "twice", "three at once", "from the callback"}[random.IntN(5)],
		callers:  2 + random.IntN(14),
		seed:     random.Uint64(),
		opened:   make(chan struct{}),
		proceed:  make(chan struct{}),
	}
	l.calls = 6 + random.IntN(20)
	switch random.IntN(3) {
	case 0:
		l.path = filepath.Join(dir, "quota_state.json")
	case 1:
		l.path, l.lazy = filepath.Join(dir, "quota_state.json"), true
	}
	return l
}

func (l *load) open(ctx context.Context, lazy bool, onAlert func(quota.Alert)) (*quota.QuotaTracker, error) {
	cfg := quota.Config{
		Persistence: quota.InMemory(),
		Quotas:      quotas(),
		OnAlert:     onAlert,
		Logger:      slog.New(slog.NewTextHandler(io.Discard, nil)),
	}
	if l.path != "" {
		cfg.Persistence = quota.NewJSONFile(l.path)
	}
	if lazy {
		cfg.FlushInterval = 3 * time.Millisecond
	}
	return quota.New(ctx, cfg)
}

func (l *load) run(ctx context.Context) error {
	var err error
	if l.tracker, err = l.open(ctx, l.lazy, l.onAlert); err != nil {
		return harness.Violated("New: %v", err)
	}
	close(l.opened)
	var over atomic.Int64
	finished := make(chan struct{}, l.callers)
	for i := range l.callers {
		go func() {
			caller := &caller{load: l, random: rand.New(rand.NewPCG(l.seed, uint64(i)))}
			for range l.calls {
				caller.call()
			}
			over.Add(1)
			finished <- struct{}{}
		}()
	}
	if l.closing != "at the end" {
		for l.made.Load() < int64(l.callers*l.calls/2) && over.Load()+l.inside.Load() < int64(l.callers) {
			time.Sleep(100 * time.Microsecond)
		}
		l.shut()
	}
	// Whatever a callback waits for, nobody else has to.
	for over.Load()+l.inside.Load() < int64(l.callers) {
		time.Sleep(200 * time.Microsecond)
	}
	if l.closing == "at the end" {
		l.shut()
	}
	if l.closing == "from the callback" {
		l.close() // it may never have been called
	}
	l.closers.Wait()
	close(l.proceed)
	for range l.callers {
		<-finished
	}
	for l.inside.Load() > 0 {
		time.Sleep(100 * time.Microsecond)
	}
	l.closers.Wait()
	if l.wrong != nil {
		return l.wrong
	}
	return l.look(ctx)
}

// shut closes the tracker the way of the case.
func (l *load) shut() {
	times := map[string]int{"at the end": 1, "in between": 1, "twice": 1, "three at once": 3}[l.closing]
	for range times {
		l.closers.Go(l.close)
	}
	if l.closing == "twice" {
		l.closers.Wait()
		l.close()
	}
}

func (l *load) close() {
	began := time.Now()
	err := l.tracker.Close()
	l.closes.Add(1)
	switch {
	case err != nil:
		l.fail(harness.Violated("Close: %v", err))
	case time.Since(began) > bound/2:
		l.fail(harness.Violated("Close took %v", time.Since(began)))
	}
}

func (l *load) fail(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.wrong = errors.Join(l.wrong, err)
}

// look compares what the closed tracker, and the state on disk, say with what the callers know.
func (l *load) look(ctx context.Context) error {
	if err := l.tracker.Verify(); err != nil {
		return harness.Violated("Verify after Close: %v", err)
	}
	if _, err := l.tracker.Reserve(ctx, held); !errors.Is(err, quota.ErrClosed) {
		return harness.Violated("Reserve after Close: %v", err)
	}
	if l.path == "" {
		if err := l.ledger.compare(l.tracker); err != nil {
			return harness.Violated("after Close: %v", err)
		}
		return nil
	}
	again, err := l.open(ctx, false, func(quota.Alert) {})
	if err != nil {
		return harness.Violated("New after Close: %v", err)
	}
	if what := again.Summary().Recovered; what != "" {
		return harness.Violated("a state that nobody damaged was recovered: %s", what)
	}
	if err := l.ledger.compare(again); err != nil {
		return harness.Violated("on disk after Close: %v", err)
	}
	if err := errors.Join(again.Verify(), again.Close()); err != nil {
		return harness.Violated("closing after a look: %v", err)
	}
	return nil
}
