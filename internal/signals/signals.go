// Package signals takes the process's signals before anything else does.
//
// It imports nothing that os/signal does not, so that Go initializes it right after that, and
// before the packages that take milliseconds. A signal that comes meanwhile waits
// in a channel. Only the time that the kernel and the Go runtime take to start the
// program, about a millisecond, is out of reach.
package signals

import (
	"os"
	"os/signal"
	"slices"
	"syscall"
)

var (
	// Stop carries SIGTERM and SIGINT: the first asks, the second insists.
	Stop = make(chan os.Signal, 2)
	// Reload carries SIGHUP.
	Reload = make(chan os.Signal, 1)
	// Upgrade carries SIGUSR2.
	Upgrade = make(chan os.Signal, 1)
)

func init() {
	signal.Notify(Reload, syscall.SIGHUP)
	signal.Notify(Upgrade, syscall.SIGUSR2)
	signal.Notify(Stop, syscall.SIGTERM, syscall.SIGINT)
	// Otherwise the first write to a closed stderr would end the proxy.
	signal.Ignore(syscall.SIGPIPE)
}

// Default gives signals back to the system, also one that has come already. It is
// for commands that end with their terminal, as anybody would expect.
func Default(sigs ...os.Signal) {
	signal.Reset(sigs...)
	select {
	case sig := <-Stop:
		if slices.Contains(sigs, sig) {
			syscall.Kill(os.Getpid(), sig.(syscall.Signal))
		} else {
			Stop <- sig
		}
	default:
	}
}
