package quota

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"
)

// A Request is everything that can be said about a reservation. Reserve, ReserveAny, ReserveAll and Wait are shorthand
// for the common ones. A quota that All names and Any too is held once: for the larger amount of each unit, when that
// candidate is the one that admits.
type Request struct {
	All     []string      // every one must admit
	Any     []Candidate   // then the first of these that admits
	Amounts []Amount      // for All, and for candidates without their own
	ID      string        // the caller's task ID, so that a repeated call gets the same reservation; "": made up
	TTL     time.Duration // 0: Config.ReservationTTL
	MaxWait time.Duration // 0: do not wait; < 0: as long as ctx allows
}

// A Candidate is one of several quotas, with an estimate of its own.
type Candidate struct {
	Quota   string
	Amounts []Amount // nil: those of the Request
}

// A Reservation is a handle to amounts set aside. It is settled once, by Commit or Release; what nobody settles expires.
// Its methods are safe for concurrent use.
type Reservation struct {
	tracker *QuotaTracker
	key     holdKey
	entry   *entry         // of the quota that admitted it
	hold    *hold          // of one quota, in this tracker's memory; nil: it is found by its key. Protected by the entry's lock
	more    *handleDetails // nil: there is nothing special about it
	known   [places]int64  // amounts
	named   placeSet       // of known
	settled atomic.Bool    // or about to be
	expires int64          // atomic
}

// handleDetails are what few handles need.
type handleDetails struct {
	id     string
	name   string   // as the caller calls the quota
	quotas []string // when there are several
	other  []Amount
}

// ID names the reservation, in this process and others: the caller's ID, or one made up.
func (r *Reservation) ID() string {
	if id := r.taskID(); id != "" {
		return id
	}
	return r.key.text(r.quotas()[0])
}

// taskID is the caller's ID.
func (r *Reservation) taskID() string {
	if r.more == nil {
		return ""
	}
	return r.more.id
}

// quotas are the canonical names, not to be changed.
func (r *Reservation) quotas() []string {
	if r.several() {
		return r.more.quotas
	}
	return []string{r.entry.name}
}

func (r *Reservation) several() bool { return r.more != nil && r.more.quotas != nil }

// Quota is the name that the caller used for the quota that admitted it; without Any the first of All.
func (r *Reservation) Quota() string {
	if r.more == nil {
		return r.entry.name
	}
	return r.more.name
}

// Quotas are the canonical names of all quotas that it holds.
func (r *Reservation) Quotas() []string { return slices.Clone(r.quotas()) }

// Amounts are what was set aside in Quota when it was granted, estimates included.
func (r *Reservation) Amounts() []Amount {
	held := amounts{known: r.known, named: r.named}
	if r.more != nil {
		held.other = r.more.other
	}
	return held.list()
}

// ExpiresAt is when it expires unless it is settled or extended.
func (r *Reservation) ExpiresAt() time.Time {
	return instant(atomic.LoadInt64(&r.expires)).In(r.tracker.cfg.Location)
}

// Reserve sets amounts aside in one quota before the work is dispatched: one request, unless a Requests amount says
// otherwise, and what else is named or has an Estimate. Admission is all or nothing over every limit. A refusal matches
// ErrExceeded and is an *ExceededError. After any error nothing is held.
func (t *QuotaTracker) Reserve(ctx context.Context, name string, amounts ...Amount) (*Reservation, error) {
	if !t.shared.active() {
		return t.reserveHere(ctx, name, amounts)
	}
	op := t.newAcquisition()
	if err := op.ask(name, amounts, false); err != nil {
		return nil, err
	}
	return t.acquire(ctx, op)
}

// ReserveAny is Reserve on the first of several quotas that admits. When none does, the error is the *ExceededError with
// the soonest RetryAt, and unwraps to those of all.
func (t *QuotaTracker) ReserveAny(ctx context.Context, names []string, amounts ...Amount) (*Reservation, error) {
	op := t.newAcquisition()
	for _, name := range names {
		if err := op.ask(name, amounts, true); err != nil {
			return nil, err
		}
	}
	return t.acquire(ctx, op)
}

