package alerts

import "golang.org/x/sys/unix"

// threadID names the thread that runs the caller.
func threadID() int { return unix.Gettid() }
