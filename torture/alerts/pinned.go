package alerts

import (
	"context"
	"os"
	"runtime"

	"example.com/quota"
)

// A thread does one thing after the other on one thread of the system, so that strace, which counts calls by thread,
// counts all of them.
type thread struct {
	id   int
	jobs chan func()
}

func startThread() *thread {
	t := &thread{jobs: make(chan func())}
	ready := make(chan struct{})
	go func() {
		runtime.LockOSThread()
		t.id = threadID()
		close(ready)
		for job := range t.jobs {
			job()
		}
	}()
	<-ready
	return t
}

// do runs f on the thread and returns when it is over. f may call do itself.
func (t *thread) do(f func()) {
	if threadID() == t.id {
		f()
		return
	}
	done := make(chan struct{})
	t.jobs <- func() {
		defer close(done)
		f()
	}
	<-done
}

// mark leaves a line in the trace.
func (t *thread) mark(path string, times int) {
	t.do(func() {
		for range times {
			file, err := os.Open(path) // it is not there: its name in the trace is all it is for
			if err == nil {
				_ = file.Close()
			}
		}
	})
}

// pad makes more calls than any other thread of the worker does.
func (t *thread) pad(times int) error {
	t.mark(padding, times)
	var err error
	t.do(func() {
		var null *os.File
		if null, err = os.OpenFile(os.DevNull, os.O_WRONLY, 0); err != nil {
			return
		}
		defer func() { _ = null.Close() }()
		for range times {
			if _, err = null.WriteString("."); err != nil {
				return
			}
		}
	})
	return err
}

// alone is a JSON file, on a thread, as a Persistence of one tracker.
type alone struct {
	file   *quota.JSONFile
	thread *thread
}

func (p *alone) Load(ctx context.Context) (state *quota.State, err error) {
	p.thread.do(func() { state, err = p.file.Load(ctx) })
	return state, err
}

func (p *alone) Save(ctx context.Context, s *quota.State) (err error) {
	p.thread.do(func() { err = p.file.Save(ctx, s) })
	return err
}

// shared is the same as a SharedPersistence.
type shared struct{ alone }

func (p *shared) Update(ctx context.Context, names []string, fn func(*quota.Tx) error) (err error) {
	p.thread.do(func() { err = p.file.Update(ctx, names, fn) })
	return err
}
