package calendar

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"example.com/quota"
	"example.com/quota/torture/harness"
)

// The years that are walked, and what is known around them.
var (
	firstProbe = time.Date(1970, time.January, 3, 0, 0, 0, 0, time.UTC).Unix()
	lastProbe  = time.Date(2045, time.January, 1, 0, 0, 0, 0, time.UTC).Unix()
	knownFrom  = firstProbe - 100*daySeconds
	knownTo    = lastProbe + 100*daySeconds
)

// A kind is one calendar window and how its dates belong together.
type kind struct {
	window quota.Window
	number period
}

func kinds(loc *time.Location) []kind {
	all := []kind{{quota.Daily(loc), daily}}
	for first := time.Sunday; first <= time.Saturday; first++ {
		all = append(all, kind{quota.Weekly(loc, first), weekly(first)})
	}
	for _, first := range []int{1, 15, 28, 29, 30, 31} {
		all = append(all, kind{quota.Monthly(loc, first), monthly(first)})
	}
	return all
}

// A stage is a tracker with a limit of each kind, by a clock that is set from probe to probe.
type stage struct {
	tracker *quota.QuotaTracker
	kinds   []kind
	windows [][]window // of each kind
	current []int      // of each kind: the window that the probe is in
	used    []int64    // of each kind: recorded in that window
	days    []day
	today   int

	mu     sync.Mutex
	now    time.Time
	alerts []quota.Alert
}

const name = "zone:walked" // of a template, which keeps no past days

func (s *stage) Now() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.now
}

// AfterFunc never calls: windows turn when somebody looks.
func (s *stage) AfterFunc(time.Duration, func()) func() bool { return func() bool { return true } }

// walk goes through a zone: the last instant before each day and its first, a second around each change of the zone.
// Every day a request is recorded.
func walk(ctx context.Context, zone string) error {
	loc, err := time.LoadLocation(zone)
	if err != nil {
		return err
	}
	all := changes(loc, knownFrom, knownTo)
	s := &stage{kinds: kinds(loc), days: daysOf(all, knownTo), now: time.Unix(firstProbe, 0)}
	s.current, s.used = make([]int, len(s.kinds)), make([]int64, len(s.kinds))
	config := quota.Config{
		Persistence: quota.InMemory(),
		Quotas:      []quota.Quota{{Name: "zone:*"}},
		Location:    loc,
		Clock:       s,
		OnAlert:     func(alert quota.Alert) { s.alerts = append(s.alerts, alert) },
		Logger:      slog.New(slog.DiscardHandler),
	}
	for _, k := range s.kinds {
		s.windows = append(s.windows, windowsOf(s.days, k.number))
		config.Quotas[0].Limits = append(config.Quotas[0].Limits,
			quota.Limit{Max: 1, Window: k.window, Soft: true, AlertThresholds: []int{100}})
	}
	if s.tracker, err = quota.New(ctx, config); err != nil {
		return err
	}
	defer func() { _ = s.tracker.Close() }() // it keeps nothing

	for _, at := range probes(all, s.days) {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		s.now = at
		if err := s.look(); err != nil {
			return fmt.Errorf("at %s: %w", at.In(loc).Format("Mon 2006-01-02 15:04:05.999999999 -07:00:00"), err)
		}
		if at.Unix() == s.days[s.today].start && at.Nanosecond() == 0 {
			if err := s.record(ctx); err != nil {
				return fmt.Errorf("at %s: %w", at.In(loc).Format("Mon 2006-01-02 15:04:05 -07:00:00"), err)
			}
		}
	}
	return nil
}

// probes returns the instants to look at, in order.
func probes(all []change, days []day) []time.Time {
	var list []time.Time
	add := func(at time.Time) {
		if second := at.Unix(); second >= firstProbe && second < lastProbe {
			list = append(list, at)
		}
	}
	for _, day := range days {
		add(time.Unix(day.start, -1))
		add(time.Unix(day.start, 0))
	}
	for _, change := range all {
		for _, second := range []int64{-1, 0, 1} {
			add(time.Unix(change.at+second, 0))
		}
	}
	slices.SortFunc(list, time.Time.Compare)
	return slices.CompactFunc(list, time.Time.Equal)
}

// look compares what the tracker shows with the windows that there should be.
func (s *stage) look() error {
	second := s.now.Unix()
	for s.days[s.today+1].start <= second {
		s.today++
	}
	status, ok := s.tracker.Status(name)
	if !ok {
		return fmt.Errorf("%s is not a quota", name)
	}
	if today := s.days[s.today]; status.Today.Day.Unix() != today.start || status.Today.Day.Nanosecond() != 0 {
		return harness.Violated("today began at %s, shown is %s", utc(today.start), status.Today.Day.UTC())
	}
	for i := range s.kinds {
		for s.windows[i][s.current[i]].end <= second {
			s.current[i]++
			s.used[i] = 0
		}
		wanted, shown := s.windows[i][s.current[i]], &status.Limits[i]
		if wanted.start > second {
			return fmt.Errorf("the windows of %s begin at %s only", shown.Limit, utc(wanted.start))
		}
		if shown.ResetsAt.Unix() != wanted.end || shown.ResetsAt.Nanosecond() != 0 {
			return harness.Violated("%s: the window of %s ends at %s, shown is %s",
				shown.Limit, utc(wanted.start), utc(wanted.end), shown.ResetsAt.UTC())
		}
		if shown.Used != s.used[i] {
			return harness.Violated("%s: %d were recorded in the window from %s to %s, shown are %d",
				shown.Limit, s.used[i], utc(wanted.start), utc(wanted.end), shown.Used)
		}
	}
	return nil
}

// record records a request. Every window for which it is the first says so in an alert, with its bounds.
func (s *stage) record(ctx context.Context) error {
	s.alerts = s.alerts[:0]
	if err := s.tracker.RecordUsage(ctx, name); err != nil {
		return err
	}
	said := 0
	for i := range s.kinds {
		s.used[i]++
		if s.used[i] > 1 {
			continue
		}
		wanted := s.windows[i][s.current[i]]
		j := slices.IndexFunc(s.alerts, func(alert quota.Alert) bool { return alert.Limit.Window == s.kinds[i].window })
		if j < 0 {
			return harness.Violated("%s: a window began at %s, and its first request fired no alert", s.kinds[i].window, utc(wanted.start))
		}
		alert := s.alerts[j]
		// The library knows no time before 1970.
		if start := max(wanted.start, 0); alert.WindowStart.Unix() != start || start > 0 && alert.WindowStart.Nanosecond() != 0 ||
			alert.WindowEnd.Unix() != wanted.end || alert.WindowEnd.Nanosecond() != 0 {
			return harness.Violated("%s: the window is from %s to %s, said is from %s to %s",
				s.kinds[i].window, utc(wanted.start), utc(wanted.end), alert.WindowStart.UTC(), alert.WindowEnd.UTC())
		}
		said++
	}
	if said != len(s.alerts) {
		return harness.Violated("%d windows began, and %d alerts fired: %v", said, len(s.alerts), s.alerts)
	}
	return nil
}

func utc(second int64) string { return time.Unix(second, 0).UTC().Format("2006-01-02 15:04:05 MST") }
