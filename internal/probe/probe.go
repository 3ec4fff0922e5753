// Package probe finds out what TLS a mail server takes, Postern or any other: one hello
// on a connection of its own for each generation of TLS, and for each kind of suite,
// signature and group that a floor is about. What came back is read from the wire.
package probe

import (
	"bytes"
	"cmp"
	"context"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"postern/internal/config"
	"postern/internal/hello"
	"postern/internal/mailproto"
	"postern/internal/text"
	"postern/policy"
)

const (
	// perHost bounds the connections to one address at once, parallel those in all.
	perHost  = 4
	parallel = 64
	// share of a listener's time that one of its connections may take, and the most.
	share, longest = 4, 10 * time.Second
	// noTime is the answer to an offer that there was no time left to make.
	noTime = "no time left"
)

// Options are what all listeners have in common.
type Options struct {
	// StartTLS is imap or pop3: how TLS begins on ports that are not known by number;
	// empty where it begins at once.
	StartTLS string
	// Timeout bounds the time for a listener.
	Timeout time.Duration
	// Floor is what a summary speaks of.
	Floor policy.Floor
	// Injection asks whether a command behind STARTTLS is obeyed inside TLS.
	Injection bool
}

// connection is the time that one connection may take.
func (o Options) connection() time.Duration { return min(o.Timeout/share, longest) }

// Listener is one port at one address of a target, and what was found.
type Listener struct {
	Target  string `json:"target"`
	Address string `json:"address,omitempty"`
	Port    int    `json:"port,omitempty"`
	// StartTLS is imap or pop3, or empty.
	StartTLS string `json:"starttls,omitempty"`
	// Error is why nothing could be found.
	Error string `json:"error,omitempty"`
	// Incomplete: there was no time left for some of the offers.
	Incomplete bool `json:"incomplete,omitempty"`
	// Login: it offers login, or allows it, before TLS; nil where TLS begins at once.
	Login *bool `json:"login_before_tls,omitempty"`
	// Injected: it obeys inside TLS what was sent before; nil where nobody asked.
	Injected *bool    `json:"injected,omitempty"`
	Results  []Result `json:"offers,omitempty"`
	Chains   []*Chain `json:"certificates,omitempty"`
	// Floor is the highest that nothing it takes is below, or none; empty where that is
	// not known.
	Floor   string `json:"floor,omitempty"`
	Summary string `json:"summary"`

	name string // with its port and protocol
	sni  string // empty for an address (RFC 6066, Section 3)
}

// Addr is where it listens.
func (l *Listener) Addr() string { return net.JoinHostPort(l.Address, strconv.Itoa(l.Port)) }

// mailPort is a port with how TLS begins there.
type mailPort struct {
	number         int
	name, startTLS string
}

// anyPort is that of a target without one.
const anyPort = -1

// mailPorts are those known by number.
var mailPorts = []mailPort{{993, "imaps", ""}, {995, "pop3s", ""}, {143, "imap", "imap"}, {110, "pop3", "pop3"}}

// ParseTarget reads HOST or HOST:PORT; without a port it is -1.
func ParseTarget(target string) (host string, port int, err error) {
	spelt := target
	if _, err := netip.ParseAddr(target); err == nil && strings.Contains(target, ":") {
		spelt = "[" + target + "]"
	}
	host, port, problem := config.ParseAddr(spelt, true, anyPort)
	if problem != "" {
		err = fmt.Errorf("%s: %s", Quoted(target), problem)
	}
	return host, port, err
}

// Listeners lists what targets stand for, HOST or HOST:PORT: every address of a name
// on its own, and without a port all four of mail. A name that cannot be resolved is
// one with that Error; err is a target that cannot be read.
func Listeners(ctx context.Context, targets []string, o Options) (all []*Listener, err error) {
	for _, target := range targets {
		host, port, err := ParseTarget(target)
		if err != nil {
			return nil, err
		}
		ports := slices.DeleteFunc(slices.Clone(mailPorts), func(p mailPort) bool { return port != anyPort && p.number != port })
		if len(ports) == 0 {
			ports = []mailPort{{port, cmp.Or(o.StartTLS, "tls"), o.StartTLS}}
		}
		lookup, cancel := context.WithTimeout(ctx, o.Timeout)
		addresses, err := net.DefaultResolver.LookupNetIP(lookup, "ip", host)
		cancel()
		if err != nil {
			all = append(all, &Listener{Target: target, name: host, Error: words(err, o.Timeout)})
		}
		if _, err := netip.ParseAddr(host); err == nil {
			host = ""
		}
		for _, a := range addresses {
			for _, p := range ports {
				l := &Listener{Target: target, Address: a.Unmap().String(), Port: p.number, StartTLS: p.startTLS, sni: strings.TrimSuffix(host, ".")}
				l.name = strings.TrimSpace(host + " " + l.Addr() + " " + p.name)
				all = append(all, l)
			}
		}
	}
	return all, nil
}

