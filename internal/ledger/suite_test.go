package ledger

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"postern/internal/postgrestest"
	"postern/policy"
	"postern/proxy"
)

func TestMain(m *testing.M) {
	if path := os.Getenv("POSTERN_TEST_LEDGER_CHILD"); path != "" {
		child(path)
		return
	}
	code := m.Run()
	if launched {
		if s, err := server(); err == nil {
			if err := s.Close(); err != nil {
				fmt.Fprintln(os.Stderr, err)
				code = 1
			}
		}
	}
	os.RemoveAll(unracedDir)
	os.Exit(code)
}

// server is the PostgreSQL of all tests; each has a database of its own.
var server = sync.OnceValues(func() (*postgrestest.Server, error) {
	launched = true
	return postgrestest.Launch()
})

var launched bool

func pg(t testing.TB) *postgrestest.Server {
	t.Helper()
	s, err := server()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// newURL is the URL of an empty ledger of a kind.
func newURL(t testing.TB, kind string) string {
	t.Helper()
	switch kind {
	case "sqlite":
		return "sqlite:" + filepath.Join(t.TempDir(), "ledger.db")
	case "postgres":
		return pg(t).NewDatabase(t)
	case "pgbouncer":
		return postgrestest.Pooled(t, pg(t).NewDatabase(t))
	}
	return Memory
}

// each runs a test with a replica on each kind of store.
func each(t *testing.T, test func(t *testing.T, g *replica)) {
	for _, kind := range []string{"memory", "sqlite", "postgres"} {
		t.Run(kind, func(t *testing.T) { test(t, newReplica(t, newURL(t, kind))) })
	}
}

// replica is a recorder with its store and its clock.
type replica struct {
	t   testing.TB
	url string
	*Recorder
	store *Store
	clock *atomic.Int64
}

var noon = time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)

func plainIdentity(account string) string { return account }

func newReplica(t testing.TB, url string) *replica {
	t.Helper()
	g := &replica{t: t, url: url, clock: new(atomic.Int64)}
	g.clock.Store(noon.Unix())
	g.store = openStore(t, url)
	g.restart(plainIdentity)
	return g
}

