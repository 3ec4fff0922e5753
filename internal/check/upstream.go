package check

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"postern/internal/config"
	"postern/internal/hello"
	"postern/internal/mailproto"
	"postern/internal/probe"
	"postern/internal/text"
	"postern/proxy"
)

// server is an upstream or an old server to check.
type server struct {
	name string
	ask  func(context.Context) finding
}

// finding is the result for a server: a failure, or what is fine and what is not.
type finding struct {
	err            error
	fine, warnings []string
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
			s.ask = func(context.Context) finding { return finding{err: unusable} }
		}
		list = append(list, s)
	}
	for _, l := range cfg.PassingThrough() {
		addr := string(l.Passthrough)
		list = append(list, server{l.PassthroughVariable() + ": " + addr, func(ctx context.Context) finding { return answersTLS(ctx, addr, pc) }})
	}
	list = slices.DeleteFunc(list, func(s server) bool { return slices.Contains(own, s.name) })
	findings := make([]finding, len(list))
	var wg sync.WaitGroup
	for i, s := range list {
		wg.Go(func() { findings[i] = s.ask(ctx) })
	}
	wg.Wait()
	for i, f := range findings {
		name := list[i].name + ": "
		if f.err != nil {
			problem := text.Clean(f.err.Error(), 500)
			if errors.Is(f.err, os.ErrDeadlineExceeded) {
				problem = fmt.Sprintf("no answer in %v: %s", pc.UpstreamTimeout, problem)
			}
			r.Unanswered = append(r.Unanswered, name+problem)
		}
		for _, w := range f.warnings {
			r.Warnings = append(r.Warnings, name+w)
		}
		for _, fine := range f.fine {
			r.Fine = append(r.Fine, name+fine)
		}
	}
	r.past(ctx, cfg, pc.UpstreamTimeout)
}

// answersTLS sends a hello, and accepts any answer in TLS, even an alert: no
// hello suits every old server.
func answersTLS(ctx context.Context, addr string, pc proxy.Config) finding {
	port := probe.Port{Addr: addr, Timeout: pc.UpstreamTimeout, Header: pc.UpstreamProxyProtocol}
	switch answer, err := port.Ask(ctx, hello.ClientHello(hello.Typical(tls.VersionTLS12))); {
	case probe.Dialing(err):
		return finding{err: fmt.Errorf("dialing: %w: does the old server run, on this port?", err)}
	case err != nil:
		return finding{err: err}
	case answer.Kind == hello.Closed:
		words := text.Either(pc.UpstreamProxyProtocol == 0, "v2 if it waits for a PROXY header",
			"off if it expects no PROXY header, else have it trust this host with one ("+proxy.TrustHeader+")")
		return finding{err: fmt.Errorf("it hangs up on a hello: set %s=%s", variable("UPSTREAM_PROXY_PROTOCOL"), words)}
	case answer.Kind == hello.Text:
		return finding{err: fmt.Errorf("not a port for TLS: name that port: it says %s", probe.Quoted(answer.Text))}
	}
	return finding{fine: []string{"answers in TLS"}}
}

// target is one upstream and how to talk to it.
type target struct {
	config.Upstream
	as proxy.UpstreamConfig
	pc proxy.Config
}

func (t target) ask(ctx context.Context) finding {
	a, err := proxy.Ask(ctx, t.pc, proxy.Protocol(t.Scheme.Protocol), t.as)
	if errors.Is(err, os.ErrDeadlineExceeded) && t.Scheme.TLS != proxy.LineTLS {
		t.pc.UpstreamTimeout = min(t.pc.UpstreamTimeout, 3*time.Second)
		if answersTLS(ctx, t.Addr(), t.pc).err == nil {
			err = fmt.Errorf("it does not greet, but answers TLS: write %ss://%s", t.Scheme.Protocol, t.Addr())
		}
	}
	if err != nil {
		return finding{err: err}
	}
	f := finding{fine: []string{"answers with " + probe.Quoted(a.Greeting)}}
	mechanisms, refused := mailproto.Logins(a.Capabilities, t.Scheme.Protocol == "imap")
	if bound := slices.DeleteFunc(slices.Clone(mechanisms), func(m string) bool { return !strings.HasSuffix(m, "-PLUS") }); len(bound) > 0 {
		f.warnings = append(f.warnings, strings.Join(bound, ", ")+" will not be offered to clients: channel binding cannot pass a proxy that terminates TLS")
	}
	if refused && t.Scheme.TLS == proxy.LinePlain {
		f.warnings = append(f.warnings, "it refuses logins on a plain line: "+t.allowPlain(a.Greeting))
	}
	if t.pc.UpstreamClientID && t.Scheme.Protocol == "imap" {
		f.believes(a.ID)
	}
	return f
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

// believes judges the reply to an ID with a client's address.
func (f *finding) believes(reply string) {
	name := variable("UPSTREAM_CLIENT_ID")
	switch said := probe.Quoted(reply); {
	case !mailproto.HasPrefixFold([]byte(reply), "OK"):
		f.warnings = append(f.warnings, fmt.Sprintf("%s=id has no effect: it answers an ID before login with %s; use %s, or leave it off",
			name, said, variable("UPSTREAM_PROXY_PROTOCOL")))
	case mailproto.HasPrefixFold([]byte(reply), "OK Trusted"):
		f.fine = append(f.fine, fmt.Sprintf("believes the client's address (%s=id)", name))
	default:
		f.warnings = append(f.warnings, fmt.Sprintf("%s=id: it answers %s, which does not say that it believes the address: Dovecot 2.4 does not; "+
			"2.3 never says. See to it that Postern is in login_trusted_networks, and look for clients' addresses in its log", name, said))
	}
}
