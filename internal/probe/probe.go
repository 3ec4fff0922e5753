// Package probe finds out what TLS a mail server takes, Postern or any other: one hello
// on a connection of its own for each generation of TLS, and for each kind of suite,
// signature and group that a floor is about. What came back is read from the wire.
package probe

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"postern/internal/hello"
	"postern/internal/mailproto"
	"postern/internal/text"
	"postern/policy"
)

const (
	// perHost bounds the connections to one address at once, parallel those in all.
	perHost  = 4
	parallel = 64
	// share of a listener's time that one of its connections may take.
	share = 4
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

// Listener is one port at one address of a target, and what was found.
type Listener struct {
	Target  string `json:"target"`
	Address string `json:"address,omitempty"`
	Port    int    `json:"port"`
	// StartTLS is imap or pop3, or empty.
	StartTLS string `json:"starttls,omitempty"`
	// Error is why nothing could be found.
	Error string `json:"error,omitempty"`
	// Login: it offers login, or allows it, before TLS; nil where TLS begins at once.
	Login *bool `json:"login_before_tls,omitempty"`
	// Injected: it obeys inside TLS what was sent before; nil where nobody asked.
	Injected *bool    `json:"injected,omitempty"`
	Results  []Result `json:"offers,omitempty"`
	Chains   []*Chain `json:"certificates,omitempty"`
	// Floor is the highest that nothing it takes is below, or none.
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

// mailPorts are those known by number.
var mailPorts = []mailPort{{993, "imaps", ""}, {995, "pop3s", ""}, {143, "imap", "imap"}, {110, "pop3", "pop3"}}

// Listeners lists what targets stand for, HOST or HOST:PORT: every address of a name
// on its own, and without a port all four of mail. A name that cannot be resolved is
// one with that Error; err is a target that cannot be read.
func Listeners(ctx context.Context, targets []string, o Options) (all []*Listener, err error) {
	for _, target := range targets {
		host, number, err := net.SplitHostPort(target)
		if err != nil {
			host, number, err = net.SplitHostPort(target + ":")
		}
		if _, alone := netip.ParseAddr(target); alone == nil {
			host, number, err = target, "", nil
		}
		port, bad := strconv.ParseUint(cmp.Or(number, "1"), 10, 16)
		if err != nil || bad != nil || port == 0 || host == "" || strings.ContainsAny(host, "/ ") {
			return nil, fmt.Errorf("%s: write HOST, HOST:PORT or [IPv6]:PORT, with a port from 1 to 65535", quoted(target))
		}
		ports := slices.Clone(mailPorts)
		if number != "" {
			ports = slices.DeleteFunc(ports, func(p mailPort) bool { return p.number != int(port) })
		}
		if len(ports) == 0 {
			ports = []mailPort{{int(port), cmp.Or(o.StartTLS, "tls"), o.StartTLS}}
		}
		addresses, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
		if err != nil {
			all = append(all, &Listener{Target: target, name: host, Error: words(err, o.Timeout)})
		}
		if _, err := netip.ParseAddr(host); err == nil {
			host = ""
		}
		for _, a := range addresses {
			for _, p := range ports {
				l := &Listener{Target: target, Address: a.Unmap().String(), Port: p.number, StartTLS: p.startTLS, sni: host}
				l.name = strings.TrimSpace(host + " " + l.Addr() + " " + p.name)
				all = append(all, l)
			}
		}
	}
	return all, nil
}

// Run probes listeners side by side, and tells after each how many are done.
func Run(ctx context.Context, all []*Listener, o Options, progress func(done int)) {
	hosts := make(map[string]chan struct{})
	for _, l := range all {
		hosts[l.Address] = make(chan struct{}, perHost)
	}
	slots, done := make(chan struct{}, parallel), make(chan struct{})
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
			done <- struct{}{}
		}()
	}
	for i := range all {
		<-done
		progress(i + 1)
	}
}

