//go:build amd64 || arm64

package victim

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"example.com/quota/torture/harness"
	"golang.org/x/sys/unix"
)

// WorkerName is the name of the Worker in a row's list.
const WorkerName = "victim"

// stuck is after how long a step is taken to hang.
const stuck = 30 * time.Second

// ErrDied says that the victim is dead.
var ErrDied = errors.New("the victim is dead")

// A Process is a victim from the outside.
type Process struct {
	Trap   *Trap    // nil before the step Trapped
	Alerts []string // that it has delivered; complete after Do or Kill has returned

	root   string
	cmd    *exec.Cmd
	in     io.WriteCloser
	lines  chan Result
	said   *bytes.Buffer // on standard error; complete once it has ended
	socket int
	ended  sync.Once
}

// Start starts a victim whose files are below root.
func Start(ctx context.Context, root string) (*Process, error) {
	cmd, err := harness.Worker(ctx, WorkerName, root)
	if err != nil {
		return nil, err
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("a socket for the victim: %w", err)
	}
	theirs := os.NewFile(uintptr(pair[1]), "socket")
	defer theirs.Close()
	p := &Process{root: root, cmd: cmd, lines: make(chan Result, 64), said: new(bytes.Buffer), socket: pair[0]}
	cmd.ExtraFiles = []*os.File{theirs} // it is descriptor 3 there
	cmd.Stderr = p.said
	// Nothing but the library's own doing decides about the order of calls.
	cmd.Env = append(os.Environ(), "GOGC=off", "GODEBUG=asyncpreemptoff=1")
	if p.in, err = cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		_ = unix.Close(p.socket)
		return nil, fmt.Errorf("starting a victim: %w", err)
	}
	go func() {
		defer close(p.lines)
		scanner := bufio.NewScanner(out)
		scanner.Buffer(nil, 1<<20)
		for scanner.Scan() {
			var result Result
			if err := json.Unmarshal(scanner.Bytes(), &result); err != nil {
				result.Error = "it said: " + scanner.Text()
			}
			p.lines <- result
		}
	}()
	return p, nil
}

// Do has the victim do a step. ErrDied: it died of it. An error is about the step's not having come to an end; how it
// ended stands in the result.
func (p *Process) Do(step Step) (Result, error) {
	if step.Do == Open || step.Do == Store {
		step.Path = filepath.Join(p.root, StatePath)
	}
	line, err := json.Marshal(step)
	if err != nil {
		return Result{}, err
	}
	if _, err := p.in.Write(append(line, '\n')); err != nil {
		return Result{}, p.died()
	}
	if step.Do == Trapped {
		if err := p.takeTrap(); err != nil {
			return Result{}, err
		}
	}
	bound := time.NewTimer(stuck)
	defer bound.Stop()
	for {
		select {
		case result, ok := <-p.lines:
			if !ok {
				return Result{}, p.died()
			}
			if result.Alert != "" {
				p.Alerts = append(p.Alerts, result.Alert)
				continue
			}
			return result, nil
		case <-bound.C:
			_ = p.cmd.Process.Signal(syscall.SIGQUIT)
			p.end()
			return Result{}, harness.Violated("%s has not ended after %v:\n%s", step, stuck, p.said)
		}
	}
}

// Must is Do for a step that has to succeed.
func (p *Process) Must(step Step) error {
	result, err := p.Do(step)
	if err == nil && result.Error != "" {
		err = harness.Violated("%s: %s", step, result.Error)
	}
	return err
}

// takeTrap takes over the descriptor on which the victim asks.
func (p *Process) takeTrap() error {
	data, space := make([]byte, 1), make([]byte, unix.CmsgSpace(4))
	n, got, _, _, err := unix.Recvmsg(p.socket, data, space, unix.MSG_CMSG_CLOEXEC)
	if err != nil || n == 0 {
		p.end()
		return fmt.Errorf("no word from the victim: %w %s", errors.Join(err, ErrDied), p.said)
	}
	messages, err := unix.ParseSocketControlMessage(space[:got])
	if err != nil || len(messages) != 1 {
		return fmt.Errorf("the victim sent no descriptor: %w", err)
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 1 {
		return fmt.Errorf("the victim sent no descriptor: %w", err)
	}
	p.Trap = newTrap(fds[0], p.cmd.Process.Pid, p.root)
	return nil
}

// Kill ends the victim where it stands.
func (p *Process) Kill() {
	_ = p.cmd.Process.Kill()
	p.end()
}

// end waits for the end of the victim and takes in what it has said last.
func (p *Process) end() {
	p.ended.Do(func() {
		_ = p.in.Close()
		bound := time.AfterFunc(5*time.Second, func() { _ = p.cmd.Process.Kill() })
		for result := range p.lines {
			if result.Alert != "" {
				p.Alerts = append(p.Alerts, result.Alert)
			}
		}
		_ = p.cmd.Wait()
		bound.Stop()
		_ = unix.Close(p.socket)
		if p.Trap != nil {
			<-p.Trap.done
		}
	})
}

// died waits for the end of a victim that says no more. A panic is what it died of.
func (p *Process) died() error {
	p.end()
	if p.Trap != nil && p.Trap.err != nil {
		return p.Trap.err
	}
	if p.said.Len() > 0 {
		return harness.Violated("the victim died of itself:\n%s", p.said)
	}
	return ErrDied
}
