package pgtest

import (
	"net"
	"testing"
)

// A Pooler stands before a server as a pooler of transactions does: as soon as a client is not in a transaction, what it
// sends next goes to another session of the server.
type Pooler struct {
	Proxy
}

// sessions is among how many sessions of the server the transactions of one client are spread.
const sessions = 3

// StartPooler starts one; it ends with the test.
func StartPooler(tb testing.TB, s *Server) *Pooler {
	tb.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require(tb, err)
	p := &Pooler{Proxy{listener: listener, socket: s.Socket(), conns: map[net.Conn]bool{}, reached: make(chan struct{})}}
	p.accept(p.pool)
	tb.Cleanup(p.close)
	return p
}

func (p *Pooler) pool(client net.Conn) {
	defer func() { _ = client.Close() }()
	first, err := readMessage(client, false)
	if err != nil || len(first) == cancelLength || !p.track(client) {
		return
	}
	var servers [sessions]net.Conn
	var answer []byte
	for i := range servers {
		server, err := net.Dial("unix", p.socket)
		if err != nil {
			return
		}
		defer func() { _ = server.Close() }()
		if !p.track(server) {
			return
		}
		if _, err := server.Write(first); err != nil {
			return
		}
		if answer, err = readUntil(server, 'Z'); err != nil {
			return
		}
		servers[i] = server
	}
	for at := 0; ; {
		if _, err := client.Write(answer); err != nil {
			return
		}
		request, err := readUntil(client, 'S', 'Q', 'X')
		if err != nil {
			return
		}
		if _, err := servers[at].Write(request); err != nil {
			return
		}
		if answer, err = readUntil(servers[at], 'Z'); err != nil {
			return
		}
		if answer[len(answer)-1] == 'I' { // not in a transaction
			at = (at + 1) % sessions
		}
	}
}
