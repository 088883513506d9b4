package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"time"
)

// patience is how long a server may take to start or to end.
const patience = 20 * time.Second

// errMissing says that a row's server is not installed.
var errMissing = errors.New("is not installed (make services installs it)")

// A server is a process that a row measures against. It ends with the row, and on Linux with this process.
type server struct {
	command *exec.Cmd
	ended   chan struct{} // closed when the process has ended
	log     string
	end     os.Signal
	cleanUp func() // nil: nothing is left
}

// startServer starts a program and returns when it answers. Its log is in dir, and end is what ends it.
func startServer(ctx context.Context, dir string, end os.Signal, command *exec.Cmd, answers func(context.Context) error) (*server, error) {
	s := &server{command: command, ended: make(chan struct{}), log: filepath.Join(dir, "log"), end: end}
	log, err := os.Create(s.log)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	command.Stdout, command.Stderr = log, log
	started := make(chan error)
	go func() {
		// On Linux the server ends with the thread that has started it.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := command.Start()
		started <- err
		if err == nil {
			_ = command.Wait() // how it ended is in its log
		}
		close(s.ended)
	}()
	if err := <-started; err != nil {
		return nil, err
	}
	if err := s.await(ctx, answers); err != nil {
		s.stop()
		return nil, fmt.Errorf("%s: %w", filepath.Base(command.Path), err)
	}
	return s, nil
}

func (s *server) await(ctx context.Context, answers func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		err := answers(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-s.ended:
			text, _ := os.ReadFile(s.log)
			return fmt.Errorf("it has ended: %s", bytes.TrimSpace(text))
		case <-ctx.Done():
			return fmt.Errorf("it does not answer: %w", err)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// stop ends the server, and returns when it has ended.
func (s *server) stop() {
	if s.cleanUp != nil {
		defer s.cleanUp()
	}
	if s.command.Process.Signal(s.end) != nil {
		_ = s.command.Process.Kill() // where there are no such signals
	}
	select {
	case <-s.ended:
	case <-time.After(patience):
		_ = s.command.Process.Kill()
		<-s.ended
	}
}

// freePort returns a port of the loopback that nobody listens on.
func freePort() (string, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	port := strconv.Itoa(listener.Addr().(*net.TCPAddr).Port)
	return port, listener.Close()
}

// without reports whether a row has to do without its server, and says so. Under CI that is a failure.
func (b *bench) without(row int, err error) bool {
	if !errors.Is(err, errMissing) || os.Getenv("CI") != "" {
		return false
	}
	b.say(row, "Left out: %v.", err)
	return true
}

// serverDirectory returns a directory for a server that does not run as root: on the disk that is measured, or, where
// that user cannot get there, among the temporary ones.
func (b *bench) serverDirectory() (dir string, cleanUp func(), err error) {
	cleanUp = func() {} // as everything of this run
	if dir, err = b.scratch(); err == nil {
		dir, err = filepath.Abs(dir)
	}
	if err != nil {
		return "", nil, err
	}
	if os.Geteuid() == 0 && !openToAll(filepath.Dir(filepath.Dir(dir))) {
		if dir, err = os.MkdirTemp("", "quota-bench-"); err != nil {
			return "", nil, err
		}
		cleanUp = func() { _ = os.RemoveAll(dir) }
	} else if err = os.Chmod(b.dir, 0o711); err != nil {
		return "", nil, err
	}
	if err = giveAway(dir); err != nil {
		cleanUp()
		return "", nil, err
	}
	return dir, cleanUp, nil
}

// openToAll reports whether every user may pass through a directory.
func openToAll(dir string) bool {
	for ; ; dir = filepath.Dir(dir) {
		info, err := os.Stat(dir)
		if err != nil || info.Mode().Perm()&0o001 == 0 {
			return false
		}
		if dir == filepath.Dir(dir) {
			return true
		}
	}
}
