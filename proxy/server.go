package proxy

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"postern/internal/certs"
	"postern/internal/netpoll"
	"postern/policy"
)

// Config is what a Server is made of. All fields are required unless they say what
// their zero value means.
type Config struct {
	// Listeners that are bound already; the server closes them.
	Listeners map[Listener][]net.Listener
	Policy    *policy.Policy
	// Now is the time that the policy goes by.
	Now          func() time.Time
	Certificates *certs.Store
	Upstreams    map[Protocol][]UpstreamConfig
	// UpstreamRoots verify upstreams; nil means the system's.
	UpstreamRoots *x509.CertPool
	// UpstreamClientID tells an IMAP upstream the client's address in an ID.
	UpstreamClientID bool
	// UpstreamProxyProtocol is the version of the PROXY header that upstreams
	// are sent: 0 for none, 1 or 2.
	UpstreamProxyProtocol int
	// Passthrough is the host:port of the old server's own TLS port, by listener with
	// implicit TLS: a legacy client that the policy lets in, and that crypto/tls cannot
	// serve, is passed through to it.
	Passthrough map[Listener]string
	// ProxyProtocolFrom are the peers whose connections begin with a PROXY
	// header.
	ProxyProtocolFrom []netip.Prefix
	// ClientCAs: clients are asked for a certificate of theirs; nil asks none.
	ClientCAs *x509.CertPool
	// TicketKeys are shared with other replicas, the newest first; nil means that the
	// server makes its own, a new one every day.
	TicketKeys [][32]byte
	Limits     Limits
	// Identity: the observer learns the accounts and the software of clients that are let
	// in though the floor, or a remembered candidate, refuses them, and the account of a login that was refused, whoever comes;
	// else they are not even read.
	Identity bool

	UpstreamTimeout  time.Duration // dial and greeting
	TimeoutHandshake time.Duration // the whole handshake
	TimeoutLogin     time.Duration // everything before login
	TimeoutIdle      time.Duration // silence after login
	TimeoutDrain     time.Duration // sessions at shutdown

	// ExplainText is one line, in which {version} and {floor} are filled in. That of
	// a policy takes its place.
	ExplainText string

	Observer Observer
	Metrics  Metrics
	Log      *slog.Logger
}

// Server is the proxy.
type Server struct {
	cfg       Config
	tls       tlsState
	clients   *clientLimits
	upstreams map[Protocol][]*upstream
	// passthrough has an entry only for listeners with implicit TLS. These old servers
	// are not probed: their clients find out whether they answer.
	passthrough map[Listener]*upstream

	// ctx ends when the server begins to drain, and with it all that runs beside sessions.
	ctx    context.Context
	cancel context.CancelFunc

	idleSet *netpoll.IdleSet
	// started is the origin of the moments at which tunnels are parked together.
	started time.Time

	lastID    atomic.Uint64
	accepting sync.WaitGroup // accept loops
	work      sync.WaitGroup // probes
	sessions  sync.WaitGroup // those in open; none is added once somebody waits
	turns     atomic.Int64   // of accept loops that were woken up
	warned    sync.Map       // of rate.Sometimes, by what it is about
	mu        sync.Mutex
	open      map[*session]struct{}
	served    int // of these, how many are within the limit
}

// New makes a server; Start lets it accept.
func New(cfg Config) (*Server, error) {
	srv := &Server{
		cfg: cfg, tls: tlsState{policy: cfg.Policy, clientCAs: cfg.ClientCAs, keys: cfg.TicketKeys, base: noVersion.Clone()},
		open: make(map[*session]struct{}), upstreams: make(map[Protocol][]*upstream),
		clients: newClientLimits(cfg.Limits), passthrough: make(map[Listener]*upstream),
		started: time.Now(),
	}
	srv.ctx, srv.cancel = context.WithCancel(context.Background())
	for l := range cfg.Listeners {
		if len(cfg.Upstreams[l.Protocol()]) == 0 {
			return nil, fmt.Errorf("listener %s has no upstream", l)
		}
	}
	for p, list := range cfg.Upstreams {
		for _, u := range list {
			srv.upstreams[p] = append(srv.upstreams[p], &upstream{UpstreamConfig: u, wake: make(chan struct{}, 1)})
		}
	}
	for l, addr := range cfg.Passthrough {
		if l.ImplicitTLS() {
			srv.passthrough[l] = &upstream{UpstreamConfig: UpstreamConfig{Name: addr, Addr: addr}, passedFrom: l}
		}
	}
	srv.tls.certificates.Store(cfg.Certificates)
	srv.tls.base.GetConfigForClient = srv.configForClient
	if len(srv.tls.keys) > 0 {
		srv.tls.base.SetSessionTicketKeys(srv.tls.keys)
	}
	srv.rebuild(srv.cfg.Now())
	srv.SetUpstreamRoots(cfg.UpstreamRoots)
	var err error
	if srv.idleSet, err = netpoll.NewIdleSet(); err != nil {
		return nil, err
	}
	return srv, nil
}

