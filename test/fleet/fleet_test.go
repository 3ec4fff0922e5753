// Package fleet holds tests of three replicas with one ledger, one set of ticket keys
// and one load balancer, all of them real.
package fleet

import (
	"crypto/tls"
	"fmt"
	"io"
	"maps"
	"net"
	"net/url"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"postern/internal/posterntest"
)

func TestMain(m *testing.M) { posterntest.Main(m) }

const replicas = 3

// old is a client that the floor refuses.
var old = &tls.Config{MaxVersion: tls.VersionTLS10, MinVersion: tls.VersionTLS10}

// fleet is replicas with one certificate and one policy.
type fleet struct {
	gates []*posterntest.Proxy
	ca    *posterntest.CA
	env   map[string]string // that all of them have

	logins atomic.Int64 // that took no longer than mailTime
}

// start starts replicas; each gets what env returns for it, too.
func start(t *testing.T, env func(i int) map[string]string) *fleet {
	t.Helper()
	up := posterntest.StartUpstream(t, posterntest.IMAPGreeting, posterntest.IMAPReply)
	ca := posterntest.NewCA(t)
	pair := ca.Issue(t, posterntest.DefaultNames, posterntest.RSA)
	f := &fleet{env: map[string]string{
		"UPSTREAM_IMAP": up.URL("imap"), "LISTEN_IMAP": "off", "TLS_CERT_FILE": pair.CertFile, "TLS_KEY_FILE": pair.KeyFile,
	}, ca: ca}
	for i := range replicas {
		f.add(t, env(i))
	}
	return f
}

// add starts one more replica.
func (f *fleet) add(t *testing.T, more map[string]string) *posterntest.Proxy {
	t.Helper()
	env := maps.Clone(f.env)
	maps.Copy(env, more)
	g := posterntest.Start(t, env)
	g.CA = f.ca
	f.gates = append(f.gates, g)
	return g
}

// sums are what clients have counted, by address.
type sums struct {
	mu   sync.Mutex
	seen map[string]int
}

// load has old clients log in at a replica each, the first of which has a number, until the returned function is called;
// it returns what they have counted. Each login has to succeed.
func (f *fleet) load(t *testing.T, first int) (stop func() map[string]int) {
	s := sums{seen: make(map[string]int)}
	var group sync.WaitGroup
	var ended atomic.Bool
	for i, g := range f.gates {
		group.Go(func() {
			for n := 0; !ended.Load(); n++ {
				// One in two is new, the others are the same for all replicas.
				from := fmt.Sprintf("127.%d.%d.%d", 10+first+i, n/200, 1+n%200)
				if n%2 == 0 {
					from = fmt.Sprintf("127.9.0.%d", 1+n%20)
				}
				begun := time.Now()
				c, err := posterntest.Caller{From: from, TLS: old}.Login(g, "imaps", "anna", "password")
				if err != nil {
					t.Errorf("replica %d: a client was not served: %v", i+1, err)
					return
				}
				c.Close()
				if time.Since(begun) <= mailTime {
					f.logins.Add(1)
				}
				s.mu.Lock()
				s.seen[from]++
				s.mu.Unlock()
				time.Sleep(20 * time.Millisecond)
			}
		})
	}
	return func() map[string]int {
		ended.Store(true)
		group.Wait()
		return s.seen
	}
}

// mailTime is how long a login may take. Some may take longer on a busy machine.
const mailTime = 2 * time.Second

// address is a TCP address that leads to a server, and may lead to another.
type address struct {
	at string
	to atomic.Pointer[string]
}

// forward returns an address that leads to a server, as that of a fail-over does.
func forward(t *testing.T, to string) *address {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	a := &address{at: l.Addr().String()}
	a.to.Store(&to)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go a.relay(c)
		}
	}()
	return a
}

func (a *address) relay(c net.Conn) {
	defer c.Close()
	s, err := net.Dial("tcp", *a.to.Load())
	if err != nil {
		return
	}
	defer s.Close()
	go func() {
		io.Copy(s, c)
		s.Close()
	}()
	io.Copy(c, s)
}

// through returns the URL of a database by another address.
func through(t *testing.T, database, at string) string {
	t.Helper()
	u, err := url.Parse(database)
	if err != nil {
		t.Fatal(err)
	}
	u.Host = at
	return u.String()
}
