package quota

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// A handClock is turned by hand. Its timers go off when somebody says so.
type handClock struct {
	mu     sync.Mutex // protects what follows
	at     time.Time
	timers []func()
}

func (c *handClock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

func (c *handClock) pass(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(d)
}

func (c *handClock) AfterFunc(_ time.Duration, f func()) func() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.timers = append(c.timers, f)
	return func() bool { return false }
}

// ring lets the timers that are set now go off.
func (c *handClock) ring() {
	c.mu.Lock()
	due := c.timers
	c.timers = nil
	c.mu.Unlock()
	for _, f := range due {
		f()
	}
}

// manyDue returns a tracker in which so many reservations of one request are due, in a quota with room for one more.
func manyDue(t *testing.T, many int) (*QuotaTracker, *handClock) {
	t.Helper()
	clock := &handClock{at: time.Date(2026, 3, 4, 12, 0, 0, 0, time.UTC)}
	tracker, err := New(t.Context(), Config{
		Persistence: InMemory(), Clock: clock, OnExpiry: ReleaseExpired, ReservationTTL: time.Minute,
		Quotas: []Quota{{Name: "q", Limits: []Limit{{Max: int64(many) + 1, Window: InFlight()}}}},
	})
	require.NoError(t, err)
	t.Cleanup(func() {
		require.NoError(t, tracker.Verify())
		require.NoError(t, tracker.Close())
	})
	for range many {
		_, err := tracker.Reserve(t.Context(), "q")
		require.NoError(t, err)
	}
	clock.pass(time.Hour)
	return tracker, clock
}

// open is how many holds are open, whatever is due.
func (t *QuotaTracker) openIn(name string) int {
	e := t.entries.find(name)
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.book.holds.open()
}

func TestManyHoldsThatAreDueExpireInParts(t *testing.T) {
	t.Parallel()
	const many = 3*manyExpire + 5
	tracker, clock := manyDue(t, many)
	r, err := tracker.Reserve(t.Context(), "q")
	require.NoError(t, err)
	require.Equal(t, many-manyExpire+1, tracker.openIn("q"), "who comes first lets a part expire")
	require.NoError(t, r.Release(t.Context()))
	require.Equal(t, many-manyExpire-fewExpire, tracker.openIn("q"), "who comes next does little")
	require.True(t, tracker.CanUse("q"))
	require.Positive(t, tracker.openIn("q"), "there was room without the others")
	clock.ring()
	require.Zero(t, tracker.openIn("q"), "the timer lets all expire")
	status, _ := tracker.Status("q")
	require.EqualValues(t, many, status.Today.Expired)
}

func TestARefusalWaitsUntilAllThatIsDueHasExpired(t *testing.T) {
	t.Parallel()
	const many = 2 * manyExpire
	ctx := context.Background()
	for name, ask := range map[string]func(*QuotaTracker) bool{
		"CanUse":  func(t *QuotaTracker) bool { return t.CanUse("q", Requests(many+1)) },
		"Check":   func(t *QuotaTracker) bool { return t.Check("q", Requests(many+1)).Allowed },
		"Reserve": func(t *QuotaTracker) bool { _, err := t.Reserve(ctx, "q", Requests(many+1)); return err == nil },
		"Acquire": func(t *QuotaTracker) bool {
			_, err := t.Acquire(ctx, Request{All: []string{"q"}, Amounts: []Amount{Requests(many + 1)}})
			return err == nil
		},
	} {
		tracker, _ := manyDue(t, many)
		require.True(t, ask(tracker), name)
	}
}

func TestWhatIsShownIsOfAfterAllExpiries(t *testing.T) {
	t.Parallel()
	const many = 2 * manyExpire
	for name, look := range map[string]func(*QuotaTracker) int64{
		"Status":  func(t *QuotaTracker) int64 { s, _ := t.Status("q"); return s.Today.Expired },
		"Summary": func(t *QuotaTracker) int64 { return t.Summary().Quotas[0].Today.Expired },
		"Verify":  func(t *QuotaTracker) int64 { _ = t.Verify(); return many - int64(t.openIn("q")) },
	} {
		tracker, _ := manyDue(t, many)
		require.EqualValues(t, many, look(tracker), name)
	}
}

// lagging returns a tracker with a thousand holds that were due long ago, on a machine that has slept over midnight, its
// timers with it.
func lagging(t *testing.T, interval time.Duration, limits ...Limit) (*QuotaTracker, *handClock) {
	t.Helper()
	clock := &handClock{at: time.Date(2026, 3, 4, 22, 0, 0, 0, time.UTC)}
	store := InMemory()
	if interval > 0 {
		store = NewJSONFile(t.TempDir() + "/state.json")
	}
	tracker, err := New(t.Context(), Config{
		Persistence: store, FlushInterval: interval, Clock: clock, OnAlert: func(Alert) {}, Quotas: []Quota{{Name: "q", Limits: limits}},
	})
	require.NoError(t, err)
	t.Cleanup(func() {
		require.NoError(t, tracker.Verify())
		require.NoError(t, tracker.Close())
	})
	for range 2 * manyExpire {
		_, err := tracker.Reserve(t.Context(), "q", Requests(0), Tokens(1))
		require.NoError(t, err)
		clock.pass(time.Second)
	}
	clock.pass(10 * time.Hour)
	return tracker, clock
}

