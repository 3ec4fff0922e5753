package gate

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"postern/internal/admin"
	"postern/internal/config"
	"postern/internal/handover"
	"postern/internal/logging"
	"postern/internal/netpoll"
	"postern/internal/text"
	"postern/metrics"
	"postern/policy"
	"postern/proxy"
)

// proxyConfig returns the proxy's configuration, without its listeners.
func (g *Runtime) proxyConfig() proxy.Config {
	cfg, m := g.cfg, &g.material
	log := &logging.Observer{Log: g.log, Suppression: g.suppression, Identify: g.ledger.recorder.Identify, Logins: g.failedLogins, Account: g.identity()}
	observers := chain{g.ledger.recorder, log, g.metrics}
	if len(cfg.ProxyProtocolFrom) == 0 {
		observers = append(observers, newSources(g.warnOfSources))
	}
	return proxy.Config{
		Certificates: m.Certificates.Load(), ClientCAs: m.ClientCAs.Load(), TicketKeys: m.TicketKeys.Load(),
		Upstreams: upstreams(cfg), UpstreamRoots: m.UpstreamRoots.Load(),
		UpstreamClientID:      cfg.UpstreamClientID == "id",
		UpstreamProxyProtocol: cfg.ProxyVersion(),
		Passthrough:           passthrough(cfg),
		ProxyProtocolFrom:     cfg.ProxyProtocolFrom,
		Limits: proxy.Limits{
			Connections:          cfg.ConnectionLimit(),
			ConnectionsPerClient: int(cfg.LimitConnectionsPerClient),
			HandshakesPerClient:  int(cfg.LimitHandshakesPerClient),
		},
		UpstreamTimeout: cfg.UpstreamTimeout, TimeoutHandshake: cfg.TimeoutHandshake, TimeoutLogin: cfg.TimeoutLogin,
		TimeoutIdle: cfg.TimeoutIdle, TimeoutDrain: cfg.TimeoutDrain,
		ExplainText: cfg.ExplainText, Identity: cfg.LedgerIdentity != "off", Log: g.log,
		Metrics:  &meter{Metrics: g.metrics, readiness: g.readiness},
		Observer: observers,
	}
}

// makeObservers makes the proxy's observers and the admin port.
func (g *Runtime) makeObservers(p *policy.Policy) {
	o := metrics.Options{
		Version: g.build.Version, Revision: g.build.Revision,
		Listeners:   slices.Sorted(maps.Keys(mailSockets(g.given.Sockets))),
		Upstreams:   text.Each(slices.Concat(g.cfg.UpstreamIMAP, g.cfg.UpstreamPOP3), config.Upstream.String),
		Passthrough: slices.Collect(maps.Values(passthrough(g.cfg))),
		Policy:      p, Now: g.now, Certificates: g.servedCertificates,
		LedgerDropped: g.ledger.recorder.Dropped,
		LedgerPending: func() float64 { return float64(g.ledger.recorder.Backlog().Clients) },
		LedgerWritten: func() float64 { return float64(g.ledger.recorder.Backlog().Written) },
		LogSuppressed: func() uint64 { return g.suppression.Lost() + g.failedLogins.Lost() + g.logWriter.Dropped() },
	}
	g.metrics = metrics.New(o)
	g.readiness = admin.NewReadiness(slices.Collect(maps.Keys(upstreams(g.cfg))))
	g.readiness.Ledger, g.readiness.NotAfter = g.ledger.recorder.Backlog, g.earliestEnd
	suppress := func(msg string) *logging.Suppression {
		return logging.NewSuppression(time.Now, func(client netip.Addr, n uint64) { g.log.Info(msg, "client", client, "suppressed", n) })
	}
	g.suppression, g.failedLogins = suppress(logging.LegacyHandshake), suppress(logging.FailedLogin)
	ao := admin.Options{
		Metrics: g.metrics.Handler(), Readiness: g.readiness, Log: g.log, Pprof: g.cfg.AdminPprof == "on",
		API: g.api(), Guard: admin.GuardHandler(g.release), Listen: g.cfg.AdminListen, Token: g.material.Token.Load, Now: time.Now,
	}
	if !g.cfg.APIOff() {
		ao.Page = g.page()
	}
	if g.material.Admin.Load() != nil {
		ao.Certificate = func() *tls.Certificate { return g.material.Admin.Load().Lookup("").Certificate(0, time.Now()) }
	}
	g.admin = admin.New(ao)
}