// ReserveAll is Reserve on all of several quotas, or none: a team's budget and a user's.
func (t *QuotaTracker) ReserveAll(ctx context.Context, names []string, amounts ...Amount) (*Reservation, error) {
	op := t.newAcquisition()
	for _, name := range names {
		if err := op.ask(name, amounts, false); err != nil {
			return nil, err
		}
	}
	return t.acquire(ctx, op)
}

// Wait is Reserve that waits until the quota admits, first come first served among those that wait. It is refused at
// once when the amounts can never fit. When ctx ends while it waits, the error matches ctx.Err() and carries the
// *ExceededError. Who waits for several quotas at once, see Acquire, holds back those behind it in each of them.
func (t *QuotaTracker) Wait(ctx context.Context, name string, amounts ...Amount) (*Reservation, error) {
	return t.await(ctx, Request{All: []string{name}, Amounts: amounts, MaxWait: -1})
}

// Acquire reserves as the Request says: in all of All and in the first of Any that admits, or in none. With an ID, a
// repeated call returns the same reservation while it is open (ErrIDConflict if the request differs; where it was made by
// another process, only if the two have a quota in common), and ErrSettled
// after it has been settled, for an hour or its TTL, whichever is longer; after it has expired it is admitted anew.
// MaxWait makes it wait like Wait; it is then refused at once when the time to try again lies beyond it. It waits in line
// for each of its quotas, and until it is admitted or gives up those behind it in any of them wait too, also where there
// is room for them: where that matters, bound MaxWait, or wait for one quota at a time.
func (t *QuotaTracker) Acquire(ctx context.Context, req Request) (*Reservation, error) {
	switch {
	case req.TTL < 0 || req.TTL > longest:
		return nil, fmt.Errorf("%w: TTL must be positive and at most 100 years", ErrInvalidRequest)
	case len(req.ID) > maxNameBytes || !printableName(req.ID):
		return nil, fmt.Errorf("%w: an ID is valid UTF-8 without control characters, %d bytes at most",
			ErrInvalidRequest, maxNameBytes)
	}
	if req.MaxWait != 0 {
		return t.await(ctx, req)
	}
	op, err := t.asking(&req)
	if err != nil {
		return nil, err
	}
	return t.acquire(ctx, op)
}

// asking returns the acquisition of a Request.
func (t *QuotaTracker) asking(req *Request) (*acquisition, error) {
	op := t.newAcquisition()
	op.id, op.ttl = req.ID, int64(req.TTL)
	for _, name := range req.All {
		if err := op.ask(name, req.Amounts, false); err != nil {
			return nil, err
		}
	}
	for _, candidate := range req.Any {
		amounts := candidate.Amounts
		if amounts == nil {
			amounts = req.Amounts
		}
		if err := op.ask(candidate.Quota, amounts, true); err != nil {
			return nil, err
		}
	}
	return op, nil
}

// copied is a Request for later, when the caller may have changed its lists.
func (req Request) copied() Request {
	req.All, req.Any, req.Amounts = slices.Clone(req.All), slices.Clone(req.Any), slices.Clone(req.Amounts)
	for i := range req.Any {
		req.Any[i].Amounts = slices.Clone(req.Any[i].Amounts)
	}
	return req
}

