package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"sync/atomic"
	"time"

	"postern/internal/admin"
	"postern/internal/certs"
	"postern/internal/config"
	"postern/internal/logging"
	"postern/metrics"
	"postern/policy"
	"postern/proxy"
)

// gate is everything that serves, put together: the proxy, who listens to what
// it tells, and the admin port.
type gate struct {
	cfg       *config.Config
	server    *proxy.Server
	metrics   *metrics.Metrics
	readiness *admin.Readiness
	admin     *admin.Server

	log        *slog.Logger
	logWriter  *logging.Writer
	suppressed atomic.Uint64
	fold       *logging.Fold
	foldDone   chan struct{}
	stopFold   context.CancelFunc

	adminListener net.Listener
	adminDone     chan error
}

// logQueue is how many lines may wait for a slow stderr.
const logQueue = 4096

// newGate binds the listeners and loads the certificates. Its error is for a
// person to read, and may have several lines. watch may be nil: it is told
// what happens before the others are.
func newGate(cfg *config.Config, stderr io.Writer, watch proxy.Observer) (*gate, error) {
	store, err := certs.Load(cfg.TLSCertFile, cfg.TLSKeyFile)
	if err != nil {
		return nil, err
	}
	p, err := compilePolicy(cfg)
	if err != nil {
		return nil, err
	}
	listeners, admin, err := listen(cfg)
	if err != nil {
		return nil, err
	}
	g := &gate{cfg: cfg, adminListener: admin, adminDone: make(chan error, 1), foldDone: make(chan struct{})}
	g.logWriter = logging.NewWriter(stderr, logQueue)
	g.log = logging.New(g.logWriter, cfg.LogLevel, cfg.LogFormat)
	g.watch(store, p)
	pc := proxy.Config{
		Listeners: listeners, Policy: p, Certificates: store,
		Upstreams:       upstreams(cfg),
		UpstreamTimeout: cfg.UpstreamTimeout, TimeoutHandshake: cfg.TimeoutHandshake, TimeoutLogin: cfg.TimeoutLogin,
		TimeoutIdle: cfg.TimeoutIdle, TimeoutDrain: cfg.TimeoutDrain,
		ExplainText: cfg.ExplainText, Log: g.log,
		Meter:    &meter{Metrics: g.metrics, readiness: g.readiness, protocols: protocolsByUpstream(cfg)},
		Observer: chain{&logging.Observer{Log: g.log, Fold: g.fold}, g.metrics},
	}
	if watch != nil {
		pc.Observer = append(chain{watch}, pc.Observer.(chain)...)
	}
	if g.server, err = proxy.New(pc); err != nil {
		return nil, err
	}
	return g, nil
}

// watch makes what listens: metrics, readiness and the fold of the log.
func (g *gate) watch(store *certs.Store, p *policy.Policy) {
	ver, revision := buildVersion()
	o := metrics.Options{
		Version: ver, Revision: revision,
		LogSuppressed: func() uint64 { return g.suppressed.Load() + g.logWriter.Dropped() },
	}
	var protocols []proxy.Protocol
	for _, l := range g.cfg.Listeners() {
		o.Listeners = append(o.Listeners, proxy.Listener(l.Name))
	}
	for protocol, list := range upstreams(g.cfg) {
		protocols = append(protocols, protocol)
		for _, u := range list {
			o.Upstreams = append(o.Upstreams, u.Name)
		}
	}
	g.metrics = metrics.New(o)
	g.readiness = admin.NewReadiness(protocols)
	notAfter := make(map[string]time.Time)
	var earliest time.Time
	for _, c := range store.Certificates() {
		notAfter[c.Name] = c.NotAfter
		if earliest.IsZero() || c.NotAfter.Before(earliest) {
			earliest = c.NotAfter
		}
	}
	g.metrics.SetCertificates(notAfter)
	g.readiness.Certificate(earliest)
	for _, l := range o.Listeners {
		g.metrics.SetPolicyMode(l, p.Snapshot().Mode)
	}
	g.fold = logging.NewFold(time.Now, func(client netip.Addr, n uint64) {
		g.log.Info(logging.LegacyHandshake, "client", client, "suppressed", n)
	}, func(n uint64) { g.suppressed.Add(n) })
	g.admin = admin.New(admin.Options{Metrics: g.metrics.Handler(), Readiness: g.readiness, Log: g.log})
}

