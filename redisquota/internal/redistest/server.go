// Package redistest starts real servers for tests: on the loopback, each with a directory of its own.
package redistest

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

// patience is how long a server may take to start or to end.
const patience = 20 * time.Second

// A Server is a redis-server that keeps an append-only file and syncs it at every write. It ends with its test, also when
// the test fails or, on Linux, when the test's process is killed.
type Server struct {
	tb   testing.TB
	path string
	dir  string
	port int
	args []string

	command *exec.Cmd
	ended   chan struct{} // closed when the process has ended
}

// Start starts a server with these further settings, such as "--maxmemory", "64mb". Where there is no redis-server the
// test is skipped, or fails where CI is set.
func Start(tb testing.TB, args ...string) *Server {
	tb.Helper()
	s := &Server{tb: tb, path: find(tb), dir: tb.TempDir(), port: freePort(tb), args: args}
	tb.Cleanup(s.Kill)
	s.Restart()
	return s
}

// StartReplica starts a replica of a server, and returns when it is up to date.
func StartReplica(tb testing.TB, master *Server) *Server {
	tb.Helper()
	replica := Start(tb, "--replicaof", "127.0.0.1 "+strconv.Itoa(master.port))
	client := master.Client()
	Eventually(tb, "the replica is up to date", func() bool {
		n, err := client.Do(context.Background(), "wait", 1, 100).Int64()
		return err == nil && n > 0
	})
	return replica
}

// find returns the path of a server's program.
func find(tb testing.TB) string {
	tb.Helper()
	for _, name := range []string{"redis-server", "valkey-server"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	const missing = "there is no redis-server: install one (make services)"
	if os.Getenv("CI") != "" {
		tb.Fatal(missing)
	}
	tb.Skip(missing)
	return ""
}

// Addr returns the server's address.
func (s *Server) Addr() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(s.port)) }

// Client returns a client that is closed at the end of the test.
func (s *Server) Client(change ...func(*redis.Options)) *redis.Client {
	return Client(s.tb, s.Addr(), change...)
}

// Client returns a client of an address that is closed at the end of the test. It does not look into the details that
// only newer servers know.
func Client(tb testing.TB, addr string, change ...func(*redis.Options)) *redis.Client {
	opts := &redis.Options{Addr: addr}
	for _, f := range change {
		f(opts)
	}
	client := redis.NewClient(opts)
	tb.Cleanup(func() { _ = client.Close() })
	return client
}

// Restart starts the server, after having stopped it if it runs. It has then what it had before.
func (s *Server) Restart() {
	s.tb.Helper()
	s.Stop()
	Must(s.tb, s.start())
}

// KillAndRestart is Kill and Restart for any goroutine.
func (s *Server) KillAndRestart() error {
	s.Kill()
	return s.start()
}

func (s *Server) start() error {
	args := append([]string{
		"--bind", "127.0.0.1", "--port", strconv.Itoa(s.port), "--dir", s.dir, "--daemonize", "no", "--save", "",
		"--appendonly", "yes", "--appendfsync", "always", "--repl-diskless-sync-delay", "0",
		"--loglevel", "warning", "--logfile", filepath.Join(s.dir, "log"),
	}, s.args...)
	command, ended := exec.Command(s.path, args...), make(chan struct{})
	command.SysProcAttr = endWithParent()
	started := make(chan error)
	go func() {
		// On Linux the server ends with the thread that has started it.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := command.Start()
		started <- err
		if err == nil {
			_ = command.Wait()
		}
		close(ended)
	}()
	if err := <-started; err != nil {
		return fmt.Errorf("starting %s: %w", s.path, err)
	}
	s.command, s.ended = command, ended
	return s.await()
}

// await returns when the server answers.
func (s *Server) await() error {
	client := redis.NewClient(&redis.Options{Addr: s.Addr()})
	defer func() { _ = client.Close() }()
	for deadline := time.Now().Add(patience); ; time.Sleep(2 * time.Millisecond) {
		err := client.Ping(context.Background()).Err()
		if err == nil {
			return nil
		}
		select {
		case <-s.ended:
			log, _ := os.ReadFile(filepath.Join(s.dir, "log"))
			return fmt.Errorf("the server has ended: %s", log)
		default:
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("the server does not answer: %w", err)
		}
	}
}

// Stop ends the server as an operator would.
func (s *Server) Stop() { s.end(syscall.SIGTERM) }

// Kill ends the server at once.
func (s *Server) Kill() { s.end(syscall.SIGKILL) }

func (s *Server) end(signal os.Signal) {
	s.tb.Helper()
	if s.command == nil || s.command.Process == nil {
		return
	}
	if err := s.command.Process.Signal(signal); err != nil {
		_ = s.command.Process.Kill() // where there are no such signals
	}
	select {
	case <-s.ended:
	case <-time.After(patience):
		_ = s.command.Process.Kill()
		<-s.ended
	}
	s.command = nil
}

// Lose removes what the server, which must not run, has kept.
func (s *Server) Lose() {
	s.tb.Helper()
	if err := os.RemoveAll(filepath.Join(s.dir, "appendonlydir")); err != nil {
		s.tb.Fatalf("redistest: removing the server's data: %v", err)
	}
}

func freePort(tb testing.TB) int {
	tb.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatalf("redistest: looking for a free port: %v", err)
	}
	defer func() { _ = listener.Close() }()
	return listener.Addr().(*net.TCPAddr).Port
}

// Eventually polls until ok returns true, and ends the test where it does not in time.
func Eventually(tb testing.TB, what string, ok func() bool) {
	tb.Helper()
	deadline := time.Now().Add(patience)
	for !ok() {
		if time.Now().After(deadline) {
			tb.Fatalf("not in time: %s", what)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// Must ends the test on an error.
func Must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(fmt.Errorf("redistest: %w", err))
	}
}
