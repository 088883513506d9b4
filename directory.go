package quota

import (
	"cmp"
	"hash/maphash"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
)

// An entry is one quota in memory. What a call needs stands side by side: of very many quotas each is far away.
type entry struct {
	*showing        // of a shared state; nil: this tracker's memory is the state. Protected by mu
	number   uint64 // of the last reservation made here. Protected by mu

	name string
	next *entry // of another name with the same hash. Protected by the shard's lock

	mu         sync.Mutex // protects what follows
	book       *Book
	rules      *rules
	due        int64       // when the timer looks at it; 0: it does not
	slot       int32       // in the schedule, from 1; 0: not there. Protected by the schedule's lock
	configured atomic.Bool // by the current configuration: its name stands for it. Written under mu
	gone       bool        // it has been dropped: look it up again
	unsaved    bool        // it is on the saver's list
	behind     bool        // more holds are due than have expired yet
}

// showing is what an entry shows of a shared state.
type showing struct {
	seen     uint64 // which save of it book shows
	fetched  int64  // when that was read
	installs uint64 // how many updates have replaced book
}

// makeEntry returns an entry of a book that has been read, or with a new one (nil). A new book that stays is in one piece with
// its entry and room for one account, for that is what most quotas of which there are very many have.
func (t *QuotaTracker) makeEntry(name string, r *rules, book *Book) *entry {
	switch {
	case t.shared.active():
		return &entry{name: name, rules: r, book: cmp.Or(book, &Book{name: name}), showing: &showing{}}
	case book != nil:
		return &entry{name: name, rules: r, book: book}
	case len(r.limits) == 1:
		room := &struct {
			account [1]account
			entry   entry
			book    Book
		}{entry: entry{name: name, rules: r}, book: Book{name: name}}
		room.entry.book, room.book.accounts = &room.book, room.account[:0]
		return &room.entry
	}
	room := &struct {
		entry entry
		book  Book
	}{entry{name: name, rules: r}, Book{name: name}}
	room.entry.book = &room.book
	return &room.entry
}

// A page is one quota's book, opened for an operation and brought to its time.
type page struct {
	entry  *entry
	book   *Book
	now    int64
	behind bool // more holds are due than have expired yet
}

// A directory finds entries by canonical name. Those of configured names are found without a lock.
type directory struct {
	fixed  atomic.Pointer[map[string]*entry] // by name and alias, without templates
	seed   maphash.Seed
	shards [64]shard
}

// A shard keeps entries by the hash of their names, which is worked out once.
type shard struct {
	mu     sync.RWMutex // protects byHash, and next of its entries
	byHash map[uint64]*entry
}

func (d *directory) shard(name string) (s *shard, hash uint64) {
	hash = maphash.String(d.seed, name)
	return &d.shards[hash%uint64(len(d.shards))], hash
}

