package quota

import "syscall"

// nap lets other threads have the processor for as short a time as the system knows.
func nap() { _ = syscall.Nanosleep(&syscall.Timespec{Nsec: 1}, nil) }
