package redisquota

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/redis/go-redis/v9"

	"example.com/quota"
	"example.com/quota/internal/form"
	"example.com/quota/internal/offset"
)

// Options say how a Store works. Only Namespace is needed.
type Options struct {
	// Namespace keeps what belongs together, and apart from everything else in the database: "prod". All keys begin with
	// {quota:NAMESPACE}:, which puts them into one slot of a cluster. At most 128 bytes of printable text, without braces.
	Namespace string
	// Logger takes warnings about the server's settings, and what happened to the data. Nil: slog.Default().
	Logger *slog.Logger
	// Replicas is how many replicas must have received a change before Update returns (WAIT). 0: none. When fewer have, Update
	// returns ErrReplicas: the change then stands on the master, and may be lost with it. It narrows the gap of an
	// asynchronous failover and does not close it, see the package documentation.
	Replicas int
	// ReplicaTimeout is how long to wait for them. 0: half a second. At most two seconds.
	ReplicaTimeout time.Duration
	// AllowEviction lets New accept a server whose maxmemory-policy is not noeviction. Such a server may delete what has
	// been counted when its memory is full.
	AllowEviction bool
}

const (
	mostNamespaceBytes    = 128
	defaultReplicaTimeout = 500 * time.Millisecond
	longestReplicaTimeout = 2 * time.Second
)

// A Store is a quota.SharedPersistence in Redis or Valkey. It is safe for concurrent use, by several trackers too. It has
// no connections of its own, no goroutine of it lasts for longer after the last call than a second or than the client waits
// for an answer, and it needs no Close: close its trackers, then the client.
//
// Errors that concern the data match quota.ErrCorruptState, quota.ErrNewerState, ErrLost or ErrReplicas; every error of
// Update but those of its fn matches quota.ErrNotSaved.
type Store struct {
	client  redis.UniversalClient
	opts    Options
	prefix  string
	id      string // of its turns
	scripts scripts
	offset  func() time.Duration // of the store's clock; nothing but in tests

	mu      sync.Mutex // guards what follows; not held while the server is asked
	epoch   int        // how many losses have been noticed
	clock   storeClock
	known   identity
	cache   cache
	loaded  *identity // as last loaded or saved by Load and Save
	failing bool      // the last command that was to write something has not been answered
	turn    turn
}

var (
	_ quota.Persistence       = (*Store)(nil)
	_ quota.SharedPersistence = (*Store)(nil)
)

// An identity is what tells the state of a namespace from any other, also from one that a failover has brought back.
type identity struct {
	dataset    string // made up when the namespace is used first; "": there is none
	generation int64  // rises with every change
	mark       string // of the change that made this generation
}

// New returns the store of a namespace, which need not exist yet. It asks the server for its settings, refuses those with
// which it would lose what has been counted, and warns of others. client is a single server's, Sentinel's or Cluster's;
// New keeps it and never closes it. A Ring is refused: it goes to another server when one fails. ctx bounds New alone.
func New(ctx context.Context, client redis.UniversalClient, opts Options) (*Store, error) {
	opts, err := opts.withDefaults()
	if err != nil {
		return nil, err
	}
	switch client.(type) {
	case nil:
		return nil, fmt.Errorf("redisquota: %w: there is no client", quota.ErrInvalidConfig)
	case *redis.Ring:
		return nil, fmt.Errorf("redisquota: %w: a Ring goes on with another server, without the data, when one fails: "+
			"use a single server, Sentinel or Cluster", quota.ErrInvalidConfig)
	}
	prefix := "{quota:" + opts.Namespace + "}"
	s := &Store{
		client:  client,
		opts:    opts,
		prefix:  prefix,
		id:      newToken(),
		scripts: newScripts(),
		offset:  offset.From(ctx),
		cache:   newCache(),
	}
	if err := s.checkServer(ctx); err != nil {
		return nil, err
	}
	if _, err := s.read(ctx, s.reading(nil, nil)); err != nil {
		return nil, fmt.Errorf("redisquota: opening %s: %w", prefix, err)
	}
	return s, nil
}

func (opts Options) withDefaults() (Options, error) {
	wrong := func(format string, args ...any) (Options, error) {
		return opts, fmt.Errorf("redisquota: %w: %s", quota.ErrInvalidConfig, fmt.Sprintf(format, args...))
	}
	switch name := opts.Namespace; {
	case name == "":
		return wrong(`Namespace is empty: name what belongs together, such as "prod"`)
	case len(name) > mostNamespaceBytes:
		return wrong("Namespace is longer than %d bytes", mostNamespaceBytes)
	case !utf8.ValidString(name) || strings.ContainsAny(name, "{}") ||
		strings.ContainsFunc(name, func(r rune) bool { return !unicode.IsPrint(r) }):
		return wrong("Namespace %q has braces or what cannot be printed in it", name)
	}
	if opts.Replicas < 0 {
		return wrong("Replicas must not be negative")
	}
	if opts.ReplicaTimeout == 0 {
		opts.ReplicaTimeout = defaultReplicaTimeout
	}
	if opts.ReplicaTimeout < time.Millisecond || opts.ReplicaTimeout > longestReplicaTimeout {
		return wrong("ReplicaTimeout must be a millisecond at least and %v at most", longestReplicaTimeout)
	}
	if opts.Logger == nil {
		opts.Logger = slog.Default()
	}
	return opts, nil
}

