package quota

import (
	"slices"
	"time"
)

// A Book is the ledger of one quota: the accounts of its limits, its holds, what it remembers, and the totals of the day.
// It is a pure state machine. Its transitions take the rules and the time, and do no I/O, take no lock and read no clock,
// so that every Persistence behaves alike. Its JSON form is stable. A Book is not safe for concurrent use.
type Book struct {
	clock      int64        // the latest time seen; the book's time never runs back by up to a day
	quiet      int64        // until then time changes nothing but what flows
	configured *rules       // the rules that the accounts have been matched with
	holds      *holds       // nil: nothing has been reserved yet
	more       *bookDetails // nil: there is nothing special about it
	accounts   []account    // those of configured limits first, in their order
	limited    int32        // how many of the accounts are of those limits
	flowing    bool         // there are accounts in which time changes something at any moment
	changed    bool         // something has changed that must be saved
	today      dayTotals
	name       string // set by whoever opens the book
}

// bookDetails are what few books need.
type bookDetails struct {
	finished []DaySummary // finished days that have not gone into the history
	outbox   []delivery   // alerts that have not been delivered
	closed   int64        // the provider admits nothing before
	imported *imported    // from a form that does not say what was counted
	batches  []batch      // the last batch of each writer
	refused  *lastRefusal

	finishedText finishedText
}

// A finishedText is what a list of finished days was encoded as.
type finishedText struct {
	days []DaySummary
	data []byte
}

// limits are the accounts of the limits that are configured, in their order.
func (b *Book) limits() []account { return b.accounts[:b.limited] }

// holding is holds, to be changed.
func (b *Book) holding() *holds {
	if b.holds == nil {
		b.holds = &holds{}
	}
	return b.holds
}

func (b *Book) settled() *settledIDs {
	if b.holds == nil {
		return nil
	}
	return &b.holds.settled
}

func (b *Book) tally() tally {
	if b.holds == nil {
		return tally{}
	}
	return b.holds.tally
}

// details are more, to be changed.
func (b *Book) details() *bookDetails {
	if b.more == nil {
		b.more = &bookDetails{}
	}
	return b.more
}

func (b *Book) finished() []DaySummary {
	if b.more == nil {
		return nil
	}
	return b.more.finished
}

func (b *Book) outbox() []delivery {
	if b.more == nil {
		return nil
	}
	return b.more.outbox
}

func (b *Book) closed() int64 {
	if b.more == nil {
		return 0
	}
	return b.more.closed
}

func (b *Book) imported() *imported {
	if b.more == nil {
		return nil
	}
	return b.more.imported
}

func (b *Book) refused() *lastRefusal {
	if b.more == nil {
		return nil
	}
	return b.more.refused
}

func (b *Book) batches() []batch {
	if b.more == nil {
		return nil
	}
	return b.more.batches
}

// tally counts what became of reservations, for Verify.
type tally struct{ granted, settled, expired int64 }

// A batch is the last that a writer has applied, so that it recognises one whose outcome it did not learn.
type batch struct {
	writer, number uint64
	at             int64
}

// imported is usage of which only the number is known.
type imported struct{ used, reserved, ends int64 }

func importedBook(used, reserved, ends int64) *Book {
	return &Book{more: &bookDetails{imported: &imported{used, reserved, ends}}, changed: true}
}

const (
	day         = int64(24 * time.Hour)
	dropAccount = 2 * day          // an account that nobody has configured for so long
	mostBatches = 256              // the writers that marked last
	seenEvery   = int64(time.Hour) // how exactly it is known when an account was last configured
)

// time returns an instant of the account in the zone of its window.
func (a *account) time(ns int64) time.Time {
	if ns == 0 || a.location == nil {
		return instant(ns)
	}
	return instant(ns).In(a.location)
}

func (b *Book) local(ns int64) time.Time {
	if b.configured == nil || ns == 0 {
		return instant(ns)
	}
	return instant(ns).In(b.configured.location)
}

// takeFinished returns the finished days and removes them: they go into the history.
func (b *Book) takeFinished() []DaySummary {
	finished := b.finished()
	if finished != nil {
		b.more.finished = nil
	}
	return finished
}

// marked returns the number of the writer's last batch that is part of the book and marked; 0: none.
func (b *Book) marked(writer uint64) uint64 {
	at := slices.IndexFunc(b.batches(), func(one batch) bool { return one.writer == writer })
	if at < 0 {
		return 0
	}
	return b.batches()[at].number
}

// applied reports whether the writer's batch of that number, or a later one, is part of the book.
func (b *Book) applied(writer, number uint64) bool { return b.marked(writer) >= number }

// mark notes the writer's batch, in the place of the one before: a batch repeats what is left of all before it. The mark is
// needed until the writer has learned that the batch was saved. Its next batch tells, which marks itself or takes the mark
// away; a writer that has gone for good leaves its last one behind, until it is swept.
func (b *Book) mark(writer, number uint64, now int64) {
	at := slices.IndexFunc(b.batches(), func(one batch) bool { return one.writer == writer })
	if at < 0 {
		b.details().batches = append(b.batches(), batch{writer, number, now})
		b.hush(0) // with one more, others may be swept
		return
	}
	b.batches()[at].number, b.batches()[at].at = number, now
}

// unmark takes the writer's mark away.
func (b *Book) unmark(writer uint64) {
	if marked := b.batches(); len(marked) > 0 {
		b.more.batches = slices.DeleteFunc(marked, func(one batch) bool { return one.writer == writer })
	}
}

// blank reports whether nothing in the book counts any more, so that a template's book may be dropped: holds, windows
// and yesterday are over.
func (b *Book) blank() bool {
	if b.holds.open() > 0 || b.holds.oldestLate() != nil || len(b.settled().list()) > 0 || len(b.outbox()) > 0 ||
		len(b.finished()) > 0 || b.imported() != nil || b.closed() > b.clock {
		return false
	}
	for i := range b.accounts {
		a := &b.accounts[i]
		if a.used > 0 || a.reserved > 0 || len(a.marks) > 0 || a.first > 0 || a.resets() {
			return false
		}
	}
	return !b.today.active() && b.clock-b.today.last >= day
}

// untouched reports whether nothing has ever been counted in the book.
func (b *Book) untouched() bool {
	for i := range b.accounts {
		a := &b.accounts[i]
		if a.used > 0 || a.armed > 0 {
			return false
		}
	}
	return b.tally() == tally{} && !b.today.active() && b.today.last == 0 && b.imported() == nil && len(b.finished()) == 0 &&
		b.closed() == 0 && len(b.outbox()) == 0
}

// nextTurn is when time alone changes what the book says, 0 when it does not.
func (b *Book) nextTurn() int64 {
	if b.configured != nil && b.configured.foreign {
		return 0
	}
	next := b.holds.nextExpiry()
	earlier := func(at int64) {
		if at > b.clock && (next == 0 || at < next) {
			next = at
		}
	}
	earlier(b.today.end)
	earlier(b.closed())
	for i := range b.accounts {
		a := &b.accounts[i]
		earlier(a.end)
	}
	return next
}

// nextRenewal is when the first of the windows that open holds carry over ends; latest when there is none.
func (b *Book) nextRenewal() int64 {
	next := latest
	for i := range b.accounts {
		a := &b.accounts[i]
		if a.carries() && a.end > b.clock {
			next = min(next, a.end)
		}
	}
	return next
}
