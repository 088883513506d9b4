package quota

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// An Alert says that usage has reached a threshold of a limit.
type Alert struct {
	ID          string    `json:"id"` // the same crossing always has the same ID
	Quota       string    `json:"quota"`
	Limit       Limit     `json:"limit"`
	Threshold   int       `json:"threshold"` // percent of the limit's Max
	Used        int64     `json:"used"`      // in the limit's unit, when it crossed; open reservations do not count
	At          time.Time `json:"at"`
	WindowStart time.Time `json:"window_start,omitzero"` // zero: the window has no beginning (Rolling, Refill, Lifetime)
	WindowEnd   time.Time `json:"window_end,omitzero"`   // zero: it has no end
}

// String says it in one line, fit for a terminal or a log:
// "gemini_cli has used 50% of its requests per day: 750/1500, resets in 6h 12m". The wording may change.
func (a Alert) String() string {
	unit := a.Limit.unit()
	text := fmt.Sprintf("%s has used %d%% of its %s: %s/%s", printable(a.Quota), a.Threshold, printable(a.Limit.String()),
		displayAmount(unit, a.Used), displayAmount(unit, a.Limit.Max))
	if !a.WindowEnd.IsZero() {
		text += ", resets in " + displayDuration(a.WindowEnd.Sub(a.At))
	}
	return text
}

// alertID names a crossing: the same limit, threshold and beginning, armed again as often, is the same crossing.
func alertID(a Alert, start, armed int64) string {
	id := fmt.Sprintf("%s/%s/%d%%", a.Quota, a.Limit, a.Threshold)
	if start != 0 {
		id += "/" + instant(start).Format(time.RFC3339Nano)
	}
	if armed != 0 {
		id += fmt.Sprintf("/%d", armed+1)
	}
	return id
}

// deliveries are the alerts of this tracker on their way to OnAlert, in order.
type deliveries struct {
	mu         sync.Mutex // protects what follows
	unsaved    []Alert    // their crossings are not durable yet
	ready      []Alert
	delivering bool
	closed     bool         // no callback begins any more
	started    []Alert      // handed to the callback, but that is not saved yet
	waiting    atomic.Int64 // len(ready), to look at before the lock is taken
}

// claim takes on alerts. Those whose crossing must be saved first wait for it.
func (d *deliveries) claim(alerts []Alert, saveFirst bool) {
	if len(alerts) == 0 {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if saveFirst {
		d.unsaved = append(d.unsaved, alerts...)
	} else {
		d.ready = append(d.ready, alerts...)
		d.waiting.Store(int64(len(d.ready)))
	}
}

// saving returns how many alerts the save that begins now makes deliverable.
func (d *deliveries) saving() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.unsaved)
}

// saved makes the first n deliverable.
func (d *deliveries) saved(n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	n = min(n, len(d.unsaved)) // Close may have handed them back
	d.ready = append(d.ready, d.unsaved[:n]...)
	d.unsaved = d.unsaved[n:]
	d.waiting.Store(int64(len(d.ready)))
}

// next returns the next alert to deliver. One caller delivers at a time; the others, and a callback that crosses a
// threshold itself, leave theirs to it.
func (d *deliveries) next(mine bool) (Alert, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.delivering && !mine {
		return Alert{}, false
	}
	if d.delivering = len(d.ready) > 0 && !d.closed; !d.delivering {
		return Alert{}, false
	}
	alert := d.ready[0]
	d.ready = d.ready[1:]
	d.started = append(d.started, alert)
	d.waiting.Store(int64(len(d.ready)))
	return alert, true
}

// queued returns the alerts whose callback has not begun.
func (d *deliveries) queued() []Alert {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.ready)
}

// drop takes out alerts that others deliver.
func (d *deliveries) drop(alerts []Alert) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.ready = slices.DeleteFunc(d.ready, func(one Alert) bool {
		return slices.ContainsFunc(alerts, func(other Alert) bool { return one.ID == other.ID && one.Quota == other.Quota })
	})
	d.waiting.Store(int64(len(d.ready)))
}

// noted takes an alert off the list of those started.
func (d *deliveries) noted(alert Alert) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.started = slices.DeleteFunc(d.started, func(one Alert) bool { return one.ID == alert.ID && one.Quota == alert.Quota })
}

// close lets no further callback begin. It returns the alerts whose callback has begun, without that being saved, and
// takes out those that wait for it.
func (d *deliveries) close() (begun, waiting []Alert) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.closed = true
	waiting = slices.Concat(d.ready, d.unsaved)
	d.ready, d.unsaved = nil, nil
	return slices.Clone(d.started), waiting
}

// stop lets another caller deliver, when the one that did will not come back.
func (d *deliveries) stop() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.delivering = false
}

// deliver calls OnAlert for every alert that is due. No lock is held.
func (t *QuotaTracker) deliver(ctx context.Context) {
	if t.alerts.waiting.Load() > 0 {
		t.deliverAll(ctx)
	}
}

func (t *QuotaTracker) deliverAll(ctx context.Context) {
	alert, mine := t.alerts.next(false)
	if !mine {
		return
	}
	back := false
	defer func() {
		if !back { // the callback has ended its goroutine, as a failing test does
			t.alerts.stop()
		}
	}()
	renewed := t.bookTime()
	for ; mine; alert, mine = t.alerts.next(true) {
		t.call(alert)
		t.noteDelivered(ctx, alert)
		if now := t.bookTime(); t.shared.active() && now-renewed >= int64(time.Second) {
			t.renew(ctx)
			renewed = now
		}
	}
	back = true
}

