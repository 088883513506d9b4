package quota

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// ExpiryPolicy says what becomes of a reservation that nobody has settled by its TTL.
type ExpiryPolicy uint8

const (
	// ChargeExpired charges what was held, marked as estimated: the outcome of a call whose process died is not known,
	// and the promise is never to over-admit. A late Commit or Release corrects it.
	ChargeExpired ExpiryPolicy = iota
	// ReleaseExpired gives back what was held. A late Commit is charged in full.
	ReleaseExpired
)

// A holdKey names a hold for ever: the tracker that granted it and its number there.
type holdKey struct{ writer, number uint64 }

// text is the form in which the key leaves the library, with the name of a quota that holds it.
func (k holdKey) text(quota string) string {
	return strconv.FormatUint(k.writer, 36) + "-" + strconv.FormatUint(k.number, 36) + "@" + quota
}

// parseHoldKey is the inverse of holdKey.text.
func parseHoldKey(text string) (key holdKey, quota string, ok bool) {
	key1, quota, found := strings.Cut(text, "@")
	writer, number, dashed := strings.Cut(key1, "-")
	if !found || !dashed {
		return holdKey{}, "", false
	}
	var errWriter, errNumber error
	key.writer, errWriter = strconv.ParseUint(writer, 36, 64)
	key.number, errNumber = strconv.ParseUint(number, 36, 64)
	return key, quota, errWriter == nil && errNumber == nil
}

// A hold is what one reservation has set aside in one quota.
type hold struct {
	key     holdKey
	id      string   // the caller's; "": made up
	name    string   // the name the caller used for the quota that admitted it
	quotas  []string // canonical names, when there are several
	amounts amounts  // still held
	asked   *amounts // as granted, when amounts has shrunk since
	granted int64    // 0: in no window that still stands
	expires int64
	ttl     int64
	charged int64 // when it expired, and was charged; 0: open
	joined  int64 // how many calls with its ID were given it beside the one that opened it

	estimated []Unit // of what a caller's ID was granted, the units that the call did not name

	late         bool // it expired, and is remembered
	released     bool // it expired, and was given back
	found        bool // a second handle was made for it: that it was settled is remembered
	slot         int  // in the expiry heap, from 1; 0: it is not open
	older, newer *hold
}

// stands reports whether a hold is open. In a foreign book one whose time is over is still among the open ones.
func (h *hold) stands(now int64) bool { return h != nil && h.expires > now }

// plain holds are those that matching usage may use up.
func (h *hold) plain() bool { return h.id == "" && h.quotas == nil }

// original is what was granted, before anything shrank it.
func (h *hold) original() *amounts {
	if h.asked != nil {
		return h.asked
	}
	return &h.amounts
}

// holds are the open holds of one quota, found by ID, by age and by expiry, and by key where somebody asks; and those that
// have expired and may still be corrected;
// and what became of those that are settled. Nil is that of a book in which nothing has been reserved yet.
type holds struct {
	plain     line // by age
	other     line // by age
	expiry    expiryHeap
	spare     []*hold // to be used again
	tally     tally
	byID      map[string]*hold // those with a caller's ID
	byKey     map[holdKey]*hold
	ended     line // the expired ones, by expiry
	late      int  // how many those are
	lateByKey map[holdKey]*hold
	settled   settledIDs
}

// open is how many are open.
func (s *holds) open() int {
	if s == nil {
		return 0
	}
	return len(s.expiry)
}

// oldest is the open hold that matching usage uses up first, nil when there is none.
func (s *holds) oldest() *hold {
	if s == nil {
		return nil
	}
	return s.plain.oldest
}

// oldestLate is the first that expired of those that may still be corrected, nil when there is none.
func (s *holds) oldestLate() *hold {
	if s == nil {
		return nil
	}
	return s.ended.oldest
}

// called returns the open hold with a caller's ID, nil when there is none.
func (s *holds) called(id string) *hold {
	if s == nil {
		return nil
	}
	return s.byID[id]
}

// A line is a list of holds, oldest first.
type line struct{ oldest, newest *hold }

func (l *line) add(h *hold) {
	h.older, h.newer = l.newest, nil
	if l.newest != nil {
		l.newest.newer = h
	} else {
		l.oldest = h
	}
	l.newest = h
}

func (l *line) remove(h *hold) {
	if h.older != nil {
		h.older.newer = h.newer
	} else {
		l.oldest = h.newer
	}
	if h.newer != nil {
		h.newer.older = h.older
	} else {
		l.newest = h.older
	}
	h.older, h.newer = nil, nil
}

func (s *holds) lineOf(h *hold) *line {
	if h.plain() {
		return &s.plain
	}
	return &s.other
}

// blank returns a hold to fill in and add.
func (s *holds) blank() *hold {
	if s == nil {
		return &hold{}
	}
	if n := len(s.spare); n > 0 {
		h := s.spare[n-1]
		s.spare = s.spare[:n-1]
		return h
	}
	return &hold{}
}

const mostSpare = 256

func (s *holds) recycle(h *hold) {
	if len(s.spare) < mostSpare {
		*h = hold{}
		s.spare = append(s.spare, h)
	}
}

func (s *holds) add(h *hold) {
	if s.byKey != nil {
		s.byKey[h.key] = h
	}
	if h.id != "" {
		if s.byID == nil {
			s.byID = make(map[string]*hold)
		}
		s.byID[h.id] = h
	}
	s.lineOf(h).add(h)
	s.expiry.add(h)
}

// remove takes an open hold out. It stays valid until it is recycled or remembered as expired.
func (s *holds) remove(h *hold) {
	if s.byKey != nil {
		delete(s.byKey, h.key)
	}
	if h.id != "" {
		delete(s.byID, h.id)
	}
	s.lineOf(h).remove(h)
	s.expiry.remove(h)
}

