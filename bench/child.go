package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"time"
)

// childVariable holds the order of a process that this program has started of itself.
const childVariable = "QUOTA_BENCH_CHILD"

// An order is what a child is to do.
type order struct {
	Kind    string // memory, callers, ask or fleet
	Who     string // memory, fleet: whose
	Path    string // callers, ask: the state
	Callers int
	Count   int // memory: keys; ask: calls
	Time    time.Duration
	Fleet   fleet
}

// An answer is what came of an order.
type answer struct {
	Ops     int
	Elapsed time.Duration
	Bytes   float64

	// Of a fleet.
	InTime  int // of Ops, within the budget
	Times   []time.Duration
	Trips   int64
	Granted int // of the bounded quota
}

// obey carries out the order of this process's parent, if it has one. A child says that it is ready, waits for a line,
// and prints its answer.
func obey() (isChild bool) {
	text := os.Getenv(childVariable)
	if text == "" {
		return false
	}
	var o order
	err := json.Unmarshal([]byte(text), &o)
	var done answer
	if err == nil {
		switch o.Kind {
		case "memory":
			done, err = measureResident(o)
		case "callers":
			done, err = callAsChild(o)
		case "ask":
			done, err = askAsChild(o)
		case "fleet":
			done, err = serveFleet(o)
		default:
			err = fmt.Errorf("unknown order %q", o.Kind)
		}
	}
	if err == nil {
		err = json.NewEncoder(os.Stdout).Encode(done)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench: child:", err)
		os.Exit(1)
	}
	return true
}

// awaitStart tells the parent that everything is prepared and waits until it says go.
func awaitStart() error {
	if _, err := fmt.Println("ready"); err != nil {
		return err
	}
	_, err := bufio.NewReader(os.Stdin).ReadString('\n')
	return err
}

// together runs one child for each order; all that wait for a start are let go at the same time. before is a command to
// run the children under.
func together(ctx context.Context, before []string, orders ...order) ([]answer, error) {
	program, err := os.Executable()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // whoever still runs after a failure is ended
	var children []*child
	for _, o := range orders {
		c, err := start(ctx, append(before[:len(before):len(before)], program), o)
		if err != nil {
			return nil, err
		}
		children = append(children, c)
	}
	for _, c := range children {
		if line, err := c.out.ReadString('\n'); err != nil || strings.TrimSpace(line) != "ready" {
			return nil, fmt.Errorf("a child did not get ready: %w", errors.Join(err, c.command.Wait()))
		}
	}
	for _, c := range children {
		if _, err := io.WriteString(c.in, "go\n"); err != nil {
			return nil, err
		}
	}
	answers := make([]answer, len(children))
	for i, c := range children {
		if err := errors.Join(json.NewDecoder(c.out).Decode(&answers[i]), c.command.Wait()); err != nil {
			return nil, fmt.Errorf("a child failed: %w", err)
		}
	}
	return answers, nil
}

type child struct {
	command *exec.Cmd
	in      io.WriteCloser
	out     *bufio.Reader
}

func start(ctx context.Context, command []string, o order) (*child, error) {
	text, err := json.Marshal(o)
	if err != nil {
		return nil, err
	}
	c := &child{command: exec.CommandContext(ctx, command[0], command[1:]...)}
	c.command.Env = append(os.Environ(), childVariable+"="+string(text))
	c.command.Stderr = os.Stderr
	if c.in, err = c.command.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := c.command.StdoutPipe()
	if err != nil {
		return nil, err
	}
	c.out = bufio.NewReader(out)
	if err := c.command.Start(); err != nil {
		return nil, err
	}
	return c, nil
}
