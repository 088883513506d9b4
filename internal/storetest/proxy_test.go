package storetest

import (
	"bufio"
	"fmt"
	"math/rand/v2"
	"net"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
)

// An echo answers each line with the same, and counts them.
type echo struct {
	listener net.Listener
	lines    atomic.Int64
	running  sync.WaitGroup
}

func startEcho(t *testing.T, address string) *echo {
	t.Helper()
	listener, err := net.Listen(network(address), address)
	require.NoError(t, err)
	e := &echo{listener: listener}
	e.running.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			e.running.Go(func() {
				defer conn.Close()
				for lines := bufio.NewScanner(conn); lines.Scan(); {
					e.lines.Add(1)
					_, _ = fmt.Fprintln(conn, lines.Text())
				}
			})
		}
	})
	t.Cleanup(func() {
		_ = listener.Close()
		e.running.Wait()
	})
	return e
}

// A caller sends lines on a new connection.
type caller struct {
	conn    net.Conn
	replies *bufio.Reader
}

func connect(t *testing.T, p *Proxy) *caller {
	t.Helper()
	conn, err := net.Dial(network(p.Addr()), p.Addr())
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	return &caller{conn, bufio.NewReader(conn)}
}

// call returns whether there was a reply.
func (c *caller) call() bool {
	if _, err := fmt.Fprintln(c.conn, "hello"); err != nil {
		return false
	}
	reply, err := c.replies.ReadString('\n')
	return err == nil && reply == "hello\n"
}

func newTestProxy(t *testing.T, listen, server string) *Proxy {
	t.Helper()
	p, err := NewProxy(listen, server)
	require.NoError(t, err)
	t.Cleanup(func() {
		require.NoError(t, p.Close())
		stacks := make([]byte, 1<<20)
		stacks = stacks[:runtime.Stack(stacks, true)]
		require.NotContains(t, string(stacks), "storetest.(*Proxy)", "it has left goroutines")
		require.NotContains(t, string(stacks), "storetest.(*link)", "it has left goroutines")
	})
	return p
}

func TestAProxyCutsWhereItIsTold(t *testing.T) {
	dir := t.TempDir()
	for what, addresses := range map[string][2]string{
		"TCP":            {"", "127.0.0.1:0"},
		"a Unix socket":  {filepath.Join(dir, "proxy"), filepath.Join(dir, "server")},
		"TCP before one": {"", filepath.Join(dir, "another")},
	} {
		for _, test := range []struct {
			fault          Fault
			replied, after bool
			lines          int64 // that the server has got of the second; -1: it may or may not
		}{
			{Pass, true, true, 1}, {CutBefore, false, false, 0}, {CutSent, false, false, -1}, {CutReplied, false, false, 1},
			{CutAfter, true, false, 1},
		} {
			t.Run(fmt.Sprint(what, test.fault), func(t *testing.T) {
				server := startEcho(t, addresses[1])
				p := newTestProxy(t, addresses[0], server.listener.Addr().String())
				p.Plan(Once(1, test.fault))
				c := connect(t, p)
				require.True(t, c.call())
				require.Equal(t, test.replied, c.call())
				lines := server.lines.Load() - 1
				if test.fault == CutAfter {
					_, err := c.replies.ReadByte()
					require.Error(t, err, "the connection is cut when nothing follows")
				}
				require.Equal(t, test.after, c.call())
				require.True(t, connect(t, p).call(), "others are left alone")
				if test.lines >= 0 {
					require.Equal(t, test.lines, lines)
				}
				_, cuts := p.Requests()
				require.Equal(t, test.fault != Pass, cuts == 1)
			})
		}
	}
}

func TestAProxyCutsAllConnectionsOnDemand(t *testing.T) {
	server := startEcho(t, "127.0.0.1:0")
	p := newTestProxy(t, "", server.listener.Addr().String())
	one, two := connect(t, p), connect(t, p)
	require.True(t, one.call())
	require.True(t, two.call())
	p.Cut()
	require.False(t, one.call())
	require.False(t, two.call())
	require.True(t, connect(t, p).call())
}

func TestAProxyWithoutAServerCutsItsClients(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, listener.Close())
	p := newTestProxy(t, "", listener.Addr().String())
	require.False(t, connect(t, p).call())
	require.NoError(t, p.Close(), "it may be closed twice")
}

func TestAProxyMayCutAtRandom(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	plan, seen := Randomly(random, 10), map[Fault]int{}
	for range 10_000 {
		seen[plan()]++
	}
	require.InDelta(t, 9000, seen[Pass], 200)
	for _, fault := range []Fault{CutBefore, CutSent, CutReplied, CutAfter} {
		require.InDelta(t, 250, seen[fault], 100)
	}
	require.Len(t, seen, 5)
	require.False(t, strings.Contains(network("127.0.0.1:1"), "unix"))
}