// fewHolds are looked through rather than kept by key.
const fewHolds = 8

// find returns the open hold of a key, nil when there is none. Handles know their hold, so that most books never need an
// index by key: the first who asks for one of many makes it.
func (s *holds) find(key holdKey) *hold {
	if s == nil {
		return nil
	}
	if s.byKey != nil {
		return s.byKey[key]
	}
	if len(s.expiry) <= fewHolds {
		for _, one := range s.expiry {
			if one.hold.key == key {
				return one.hold
			}
		}
		return nil
	}
	s.byKey = make(map[holdKey]*hold, len(s.expiry))
	for _, one := range s.expiry {
		s.byKey[one.hold.key] = one.hold
	}
	return s.byKey[key]
}

func (s *holds) extend(h *hold, expires int64) {
	h.expires = expires
	s.expiry.move(h)
}

// nextExpiry is when the next open hold expires, 0 when none is open.
func (s *holds) nextExpiry() int64 {
	if s.open() == 0 {
		return 0
	}
	return s.expiry[0].expires
}

// remember keeps an expired hold, so that a late settlement can correct what it was charged.
func (s *holds) remember(h *hold) {
	if s.lateByKey != nil {
		s.lateByKey[h.key] = h
	}
	h.late = true
	s.ended.add(h)
	s.late++
}

func (s *holds) forget(h *hold) {
	if s.lateByKey != nil {
		delete(s.lateByKey, h.key)
	}
	h.late = false
	s.ended.remove(h)
	s.late--
}

// findLate is find among those that have expired and may still be corrected.
func (s *holds) findLate(key holdKey) *hold {
	if s == nil {
		return nil
	}
	if s.lateByKey == nil && s.late > fewHolds {
		s.lateByKey = make(map[holdKey]*hold, s.late)
		for h := s.ended.oldest; h != nil; h = h.newer {
			s.lateByKey[h.key] = h
		}
	}
	if s.lateByKey != nil {
		return s.lateByKey[key]
	}
	for h := s.ended.oldest; h != nil; h = h.newer {
		if h.key == key {
			return h
		}
	}
	return nil
}

// each visits every open hold, by age in either line.
func (s *holds) each(visit func(*hold) bool) {
	if s == nil {
		return
	}
	for _, l := range [2]*line{&s.plain, &s.other} {
		for h := l.oldest; h != nil; h = h.newer {
			if !visit(h) {
				return
			}
		}
	}
}

// grantedAt reports whether a hold granted at that time, the latest there is, is open.
func (s *holds) grantedAt(now int64) bool {
	if s == nil {
		return false
	}
	return s.plain.newest != nil && s.plain.newest.granted == now || s.other.newest != nil && s.other.newest.granted == now
}

// inOrder returns the open holds by age of both lines.
func (s *holds) inOrder() []*hold {
	list := make([]*hold, 0, s.open())
	for h := range s.each {
		list = append(list, h)
	}
	slices.SortStableFunc(list, func(a, b *hold) int { return cmp.Compare(a.granted, b.granted) })
	return list
}

// A settledID remembers, until then, that an ID has been settled.
type settledID struct {
	id     string
	forget int64
}

// settledIDs refuse an ID that has been settled until no retry can arrive any more. Nil knows none.
type settledIDs struct {
	until map[string]int64
	queue []settledID // in the order they were settled
	head  int         // of queue: those before it are forgotten

	crowded int // the length of queue at which it is swept throughout
}

func (s *settledIDs) add(id string, forget int64) {
	if s.until == nil {
		s.until = make(map[string]int64)
	}
	if s.until[id] >= forget {
		return // a hold with a longer TTL was settled under the same ID
	}
	s.until[id] = forget
	s.queue = append(s.queue, settledID{id, forget})
}

func (s *settledIDs) has(id string, now int64) bool {
	return s != nil && s.until[id] > now
}

// list returns what is remembered, in the order it was settled.
func (s *settledIDs) list() []settledID {
	if s == nil {
		return nil
	}
	return s.queue[s.head:]
}

// sweep forgets what is due. An ID behind one that is kept longer waits until the queue has doubled.
func (s *settledIDs) sweep(now int64) {
	if s == nil {
		return
	}
	for s.head < len(s.queue) && s.queue[s.head].forget <= now {
		s.forget(s.queue[s.head])
		s.queue[s.head] = settledID{}
		s.head++
	}
	if s.head > len(s.queue)/2 {
		s.queue = s.queue[:copy(s.queue, s.queue[s.head:])]
		s.head = 0
	}
	if !s.crowd() {
		return
	}
	s.queue, s.head = slices.DeleteFunc(s.list(), func(one settledID) bool {
		if one.forget <= now {
			s.forget(one)
		}
		return one.forget <= now
	}), 0
	s.crowded = 2 * len(s.queue)
}

const leastSettled = 64

// due is when the next sweep has something to do, latest when it never has.
func (s *settledIDs) due() int64 {
	switch list := s.list(); {
	case s.crowd():
		return 0
	case len(list) > 0:
		return list[0].forget
	}
	return latest
}

// crowd reports whether so many are remembered that they are swept throughout.
func (s *settledIDs) crowd() bool { return s != nil && len(s.queue) >= max(leastSettled, s.crowded) }

func (s *settledIDs) forget(one settledID) {
	if s.until[one.id] == one.forget {
		delete(s.until, one.id)
	}
}

// How long a settled ID and an expired hold are remembered.
const (
	rememberSettled = int64(time.Hour)
	rememberExpired = int64(24 * time.Hour)
	mostRemembered  = 90 * rememberExpired
)