func TestNothingIsDecidedAtATimeThatHasPassed(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		window Window
		most   int64
	}{"rate": {Every(time.Minute), 10}, "rolling": {Rolling(time.Minute), 10}, "in flight": {InFlight(), 2}} {
		for _, interval := range []time.Duration{0, time.Hour} {
			tracker, clock := lagging(t, interval, Limit{Max: c.most, Window: c.window})
			granted := int64(0)
			for round := range 4 {
				for range 20 {
					r, err := tracker.Reserve(t.Context(), "q")
					if err != nil {
						continue
					}
					granted++
					require.Equal(t, clock.Now().Add(defaultTTL), r.ExpiresAt(), name)
				}
				if round == 1 {
					clock.ring()
				}
			}
			require.Equal(t, c.most, granted, name)
		}
	}
	tracker, clock := lagging(t, 0, Limit{Max: 10})
	require.NoError(t, tracker.RecordUsage(t.Context(), "q", Requests(9)))
	clock.ring()
	status, _ := tracker.Status("q")
	require.EqualValues(t, 9, status.Limits[0].Used, "it is of today")
}

// manyOpen returns a tracker with more open reservations in a day than expire at once.
func manyOpen(t *testing.T) (*QuotaTracker, *handClock) {
	t.Helper()
	clock := &handClock{at: time.Date(2026, 3, 4, 12, 0, 0, 0, time.UTC)}
	tracker, err := New(t.Context(), Config{
		Persistence: InMemory(), Clock: clock, OnAlert: func(Alert) {}, Quotas: []Quota{{Name: "q", Limits: []Limit{{Max: 1 << 20}}}},
	})
	require.NoError(t, err)
	t.Cleanup(func() {
		require.NoError(t, tracker.Verify())
		require.NoError(t, tracker.Close())
	})
	for range 3 * manyExpire {
		_, err := tracker.Reserve(t.Context(), "q")
		require.NoError(t, err)
	}
	return tracker, clock
}

func TestAResetIsOfAllThatWasDueBeforeIt(t *testing.T) {
	t.Parallel()
	tracker, clock := manyOpen(t)
	clock.pass(time.Hour)
	require.NoError(t, tracker.Reset(t.Context(), "q"))
	status, _ := tracker.Status("q")
	require.Zero(t, status.Limits[0].Used)
	require.Zero(t, status.Reservations)
}

func TestAnIDWhoseReservationIsDueIsAdmittedAnewAndOnce(t *testing.T) {
	t.Parallel()
	tracker, clock := manyOpen(t)
	request := Request{All: []string{"q"}, ID: "job"}
	_, err := tracker.Acquire(t.Context(), request)
	require.NoError(t, err)
	clock.pass(time.Hour)
	require.True(t, tracker.CanUse("q")) // a part has expired, this one has not
	again, err := tracker.Acquire(t.Context(), request)
	require.NoError(t, err)
	same, err := tracker.Acquire(t.Context(), request)
	require.NoError(t, err)
	clock.ring()
	require.NoError(t, same.Commit(t.Context()))
	require.ErrorIs(t, again.Commit(t.Context()), ErrSettled)
}

func TestHoldsExpireInPartsOnlyWhereNothingHasTurnedSinceTheyWereDue(t *testing.T) {
	t.Parallel()
	const never = 0
	for _, c := range []struct {
		window Window
		turn   int64 // how long after noon it turns; never: not before the day does
		flows  bool
	}{
		{window: Daily(nil)},
		{window: Daily(time.FixedZone("", -3600)), turn: 13 * hour},
		{window: Lifetime()},
		{window: InFlight()},
		{window: Every(2 * time.Hour), turn: 2 * hour},
		{window: Rolling(2 * time.Hour), flows: true},
		{window: Refill(2 * time.Hour), flows: true},
		{window: Session(2 * time.Hour), flows: true},
	} {
		turn := min(12*hour, c.turn)
		if c.turn == never {
			turn = 12 * hour
		}
		for at, inParts := range map[int64]bool{minute: !c.flows, turn - 1: !c.flows, turn: false, turn + 1: false} {
			l := newLedger(t, Limit{Max: 100, Window: c.window})
			for range 3 {
				l.grant(minute, Requests(1))
			}
			_, behind := l.book.advanceSome(l.rules, noon+at, 1)
			require.Equal(t, inParts, behind, "%v, %v later", c.window, time.Duration(at))
			if inParts {
				require.Equal(t, 2, l.book.holds.open(), "%v, %v later", c.window, time.Duration(at))
				_, behind = l.book.advanceSome(l.rules, noon+at, 1)
				require.True(t, behind, "who comes next does not take it for done")
				_, behind = l.book.advanceSome(l.rules, noon+at, 1)
				require.False(t, behind)
			}
			require.Zero(t, l.book.holds.open(), "%v, %v later", c.window, time.Duration(at))
		}
	}
}
