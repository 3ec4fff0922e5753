package posterntest

import (
	"os/exec"
	"syscall"
)

// EndWithTest has the kernel send a signal to a program, yet to be started, when the
// test binary ends: one that panics runs no cleanup.
func EndWithTest(cmd *exec.Cmd, signal syscall.Signal) {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = new(syscall.SysProcAttr)
	}
	cmd.SysProcAttr.Pdeathsig = signal
}
