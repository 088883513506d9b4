package linear

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"

	"example.com/quota/torture/harness"
)

// answer is what a process says at the end of a history.
type answer struct {
	Events []event `json:"events"`
	Wrong  string  `json:"wrong,omitempty"` // what no call may return
}

// work carries out one plan after the other, each a line of its input: it says that it has opened the state, waits
// for a line to begin, and answers with what it saw.
func work([]string) error {
	ctx := context.Background()
	in, out := bufio.NewReader(os.Stdin), json.NewEncoder(os.Stdout)
	for {
		line, err := in.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		var p plan
		if err := json.Unmarshal(line, &p); err != nil {
			return fmt.Errorf("reading a plan: %w", err)
		}
		tracker, err := p.open(ctx)
		if err != nil {
			return harness.Violated("a process cannot open the state: %v", err)
		}
		if _, err := fmt.Println("open"); err != nil {
			return err
		}
		if _, err := in.ReadBytes('\n'); err != nil {
			return err
		}
		var said answer
		events, err := p.run(tracker)
		if err = errors.Join(err, tracker.Close()); err != nil {
			said.Wrong = err.Error()
		}
		said.Events = events
		if err := out.Encode(said); err != nil {
			return err
		}
	}
}

// process is a worker.
type process struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

func startProcess(ctx context.Context) (*process, error) {
	cmd, err := harness.Worker(ctx, workerName)
	if err != nil {
		return nil, err
	}
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting a worker: %w", err)
	}
	return &process{cmd, in, bufio.NewReaderSize(out, 1<<20)}, nil
}

// open has the process open the state.
func (p *process) open(one plan) error {
	line, err := json.Marshal(one)
	if err != nil {
		return err
	}
	if _, err := p.in.Write(append(line, '\n')); err != nil {
		return p.ended(err)
	}
	if _, err := p.out.ReadBytes('\n'); err != nil {
		return p.ended(err)
	}
	return nil
}

func (p *process) begin() error {
	_, err := p.in.Write([]byte("\n"))
	return err
}

// answer waits for the end of the history.
func (p *process) answer() (answer, error) {
	line, err := p.out.ReadBytes('\n')
	if err != nil {
		return answer{}, p.ended(err)
	}
	var said answer
	return said, json.Unmarshal(line, &said)
}

// ended explains why a process does not answer any more. A worker reports a broken promise with exit code 1.
func (p *process) ended(err error) error {
	waited := p.cmd.Wait()
	var exit *exec.ExitError
	if errors.As(waited, &exit) && exit.ExitCode() == 1 {
		return harness.Violated("a process ended in the middle of a history")
	}
	return fmt.Errorf("a worker does not answer: %w, %w", err, waited)
}

func (p *process) stop() {
	_ = p.cmd.Process.Kill() // it may be in the middle of a history that nobody waits for any more
	_ = p.cmd.Wait()
}
