package proxy

import (
	"crypto/tls"
	"crypto/x509"
	"strings"
	"testing"

	"postern/internal/certs"
	"postern/internal/posterntest"
	"postern/policy"
)

// resumer is a client that keeps its tickets, as clients do.
type resumer struct {
	config *tls.Config
	listen Listener
}

func newResumer(roots *x509.CertPool, l Listener, certificates ...tls.Certificate) *resumer {
	return &resumer{&tls.Config{
		RootCAs: roots, ServerName: "localhost", Certificates: certificates,
		ClientSessionCache: tls.NewLRUClientSessionCache(0),
	}, l}
}

// comes opens a session and reads far enough to have a new ticket; it reports
// whether the session was resumed.
func (r *resumer) comes(t *testing.T, g *Proxy) (resumed bool) {
	t.Helper()
	c := tls.Client(g.Dial(t, r.listen), r.config)
	defer c.Close()
	if err := c.Handshake(); err != nil {
		t.Fatal(err)
	}
	newClient(c).ExpectLine(t, "")
	return c.ConnectionState().DidResume
}

func TestReplicasThatShareTicketKeysResumeEachOthersSessions(t *testing.T) {
	imap := posterntest.StartUpstream(t, posterntest.IMAPGreeting, posterntest.IMAPReply)
	key := [][32]byte{{1}, {2}, {3}}
	ca := posterntest.NewCA(t)
	pair := ca.Issue(t, posterntest.DefaultNames, posterntest.ECDSA)
	store, err := certs.Load([]string{pair.CertFile}, []string{pair.KeyFile})
	if err != nil {
		t.Fatal(err)
	}
	start := func() *Proxy {
		return StartProxy(t, policy.Enforce, imap.Addr(), "", func(c *Config) {
			c.TicketKeys, c.Certificates = key[:1], store
		})
	}
	a, b := start(), start()
	client := newResumer(ca.Pool, IMAPS)
	if client.comes(t, a) {
		t.Fatal("a first session cannot be resumed")
	}
	for i, g := range []*Proxy{b, a, b} {
		if !client.comes(t, g) {
			t.Errorf("session %d was not resumed", i)
		}
	}
	a.SetTicketKeys(key[1:2])
	if client.comes(t, a) {
		t.Error("a ticket was taken whose key is gone")
	}
	b.SetTicketKeys([][32]byte{key[0], key[1]})
	if !client.comes(t, b) {
		t.Error("a ticket of an older key that is still there was not taken")
	}
	b.SetClientCAs(posterntest.NewCA(t).Pool)
	b.SetCertificates(store)
	if !client.comes(t, b) {
		t.Error("other changes have cost the tickets")
	}
}

func TestARemovedAuthorityIsNoLongerTrusted(t *testing.T) {
	imap := posterntest.StartUpstream(t, posterntest.IMAPGreeting, posterntest.IMAPReply)
	old, next := posterntest.NewCA(t), posterntest.NewCA(t)
	g := StartProxy(t, policy.Enforce, imap.Addr(), "", func(c *Config) { c.ClientCAs = old.Pool })
	client := newResumer(g.CA.Pool, IMAPS, old.IssueClient(t, "anna"))
	if client.comes(t, g); !client.comes(t, g) {
		t.Error("a session with a client certificate was not resumed")
	}
	g.SetClientCAs(next.Pool)
	c := tls.Client(g.Dial(t, IMAPS), client.config)
	if err := c.Handshake(); err == nil && c.ConnectionState().DidResume {
		t.Error("a session was resumed for a certificate that nobody trusts any more")
	}
}

func TestUpstreamRootsAreReplacedWithTheirSessions(t *testing.T) {
	ca := posterntest.NewCA(t)
	pair := ca.Issue(t, []string{"127.0.0.1"}, posterntest.ECDSA).Load(t)
	u := posterntest.StartTLSUpstream(t, &tls.Config{Certificates: []tls.Certificate{pair}},
		posterntest.IMAPGreeting, posterntest.IMAPReply)
	g := StartProxy(t, policy.Enforce, u.Addr(), "", func(c *Config) {
		c.Upstreams[ProtocolIMAP][0].TLS = LineTLS
		c.Upstreams[ProtocolIMAP][0].ServerName = "127.0.0.1"
		c.UpstreamRoots = ca.Pool
	})
	greeting := func() string { return g.TLS(t, IMAPS).ExpectLine(t, "") }
	for range 3 {
		if got := greeting(); !strings.HasPrefix(got, "* OK") {
			t.Fatalf("%q", got)
		}
	}
	// A session with the upstream could be resumed: it must not be.
	g.SetUpstreamRoots(posterntest.NewCA(t).Pool)
	if got := greeting(); !strings.HasPrefix(got, "* BYE [UNAVAILABLE]") {
		t.Errorf("an upstream that nobody vouches for has greeted: %q", got)
	}
	g.SetUpstreamRoots(ca.Pool)
	if got := greeting(); !strings.HasPrefix(got, "* OK") {
		t.Errorf("%q", got)
	}
}
