package quota

import (
	"context"
	"fmt"
)

// reserveHere is Reserve in this tracker's memory: what an acquisition does, for one quota and without an ID, in one go.
func (t *QuotaTracker) reserveHere(ctx context.Context, name string, list []Amount) (*Reservation, error) {
	e, err := t.lookup(name, false)
	if err != nil {
		return nil, err
	}
	var wanted amounts
	if err := wanted.gather(list); err != nil {
		return nil, err
	}
	if err := t.mayReserve(ctx); err != nil {
		return nil, err
	}
	pages := [1]page{{entry: e}}
	p := &pages[0]
	t.lock(pages[:])
	p.book.configured.complete(&wanted)
	for !p.book.admits(&wanted, p.now) {
		if !p.behind {
			return nil, t.refuseHere(ctx, pages[:], &wanted)
		}
		t.catchUp(pages[:])
		wanted = amounts{}
		_ = wanted.gather(list) // as before
		p.book.configured.complete(&wanted)
	}
	if !p.book.today.countable(&wanted) {
		if done := t.shut(pages[:]); done.batch != nil {
			t.saver.leave(done.batch)
		}
		t.deliver(ctx)
		return nil, errUncountable
	}
	r := p.book.setAside(t.nextKey(p.entry), name, &wanted, p.now)
	r.tracker, r.entry = t, p.entry
	done := t.shut(pages[:])
	if err := t.durable(ctx, done); err != nil {
		undo := settling{verb: verbUndo, settlement: settlement{key: r.key}, names: []string{r.entry.name}}
		return nil, t.takeBack(ctx, &undo, err)
	}
	if done.changed && t.undelivered.count.Load() > 0 {
		t.takeOver(ctx)
	}
	t.deliver(ctx)
	return r, nil
}

// mayReserve returns why nothing is reserved whatever there is room for, nil when there is no such reason.
func (t *QuotaTracker) mayReserve(ctx context.Context) error {
	if t.done.Load() {
		return ErrClosed
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("quota: reserving: %w", err)
	}
	if t.saver == nil {
		return nil
	}
	if err := t.saver.failing(); err != nil {
		return notSaved(err)
	}
	return nil
}

// refuseHere counts a refusal and returns it. It holds nothing that would have to be saved, but what time has brought is.
func (t *QuotaTracker) refuseHere(ctx context.Context, pages []page, wanted *amounts) error {
	p := &pages[0]
	v := p.book.judge(wanted, p.now)
	p.book.today.deny(p.book.denialOf(v), 1)
	if t.saver != nil {
		t.saver.note(p.entry)
	}
	refusal := p.book.refusal(v, p.now)
	if done := t.shut(pages); done.batch != nil {
		t.saver.leave(done.batch)
	}
	t.deliver(ctx)
	return refusal
}

// numbersAtOnce is how many numbers an entry sets aside, so that callers of different quotas share no counter.
const numbersAtOnce = 64

// nextKey returns the key of the next reservation in an entry, which is locked.
func (t *QuotaTracker) nextKey(e *entry) holdKey {
	if e.number%numbersAtOnce == 0 {
		e.number = t.issued.Add(numbersAtOnce) - numbersAtOnce
	}
	e.number++
	return holdKey{t.writer, e.number}
}

// setAside opens a hold of one quota and returns its handle, but for whose it is.
func (b *Book) setAside(key holdKey, name string, wanted *amounts, now int64) *Reservation {
	h := b.holds.blank()
	h.key, h.name, h.amounts = key, name, *wanted
	h.ttl = int64(b.configured.ttl)
	h.expires = now + h.ttl
	b.grant(h, now)
	r := &Reservation{key: key, hold: h, known: wanted.known, named: wanted.named, expires: h.expires}
	if name != b.name || wanted.other != nil {
		r.more = &handleDetails{name: name, other: wanted.other}
	}
	return r
}