// Start begins to ask the upstreams whether they answer. Accept follows.
func (srv *Server) Start() {
	srv.work.Go(srv.idleSet.Run)
	for p, list := range srv.upstreams {
		for _, up := range list {
			srv.work.Go(func() { srv.probe(up, dialectOf(p), probeEvery) })
		}
	}
}

// Accept begins to accept.
func (srv *Server) Accept() {
	for l, list := range srv.cfg.Listeners {
		for _, nl := range list {
			srv.accepting.Go(func() { srv.accept(l, nl) })
		}
	}
}

func (srv *Server) stopAccepting() {
	for _, list := range srv.cfg.Listeners {
		for _, nl := range list {
			nl.Close()
		}
	}
}

// HandOver leaves new connections to another process that has the listeners, while those
// that are there run on, logged in or not. The channel is closed when all have ended.
func (srv *Server) HandOver() (ended <-chan struct{}) {
	srv.stopAccepting()
	srv.accepting.Wait()
	return srv.allEnded()
}

// allEnded returns a channel that is closed when no session is left; no more may come.
func (srv *Server) allEnded() <-chan struct{} {
	ended := make(chan struct{})
	go func() {
		srv.sessions.Wait()
		close(ended)
	}()
	return ended
}

// deadliner is a listener whose Accept can be woken up.
type deadliner interface{ SetDeadline(time.Time) error }

// Accepts reports whether every accept loop has gone round since the last call, which has
// woken them up, as this one does for the next.
func (srv *Server) Accepts() bool {
	turns, loops := srv.turns.Swap(0), int64(0)
	for _, list := range srv.cfg.Listeners {
		for _, nl := range list {
			nl.(deadliner).SetDeadline(past)
			loops++
		}
	}
	return turns >= loops || srv.isDraining()
}

// maxAcceptWait is the longest pause while nothing can be accepted.
const maxAcceptWait = 100 * time.Millisecond

// accept takes connections until the listener is closed. When descriptors run
// out it waits a little, as net/http does.
func (srv *Server) accept(l Listener, nl net.Listener) {
	var wait time.Duration
	for {
		c, err := nl.Accept()
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if errors.Is(err, os.ErrDeadlineExceeded) {
				nl.(deadliner).SetDeadline(time.Time{})
				srv.turns.Add(1)
				continue
			}
			if wait == 0 {
				srv.cfg.Log.Error("accepting failed", "listener", string(l), "error", err.Error())
			}
			wait = min(max(2*wait, 5*time.Millisecond), maxAcceptWait)
			if !sleep(srv.ctx, wait) {
				return
			}
			continue
		}
		wait = 0
		if s := srv.begin(l, c.(netpoll.Socket)); s != nil && !s.rejectEarly() {
			go s.run()
		}
	}
}

// warn logs a warning, at most once a minute for what it is about: strangers bring it about.
func (srv *Server) warn(about, message string, attrs ...any) {
	s, _ := srv.warned.LoadOrStore(about, &rate.Sometimes{Interval: time.Minute})
	s.(*rate.Sometimes).Do(func() { srv.cfg.Log.Warn(message, attrs...) })
}

