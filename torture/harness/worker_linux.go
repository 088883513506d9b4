package harness

import (
	"os/exec"
	"syscall"
)

// endWithParent has the kernel kill the worker when the thread that starts it ends. Whoever starts one keeps that
// thread (runtime.LockOSThread) or lives as long as the worker.
func endWithParent(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}
