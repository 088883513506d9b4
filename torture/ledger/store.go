package ledger

import (
	"context"
	"encoding/json"
	"maps"
	"slices"

	"example.com/quota"
)

// A store keeps a state as the JSON text that it would be in a file, so that every restart reads what was written.
type store struct{ text []byte }

func (s *store) Load(context.Context) (*quota.State, error) {
	if s.text == nil {
		return nil, nil
	}
	state := new(quota.State)
	return state, json.Unmarshal(s.text, state)
}

func (s *store) Save(_ context.Context, state *quota.State) (err error) {
	s.text, err = json.Marshal(state)
	return err
}

// A sharedStore is a store that several trackers could change at once: the text of each book for itself.
type sharedStore struct {
	store
	books map[string][]byte
}

func (s *sharedStore) Load(context.Context) (*quota.State, error) {
	state := &quota.State{Version: 2, Books: make(map[string]*quota.Book)}
	for name := range s.books {
		if err := s.read(state.Books, name); err != nil {
			return nil, err
		}
	}
	return state, nil
}

func (s *sharedStore) read(books map[string]*quota.Book, name string) error {
	text, ok := s.books[name]
	if !ok {
		return nil
	}
	books[name] = new(quota.Book)
	return json.Unmarshal(text, books[name])
}

// Update gives fn fresh books and keeps what it makes of them.
func (s *sharedStore) Update(_ context.Context, names []string, fn func(*quota.Tx) error) error {
	if names == nil {
		names = slices.Collect(maps.Keys(s.books))
	}
	tx := &quota.Tx{Books: make(map[string]*quota.Book)}
	for _, name := range names {
		if err := s.read(tx.Books, name); err != nil {
			return err
		}
	}
	if err := fn(tx); err != nil {
		return err
	}
	after := maps.Clone(s.books)
	if after == nil {
		after = make(map[string][]byte)
	}
	for _, name := range names {
		delete(after, name)
	}
	for name, book := range tx.Books {
		text, err := json.Marshal(book)
		if err != nil {
			return err
		}
		after[name] = text
	}
	s.books = after
	return nil
}
