//go:build amd64 || arm64

package victim

import (
	"errors"
	"fmt"
	"runtime"
	"sync"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A Verdict is what becomes of a call. The zero value lets the victim make it.
type Verdict struct {
	Errno syscall.Errno // it fails with this and is not made
	Kill  bool          // the victim dies and does not make it
}

// The kernel's structures, see seccomp_unotify(2).
type notification struct {
	id    uint64
	pid   uint32
	flags uint32
	nr    int32
	arch  uint32
	ip    uint64
	args  [6]uint64
}

type answer struct {
	id    uint64
	val   int64
	errno int32
	flags uint32
}

// install makes every thread of this process ask before it makes one of the trapped calls, and returns the descriptor
// on which it asks.
func install() (int, error) {
	calls := trappedCalls()
	filter := []unix.SockFilter{{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS}} // the call's number
	for i, call := range calls {
		filter = append(filter, unix.SockFilter{
			Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: call.nr, Jt: uint8(len(calls) - i),
		})
	}
	filter = append(filter,
		unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
		unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_USER_NOTIF})
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}

	runtime.LockOSThread() // what is set first counts for the thread alone
	defer runtime.UnlockOSThread()
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return 0, fmt.Errorf("giving up privileges: %w", err)
	}
	const flags = unix.SECCOMP_FILTER_FLAG_TSYNC | unix.SECCOMP_FILTER_FLAG_TSYNC_ESRCH |
		unix.SECCOMP_FILTER_FLAG_NEW_LISTENER | unix.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV
	fd, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, flags, uintptr(unsafe.Pointer(&program)))
	if errno != 0 {
		return 0, fmt.Errorf("asking to be trapped (it takes Linux 5.19): %w", errno)
	}
	return int(fd), nil
}

// A Trap decides about a victim's calls.
type Trap struct {
	fd     int
	caller *caller
	done   chan struct{} // closed when nobody is left to ask

	mu    sync.Mutex // held while judge runs
	judge func(Call) Verdict
	err   error
}

// newTrap takes over the descriptor on which a process asks.
func newTrap(fd, pid int, root string) *Trap {
	t := &Trap{fd: fd, caller: newCaller(pid, root), done: make(chan struct{})}
	go t.run()
	return t
}

// Judge puts another judge in place: it is asked about each call, one at a time, on files below the victim's root. Nil
// lets all pass.
func (t *Trap) Judge(judge func(Call) Verdict) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.judge = judge
}

// run answers until the victim is gone.
func (t *Trap) run() {
	defer close(t.done)
	defer func() { _ = unix.Close(t.fd) }()
	for {
		ready := []unix.PollFd{{Fd: int32(t.fd), Events: unix.POLLIN}}
		if _, err := unix.Poll(ready, -1); err != nil && !errors.Is(err, unix.EINTR) {
			t.fail(err)
			return
		}
		if ready[0].Revents&unix.POLLIN == 0 {
			if ready[0].Revents != 0 {
				return // the last one who could ask has gone
			}
			continue
		}
		var asked notification
		if errno := ioctl(t.fd, unix.SECCOMP_IOCTL_NOTIF_RECV, unsafe.Pointer(&asked)); errno != 0 {
			if errno == unix.ENOENT || errno == unix.EINTR {
				continue // it died meanwhile
			}
			t.fail(errno)
			return
		}
		verdict := t.decide(asked)
		reply := answer{id: asked.id, flags: unix.SECCOMP_USER_NOTIF_FLAG_CONTINUE}
		switch {
		case verdict.Kill:
			_ = unix.Kill(t.caller.pid, unix.SIGKILL)
			continue
		case verdict.Errno != 0:
			reply = answer{id: asked.id, errno: -int32(verdict.Errno)}
		}
		if errno := ioctl(t.fd, unix.SECCOMP_IOCTL_NOTIF_SEND, unsafe.Pointer(&reply)); errno != 0 && errno != unix.ENOENT {
			t.fail(errno)
			return
		}
	}
}

func (t *Trap) decide(asked notification) Verdict {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.judge == nil {
		return Verdict{}
	}
	call, ours := t.caller.describe(uint32(asked.nr), asked.args)
	if !ours {
		return Verdict{}
	}
	return t.judge(call)
}

func (t *Trap) fail(err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.err = fmt.Errorf("watching the victim's calls: %w", err)
}

func ioctl(fd int, request uintptr, arg unsafe.Pointer) syscall.Errno {
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), request, uintptr(arg))
	return errno
}
