package quota

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// A Config says how a tracker works. The zero value is a tracker of DefaultQuotas that keeps its state in DefaultPath
// and logs its alerts.
type Config struct {
	// Persistence keeps the state. Nil: NewJSONFile(DefaultPath), a file below the working directory. InMemory() keeps
	// nothing.
	Persistence Persistence
	// Quotas are what there is to keep to. Nil: DefaultQuotas().
	Quotas []Quota
	// Clock tells the time. Nil: the system clock; that it has been set is noticed within a millisecond.
	Clock Clock
	// OnAlert is called once per threshold crossed, after the crossing has been saved and before the call that crossed
	// returns, outside every lock, one at a time and in order. When another call is delivering already, it delivers this
	// alert too, after its own. OnAlert may call the tracker; what it crosses itself is delivered after it. A panic is
	// recovered and logged. A slow OnAlert delays the call that crossed: hand the alert to a buffered channel. With
	// FlushInterval it runs before the crossing is saved. Nil: alerts are logged.
	OnAlert func(Alert)
	// AlertThresholds are percents of a limit's Max. Nil or empty: 50, 80, 90.
	AlertThresholds []int
	// Location is where days begin. Nil: UTC.
	Location *time.Location
	// ReservationTTL is after how long a reservation that nobody has settled expires. 0: 15 minutes.
	ReservationTTL time.Duration
	// OnExpiry says what then becomes of it. Zero: ChargeExpired.
	OnExpiry ExpiryPolicy
	// FlushInterval trades durability for speed. 0: every call is durable before it returns. Else calls return at once,
	// the state is saved at least that often, and a crash loses at most that much; the tracker must then own its
	// JSONFile alone.
	FlushInterval time.Duration
	// Logger takes what nobody can be told otherwise. Nil: slog.Default().
	Logger *slog.Logger
}

const (
	defaultTTL = 15 * time.Minute
	longest    = 100 * 365 * 24 * time.Hour
	closeGrace = 5 * time.Second
	lastGrace  = time.Second / 2 // more for a save that has been told to end
)

// withDefaults returns a checked copy with every default filled in.
func (cfg Config) withDefaults() (Config, error) {
	if cfg.Persistence == nil {
		cfg.Persistence = NewJSONFile(DefaultPath)
	}
	if cfg.Quotas == nil {
		cfg.Quotas = DefaultQuotas()
	}
	if cfg.Clock == nil {
		cfg.Clock = systemClock{}
	}
	if len(cfg.AlertThresholds) == 0 {
		cfg.AlertThresholds = []int{50, 80, 90}
	}
	if wrong := checkThresholds(cfg.AlertThresholds); wrong != "" {
		return cfg, fmt.Errorf("%w: AlertThresholds: %s", ErrInvalidConfig, wrong)
	}
	if cfg.Location == nil {
		cfg.Location = time.UTC
	}
	if cfg.ReservationTTL == 0 {
		cfg.ReservationTTL = defaultTTL
	}
	if cfg.ReservationTTL < 0 || cfg.ReservationTTL > longest {
		return cfg, fmt.Errorf("%w: ReservationTTL must be positive and at most 100 years", ErrInvalidConfig)
	}
	if cfg.FlushInterval < 0 {
		return cfg, fmt.Errorf("%w: FlushInterval must not be negative", ErrInvalidConfig)
	}
	if cfg.OnExpiry > ReleaseExpired {
		return cfg, fmt.Errorf("%w: OnExpiry must be ChargeExpired or ReleaseExpired", ErrInvalidConfig)
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	return cfg, nil
}

// A QuotaTracker keeps an orchestrator inside its quotas. Ask it before a task is dispatched (CanUse), hold what the
// task needs (Reserve), and record what it really used (Reservation.Commit or RecordUsage). All its methods are safe
// for concurrent use. The zero value is not usable: call New, and Close when done.
type QuotaTracker struct {
	cfg    Config
	writer uint64 // of this tracker, for ever unique
	issued atomic.Uint64
	wall   *wallClock // nil: Config.Clock is another
	zones  zones
	bare   *rules // of a book that nobody has configured

	acquisitions sync.Pool // of those that are done

	current atomic.Pointer[configuration]
	entries directory
	ids     openIDs
	waiters waiters
	alerts  deliveries

	undelivered undelivered

	timer schedule

	shared shared // nil: this tracker's memory is the state
	saver  *saver // nil: nothing is saved, or the state is shared
	past   finishedDays
	file   *JSONFile // nil: another Persistence
	leave  func()    // gives up the file

	setting  sync.Mutex // held while entries are given their rules, so that configurations follow each other
	closing  sync.Mutex // held by Close, so that a second waits for the first
	closed   chan struct{}
	closeErr error
	done     atomic.Bool
	opening  atomic.Bool // New is at work: alerts wait for the first call that changes something
}

// New returns a tracker that goes on from the state that cfg.Persistence has. What cannot work shows here: a wrong
// configuration is ErrInvalidConfig, a state in use in a way that excludes this tracker ErrLocked, a state written by
// a newer version ErrNewerState, and a file that cannot be written an error that names it. A damaged state is set aside
// and reported in Summary.Recovered. ctx bounds New alone.
func New(ctx context.Context, cfg Config) (*QuotaTracker, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	t := &QuotaTracker{cfg: cfg, writer: newWriter(), closed: make(chan struct{})}
	t.cfg.Quotas = slices.Clone(cfg.Quotas)
	if _, system := cfg.Clock.(systemClock); system {
		t.wall = newWallClock()
	}
	t.timer.tracker, t.past.tracker = t, t
	if t.bare, err = t.cfg.rules(&Quota{}, &t.zones, t.past.of); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalidConfig, err)
	}
	config, err := t.cfg.compile(t.cfg.Quotas, &t.zones, t.past.of)
	if err != nil {
		return nil, err
	}
	t.current.Store(config)
	t.opening.Store(true)
	err = t.load(ctx)
	t.opening.Store(false)
	if err != nil {
		t.done.Store(true)
		_ = t.end() // what has begun ends before the state is given up
		return nil, err
	}
	return t, nil
}

