package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// A floor is what no library on this machine goes below, measured in the same run.
type floor struct {
	clock, lock, wake stat // nanoseconds
	disk              stat
}

// measureFloor is row 0.
func (b *bench) measureFloor() ([]finding, error) {
	var now time.Time
	var mu sync.Mutex
	held := 0
	found, err := compare(b.pace,
		serial("clock", func(n int) error {
			for range n {
				now = time.Now()
			}
			return nil
		}),
		serial("lock", func(n int) error {
			for range n {
				mu.Lock()
				held++
				mu.Unlock()
			}
			return nil
		}),
		wakeAll(64),
	)
	if err != nil {
		return nil, err
	}
	if now.IsZero() || held < found[1].ops {
		return nil, errors.New("the floor was not measured")
	}
	dir, err := b.scratch()
	if err != nil {
		return nil, err
	}
	cycle, err := newDiskCycle(dir, make([]byte, 4096))
	if err != nil {
		return nil, err
	}
	defer cycle.close()
	disk, err := compare(b.durable(), serial("disk", cycle.times))
	if err != nil {
		return nil, err
	}
	b.floor = floor{summarize(found[0].perOp), summarize(found[1].perOp), summarize(found[2].perOp), summarize(disk[0].perOp)}
	return []finding{
		alone(0, "read the clock", nanoseconds, found[0].perOp),
		alone(0, "take and give back a lock nobody else wants", nanoseconds, found[1].perOp),
		alone(0, "wake one of 64 waiting goroutines and hear from it", nanoseconds, found[2].perOp),
		alone(0, "write 4 KiB + fsync + rename + directory fsync", nanoseconds, disk[0].perOp),
	}, nil
}

// wakeAll is a side that wakes many goroutines at once and waits until each has answered; an operation is one of them.
func wakeAll(many int) side {
	return side{name: "wake", run: func(budget time.Duration) (done effort, err error) {
		for done.ops == 0 || done.elapsed < budget {
			var ready, answered sync.WaitGroup
			gate := make(chan struct{})
			ready.Add(many)
			for range many {
				answered.Go(func() {
					ready.Done()
					<-gate
				})
			}
			ready.Wait()
			start := time.Now()
			close(gate)
			answered.Wait()
			done.elapsed += time.Since(start)
			done.ops += many
		}
		return done, nil
	}}
}

// A diskCycle replaces a file durably, with nothing around it: what a save cannot do without.
type diskCycle struct {
	path string
	data []byte
	dir  *os.File
}

func newDiskCycle(dir string, data []byte) (*diskCycle, error) {
	open, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	return &diskCycle{path: filepath.Join(dir, "bare.json"), data: data, dir: open}, nil
}

func (c *diskCycle) close() { c.dir.Close() }

func (c *diskCycle) times(n int) error {
	for range n {
		if err := c.once(); err != nil {
			return err
		}
	}
	return nil
}

func (c *diskCycle) once() error {
	temp, err := os.OpenFile(c.path+".tmp", os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, wrote := temp.Write(c.data)
	if err := errors.Join(wrote, temp.Sync(), temp.Close()); err != nil {
		return fmt.Errorf("the bare cycle: %w", err)
	}
	if err := os.Rename(temp.Name(), c.path); err != nil {
		return err
	}
	return syncDirectory(c.dir)
}
