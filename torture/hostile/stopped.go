//go:build unix

package hostile

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"sync"
	"syscall"
	"time"

	"example.com/quota"
	"example.com/quota/torture/harness"
)

// hold takes the lock of the file, says so, and keeps it until it reads a line. Argument: the file.
func hold(args []string) error {
	return quota.NewJSONFile(args[0]).Update(context.Background(), []string{held}, func(*quota.Tx) error {
		fmt.Println("held")
		_, err := bufio.NewReader(os.Stdin).ReadString('\n')
		return err
	})
}

// stopped has another process stop while it holds the lock. Calls come back when their context ends, what they have
// recorded counts, and everything goes on when the process goes on, or dies. long: so long that bounds are reached.
func stopped(ctx context.Context, path string, random *rand.Rand, long bool) error {
	tracker, err := quota.New(ctx, quota.Config{
		Persistence: quota.NewJSONFile(path), Quotas: quotas(), Logger: slog.New(slog.NewTextHandler(io.Discard, nil)),
		OnAlert: func(quota.Alert) {},
	})
	if err != nil {
		return harness.Violated("New: %v", err)
	}
	holder, err := harness.Worker(ctx, holderName, path)
	if err != nil {
		return err
	}
	in, err := holder.StdinPipe()
	if err != nil {
		return err
	}
	out, err := holder.StdoutPipe()
	if err != nil {
		return err
	}
	if err := holder.Start(); err != nil {
		return err
	}
	defer func() {
		_ = holder.Process.Kill()
		_ = holder.Wait()
	}()
	if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		return fmt.Errorf("the holder does not hold: %w", err)
	}
	if err := holder.Process.Signal(syscall.SIGSTOP); err != nil {
		return err
	}
	dies := random.IntN(2) == 0
	return guard(func() error {
		recorded, err := meanwhile(tracker, random)
		if err != nil {
			return err
		}
		if long {
			if err := forLong(tracker); err != nil {
				return err
			}
		}
		if dies {
			err = holder.Process.Kill()
		} else if err = holder.Process.Signal(syscall.SIGCONT); err == nil {
			_, err = io.WriteString(in, "\n")
		}
		if err != nil {
			return err
		}
		return goesOn(ctx, path, tracker, recorded)
	})
}

// meanwhile makes calls while the lock is not to be had.
func meanwhile(tracker *quota.QuotaTracker, random *rand.Rand) (recorded int64, err error) {
	var group sync.WaitGroup
	var mu sync.Mutex
	var wrong error
	fail := func(format string, args ...any) {
		mu.Lock()
		defer mu.Unlock()
		wrong = errors.Join(wrong, harness.Violated(format, args...))
	}
	for range 3 + random.IntN(6) {
		n, most := 1+random.Int64N(5), time.Duration(1+random.IntN(80))*time.Millisecond
		recorded += n
		group.Go(func() {
			ctx, cancel := context.WithTimeout(context.Background(), most)
			defer cancel()
			if err := tracker.RecordUsage(ctx, usage, quota.Requests(n)); !errors.Is(err, quota.ErrPending) ||
				!errors.Is(err, context.DeadlineExceeded) {
				fail("RecordUsage with a lock that is not to be had: %v", err)
			}
		})
		group.Go(func() {
			ctx, cancel := context.WithTimeout(context.Background(), most)
			defer cancel()
			if _, err := tracker.Reserve(ctx, held, quota.Requests(n)); !errors.Is(err, context.DeadlineExceeded) {
				fail("Reserve with a lock that is not to be had: %v", err)
			}
		})
		group.Go(func() {
			ctx, cancel := context.WithTimeout(context.Background(), most)
			defer cancel()
			if _, err := tracker.Wait(ctx, tight); !errors.Is(err, context.DeadlineExceeded) {
				fail("Wait with a lock that is not to be had: %v", err)
			}
		})
		group.Go(func() {
			began := time.Now()
			tracker.CanUse(held)
			tracker.Status(usage)
			_ = tracker.Summary()
			if took := time.Since(began); took > bound/4 {
				fail("looking took %v with a lock that is not to be had", took)
			}
		})
	}
	began := time.Now()
	group.Wait()
	if took := time.Since(began); took > bound/4 {
		fail("calls with a context of at most 80 ms took %v", took)
	}
	return recorded, wrong
}

// forLong makes a call without a deadline, which must come to an end all the same.
func forLong(tracker *quota.QuotaTracker) error {
	if _, err := tracker.Reserve(context.Background(), held); !errors.Is(err, quota.ErrNotSaved) {
		return harness.Violated("Reserve without a deadline, with a lock that is not to be had: %v", err)
	}
	return nil
}

// goesOn looks whether everything works again, and nothing is lost or held.
func goesOn(ctx context.Context, path string, tracker *quota.QuotaTracker, recorded int64) error {
	if err := tracker.Flush(ctx); err != nil {
		return harness.Violated("Flush when the lock is to be had again: %v", err)
	}
	r, err := tracker.Reserve(ctx, held, quota.Requests(7))
	if err != nil {
		return harness.Violated("Reserve when the lock is to be had again: %v", err)
	}
	if err := r.Commit(ctx); err != nil {
		return harness.Violated("Commit: %v", err)
	}
	if err := errors.Join(tracker.Verify(), tracker.Close()); err != nil {
		return harness.Violated("closing: %v", err)
	}
	var known ledger
	known.used(usage, recorded, true)
	known.used(held, 7, true)
	known.held(held, 0)
	again, err := quota.New(ctx, quota.Config{
		Persistence: quota.NewJSONFile(path), Quotas: quotas(), Logger: slog.New(slog.NewTextHandler(io.Discard, nil)),
		OnAlert: func(quota.Alert) {},
	})
	if err != nil {
		return harness.Violated("New after Close: %v", err)
	}
	if err := errors.Join(known.compare(again), again.Verify(), again.Close()); err != nil {
		return harness.Violated("on disk, after the lock was not to be had: %v", err)
	}
	return nil
}
