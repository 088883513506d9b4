package pgtest

import (
	"bytes"
	"encoding/binary"
	"io"
	"net"
	"strconv"
	"sync"
	"testing"
)

// A Fault is what becomes of a request: of what a client sends before it waits for an answer.
type Fault int

const (
	// Pass lets it through.
	Pass Fault = iota
	// CutBefore cuts the connection instead of passing the request on.
	CutBefore
	// CutAfter passes the request on, and cuts the client's connection when the answer has come.
	CutAfter
	// Late cuts the client's connection and keeps the request, and the server's connection. Deliver passes it on.
	Late
	// Swallow passes the request on, and what comes after it, and keeps all answers back.
	Swallow
)

// A Proxy stands before a server, and counts or spoils requests. The answers it keeps back wait in its connections.
type Proxy struct {
	listener net.Listener
	socket   string
	running  sync.WaitGroup

	mu       sync.Mutex // guards what follows
	plan     func(request []byte) Fault
	requests int
	late     []lateRequest
	conns    map[net.Conn]bool
	closed   bool
	reached  chan struct{} // closed when the next fault has come to pass
}

type lateRequest struct {
	server net.Conn
	data   []byte
}

// StartProxy starts one; it ends with the test.
func StartProxy(tb testing.TB, s *Server) *Proxy {
	tb.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require(tb, err)
	p := &Proxy{listener: listener, socket: s.Socket(), conns: map[net.Conn]bool{}, reached: make(chan struct{})}
	p.accept(p.serve)
	tb.Cleanup(p.close)
	return p
}

// accept has serve take each connection of a client.
func (p *Proxy) accept(serve func(net.Conn)) {
	p.running.Go(func() {
		for {
			conn, err := p.listener.Accept()
			if err != nil {
				return
			}
			p.running.Go(func() { serve(conn) })
		}
	})
}

func (p *Proxy) close() {
	_ = p.listener.Close()
	p.mu.Lock()
	p.closed = true
	for conn := range p.conns {
		_ = conn.Close()
	}
	p.mu.Unlock()
	p.running.Wait()
}

// DSN returns the connection string of the superuser.
func (p *Proxy) DSN() string {
	addr := p.listener.Addr().(*net.TCPAddr)
	return "host=127.0.0.1 port=" + strconv.Itoa(addr.Port) + " user=" + Superuser + " dbname=postgres sslmode=disable"
}

// Commits makes this the fate of the next requests that have a COMMIT in them.
func (p *Proxy) Commits(faults ...Fault) {
	p.Plan(func(request []byte) Fault {
		if !HasCommit(request) || len(faults) == 0 {
			return Pass
		}
		fault := faults[0]
		faults = faults[1:]
		return fault
	})
}

// HasCommit reports whether a request has the statement COMMIT in it.
func HasCommit(request []byte) bool { return bytes.Contains(request, []byte("\x00COMMIT\x00")) }

// Plan has f say what becomes of every request; nil: it passes. Calls do not overlap.
func (p *Proxy) Plan(f func(request []byte) Fault) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.plan, p.reached = f, make(chan struct{})
}

// Reached returns a channel that is closed when the next fault has come to pass: the request has been answered, where it
// is passed on, and the client's connection has been cut.
func (p *Proxy) Reached() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.reached
}

// Requests returns how many requests have come: round trips, those that open a connection left out.
func (p *Proxy) Requests() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.requests
}

// Deliver passes the requests on that are late, and returns when each has been answered. It then closes the connections.
func (p *Proxy) Deliver(tb testing.TB) {
	tb.Helper()
	for _, one := range p.takeLate() {
		_, err := one.server.Write(one.data)
		require(tb, err)
		_, err = readUntil(one.server, 'Z')
		require(tb, err)
		_ = one.server.Close()
	}
}

// DeliverInVain is Deliver to a server that has closed the connections.
func (p *Proxy) DeliverInVain(tb testing.TB) {
	tb.Helper()
	for _, one := range p.takeLate() {
		_, _ = one.server.Write(one.data)
		if _, err := readUntil(one.server, 'Z'); err == nil {
			tb.Fatal("pgtest: the server has answered a late request")
		}
		_ = one.server.Close()
	}
}

func (p *Proxy) takeLate() []lateRequest {
	p.mu.Lock()
	defer p.mu.Unlock()
	late := p.late
	p.late = nil
	if len(late) == 0 {
		panic("pgtest: no request is late")
	}
	return late
}

func (p *Proxy) next(request []byte) Fault {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.requests++
	if p.plan == nil {
		return Pass
	}
	return p.plan(request)
}

func (p *Proxy) reach() {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-p.reached:
	default:
		close(p.reached)
	}
}

func (p *Proxy) keep(server net.Conn, data []byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.late = append(p.late, lateRequest{server, data})
}

// track returns false when the proxy has ended.
func (p *Proxy) track(conns ...net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, conn := range conns {
		p.conns[conn] = true
	}
	return !p.closed
}

// serve takes a client's connection: a request, its answer, and so on.
func (p *Proxy) serve(client net.Conn) {
	defer func() { _ = client.Close() }()
	server, err := net.Dial("unix", p.socket)
	if err != nil {
		return
	}
	kept := false
	defer func() {
		if !kept {
			_ = server.Close()
		}
	}()
	if !p.track(client, server) {
		return
	}
	first, err := readMessage(client, false)
	if err != nil {
		return
	}
	if _, err := server.Write(first); err != nil {
		return
	}
	if len(first) == cancelLength { // a request to cancel has no answer
		_, _ = io.Copy(io.Discard, server)
		return
	}
	answer, err := readUntil(server, 'Z')
	if err != nil {
		_, _ = client.Write(answer)
		return
	}
	for {
		if _, err := client.Write(answer); err != nil {
			return
		}
		request, err := readUntil(client, 'S', 'Q', 'X')
		if err != nil {
			return
		}
		fault := p.next(request)
		switch fault {
		case CutBefore:
			_ = server.Close()
			_ = client.Close()
			p.reach()
			return
		case Late:
			kept = true
			p.keep(server, request)
			_ = client.Close()
			p.reach()
			return
		}
		if _, err := server.Write(request); err != nil {
			return
		}
		answer, err = readUntil(server, 'Z')
		switch {
		case err != nil:
			_, _ = client.Write(answer)
			return
		case fault == CutAfter:
			_ = client.Close()
			p.reach()
			return
		case fault == Swallow:
			p.reach()
			p.running.Go(func() { _, _ = io.Copy(server, client) })
			_, _ = io.Copy(io.Discard, server)
			return
		}
	}
}

const cancelLength = 16 // of a request to cancel

// readUntil reads messages up to the first of one of these types.
func readUntil(conn net.Conn, types ...byte) ([]byte, error) {
	var all []byte
	for {
		message, err := readMessage(conn, true)
		all = append(all, message...)
		if err != nil || bytes.IndexByte(types, message[0]) >= 0 {
			return all, err
		}
	}
}

// readMessage reads one message of the protocol: its type, but for the first of a client, its length, and the rest.
func readMessage(conn net.Conn, typed bool) ([]byte, error) {
	head := 4
	if typed {
		head = 5
	}
	message := make([]byte, head)
	if _, err := io.ReadFull(conn, message); err != nil {
		return nil, err
	}
	length := int(binary.BigEndian.Uint32(message[head-4:]))
	message = append(message, make([]byte, length-4)...)
	_, err := io.ReadFull(conn, message[head:])
	return message, err
}