func openStore(t testing.TB, url string) *Store {
	t.Helper()
	s, err := Open(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

var silent = slog.New(slog.NewTextHandler(io.Discard, nil))

// restart begins with a recorder that knows nothing but the store: in a file or
// a server, one that is opened anew.
func (g *replica) restart(identity func(string) string) {
	g.t.Helper()
	if g.Recorder != nil {
		g.flush()
		if g.url != Memory {
			g.store.Close()
			g.store = openStore(g.t, g.url)
		}
	}
	g.Recorder = NewRecorder(Options{Store: g.store, Log: silent, Identity: identity, Now: func() time.Time { return time.Unix(g.clock.Load(), 0) }})
	for _, r := range append([]*Recorder{g.Recorder}, g.remembered...) { // as Run does at first
		r.refresh(context.Background())
	}
}

// another is a second replica with the same ledger and the same clock.
func (g *replica) another() *replica {
	g.t.Helper()
	o := &replica{t: g.t, url: g.url, clock: g.clock, store: g.store}
	if g.url != Memory {
		o.store = openStore(g.t, g.url)
	}
	o.restart(plainIdentity)
	return o
}

func (g *replica) at(t time.Time)          { g.clock.Store(t.Unix()) }
func (g *replica) later(d time.Duration)   { g.clock.Add(int64(d / time.Second)) }
func (g *replica) now() time.Time          { return time.Unix(g.clock.Load(), 0).UTC() }
func (g *replica) meet(h *proxy.Handshake) { g.Handshake(h) }

func (g *replica) flush() {
	g.t.Helper()
	if err := g.Flush(context.Background()); err != nil {
		g.t.Fatal(err)
	}
}

// clients flushes and lists.
func (g *replica) clients(f Filter) []Client {
	g.t.Helper()
	g.flush()
	list, next, err := g.store.Clients(context.Background(), f, Order{}, "", 0)
	if err != nil {
		g.t.Fatal(err)
	}
	if next != "" {
		g.t.Errorf("all clients, and yet a cursor %q", next)
	}
	n, err := g.store.Count(context.Background(), f)
	if err != nil || n != len(list) {
		g.t.Errorf("%d clients are listed, and %d counted, %v", len(list), n, err)
	}
	if len(list) > 200 { // which takes long
		return list
	}
	g.scan(list)
	for _, o := range []Order{{}, {ByLastSeen, true}, {ByHandshakes, false}, {ByClient, true}} {
		g.find(f, o, list)
	}
	return list
}

// scan reads what Scan hands out, which is what Clients lists, each network once.
func (g *replica) scan(list []Client) {
	g.t.Helper()
	got, networks := make(map[int64]Client), make(map[string]bool)
	if err := g.store.Scan(context.Background(), Scope{Logins: true}, func(clients []Client) error {
		network := clients[0].Network()
		if networks[network] {
			g.t.Errorf("%s comes twice", network)
		}
		networks[network] = true
		for _, c := range clients {
			if c.Network() != network {
				g.t.Errorf("%s is with %s", c.Network(), network)
			}
			got[c.id] = c
		}
		return nil
	}); err != nil {
		g.t.Fatal(err)
	}
	for _, c := range list {
		if diff := gocmp.Diff(c, got[c.id], gocmp.AllowUnexported(Client{}), cmpopts.IgnoreFields(Client{}, "place"), gocmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
			g.t.Error(diff)
		}
	}
}

// period counts the clients of a day without noise, each under its oldest version.
type period struct {
	First   time.Time
	Version policy.Version
	Clients int
	Counts  Counts
}

// days lists those since a time, as Scan reads them.
func (g *replica) days(since time.Time) (all []period) {
	g.t.Helper()
	if err := g.store.Scan(context.Background(), Scope{Days: since}, func(clients []Client) error {
		ofNetwork := make(map[int64]*period)
		for _, c := range clients {
			for _, d := range c.Days {
				p := ofNetwork[d.Number]
				if p == nil {
					p = &period{First: d.Date(), Version: c.Version, Clients: 1}
					ofNetwork[d.Number] = p
				}
				p.Version = min(p.Version, c.Version)
				p.Counts.Add(d.Counts)
			}
		}
		for _, p := range ofNetwork {
			if clients[0].Noise {
				continue
			}
			i := slices.IndexFunc(all, func(o period) bool { return o.First.Equal(p.First) && o.Version == p.Version })
			if i < 0 {
				all = append(all, *p)
				continue
			}
			all[i].Clients++
			all[i].Counts.Add(p.Counts)
		}
		return nil
	}); err != nil {
		g.t.Fatal(err)
	}
	slices.SortFunc(all, func(a, b period) int { return cmp.Or(a.First.Compare(b.First), int(a.Version)-int(b.Version)) })
	return all
}

// values are what clients are ordered by; the first as clients has read them.
var values = map[Key]func(*Client) int64{
	ByFirstSeen: func(c *Client) int64 { return c.place },
	ByLastSeen:  func(c *Client) int64 { return c.Last.Unix() },
	ByHandshakes: func(c *Client) int64 {
		return c.Counts.Observed + c.Counts.Explained + c.Counts.Rejected + c.Counts.Failed
	},
	ByClient: func(c *Client) int64 { return networkNumber(c.Addr) },
}

// find turns the pages of a filter, which hold the clients of a list, in order.
func (g *replica) find(f Filter, o Order, list []Client) {
	g.t.Helper()
	want := slices.Clone(list)
	slices.SortFunc(want, func(a, b Client) int {
		n := place{values[o.key()](&a), a.id}.compare(place{values[o.key()](&b), b.id})
		if o.Descending {
			return -n
		}
		return n
	})
	var got []Client
	for cursor := ""; ; {
		p, err := g.store.Find(context.Background(), f, o, cursor, 1+len(list)/3)
		if err != nil || p.Total != len(list) {
			g.t.Fatalf("%v: %d of %d clients, %v", o, p.Total, len(list), err)
		}
		got = append(got, p.Clients...)
		if cursor = p.Next; cursor == "" {
			break
		}
	}
	if diff := gocmp.Diff(want, got, gocmp.AllowUnexported(Client{}), cmpopts.IgnoreFields(Client{}, "place"), gocmp.Comparer(func(a, b netip.Addr) bool { return a == b }), cmpopts.EquateEmpty()); diff != "" {
		g.t.Error(o, diff)
	}
}

// only is the one client that there is.
func (g *replica) only(f Filter) Client {
	g.t.Helper()
	list := g.clients(f)
	if len(list) != 1 {
		g.t.Fatalf("%d clients, want one: %+v", len(list), list)
	}
	return list[0]
}

// addresses are those of a list, in order.
func addresses(list []Client) (all []string) {
	for _, c := range list {
		all = append(all, c.Addr.String())
	}
	slices.Sort(all)
	return all
}

// hello makes the handshake of a client with the address; change it as you like.
func hello(client string, change ...func(*proxy.Handshake)) *proxy.Handshake {
	h := &proxy.Handshake{
		Conn: &proxy.Conn{
			Listener: proxy.IMAPS, Client: netip.AddrPortFrom(netip.MustParseAddr(client), 4000),
			Local: netip.MustParseAddrPort("198.51.100.1:993"), Legacy: true,
		},
		Hello:   &policy.Hello{Versions: []uint16{0x301}, CipherSuites: []uint16{0x2f, 0x35}, ServerName: "imap.example.org"},
		Verdict: policy.Verdict{Version: policy.TLS10, Reason: policy.ReasonVersion},
		Outcome: proxy.Rejected,
	}
	for _, f := range change {
		f(h)
	}
	h.JA4 = h.Hello.Fingerprint()
	return h
}

func outcome(o proxy.Outcome) func(*proxy.Handshake) {
	return func(h *proxy.Handshake) {
		if h.Outcome = o; o == proxy.Observed {
			h.Version = policy.TLS10
		}
	}
}

func program(n int) func(*proxy.Handshake) {
	return func(h *proxy.Handshake) { h.Hello.CipherSuites = []uint16{0x2f, uint16(0x100 + n)} }
}

func serverName(s string) func(*proxy.Handshake) {
	return func(h *proxy.Handshake) { h.Hello.ServerName = s }
}

func version(v policy.Version) func(*proxy.Handshake) {
	return func(h *proxy.Handshake) { h.Verdict.Version, h.Hello.Versions = v, []uint16{uint16(v)} }
}

func reason(r policy.Reason) func(*proxy.Handshake) {
	return func(h *proxy.Handshake) { h.Verdict.Reason = r }
}

func listener(l proxy.Listener, port uint16) func(*proxy.Handshake) {
	return func(h *proxy.Handshake) { h.Listener, h.Local = l, netip.AddrPortFrom(h.Local.Addr(), port) }
}

// session is an observed handshake and a login as somebody.
func (g *replica) session(h *proxy.Handshake, account, software string) {
	outcome(proxy.Observed)(h)
	g.meet(h)
	g.Login(&proxy.Login{Conn: h.Conn, Account: account, Software: software})
	g.Closed(&proxy.Closed{Conn: h.Conn})
}

// asks is what is known about the client of a handshake at its end.
func (g *replica) asks(h *proxy.Handshake) (known int, account, software string) {
	g.meet(h)
	n := g.Identify(h)
	return n.Accounts, n.Account, n.Software
}

// wait waits for something.
func wait(t testing.TB, what string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !done(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waiting for %s", what)
		}
	}
}
