package gate

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"runtime/debug"
	"strings"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"

	"postern/internal/handover"
	"postern/internal/ledger"
)

const (
	// readyTime is how long a new process may take to be ready.
	readyTime = 30 * time.Second
	// readyEvery is how often it looks whether it is.
	readyEvery = 20 * time.Millisecond
	// lateTime is when the new one says what it waits for.
	lateTime = readyTime - 5*time.Second
)

// takeOver begins to serve once this process is ready and the one before lets it.
func (g *Runtime) takeOver() {
	g.log.Info("waiting to take over")
	late := time.AfterFunc(lateTime, func() { g.log.Warn("not ready to take over yet", "lacks", g.readiness.Lacks()) })
	for ready := false; !ready; time.Sleep(readyEvery) {
		ready, _ = g.readiness.Conditions()
	}
	late.Stop()
	ok, failed := g.given.Before.Ready()
	g.metrics.Handovers(ok+1, failed)
	g.accept()
}

// startNext starts the program on disk once this process serves, and sends it to next when
// it is ready and there are no sessions of a process before this one any more; nil if it
// does not become ready, or if ctx ends.
func (g *Runtime) startNext(ctx context.Context, next chan<- *handover.Link) {
	defer close(next)
	select {
	case <-g.accepts:
	case <-ctx.Done():
		return
	}
	g.log.Info("handing over", "program", g.given.Program)
	link, err := g.given.Start()
	if err == nil {
		kept := context.AfterFunc(ctx, func() { link.Kill() })
		if err = link.Await(readyTime); err == nil {
			within(ctx, g.cfg.TimeoutDrain+flushAtLeast, g.given.Before.End)
		}
		if err == nil && kept() {
			next <- link
			return
		}
		link.Kill()
	}
	if ctx.Err() == nil {
		g.handoverFailed(err)
	}
}

func (g *Runtime) handoverFailed(err error) {
	g.metrics.Handovers(0, 1)
	g.log.Error("handing over failed, nothing has changed", "error", err.Error())
}

// handOver lets the next process take over, and waits until it is time to drain. It
// returns how many signals end that at once: two where the next process has asked, since
// systemd sends both the signal of one stop. 0 stands for no next process.
func (g *Runtime) handOver(ctx context.Context, next *handover.Link, stop, reload <-chan os.Signal) (insist int) {
	if next == nil {
		return 0
	}
	notify(fmt.Sprint("MAINPID=", next.Pid))
	if err := next.Go(g.metrics.Handovers(0, 0)); err != nil {
		notify(fmt.Sprint("MAINPID=", os.Getpid()))
		g.handoverFailed(err)
		return 0
	}
	go func() {
		for sig := range reload {
			next.Signal(sig) // systemd waits for the answer
		}
	}()
	ended := g.server.HandOver()
	g.stopServing()
	go within(ctx, readyTime, g.admin.Close)
	g.log.Info("handed over", "pid", next.Pid, "sessions", g.metrics.Open(), "timeout", time.Duration(g.cfg.TimeoutHandover).String())
	if g.cfg.LedgerURL == ledger.Memory {
		g.log.Warn("the ledger in memory is not handed over: the new process knows no client", "variable", "POSTERN_LEDGER_URL")
	}
	debug.FreeOSMemory()
	insist = 2
	select {
	case <-ended:
	case <-next.Ended():
	case <-stop:
		insist = 1
	case <-ctx.Done():
	case <-time.After(time.Duration(g.cfg.TimeoutHandover) - g.cfg.TimeoutDrain):
	}
	g.log.Info("stopping after the handover", "sessions", g.metrics.Open(), "timeout", g.cfg.TimeoutDrain.String())
	return insist
}

// notify tells systemd something, if it wants to know. See sd_notify(3).
func notify(lines ...string) {
	daemon.SdNotify(false, strings.Join(lines, "\n")) // what systemd does not hear, it finds out by itself
}

// statusEvery is how often systemd hears how things stand.
const statusEvery = 10 * time.Second

// watchdog tells systemd until a handover, or until the process ends, how things stand, and that it is alive as
// long as every listener takes connections.
func (g *Runtime) watchdog() {
	if os.Getenv("NOTIFY_SOCKET") == "" {
		return
	}
	limit, _ := daemon.SdWatchdogEnabled(false) // a bad value is not systemd's
	every := min(cmp.Or(limit/3, statusEvery), statusEvery)
	for on := g.serving.Err() == nil; on; on = pause(g.serving, every) {
		if g.server.Accepts() {
			notify(daemon.SdNotifyWatchdog)
		}
		open := fmt.Sprintf("STATUS=open connections: %d", g.metrics.Open())
		notify(strings.Join(append([]string{open}, g.readiness.Lacks()...), "; "))
	}
}