// begin gives a connection its session, or closes it while the server drains.
func (srv *Server) begin(l Listener, c netpoll.Socket) *session {
	s := &session{
		Conn: Conn{
			ID: srv.lastID.Add(1), Listener: l, Accepted: time.Now(),
			Client: netpoll.AddrPort(c.RemoteAddr()), Local: netpoll.AddrPort(c.LocalAddr()),
		},
		srv: srv, dialect: dialectOf(l.Protocol()), random: rand.Uint64(),
	}
	s.destination = s.Local
	s.raw = &clientConn{Conn: netpoll.Conn{Socket: c, IdleSet: srv.idleSet}, s: s}
	srv.mu.Lock()
	if srv.isDraining() {
		srv.mu.Unlock()
		s.raw.Close()
		return nil
	}
	srv.open[s] = struct{}{}
	srv.sessions.Add(1)
	if most := srv.cfg.Limits.Connections; most == 0 || srv.served < most {
		s.admission = countedInTotal
		srv.served++
	}
	srv.mu.Unlock()
	srv.cfg.Metrics.Opened(l)
	return s
}

// remove forgets a session that has ended.
func (srv *Server) remove(s *session) {
	srv.mu.Lock()
	defer srv.mu.Unlock()
	delete(srv.open, s)
	if s.admission != overLimit {
		srv.served--
	}
}

func (srv *Server) isDraining() bool { return srv.ctx.Err() != nil }

// isClosed reports whether a channel that nothing is sent to is closed.
func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// idleBefore is how long a session must have been silent at least to count as
// idle when the server stops; and none does whose upstream still has to answer.
const idleBefore = time.Second

// cutTime is what cutting the last connections may take.
const cutTime = 250 * time.Millisecond

// Shutdown stops the server: it accepts no new connections, and clients that have not
// logged in get a last word at once. Tunnels run on for up to TIMEOUT_DRAIN; idle ones
// are closed evenly over its second half, so that the clients do not all come back at
// once. Shutdown returns when all are gone; when ctx ends, it cuts them.
func (srv *Server) Shutdown(ctx context.Context) {
	srv.stopAccepting()
	srv.mu.Lock()
	srv.cancel()
	srv.mu.Unlock()
	ended := srv.allEnded()
	for _, s := range srv.openSessions() {
		if s.tunnel.Load() == nil {
			s.raw.SetReadDeadline(past)
		}
	}
	// A little is left for cutting connections, and for what stops after the server.
	ctx, cancel := context.WithTimeout(ctx, srv.cfg.TimeoutDrain-min(srv.cfg.TimeoutDrain/20, cutTime))
	defer cancel()
	go func() {
		<-ended
		cancel()
	}()
	srv.drain(ctx)
	srv.cut(ended)
	srv.idleSet.Close()
	srv.accepting.Wait()
	srv.work.Wait()
}

// openSessions lists the sessions that have not ended.
func (srv *Server) openSessions() []*session {
	srv.mu.Lock()
	defer srv.mu.Unlock()
	return slices.Collect(maps.Keys(srv.open))
}

// drain lets sessions end until ctx does.
func (srv *Server) drain(ctx context.Context) {
	end, _ := ctx.Deadline()
	for wait := srv.cfg.TimeoutDrain / 2; sleep(ctx, wait); {
		t, n := srv.mostIdle()
		wait = idleBefore / 10
		if t != nil {
			t.closeInOrder()
			wait = time.Until(end) / time.Duration(n+1)
		}
	}
}

// mostIdle finds the tunnel that has been silent for the longest time, and how many
// are idle.
func (srv *Server) mostIdle() (most *tunnel, n int) {
	now := time.Now()
	srv.mu.Lock()
	defer srv.mu.Unlock()
	idle := max(idleBefore, srv.cfg.TimeoutDrain/4)
	longest := idle
	for s := range srv.open {
		t := s.tunnel.Load()
		if t == nil || t.state.Load() == tunnelClosing || t.writing.Load() > 0 || t.awaitingReply.Load() || t.silence(now) < idle {
			continue
		}
		n++
		if silence := t.silence(now); silence >= longest {
			most, longest = t, silence
		}
	}
	if most != nil {
		most.state.Store(tunnelClosing)
	}
	return most, n
}

// cut ends what is left.
func (srv *Server) cut(ended <-chan struct{}) {
	for _, s := range srv.openSessions() {
		if t := s.tunnel.Load(); t != nil {
			go t.abort() // an upstream may be slow to take a close_notify
		} else {
			s.raw.Close()
		}
	}
	select {
	case <-ended:
	case <-time.After(cutTime / 2):
	}
}
