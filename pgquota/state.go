package pgquota

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"example.com/quota"
	"example.com/quota/internal/form"
)

// An identity tells a state from every other.
type identity struct {
	saved     int64            // the revision at which a whole state was last saved; 0: never
	revisions map[string]int64 // of the books
}

func (a *identity) same(b *identity) bool {
	return a.saved == b.saved && maps.Equal(a.revisions, b.revisions)
}

const highestGeneration = uint64(1) << 62

// Load returns the whole state, with the finished days that were saved as its History; those that books have finished
// since are in the books. It returns nil, nil when nothing has been saved yet. One round trip.
func (s *Store) Load(ctx context.Context) (*quota.State, error) {
	state, err := s.load(ctx)
	var again *retry
	if errors.As(err, &again) { // the server may have been restarted since the connection was used last
		state, err = s.load(ctx)
	}
	if err != nil {
		return nil, fmt.Errorf("pgquota: loading the schema %q: %w", s.opts.Schema, explain(s.opts.Schema, err))
	}
	return state, nil
}

func (s *Store) load(ctx context.Context) (*quota.State, error) {
	if err := s.decide(ctx); err != nil {
		return nil, err
	}
	conn, err := s.pool.Acquire(ctx)
	if err != nil {
		return nil, err
	}
	defer conn.Release()
	var p pipeline
	p.add(s.tables.beginLook)
	p.add(s.tables.clock)
	p.add(s.tables.readAll)
	p.add(s.tables.state)
	p.add(s.tables.days)
	p.add("COMMIT")
	replies, err := p.send(ctx, conn.Conn().PgConn())
	if err != nil {
		return nil, retryable(ctx, err)
	}
	read, err := s.snapshot(replies[1], replies[2])
	if err != nil {
		return nil, err
	}
	about, err := s.parseState(replies[3])
	if err != nil {
		return nil, err
	}
	loaded := &identity{about.saved, make(map[string]int64, len(read.rows))}
	state := &quota.State{Version: form.Version, Generation: about.generation, UpdatedAt: about.savedAt}
	if state.Books, err = s.decode(read.rows); err != nil {
		return nil, err
	}
	for name, r := range read.rows {
		loaded.revisions[name] = r.revision
		if changed := time.UnixMicro(r.decided).UTC(); changed.After(state.UpdatedAt) {
			state.UpdatedAt = changed
		}
	}
	if state.History, err = s.parseDays(replies[4]); err != nil {
		return nil, err
	}
	s.mu.Lock()
	s.loaded = loaded
	s.mu.Unlock()
	if about.saved == 0 && len(state.Books) == 0 {
		return nil, nil
	}
	return state, nil
}

// A stateRow is what stands about whole states.
type stateRow struct {
	saved      int64
	savedAt    time.Time
	generation uint64
}

func (s *Store) parseState(r reply) (about stateRow, err error) {
	if len(r.rows) != 1 {
		return about, s.corrupt("state", "its row is missing", nil)
	}
	columns := r.rows[0]
	generation, wrong := parseInt(columns[2])
	about.generation = uint64(generation)
	if about.saved, err = parseInt(columns[0]); err == nil && about.saved > 0 {
		err = about.savedAt.UnmarshalText(columns[1])
	}
	if err = errors.Join(err, wrong); err != nil {
		return about, s.corrupt("state", "its row", err)
	}
	return about, nil
}

func (s *Store) parseDays(r reply) (map[string][]quota.DaySummary, error) {
	if len(r.rows) == 0 {
		return nil, nil
	}
	history := map[string][]quota.DaySummary{}
	for _, columns := range r.rows {
		var row finishedDay
		err := json.Unmarshal(columns[0], &row)
		var summary quota.DaySummary
		if err == nil {
			summary, err = row.summary()
		}
		if err != nil {
			return nil, s.corrupt("finished_days", fmt.Sprintf("quota %q, starts_at %s", row.Quota, row.StartsAt), err)
		}
		history[row.Quota] = append(history[row.Quota], summary)
	}
	return history, nil
}

// Save makes state the whole state, in one transaction that keeps everybody else from writing, under a generation of its
// own: that of state or the next one, whichever is higher. finished_days has then the state's history and the finished days
// of its books, and nothing else. When the state is not the one that s has last loaded or saved by Load and Save, it
// returns quota.ErrConflict. Every other error matches quota.ErrNotSaved, after which either generation may stand.
//
// A tracker does not call it. It is for bringing a state in from elsewhere.
func (s *Store) Save(ctx context.Context, state *quota.State) error {
	err := s.save(ctx, state)
	var again *retry
	if errors.As(err, &again) && again.why == broken {
		err = s.save(ctx, state)
	}
	switch {
	case errors.Is(err, quota.ErrConflict):
		return fmt.Errorf("pgquota: %w (schema %q)", err, s.opts.Schema)
	case err != nil:
		return s.notSaved(err)
	}
	return nil
}