// start begins to serve.
func (g *gate) start() {
	ctx, cancel := context.WithCancel(context.Background())
	g.stopFold = cancel
	go func() {
		g.fold.Run(ctx)
		close(g.foldDone)
	}()
	go func() { g.adminDone <- g.admin.Serve(g.adminListener) }()
	g.server.Start()
	g.readiness.Listening()
	for _, l := range g.cfg.Listeners() {
		g.log.Info("listening", "listener", l.Name, "addresses", l.Addrs)
	}
	g.log.Info("serving", "admin", g.adminListener.Addr().String(),
		"mode", g.cfg.PolicyMode, "floor", g.cfg.PolicyFloor)
}

// flushTime is how long the log may take to be written at the end.
const flushTime = time.Second

// stop ends the gate: the sessions first, then who listens to them, the log
// last. When ctx ends, sessions are cut.
func (g *gate) stop(ctx context.Context) {
	g.readiness.Draining()
	g.server.Shutdown(ctx)
	g.stopFold()
	<-g.foldDone
	closing, cancel := context.WithTimeout(context.Background(), flushTime)
	defer cancel()
	g.admin.Close(closing)
	g.log.Info("stopped")
	g.logWriter.Close(closing)
}

func compilePolicy(cfg *config.Config) (*policy.Policy, error) {
	floor, ferr := policy.ParseFloor(cfg.PolicyFloor)
	mode, merr := policy.ParseMode(cfg.PolicyMode)
	return policy.New(floor, mode), errors.Join(ferr, merr)
}

// listen binds every address, and says all at once which cannot be bound.
func listen(cfg *config.Config) (map[proxy.Listener][]net.Listener, net.Listener, error) {
	bound := make(map[proxy.Listener][]net.Listener)
	var all []net.Listener
	var problems []error
	bind := func(variable, addr string) net.Listener {
		nl, err := net.Listen("tcp", addr)
		if err != nil {
			problems = append(problems, fmt.Errorf("%s: %w", variable, err))
			return nil
		}
		all = append(all, nl)
		return nl
	}
	for _, l := range cfg.Listeners() {
		for _, addr := range l.Addrs {
			name := proxy.Listener(l.Name)
			bound[name] = append(bound[name], bind(l.Variable, addr))
		}
	}
	admin := bind(config.Prefix+"ADMIN_LISTEN", cfg.AdminListen)
	if len(problems) > 0 {
		for _, nl := range all {
			nl.Close()
		}
		return nil, nil, errors.Join(problems...)
	}
	return bound, admin, nil
}

func upstreams(cfg *config.Config) map[proxy.Protocol][]proxy.UpstreamConfig {
	m := make(map[proxy.Protocol][]proxy.UpstreamConfig)
	for p, list := range map[proxy.Protocol]config.Upstreams{
		proxy.ProtocolIMAP: cfg.UpstreamIMAP, proxy.ProtocolPOP3: cfg.UpstreamPOP3,
	} {
		for _, u := range list {
			m[p] = append(m[p], proxy.UpstreamConfig{Name: u.String(), Addr: u.Addr()})
		}
	}
	return m
}

func protocolsByUpstream(cfg *config.Config) map[string]proxy.Protocol {
	m := make(map[string]proxy.Protocol)
	for p, list := range upstreams(cfg) {
		for _, u := range list {
			m[u.Name] = p
		}
	}
	return m
}

// meter counts, and tells readiness what it has to know.
type meter struct {
	*metrics.Metrics
	readiness *admin.Readiness
	protocols map[string]proxy.Protocol
}

func (m *meter) UpstreamUp(name string, up bool) {
	m.Metrics.UpstreamUp(name, up)
	m.readiness.UpstreamState(name, up)
	if up {
		m.readiness.UpstreamAnswered(m.protocols[name])
	}
}

// chain tells several observers, in order.
type chain []proxy.Observer

func (c chain) Handshake(h *proxy.Handshake) {
	for _, o := range c {
		o.Handshake(h)
	}
}

func (c chain) Login(l *proxy.Login) {
	for _, o := range c {
		o.Login(l)
	}
}

func (c chain) Closed(e *proxy.Closed) {
	for _, o := range c {
		o.Closed(e)
	}
}
