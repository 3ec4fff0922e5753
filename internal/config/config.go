// Package config reads the environment of `postern serve`.
//
// The struct [Config] is the one list of variables: parsing, the table of
// `postern serve -h` and the table in docs/reference.md all come from its tags.
package config

import (
	"cmp"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"postern/internal/text"
	"reflect"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// Prefix stands before the name of every variable in the environment.
const Prefix = "POSTERN_"

// Config holds the settings of one process. [Load] fills it; a Config made by
// hand has to hold what Load would have accepted.
//
// Tags: env is the name without [Prefix], envDefault what an absent variable
// means, oneof the closed set of values, desc the meaning in the tables.
// empty:"ok" lets a variable be set but empty, as a template may leave it;
// secret:"true" keeps the value out of every message.
type Config struct {
	ListenIMAPS Addrs `env:"LISTEN_IMAPS" envDefault:":993" desc:"where IMAP with implicit TLS listens: host:port, comma-separated, or off"`
	ListenPOP3S Addrs `env:"LISTEN_POP3S" envDefault:":995" desc:"the same for POP3 with implicit TLS"`
	ListenIMAP  Addrs `env:"LISTEN_IMAP" envDefault:":143" desc:"the same for IMAP with STARTTLS"`
	ListenPOP3  Addrs `env:"LISTEN_POP3" envDefault:":110" desc:"the same for POP3 with STLS"`

	UpstreamIMAP    Upstreams     `env:"UPSTREAM_IMAP" empty:"ok" desc:"the IMAP server behind Postern: imap://host:port (plain, for loopback or the same pod), imaps:// or imap+starttls://, comma-separated; without it IMAP has no listeners"`
	UpstreamPOP3    Upstreams     `env:"UPSTREAM_POP3" empty:"ok" desc:"the POP3 server behind Postern: pop3://host:port, pop3s:// or pop3+starttls://, comma-separated; without it POP3 has no listeners"`
	UpstreamTimeout time.Duration `env:"UPSTREAM_TIMEOUT" envDefault:"10s" desc:"for dialling an upstream and for its greeting"`

	UpstreamCAFile        string `env:"UPSTREAM_CA_FILE" desc:"CA certificates in PEM that upstreams are verified with, in place of the system's; verification cannot be turned off"`
	UpstreamServerName    string `env:"UPSTREAM_SERVER_NAME" desc:"the name that an upstream's certificate must have, also sent to it; otherwise the host of the URL"`
	UpstreamClientID      string `env:"UPSTREAM_CLIENT_ID" envDefault:"off" oneof:"off id" desc:"id: tell a Dovecot upstream the client's address in an IMAP ID; it must be in login_trusted_networks there"`
	UpstreamProxyProtocol string `env:"UPSTREAM_PROXY_PROTOCOL" envDefault:"off" oneof:"off v1 v2" desc:"PROXY header to upstreams: off, v1 or v2; v2 also tells them that the client's side is encrypted"`

	UpstreamPassthroughIMAPS Endpoint `env:"UPSTREAM_PASSTHROUGH_IMAPS" desc:"host:port of the old server's own TLS port: in observe, a legacy client of imaps that cannot be served here (SSL 2.0, SSL 3.0, DHE alone) is passed through to it untouched"`
	UpstreamPassthroughPOP3S Endpoint `env:"UPSTREAM_PASSTHROUGH_POP3S" desc:"the same for pop3s"`

	TLSCertFile Paths `env:"TLS_CERT_FILE" empty:"ok" desc:"certificates in PEM, comma-separated: files, or directories; required"`
	TLSKeyFile  Paths `env:"TLS_KEY_FILE" empty:"ok" desc:"their keys in PEM, comma-separated; a directory, or a PEM that holds certificate and key together, needs none"`

	TLSClientCAFile   string `env:"TLS_CLIENT_CA_FILE" desc:"CA certificates in PEM: clients are asked for a certificate of one of them"`
	TLSTicketKeysFile string `env:"TLS_TICKET_KEYS_FILE" desc:"session ticket keys that replicas share: 32 bytes each in base64, one a line, newest first; otherwise own keys, rotated daily"`

	PolicyMode  string `env:"POLICY_MODE" envDefault:"enforce" oneof:"enforce explain observe" desc:"what meets a legacy handshake: enforce, explain or observe"`
	PolicyFloor string `env:"POLICY_FLOOR" envDefault:"tls1.2" oneof:"tls1.2-compat tls1.2 tls1.2-aead tls1.3 tls1.3-pq" desc:"what a handshake must reach: tls1.2-compat, tls1.2, tls1.2-aead, tls1.3 or tls1.3-pq"`
	PolicyFile  string `env:"POLICY_FILE" desc:"policy file in YAML, with rules by client, name, port and date; then POSTERN_POLICY_MODE and POSTERN_POLICY_FLOOR may not be set"`
	ExplainText string `env:"EXPLAIN_TEXT" envDefault:"TLS {version} is no longer accepted here; update your mail program to one that supports TLS {floor} or later." desc:"what explain says to a client whose TLS version is too old: one line of printable ASCII, at most 400 bytes; explain_text in the policy file takes its place"`

	ProxyProtocolFrom Prefixes `env:"PROXY_PROTOCOL_FROM" desc:"addresses and CIDRs, comma-separated, whose connections begin with a PROXY header (v1 or v2)"`

	LimitConnections          Count `env:"LIMIT_CONNECTIONS" desc:"connections at once, 0 for no limit; default: (file descriptors - 128) / 2, since a session takes two, and 16 at least"`
	LimitConnectionsPerClient Count `env:"LIMIT_CONNECTIONS_PER_CLIENT" envDefault:"0" desc:"connections at once from one IPv4 address or IPv6 /64; 0 for no limit"`
	LimitHandshakesPerClient  Count `env:"LIMIT_HANDSHAKES_PER_CLIENT" envDefault:"0" desc:"new handshakes a second from one IPv4 address or IPv6 /64; 0 for no limit"`

	TimeoutHandshake time.Duration `env:"TIMEOUT_HANDSHAKE" envDefault:"10s" desc:"for the whole TLS handshake"`
	TimeoutLogin     time.Duration `env:"TIMEOUT_LOGIN" envDefault:"3m" desc:"for everything before login"`
	TimeoutIdle      time.Duration `env:"TIMEOUT_IDLE" envDefault:"35m" desc:"of silence after login"`
	TimeoutDrain     time.Duration `env:"TIMEOUT_DRAIN" envDefault:"30s" desc:"for sessions to end at shutdown"`
	TimeoutHandover  Period        `env:"TIMEOUT_HANDOVER" envDefault:"24h" desc:"for sessions to end in the old process after an upgrade in place (SIGUSR2), the last POSTERN_TIMEOUT_DRAIN of it as at shutdown; 0: as at shutdown"`

	AdminListen    string `env:"ADMIN_LISTEN" envDefault:"127.0.0.1:9993" desc:"host:port of metrics, health, page and API"`
	AdminTokenFile string `env:"ADMIN_TOKEN_FILE" desc:"a file with the token for page and API, 16 bytes at least of printable ASCII; off loopback there is neither without it"`

	AdminTLSCertFile string `env:"ADMIN_TLS_CERT_FILE" desc:"certificate in PEM for TLS on the admin port"`
	AdminTLSKeyFile  string `env:"ADMIN_TLS_KEY_FILE" desc:"its key in PEM, where it is not in the same file"`
	AdminPprof       string `env:"ADMIN_PPROF" envDefault:"off" oneof:"off on" desc:"on: /debug/pprof/ on the admin port, for loopback peers alone"`

	LedgerURL             string        `env:"LEDGER_URL" envDefault:"memory:" secret:"true" desc:"the memory of legacy clients: memory: (gone at a restart), sqlite:/path/file.db, or postgres://user@host/database, which replicas share"`
	LedgerRetention       time.Duration `env:"LEDGER_RETENTION" envDefault:"90d" desc:"for how long clients that do not come again are remembered"`
	LedgerIdentity        string        `env:"LEDGER_IDENTITY" envDefault:"off" oneof:"off hashed plain" desc:"what is remembered of accounts and mail programs behind legacy clients that log in: off, plain, or hashed, which keeps a hash of the part before the @"`
	LedgerIdentityKeyFile string        `env:"LEDGER_IDENTITY_KEY_FILE" desc:"key for hashed, 16 bytes at least"`

	ProgramsFile string `env:"PROGRAMS_FILE" desc:"patterns of how mail programs speak and their names, beside the built-in ones, as postern report -patterns prints those without a name"`

	LogLevel  slog.Level `env:"LOG_LEVEL" envDefault:"info" oneof:"debug info warn error" desc:"debug, info, warn or error"`
	LogFormat string     `env:"LOG_FORMAT" envDefault:"json" oneof:"json text" desc:"json or text"`

	given map[string]string // by the environment, with Prefix
}

// Given reports whether the environment sets a variable, named without Prefix.
func (c *Config) Given(name string) bool { return c.given[Prefix+name] != "" }

// Bare reports that the environment has none of the variables that were read, but
// for those of the admin port.
func (c *Config) Bare() bool {
	for name := range c.given {
		if !strings.HasPrefix(name, Prefix+"ADMIN_") {
			return false
		}
	}
	return true
}

// Listener is one of the four listeners.
type Listener struct {
	Name string // imaps, pop3s, imap or pop3
	// Variable names the addresses.
	Variable string
	Addrs    Addrs

	// Passthrough is the old server for legacy clients, only with implicit TLS.
	Passthrough Endpoint

	upstreamVariable string
	upstreams        Upstreams
}

// listeners returns all four.
func (c *Config) listeners() []Listener {
	list := []Listener{
		{Name: "imaps", Addrs: c.ListenIMAPS, upstreams: c.UpstreamIMAP, Passthrough: c.UpstreamPassthroughIMAPS},
		{Name: "pop3s", Addrs: c.ListenPOP3S, upstreams: c.UpstreamPOP3, Passthrough: c.UpstreamPassthroughPOP3S},
		{Name: "imap", Addrs: c.ListenIMAP, upstreams: c.UpstreamIMAP},
		{Name: "pop3", Addrs: c.ListenPOP3, upstreams: c.UpstreamPOP3},
	}
	for i := range list {
		name := strings.ToUpper(list[i].Name)
		list[i].Variable = Prefix + "LISTEN_" + name
		list[i].upstreamVariable = Prefix + "UPSTREAM_" + strings.TrimSuffix(name, "S")
	}
	return list
}

// PassthroughVariable names the listener's old server.
func (l *Listener) PassthroughVariable() string {
	return Prefix + "UPSTREAM_PASSTHROUGH_" + strings.ToUpper(l.Name)
}

// Listeners returns the listeners to open, in a fixed order. It leaves out
// those that are off or whose protocol has no upstream.
func (c *Config) Listeners() []Listener {
	return slices.DeleteFunc(c.listeners(), func(l Listener) bool { return len(l.Addrs) == 0 || len(l.upstreams) == 0 })
}

// Bound returns all that is bound: the listeners to open, and the admin port as another
// one, named admin, where its address did parse.
func (c *Config) Bound() []Listener {
	all := c.Listeners()
	if c.AdminListen != "" {
		all = append(all, Listener{Name: "admin", Variable: Prefix + "ADMIN_LISTEN", Addrs: Addrs{c.AdminListen}})
	}
	return all
}

// PassingThrough returns the listeners to open that have an old server.
func (c *Config) PassingThrough() []Listener {
	return slices.DeleteFunc(c.Listeners(), func(l Listener) bool { return l.Passthrough == "" })
}

// ServerName returns the name that the upstream's certificate must have:
// UPSTREAM_SERVER_NAME or the URL's host, without a final dot.
func (c *Config) ServerName(u Upstream) string {
	return cmp.Or(c.UpstreamServerName, strings.TrimSuffix(u.Host, "."))
}

// OnLoopback reports whether only this host can reach a listen address. A name
// other than localhost may lead anywhere.
func OnLoopback(addr string) bool {
	host, _, _ := net.SplitHostPort(addr)
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Unmap().IsLoopback() || strings.EqualFold(strings.TrimSuffix(host, "."), "localhost")
}

// APIOff reports whether the admin port has no API, because it is off loopback
// and there is no token.
func (c *Config) APIOff() bool {
	return c.AdminListen != "" && c.AdminTokenFile == "" && !OnLoopback(c.AdminListen)
}

// Network returns the network to listen on for an address. An IPv4 or IPv6
// literal means that family alone, so that 0.0.0.0 and [::] can coexist; an
// empty host or a name means both.
func Network(addr string) string {
	host, _, _ := net.SplitHostPort(addr)
	switch ip, err := netip.ParseAddr(host); {
	case err != nil:
		return "tcp"
	case ip.Is4():
		return "tcp4"
	}
	return "tcp6"
}

// wideDefault is the length from which a default is part of the description, so
// that a long text does not push the last column off the screen.
const wideDefault = 20

// row is one variable as the tables print it.
type row struct{ name, def, meaning string }

func rows() []row {
	var all []row
	for _, v := range variables(reflect.TypeFor[Config]()) {
		r := row{v.name, v.def(), v.Tag.Get("desc")}
		if len(r.def) > wideDefault {
			r.def, r.meaning = "", r.meaning+"; default: "+r.def
		}
		all = append(all, r)
	}
	return all
}

// Table prints the variables for `postern serve -h`. It ignores errors of w.
func Table(w io.Writer) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, r := range rows() {
		fmt.Fprintf(t, "  %s\t%s\t%s\n", r.name, r.def, r.meaning)
	}
	t.Flush()
}

// Difference is a variable that two environments set differently, with words for each.
type Difference struct{ Variable, Here, There string }

// Differences compares two environments, as of os.Environ. What may hold a secret is not
// shown.
func Differences(here, there []string) (list []Difference) {
	a, b := load(new(Config), here), load(new(Config), there)
	for _, v := range a.vars {
		x, y := a.given[v.name], b.given[v.name]
		if cmp.Or(x, v.def()) == cmp.Or(y, v.def()) {
			continue
		}
		words := func(value, secret string) string {
			switch {
			case v.secret(), strings.HasSuffix(v.name, "TOKEN_FILE"), strings.HasSuffix(v.name, "KEY_FILE"):
				return secret // the latter two may be the secret itself, by mistake
			case value == "" && v.def() == "":
				return "not set"
			case value == "":
				return "the default " + v.def()
			}
			return text.Clean(value, shown)
		}
		list = append(list, Difference{v.name, words(x, "changed"), words(y, "the old one")})
	}
	return list
}
