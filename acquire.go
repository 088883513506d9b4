package quota

import (
	"context"
	"fmt"
	"slices"
)

// An acquisition is every kind of reservation as an operation: all of some quotas, then the first of others.
type acquisition struct {
	tracker *QuotaTracker
	id      string
	ttl     int64 // 0: the configured one
	key     holdKey
	asked   []asked  // All, then Any
	names   []string // canonical, in order, each once
	leave   func()   // lets the next call with the same ID in; nil: there is no ID
	waits   bool     // it does not overtake those that wait, and refusals are not counted
	line    *waiter  // its own place among them; nil: behind all
	free    []string // the canonical names for which nobody waits before it

	// What apply has found out.
	chosen   int // of asked; -1: none
	granted  bool
	existing *Reservation
	err      error
	denied   []refused
	expires  int64
	held     amounts  // in the quota that admitted
	holding  []string // canonical names of the quotas that hold it
}

// asked is one quota that a caller names.
type asked struct {
	entry     *entry
	name      string // as the caller says it
	canonical string
	candidate bool
	named     amounts
	wanted    amounts // with estimates
}

// newAcquisition returns one to fill in. It is used again when its call has returned, unless others may still hold it.
func (t *QuotaTracker) newAcquisition() *acquisition {
	if t.shared.active() {
		return &acquisition{tracker: t}
	}
	if op, ok := t.acquisitions.Get().(*acquisition); ok {
		*op = acquisition{tracker: t, asked: op.asked[:0], names: op.names[:0], denied: op.denied[:0]}
		return op
	}
	return &acquisition{tracker: t}
}

// ask adds a quota. Names are looked up, so that a wrong one is found before anything happens.
func (o *acquisition) ask(name string, amounts []Amount, candidate bool) error {
	e, err := o.tracker.lookup(name, false)
	if err != nil {
		return err
	}
	named, err := gather(amounts)
	if err != nil {
		return err
	}
	if candidate {
		if named, err = o.atLeastAll(e.name, named); err != nil {
			return err
		}
	}
	for i := range o.asked {
		// A name that comes again adds nothing, a candidate only with other amounts.
		one := &o.asked[i]
		if one.canonical == e.name && one.candidate == candidate && (!candidate || one.named.same(&named)) {
			return nil
		}
	}
	o.asked = append(o.asked, asked{entry: e, name: name, canonical: e.name, candidate: candidate, named: named})
	if at, found := slices.BinarySearch(o.names, e.name); !found {
		o.names = slices.Insert(o.names, at, e.name)
	}
	return nil
}

// atLeastAll returns what a candidate asks of a quota that is among All too: there is one hold in it, for the larger of
// the two amounts of each unit.
func (o *acquisition) atLeastAll(canonical string, named amounts) (amounts, error) {
	for i := range o.asked {
		if o.asked[i].candidate || o.asked[i].canonical != canonical {
			continue
		}
		all := o.asked[i].named.withRequest()
		larger := named.withRequest()
		for one := range all.each {
			n, _ := larger.exactly(one.at, one.unit)
			larger.set(one.at, one.unit, max(n, one.n))
		}
		return gather(larger.list())
	}
	return named, nil
}

// acquire tries once.
func (t *QuotaTracker) acquire(ctx context.Context, op *acquisition) (*Reservation, error) {
	if t.done.Load() {
		return nil, ErrClosed
	}
	if len(op.asked) == 0 {
		return nil, fmt.Errorf("%w: name at least one quota in All or Any", ErrInvalidRequest)
	}
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("quota: reserving: %w", err)
	}
	op.key = holdKey{t.writer, t.issued.Add(1)}
	if op.id != "" {
		leave, err := t.ids.enter(ctx, op.id)
		if err != nil {
			return nil, err
		}
		op.leave = leave
		t.knowID(op)
	}
	if t.shared.active() {
		if err := t.shared.submit(ctx, op); err != nil {
			return nil, err
		}
		return op.result()
	}
	r, err := t.acquireHere(ctx, op)
	t.acquisitions.Put(op)
	return r, err
}