// Reservation returns an open reservation by its ID: one that this process made, also before a restart, or another one
// that shares the state. quotas say where to look; none means everywhere, which takes time in proportion to the quotas
// unless the ID was made up by the library or opened here. ErrNoReservation: there is none.
func (t *QuotaTracker) Reservation(ctx context.Context, id string, quotas ...string) (*Reservation, error) {
	if t.done.Load() {
		return nil, ErrClosed
	}
	names := make([]string, 0, len(quotas))
	for _, name := range quotas {
		e, err := t.lookup(name, false)
		if err != nil {
			return nil, err
		}
		names = append(names, e.name)
	}
	key, home, made := parseHoldKey(id)
	if len(names) == 0 {
		names = append(names, t.ids.of(id)...)
		if found, err := t.current.Load().resolve(home); made && err == nil && found.name == home {
			names = append(names, home)
		}
	}
	if r, err := t.search(ctx, names, id, key, made); r != nil || err != nil {
		return r, err
	}
	if len(quotas) == 0 {
		if err := t.Refresh(ctx); err != nil {
			return nil, err
		}
		names = names[:0]
		for _, e := range t.entries.all() {
			names = append(names, e.name)
		}
		if r, err := t.search(ctx, names, id, key, made); r != nil || err != nil {
			return r, err
		}
	}
	return nil, fmt.Errorf("%w %s: it was settled, has expired, or never was", ErrNoReservation, quoted(id))
}

// search looks for an open hold in the newest books of those quotas.
func (t *QuotaTracker) search(ctx context.Context, names []string, id string, key holdKey, made bool) (*Reservation, error) {
	if len(names) == 0 {
		return nil, nil
	}
	slices.Sort(names)
	names = slices.Compact(names)
	op := &searching{tracker: t, names: names, id: id, key: key, made: made}
	if t.shared.active() {
		if err := t.shared.submit(ctx, op); err != nil {
			return nil, err
		}
		return op.found, nil
	}
	var last receipt // the save of the last has what those before it have changed
	for _, name := range names {
		e := t.entries.find(name)
		if e == nil {
			continue
		}
		pages := t.lock([]page{{entry: e}})
		op.apply(pages)
		if done := t.shut(pages); done.changed {
			last = done
		}
		if op.found != nil {
			break
		}
	}
	_ = t.settleUp(ctx, last) // what is not saved goes out with the next save
	return op.found, nil
}

type searching struct {
	tracker *QuotaTracker
	names   []string
	id      string
	key     holdKey
	made    bool
	found   *Reservation
}

func (o *searching) quotas() []string { return o.names }

func (o *searching) apply(pages []page) {
	o.found = nil
	for _, p := range pages {
		h := p.book.holds.called(o.id)
		if h == nil && o.made {
			h = p.book.holds.find(o.key)
		}
		if h.stands(p.now) {
			o.found = o.tracker.handle(h, p.book.name)
			if !h.found {
				h.found, p.book.changed = true, true
			}
			return
		}
	}
}

// handle makes a handle to an open hold of a book.
func (t *QuotaTracker) handle(h *hold, quota string) *Reservation {
	held := h.original()
	r := &Reservation{
		tracker: t, key: h.key, entry: t.entryOf(quota), known: held.known, named: held.named,
		more: &handleDetails{h.id, h.name, h.quotas, held.other}, expires: h.expires,
	}
	return r
}

// Commit settles the reservation with what was really used, less or more than was held. A unit that was held and is not
// named is charged as held and marked as estimated; naming any form of tokens names tokens. Commit without amounts is
// the honest answer to "dispatched, outcome unknown", and `defer r.Commit(ctx)` charges what nothing else has settled.
// Usage beyond what was held is recorded in full, also beyond the limit.
//
// After it was settled, ErrSettled, and nothing changes. After it expired, the charge is corrected where it still
// stands. It takes effect even when ctx is done or the save fails, see ErrPending.
func (r *Reservation) Commit(ctx context.Context, actual ...Amount) error {
	op := settling{verb: verbCommit}
	if err := op.settlement.named.gather(actual); err != nil {
		return err
	}
	return r.settle(ctx, &op)
}

// Release settles the reservation by giving back what it holds: only where nothing was sent. After it was settled,
// ErrSettled, and nothing changes. It takes effect even when ctx is done or the save fails, see ErrPending.
func (r *Reservation) Release(ctx context.Context) error {
	op := settling{verb: verbRelease}
	return r.settle(ctx, &op)
}

