package powercut

import (
	"bufio"
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"example.com/quota/torture/harness"
)

const (
	shutdown   = 0x8004587d // EXT4_IOC_SHUTDOWN and XFS_IOC_GOINGDOWN: _IOR('X', 125, uint32)
	noLogFlush = 2          // nothing more reaches the disk, not even the log
)

// cutPower shuts the file system at dir down. From then on its calls fail.
func cutPower(dir string) error {
	file, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer file.Close()
	if err := unix.IoctlSetPointerInt(int(file.Fd()), shutdown, noLogFlush); err != nil {
		return fmt.Errorf("shutting the file system down: %w", err)
	}
	return nil
}

// bound is when a worker counts as stuck.
const bound = 30 * time.Second

// monotonic is the time on a clock that all processes share and nobody sets.
func monotonic() int64 {
	var now unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &now) // cannot fail: the clock is there
	return now.Nano()
}

// work lets the crew work until the power is cut at a random moment, and notes in l what they acknowledged before that.
func (c *crew) work(l *life, random *rand.Rand, cut func() error) error {
	defer c.dismiss()
	type said struct {
		worker int
		line   string
	}
	lines := make(chan said, 1024)
	var readers sync.WaitGroup
	for worker, pipe := range c.pipes {
		readers.Go(func() {
			for scanner := bufio.NewScanner(pipe); scanner.Scan(); {
				lines <- said{worker, scanner.Text()}
			}
		})
	}
	go func() {
		readers.Wait()
		close(lines)
	}()

	note := func(line string) (event, error) {
		e, err := parseEvent(line)
		if err == nil {
			err = l.ledger.note(e)
		}
		return e, err
	}
	// The moment: so many events, and a little. The first events come when the directory has just been made.
	wanted := random.IntN(120)
	if random.IntN(8) == 0 {
		wanted = 0
	}
	pause := time.Duration(random.Int64N(int64(4 * time.Millisecond)))
	late := time.NewTimer(bound)
	defer late.Stop()
	for range wanted {
		select {
		case one, ok := <-lines:
			if !ok {
				return harness.Violated("the workers ended before the power was cut: %s", c.said.String())
			}
			e, err := note(one.line)
			if err != nil {
				return err
			}
			if e.kind == failed {
				return harness.Violated("worker %d: a call failed before the power was cut: %s", one.worker, e.text)
			}
		case <-late.C:
			return harness.Violated("nothing happened for %v before the power was cut", bound)
		}
	}
	if wanted == 0 {
		pause *= 10 // into the start of the workers
	}
	time.Sleep(pause)
	l.ledger.cut = monotonic()
	if err := cut(); err != nil {
		return err
	}
	// The calls under way fail; a process cannot be killed in the middle of a write into its pipe.
	c.kill()
	for one := range lines {
		if _, err := note(one.line); err != nil {
			return err
		}
	}
	return nil
}

func (c *crew) kill() {
	for _, worker := range c.workers {
		_ = worker.Process.Kill()
	}
}
