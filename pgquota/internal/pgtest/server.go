// Package pgtest starts real PostgreSQL servers for tests: on unix sockets, each with a data directory of its own.
package pgtest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// patience is how long a server may take to start or to end.
const patience = 30 * time.Second

// Superuser is who owns everything in a server.
const Superuser = "postgres"

// A Server is a PostgreSQL server. It ends with what it was started for, also when a test fails or, on Linux, when the
// process of the tests is killed.
type Server struct {
	postgres string
	dir      string
	settings []string

	command *exec.Cmd     // nil: it does not run
	ended   chan struct{} // closed when the process has ended
}

var errMissing = errors.New("there is no PostgreSQL server: install one (make services)")

// Start starts a server for one test, with these further settings ("name=value"). Where PostgreSQL is not installed the
// test is skipped, or fails where CI is set.
func Start(tb testing.TB, settings ...string) *Server {
	tb.Helper()
	s, err := launch(settings)
	require(tb, err)
	tb.Cleanup(s.remove)
	return s
}

// A Shared is a server for all tests of a process. TestMain ends it.
type Shared struct {
	once   sync.Once
	server *Server
	err    error
}

// Server starts the server if it does not run.
func (s *Shared) Server(tb testing.TB) *Server {
	tb.Helper()
	s.once.Do(func() { s.server, s.err = launch(nil) })
	require(tb, s.err)
	return s.server
}

// Stop ends it and removes its data.
func (s *Shared) Stop() {
	if s.server != nil {
		s.server.remove()
	}
}

func require(tb testing.TB, err error) {
	tb.Helper()
	switch {
	case err == nil:
	case errors.Is(err, errMissing) && os.Getenv("CI") == "":
		tb.Skip(err)
	default:
		tb.Fatal(fmt.Errorf("pgtest: %w", err))
	}
}

// find returns the paths of the server's program and of initdb. Debian keeps them out of the PATH.
func find() (postgres, initdb string, err error) {
	var dirs []string
	if path, err := exec.LookPath("postgres"); err == nil {
		dirs = append(dirs, filepath.Dir(path))
	}
	installed, _ := filepath.Glob("/usr/lib/postgresql/*/bin")
	slices.Reverse(installed) // the newest first
	for _, dir := range append(dirs, installed...) {
		postgres, initdb = filepath.Join(dir, "postgres"), filepath.Join(dir, "initdb")
		_, missing1 := os.Stat(postgres)
		_, missing2 := os.Stat(initdb)
		if missing1 == nil && missing2 == nil {
			return postgres, initdb, nil
		}
	}
	return "", "", errMissing
}

func launch(settings []string) (*Server, error) {
	postgres, initdb, err := find()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "pgquota-")
	if err != nil {
		return nil, err
	}
	s := &Server{postgres: postgres, dir: dir, settings: settings}
	if err := giveAway(dir); err != nil {
		s.remove()
		return nil, err
	}
	init := exec.Command(initdb, "--pgdata", s.data(), "--username", Superuser, "--auth", "trust", "--encoding", "UTF8",
		"--locale", "C", "--no-sync")
	init.SysProcAttr, init.Dir = attributes(), dir
	if output, err := init.CombinedOutput(); err != nil {
		s.remove()
		return nil, fmt.Errorf("initdb: %w: %s", err, output)
	}
	if err := s.start(); err != nil {
		s.remove()
		return nil, err
	}
	return s, nil
}

func (s *Server) data() string { return filepath.Join(s.dir, "data") }

