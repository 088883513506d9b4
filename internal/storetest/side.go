package storetest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"example.com/quota"
	"example.com/quota/quotatest"
)

// begin is when every sequence begins: a Monday. All that follows lies ten seconds apart, and five from any midnight, so
// that a store whose time is a little late is never on the other side of a turn.
var begin = time.Date(2026, time.January, 5, 9, 0, 5, 0, time.UTC)

const (
	grid      = 10 * time.Second
	tolerance = 4 * time.Second
)

// A side is a tracker of a sequence, and what it needs.
type side struct {
	config  quota.Config
	clock   *quotatest.Clock // what counts
	subject *Subject         // nil: it is in memory
	place   Place
	tracker *quota.QuotaTracker
	exact   *exactStore // nil: the store has no time of its own
	free    func()
	handles []*quota.Reservation // nil: cannot be found any more

	mu     sync.Mutex // guards what follows
	alerts []quota.Alert
	anchor time.Time     // when the store's clock was put right
	stood  time.Time     // at which the clock stood then
	by     time.Duration // by which the store's clock has been ahead of its server's since
}

func newSide(config quota.Config, at time.Time, subject *Subject, place Place, skew time.Duration) *side {
	s := &side{config: config, clock: quotatest.NewClock(at), subject: subject, place: place}
	s.place.Ahead = s.ahead
	s.config.Clock = wrongClock{s.clock, skew}
	s.config.Logger = slog.New(slog.DiscardHandler)
	s.config.OnAlert = func(a quota.Alert) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.alerts = append(s.alerts, a)
	}
	return s
}

// ahead makes the store's clock show what the clock shows, and go on from there, as stores expect of clocks.
func (s *side) ahead() time.Duration {
	now := s.clock.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	if !now.Equal(s.stood) || time.Since(s.anchor) > tolerance/2 {
		s.anchor, s.stood, s.by = time.Now(), now, time.Until(now)
	}
	return s.by
}

// open opens the store, if there is one, and a tracker on it.
func (s *side) open(ctx context.Context) (err error) {
	s.config.Persistence = quota.InMemory()
	if s.subject != nil {
		if s.config.Persistence, s.free, err = s.subject.Open(ctx, s.place); err != nil {
			return err
		}
		shared, ok := s.config.Persistence.(quota.SharedPersistence)
		if !ok {
			return errors.New("it is not a quota.SharedPersistence")
		}
		if s.subject.Timed {
			s.exact = &exactStore{SharedPersistence: shared, clock: s.clock}
			s.config.Persistence = s.exact
		}
	}
	s.tracker, err = quota.New(ctx, s.config)
	return err
}

// close closes the tracker and the store.
func (s *side) close() error {
	var err error
	if s.tracker != nil {
		err = s.tracker.Close()
	}
	if s.free != nil {
		s.free()
	}
	s.tracker, s.free = nil, nil
	return err
}

// wrong returns what is wrong with the store's time.
func (s *side) wrong() error {
	if s.exact == nil {
		return nil
	}
	return s.exact.complaint()
}

func (s *side) status(name string) string {
	status, known := s.tracker.Status(name)
	if !known {
		return "unknown"
	}
	if fleeting(status) {
		status.Today.Denied, status.Today.DeniedBy = 0, nil
	}
	return inJSON(status)
}

// fleeting reports whether nothing but refusals counts of a user today: where there is no book, a store shows those when they
// have been saved.
func fleeting(status quota.QuotaStatus) bool {
	return strings.HasPrefix(status.Name, "user:") && status.Reservations == 0 && status.Today.Calls == 0
}

// told returns the alerts, those of each quota as they came: in which order quotas have theirs is open.
func (s *side) told() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := slices.Clone(s.alerts)
	slices.SortStableFunc(list, func(x, y quota.Alert) int { return strings.Compare(x.Quota, y.Quota) })
	var lines []string
	for _, alert := range list {
		lines = append(lines, inJSON(alert))
	}
	return strings.Join(lines, "\n")
}

// summary leaves out users of whom nothing counts today: of those who were only looked at there is nothing on a store.
func (s *side) summary() string {
	summary := s.tracker.Summary()
	var lines []string
	for _, one := range summary.Quotas {
		if !fleeting(one) {
			lines = append(lines, inJSON(one))
		}
	}
	return strings.Join(append(lines, summary.Recovered), "\n")
}

func (s *side) history(name string) string {
	var lines []string
	for _, day := range s.tracker.History(name) {
		lines = append(lines, inJSON(day))
	}
	return strings.Join(lines, "\n")
}

func inJSON(v any) string {
	data, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("storetest: %T has no JSON form: %v", v, err))
	}
	return string(data)
}

// A wrongClock is another, so much ahead.
type wrongClock struct {
	*quotatest.Clock
	by time.Duration
}

func (c wrongClock) Now() time.Time { return c.Clock.Now().Add(c.by) }

// An exactStore shows a tracker the very time of a clock, where the store's own time is that but for a moment, so that
// its answers can be compared. It complains when the store's time is another.
type exactStore struct {
	quota.SharedPersistence
	clock *quotatest.Clock

	mu    sync.Mutex // guards what follows
	wrong error
}

func (s *exactStore) Update(ctx context.Context, names []string, fn func(*quota.Tx) error) error {
	const several = 5
	var first, last, now time.Time
	runs := 0
	first = s.clock.Now()
	err := s.SharedPersistence.Update(ctx, names, func(tx *quota.Tx) error {
		runs++
		now, last = tx.Now, s.clock.Now()
		shown := &quota.Tx{Now: last, Books: tx.Books}
		err := fn(shown)
		tx.Books, tx.Until = shown.Books, shown.Until
		if !tx.Until.IsZero() && tx.Until.Before(last.Add(tolerance)) {
			// Nothing is due so soon but what a book has put off by a nanosecond, to tell two instants apart.
			tx.Until = last.Add(tolerance)
		}
		return err
	})
	// Only what the last run saw has counted. The clock may have been turned since the call.
	if (err == nil || runs > several) && (now.Before(first.Add(-tolerance)) || now.After(last.Add(tolerance))) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.wrong = fmt.Errorf("the store's time is %v where its clock stands at %v: does Open heed Place.Ahead?", now, last)
	}
	return err
}

func (s *exactStore) complaint() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.wrong
}
