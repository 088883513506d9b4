package linear

import (
	"context"

	"example.com/quota"
	"example.com/quota/torture/harness"
)

// reopened looks at what the closed trackers have left, where they leave anything.
func reopened(ctx context.Context, p plan, events []event) ([]event, error) {
	if p.Path == "" {
		return events, nil
	}
	p.Lazy = false
	tracker, err := p.open(ctx)
	if err != nil {
		return nil, harness.Violated("opening the state again: %v", err)
	}
	events, err = finish(p, tracker, events)
	if err != nil {
		return nil, err
	}
	if err := tracker.Close(); err != nil {
		return nil, harness.Violated("closing after a look: %v", err)
	}
	return events, nil
}

// finish adds what everybody sees at the end. Calls whose end nobody has seen have ended by now.
func finish(p plan, tracker *quota.QuotaTracker, events []event) ([]event, error) {
	if err := tracker.Verify(); err != nil {
		return nil, harness.Violated("Verify: %v", err)
	}
	if what := tracker.Summary().Recovered; what != "" {
		return nil, harness.Violated("a state that nobody damaged was recovered: %s", what)
	}
	ended := now()
	for i := range events {
		if events[i].Return == 0 {
			events[i].Return = ended
		}
	}
	for i, name := range names {
		e := event{Client: -1, Kind: look, Quota: i, Outcome: done, Seen: true, Call: now()}
		status, ok := tracker.Status(name)
		if !ok || len(status.Limits) != 1 || status.Limits[0].Max != p.Limits[i] {
			return nil, harness.Violated("Status(%q) = %+v, %v", name, status, ok)
		}
		e.Used, e.Reserved, e.Return = status.Limits[0].Used, status.Limits[0].Reserved, now()
		events = append(events, e)
	}
	return events, nil
}
