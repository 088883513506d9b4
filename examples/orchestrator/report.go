package main

import (
	"errors"
	"fmt"
	"strconv"
	"sync"
	"text/tabwriter"

	"example.com/quota"
)

// A tally is what was used of one provider: known from its answers, or charged as held because nobody knows.
type tally struct{ known, unknown use }

func (t tally) plus(u tally) tally  { return tally{t.known.plus(u.known), t.unknown.plus(u.unknown)} }
func (t tally) minus(u tally) tally { return tally{t.known.minus(u.known), t.unknown.minus(u.unknown)} }
func (t tally) total() use          { return t.known.plus(t.unknown) }

// counts is what the workers did, counted by themselves. It is safe for concurrent use.
type counts struct {
	mu         sync.Mutex
	used       map[string]tally // by provider
	all        tally            // of all providers
	notSent    int
	turnedAway int // no room anywhere
	notStarted int // Ctrl-C came first
	fellOver   int // the cheapest provider had no room
	inFlight   int // reserved and not yet settled
	peak       int // of inFlight
}

func (c *counts) reserved(fellOver bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if fellOver {
		c.fellOver++
	}
	c.inFlight++
	c.peak = max(c.peak, c.inFlight)
}

func (c *counts) settled(name string, used tally) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.inFlight--
	if used == (tally{}) {
		c.notSent++
		return
	}
	if c.used == nil {
		c.used = map[string]tally{}
	}
	c.used[name] = c.used[name].plus(used)
	c.all = c.all.plus(used)
}

func (c *counts) turnAway() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.turnedAway++
}

func (c *counts) notStart(n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.notStarted += n
}

// progress says how things stand while the workers work.
func (c *counts) progress() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return fmt.Sprintf("%s, %d in flight", c.outcomes(), c.inFlight)
}

// summary says how things stand when they have finished.
func (c *counts) summary() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return fmt.Sprintf("%s\n%s fell over to a dearer provider, at most %d were in flight at once",
		c.outcomes(), thousands(c.fellOver), c.peak)
}

func (c *counts) outcomes() string {
	text := fmt.Sprintf("%s answered, %s of unknown outcome, %s not sent, %s turned away",
		thousands(c.all.known.requests), thousands(c.all.unknown.requests), thousands(c.notSent), thousands(c.turnedAway))
	if c.notStarted > 0 {
		text += fmt.Sprintf(", %s not started", thousands(c.notStarted))
	}
	return text
}

// A stock is how the providers stood when the run began.
type stock struct {
	tracker *quota.QuotaTracker
	quotas  []quota.QuotaStatus
}

func takeStock(tracker *quota.QuotaTracker, providers []provider) stock {
	s := stock{tracker: tracker}
	for _, p := range providers {
		status, _ := tracker.Status(p.name)
		s.quotas = append(s.quotas, status)
	}
	return s
}

// print says what the run continues from.
func (s stock) print(out *printer, path string) {
	if recovered := s.tracker.Summary().Recovered; recovered != "" {
		out.printf("NOTE   %s\n", recovered)
	}
	fresh := true
	continuing := func(format string, args ...any) {
		if fresh {
			out.printf("continuing from %s:\n", path)
			fresh = false
		}
		out.printf("  "+format+"\n", args...)
	}
	for _, q := range s.quotas {
		for _, limit := range q.Limits {
			if limit.Used > 0 {
				used, most := amountText(limit.Unit, limit.Used), amountText(limit.Unit, limit.Max)
				continuing("%-12s %s of %s %s used", q.Name, used, most, limit.Limit)
			}
		}
		if len(q.Limits) == 0 && q.Today.Calls > 0 {
			continuing("%-12s %d calls today", q.Name, q.Today.Calls)
		}
		if q.Reservations > 0 {
			continuing("%-12s %d still open, of a run that was killed: charged as held when they expire", q.Name, q.Reservations)
		}
	}
	if fresh {
		out.printf("starting fresh: no usage saved in %s\n", path)
	}
	out.printf("\n")
}

// reconcile prints what the workers counted beside what the tracker counted since s was taken. The error names every
// number in which they differ.
func (s stock) reconcile(out *printer, counts *counts) error {
	var differences []error
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(table, "\t\trequests\tinput tokens\toutput tokens\tdollars\t")
	row := func(name, who string, u use) {
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\t\n",
			name, who, thousands(u.requests), thousands(u.input), thousands(u.output), dollars(u.pico))
	}
	for _, before := range s.quotas {
		workers, tracker := counts.used[before.Name], s.since(before)
		row(before.Name, "workers", workers.total())
		row("", "tracker", tracker.total())

		// Calls that a killed run left open are charged, as unknown, when they expire: perhaps just now.
		after, _ := s.tracker.Status(before.Name)
		left := tally{unknown: tracker.unknown.minus(workers.unknown)}
		if n := left.unknown.requests; n > 0 && n <= int64(before.Reservations) {
			row("", "left by an earlier run", left.unknown)
			workers = workers.plus(left)
		}
		for _, d := range []struct {
			what             string
			workers, tracker int64
		}{
			{"requests", workers.total().requests, tracker.total().requests},
			{"input tokens", workers.total().input, tracker.total().input},
			{"output tokens", workers.total().output, tracker.total().output},
			{"picodollars", workers.total().pico, tracker.total().pico},
			{"requests of unknown outcome", workers.unknown.requests, tracker.unknown.requests},
			{"reservations left open", 0, int64(after.Reservations-before.Reservations) + left.unknown.requests},
		} {
			if d.workers != d.tracker {
				differences = append(differences, fmt.Errorf("%s: %d %s by the workers' count, %d by the tracker's",
					before.Name, d.workers, d.what, d.tracker))
			}
		}
	}
	table.Flush()
	if differences != nil {
		return fmt.Errorf("totals do not match (does another process use the same state?): %w", errors.Join(differences...))
	}
	out.printf("totals match\n")
	return nil
}

// since returns what the tracker has counted since before. Midnight may have passed once or more.
func (s stock) since(before quota.QuotaStatus) tally {
	// Today first: a day that ends between the two calls is then in both, and skipped below, but never in neither.
	now, _ := s.tracker.Status(before.Name)
	sum := tallyOf(now.Today)
	for _, day := range s.tracker.History(before.Name) {
		if !day.Day.Before(before.Today.Day) && day.Day.Before(now.Today.Day) {
			sum = sum.plus(tallyOf(day))
		}
	}
	return sum.minus(tallyOf(before.Today))
}

func tallyOf(day quota.DaySummary) tally {
	used, unknown := useOf(day.Used), useOf(day.Estimated)
	return tally{known: used.minus(unknown), unknown: unknown}
}

func useOf(units map[quota.Unit]int64) use {
	return use{
		requests: units[quota.UnitRequests],
		input:    units[quota.UnitInputTokens],
		output:   units[quota.UnitOutputTokens],
		pico:     units[quota.UnitUSD],
	}
}

func amountText(unit quota.Unit, n int64) string {
	if unit == quota.UnitUSD {
		return dollars(n)
	}
	return thousands(n)
}

// dollars rounds down to a hundredth of a cent.
func dollars(pico int64) string {
	return fmt.Sprintf("$%d.%04d", pico/quota.Dollar, pico%quota.Dollar/(quota.Dollar/10_000))
}

func thousands[N int | int64](n N) string {
	text := strconv.FormatInt(int64(n), 10)
	for i := len(text) - 3; i > 0; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return text
}
