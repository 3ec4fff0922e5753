// Package gate is the runtime of `postern serve`: it puts proxy, policy,
// ledger, log, metrics and admin port together, and reads their files again
// when they change.
package gate

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/prometheus/client_golang/prometheus"

	"postern/internal/admin"
	"postern/internal/check"
	"postern/internal/config"
	"postern/internal/handover"
	"postern/internal/logging"
	"postern/internal/memory"
	"postern/internal/policyfile"
	"postern/internal/watch"
	"postern/metrics"
	"postern/proxy"
)

// Runtime is Postern as it serves: the proxy, its observers and the admin port.
type Runtime struct {
	// Reporter is the program that makes reports by [ReporterCommand]; empty: they are
	// made in this process.
	Reporter string

	cfg    *config.Config
	build  Build
	server *proxy.Server
	ledger *ledgerRunner

	material        check.Files
	sets            []check.Set
	files           *watch.Watcher  // of the material
	newCertificates []string        // since the last time, with their ends
	failing         map[string]bool // by Set.What: it could not be read again
	signals         atomic.Int64    // that have asked for it

	policy       atomic.Pointer[running]
	policyLock   sync.Mutex // held while it is replaced
	guardLock    sync.Mutex // held while its guards are read
	policyFiles  *watch.Watcher
	policyErrors atomic.Pointer[[]string] // of a changed file that is not in force
	now          func() time.Time         // the policy's clock

	log          *slog.Logger
	logWriter    *logging.Writer
	suppression  *logging.Suppression
	failedLogins *logging.Suppression
	suppressing  sync.WaitGroup
	// given has all sockets. serving ends when they are handed over, the background when
	// the process does.
	given                       handover.Given
	serving                     context.Context
	stopServing, stopBackground context.CancelFunc

	metrics   *metrics.Metrics
	readiness *admin.Readiness
	admin     *admin.Server
	adminDone chan error
	accepts   chan struct{} // closed once it serves clients
}

// logQueue is how many lines may wait for a slow stderr.
const logQueue = 4096

// Build identifies the program's source.
type Build struct{ Version, Revision string }

// New binds the listeners that it was not given, and reads the files. Its error may have
// several lines. The log goes to stderr; now is the policy's clock.
func New(cfg *config.Config, build Build, given handover.Given, stderr io.Writer, now func() time.Time) (g *Runtime, err error) {
	g = &Runtime{
		cfg: cfg, build: build, adminDone: make(chan error, 1), accepts: make(chan struct{}),
		failing: make(map[string]bool),
		files:   watch.New(watch.Every), policyFiles: watch.New(policyEvery), now: now, given: given,
	}
	// A file is watched before it is first read, so that no change is missed.
	ferr := g.readFiles()
	if cfg.PolicyFile != "" {
		g.policyFiles.Add(g.reloadPolicy, cfg.PolicyFile)
	}
	p, perr := policyfile.Of(cfg)
	if err := errors.Join(ferr, perr); err != nil {
		return nil, err
	}
	sockets, err := listen(cfg, given.Sockets)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			sockets.Close()
		}
	}()
	g.given.Sockets = sockets
	g.logWriter = logging.NewWriter(stderr, logQueue)
	g.log = logging.New(g.logWriter, cfg.LogLevel, cfg.LogFormat)
	if err := g.openLedger(context.Background()); err != nil {
		return nil, fmt.Errorf("%sLEDGER_URL: %w", config.Prefix, err)
	}
	g.ledger.recorder.Remember(p)
	g.policy.Store(g.guarded(p, now(), nil))
	g.makeObservers(g.policy.Load().Policy)
	pc := g.proxyConfig()
	pc.Listeners, pc.Policy, pc.Now = mailSockets(g.given.Sockets), g.policy.Load().Policy, now
	if g.server, err = proxy.New(pc); err != nil {
		return nil, err
	}
	atStart, cancel := context.WithTimeout(context.Background(), guardsAtStart)
	defer cancel()
	g.checkGuards(atStart)
	g.ledger.recorder.Graces(atStart, p)
	return g, nil
}

// Start logs the configuration's warnings and begins to serve, after a handover once the
// process before lets it.
func (g *Runtime) Start() {
	for _, w := range g.cfg.Warnings() {
		g.log.Warn("configuration warning", "warning", w)
	}
	for _, set := range g.sets {
		g.warnOfFiles(set)
	}
	g.warnOfPolicy()
	ctx, cancel := context.WithCancel(context.Background())
	g.stopBackground = cancel
	g.serving, g.stopServing = context.WithCancel(ctx)
	g.suppressing.Go(func() { g.suppression.Run(ctx) })
	g.suppressing.Go(func() { g.failedLogins.Run(ctx) })
	go g.files.Run(g.serving)
	go g.policyFiles.Run(g.serving)
	go g.followClock(g.serving)
	go g.ledger.run(ctx, g)
	go memory.Run(ctx, g.metrics.Open)
	g.server.Start()
	if g.given.Before != nil {
		go g.takeOver()
	} else {
		g.accept()
	}
}

