//go:build amd64 || arm64

package victim

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"example.com/quota"
	"example.com/quota/quotatest"
	"golang.org/x/sys/unix"
)

// socket is the descriptor over which a victim hands out the one on which it asks.
const socket = 3

// worker is a victim from the inside.
type worker struct {
	path    string
	clock   *quotatest.Clock
	file    *quota.JSONFile
	tracker *quota.QuotaTracker
	handles map[string]*quota.Reservation
}

// Worker does the steps that stand on standard input, one in a line, and writes for each a line with its result, at one
// stroke. Its argument is the directory whose open files it counts.
func Worker(args []string) error {
	if len(args) != 1 {
		return errors.New("a victim is told its directory")
	}
	w := &worker{handles: map[string]*quota.Reservation{}}
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		var step Step
		if err := json.Unmarshal(in.Bytes(), &step); err != nil {
			return err
		}
		result := w.do(step)
		if step.Do == Look {
			result.Files = openFiles(args[0])
		}
		if err := say(result); err != nil {
			return err
		}
	}
	return in.Err()
}

func say(result Result) error {
	line, err := json.Marshal(result)
	if err != nil {
		return err
	}
	_, err = os.Stdout.Write(append(line, '\n'))
	return err
}

func (w *worker) do(step Step) Result {
	ctx := context.Background()
	if step.Do == Look {
		if w.tracker == nil {
			return Result{}
		}
		view, err := viewOf(ctx, w.tracker, step.IDs)
		result := resultOf(err)
		result.View = &view
		return result
	}
	return resultOf(w.act(ctx, step))
}

func (w *worker) act(ctx context.Context, step Step) error {
	amounts := []quota.Amount{quota.Requests(step.Requests), quota.Tokens(step.Tokens)}
	switch step.Do {
	case Open:
		return w.open(ctx, step)
	case Trapped:
		fd, err := install()
		if err != nil {
			return err
		}
		return unix.Sendmsg(socket, []byte{0}, unix.UnixRights(fd), nil, 0)
	case Record:
		return w.tracker.RecordUsage(ctx, step.Quotas[0], amounts...)
	case Reserve, Anonymous, Refused:
		handle, err := w.tracker.Acquire(ctx, quota.Request{All: step.Quotas, ID: step.ID, Amounts: amounts, TTL: holdsFor})
		if err == nil {
			w.handles[step.ID] = handle
		}
		if step.Do == Refused && errors.Is(err, quota.ErrExceeded) {
			return nil
		}
		return err
	case Commit, Release, Extend:
		return w.settle(ctx, step, amounts)
	case GiveBack:
		return w.tracker.Release(ctx, step.Quotas[0], amounts...)
	case Observe:
		return w.tracker.Observe(ctx, step.Quotas[0],
			quota.Observation{Unit: quota.UnitTokens, Remaining: &step.Tokens, RetryAfter: step.For})
	case Configure:
		return w.tracker.SetQuotas(ctx, Quotas(true))
	case Reset:
		return w.tracker.Reset(ctx, step.Quotas[0])
	case Advance:
		w.clock.Advance(step.For)
		return nil
	case Flush:
		return w.tracker.Flush(ctx)
	case Burst:
		for _, one := range step.Steps {
			if err := w.act(ctx, one); err != nil {
				return err
			}
		}
		return nil
	case Close:
		err := w.tracker.Close()
		w.tracker = nil
		return err
	case Clear:
		return w.file.Clear(ctx)
	case Store:
		return w.store(ctx)
	default:
		return fmt.Errorf("nobody knows how to %s", step.Do)
	}
}

func (w *worker) open(ctx context.Context, step Step) error {
	if w.clock == nil {
		w.clock = quotatest.NewClock(step.At)
	}
	if w.file == nil || w.path != step.Path {
		w.path, w.file = step.Path, quota.NewJSONFile(step.Path)
	}
	persistence := quota.Persistence(w.file)
	if step.Plain {
		persistence = struct{ quota.Persistence }{w.file}
	}
	tracker, err := quota.New(ctx, quota.Config{
		Persistence: persistence, Quotas: Quotas(step.Lowered), Clock: w.clock, FlushInterval: step.Lazy,
		Logger:  slog.New(slog.DiscardHandler),
		OnAlert: func(a quota.Alert) { _ = say(Result{Alert: AlertText(a)}) },
	})
	if err == nil {
		w.tracker = tracker
	}
	return err
}

// settle ends or prolongs a reservation by its handle; one that another process has made is looked for first.
func (w *worker) settle(ctx context.Context, step Step, amounts []quota.Amount) error {
	handle := w.handles[step.ID]
	if handle == nil {
		found, err := w.tracker.Reservation(ctx, step.ID)
		if err != nil {
			return err
		}
		handle = found
		w.handles[step.ID] = handle
	}
	switch step.Do {
	case Commit:
		return handle.Commit(ctx, amounts...)
	case Release:
		return handle.Release(ctx)
	default:
		return handle.Extend(ctx, step.For)
	}
}

// store saves the state as it was loaded, the way a Persistence is used without a tracker.
func (w *worker) store(ctx context.Context) error {
	if w.file == nil {
		w.file = quota.NewJSONFile(w.path)
	}
	state, err := w.file.Load(ctx)
	if err != nil || state == nil {
		return err
	}
	state.UpdatedAt = state.UpdatedAt.Add(time.Second)
	return w.file.Save(ctx, state)
}

// openFiles lists what this process has open below a directory.
func openFiles(dir string) []string {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return []string{err.Error()}
	}
	var found []string
	for _, entry := range entries {
		path, err := os.Readlink(filepath.Join("/proc/self/fd", entry.Name()))
		if err == nil && (path == dir || strings.HasPrefix(path, dir+"/")) {
			found = append(found, strings.TrimPrefix(path, dir))
		}
	}
	slices.Sort(found)
	return found
}
