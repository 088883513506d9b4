package powercut

import (
	"fmt"
	"strconv"
	"strings"
)

// What an event tells.
const (
	begun   = "begun"   // a call begins
	done    = "done"    // the call of that caller was acknowledged
	failed  = "failed"  // it was not
	alerted = "alerted" // an alert was delivered: its percent is the number of the event
)

// An event is one line that a worker writes.
type event struct {
	kind    string
	caller  int
	id      string // of a hold
	settles bool   // it ends the hold, otherwise it begins it
	effect  effect
	at      int64  // of a call that was acknowledged: when, on the monotonic clock
	text    string // of the error
}

// An effect is what a call changes in its caller's unit, in the quota of every call and in the one of holds over both.
type effect struct{ used, held, pairUsed, pairHeld int64 }

func (e effect) plus(f effect) effect {
	return effect{e.used + f.used, e.held + f.held, e.pairUsed + f.pairUsed, e.pairHeld + f.pairHeld}
}

func (e event) String() string {
	id := e.id
	if id == "" {
		id = "-"
	}
	return fmt.Sprintf("%s %d %s %t %d %d %d %d %d %s", e.kind, e.caller, id, e.settles,
		e.effect.used, e.effect.held, e.effect.pairUsed, e.effect.pairHeld, e.at, strconv.Quote(e.text))
}

func parseEvent(line string) (event, error) {
	var e event
	quoted := ""
	fields := strings.SplitN(line, " ", 10)
	if len(fields) == 10 {
		quoted = fields[9]
	}
	text, err := strconv.Unquote(quoted)
	if err != nil {
		return e, fmt.Errorf("a worker wrote %q, which is no event", line)
	}
	_, err = fmt.Sscan(strings.Join(fields[:9], " "), &e.kind, &e.caller, &e.id, &e.settles,
		&e.effect.used, &e.effect.held, &e.effect.pairUsed, &e.effect.pairHeld, &e.at)
	if err != nil {
		return e, fmt.Errorf("a worker wrote %q, which is no event: %w", line, err)
	}
	if e.text = text; e.id == "-" {
		e.id = ""
	}
	return e, nil
}

// A ledger is what the events say must be found: of each caller what was acknowledged before the power was cut, and
// besides, as far as anybody can know, some of the calls that followed.
type ledger struct {
	cut     int64 // when the power was cut, on the monotonic clock; 0: not yet
	known   [most]effect
	unsure  [most][]event
	late    [most]bool       // whose last acknowledgement came after the cut
	open    map[string]int64 // holds acknowledged and not settled, with their amounts
	settled map[string]bool  // IDs of holds whose end was acknowledged
	maybe   map[string]bool  // IDs of holds whose beginning or end was not
	alerts  map[int]bool     // percents told of
}

func newLedger() *ledger {
	return &ledger{open: map[string]int64{}, settled: map[string]bool{}, maybe: map[string]bool{}, alerts: map[int]bool{}}
}

// note enters an event.
func (l *ledger) note(e event) error {
	// Where the power is really cut nobody hears what is acknowledged afterwards. It may even be wrong: xfs lets the sync
	// of a directory succeed after the shutdown.
	late := l.cut != 0 && e.at >= l.cut
	if e.kind == alerted {
		if !late {
			l.alerts[e.caller] = true
		}
		return nil
	}
	if e.caller < 0 || e.caller >= most {
		return fmt.Errorf("nobody is caller %d", e.caller)
	}
	under := l.unsure[e.caller]
	switch e.kind {
	case begun:
		if len(under) > 0 && !l.late[e.caller] {
			return fmt.Errorf("caller %d began two calls at once", e.caller)
		}
		l.unsure[e.caller] = append(under, e)
		if e.id != "" {
			l.maybe[e.id] = true
		}
	case done:
		switch {
		case len(under) == 0:
			return fmt.Errorf("caller %d ended a call that it had not begun", e.caller)
		case late || l.late[e.caller]:
			l.late[e.caller] = true
		default:
			l.unsure[e.caller] = nil
			l.enter(under[0])
		}
	case failed: // the call remains one that nobody knows of
	default:
		return fmt.Errorf("%q is no kind of event", e.kind)
	}
	return nil
}

// enter counts a call that was acknowledged.
func (l *ledger) enter(e event) {
	l.known[e.caller] = l.known[e.caller].plus(e.effect)
	if e.id == "" {
		return
	}
	delete(l.maybe, e.id)
	if e.settles {
		delete(l.open, e.id)
		l.settled[e.id] = true
	} else {
		l.open[e.id] = e.effect.held
	}
}

// acceptable says what may be found of a caller: what was acknowledged, and that with the calls after it, in order.
func (l *ledger) acceptable(caller int) []effect {
	list := []effect{l.known[caller]}
	for _, e := range l.unsure[caller] {
		list = append(list, list[len(list)-1].plus(e.effect))
	}
	return list
}

// settle makes what was found the beginning of the next ledger of the same state: nothing is open, all is known.
func (l *ledger) settle(found [most]effect) *ledger {
	next := newLedger()
	next.known, next.alerts = found, l.alerts
	return next
}
