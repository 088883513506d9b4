//go:build amd64 || arm64

package victim

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// A Ledger is what a state must say after the steps that were applied to it. It knows the rules of the few limits that
// Quotas has, worked out anew.
type Ledger struct {
	Now     time.Time
	Lowered bool
	View    View
	Alerts  map[string]bool // that must have been delivered: quota, limit, threshold

	holds map[string]held
	made  int // anonymous holds
}

type held struct {
	quotas           []string
	requests, tokens int64
	expires          time.Time
	anonymous        bool
}

// NewLedger is that of a state in which there is nothing.
func NewLedger(now time.Time) *Ledger {
	return &Ledger{Now: now, View: newView(), Alerts: map[string]bool{}, holds: map[string]held{}}
}

// Clone returns a copy that can go another way.
func (l *Ledger) Clone() *Ledger {
	copied := *l
	v := l.View
	copied.View = View{
		Used: maps.Clone(v.Used), Reserved: maps.Clone(v.Reserved), Open: maps.Clone(v.Open), Today: maps.Clone(v.Today),
		Past: maps.Clone(v.Past), Closed: maps.Clone(v.Closed), Holds: maps.Clone(v.Holds),
	}
	copied.Alerts, copied.holds = maps.Clone(l.Alerts), maps.Clone(l.holds)
	return &copied
}

// IDs are those of all reservations there ever were, settled ones included.
func (l *Ledger) IDs() []string {
	ids := []string{"gone"}
	for i := range 40 {
		ids = append(ids, idOf(i))
	}
	return ids
}

func idOf(n int) string { return fmt.Sprintf("task-%d", n) }

const (
	perDay   = "requests per day"
	tokensAD = "tokens per day"
	tokensLT = "tokens per lifetime"
)

// limit is how large a limit is, and 0 when there is no such.
func (l *Ledger) limit(key string) int64 {
	switch {
	case key == "alpha/"+perDay && l.Lowered:
		return alphaLowered
	case key == "alpha/"+perDay:
		return alphaRequests
	case key == "alpha/"+tokensAD:
		return alphaTokens
	case key == "beta/"+tokensLT:
		return betaTokens
	case strings.HasPrefix(key, "user:") && strings.HasSuffix(key, perDay):
		return userRequests
	case key == "visitor/"+requestsLT, key == "probe/"+requestsLT:
		return 1e6
	}
	return 0
}

const requestsLT = "requests per lifetime"

// parts are the limits that so many requests and tokens of a quota count in.
func (l *Ledger) parts(name string, requests, tokens int64) map[string]int64 {
	parts := map[string]int64{}
	for limit, n := range map[string]int64{perDay: requests, requestsLT: requests, tokensAD: tokens, tokensLT: tokens} {
		if l.limit(name+"/"+limit) > 0 && n != 0 {
			parts[name+"/"+limit] = n
		}
	}
	return parts
}

// Apply does a step that has taken effect.
func (l *Ledger) Apply(step Step) {
	switch step.Do {
	case Record:
		l.record(step)
	case Reserve, Anonymous:
		id := step.ID
		if step.Do == Anonymous {
			l.made++
			id = fmt.Sprintf("anonymous-%d", l.made)
		}
		l.hold(id, held{step.Quotas, step.Requests, step.Tokens, l.Now.Add(holdsFor), step.Do == Anonymous})
	case Commit:
		h := l.holds[step.ID]
		l.unhold(step.ID)
		for _, name := range h.quotas {
			l.use(name, step.Requests, step.Tokens)
		}
	case Release:
		l.unhold(step.ID)
	case GiveBack:
		l.unhold(l.oldest(step.Quotas[0]))
	case Extend:
		h := l.holds[step.ID]
		l.unhold(step.ID)
		if until := l.Now.Add(step.For); until.After(h.expires) {
			h.expires = until
		}
		l.hold(step.ID, h)
	case Observe:
		for key, limit := range map[string]int64{"alpha/" + tokensAD: alphaTokens, "beta/" + tokensLT: betaTokens} {
			if strings.HasPrefix(key, step.Quotas[0]+"/") && l.View.Used[key] < limit-step.Tokens {
				l.View.Used[key] = limit - step.Tokens
				l.cross(key)
			}
		}
		if until := l.Now.Add(step.For); until.After(l.View.Closed[step.Quotas[0]]) && step.For > 0 {
			l.View.Closed[step.Quotas[0]] = until
		}
	case Configure:
		l.Lowered = true
		l.cross("alpha/" + perDay)
	case Reset:
		for key := range l.View.Used {
			if strings.HasPrefix(key, step.Quotas[0]+"/") {
				delete(l.View.Used, key)
			}
		}
	case Advance:
		l.MoveTo(l.Now.Add(step.For))
	case Burst:
		for _, one := range step.Steps {
			l.Apply(one)
		}
	case Clear:
		*l = *NewLedger(l.Now)
	}
}