// listen binds every address, but for those of which sockets were given, and returns all
// sockets. Its error names all that cannot be bound.
func listen(cfg *config.Config, given handover.Sockets) (handover.Sockets, error) {
	all, left := make(handover.Sockets), maps.Clone(given)
	var problems []error
	for _, l := range cfg.Bound() {
		if list, have := left[l.Name]; have {
			all[l.Name], l.Addrs = list, nil
			delete(left, l.Name)
		}
		var lc net.ListenConfig
		if l.Name != adminSocket {
			lc = netpoll.ListenConfig(proxy.Listener(l.Name).ImplicitTLS())
		}
		for _, addr := range l.Addrs {
			nl, err := lc.Listen(context.Background(), config.Network(addr), addr)
			if err != nil {
				problems = append(problems, config.BindError(l.Variable, addr, err))
				continue
			}
			all[l.Name] = append(all[l.Name], nl)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(left)) {
		problems = append(problems, fmt.Errorf("LISTEN_FDNAMES: %s: there is no %sUPSTREAM_%s: set that, or hand over no such socket",
			name, config.Prefix, strings.ToUpper(strings.TrimSuffix(name, "s"))))
	}
	if len(problems) > 0 {
		all.Close()
		return nil, errors.Join(problems...)
	}
	return all, nil
}

// adminSocket is the name of the admin port's.
const adminSocket = "admin"

// mailSockets are those of the proxy.
func mailSockets(all handover.Sockets) map[proxy.Listener][]net.Listener {
	m := make(map[proxy.Listener][]net.Listener)
	for name, list := range all {
		if name != adminSocket {
			m[proxy.Listener(name)] = list
		}
	}
	return m
}

func upstreams(cfg *config.Config) map[proxy.Protocol][]proxy.UpstreamConfig {
	m := make(map[proxy.Protocol][]proxy.UpstreamConfig)
	for _, u := range slices.Concat(cfg.UpstreamIMAP, cfg.UpstreamPOP3) {
		p := proxy.Protocol(u.Scheme.Protocol)
		m[p] = append(m[p], cfg.ForProxy(u))
	}
	return m
}

// passthrough returns the old servers for legacy clients, by listener.
func passthrough(cfg *config.Config) map[proxy.Listener]string {
	m := make(map[proxy.Listener]string)
	for _, l := range cfg.PassingThrough() {
		m[proxy.Listener(l.Name)] = string(l.Passthrough)
	}
	return m
}

// meter counts, and tells readiness which upstreams answer.
type meter struct {
	*metrics.Metrics
	readiness *admin.Readiness
}

func (m *meter) UpstreamGreeted(name string) { m.readiness.UpstreamGreeted(name) }

func (m *meter) UpstreamUp(name string, problem error) {
	m.readiness.UpstreamState(name, problem)
	m.Metrics.UpstreamUp(name, problem)
}

// chain passes events on to several observers, in order.
type chain []proxy.Observer

func (c chain) each(tell func(proxy.Observer)) {
	for _, o := range c {
		tell(o)
	}
}

func (c chain) Handshake(e *proxy.Handshake)     { c.each(func(o proxy.Observer) { o.Handshake(e) }) }
func (c chain) LoginFailed(e *proxy.LoginFailed) { c.each(func(o proxy.Observer) { o.LoginFailed(e) }) }
func (c chain) Login(e *proxy.Login)             { c.each(func(o proxy.Observer) { o.Login(e) }) }
func (c chain) Software(e *proxy.Software)       { c.each(func(o proxy.Observer) { o.Software(e) }) }
func (c chain) Closed(e *proxy.Closed)           { c.each(func(o proxy.Observer) { o.Closed(e) }) }
