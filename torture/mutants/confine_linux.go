package mutants

import (
	"os/exec"
	"syscall"

	"golang.org/x/sys/unix"
)

// mostMemory is the address space a test process may have: some mutants ask for memory for ever.
const mostMemory = 8 << 30

// startConfined starts a process with what it starts itself in a group of its own, which ends with this thread at the
// latest.
func startConfined(cmd *exec.Cmd) error {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	if err := cmd.Start(); err != nil {
		return err
	}
	return unix.Prlimit(cmd.Process.Pid, unix.RLIMIT_AS, &unix.Rlimit{Cur: mostMemory, Max: mostMemory}, nil)
}

// killGroup ends what a process that has ended has left behind.
func killGroup(cmd *exec.Cmd) { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