// record is usage without a handle: the oldest anonymous hold of exactly that quota is used up by it. The steps record
// as much as it holds.
func (l *Ledger) record(step Step) {
	if id := l.oldest(step.Quotas[0]); id != "" {
		l.unhold(id)
	}
	l.use(step.Quotas[0], step.Requests, step.Tokens)
}

func (l *Ledger) oldest(name string) string {
	for _, id := range slices.Sorted(maps.Keys(l.holds)) {
		if h := l.holds[id]; h.anonymous && h.quotas[0] == name {
			return id
		}
	}
	return ""
}

func (l *Ledger) use(name string, requests, tokens int64) {
	for key, n := range l.parts(name, requests, tokens) {
		l.View.Used[key] += n
		l.cross(key)
	}
	if bystander(name) {
		return
	}
	add(l.View.Today, name+"/requests", requests)
	add(l.View.Today, name+"/tokens", tokens)
}

func add(to map[string]int64, key string, n int64) {
	if to[key] += n; to[key] == 0 {
		delete(to, key)
	}
}

// cross fires the thresholds that a limit's usage has reached.
func (l *Ledger) cross(key string) {
	if name, _, _ := strings.Cut(key, "/"); bystander(name) {
		return
	}
	for _, percent := range []int64{50, 80, 90} {
		if l.View.Used[key]*100 >= l.limit(key)*percent {
			l.Alerts[alertKey(key, percent, l.Now)] = true
		}
	}
}

// alertKey tells crossings apart: those of a day's limit by the day too.
func alertKey(limit string, percent int64, at time.Time) string {
	key := fmt.Sprintf("%s/%d", limit, percent)
	if strings.HasSuffix(limit, " per day") {
		key += "@" + at.UTC().Format(time.DateOnly)
	}
	return key
}

func (l *Ledger) hold(id string, h held) {
	l.holds[id] = h
	for _, name := range h.quotas {
		l.View.Open[name]++
		for key, n := range l.parts(name, h.requests, h.tokens) {
			add(l.View.Reserved, key, n)
		}
	}
	if !h.anonymous {
		l.View.Holds[id] = holdText(h.quotas, map[string]int64{"requests": h.requests, "tokens": h.tokens}, h.expires)
	}
}

func (l *Ledger) unhold(id string) {
	h, ok := l.holds[id]
	if !ok {
		return
	}
	delete(l.holds, id)
	delete(l.View.Holds, id)
	for _, name := range h.quotas {
		if l.View.Open[name]--; l.View.Open[name] == 0 {
			delete(l.View.Open, name)
		}
		for key, n := range l.parts(name, h.requests, h.tokens) {
			add(l.View.Reserved, key, -n)
		}
	}
}

// MoveTo lets time pass: holds expire and are charged, days end, closed quotas open.
func (l *Ledger) MoveTo(now time.Time) {
	for {
		next, what := now, ""
		for _, id := range slices.Sorted(maps.Keys(l.holds)) {
			if h := l.holds[id]; !h.expires.After(next) && (what == "" || h.expires.Before(next)) {
				next, what = h.expires, id
			}
		}
		midnight := l.Now.Truncate(24 * time.Hour).Add(24 * time.Hour)
		if !midnight.After(next) {
			l.Now = midnight
			l.turn()
			continue
		}
		if what == "" {
			break
		}
		l.Now = next
		h := l.holds[what]
		l.unhold(what)
		for _, name := range h.quotas {
			l.use(name, h.requests, h.tokens)
		}
	}
	l.Now = now
	for name, until := range l.View.Closed {
		if !until.After(now) {
			delete(l.View.Closed, name)
		}
	}
}

// turn ends the day.
func (l *Ledger) turn() {
	yesterday := l.Now.Add(-24 * time.Hour).Format(time.DateOnly)
	for key, n := range l.View.Today {
		name, unit, _ := strings.Cut(key, "/")
		if !strings.HasPrefix(name, "user:") { // the quotas of a template keep no past days
			l.View.Past[name+"/"+yesterday+"/"+unit] = n
		}
	}
	l.View.Today = map[string]int64{}
	for key := range l.View.Used {
		if strings.HasSuffix(key, " per day") {
			delete(l.View.Used, key)
		}
	}
}

// Room tells whether so much more can be held in a quota.
func (l *Ledger) Room(name string, requests, tokens int64) bool {
	for key, n := range l.parts(name, requests, tokens) {
		if l.View.Used[key]+l.View.Reserved[key]+n > l.limit(key) {
			return false
		}
	}
	_, closed := l.View.Closed[name]
	return !closed
}

// OpenIDs are those of the reservations that are open and have one.
func (l *Ledger) OpenIDs() []string {
	return slices.Sorted(maps.Keys(l.View.Holds))
}
