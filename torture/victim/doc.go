// Package victim is a process that uses a tracker on a JSON file, does one step after the other as it is told, and says
// what came of each; and the means to hurt it at any file system call that it makes: the kernel (seccomp user
// notification) asks this process before it lets the victim make the call, and the answer is to go on, to fail, or the
// victim's death. The order of the calls is one order, whichever thread makes them, and a fault that has been lifted is
// lifted in the same process.
//
// What must then stand in the file is worked out by a Ledger, which knows nothing of the library's own arithmetic.
//
// It works on Linux (5.19 or later) on amd64 and arm64 only.
package victim
