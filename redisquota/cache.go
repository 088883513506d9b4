package redisquota

import (
	"container/list"
	"maps"
	"strings"
	"sync/atomic"

	"example.com/quota"
)

const (
	mostCached      = 4096
	mostCachedBytes = 32 << 20
)

// A version is a book as it stands in the store, or that it does not stand there.
type version struct {
	revision string // another with every change; of what is absent, with every book that is dropped
	data     []byte
	read     *reading // of data, shared by all copies of the version; nil: it is read each time
}

// A reading is a book that nobody changes any more: each reader gets a copy, for most of the time of a call would go into
// reading the same JSON again.
type reading struct{ book atomic.Pointer[quota.Book] }

func readAs(book *quota.Book) *reading {
	r := &reading{}
	r.book.Store(book)
	return r
}

func absence(deleted string) version { return version{revision: "-" + deleted} }

func (v version) absent() bool { return strings.HasPrefix(v.revision, "-") }

// A cache remembers the versions that were seen last. What it remembers may be out of date: the server compares. But when
// it is complete, it lacks nothing of generation asOf.
type cache struct {
	byName   map[string]*list.Element
	recent   *list.List // of cached, the latest used first
	bytes    int
	complete bool
	asOf     int64  // 0 when it is not complete
	deleted  string // the revision of the drop that was seen last
}

type cached struct {
	name string
	version
}

func newCache() cache { return cache{byName: map[string]*list.Element{}, recent: list.New()} }

func (c *cache) clear() { *c = newCache() }

// find returns a version that may still stand.
func (c *cache) find(name string) (version, bool) {
	e, ok := c.byName[name]
	if !ok {
		return absence(c.deleted), c.complete
	}
	c.recent.MoveToFront(e)
	if v := e.Value.(*cached).version; !v.absent() {
		return v, true
	}
	return absence(c.deleted), true
}

// put remembers versions that stood at a generation.
func (c *cache) put(generation int64, versions map[string]version) {
	if generation < c.asOf {
		return // the reply has been overtaken by one that knew more
	}
	for name, v := range versions {
		c.drop(name)
		if v.absent() && c.complete {
			continue // as is what it does not have
		}
		c.byName[name] = c.recent.PushFront(&cached{name, v})
		c.bytes += len(v.data)
	}
	for c.recent.Len() > mostCached || c.bytes > mostCachedBytes {
		oldest := c.recent.Back().Value.(*cached)
		if !oldest.absent() {
			c.complete, c.asOf = false, 0
		}
		c.drop(oldest.name)
	}
}

func (c *cache) drop(name string) {
	e, ok := c.byName[name]
	if !ok {
		return
	}
	c.bytes -= len(e.Value.(*cached).data)
	c.recent.Remove(e)
	delete(c.byName, name)
}

// snapshot returns everything that it has, and as of which generation nothing is missing; -1: something is.
func (c *cache) snapshot() (since int64, all map[string]version) {
	if !c.complete {
		return -1, nil
	}
	all = make(map[string]version, len(c.byName))
	for name, e := range c.byName {
		if v := e.Value.(*cached).version; !v.absent() {
			all[name] = v
		}
	}
	return c.asOf, all
}

// fill takes over all that there was at a generation.
func (c *cache) fill(generation int64, all map[string]version) {
	if generation < c.asOf {
		return
	}
	deleted := c.deleted
	c.clear()
	c.complete, c.asOf, c.deleted = true, generation, deleted
	c.put(generation, all)
}

// overlay returns all with the changes since, and without what is not there any more; names nil: nothing was dropped.
func overlay(all, changed map[string]version, names map[string]bool) map[string]version {
	if all == nil {
		return changed
	}
	maps.Copy(all, changed)
	if names != nil {
		maps.DeleteFunc(all, func(name string, _ version) bool { return !names[name] })
	}
	return all
}
