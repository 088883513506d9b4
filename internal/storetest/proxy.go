package storetest

import (
	"errors"
	"math/rand/v2"
	"net"
	"os"
	"strings"
	"sync"
	"time"
)

// A Fault is what becomes of a request: of what a client sends after it has had the reply to the request before.
type Fault int

const (
	// Pass passes the request on, and its reply.
	Pass Fault = iota
	// CutBefore cuts the connection and does not pass the request on.
	CutBefore
	// CutSent passes the request on, and cuts the connection without waiting for the reply.
	CutSent
	// CutReplied passes the request on, and cuts the connection when the reply has come, which nobody gets.
	CutReplied
	// CutAfter passes the request on, and its reply, and cuts the connection then.
	CutAfter
	faults
)

// A Proxy stands before a server, on the loopback or on a Unix socket, and cuts connections. It knows no protocol but that
// of question and answer. It is safe for concurrent use.
type Proxy struct {
	listener net.Listener
	server   string
	running  sync.WaitGroup

	mu       sync.Mutex // guards what follows
	plan     func() Fault
	links    map[*link]struct{}
	closed   bool
	requests int
	cuts     int
}

// NewProxy returns a proxy before a server, "host:port" or the path of a Unix socket, that lets everything pass. It listens
// where listen says in the same way; "": at a free port of the loopback. Close it.
func NewProxy(listen, server string) (*Proxy, error) {
	if listen == "" {
		listen = "127.0.0.1:0"
	}
	listener, err := net.Listen(network(listen), listen)
	if err != nil {
		return nil, err
	}
	p := &Proxy{listener: listener, server: server, links: make(map[*link]struct{})}
	p.running.Go(p.accept)
	return p, nil
}

func network(address string) string {
	if strings.ContainsRune(address, os.PathSeparator) || strings.Contains(address, "/") {
		return "unix"
	}
	return "tcp"
}

// Addr is where clients connect to, as NewProxy has it.
func (p *Proxy) Addr() string { return p.listener.Addr().String() }

// Plan has next say what becomes of each request from now on; nil: it passes. Calls of next do not overlap.
func (p *Proxy) Plan(next func() Fault) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.plan = next
}

// Randomly is a plan that cuts one of so many requests, in any of the ways that there are.
func Randomly(random *rand.Rand, requests int) func() Fault {
	return func() Fault {
		if random.IntN(requests) > 0 {
			return Pass
		}
		return CutBefore + Fault(random.IntN(int(faults-CutBefore)))
	}
}

// Once is a plan that lets so many requests pass, and then has one fault.
func Once(pass int, fault Fault) func() Fault {
	return func() Fault {
		if pass--; pass == -1 {
			return fault
		}
		return Pass
	}
}

// Cut cuts all connections that there are.
func (p *Proxy) Cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for l := range p.links {
		p.cuts++
		l.cut()
	}
}

// Requests returns how many requests have come, those that were cut included, and how many connections were cut.
func (p *Proxy) Requests() (requests, cuts int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.requests, p.cuts
}

// Close cuts all connections and returns when nothing of the proxy runs any more.
func (p *Proxy) Close() error {
	err := p.listener.Close()
	p.mu.Lock()
	p.closed = true
	for l := range p.links {
		l.cut()
	}
	p.mu.Unlock()
	p.running.Wait()
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

func (p *Proxy) accept() {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return
		}
		p.running.Go(func() {
			server, err := net.Dial(network(p.server), p.server)
			if err != nil {
				_ = client.Close()
				return
			}
			p.serve(&link{proxy: p, client: client, server: server})
		})
	}
}

// serve lets a connection pass until it ends.
func (p *Proxy) serve(l *link) {
	defer l.cut()
	p.mu.Lock()
	closed := p.closed
	p.links[l] = struct{}{}
	p.mu.Unlock()
	if !closed {
		var replies sync.WaitGroup
		replies.Go(l.replies)
		l.requests()
		l.cut()
		replies.Wait()
	}
	p.mu.Lock()
	delete(p.links, l)
	p.mu.Unlock()
}

func (p *Proxy) next() Fault {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.requests++
	fault := Pass
	if p.plan != nil {
		fault = p.plan()
	}
	if fault != Pass {
		p.cuts++
	}
	return fault
}

// A link is one connection.
type link struct {
	proxy          *Proxy
	client, server net.Conn

	mu    sync.Mutex // guards what follows
	asked bool       // a request has come whose reply has not begun
	fault Fault      // of that request
}

func (l *link) cut() {
	_ = l.client.Close()
	_ = l.server.Close()
}

// requests passes on what the client sends.
func (l *link) requests() {
	buffer := make([]byte, 1<<16)
	for {
		n, err := l.client.Read(buffer)
		if err != nil {
			return
		}
		l.mu.Lock()
		if !l.asked {
			l.asked, l.fault = true, l.proxy.next()
		}
		fault := l.fault
		l.mu.Unlock()
		if fault == CutBefore {
			return
		}
		if _, err := l.server.Write(buffer[:n]); err != nil || fault == CutSent {
			return
		}
	}
}

// replies passes on what the server sends.
func (l *link) replies() {
	defer l.cut()
	buffer := make([]byte, 1<<16)
	for last := false; ; {
		n, err := l.server.Read(buffer)
		if err != nil {
			return
		}
		l.mu.Lock()
		fault := l.fault
		l.asked, l.fault = false, Pass
		l.mu.Unlock()
		if fault == CutSent || fault == CutReplied { // a reply can be faster than the cut
			return
		}
		if _, err := l.client.Write(buffer[:n]); err != nil {
			return
		}
		if last = last || fault == CutAfter; last { // when nothing follows
			_ = l.server.SetReadDeadline(time.Now().Add(lull))
		}
	}
}

// lull is how long a reply may pause.
const lull = 5 * time.Millisecond
