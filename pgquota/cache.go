package pgquota

import (
	"bytes"
	"sync"

	"example.com/quota"
)

const (
	mostCached      = 4096
	mostCachedBytes = 32 << 20
)

// A cache remembers the books that were read or written last beside their JSON form, so that what has not changed since is
// not decoded again: most of the time of a call in this process would go into that. Whether it has changed is seen by
// every byte of it, not by a number that a restored backup or another primary may count again.
type cache struct {
	mu     sync.Mutex // guards what follows
	byName map[string]cached
	bytes  int
}

type cached struct {
	data []byte
	book *quota.Book // that nobody changes any more
}

// decode returns a book that belongs to the caller.
func (c *cache) decode(name string, data []byte) (*quota.Book, error) {
	c.mu.Lock()
	known, ok := c.byName[name]
	c.mu.Unlock()
	if ok && bytes.Equal(known.data, data) {
		return known.book.Clone(), nil
	}
	book := new(quota.Book)
	if err := book.UnmarshalJSON(data); err != nil {
		return nil, err
	}
	c.put(name, data, book)
	return book, nil
}

// encode returns the JSON form of a book.
func (c *cache) encode(name string, book *quota.Book) ([]byte, error) {
	data, err := book.MarshalJSON()
	if err == nil {
		c.put(name, data, book)
	}
	return data, err
}

// put remembers a book that is still somebody's.
func (c *cache) put(name string, data []byte, book *quota.Book) {
	book = book.Clone()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.bytes -= len(c.byName[name].data)
	_, known := c.byName[name]
	if c.byName == nil || !known && len(c.byName) >= mostCached || c.bytes+len(data) > mostCachedBytes {
		c.byName, c.bytes = map[string]cached{}, 0 // what is used comes back by itself
	}
	c.byName[name] = cached{data, book}
	c.bytes += len(data)
}
