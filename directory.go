package quota

import (
	"hash/maphash"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
)

// An entry is one quota in memory.
type entry struct {
	name string

	mu         sync.Mutex // protects everything below
	book       *Book
	rules      *rules
	configured bool   // by the current configuration
	gone       bool   // it has been dropped: look it up again
	unsaved    bool   // it is on the saver's list
	number     uint64 // of the last reservation made here
	numbers    uint64 // the last one set aside for here
	behind     bool   // more holds are due than have expired yet
	due        int64  // when the timer looks at it; 0: it does not
	slot       int    // in the schedule, from 1; 0: not there. Protected by the schedule's lock
	seen       uint64 // which save of a shared state book shows
	fetched    int64  // when that was read
	installs   uint64 // how many updates have replaced book
}

// A page is one quota's book, opened for an operation and brought to its time.
type page struct {
	entry  *entry
	book   *Book
	now    int64
	behind bool // the book's time is not the clock's: more holds are due than have expired yet
}

// A directory finds entries by canonical name. Those of configured names are found without a lock.
type directory struct {
	fixed  atomic.Pointer[map[string]*entry] // by name and alias, without templates
	seed   maphash.Seed
	shards [64]shard
}

type shard struct {
	mu     sync.RWMutex // protects byName
	byName map[string]*entry
}

func (d *directory) shard(name string) *shard {
	return &d.shards[maphash.String(d.seed, name)%uint64(len(d.shards))]
}

// find returns the entry of a canonical name, nil when there is none.
func (d *directory) find(name string) *entry {
	s := d.shard(name)
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.byName[name]
}

// add returns the entry of a canonical name and makes it if there is none.
func (d *directory) add(t *QuotaTracker, name string) *entry {
	if e := d.find(name); e != nil {
		return e
	}
	s := d.shard(name)
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.byName[name]; e != nil {
		return e
	}
	// The rules are looked up under the lock: a configuration that comes later finds the entry and corrects them.
	e := t.newEntry(name)
	if s.byName == nil {
		s.byName = make(map[string]*entry)
	}
	s.byName[name] = e
	return e
}

// newEntry returns an entry of a canonical name, with the rules that the current configuration has for it.
func (t *QuotaTracker) newEntry(name string) *entry {
	e := &entry{name: name, rules: t.bare, book: &Book{name: name}}
	if found, err := t.current.Load().resolve(name); err == nil && found.name == name {
		e.rules, e.configured = found.rules, true
	}
	return e
}

// drop removes an entry that nothing counts in any more. Its lock is held.
func (d *directory) drop(e *entry) {
	e.gone = true
	s := d.shard(e.name)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.byName[e.name] == e {
		delete(s.byName, e.name)
	}
}

// all returns every entry, by name.
func (d *directory) all() []*entry {
	var list []*entry
	for i := range d.shards {
		s := &d.shards[i]
		s.mu.RLock()
		for _, e := range s.byName {
			list = append(list, e)
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
		e := d.add(t, name)
		e.book = book
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
		e.configured = configured
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
		e := d.add(t, found.name)
		e.mu.Lock()
		if !e.gone {
			e.rules, e.configured = found.rules, true
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
	found, err := t.current.Load().resolve(name)
	if err != nil {
		return nil, err
	}
	if e := t.entries.find(found.name); e != nil {
		return e, nil
	}
	if !create {
		return &entry{name: found.name, rules: found.rules, configured: true, gone: true, book: &Book{name: found.name}}, nil
	}
	return t.entries.add(t, found.name), nil
}

// entryOf returns the entry of a canonical name, whether or not it is configured.
func (t *QuotaTracker) entryOf(canonical string) *entry {
	if e, ok := (*t.entries.fixed.Load())[canonical]; ok && e.name == canonical {
		return e
	}
	if e := t.entries.find(canonical); e != nil {
		return e
	}
	return t.entries.add(t, canonical)
}

// glimpse returns the entry of a canonical name, or one that is not kept.
func (t *QuotaTracker) glimpse(canonical string) *entry {
	if e := t.entries.find(canonical); e != nil {
		return e
	}
	e := t.newEntry(canonical)
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
