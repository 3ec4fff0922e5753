package gate

import (
	"cmp"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
)

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