// probe asks one connection after the other.
func (l *Listener) probe(ctx context.Context, o Options) {
	ctx, cancel := context.WithTimeout(ctx, o.Timeout)
	defer cancel()
	p := Port{Addr: l.Addr(), StartTLS: l.StartTLS, Timeout: o.Timeout / share}
	if l.StartTLS != "" {
		if err := l.talk(ctx, p); err != nil {
			l.Error = l.diagnose(ctx, p, err)
			return
		}
	}
	for _, of := range offers() {
		if of.Offer == fallback && !l.fallback(&of) || of.Offer == noName && l.sni == "" {
			continue
		}
		r, err := l.ask(ctx, p, of)
		l.Results = append(l.Results, r)
		// The first two tell whether there is anything to find.
		if (len(l.Results) == 2 || Dialing(err)) && !slices.ContainsFunc(l.Results, Result.inTLS) {
			l.Error, l.Results = l.diagnose(ctx, p, cmp.Or(err, error(refusal(r.Answer)))), nil
			return
		}
	}
	l.inside(ctx, p, o)
}

func (l *Listener) ask(ctx context.Context, p Port, of offer) (Result, error) {
	f, err := p.Ask(ctx, of.first(l.sni))
	if err == nil && f.Kind == hello.Closed {
		err = io.EOF
	}
	r := Result{offer: of, Unknown: timedOut(err)}
	switch {
	case err == nil:
		r.take(f)
		l.see(f.Certificates)
	case ctx.Err() != nil:
		r.Answer = "no time left"
	default:
		r.Answer = words(err, p.Timeout)
	}
	return r, err
}

// fallback makes the offer one of the second best version that the server takes, if
// there is one, with the word that the client could do better (RFC 7507).
func (l *Listener) fallback(of *offer) bool {
	taken := l.taken(policy.SSL3)
	if len(taken) < 2 {
		return false
	}
	of.version = taken[1]
	of.title += " (" + of.version.Name() + ")"
	of.spec = hello.Wide(uint16(of.version))
	of.spec.CipherSuites = append(of.spec.CipherSuites, tls.TLS_FALLBACK_SCSV)
	return true
}

// taken lists the versions from one on that the server takes, newest first.
func (l *Listener) taken(least policy.Version) (list []policy.Version) {
	for _, r := range l.Results {
		if r.isVersion() && r.Taken && r.version >= least {
			list = append(list, r.version)
		}
	}
	return list
}

// talk asks what a server offers before TLS, and takes its leave.
func (l *Listener) talk(ctx context.Context, p Port) error {
	c, err := p.dial(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	_, lines, err := c.Say(text.Either(c.imap, "CAPABILITY", "CAPA"))
	if err != nil {
		return err
	}
	said := strings.Fields(strings.ToUpper(strings.Join(lines, " ")))
	if c.imap {
		lines = said
	}
	mechanisms, refused := mailproto.Logins(lines, c.imap)
	allowed := !refused || slices.Contains(mechanisms, "PLAIN") || slices.Contains(mechanisms, "LOGIN")
	l.Login = &allowed
	c.leave()
	if command := text.Either(c.imap, "STARTTLS", "STLS"); !slices.Contains(said, command) {
		return refusal("offers no " + command)
	}
	return nil
}

// diagnose says why a server cannot be probed. Where it is silent or hangs up, it is
// asked once more behind a PROXY header.
func (l *Listener) diagnose(ctx context.Context, p Port, err error) string {
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

// inside carries handshakes to their end: one of TLS 1.3, whose certificates are
// encrypted, and those of old versions, which may be taken only to say why not.
func (l *Listener) inside(ctx context.Context, p Port, o Options) {
	taken := l.taken(policy.TLS10)
	for i := range l.Results {
		r := &l.Results[i]
		if !r.isVersion() || !slices.Contains(taken, r.version) || r.version == policy.TLS12 && len(taken) > 1 {
			continue
		}
		// crypto/tls need not know a suite of the server's.
		if c, chain, err := p.enter(ctx, uint16(r.version), l.sni, ""); err == nil {
			l.see(chain)
			r.Refusal = c.turnedAway(p.StartTLS == "")
		}
	}
	if o.Injection && l.StartTLS != "" && len(taken) > 0 {
		l.Injected = new(bool)
		if c, _, err := p.enter(ctx, uint16(taken[0]), l.sni, text.Either(l.StartTLS == "imap", "\r\ninjected NOOP", "\r\nNOOP")); err == nil {
			c.SetDeadline(time.Now().Add(time.Second))
			_, err = c.Next()
			*l.Injected = err == nil
			c.Close()
		}
	}
}
