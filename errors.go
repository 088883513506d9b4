package quota

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

// Refusals and wrong calls. Nothing has changed when one of these is returned.
var (
	// ErrExceeded matches every refusal for want of room; errors.As finds the *ExceededError behind it.
	ErrExceeded = errors.New("quota: exceeded")
	// ErrUnknownQuota says that no quota, alias or template bears the name.
	ErrUnknownQuota = errors.New("quota: unknown quota")
	// ErrInvalidAmount says that an amount is negative, not a number, too large, or named twice in forms that contradict.
	ErrInvalidAmount = errors.New("quota: invalid amount")
	// ErrInvalidRequest says that a Request cannot be understood.
	ErrInvalidRequest = errors.New("quota: invalid request")
	// ErrInvalidConfig says that a Config, a Quota or a Limit cannot be used as it is.
	ErrInvalidConfig = errors.New("quota: invalid configuration")
)

var errUncountable = fmt.Errorf("%w: together with what is held it is more than can be counted", ErrInvalidAmount)

// Reservations and their identity.
var (
	// ErrSettled says that the reservation has been committed, released, closed by matching usage, or has expired.
	// In a deferred Commit it is the normal case and harmless.
	ErrSettled = errors.New("quota: reservation is already settled")
	// ErrNoReservation says that no open reservation has the ID.
	ErrNoReservation = errors.New("quota: no open reservation")
	// ErrIDConflict says that an open reservation has this ID but holds other quotas or amounts.
	ErrIDConflict = errors.New("quota: ID is in use for another reservation")
)

// Saving and loading.
var (
	// ErrNotSaved says that the state could not be made durable. A Reserve that returns it holds nothing.
	ErrNotSaved = errors.New("quota: not saved")
	// ErrPending says, beside ErrNotSaved or the context's error, that the call has taken effect in memory, counts in
	// every decision and goes out with the next save that succeeds: do not repeat it. Until then it is kept in this
	// process, on a shared state call by call: some hundred bytes each, for as long as the store is out of reach.
	ErrPending = errors.New("quota: taken into account but not yet saved, do not repeat it")
	// ErrConflict says that somebody else has saved since the state was loaded.
	ErrConflict = errors.New("quota: state was changed by another writer, load it again")
	// ErrCorruptState says that a saved state cannot be read.
	ErrCorruptState = errors.New("quota: corrupt state")
	// ErrNewerState says that a newer version of this library wrote the state. It is left as it is.
	ErrNewerState = errors.New("quota: state was written by a newer version, upgrade this program")
	// ErrLocked says that another tracker uses the state in a way that excludes this one.
	ErrLocked = errors.New("quota: state is in use by another tracker")
	// ErrClosed says that the tracker has been closed.
	ErrClosed = errors.New("quota: tracker is closed")
)

// An ExceededError explains a refusal: which limit, how full it is, and when to try again. Callers that are refused for the
// same reason may be given the same one: it is not to be changed.
// errors.Is(err, ErrExceeded) holds for it.
type ExceededError struct {
	Quota     string      // canonical name
	Limit     LimitStatus // the limit that binds longest; zero when the provider itself has closed the quota (Observe)
	Requested int64       // in the limit's unit
	RetryAt   time.Time   // when it would fit; zero: not known
	Never     bool        // larger than the limit itself: no wait helps
	Reason    string      // one clause for people

	hopeless bool             // no passage of time can make it fit: Never, or a Lifetime that is used up
	all      []*ExceededError // every candidate's refusal, when several were asked
}

// Error names the quota, the limit, how full it is and what to do. Its wording may change.
func (e *ExceededError) Error() string {
	var text strings.Builder
	fmt.Fprintf(&text, "quota: %s: %s", printable(e.Quota), e.clause())
	if !e.RetryAt.IsZero() {
		fmt.Fprintf(&text, ", try again at %s", e.RetryAt.Format(time.RFC3339))
	}
	if others := len(e.all) - 1; others > 0 {
		fmt.Fprintf(&text, " (and %d more candidates refused)", others)
	}
	return text.String()
}

// clause is Reason with the limit and its numbers.
func (e *ExceededError) clause() string {
	amount := func(n int64) string { return displayAmount(e.Limit.unit(), n) }
	more := ""
	switch e.Reason {
	case reasonNever:
		return fmt.Sprintf("%s is more than the whole limit of %s %s: ask for less or raise the limit",
			amount(e.Requested), amount(e.Limit.Max), printable(e.Limit.String()))
	case reasonHopeless:
		more = ", which never start again: raise the limit"
	case reasonOpen:
		more = ", open reservations are in the way"
	case reasonFull:
	default:
		return printable(e.Reason)
	}
	return fmt.Sprintf("%s does not fit into its %s (%s used and %s reserved of %s)%s", amount(e.Requested),
		printable(e.Limit.String()), amount(e.Limit.Used), amount(e.Limit.Reserved), amount(e.Limit.Max), more)
}

// Is reports whether target is ErrExceeded.
func (e *ExceededError) Is(target error) bool { return target == ErrExceeded }

// Unwrap returns the refusal of every candidate when several were asked (Request.Any), else nothing.
func (e *ExceededError) Unwrap() []error {
	errs := make([]error, len(e.all))
	for i, refusal := range e.all {
		errs[i] = refusal
	}
	return errs
}