// Run probes listeners side by side, and tells after each how many are done.
func Run(ctx context.Context, all []*Listener, o Options, progress func(done int)) {
	slots, hosts := make(chan struct{}, parallel), make(map[string]chan struct{})
	for _, l := range all {
		hosts[l.Address] = make(chan struct{}, perHost)
	}
	finished := make(chan struct{})
	for _, l := range all {
		go func() {
			hosts[l.Address] <- struct{}{}
			slots <- struct{}{}
			if l.Error == "" {
				l.probe(ctx, o)
			}
			l.conclude(o.Floor)
			<-slots
			<-hosts[l.Address]
			finished <- struct{}{}
		}()
	}
	for done := range all {
		<-finished
		progress(done + 1)
	}
}

// probe asks one connection after the other.
func (l *Listener) probe(ctx context.Context, o Options) {
	ctx, cancel := context.WithTimeout(ctx, o.Timeout)
	defer cancel()
	p := Port{Addr: l.Addr(), StartTLS: l.StartTLS, Timeout: o.connection()}
	if err := l.talk(ctx, p); err != nil {
		l.Error = diagnose(ctx, p, err)
		return
	}
	for _, of := range offers() {
		if of.Offer == fallback && !l.fallback(&of) || of.Offer == noName && l.sni == "" {
			continue
		}
		r, err := l.ask(ctx, p, of)
		l.Results = append(l.Results, r)
		// The first two tell whether there is anything to find.
		if len(l.Results) == 2 && !slices.ContainsFunc(l.Results, Result.inTLS) {
			l.Error, l.Results = diagnose(ctx, p, cmp.Or(err, error(refusal(r.Answer)))), nil
			return
		}
	}
	l.inside(ctx, p, o)
}

// ask makes an offer; the error is why there is no answer.
func (l *Listener) ask(ctx context.Context, p Port, of offer) (Result, error) {
	of.spec.ServerName = text.Either(of.Offer == noName, "", l.sni)
	f, err := p.Ask(ctx, hello.ClientHello(of.spec))
	if err == nil && f.Kind == hello.Closed {
		err = io.EOF
	}
	r := Result{offer: of, Unknown: timedOut(err)}
	end, _ := ctx.Deadline()
	switch {
	case err == nil:
		r.take(f)
		l.see(f.Certificates)
	case !time.Now().Before(end): // the context may hear of it later
		r.Answer, l.Incomplete = noTime, true
	default:
		r.Answer = words(err, p.Timeout)
	}
	return r, err
}

// fallback makes the offer one of the second best version that the server takes, if
// there is one, with the word that the client could do better (RFC 7507).
func (l *Listener) fallback(of *offer) bool {
	taken := l.taken()
	if len(taken) < 2 || taken[1].version < policy.SSL3 {
		return false
	}
	of.version, of.spec = taken[1].version, taken[1].spec
	of.title += " (" + of.version.Name() + ")"
	of.spec.CipherSuites = append(of.spec.CipherSuites, tls.TLS_FALLBACK_SCSV)
	return true
}

// taken lists the results with the versions that the server takes, newest first, and
// behind them TLS 1.3 with hybrid groups.
func (l *Listener) taken() (list []*Result) {
	for i := range l.Results {
		if r := &l.Results[i]; (r.isVersion() || r.Offer == hybrid) && r.Taken {
			list = append(list, r)
		}
	}
	return list
}

