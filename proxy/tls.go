package proxy

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"sync"
	"sync/atomic"
	"time"

	"postern/internal/certs"
	"postern/policy"
)

// tlsState is what handshakes are made with. All of it can be replaced while
// sessions run: a handshake takes the configuration that it finds.
type tlsState struct {
	certificates atomic.Pointer[certs.Store]
	configs      atomic.Pointer[tlsConfigs]
	upstream     atomic.Pointer[tls.Config]

	mu        sync.Mutex // guards what configs is made of
	clientCAs *x509.CertPool
	keys      [][32]byte
}

// tlsConfigs are the configurations by protocol. The strict ones are the base:
// they enforce the floor, have the hook and own the ticket keys.
type tlsConfigs struct {
	strict  map[Protocol]*tls.Config
	lenient map[Protocol]*tls.Config // empty under a policy that only enforces
}

// rebuild makes the configurations anew; mu is held.
func (srv *Server) rebuild() {
	c := &tlsConfigs{strict: make(map[Protocol]*tls.Config), lenient: make(map[Protocol]*tls.Config)}
	for p := range srv.cfg.Upstreams {
		c.strict[p] = srv.complete(srv.policy.At(time.Now()).Floor.TLSConfig(), p)
		c.strict[p].GetConfigForClient = srv.configForClient
		c.strict[p].SetSessionTicketKeys(srv.tls.keys)
		if srv.policy.MayServeLegacy(time.Now()) {
			c.lenient[p] = srv.complete(policy.LenientTLSConfig(), p)
		}
	}
	srv.tls.configs.Store(c)
}

// complete adds to a configuration of the policy what is not its matter.
func (srv *Server) complete(c *tls.Config, p Protocol) *tls.Config {
	c.GetCertificate = srv.certificate
	c.NextProtos = []string{string(p)}
	c.DynamicRecordSizingDisabled = true
	if srv.tls.clientCAs != nil {
		c.ClientCAs, c.ClientAuth = srv.tls.clientCAs, tls.VerifyClientCertIfGiven
	}
	return c
}

// SetCertificates replaces the certificates for handshakes to come.
func (srv *Server) SetCertificates(s *certs.Store) { srv.tls.certificates.Store(s) }

// SetClientCAs replaces the authorities whose certificates clients may
// present; nil asks for none.
func (srv *Server) SetClientCAs(pool *x509.CertPool) {
	srv.tls.mu.Lock()
	defer srv.tls.mu.Unlock()
	srv.tls.clientCAs = pool
	srv.rebuild()
}

// SetTicketKeys replaces the keys of session tickets (RFC 5077, RFC 8446,
// Section 4.6.1): the first one makes tickets, all of them open some.
func (srv *Server) SetTicketKeys(keys [][32]byte) {
	srv.tls.mu.Lock()
	defer srv.tls.mu.Unlock()
	srv.tls.keys = keys
	for _, c := range srv.tls.configs.Load().strict {
		c.SetSessionTicketKeys(keys)
	}
}

const (
	ticketKeyLife = 24 * time.Hour
	// ticketKeysKept open tickets for as long as they live in crypto/tls.
	ticketKeysKept = 7
)

func newTicketKey() (key [32]byte) {
	rand.Read(key[:])
	return key
}

// rotateTicketKeys makes a key of our own every day, where none are given.
func (srv *Server) rotateTicketKeys(ctx context.Context) {
	tick := time.NewTicker(ticketKeyLife)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			srv.tls.mu.Lock()
			keys := append([][32]byte{newTicketKey()}, srv.tls.keys...)
			srv.tls.mu.Unlock()
			srv.SetTicketKeys(keys[:min(len(keys), ticketKeysKept)])
		case <-ctx.Done():
			return
		}
	}
}

// SetUpstreamRoots replaces the authorities that upstreams are verified by;
// nil means those of the system. There is no way to turn verification off.
func (srv *Server) SetUpstreamRoots(pool *x509.CertPool) {
	srv.tls.upstream.Store(&tls.Config{
		MinVersion: tls.VersionTLS12,
		RootCAs:    pool,
		// One entry for each upstream and then some.
		ClientSessionCache: tls.NewLRUClientSessionCache(64),
	})
}

// upstreamConfig is the configuration for one upstream.
func (srv *Server) upstreamConfig(up *upstream) *tls.Config {
	c := srv.tls.upstream.Load().Clone()
	c.ServerName = up.ServerName
	c.ClientSessionCache = upstreamSessions{c.ClientSessionCache, up.Name + " "}
	return c
}

// upstreamSessions keeps the sessions of one upstream apart: crypto/tls would
// know them by the server's name, which several share.
type upstreamSessions struct {
	tls.ClientSessionCache
	prefix string
}

func (u upstreamSessions) Get(key string) (*tls.ClientSessionState, bool) {
	return u.ClientSessionCache.Get(u.prefix + key)
}

func (u upstreamSessions) Put(key string, state *tls.ClientSessionState) {
	u.ClientSessionCache.Put(u.prefix+key, state)
}