// Load returns the whole state; nil, nil when nothing has been saved yet.
func (s *Store) Load(ctx context.Context) (*quota.State, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("redisquota: loading %s: %w", s.prefix, err)
	}
	answer, all, err := s.readAll(ctx, true)
	if err != nil {
		return nil, fmt.Errorf("redisquota: loading %s: %w", s.prefix, err)
	}
	s.mu.Lock()
	s.loaded = &answer.identity
	s.mu.Unlock()
	if answer.generation == 0 {
		return nil, nil
	}
	books, err := s.decode(all)
	if err != nil {
		return nil, err
	}
	state := &quota.State{Version: form.Version, Generation: uint64(answer.generation), Books: books}
	if err := state.UpdatedAt.UnmarshalText([]byte(answer.text(2))); err != nil {
		return nil, s.corrupt("meta", err)
	}
	if history := answer.text(3); history != "" {
		if err := json.Unmarshal([]byte(history), &state.History); err != nil {
			return nil, s.corrupt("history", err)
		}
	}
	return state, nil
}

// Save replaces the whole state by s, under a generation of its own: that of s or the next one, whichever is higher. When
// the state is not the one that this Store has last loaded or saved by Load and Save, it returns quota.ErrConflict. After
// an error that matches quota.ErrNotSaved either generation may stand, for good: it does not take effect later.
func (s *Store) Save(ctx context.Context, state *quota.State) error {
	if err := ctx.Err(); err != nil {
		return s.notSaved(err)
	}
	switch {
	case state == nil:
		return s.notSaved(errors.New("there is no state to save"))
	case state.Version > form.Version:
		return s.notSaved(fmt.Errorf("%w (version %d)", quota.ErrNewerState, state.Version))
	case state.Version != 0 && state.Version != form.Version:
		return s.notSaved(fmt.Errorf("states of version %d are not written", state.Version))
	case state.Generation >= highestGeneration:
		return s.notSaved(errors.New("no generation is so high"))
	}
	c := &command{script: s.scripts.save, token: newToken(), writes: true}
	s.mu.Lock()
	loaded := s.loaded
	c.before = s.clock.now().Add(saveLife)
	s.mu.Unlock()
	if loaded == nil {
		loaded = new(identity)
	}
	history := ""
	if len(state.History) > 0 {
		data, err := json.Marshal(state.History)
		if err != nil {
			return s.notSaved(fmt.Errorf("encode the history: %w", err))
		}
		history = string(data)
	}
	updated, err := state.UpdatedAt.MarshalText()
	if err != nil {
		return s.notSaved(fmt.Errorf("encode the time of the state: %w", err))
	}
	c.args = append(c.args, loaded.generation, loaded.mark, state.Generation, micros(c.before), updated, history)
	for name, book := range state.Books {
		if book == nil {
			continue
		}
		data, err := encode(name, book)
		if err != nil {
			return s.notSaved(err)
		}
		c.args = append(c.args, name, data)
	}
	answer, err := s.write(ctx, c)
	if err != nil {
		return s.notSaved(err)
	}
	switch answer.status {
	case "conflict":
		return fmt.Errorf("redisquota: %w: %s is at generation %d", quota.ErrConflict, s.prefix, answer.generation)
	case "late":
		return s.notSaved(errors.New("the server has come to it too late"))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cache.clear()
	s.loaded = &answer.identity
	return nil
}

const (
	saveLife          = 5 * time.Second // after which the server does not save any more
	highestGeneration = 1 << 52         // numbers of the server's scripts are exact up to there
)

// decode returns fresh books of what stands in the store.
func (s *Store) decode(versions map[string]version) (map[string]*quota.Book, error) {
	books := make(map[string]*quota.Book, len(versions))
	for name, v := range versions {
		if v.absent() {
			continue
		}
		if len(v.data) == 0 {
			return nil, s.corrupt("books", fmt.Errorf("the book of %q is missing", name))
		}
		book, err := v.book()
		if err != nil {
			return nil, s.corrupt("books", fmt.Errorf("the book of %q: %w", name, err))
		}
		books[name] = book
	}
	return books, nil
}

// book returns a book that belongs to the caller.
func (v version) book() (*quota.Book, error) {
	if v.read != nil {
		if known := v.read.book.Load(); known != nil {
			return known.Clone(), nil
		}
	}
	book := new(quota.Book)
	if err := book.UnmarshalJSON(v.data); err != nil {
		return nil, err
	}
	if v.read != nil {
		v.read.book.Store(book.Clone())
	}
	return book, nil
}

// encode returns what stands in the store for a book.
func encode(name string, book *quota.Book) ([]byte, error) {
	if !utf8.ValidString(name) {
		return nil, fmt.Errorf("the name %q is not valid UTF-8", name)
	}
	data, err := book.MarshalJSON()
	if err != nil {
		return nil, fmt.Errorf("encode the book of %q: %w", name, err)
	}
	return data, nil
}

func newToken() string { return rand.Text() }
