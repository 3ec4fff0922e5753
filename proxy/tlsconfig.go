package proxy

import (
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"postern/internal/certs"
	"postern/policy"
)

// tlsState is what handshakes are made with. All of it can be replaced while
// sessions run: a handshake takes what it finds.
type tlsState struct {
	certificates atomic.Pointer[certs.Store]
	snapshot     atomic.Pointer[tlsSnapshot]
	// base is what each handshake begins with. It owns the ticket keys, and serves
	// nobody itself: it calls configForClient.
	base *tls.Config

	mu        sync.Mutex // guards what a snapshot is made of
	policy    *policy.Policy
	clientCAs *x509.CertPool
	keys      [][32]byte // of tickets; none where crypto/tls makes a new one every day
}

// tlsSnapshot is what a hello is judged and answered by, in one piece: what of the
// policy is in force, and the configurations that go with it, by protocol. The strict
// ones enforce the floor.
type tlsSnapshot struct {
	policy policy.Snapshot
	// explainText is what a client is told whose version is too old.
	explainText string
	strict      map[strictFor]tlsConfig
	// lenient is empty where the policy, from now on, only enforces.
	lenient map[Protocol]tlsConfig
}

// strictFor is what there is a strict configuration for.
type strictFor struct {
	floor    policy.Floor
	protocol Protocol
}

// tlsConfig is a configuration, and the same with RSA key exchange alone, if any.
type tlsConfig struct {
	*tls.Config
	rsaKeyExchange *tls.Config
}

// config is the configuration that a verdict asks for.
func (t *tlsSnapshot) config(v *policy.Verdict, p Protocol) *tls.Config {
	c := t.strict[strictFor{v.Floor, p}]
	if v.Serve != policy.Enforce {
		c = t.lenient[p]
	}
	if v.RSAKeyExchange {
		return c.rsaKeyExchange
	}
	return c.Config
}

// tlsSnapshot returns what is in force now, and the time that it goes by. Where the
// last snapshot is no longer valid, the next handshake makes the new one: so a rule
// comes into force on the moment, and nothing runs in between.
func (srv *Server) tlsSnapshot() (*tlsSnapshot, time.Time) {
	now := srv.cfg.Now()
	if snapshot := srv.tls.snapshot.Load(); snapshot.policy.Valid(now) {
		return snapshot, now
	}
	srv.tls.mu.Lock()
	defer srv.tls.mu.Unlock()
	if !srv.tls.snapshot.Load().policy.Valid(now) {
		srv.rebuild(now)
	}
	return srv.tls.snapshot.Load(), now
}

// rebuild makes a new snapshot; mu is held. It has lenient configurations where the
// policy may let a client below the floor in, now or later.
func (srv *Server) rebuild(now time.Time) {
	p := srv.tls.policy
	snapshot := &tlsSnapshot{
		policy: p.At(now), explainText: cmp.Or(p.ExplainText(), srv.cfg.ExplainText),
		strict: make(map[strictFor]tlsConfig), lenient: make(map[Protocol]tlsConfig),
	}
	legacy := p.MayServeLegacy(now)
	for protocol := range srv.cfg.Upstreams {
		for _, floor := range p.Floors() {
			snapshot.strict[strictFor{floor, protocol}] = srv.complete(floor.TLSConfig(), protocol)
		}
		if legacy {
			snapshot.lenient[protocol] = srv.complete(policy.LenientTLSConfig(), protocol)
		}
	}
	srv.tls.snapshot.Store(snapshot)
}

// complete adds to a configuration of the policy what is not its matter.
func (srv *Server) complete(c *tls.Config, p Protocol) tlsConfig {
	c.GetCertificate = srv.certificate
	c.NextProtos = []string{string(p)}
	c.DynamicRecordSizingDisabled = true
	if srv.tls.clientCAs != nil {
		c.ClientCAs, c.ClientAuth = srv.tls.clientCAs, tls.VerifyClientCertIfGiven
	}
	return tlsConfig{c, policy.RSAKeyExchange(c)}
}

// SetCertificates replaces the certificates for handshakes to come.
func (srv *Server) SetCertificates(s *certs.Store) { srv.tls.certificates.Store(s) }

// SetPolicy replaces the policy for handshakes to come: each is judged by the
// old one or the new one, and no session notices.
func (srv *Server) SetPolicy(p *policy.Policy) { srv.rebuildWith(func(t *tlsState) { t.policy = p }) }

// SetClientCAs replaces the authorities whose certificates clients may
// present; nil asks for none.
func (srv *Server) SetClientCAs(pool *x509.CertPool) {
	srv.rebuildWith(func(t *tlsState) { t.clientCAs = pool })
}

func (srv *Server) rebuildWith(change func(*tlsState)) {
	srv.tls.mu.Lock()
	defer srv.tls.mu.Unlock()
	change(&srv.tls)
	srv.rebuild(srv.cfg.Now())
}

// SetTicketKeys replaces the keys of session tickets (RFC 5077, RFC 8446,
// Section 4.6.1): the first one makes tickets, all of them open some. The key that has
// made them so far goes on for a moment if it is still among them, until other replicas
// know the new one, too.
func (srv *Server) SetTicketKeys(keys [][32]byte) {
	srv.tls.mu.Lock()
	defer srv.tls.mu.Unlock()
	if first := srv.tls.keys[:min(1, len(srv.tls.keys))]; len(first) > 0 && slices.Contains(keys[1:], first[0]) {
		held, then := slices.Concat(first, keys), keys
		keys = held
		time.AfterFunc(ticketKeyHeld, func() {
			srv.tls.mu.Lock()
			defer srv.tls.mu.Unlock()
			if &srv.tls.keys[0] == &held[0] { // no others have come
				srv.useTicketKeys(then)
			}
		})
	}
	srv.useTicketKeys(keys)
}

// useTicketKeys puts keys in force; mu is held.
func (srv *Server) useTicketKeys(keys [][32]byte) {
	srv.tls.keys = keys
	srv.tls.base.SetSessionTicketKeys(keys)
}

// ticketKeyHeld is several times as long as a replica takes to see a new file.
const ticketKeyHeld = 10 * time.Second

// SetUpstreamRoots replaces the authorities that upstreams are verified by;
// nil means those of the system. There is no way to turn verification off.
func (srv *Server) SetUpstreamRoots(pool *x509.CertPool) {
	for _, list := range srv.upstreams {
		for _, up := range list {
			// The sessions of each are apart: crypto/tls would know them by the server's
			// name, which several share.
			up.config.Store(&tls.Config{
				MinVersion: tls.VersionTLS12, RootCAs: pool, ServerName: up.ServerName,
				ClientSessionCache: tls.NewLRUClientSessionCache(1),
			})
		}
	}
}
