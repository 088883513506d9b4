package redistest

import (
	"bytes"
	"net"
	"sync"
	"testing"
	"time"
)

// A Fault is what becomes of a command.
type Fault int

const (
	// Pass lets it through.
	Pass Fault = iota
	// CutBefore cuts the connection instead of passing the command on.
	CutBefore
	// CutAfter passes the command on, and cuts the connection when the reply has come.
	CutAfter
	// Late cuts the connection and keeps the command. Deliver passes it on.
	Late
	// Swallow passes the command on and keeps its reply back: nothing happens any more.
	Swallow
)

// A Proxy stands before a server and counts, delays or spoils the commands that run scripts. Others pass.
type Proxy struct {
	tb       testing.TB
	listener net.Listener
	server   string
	running  sync.WaitGroup

	mu       sync.Mutex // guards what follows
	faults   []Fault
	always   Fault
	commands int
	late     [][]byte
	delay    time.Duration // of each reply
	onFault  func()
	conns    map[net.Conn]bool
	closed   bool
}

// StartProxy starts one; it ends with the test.
func StartProxy(tb testing.TB, server string) *Proxy {
	tb.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	Must(tb, err)
	p := &Proxy{tb: tb, listener: listener, server: server, conns: map[net.Conn]bool{}}
	p.running.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			p.running.Go(func() { p.serve(conn) })
		}
	})
	tb.Cleanup(p.Close)
	return p
}

// Close ends the proxy and all its connections.
func (p *Proxy) Close() {
	_ = p.listener.Close()
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.Cut()
	p.running.Wait()
}

// Addr returns the proxy's address.
func (p *Proxy) Addr() string { return p.listener.Addr().String() }

// Plan says what becomes of the next commands.
func (p *Proxy) Plan(faults ...Fault) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.faults = faults
}

// OnFault has f called once, after the next reply that is cut off has come.
func (p *Proxy) OnFault(f func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.onFault = f
}

// Always says what becomes of those after them.
func (p *Proxy) Always(fault Fault) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.always = fault
}

// Delay makes every reply so much later.
func (p *Proxy) Delay(d time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.delay = d
}

// Commands returns how many commands have come, all kinds of faults included.
func (p *Proxy) Commands() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.commands
}

// Cut cuts all connections.
func (p *Proxy) Cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for conn := range p.conns {
		_ = conn.Close()
	}
}

// Deliver passes the commands on that were kept, and returns the server's replies.
func (p *Proxy) Deliver() (replies []string) {
	p.tb.Helper()
	p.mu.Lock()
	late := p.late
	p.late = nil
	p.mu.Unlock()
	for _, command := range late {
		conn, err := net.Dial("tcp", p.server)
		Must(p.tb, err)
		_, err = conn.Write(command)
		Must(p.tb, err)
		buffer := make([]byte, 1<<16)
		n, err := conn.Read(buffer)
		Must(p.tb, err)
		replies = append(replies, string(buffer[:n]))
		_ = conn.Close()
	}
	return replies
}

// next returns what becomes of a command.
func (p *Proxy) next(command []byte) Fault {
	if !bytes.Contains(command, []byte("\r\nevalsha\r\n")) && !bytes.Contains(command, []byte("\r\neval\r\n")) {
		return Pass
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.commands++
	fault := p.always
	if len(p.faults) > 0 {
		fault, p.faults = p.faults[0], p.faults[1:]
	}
	if fault == Late {
		p.late = append(p.late, bytes.Clone(command))
	}
	return fault
}

// serve takes a client's connection. A client sends a command, and the next when it has the reply: whatever arrives until
// the connection is silent for a moment is one command.
func (p *Proxy) serve(client net.Conn) {
	server, err := net.Dial("tcp", p.server)
	if err != nil {
		_ = client.Close()
		return
	}
	p.mu.Lock()
	p.conns[client], p.conns[server] = true, true
	closed := p.closed
	p.mu.Unlock()
	defer func() {
		_ = client.Close()
		_ = server.Close()
		p.mu.Lock()
		delete(p.conns, client)
		delete(p.conns, server)
		p.mu.Unlock()
	}()
	if closed {
		return
	}
	requests, replies := make(chan []byte), make(chan []byte)
	done := make(chan struct{})
	var group sync.WaitGroup
	defer group.Wait()
	defer func() {
		close(done)
		_ = client.Close()
		_ = server.Close()
	}()
	group.Go(func() { pump(client, requests, done) })
	group.Go(func() { pump(server, replies, done) })
	cut := false
	for {
		select {
		case request, ok := <-requests:
			if !ok {
				return
			}
			switch p.next(request) {
			case CutBefore, Late:
				return
			case CutAfter:
				cut = true
			case Swallow:
				_, _ = server.Write(request)
				for range requests { // until the client gives up
				}
				return
			}
			if _, err := server.Write(request); err != nil {
				return
			}
		case reply, ok := <-replies:
			p.mu.Lock()
			delay, f := p.delay, p.onFault
			if cut {
				p.onFault = nil
			}
			p.mu.Unlock()
			if ok && cut && f != nil {
				f()
			}
			if !ok || cut {
				return
			}
			time.Sleep(delay)
			if _, err := client.Write(reply); err != nil {
				return
			}
		}
	}
}

// pump passes on what arrives, in pieces that end where nothing follows at once.
func pump(from net.Conn, to chan<- []byte, done <-chan struct{}) {
	defer close(to)
	buffer := make([]byte, 1<<20)
	for {
		n, err := from.Read(buffer)
		if err != nil {
			return
		}
		select {
		case to <- bytes.Clone(buffer[:n]):
		case <-done:
			return
		}
	}
}