// renew claims those alerts again that wait behind a slow callback, so that no other tracker takes them over. Those that
// one has already taken over are its own.
func (t *QuotaTracker) renew(ctx context.Context) {
	waiting := t.alerts.queued()
	op := &renewing{writer: t.writer}
	for _, alert := range waiting {
		op.names = insertNames(op.names, []string{alert.Quota})
	}
	if len(waiting) == 0 {
		return
	}
	// Also for a call whose ctx has ended, but not for longer than a callback that is slow: it takes effect all the same.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), renewLimit)
	defer cancel()
	if t.perform(ctx, op) == nil {
		t.alerts.drop(slices.DeleteFunc(waiting, func(alert Alert) bool { return slices.Contains(op.held, alert.ID) }))
	}
}

const renewLimit = time.Second

type renewing struct {
	writer uint64
	names  []string
	held   []string // IDs that the writer has still claimed
}

func (o *renewing) quotas() []string { return o.names }
func (o *renewing) apply(pages []page) {
	o.held = nil
	for _, p := range pages {
		o.held = append(o.held, p.book.renew(o.writer, p.now)...)
	}
}

func (t *QuotaTracker) noteDelivered(ctx context.Context, alert Alert) {
	err := t.perform(ctx, &delivering{alert.Quota, []string{alert.ID}})
	t.alerts.noted(alert)
	if err != nil && !errors.Is(err, ErrClosed) { // Close has noted those under way
		t.cfg.Logger.Warn("quota: an alert was delivered, but that is not saved: it may be delivered again",
			"alert", alert.ID, "error", err)
	}
}

// handBack ends the delivery of alerts: from here on no callback begins. Those whose callback has begun, which may take
// longer than Close or be its caller, are noted as delivered; those that wait are left to whatever tracker comes next.
func (t *QuotaTracker) handBack(ctx context.Context) {
	op := &handingBack{writer: t.writer}
	op.begun, op.waiting = t.alerts.close()
	for _, alert := range slices.Concat(op.begun, op.waiting) {
		op.names = insertNames(op.names, []string{alert.Quota})
	}
	if len(op.names) > 0 {
		_ = t.perform(ctx, op) // the last save reports what cannot be saved
	}
}

type handingBack struct {
	writer         uint64
	names          []string
	begun, waiting []Alert
}

func (o *handingBack) quotas() []string { return o.names }
func (o *handingBack) apply(pages []page) {
	for _, p := range pages {
		p.book.delivered(idsOf(o.begun, p.book.name))
		p.book.disclaim(o.writer, idsOf(o.waiting, p.book.name))
	}
}

func idsOf(alerts []Alert, quota string) (ids []string) {
	for _, alert := range alerts {
		if alert.Quota == quota {
			ids = append(ids, alert.ID)
		}
	}
	return ids
}

// deliverSoon delivers alerts of calls that have not waited for their save.
func (t *QuotaTracker) deliverSoon() {
	if t.alerts.waiting.Load() > 0 && !t.done.Load() {
		go t.deliver(context.Background())
	}
}

// call hands an alert to the callback, or to the log.
func (t *QuotaTracker) call(alert Alert) {
	if t.cfg.OnAlert == nil {
		t.cfg.Logger.Warn("quota: "+alert.String(), "id", alert.ID)
		return
	}
	defer func() {
		if reason := recover(); reason != nil {
			t.cfg.Logger.Error("quota: OnAlert panicked", "alert", alert.ID, "panic", reason, "stack", string(debug.Stack()))
		}
	}()
	t.cfg.OnAlert(alert)
}

// delivering takes delivered alerts out of the outbox.
type delivering struct {
	quota string
	ids   []string
}

func (o *delivering) quotas() []string { return []string{o.quota} }
func (o *delivering) apply(pages []page) {
	pages[0].book.delivered(o.ids)
}

// undelivered are the quotas in whose books alerts wait that this tracker has not claimed: found by New, or left by a
// tracker that may have died.
type undelivered struct {
	count  atomic.Int64 // len(quotas), to look at before the lock is taken
	mu     sync.Mutex   // protects quotas; taken while an entry is locked, never the other way round
	quotas map[string]int64
}

// look notes whether a book has such alerts.
func (u *undelivered) look(b *Book, writer uint64) {
	if len(b.outbox()) > 0 || u.count.Load() > 0 {
		u.note(b, writer)
	}
}

func (u *undelivered) note(b *Book, writer uint64) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if at, waiting := b.overdue(writer); waiting {
		if u.quotas == nil {
			u.quotas = make(map[string]int64)
		}
		u.quotas[b.name] = at
	} else {
		delete(u.quotas, b.name)
	}
	u.count.Store(int64(len(u.quotas)))
}

// due returns the quotas whose alerts may be taken over now.
func (u *undelivered) due(now int64) []string {
	u.mu.Lock()
	defer u.mu.Unlock()
	var names []string
	for name, at := range u.quotas {
		if at <= now {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// takeOver claims the alerts that nobody else delivers, with the first change that follows.
func (t *QuotaTracker) takeOver(ctx context.Context) {
	names := t.undelivered.due(t.now())
	if len(names) == 0 {
		return
	}
	pages := t.open(nil, names)
	for i := range pages {
		pages[i].book.changed = true
	}
	if err := t.durable(ctx, t.shut(pages)); err != nil {
		t.cfg.Logger.Warn("quota: alerts that nobody has delivered wait for the next save", "error", err)
	}
}
