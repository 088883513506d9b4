package quota

import (
	"cmp"
	"slices"
	"time"
)

// A delivery is an alert on its way: claimed by the tracker that delivers it.
type delivery struct {
	alert   Alert
	writer  uint64 // 0: nobody
	claimed int64
}

// takeOverAlerts is after how long the alerts of a tracker that has not delivered them are taken over.
const takeOverAlerts = int64(time.Minute)

// cross marks every threshold that has been reached and puts its alert into the outbox.
func (b *Book) cross(now int64) {
	for i := range b.limits() {
		a := &b.accounts[i]
		for a.used >= a.alarm && a.used > 0 {
			at := slices.IndexFunc(a.rule.thresholds, func(t int) bool { return !a.marked(t) })
			if at < 0 {
				break
			}
			b.alert(a, a.rule.thresholds[at], now)
			a.ring()
		}
	}
}

func (b *Book) alert(a *account, threshold int, now int64) {
	a.marks = append(a.marks, mark{threshold, now})
	slices.SortFunc(a.marks, func(x, y mark) int { return cmp.Compare(x.threshold, y.threshold) })
	alert := Alert{
		Quota: b.name, Limit: a.rule.copied(), Threshold: threshold, Used: a.used, At: b.local(now),
	}
	switch a.window.kind {
	case kindRolling, kindRefill:
		alert.ID = alertID(alert, now, a.armed)
	case kindLifetime:
		alert.ID = alertID(alert, 0, a.armed)
	default:
		alert.ID = alertID(alert, a.start, a.armed)
		alert.WindowStart, alert.WindowEnd = a.time(a.start), a.time(a.end)
	}
	b.details().outbox = append(b.outbox(), delivery{alert: alert})
	if note := alertNote(threshold, a.text); !slices.Contains(b.today.alerts(), note) { // short windows cross it all day long
		more := b.today.details()
		more.alerts = append(more.alerts, note)
	}
	b.changed = true
}

// claim takes on the alerts that nobody delivers: new ones, and those of a tracker that has had a minute for it.
func (b *Book) claim(writer uint64, now int64) []Alert {
	var due []Alert
	for i := range b.outbox() {
		d := &b.outbox()[i]
		if d.writer == 0 || d.writer != writer && now-d.claimed >= takeOverAlerts {
			d.writer, d.claimed = writer, now
			b.changed = true
			due = append(due, d.alert)
		}
	}
	return due
}

// renew claims anew what the writer has claimed, and returns the IDs.
func (b *Book) renew(writer uint64, now int64) (ids []string) {
	for i := range b.outbox() {
		if d := &b.outbox()[i]; d.writer == writer {
			d.claimed, b.changed = now, true
			ids = append(ids, d.alert.ID)
		}
	}
	return ids
}

// claimed returns those of the alerts with these IDs that the writer has claimed.
func (b *Book) claimed(writer uint64, ids []string) []Alert {
	var list []Alert
	for _, d := range b.outbox() {
		if d.writer == writer && slices.Contains(ids, d.alert.ID) {
			list = append(list, d.alert)
		}
	}
	return list
}

// delivered takes alerts out of the outbox.
func (b *Book) delivered(ids []string) {
	before := len(b.outbox())
	if before == 0 {
		return
	}
	b.more.outbox = slices.DeleteFunc(b.more.outbox, func(d delivery) bool { return slices.Contains(ids, d.alert.ID) })
	if len(b.more.outbox) != before {
		b.changed = true
	}
}

// disclaim leaves alerts that the writer has claimed to whoever changes the book next.
func (b *Book) disclaim(writer uint64, ids []string) {
	for i := range b.outbox() {
		if d := &b.outbox()[i]; d.writer == writer && slices.Contains(ids, d.alert.ID) {
			d.writer, d.claimed = 0, 0
			b.changed = true
		}
	}
}

// overdue is when the first alert that another tracker has claimed, or nobody, may be taken over. waiting: there is one.
func (b *Book) overdue(writer uint64) (at int64, waiting bool) {
	for _, d := range b.outbox() {
		if d.writer == writer {
			continue
		}
		due := int64(0)
		if d.writer != 0 {
			due = d.claimed + takeOverAlerts
		}
		if !waiting || due < at {
			at, waiting = due, true
		}
	}
	return at, waiting
}