// Extend lets the reservation expire ttl from now, if that is later: the heartbeat of long work. ErrSettled when it has
// been settled or has expired. It takes effect even when ctx is done or the save fails, see ErrPending.
func (r *Reservation) Extend(ctx context.Context, ttl time.Duration) error {
	if ttl <= 0 || ttl > longest {
		return fmt.Errorf("%w: TTL must be positive and at most 100 years", ErrInvalidRequest)
	}
	op := settling{verb: verbExtend, ttl: int64(ttl)}
	return r.settle(ctx, &op)
}

func (r *Reservation) settle(ctx context.Context, op *settling) error {
	t := r.tracker
	if t.done.Load() {
		return ErrClosed
	}
	if op.verb == verbExtend {
		if r.settled.Load() {
			return ErrSettled
		}
		err := r.runSettling(ctx, op)
		for was := atomic.LoadInt64(&r.expires); op.until > was && !atomic.CompareAndSwapInt64(&r.expires, was, op.until); {
			was = atomic.LoadInt64(&r.expires) // another Extend was quicker
		}
		return err
	}
	if !r.settled.CompareAndSwap(false, true) {
		return ErrSettled
	}
	err := r.runSettling(ctx, op)
	if err != nil && errors.Is(err, ErrClosed) {
		r.settled.Store(false)
	}
	return err
}

// runSettling fills op in and runs it. What is queued is made from r, so that op can stay on the stack.
func (r *Reservation) runSettling(ctx context.Context, op *settling) error {
	t := r.tracker
	if t.shared.active() {
		queued := &settling{verb: op.verb, names: r.quotas(), ttl: op.ttl, settlement: settlement{
			key: r.key, id: r.taskID(), home: r.quotas()[0], several: r.several(), expires: atomic.LoadInt64(&r.expires), named: op.named,
		}}
		over, err := t.shared.send(ctx, queued)
		if !over {
			return err
		}
		if op.until = queued.until; queued.settled {
			return ErrSettled
		}
		return err
	}
	op.key, op.hold, op.id, op.expires = r.key, r.hold, r.taskID(), atomic.LoadInt64(&r.expires)
	op.home, op.several = r.entry.name, r.several()
	var few [4]page
	var pages []page
	if op.several {
		op.home = r.more.quotas[0]
		pages = t.open(few[:0], r.more.quotas)
	} else {
		pages = t.lock(append(few[:0], page{entry: r.entry}))
	}
	op.apply(pages)
	err := t.settleUp(ctx, t.shut(pages))
	if op.settled {
		return ErrSettled
	}
	return err
}

type verb uint8

const (
	verbCommit verb = iota
	verbRelease
	verbExtend
	verbUndo
)

// settling is Commit, Release and Extend as an operation.
type settling struct {
	settlement
	verb  verb
	names []string
	ttl   int64

	settled bool  // it had been settled before
	until   int64 // Extend: the new expiry
}

func (o *settling) quotas() []string { return o.names }

func (o *settling) apply(pages []page) {
	o.settled, o.until = false, 0
	if o.verb == verbExtend {
		for _, p := range pages {
			if !p.book.holds.find(o.key).stands(p.now) {
				o.settled = true
				return
			}
		}
	}
	// A book that has forgotten the hold long after it expired says that it was settled: another may remember it.
	o.settled = o.verb != verbUndo
	for _, p := range pages {
		switch o.verb {
		case verbCommit:
			o.settled = p.book.commit(&o.settlement, p.now) && o.settled
		case verbRelease:
			o.settled = p.book.release(&o.settlement, p.now) && o.settled
		case verbExtend:
			until, settled := p.book.extend(&o.settlement, o.ttl, p.now)
			if o.settled = settled && o.settled; o.until == 0 || until < o.until {
				o.until = until
			}
		case verbUndo:
			p.book.undo(o.key, p.now)
		}
	}
}
