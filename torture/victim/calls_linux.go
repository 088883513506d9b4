//go:build amd64 || arm64

package victim

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// A Call is a system call that the victim is about to make.
type Call struct {
	Name    string
	Path    string // of the file; the victim's standard output is "ack"
	To      string // where a rename or a link leads
	Changes bool   // it is not one that only reads
	Said    string // what is written, of a write to standard output
}

func (c Call) String() string {
	text := c.Name + " " + c.Path
	if c.To != "" {
		text += " to " + c.To
	}
	return text
}

// Ack is the path of the pipe on which the victim says what it has done.
const Ack = "ack"

// Unlock is the name of an flock that gives up a lock.
const Unlock = "flock (unlock)"

// How a call names its file: the numbers of its arguments, from 1; 0: it has none.
type trapped struct {
	nr        uint32
	name      string
	fd        int
	dir, path int
	dir2, to  int
	onlyReads bool
}

// trappedCalls are the calls that the victim asks about.
func trappedCalls() []trapped {
	return []trapped{
		{nr: unix.SYS_OPENAT, name: "openat", dir: 1, path: 2},
		{nr: unix.SYS_MKDIRAT, name: "mkdirat", dir: 1, path: 2},
		{nr: unix.SYS_UNLINKAT, name: "unlinkat", dir: 1, path: 2},
		{nr: unix.SYS_SYMLINKAT, name: "symlinkat", dir: 2, path: 3},
		{nr: unix.SYS_RENAMEAT, name: "renameat", dir: 1, path: 2, dir2: 3, to: 4},
		{nr: unix.SYS_RENAMEAT2, name: "renameat2", dir: 1, path: 2, dir2: 3, to: 4},
		{nr: unix.SYS_LINKAT, name: "linkat", dir: 1, path: 2, dir2: 3, to: 4},
		{nr: unix.SYS_FCHMODAT, name: "fchmodat", dir: 1, path: 2},
		{nr: unix.SYS_WRITE, name: "write", fd: 1},
		{nr: unix.SYS_PWRITE64, name: "pwrite64", fd: 1},
		{nr: unix.SYS_WRITEV, name: "writev", fd: 1},
		{nr: unix.SYS_FSYNC, name: "fsync", fd: 1},
		{nr: unix.SYS_FDATASYNC, name: "fdatasync", fd: 1},
		{nr: unix.SYS_CLOSE, name: "close", fd: 1},
		{nr: unix.SYS_FLOCK, name: "flock", fd: 1},
		{nr: unix.SYS_FTRUNCATE, name: "ftruncate", fd: 1},
		{nr: unix.SYS_FALLOCATE, name: "fallocate", fd: 1},
		{nr: unix.SYS_FCHMOD, name: "fchmod", fd: 1},
		{nr: unix.SYS_READ, name: "read", fd: 1, onlyReads: true},
		{nr: unix.SYS_PREAD64, name: "pread64", fd: 1, onlyReads: true},
		{nr: unix.SYS_FSTAT, name: "fstat", fd: 1, onlyReads: true},
		{nr: unix.SYS_NEWFSTATAT, name: "newfstatat", dir: 1, path: 2, onlyReads: true},
		{nr: unix.SYS_READLINKAT, name: "readlinkat", dir: 1, path: 2, onlyReads: true},
		{nr: unix.SYS_GETDENTS64, name: "getdents64", fd: 1, onlyReads: true},
	}
}

// caller knows how to name the calls of one process.
type caller struct {
	pid   int
	root  string // calls on files elsewhere are not looked at
	calls map[uint32]trapped
}

func newCaller(pid int, root string) *caller {
	c := &caller{pid: pid, root: root, calls: map[uint32]trapped{}}
	for _, one := range trappedCalls() {
		c.calls[one.nr] = one
	}
	return c
}

// describe names a call; false: it is about a file that is not below the root.
func (c *caller) describe(nr uint32, args [6]uint64) (Call, bool) {
	how, ok := c.calls[nr]
	if !ok {
		return Call{}, false
	}
	call := Call{Name: how.name, Changes: !how.onlyReads}
	if how.fd > 0 {
		if int(args[how.fd-1]) == 1 && how.name == "write" {
			call.Path = Ack
			call.Said = c.bytes(args[1], args[2])
			return call, true
		}
		if how.nr == unix.SYS_FLOCK && args[1]&unix.LOCK_UN != 0 {
			call.Name = Unlock
		}
		path, ok := c.below(c.descriptor(int32(args[how.fd-1])))
		call.Path = path
		return call, ok
	}
	path, ok := c.below(c.at(int32(args[how.dir-1]), args[how.path-1]))
	call.Path = path
	if how.to > 0 {
		call.To, _ = c.below(c.at(int32(args[how.dir2-1]), args[how.to-1]))
	}
	return call, ok
}

// below returns a path as it reads from the root.
func (c *caller) below(path string) (string, bool) {
	path, _ = strings.CutSuffix(path, " (deleted)")
	if path == c.root {
		return ".", true
	}
	return strings.CutPrefix(path, c.root+"/")
}

func (c *caller) descriptor(fd int32) string {
	path, _ := os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", c.pid, fd))
	return path
}

// at is the path that a call names beside a directory's descriptor.
func (c *caller) at(dir int32, address uint64) string {
	path := c.text(address)
	switch {
	case filepath.IsAbs(path):
		return filepath.Clean(path)
	case dir == unix.AT_FDCWD:
		cwd, _ := os.Readlink("/proc/" + strconv.Itoa(c.pid) + "/cwd")
		return filepath.Join(cwd, path)
	default:
		return filepath.Join(c.descriptor(dir), path)
	}
}

// bytes reads so many bytes from the victim's memory; "": they cannot be read.
func (c *caller) bytes(address, size uint64) string {
	if size == 0 {
		return ""
	}
	found := make([]byte, size)
	n, err := unix.ProcessVMReadv(c.pid,
		[]unix.Iovec{{Base: &found[0], Len: size}}, []unix.RemoteIovec{{Base: uintptr(address), Len: int(size)}}, 0)
	if err != nil {
		return ""
	}
	return string(found[:n])
}

// text reads a text that ends with a zero from the victim's memory.
func (c *caller) text(address uint64) string {
	const page = 4096
	var found []byte
	for len(found) < unix.PathMax {
		part := make([]byte, page-address%page) // what is read at once must be mapped
		n, err := unix.ProcessVMReadv(c.pid,
			[]unix.Iovec{{Base: &part[0], Len: uint64(len(part))}},
			[]unix.RemoteIovec{{Base: uintptr(address), Len: len(part)}}, 0)
		if err != nil || n == 0 {
			return ""
		}
		if end := bytes.IndexByte(part[:n], 0); end >= 0 {
			return string(append(found, part[:end]...))
		}
		found = append(found, part[:n]...)
		address += uint64(n)
	}
	return ""
}