// load opens the Persistence, takes over its state and applies the configuration to it.
func (t *QuotaTracker) load(ctx context.Context) error {
	asShared, isShared := t.cfg.Persistence.(SharedPersistence)
	_, forgets := t.cfg.Persistence.(inMemory)
	t.file, _ = t.cfg.Persistence.(*JSONFile)
	lazy := t.cfg.FlushInterval > 0
	if isShared && lazy && t.file == nil {
		return fmt.Errorf("%w: FlushInterval needs a state that this tracker owns alone", ErrInvalidConfig)
	}
	if t.file != nil {
		leave, err := t.file.open(ctx, lazy, t.cfg.Clock.Now, t.cfg.Logger)
		if err != nil {
			return err
		}
		t.leave = leave
	}
	state, err := t.cfg.Persistence.Load(ctx)
	if err != nil {
		return fmt.Errorf("quota: loading the state: %w", err)
	}
	if state == nil {
		state = &State{}
	}
	if state.Version > stateVersion {
		return ErrNewerState
	}
	t.past.take(state.History)
	switch {
	case isShared && !lazy:
		t.shared.start(t, asShared)
	case !forgets:
		t.saver = newSaver(t, state)
	}
	t.entries.fill(t, state.Books)
	err = t.applyConfiguration(ctx)
	for _, e := range t.entries.all() { // what is open expires, also if nothing else ever happens
		e.mu.Lock()
		t.timer.consider(e)
		e.mu.Unlock()
	}
	return err
}

func newWriter() uint64 {
	var random [8]byte
	_, _ = rand.Read(random[:]) // never fails
	return binary.LittleEndian.Uint64(random[:]) | 1
}

// applyConfiguration makes every entry follow the current configuration, and saves what that changes.
func (t *QuotaTracker) applyConfiguration(ctx context.Context) error {
	t.setting.Lock()
	names := t.entries.configure(t, t.current.Load())
	t.setting.Unlock() // before alerts are delivered: their callback may set quotas
	var err error
	if len(names) > 0 {
		err = t.change(ctx, &touch{names})
	}
	t.waiters.wakeAll()
	if errors.Is(err, ErrPending) {
		return nil // it is derived from the configuration and goes out with the next save
	}
	return err
}

// touch is an operation that only lets time pass and the configuration apply.
type touch struct{ names []string }

func (o *touch) quotas() []string { return o.names }
func (o *touch) apply([]page)     {}