func (s *Store) save(ctx context.Context, state *quota.State) error {
	switch {
	case state == nil:
		return errors.New("there is no state to save")
	case state.Version > form.Version:
		return fmt.Errorf("%w (version %d)", quota.ErrNewerState, state.Version)
	case state.Version != 0 && state.Version != form.Version:
		return fmt.Errorf("states of version %d are not written", state.Version)
	case state.Generation >= highestGeneration:
		return errors.New("no generation is so high")
	}
	if err := s.decide(ctx); err != nil {
		return err
	}
	tx, err := s.begin(ctx, nil, true)
	if err != nil {
		return err
	}
	defer tx.end(ctx)
	if err := tx.conflicts(ctx); err != nil {
		return err
	}
	c, err := replacing(tx.rows, state)
	if err != nil {
		return err
	}
	var history []finishedDay
	for name, days := range state.History {
		for _, day := range days {
			row, err := rowOf(name, day)
			if err != nil {
				return err
			}
			history = append(history, row)
		}
	}
	savedAt, err := state.UpdatedAt.MarshalText()
	if err != nil {
		return fmt.Errorf("encode the time of the state: %w", err)
	}
	days, now := c.days, state.UpdatedAt
	c.days = nil
	if now.IsZero() {
		now = tx.now
	}
	var p pipeline
	c.add(&p, s, now, time.Time{})
	p.add(s.tables.clearDays)
	for _, part := range []struct {
		days    []finishedDay
		history string
	}{{history, "true"}, {days, "false"}} {
		if list := encodeDays(&p, part.days); list != nil {
			p.add(s.tables.finish, list, part.history)
		}
	}
	p.add(s.tables.saved, string(savedAt), int64(state.Generation))
	p.add(s.tables.state)
	p.add(s.tables.revisions)
	replies, err := tx.commit(ctx, &p, []string{everything})
	if err != nil {
		return err
	}
	saved, err := s.identity(replies[len(replies)-3], replies[len(replies)-2])
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.loaded = saved
	s.mu.Unlock()
	return nil
}

// conflicts returns quota.ErrConflict when the state is not the one last loaded.
func (tx *transaction) conflicts(ctx context.Context) error {
	s := tx.store
	var p pipeline
	p.add(s.tables.state)
	p.add(s.tables.revisions)
	replies, err := p.send(ctx, tx.conn.Conn().PgConn())
	if err != nil {
		return retryable(ctx, err)
	}
	found, err := s.identity(replies[0], replies[1])
	if err != nil {
		return err
	}
	s.mu.Lock()
	loaded := s.loaded
	s.mu.Unlock()
	if loaded == nil {
		loaded = &identity{}
	}
	if !found.same(loaded) {
		return quota.ErrConflict
	}
	return nil
}

func (s *Store) identity(state, revisions reply) (*identity, error) {
	about, err := s.parseState(state)
	if err != nil {
		return nil, err
	}
	found := &identity{about.saved, make(map[string]int64, len(revisions.rows))}
	for _, columns := range revisions.rows {
		if found.revisions[string(columns[0])], err = parseInt(columns[1]); err != nil {
			return nil, s.corrupt("books", fmt.Sprintf("quota %q, revision", columns[0]), err)
		}
	}
	return found, nil
}

// replacing returns the changes that make rows the books of state.
func replacing(rows map[string]row, state *quota.State) (*changes, error) {
	names := make(map[string]bool, len(rows)+len(state.Books))
	for name := range rows {
		names[name] = true
	}
	for name, book := range state.Books {
		if book != nil {
			names[name] = true
		}
	}
	c := &changes{names: slices.Sorted(maps.Keys(names))}
	for _, name := range c.names {
		text := ""
		if book := state.Books[name]; book != nil {
			data, err := json.Marshal(book)
			if err != nil {
				return nil, fmt.Errorf("encode the book of %q: %w", name, err)
			}
			days, err := newDays(name, nil, data)
			if err != nil {
				return nil, err
			}
			text, c.days = string(data), append(c.days, days...)
		}
		c.revisions, c.books = append(c.revisions, rows[name].revision), append(c.books, &text)
	}
	return c, nil
}