// talk asks what a server offers before TLS, if it says anything, and takes its leave.
func (l *Listener) talk(ctx context.Context, p Port) error {
	if l.StartTLS == "" {
		return nil
	}
	c, err := p.dial(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	_, lines, err := c.Say(c.Verb("CAPABILITY", "CAPA"))
	if err != nil {
		return err
	}
	said := strings.Fields(strings.ToUpper(strings.Join(lines, " ")))
	if c.IMAP {
		lines = said
	}
	mechanisms, refused := mailproto.Logins(lines, c.IMAP)
	l.Login = new(!refused || slices.Contains(mechanisms, "PLAIN") || slices.Contains(mechanisms, "LOGIN"))
	c.leave()
	if command := c.Verb("STARTTLS", "STLS"); !slices.Contains(said, command) {
		return refusal("offers no " + command)
	}
	return nil
}

// diagnose says why a server cannot be probed. Where it is silent or hangs up, it is
// asked once more behind a PROXY header.
func diagnose(ctx context.Context, p Port, err error) string {
	said := words(err, p.Timeout)
	if Dialing(err) || errors.As(err, new(refusal)) {
		return said
	}
	p.Header = 1
	if f, err := p.Ask(ctx, hello.ClientHello(hello.Wide(tls.VersionTLS12))); err == nil && (f.Kind == hello.Alert || f.Kind == hello.ServerHello) {
		return said + ", but answers behind a PROXY header"
	}
	return said
}

// inside carries handshakes to their end: that of TLS 1.3, whose certificates are
// encrypted, and those of older versions, which may be taken only to say why not.
func (l *Listener) inside(ctx context.Context, p Port, o Options) {
	taken := slices.DeleteFunc(l.taken(), func(r *Result) bool { return r.version < policy.TLS10 })
	for _, r := range taken {
		// crypto/tls need not know a suite of the server's.
		if c, err := l.enter(ctx, p, r.version, ""); err == nil {
			r.Refusal = c.turnedAway(p.StartTLS == "")
		}
	}
	if o.Injection && l.StartTLS != "" && len(taken) > 0 {
		l.Injected = new(bool)
		if c, err := l.enter(ctx, p, taken[0].version, "\r\n"+text.Either(l.StartTLS == "imap", "injected NOOP", "NOOP")); err == nil {
			c.SetDeadline(time.Now().Add(time.Second))
			_, err = c.Line()
			*l.Injected = err == nil
			c.Close()
		}
	}
}

// enter carries a handshake to its end, and keeps the chain; behind is sent in one piece
// with STARTTLS.
func (l *Listener) enter(ctx context.Context, p Port, version policy.Version, behind string) (*Line, error) {
	c, err := p.Open(ctx, behind)
	if err != nil {
		return nil, err
	}
	state, err := c.Enter(version, l.sni, nil)
	if err != nil {
		c.Close()
		return nil, err
	}
	l.see(text.Each(state.PeerCertificates, func(c *x509.Certificate) []byte { return c.Raw }))
	return c, nil
}

// Chain is a certificate with what was sent beside it.
type Chain struct {
	// Names are the alternative ones, or the subject where there are none.
	Names    []string  `json:"names"`
	Key      string    `json:"key"`
	NotAfter time.Time `json:"not_after"`
	// Problem is why clients may not accept it, whatever roots they have.
	Problem string `json:"problem,omitempty"`

	leaf []byte
}

// see keeps a chain that was not seen before. It is judged by itself, not by the roots
// of this host, which other clients need not have.
func (l *Listener) see(der [][]byte) {
	if len(der) == 0 || slices.ContainsFunc(l.Chains, func(c *Chain) bool { return bytes.Equal(c.leaf, der[0]) }) {
		return
	}
	c := &Chain{leaf: der[0]}
	l.Chains = append(l.Chains, c)
	chain, err := x509.ParseCertificates(slices.Concat(der...))
	if err != nil {
		c.Problem = "it cannot be read: " + err.Error()
		return
	}
	leaf, last := chain[0], chain[len(chain)-1]
	c.Names, c.Key, c.NotAfter = slices.Concat(leaf.DNSNames, text.Each(leaf.IPAddresses, net.IP.String)), leaf.PublicKeyAlgorithm.String(), leaf.NotAfter
	if len(c.Names) == 0 {
		c.Names = []string{leaf.Subject.String()}
	}
	switch key := leaf.PublicKey.(type) {
	case *rsa.PublicKey:
		c.Key += fmt.Sprintf(" %d", key.N.BitLen())
	case *ecdsa.PublicKey:
		c.Key += " " + key.Curve.Params().Name
	}
	o := x509.VerifyOptions{Roots: x509.NewCertPool(), Intermediates: x509.NewCertPool(), DNSName: l.sni}
	for _, other := range chain[1:] {
		o.Intermediates.AddCert(other)
	}
	o.Roots.AddCert(last)
	issued := slices.ContainsFunc(chain[1:], func(other *x509.Certificate) bool { return bytes.Equal(other.RawSubject, leaf.RawIssuer) })
	if !issued {
		o.Roots.AddCert(leaf)
	}
	_, err = leaf.Verify(o)
	switch {
	case err != nil:
		c.Problem = strings.TrimPrefix(err.Error(), "x509: ")
	case bytes.Equal(leaf.RawSubject, leaf.RawIssuer):
		c.Problem = "it is signed by itself"
	case !issued:
		c.Problem = "the certificate of its issuer is not sent: " + leaf.Issuer.String()
	}
}

// String describes a chain in one line.
func (c *Chain) String() string {
	if c.Key == "" {
		return text.Clean("certificate: "+c.Problem, 1000)
	}
	return text.Clean(fmt.Sprintf("certificate for %s: %s, until %s%s%s", strings.Join(c.Names, ", "), c.Key,
		c.NotAfter.UTC().Format(time.DateOnly), text.Either(c.Problem == "", "", "; "), c.Problem), 1000)
}