// acquireHere tries once on books that only this tracker changes.
func (t *QuotaTracker) acquireHere(ctx context.Context, op *acquisition) (*Reservation, error) {
	if t.saver != nil {
		if err := t.saver.failing(); err != nil {
			op.letNext()
			return nil, notSaved(err)
		}
	}
	var few [4]page
	var pages []page
	if len(op.names) == 1 {
		pages = t.lock(append(few[:0], page{entry: op.asked[0].entry}))
	} else {
		pages = t.open(few[:0], op.names)
	}
	for op.id != "" && anyBehind(pages) { // what is due must not be open beside what is admitted under the same ID
		t.catchUp(pages)
	}
	for op.apply(pages); op.err != nil && anyBehind(pages); op.apply(pages) {
		t.catchUp(pages)
	}
	for _, one := range op.denied {
		p := op.page(pages, one.quota)
		p.book.today.deny(one.by, 1)
		if t.saver != nil {
			t.saver.note(p.entry)
		}
	}
	done := t.shut(pages)
	op.letNext()
	if op.err != nil { // a refusal holds nothing that would have to be saved, but what time has brought is
		if done.batch != nil {
			t.saver.leave(done.batch)
		}
		t.deliver(ctx)
		return op.result()
	}
	if err := t.durable(ctx, done); err != nil {
		return nil, t.takeBack(ctx, op.undo(), err)
	}
	if done.changed && t.undelivered.count.Load() > 0 {
		t.takeOver(ctx)
	}
	t.deliver(ctx)
	return op.result()
}

// takeBack undoes a grant that could not be made durable, which goes out with the next save, and returns what its caller
// is told.
func (t *QuotaTracker) takeBack(ctx context.Context, undo *settling, err error) error {
	if undo != nil {
		var few [4]page
		pages := t.open(few[:0], undo.names)
		undo.apply(pages)
		if done := t.shut(pages); done.batch != nil {
			t.saver.leave(done.batch)
		}
	}
	t.deliver(ctx)
	if ctx.Err() != nil {
		return fmt.Errorf("quota: reserving: %w", err)
	}
	return notSaved(err)
}

// undo returns the operation that takes the grant back, or the part in another's; nil when nothing was granted.
func (o *acquisition) undo() *settling {
	if o.existing != nil {
		return &settling{verb: verbUndo, settlement: settlement{key: o.existing.key}, names: o.existing.quotas()}
	}
	if !o.granted {
		return nil
	}
	return &settling{verb: verbUndo, settlement: settlement{key: o.key}, names: o.heldIn()}
}

// heldIn returns the canonical names of the quotas that hold the grant.
func (o *acquisition) heldIn() []string {
	if o.holding != nil {
		return o.holding
	}
	return []string{o.asked[max(0, o.chosen)].canonical}
}

func (o *acquisition) quotas() []string    { return o.names }
func (o *acquisition) refusals() []refused { return o.denied }

func (o *acquisition) apply(pages []page) {
	o.chosen, o.granted, o.existing, o.err, o.expires = -1, false, nil, nil, 0
	o.denied, o.holding = o.denied[:0], nil
	if o.waits {
		o.free = o.tracker.waiters.unblocked(o.line, o.names)
	}
	if o.id != "" && o.known(pages) {
		return
	}
	o.want(pages)
	if o.admit(pages) {
		o.grant(pages)
	}
}

// page returns the page of a canonical name.
func (o *acquisition) page(pages []page, canonical string) *page {
	for i := range pages {
		if pages[i].book.name == canonical {
			return &pages[i]
		}
	}
	panic("quota: an operation without the page of " + canonical)
}

// want works out what every quota is asked for.
func (o *acquisition) want(pages []page) {
	for i := range o.asked {
		one := &o.asked[i]
		one.wanted = o.page(pages, one.canonical).book.configured.wanted(&one.named)
	}
}

// judge says whether a quota admits, in which somebody who waits already comes first.
func (o *acquisition) judge(p *page, one *asked) verdict {
	v := p.book.judge(&one.wanted, p.now)
	if !v.refused && o.waits && !slices.Contains(o.free, one.canonical) {
		return verdict{limit: -1, behind: true, refused: true}
	}
	return v
}

// admit reports whether all of All and one of Any admit. Where neither All nor Any does, the error is that of the one that
// binds longer, and its refusals are those that are counted.
func (o *acquisition) admit(pages []page) bool {
	all := o.refusedByAll(pages)
	before := len(o.denied)
	none := o.refusedByAny(pages)
	switch {
	case all == nil && none == nil:
		return true
	case all == nil || none != nil && none.later(all):
		o.err, o.denied = none, slices.Delete(o.denied, 0, before)
	default:
		o.err, o.denied, o.chosen = all, o.denied[:before], -1
	}
	return false
}

// later reports whether e binds longer than other.
func (e *ExceededError) later(other *ExceededError) bool {
	if e.hopeless != other.hopeless {
		return e.hopeless
	}
	return e.RetryAt.After(other.RetryAt)
}