func (s *Server) start() error {
	args := []string{
		"-D", s.data(), "-k", s.dir, "-c", "listen_addresses=", "-c", "shared_buffers=32MB", "-c", "log_min_messages=warning",
	}
	for _, setting := range s.settings {
		args = append(args, "-c", setting)
	}
	log, err := os.OpenFile(s.log(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	command, ended := exec.Command(s.postgres, args...), make(chan struct{})
	command.SysProcAttr, command.Dir, command.Stdout, command.Stderr = attributes(), s.dir, log, log
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
		return err
	}
	s.command, s.ended = command, ended
	return s.await()
}

func (s *Server) log() string { return filepath.Join(s.dir, "log") }

// await returns when the server answers.
func (s *Server) await() error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for {
		conn, err := pgx.Connect(ctx, s.DSN())
		if err == nil {
			return conn.Close(ctx)
		}
		select {
		case <-s.ended:
			log, _ := os.ReadFile(s.log())
			return fmt.Errorf("the server has ended: %s", log)
		case <-ctx.Done():
			return fmt.Errorf("the server does not answer: %w", err)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// Stop ends the server as an operator would: connections are closed, what is committed is written.
func (s *Server) Stop(tb testing.TB) {
	tb.Helper()
	require(tb, s.end(syscall.SIGINT))
}

// Crash ends the server at once, as pg_ctl stop -m immediate does: what is committed is in its log, and nowhere else.
func (s *Server) Crash(tb testing.TB) {
	tb.Helper()
	require(tb, s.end(syscall.SIGQUIT))
}

// Restart starts the server again, with the data it had, and these further settings.
func (s *Server) Restart(tb testing.TB, settings ...string) {
	tb.Helper()
	s.settings = append(s.settings, settings...)
	require(tb, s.start())
}

// CrashAndRestart is Crash and Restart for any goroutine.
func (s *Server) CrashAndRestart() error {
	if err := s.end(syscall.SIGQUIT); err != nil {
		return err
	}
	return s.start()
}

// Standby makes a server that does not run a standby, of nobody, from its next start on.
func (s *Server) Standby(tb testing.TB) {
	tb.Helper()
	require(tb, os.WriteFile(filepath.Join(s.data(), "standby.signal"), nil, 0o644))
}

func (s *Server) end(signal os.Signal) error {
	if s.command == nil {
		return nil
	}
	if err := s.command.Process.Signal(signal); err != nil {
		_ = s.command.Process.Kill() // where there are no such signals
	}
	s.command = nil
	select {
	case <-s.ended:
		return nil
	case <-time.After(patience):
		return errors.New("the server does not end")
	}
}

func (s *Server) remove() {
	process := s.command
	if err := s.end(syscall.SIGQUIT); err != nil && process != nil {
		_ = process.Process.Kill()
		<-s.ended
	}
	_ = os.RemoveAll(s.dir)
}

// DSN returns the connection string of the superuser, with these further settings ("name=value").
func (s *Server) DSN(settings ...string) string {
	return strings.Join(append([]string{"host=" + s.dir, "user=" + Superuser, "dbname=postgres", "sslmode=disable"}, settings...), " ")
}

// Socket returns the path of the server's socket.
func (s *Server) Socket() string { return filepath.Join(s.dir, ".s.PGSQL.5432") }

// Pool returns a pool of connections that is closed at the end of the test.
func Pool(tb testing.TB, dsn string, change ...func(*pgxpool.Config)) *pgxpool.Pool {
	tb.Helper()
	cfg, err := pgxpool.ParseConfig(dsn)
	require(tb, err)
	for _, f := range change {
		f(cfg)
	}
	pool, err := pgxpool.NewWithConfig(context.Background(), cfg)
	require(tb, err)
	tb.Cleanup(func() {
		closed := make(chan struct{})
		go func() {
			defer close(closed)
			pool.Close()
		}()
		select {
		case <-closed:
		case <-time.After(patience):
			tb.Error("pgtest: a connection has not been given back to its pool")
		}
	})
	return pool
}

// Eventually polls until ok returns true, and ends the test where it does not in time.
func Eventually(tb testing.TB, what string, ok func() bool) {
	tb.Helper()
	deadline := time.Now().Add(patience)
	for !ok() {
		if time.Now().After(deadline) {
			tb.Fatalf("not in time: %s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}
