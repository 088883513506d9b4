package quota

import "slices"

// A refusal is of one day, for one reason, n times.
type refusal struct {
	by    string
	n     int64
	day   int64  // the start of the day on which it counts
	at    int64  // the last of them
	batch uint64 // the update that may have counted it, of which nobody knows; 0: none
}

func (one refusal) like(other refusal) bool {
	return one.by == other.by && one.day == other.day && one.batch == other.batch
}

func (one refusal) sameDay(other refusal) bool { return one.day == other.day }

// refusalFor is one on the book's day.
func (b *Book) refusalFor(by string) refusal {
	return refusal{by: by, n: 1, day: b.today.start, at: b.clock}
}

// A refusalFate is where a refusal has been counted.
type refusalFate uint8

const (
	inBook    refusalFate = iota
	inHistory             // to the day that the history file has
	nowhere               // quotas of a template keep no past days
)

// refuse counts a refusal on its day. Where that is over and nothing is known of it any more, it counts today.
func (b *Book) refuse(r *rules, one refusal, now int64) refusalFate {
	if _, end := r.day(one.at); r.template && end <= now {
		return nowhere
	}
	at := min(one.at, now)
	if !b.keepsTo(r) {
		at = now // other limits hold from now on, and not from then
	}
	if at >= b.clock {
		b.advance(r, at)
	}
	if one.day >= b.today.start {
		b.today.deny(one.by, one.n)
		return inBook
	}
	past, fate := b.finished(), inBook
	theDay := func(day DaySummary) bool { return nanos(day.Day) == one.day }
	if !slices.ContainsFunc(past, theDay) && r.history != nil {
		past, fate = r.history(b.name), inHistory
	}
	found := slices.IndexFunc(past, theDay)
	if found < 0 {
		b.today.deny(one.by, one.n)
		return inBook
	}
	day := past[found].clone()
	day.deny(one.by, one.n)
	b.details().finished = mergeDays(b.finished(), []DaySummary{day}) // a list of its own: finished days are shared
	return fate
}

// keepsTo reports whether r says of no limit that the book has another Max.
func (b *Book) keepsTo(r *rules) bool {
	for i := range b.accounts {
		for j := range r.limits {
			if b.accounts[i].text == r.limits[j].key.text && b.accounts[i].max != r.limits[j].Max {
				return false
			}
		}
	}
	return true
}
