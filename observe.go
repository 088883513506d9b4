package quota

import (
	"context"
	"fmt"
	"time"
)

// An Observation is what a provider's response said about its own limits: rate-limit headers, a 429's Retry-After.
// Nil and zero fields were not reported.
type Observation struct {
	Unit       Unit          `json:"unit,omitempty"`      // "": UnitRequests
	Window     Window        `json:"window,omitzero"`     // zero: every limit of that unit
	Limit      *int64        `json:"limit,omitempty"`     // for the record: room is judged by Remaining
	Remaining  *int64        `json:"remaining,omitempty"` // how much more the provider admits
	ResetAt    time.Time     `json:"reset_at,omitzero"`   // when the window is fresh again
	RetryAfter time.Duration `json:"retry_after,omitempty"`
}

const maxRetryAfter = 366 * 24 * time.Hour

// Observe takes over what the provider itself reports, so that the tracker never believes in more room than the
// provider does. Used rises until the room, before open reservations, is no more than Remaining; within a window it
// never falls. The rise alerts and is saved, but is no usage in the summary of the day. RetryAfter closes the quota for
// so long; a shorter one later does not open it. ResetAt says when a Session ends; a report whose ResetAt has passed is
// out of date and its Remaining is ignored. A unit that has no limit is ignored.
//
// It takes effect even when ctx is done; see ErrPending.
func (t *QuotaTracker) Observe(ctx context.Context, name string, o Observation) error {
	switch {
	case o.Remaining != nil && *o.Remaining < 0, o.Limit != nil && *o.Limit < 0:
		return fmt.Errorf("%w: an observation must not be negative", ErrInvalidAmount)
	case o.RetryAfter < 0:
		return fmt.Errorf("%w: RetryAfter must not be negative", ErrInvalidAmount)
	}
	if o.Unit == "" {
		o.Unit = UnitRequests
	}
	if wrong := checkUnit(o.Unit); wrong != "" {
		return fmt.Errorf("%w: %s", ErrInvalidAmount, wrong)
	}
	if wrong := o.Window.check(); wrong != "" {
		return fmt.Errorf("%w: window: %s", ErrInvalidAmount, wrong)
	}
	e, err := t.lookup(name, true)
	if err != nil {
		return err
	}
	return t.change(ctx, &observation{name: e.name, Observation: o})
}

// An observation is Observe as an operation.
type observation struct {
	name string
	at   firstTime
	Observation
}

func (o *observation) quotas() []string { return []string{o.name} }

func (o *observation) apply(pages []page) {
	now := pages[0].now
	pages[0].book.observe(o.Observation, o.Unit, o.Window, o.at.first(now), now)
}
