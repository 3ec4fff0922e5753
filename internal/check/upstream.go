package check

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"postern/internal/config"
	"postern/internal/hello"
	"postern/internal/mailproto"
	"postern/internal/policyfile"
	"postern/internal/probe"
	"postern/internal/text"
	"postern/proxy"
)

// server is an upstream or an old server to check.
type server struct {
	name string
	// ask reports what is fine and what is not; the error is why nobody can be served.
	ask func(ctx context.Context, r *Report, name string) error
}

// servers checks all upstreams and old servers at once, and reports in their
// order, but for those that are Postern itself. If the roots could not be read, TLS to
// upstreams is not tried.
func (r *Report) servers(ctx context.Context, cfg *config.Config, roots *x509.CertPool, own []string) {
	pc := proxy.Config{
		UpstreamRoots:         roots,
		UpstreamProxyProtocol: cfg.ProxyVersion(),
		UpstreamClientID:      cfg.UpstreamClientID == "id",
		UpstreamTimeout:       cmp.Or(cfg.UpstreamTimeout, 10*time.Second), // if it did not parse, its default
	}
	var list []server
	for _, u := range slices.Concat(cfg.UpstreamIMAP, cfg.UpstreamPOP3) {
		t := target{u, cfg.ForProxy(u), pc}
		s := server{u.Variable() + ": " + u.String(), t.ask}
		if u.Scheme.TLS != proxy.LinePlain && roots == nil && cfg.UpstreamCAFile != "" {
			unusable := errors.New("not asked, since " + variable("UPSTREAM_CA_FILE") + " cannot be used: mend that first")
			s.ask = func(context.Context, *Report, string) error { return unusable }
		}
		list = append(list, s)
	}
	for _, l := range cfg.PassingThrough() {
		port := probe.Port{Addr: string(l.Passthrough), Timeout: pc.UpstreamTimeout, Header: pc.UpstreamProxyProtocol}
		list = append(list, server{l.PassthroughVariable() + ": " + port.Addr, func(ctx context.Context, r *Report, name string) error {
			r.Fine = []string{name + ": answers in TLS"}
			return answersTLS(ctx, port)
		}})
	}
	list = slices.DeleteFunc(list, func(s server) bool { return slices.Contains(own, s.name) })
	found := make([]Report, len(list))
	var wg sync.WaitGroup
	for i, s := range list {
		wg.Go(func() {
			err := s.ask(ctx, &found[i], s.name)
			if err == nil {
				return
			}
			problem := text.Clean(err.Error(), 500)
			if errors.Is(err, os.ErrDeadlineExceeded) {
				problem = fmt.Sprintf("no answer in %v: %s", pc.UpstreamTimeout, problem)
			}
			found[i] = Report{Unanswered: []string{s.name + ": " + problem}}
		})
	}
	wg.Wait()
	for _, f := range found {
		r.Unanswered = append(r.Unanswered, f.Unanswered...)
		r.Warnings = append(r.Warnings, f.Warnings...)
		r.Fine = append(r.Fine, f.Fine...)
	}
	r.past(ctx, cfg, pc.UpstreamTimeout)
}

// answersTLS sends a hello, and accepts any answer in TLS, even an alert: no
// hello suits every old server.
func answersTLS(ctx context.Context, port probe.Port) error {
	switch answer, err := port.Ask(ctx, hello.ClientHello(hello.Typical(tls.VersionTLS12))); {
	case probe.Dialing(err):
		return fmt.Errorf("dialing: %w: does the old server run, on this port?", err)
	case err != nil:
		return err
	case answer.Kind == hello.Closed:
		words := text.Either(port.Header == 0, "v2 if it waits for a PROXY header",
			"off if it expects no PROXY header, else have it trust this host with one ("+proxy.TrustHeader+")")
		return fmt.Errorf("it hangs up on a hello: set %s=%s", variable("UPSTREAM_PROXY_PROTOCOL"), words)
	case answer.Kind == hello.Text:
		return fmt.Errorf("not a port for TLS: name that port: it says %s", probe.Quoted(answer.Text))
	}
	return nil
}

// target is one upstream and how to talk to it.
type target struct {
	config.Upstream
	as proxy.UpstreamConfig
	pc proxy.Config
}

