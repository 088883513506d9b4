package storetest

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"example.com/quota"
)

// A toyServer keeps books in memory and is asked over the network, one line of JSON after the other. It has a time, tells
// commands apart that come twice, and has one flaw; "" for none.
type toyServer struct {
	flaw    string
	address string
	running sync.WaitGroup

	mu       sync.Mutex // guards what follows
	listener net.Listener
	conns    map[net.Conn]bool
	books    map[string]toyBook
	done     map[string]toyAnswer // by token
	before   []map[string]toyBook // after each of the last commands
	clients  int
}

type toyBook struct {
	Revision int
	Data     json.RawMessage
}

// A toyCommand reads the books of names, or all with this prefix; with a token it changes some, if those named are as known.
type toyCommand struct {
	Token   string
	Prefix  string
	Names   []string
	Ahead   time.Duration
	Until   time.Time
	Known   map[string]int
	Changes map[string]json.RawMessage
}

type toyAnswer struct {
	Says   string // "": done
	Flaw   string
	Client int // a number for each connection
	Now    time.Time
	Books  map[string]toyBook
}

func startToy(tb testing.TB, flaw string) *toyServer {
	tb.Helper()
	s := &toyServer{
		flaw: flaw, address: "127.0.0.1:0", conns: make(map[net.Conn]bool), books: make(map[string]toyBook), done: make(map[string]toyAnswer),
	}
	if err := s.listen(); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(s.stop)
	return s
}

func (s *toyServer) listen() error {
	listener, err := net.Listen("tcp", s.address)
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.listener, s.address = listener, listener.Addr().String()
	s.mu.Unlock()
	s.running.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			s.running.Go(func() { s.serve(conn) })
		}
	})
	return nil
}

func (s *toyServer) stop() {
	s.mu.Lock()
	_ = s.listener.Close()
	for conn := range s.conns {
		_ = conn.Close()
	}
	s.mu.Unlock()
	s.running.Wait()
}

func (s *toyServer) restart() error {
	s.stop()
	if s.flaw == "forgets the last commands when it is restarted" {
		s.books = s.before[0]
	}
	return s.listen()
}

func (s *toyServer) serve(conn net.Conn) {
	s.mu.Lock()
	s.conns[conn] = true
	s.clients++
	client := s.clients
	s.mu.Unlock()
	defer func() {
		_ = conn.Close()
		s.mu.Lock()
		delete(s.conns, conn)
		s.mu.Unlock()
	}()
	for decoder, encoder := json.NewDecoder(conn), json.NewEncoder(conn); ; {
		var c toyCommand
		if decoder.Decode(&c) != nil {
			return
		}
		answer := s.carryOut(c)
		answer.Client = client
		if encoder.Encode(answer) != nil {
			return
		}
	}
}

func (s *toyServer) carryOut(c toyCommand) toyAnswer {
	s.mu.Lock()
	defer s.mu.Unlock()
	answer := toyAnswer{Now: time.Now().Add(c.Ahead).UTC(), Flaw: s.flaw, Books: make(map[string]toyBook)}
	if c.Token == "" {
		for name, book := range s.books {
			if short, mine := strings.CutPrefix(name, c.Prefix); mine && (c.Names == nil || slices.Contains(c.Names, short)) {
				answer.Books[short] = book
			}
		}
		return answer
	}
	if before, again := s.done[c.Token]; again && s.flaw != "carries a command out as often as it comes" {
		return before
	}
	for name, revision := range c.Known {
		if s.books[c.Prefix+name].Revision != revision && s.flaw != "lets the last one win" &&
			s.flaw != "carries a command out as often as it comes" {
			answer.Says = "conflict"
			return answer
		}
	}
	if !c.Until.IsZero() && !answer.Now.Before(c.Until) {
		answer.Says = "late"
		return answer
	}
	for name, data := range c.Changes {
		s.books[c.Prefix+name] = toyBook{s.books[c.Prefix+name].Revision + 1, data}
	}
	s.done[c.Token] = answer
	s.before = append(s.before[max(0, len(s.before)-4):], maps.Clone(s.books))
	return answer
}