// SetQuotas puts other quotas in the place of those configured. Usage is kept where unit and window are the same; a new
// limit starts with the day totals that fall into its window; a quota that is not named any more is kept in the state
// but unknown to callers. After ErrInvalidConfig nothing has changed. After ErrNotSaved the new limits hold in this
// tracker, and what they change in the state goes out with the next save.
func (t *QuotaTracker) SetQuotas(ctx context.Context, quotas []Quota) error {
	if t.done.Load() {
		return ErrClosed
	}
	config, err := t.cfg.compile(slices.Clone(quotas), &t.zones, t.past.of)
	if err != nil {
		return err
	}
	t.current.Store(config)
	return t.applyConfiguration(ctx)
}

// Reset makes what a quota has used 0 and arms its alerts again. Open reservations and today's totals stay. ErrNotSaved:
// the state is shared and the save has failed; it is not made later, so call Reset again (where it was the last step of the
// save that failed, it may stand in the state all the same). When ctx ends while it waits for a shared state, it may be made
// yet. On any other state it takes effect even when the save fails, see ErrPending.
func (t *QuotaTracker) Reset(ctx context.Context, name string) error {
	found, err := t.current.Load().resolve(name)
	if err != nil {
		return err
	}
	return t.change(ctx, &resetting{found.name})
}

type resetting struct{ name string }

func (o *resetting) quotas() []string { return []string{o.name} }
func (o *resetting) apply(pages []page) {
	pages[0].book.reset(pages[0].now)
}

// Refresh rereads a shared state now. On any other it does nothing.
func (t *QuotaTracker) Refresh(ctx context.Context) error {
	if t.done.Load() {
		return ErrClosed
	}
	if !t.shared.active() {
		return nil
	}
	return t.shared.submit(ctx, &rereading{})
}

// rereading is an operation on every quota that changes nothing.
type rereading struct{}

func (o *rereading) quotas() []string { return nil }
func (o *rereading) apply([]page)     {}

// Flush saves what has not been saved yet: with FlushInterval what has come since the last save, else what an earlier
// save could not, and counters of refusals.
func (t *QuotaTracker) Flush(ctx context.Context) error {
	if t.done.Load() {
		return ErrClosed
	}
	return t.flush(ctx)
}

func (t *QuotaTracker) flush(ctx context.Context) error {
	var err error
	switch {
	case t.shared.active():
		err = t.shared.flush(ctx)
	case t.saver != nil:
		err = t.saver.flush(ctx)
	}
	t.deliver(ctx)
	return err
}

// Close wakes waiters with ErrClosed, saves what is left (for at most 5 seconds, then it returns ErrNotSaved), stops
// timers and leaves no goroutine of its own behind. Alerts whose callback has not begun are left to the next tracker on
// the same state; a callback that has begun is not waited for, and may itself call Close. It does not close the
// Persistence. A second Close returns the same.
func (t *QuotaTracker) Close() error {
	t.closing.Lock()
	defer t.closing.Unlock()
	if t.done.Swap(true) {
		return t.closeErr
	}
	close(t.closed)
	if err := t.end(); err != nil {
		t.closeErr = fmt.Errorf("%w: closing: %w", ErrNotSaved, err)
	}
	return t.closeErr
}

// end stops the timer, saves what is left, and gives up the state.
func (t *QuotaTracker) end() (err error) {
	t.timer.stop()
	ctx, cancel := context.WithTimeout(context.Background(), closeGrace)
	defer cancel()
	t.handBack(ctx)
	t.settleDown(ctx)
	t.handBack(ctx) // what calls that had begun before have crossed meanwhile
	switch {
	case t.shared.active():
		err = t.shared.close(ctx)
	case t.saver != nil:
		err = t.saver.close(ctx)
	}
	if t.leave != nil {
		t.leave()
	}
	return err
}

// settleDown returns when the saves that have begun are over.
func (t *QuotaTracker) settleDown(ctx context.Context) {
	switch {
	case t.shared.active():
		_ = t.shared.rest(ctx)
	case t.saver != nil:
		_ = t.saver.flush(ctx) // the last save reports what cannot be saved
	}
}

// Verify checks the laws of the ledger: what is reserved is what the open reservations hold, and every reservation
// granted is open, settled or expired. It looks at every quota, and is meant for tests and for doubt.
func (t *QuotaTracker) Verify() error {
	var errs []error
	for _, e := range t.entries.all() {
		t.view(e)
		errs = append(errs, e.book.verify())
		e.mu.Unlock()
	}
	return errors.Join(errs...)
}