func (t target) ask(ctx context.Context, r *Report, name string) error {
	a, err := proxy.Ask(ctx, t.pc, proxy.Protocol(t.Scheme.Protocol), t.as)
	if errors.Is(err, os.ErrDeadlineExceeded) && t.Scheme.TLS != proxy.LineTLS {
		port := probe.Port{Addr: t.Addr(), Timeout: min(t.pc.UpstreamTimeout, 3*time.Second), Header: t.pc.UpstreamProxyProtocol}
		if answersTLS(ctx, port) == nil {
			err = fmt.Errorf("it does not greet, but answers TLS: write %ss://%s", t.Scheme.Protocol, t.Addr())
		}
	}
	if err != nil {
		return err
	}
	r.Fine = append(r.Fine, name+": answers with "+probe.Quoted(a.Greeting))
	mechanisms, refused := mailproto.Logins(a.Capabilities, t.Scheme.Protocol == "imap")
	if bound := slices.DeleteFunc(slices.Clone(mechanisms), func(m string) bool { return !strings.HasSuffix(m, "-PLUS") }); len(bound) > 0 {
		r.warn(name, "%s will not be offered to clients: channel binding cannot pass a proxy that terminates TLS", strings.Join(bound, ", "))
	}
	if refused && t.Scheme.TLS == proxy.LinePlain {
		r.warn(name, "it refuses logins on a plain line: %s", t.allowPlain(a.Greeting))
	}
	if t.pc.UpstreamClientID && t.Scheme.Protocol == "imap" {
		r.believes(name, a.ID)
	}
	return nil
}

// allowPlain says how a server is made to take passwords from Postern.
func (t target) allowPlain(greeting string) string {
	name := variable("UPSTREAM_PROXY_PROTOCOL")
	header := "set " + name + "=v2, which says that clients are encrypted (" + proxy.TrustHeader + ")"
	switch t.pc.UpstreamProxyProtocol {
	case 1:
		header = name + "=v1 cannot say that clients are encrypted: set v2"
	case 2:
		header = "it does not heed what the PROXY header says of TLS (Dovecot: is Postern in haproxy_trusted_networks?)"
	}
	tls := "use " + t.Scheme.Protocol + "s:// or " + t.Scheme.Protocol + "+starttls://"
	if strings.Contains(greeting, "Cyrus") {
		return tls + ", or set allowplaintext: yes in its imapd.conf; Cyrus does not heed what a PROXY header says of TLS"
	}
	return header + "; or " + tls + ", or allow plain logins from Postern"
}

// believes judges the reply of a server to an ID with a client's address.
func (r *Report) believes(server, reply string) {
	name := variable("UPSTREAM_CLIENT_ID")
	switch said := probe.Quoted(reply); {
	case !mailproto.HasPrefixFold([]byte(reply), "OK"):
		r.warn(server, "%s=id has no effect: it answers an ID before login with %s; use %s, or leave it off",
			name, said, variable("UPSTREAM_PROXY_PROTOCOL"))
	case mailproto.HasPrefixFold([]byte(reply), "OK Trusted"):
		r.Fine = append(r.Fine, fmt.Sprintf("%s: believes the client's address (%s=id)", server, name))
	default:
		r.warn(server, "%s=id: it answers %s, which does not say that it believes the address: Dovecot 2.4 does not; "+
			"2.3 never says. See to it that Postern is in login_trusted_networks, and look for clients' addresses in its log", name, said)
	}
}

// reachedFromHere reports an address that only this host reaches; a test has another.
var reachedFromHere = netip.Addr.IsLoopback

// past warns of ports at the upstreams' addresses, those of mail and the upstreams' own,
// that take handshakes below the floor: whoever reaches them gets in past Postern. Only
// this host reaches those on loopback.
func (r *Report) past(ctx context.Context, cfg *config.Config, timeout time.Duration) {
	p, err := policyfile.Of(cfg)
	if err != nil {
		return // which was said
	}
	o := probe.Options{Timeout: timeout, Floor: p.Floor()}
	var all []*probe.Listener
	variables := make(map[string]string) // by address, of those that were seen
	for _, l := range cfg.PassingThrough() {
		variables[string(l.Passthrough)] = l.PassthroughVariable()
	}
	for _, u := range slices.Concat(cfg.UpstreamIMAP, cfg.UpstreamPOP3) {
		o.StartTLS = text.Either(u.Scheme.TLS == proxy.LineTLS, "", u.Scheme.Protocol)
		found, _ := probe.Listeners(ctx, []string{u.Host, u.Addr()}, o)
		for _, l := range found {
			ip, err := netip.ParseAddr(l.Address)
			port := strconv.Itoa(l.Port)
			if err == nil && !reachedFromHere(ip) && variables[l.Addr()]+variables[net.JoinHostPort(u.Host, port)]+cfg.OwnListener([]netip.Addr{ip}, port) == "" {
				all, variables[l.Addr()] = append(all, l), u.Variable()
			}
		}
	}
	probe.Run(ctx, all, o, func(int) {})
	for _, l := range all {
		if l.Below(o.Floor) {
			r.warn(variables[l.Addr()], "%s is a way past Postern for whoever reaches it: close it to clients, or raise what it takes; it %s", l.Addr(), l.Summary)
		}
	}
}