// find returns the entry of a canonical name, nil when there is none.
func (d *directory) find(name string) *entry {
	s, hash := d.shard(name)
	s.mu.RLock()
	e := s.byHash[hash]
	s.mu.RUnlock()
	if e == nil || e.name == name {
		return e
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.find(name, hash)
}

// find is directory.find in a shard that is locked.
func (s *shard) find(name string, hash uint64) *entry {
	e := s.byHash[hash]
	for e != nil && e.name != name {
		e = e.next
	}
	return e
}

func (s *shard) put(e *entry, hash uint64) {
	if s.byHash == nil {
		s.byHash = make(map[uint64]*entry)
	}
	e.next = s.byHash[hash]
	s.byHash[hash] = e
}

// remove takes an entry out if it is there.
func (s *shard) remove(e *entry, hash uint64) {
	first := s.byHash[hash]
	switch {
	case first == e && e.next == nil:
		delete(s.byHash, hash)
	case first == e:
		s.byHash[hash] = e.next
		e.next = nil
	default:
		for one := first; one != nil; one = one.next {
			if one.next == e {
				one.next, e.next = e.next, nil
				break
			}
		}
	}
}

// add returns the entry of a canonical name and makes it if there is none, see makeEntry.
func (d *directory) add(t *QuotaTracker, name string, book *Book) *entry {
	if e := d.find(name); e != nil {
		return e
	}
	s, hash := d.shard(name)
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.find(name, hash); e != nil {
		return e
	}
	// The rules are looked up under the lock: a configuration that comes later finds the entry and corrects them.
	e := t.newEntry(name, book)
	s.put(e, hash)
	return e
}

// newEntry is makeEntry with the rules that the current configuration has for a canonical name.
func (t *QuotaTracker) newEntry(name string, book *Book) *entry {
	found, err := t.current.Load().resolve(name)
	if err != nil || found.name != name {
		return t.makeEntry(name, t.bare, book)
	}
	e := t.makeEntry(name, found.rules, book)
	e.configured.Store(true)
	return e
}

// drop removes an entry that nothing counts in any more. Its lock is held.
func (d *directory) drop(e *entry) {
	e.gone = true
	s, hash := d.shard(e.name)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.remove(e, hash)
}

// all returns every entry, by name.
func (d *directory) all() []*entry {
	var list []*entry
	for i := range d.shards {
		s := &d.shards[i]
		s.mu.RLock()
		for _, e := range s.byHash {
			for ; e != nil; e = e.next {
				list = append(list, e)
			}
		}
		s.mu.RUnlock()
	}
	slices.SortFunc(list, func(a, b *entry) int { return strings.Compare(a.name, b.name) })
	return list
}

// fill makes the entries of a state that has been loaded.
func (d *directory) fill(t *QuotaTracker, books map[string]*Book) {
	d.seed = maphash.MakeSeed()
	for name, book := range books {
		if book == nil {
			continue
		}
		book.name, book.changed = name, false
		d.add(t, name, book)
		t.undelivered.look(book, t.writer)
		for id := range book.ids {
			t.ids.add(id, []string{name})
		}
	}
}

// configure gives every entry the rules of its name, makes those of configured names, and returns the names of the
// entries that have a book to apply them to.
func (d *directory) configure(t *QuotaTracker, c *configuration) []string {
	fixed := make(map[string]*entry, len(c.names))
	for alias, found := range c.names {
		fixed[alias] = d.settle(t, found)
	}
	var names []string
	for _, e := range d.all() {
		found, err := c.resolve(e.name)
		// A canonical name that is an alias of another quota is not reachable under it.
		configured := err == nil && found.name == e.name
		e.mu.Lock()
		e.configured.Store(configured)
		if configured {
			e.rules = found.rules
			if !e.book.untouched() {
				names = append(names, e.name)
			}
		}
		e.mu.Unlock()
	}
	d.fixed.Store(&fixed)
	return names
}

// settle returns the entry of a configured name with its rules: from then on nobody drops it.
func (d *directory) settle(t *QuotaTracker, found target) *entry {
	for {
		e := d.add(t, found.name, nil)
		e.mu.Lock()
		if !e.gone {
			e.rules = found.rules
			e.configured.Store(true)
			e.mu.Unlock()
			return e
		}
		e.mu.Unlock()
	}
}

// lookup returns the entry of what a caller calls a quota. One of a template that nobody has used yet is made when
// create is set; otherwise it is returned without being kept.
func (t *QuotaTracker) lookup(name string, create bool) (*entry, error) {
	if e, ok := (*t.entries.fixed.Load())[name]; ok {
		return e, nil
	}
	// A name that stands for itself is found without its template being looked for.
	if e := t.entries.find(name); e != nil && e.configured.Load() {
		return e, nil
	}
	found, err := t.current.Load().resolve(name)
	if err != nil {
		return nil, err
	}
	if found.name != name {
		if e := t.entries.find(found.name); e != nil {
			return e, nil
		}
	}
	if !create {
		e := t.makeEntry(found.name, found.rules, nil)
		e.configured.Store(true)
		e.gone = true
		return e, nil
	}
	return t.entries.add(t, found.name, nil), nil
}

// entryOf returns the entry of a canonical name, whether or not it is configured.
func (t *QuotaTracker) entryOf(canonical string) *entry {
	if e, ok := (*t.entries.fixed.Load())[canonical]; ok && e.name == canonical {
		return e
	}
	if e := t.entries.find(canonical); e != nil {
		return e
	}
	return t.entries.add(t, canonical, nil)
}

// glimpse returns the entry of a canonical name, or one that is not kept.
func (t *QuotaTracker) glimpse(canonical string) *entry {
	if e := t.entries.find(canonical); e != nil {
		return e
	}
	e := t.newEntry(canonical, nil)
	e.gone = true
	return e
}

// lockEntry returns the entry of a canonical name, locked.
func (t *QuotaTracker) lockEntry(canonical string) *entry {
	for {
		e := t.entryOf(canonical)
		e.mu.Lock()
		if !e.gone {
			return e
		}
		e.mu.Unlock()
	}
}