// accept begins to serve clients.
func (g *Runtime) accept() {
	go func() { g.adminDone <- g.admin.Serve(g.given.Sockets[adminSocket][0]) }()
	g.server.Accept()
	close(g.accepts)
	if g.cfg.APIOff() {
		g.log.Info("page and API are off, since the admin port is not on loopback", "variable", config.Prefix+"ADMIN_TOKEN_FILE")
	}
	for _, l := range g.cfg.Listeners() {
		g.log.Info("listening", "listener", l.Name, "addresses", l.Addrs)
	}
	g.log.Info("serving", "admin", g.given.Sockets[adminSocket][0].Addr().String(), "limit_connections", g.cfg.ConnectionLimit(),
		"mode", g.policy.Load().Mode().String(), "floor", g.policy.Load().Floor().String(), "rules", len(g.policy.Load().Rules()))
	notify(daemon.SdNotifyReady, daemon.SdNotifyWatchdog)
	go g.watchdog()
}

// Gatherer gathers the metrics of /metrics.
func (g *Runtime) Gatherer() prometheus.Gatherer { return g.metrics.Gatherer() }

// FlushLedger writes what the ledger has recorded so far.
func (g *Runtime) FlushLedger(ctx context.Context) error { return g.ledger.recorder.Flush(ctx) }

// flushAtLeast is the time for admin port, ledger and log at the end, even
// after a drain that took all of its time.
const flushAtLeast = 100 * time.Millisecond

// Run serves until a signal arrives on stop, ctx ends, or the admin port fails;
// only the last is an error. A signal on reload has the files read again, one on upgrade
// starts the program on disk, which takes over. A second signal on stop ends the drain at
// once. systemd hears of all that.
func (g *Runtime) Run(ctx context.Context, stop, reload, upgrade <-chan os.Signal) (err error) {
	starting, cancel := context.WithCancel(ctx)
	defer cancel()
	var next chan *handover.Link // while a program is started
	insist := 1                  // so many signals end the drain at once
	g.Start()
	for serving := true; serving; {
		select {
		case <-reload:
			g.reload()
			continue
		case <-upgrade:
			if next == nil {
				next = make(chan *handover.Link)
				go g.startNext(starting, next)
			}
			continue
		case link := <-next:
			next = nil
			if insist = g.handOver(ctx, link, stop, reload); insist == 0 {
				insist = 1
				continue
			}
		case sig := <-stop:
			g.log.Info("stopping", "signal", sig.String(), "timeout", g.cfg.TimeoutDrain.String())
			notify(daemon.SdNotifyStopping)
		case <-ctx.Done():
		case err = <-g.adminDone:
			g.log.Error("admin port failed", "error", err)
		}
		serving = false
	}
	if cancel(); next != nil {
		if link := <-next; link != nil { // so that none is left that would serve alone
			link.Kill()
		}
	}
	drain, cut := context.WithCancel(context.Background())
	defer cut()
	go func() {
		for range insist {
			select {
			case <-stop:
			case <-drain.Done():
			}
		}
		cut()
	}()
	g.Stop(drain)
	return err
}

// reload has all files read again.
func (g *Runtime) reload() {
	p := g.policy.Load()
	g.log.Info("reading files again", "variables", "as at the start; a changed one takes a restart", "mode", p.Mode().String(), "floor", p.Floor().String())
	g.signals.Add(1)
	notify(daemon.SdNotifyReloading, daemon.SdNotifyMonotonicUsec())
	files, policy := g.files.Trigger(), g.policyFiles.Trigger()
	go func() {
		<-files
		<-policy
		notify(daemon.SdNotifyReady)
	}()
}

// Stop ends the sessions first, then their observers, the log last. When ctx
// ends, sessions are cut.
func (g *Runtime) Stop(ctx context.Context) {
	end := time.Now().Add(g.cfg.TimeoutDrain)
	var before sync.WaitGroup // which systemd ends as soon as this one has
	before.Go(func() { within(ctx, g.cfg.TimeoutDrain, g.given.Before.End) })
	g.readiness.Draining()
	g.server.Shutdown(ctx)
	// Stop does not wait for the watcher: a network file system that hangs would
	// keep the process alive.
	g.stopBackground()
	g.suppressing.Wait()
	// The process ends within TIMEOUT_DRAIN. The ledger gets nearly all the time
	// that the drain has left.
	within(ctx, time.Until(end), g.admin.Close)
	if err := within(ctx, time.Until(end.Add(-flushAtLeast)), g.ledger.close); err != nil {
		g.log.Error("the ledger could not be written at the end, clients are lost", "error", err.Error())
	}
	before.Wait()
	g.log.Info("stopped")
	within(ctx, time.Until(end), g.logWriter.Close)
}

// within bounds end by the time that is left, but by no less than flushAtLeast.
// Once ctx ends, flushAtLeast is the bound.
func within(ctx context.Context, left time.Duration, end func(context.Context) error) error {
	closing, cancel := context.WithTimeout(context.Background(), max(flushAtLeast, left))
	defer cancel()
	defer context.AfterFunc(ctx, func() { time.AfterFunc(flushAtLeast, cancel) })()
	return end(closing)
}
