package storetest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
	"sync/atomic"
)

// A node is another process of a fleet, as the one that has started it sees it.
type node struct {
	number int
	cmd    *exec.Cmd
	input  io.WriteCloser
	words  chan word // what it says; closed at its end
	stderr bytes.Buffer
	killed atomic.Bool // on purpose
	ended  sync.Once
}

// errEnded says that a process has ended before it had carried out an order.
var errEnded = errors.New("storetest: the process has ended")

// startNode starts the program of this test once more.
func startNode(number int) (*node, error) {
	program, err := os.Executable()
	if err != nil {
		return nil, err
	}
	n := &node{number: number, cmd: exec.Command(program), words: make(chan word)}
	n.cmd.Env = append(os.Environ(), processVariable+"=1")
	n.cmd.Stderr = &n.stderr
	if n.input, err = n.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	output, err := n.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := n.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		defer close(n.words)
		for decoder := json.NewDecoder(output); ; {
			var w word
			if decoder.Decode(&w) != nil {
				return
			}
			n.words <- w
		}
	}()
	return n, nil
}

// do has the process carry out an order and returns its last word. hear is told what it says before; nil: nobody is.
func (n *node) do(ctx context.Context, o order, hear func(word)) (word, error) {
	if err := json.NewEncoder(n.input).Encode(o); err != nil {
		return word{}, n.wrap(o, errEnded)
	}
	for {
		select {
		case w, ok := <-n.words:
			switch {
			case !ok:
				return word{}, n.wrap(o, errEnded)
			case w.Say == "done" && w.Error != "":
				return w, n.wrap(o, errors.New(w.Error))
			case w.Say == "done":
				return w, nil
			case hear != nil:
				hear(w)
			}
		case <-ctx.Done():
			return word{}, n.wrap(o, ctx.Err())
		}
	}
}

func (n *node) wrap(o order, err error) error {
	return fmt.Errorf("storetest: process %d, %s: %w", n.number, o.Do, err)
}

// kill ends the process without warning. What it has said is still to be heard.
func (n *node) kill() { _ = n.cmd.Process.Kill() }

// end kills the process if it has not ended, and waits for its end.
func (n *node) end() {
	n.ended.Do(func() {
		n.kill()
		for range n.words { // whoever has heard it before has gone
		}
		_ = n.cmd.Wait()
		if n.stderr.Len() > 0 {
			fmt.Fprintf(os.Stderr, "storetest: process %d has said:\n%s\n", n.number, n.stderr.String())
		}
	})
}