// A toyStore is a quota.SharedPersistence on a toyServer.
type toyStore struct {
	place Place

	mu      sync.Mutex // guards what follows
	conn    net.Conn
	encoder *json.Encoder
	decoder *json.Decoder
	tokens  int
	client  int // as the server has called it first
}

// ask asks until there is an answer, on a new connection each time.
func (s *toyStore) ask(ctx context.Context, c toyCommand) (answer toyAnswer, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c.Prefix, c.Ahead = s.place.Name+"/", s.place.Ahead()
	for end := time.Now().Add(2 * time.Second); ; <-time.After(time.Millisecond) {
		if err = s.try(c, &answer); err == nil {
			return answer, nil
		}
		s.free()
		if time.Now().After(end) || ctx.Err() != nil && c.Token == "" {
			return answer, errors.Join(err, ctx.Err())
		}
	}
}

func (s *toyStore) try(c toyCommand, answer *toyAnswer) (err error) {
	if s.conn == nil {
		if s.conn, err = net.Dial("tcp", s.place.Address); err != nil {
			s.conn = nil
			return err
		}
		s.encoder, s.decoder = json.NewEncoder(s.conn), json.NewDecoder(bufio.NewReader(s.conn))
	}
	if err := s.encoder.Encode(c); err != nil {
		return err
	}
	*answer = toyAnswer{}
	if err := s.decoder.Decode(answer); err != nil {
		return err
	}
	s.client = cmp.Or(s.client, answer.Client)
	return nil
}

func (s *toyStore) free() {
	if s.conn != nil {
		_ = s.conn.Close()
		s.conn = nil
	}
}

func (s *toyStore) Load(ctx context.Context) (*quota.State, error) {
	state := &quota.State{Version: 2}
	return state, s.Update(ctx, nil, func(tx *quota.Tx) error {
		state.Books = tx.Books
		return nil
	})
}

func (s *toyStore) Save(context.Context, *quota.State) error {
	return errors.New("a tracker has called Save of a SharedPersistence")
}

func (s *toyStore) Update(ctx context.Context, names []string, fn func(*quota.Tx) error) error {
	for range 100 {
		says, err := s.run(ctx, names, fn)
		if err != nil || says == "" {
			return err
		}
	}
	return errors.New("gave up")
}

func (s *toyStore) run(ctx context.Context, names []string, fn func(*quota.Tx) error) (string, error) {
	if err := ctx.Err(); err != nil {
		return "", err
	}
	read, err := s.ask(ctx, toyCommand{Names: names})
	if err != nil {
		return "", err
	}
	tx := &quota.Tx{Now: read.Now, Books: make(map[string]*quota.Book)}
	c := toyCommand{Known: make(map[string]int), Changes: make(map[string]json.RawMessage)}
	for _, name := range names {
		c.Known[name] = 0
	}
	for name, stored := range read.Books {
		c.Known[name] = stored.Revision
		if string(stored.Data) == "null" { // it was dropped
			continue
		}
		tx.Books[name] = new(quota.Book)
		if err := json.Unmarshal(stored.Data, tx.Books[name]); err != nil {
			return "", err
		}
	}
	if read.Flaw == "shows the clock of the process" {
		tx.Now = time.Now().Add(s.place.Ahead()).Add(apart - time.Duration(s.client%2)*2*apart)
	}
	handed := maps.Clone(tx.Books)
	if err := fn(tx); err != nil {
		return "", err
	}
	for name, book := range tx.Books {
		if book == handed[name] {
			continue
		}
		if c.Changes[name], err = json.Marshal(book); err != nil {
			return "", err
		}
	}
	for name := range handed {
		if tx.Books[name] == nil {
			c.Changes[name] = json.RawMessage("null")
		}
	}
	if len(c.Changes) == 0 {
		return "", nil
	}
	s.tokens++
	c.Token, c.Until = fmt.Sprintf("%p %d %d", s, s.tokens, time.Now().UnixNano()), tx.Until
	answer, err := s.ask(ctx, c)
	return answer.Says, err
}

var toys = Subject{
	Timed: true, Network: true,
	Open: func(_ context.Context, place Place) (quota.Persistence, func(), error) {
		s := &toyStore{place: place}
		return s, s.free, nil
	},
	Start: func(tb testing.TB) Server {
		s := startToy(tb, "")
		return Server{Address: s.address, Restart: s.restart}
	},
}