// refusedByAll returns why not every one of All admits, nil when they do.
func (o *acquisition) refusedByAll(pages []page) *ExceededError {
	var worst verdict
	var refusing *page
	for i := range o.asked {
		one := &o.asked[i]
		if one.candidate {
			break
		}
		p := o.page(pages, one.canonical)
		v := o.judge(p, one)
		if !v.refused {
			continue
		}
		o.deny(p, v)
		if refusing == nil || v.later(worst) {
			worst, refusing = v, p
		}
	}
	if refusing == nil {
		return nil
	}
	return refusing.book.refusal(worst, refusing.now)
}

// refusedByAny chooses the first candidate that admits, or returns why none does.
func (o *acquisition) refusedByAny(pages []page) *ExceededError {
	var refusals []*ExceededError
	before := len(o.denied)
	for i := range o.asked {
		one := &o.asked[i]
		if !one.candidate {
			continue
		}
		p := o.page(pages, one.canonical)
		v := o.judge(p, one)
		if !v.refused {
			o.chosen, o.denied = i, o.denied[:before]
			return nil
		}
		o.deny(p, v)
		refusals = append(refusals, p.book.refusal(v, p.now))
	}
	if len(refusals) == 0 {
		return nil
	}
	return soonest(refusals)
}

// soonest returns the refusal that ends first, with all of them behind it.
func soonest(refusals []*ExceededError) *ExceededError {
	best := refusals[0]
	for _, other := range refusals[1:] {
		switch {
		case other.hopeless != best.hopeless:
			if best.hopeless {
				best = other
			}
		case other.RetryAt.IsZero() != best.RetryAt.IsZero():
			if best.RetryAt.IsZero() {
				best = other
			}
		case other.RetryAt.Before(best.RetryAt):
			best = other
		}
	}
	first := *best
	first.all = refusals
	return &first
}

func (o *acquisition) deny(p *page, v verdict) {
	if !o.waits {
		o.denied = append(o.denied, refused{p.book.name, p.book.refusalFor(p.book.denialOf(v))})
	}
}

// grant opens the hold in every quota that admits it.
func (o *acquisition) grant(pages []page) {
	names := o.holdNames()
	for i := range o.asked {
		p := o.page(pages, o.asked[i].canonical)
		if o.holds(i) && !p.book.today.countable(&o.asked[i].wanted) {
			o.err = errUncountable
			return
		}
	}
	first := max(0, o.chosen)
	for i := range o.asked {
		if !o.holds(i) {
			continue
		}
		one := &o.asked[i]
		p := o.page(pages, one.canonical)
		h := p.book.holds.blank()
		h.key, h.id, h.name = o.key, o.id, o.asked[first].name
		h.quotas = names
		h.amounts = one.wanted
		if o.id != "" {
			h.estimated = unnamed(&h.amounts, &one.named)
		}
		if h.ttl = o.ttl; h.ttl == 0 {
			h.ttl = p.book.configured.ttl.Nanoseconds()
		}
		h.expires = p.now + h.ttl
		p.book.grant(h, p.now)
		if i == first {
			o.held, one.entry = one.wanted, p.entry
		}
		if o.expires == 0 || h.expires < o.expires {
			o.expires = h.expires // books may differ in their time
		}
	}
	if o.line != nil {
		o.tracker.waiters.grant(o.line)
	}
	o.granted, o.holding = true, names
}

// holdNames returns the canonical names of the quotas that the reservation holds, nil when it is one alone.
func (o *acquisition) holdNames() []string {
	if len(o.asked) == 1 || len(o.names) == 1 {
		return nil
	}
	var names []string
	for i := range o.asked {
		if o.holds(i) {
			names = append(names, o.asked[i].canonical)
		}
	}
	if len(names) == 1 {
		return nil
	}
	slices.Sort(names)
	return names
}

// holds reports whether the reservation's hold in a quota is the one asked for at i. Where the chosen candidate is among
// All too, it is the candidate's.
func (o *acquisition) holds(i int) bool {
	if i == o.chosen || o.chosen < 0 {
		return !o.asked[i].candidate || i == o.chosen
	}
	return !o.asked[i].candidate && o.asked[i].canonical != o.asked[o.chosen].canonical
}

// result is what the caller gets.
func (o *acquisition) result() (*Reservation, error) {
	if o.err != nil {
		return nil, o.err
	}
	if o.existing != nil {
		return o.existing, nil
	}
	first := &o.asked[max(0, o.chosen)]
	r := &Reservation{tracker: o.tracker, key: o.key, entry: first.entry, known: o.held.known, named: o.held.named, expires: o.expires}
	if o.id != "" || first.name != first.canonical || o.holding != nil || o.held.other != nil {
		r.more = &handleDetails{o.id, first.name, o.holding, o.held.other}
	}
	return r, nil
}
