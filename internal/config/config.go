// Package config reads what `postern serve` is told through its environment.
//
// The struct [Config] is the one list of variables: parsing, the table of
// `postern serve -h` and the table in docs/reference.md all come from its tags.
package config

import (
	"crypto/fips140"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"postern/internal/ledger"
)

// Prefix stands before the name of every variable in the environment.
const Prefix = "POSTERN_"

// Config holds the settings of one gate. [Load] fills it; a Config made by
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

	UpstreamIMAP    Upstreams     `env:"UPSTREAM_IMAP" empty:"ok" desc:"the IMAP server behind the gate: imap://host:port (plain, for loopback or the same pod), imaps:// or imap+starttls://, comma-separated; without it IMAP has no listeners"`
	UpstreamPOP3    Upstreams     `env:"UPSTREAM_POP3" empty:"ok" desc:"the POP3 server behind the gate: pop3://host:port, pop3s:// or pop3+starttls://, comma-separated; without it POP3 has no listeners"`
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
	PolicyFloor string `env:"POLICY_FLOOR" envDefault:"tls1.2" oneof:"tls1.2-compat tls1.2 tls1.2-aead tls1.3" desc:"what a handshake must reach: tls1.2-compat, tls1.2, tls1.2-aead or tls1.3"`
	PolicyFile  string `env:"POLICY_FILE" desc:"policy file in YAML, with rules by client, name, port and date; then POSTERN_POLICY_MODE and POSTERN_POLICY_FLOOR may not be set"`
	ExplainText string `env:"EXPLAIN_TEXT" envDefault:"TLS {version} is no longer accepted here; update your mail program to one that supports TLS {floor} or later." desc:"what explain says to a client whose TLS version is too old: one line of printable ASCII, at most 400 bytes"`

	ProxyProtocolFrom Prefixes `env:"PROXY_PROTOCOL_FROM" desc:"addresses and CIDRs, comma-separated, whose connections begin with a PROXY header (v1 or v2)"`

	LimitConnections          Count `env:"LIMIT_CONNECTIONS" desc:"connections at once, 0 for no limit; default: (file descriptors - 128) / 2, since a session takes two"`
	LimitConnectionsPerClient Count `env:"LIMIT_CONNECTIONS_PER_CLIENT" envDefault:"0" desc:"the same for one IPv4 address or IPv6 /64; 0 for no limit"`
	LimitHandshakesPerClient  Count `env:"LIMIT_HANDSHAKES_PER_CLIENT" envDefault:"0" desc:"new handshakes a second from one IPv4 address or IPv6 /64; 0 for no limit"`

	TimeoutHandshake time.Duration `env:"TIMEOUT_HANDSHAKE" envDefault:"10s" desc:"for the whole TLS handshake"`
	TimeoutLogin     time.Duration `env:"TIMEOUT_LOGIN" envDefault:"3m" desc:"for everything before login"`
	TimeoutIdle      time.Duration `env:"TIMEOUT_IDLE" envDefault:"35m" desc:"of silence after login"`
	TimeoutDrain     time.Duration `env:"TIMEOUT_DRAIN" envDefault:"30s" desc:"for sessions to end at shutdown"`

	AdminListen    string `env:"ADMIN_LISTEN" envDefault:"127.0.0.1:9993" desc:"host:port of metrics, health, page and API"`
	AdminTokenFile string `env:"ADMIN_TOKEN_FILE" desc:"a file with the token for page and API, 16 bytes at least of printable ASCII; off loopback there is neither without it"`

	AdminTLSCertFile string `env:"ADMIN_TLS_CERT_FILE" desc:"certificate in PEM for TLS on the admin port"`
	AdminTLSKeyFile  string `env:"ADMIN_TLS_KEY_FILE" desc:"its key in PEM, where it is not in the same file"`
	AdminPprof       string `env:"ADMIN_PPROF" envDefault:"off" oneof:"off on" desc:"on: /debug/pprof/ on the admin port, for loopback peers alone"`

	LedgerURL             string        `env:"LEDGER_URL" envDefault:"memory:" secret:"true" desc:"the memory of legacy clients: memory: (gone at a restart), sqlite:/path/file.db, or postgres://user@host/database, which replicas share"`
	LedgerRetention       time.Duration `env:"LEDGER_RETENTION" envDefault:"90d" desc:"for how long clients that do not come again are remembered"`
	LedgerIdentity        string        `env:"LEDGER_IDENTITY" envDefault:"off" oneof:"off hashed plain" desc:"what is remembered of accounts and mail programs behind legacy clients that log in: off, plain, or hashed, which keeps a hash of the part before the @"`
	LedgerIdentityKeyFile string        `env:"LEDGER_IDENTITY_KEY_FILE" desc:"key for hashed, 16 bytes at least"`

	LogLevel  slog.Level `env:"LOG_LEVEL" envDefault:"info" oneof:"debug info warn error" desc:"debug, info, warn or error"`
	LogFormat string     `env:"LOG_FORMAT" envDefault:"json" oneof:"json text" desc:"json or text"`

	// explicit holds the variables that the environment did give.
	explicit map[string]bool
}

// Listener is one of the four ways in, with the addresses it is bound to.
type Listener struct {
	Name string // imaps, pop3s, imap or pop3
	// Variable is the one that names the addresses.
	Variable string
	Addrs    []string // host:port, at least one
}

// Load reads the variables in environ, entries of the form KEY=VALUE as from
// os.Environ; where a key comes twice the last one counts. The error is of
// type [Problems] and holds everything that is wrong at once.
func Load(environ []string) (*Config, error) {
	c, problems := Inspect(environ)
	if len(problems) > 0 {
		return nil, problems
	}
	return c, nil
}

// Inspect is Load for who wants to look on where something is wrong: the
// fields of variables without a problem are filled, the others may be zero.
func Inspect(environ []string) (*Config, Problems) {
	c := new(Config)
	l := load(c, environ)
	c.explicit = make(map[string]bool, len(l.given))
	for name, value := range l.given {
		c.explicit[name] = value != ""
	}
	l.check(c)
	return c, l.problems.sorted()
}

// LoadAdmin reads what it takes to find the admin port of a running gate:
// AdminListen and AdminTLSCertFile. What is wrong with other variables does
// not matter to it. The error is of type [Problems].
func LoadAdmin(environ []string) (*Config, error) {
	c := new(Config)
	l := load(c, only(environ, func(name string) bool {
		return name == Prefix+"ADMIN_LISTEN" || name == Prefix+"ADMIN_TLS_CERT_FILE"
	}))
	l.checkAdmin(c)
	if len(l.problems) > 0 {
		return nil, l.problems.sorted()
	}
	return c, nil
}

// LoadPolicy reads what it takes to tell what clients meet: the POLICY_ and
// LISTEN_ variables. What is wrong with others does not matter to it. The error
// is of type [Problems].
func LoadPolicy(environ []string) (*Config, error) {
	c := new(Config)
	l := load(c, only(environ, func(name string) bool {
		return strings.HasPrefix(name, Prefix+"POLICY_") || strings.HasPrefix(name, Prefix+"LISTEN_")
	}))
	l.checkPolicy(c)
	if len(l.problems) > 0 {
		return nil, l.problems.sorted()
	}
	return c, nil
}

// LoadLedger reads what it takes to report on a ledger: the ADMIN_, LEDGER_,
// POLICY_ and LISTEN_ variables. What is wrong with others does not matter to
// it. The error is of type [Problems].
func LoadLedger(environ []string) (*Config, error) {
	c := new(Config)
	l := load(c, only(environ, func(name string) bool {
		return slices.ContainsFunc([]string{"ADMIN_", "LEDGER_", "POLICY_", "LISTEN_"}, func(part string) bool {
			return strings.HasPrefix(name, Prefix+part)
		})
	}))
	l.checkAdmin(c)
	l.checkPolicy(c)
	l.checkLedger(c)
	if len(l.problems) > 0 {
		return nil, l.problems.sorted()
	}
	return c, nil
}

// only keeps the entries of an environment whose names are wanted.
func only(environ []string, wanted func(name string) bool) []string {
	var kept []string
	for _, entry := range environ {
		if name, _, _ := strings.Cut(entry, "="); wanted(name) {
			kept = append(kept, entry)
		}
	}
	return kept
}

// door says what belongs to one listener.
type door struct {
	name, variable string
	addrs          Addrs
	upstream       string
	upstreams      Upstreams
	// passthrough is only for implicit TLS.
	passthrough Endpoint
}

// passthroughVariable is the one that names the door's old server.
func (d door) passthroughVariable() string {
	return Prefix + "UPSTREAM_PASSTHROUGH_" + strings.ToUpper(d.name)
}

func (c *Config) doors() []door {
	return []door{
		{"imaps", Prefix + "LISTEN_IMAPS", c.ListenIMAPS, Prefix + "UPSTREAM_IMAP", c.UpstreamIMAP, c.UpstreamPassthroughIMAPS},
		{"pop3s", Prefix + "LISTEN_POP3S", c.ListenPOP3S, Prefix + "UPSTREAM_POP3", c.UpstreamPOP3, c.UpstreamPassthroughPOP3S},
		{"imap", Prefix + "LISTEN_IMAP", c.ListenIMAP, Prefix + "UPSTREAM_IMAP", c.UpstreamIMAP, ""},
		{"pop3", Prefix + "LISTEN_POP3", c.ListenPOP3, Prefix + "UPSTREAM_POP3", c.UpstreamPOP3, ""},
	}
}

// Listeners returns the listeners to open, in a fixed order. One that is off,
// or whose protocol has no upstream, is not among them.
func (c *Config) Listeners() []Listener {
	var open []Listener
	for _, d := range c.doors() {
		if len(d.addrs) > 0 && len(d.upstreams) > 0 {
			open = append(open, Listener{d.name, d.variable, d.addrs})
		}
	}
	return open
}

// check looks at what single values cannot tell. A variable that did not
// parse is left out, so that one mistake is one line.
func (l *loader) check(c *Config) {
	l.checkPolicy(c)
	l.checkUpstreams(c)
	if len(c.TLSCertFile) == 0 && !l.bad[Prefix+"TLS_CERT_FILE"] {
		l.add(Prefix+"TLS_CERT_FILE", "must be set")
	}
	if name := Prefix + "EXPLAIN_TEXT"; !l.bad[name] {
		if reason := explainProblem(c.ExplainText); reason != "" {
			l.add(name, show(c.ExplainText)+": "+reason)
		}
	}
	l.checkAdmin(c)
	l.checkListeners(c)
	l.checkLedger(c)
}

func (l *loader) checkLedger(c *Config) {
	if name := Prefix + "LEDGER_URL"; !l.bad[name] {
		if reason := ledger.Check(c.LedgerURL); reason != "" {
			l.add(name, reason) // nothing of it is shown: it may hold a password
		}
	}
	key := Prefix + "LEDGER_IDENTITY_KEY_FILE"
	if c.LedgerIdentity == "hashed" && c.LedgerIdentityKeyFile == "" && !l.bad[key] {
		l.add(key, "must be set, since "+Prefix+"LEDGER_IDENTITY is hashed")
	}
}

// checkPolicy sees to it that the policy is said in one place.
func (l *loader) checkPolicy(c *Config) {
	if fips140.Enabled() && (c.PolicyMode == "observe" || c.PolicyMode == "explain") {
		l.add(Prefix+"POLICY_MODE", "FIPS 140 mode forbids TLS 1.0 and 1.1: only enforce is possible")
	}
	file := Prefix + "POLICY_FILE"
	if l.given[file] == "" {
		return
	}
	for _, name := range []string{Prefix + "POLICY_MODE", Prefix + "POLICY_FLOOR"} {
		// Also where it is what the file says: the next edit would part them.
		if _, ok := l.given[name]; ok && !l.bad[name] {
			l.add(name, "set beside "+file+"; mode and floor are in the file")
		}
	}
}

func (l *loader) checkAdmin(c *Config) {
	if name := Prefix + "ADMIN_LISTEN"; !l.bad[name] {
		addr, reason := listenAddr(c.AdminListen)
		if reason != "" {
			l.add(name, show(c.AdminListen)+": "+reason)
		}
		c.AdminListen = addr
	}
	if c.AdminTLSKeyFile != "" && c.AdminTLSCertFile == "" {
		l.add(Prefix+"ADMIN_TLS_KEY_FILE", "set without "+Prefix+"ADMIN_TLS_CERT_FILE")
	}
}

func (l *loader) checkUpstreams(c *Config) {
	imap, pop3 := Prefix+"UPSTREAM_IMAP", Prefix+"UPSTREAM_POP3"
	for _, v := range []struct {
		name, protocol string
		upstreams      Upstreams
	}{{imap, "imap", c.UpstreamIMAP}, {pop3, "pop3", c.UpstreamPOP3}} {
		for _, u := range v.upstreams {
			if u.Scheme.Protocol != v.protocol {
				l.add(v.name, show(u.String())+": not an address of this protocol; write "+v.protocol+"://host:port")
			}
		}
	}
	if len(c.UpstreamIMAP)+len(c.UpstreamPOP3) == 0 && !l.bad[imap] && !l.bad[pop3] {
		l.add(imap, "must be set, or "+pop3)
	}
	if c.UpstreamServerName != "" {
		name, reason := serverName(c.UpstreamServerName)
		if reason != "" {
			l.add(Prefix+"UPSTREAM_SERVER_NAME", show(c.UpstreamServerName)+": "+reason)
		}
		c.UpstreamServerName = name
	}
}

// checkListeners finds addresses that can be bound only once, and a gate with
// no way in.
func (l *loader) checkListeners(c *Config) {
	taken := map[string]string{}
	claim := func(name, addr string) {
		_, port, _ := net.SplitHostPort(addr)
		if addr == "" || port == "0" {
			return
		}
		switch first, ok := taken[addr]; {
		case !ok:
			taken[addr] = name
		case first == name:
			l.add(name, show(addr)+": listed twice")
		default:
			l.add(name, show(addr)+": taken by "+first)
		}
	}
	off := true
	for _, d := range c.doors() {
		off = off && len(d.addrs) == 0 && !l.bad[d.variable]
		if len(d.upstreams) > 0 {
			for _, addr := range d.addrs {
				claim(d.variable, addr)
			}
		}
	}
	claim(Prefix+"ADMIN_LISTEN", c.AdminListen)

	upstreams := len(c.UpstreamIMAP)+len(c.UpstreamPOP3) > 0
	parsed := !l.anyBad("LISTEN_IMAPS", "LISTEN_POP3S", "LISTEN_IMAP", "LISTEN_POP3", "UPSTREAM_IMAP", "UPSTREAM_POP3")
	if off {
		l.add(Prefix+"LISTEN_IMAPS", "all four listeners are off")
	} else if upstreams && parsed && len(c.Listeners()) == 0 {
		l.add(Prefix+"LISTEN_IMAPS", "every listener is off or has no upstream")
	}
}

// OnLoopback tells of an address to listen on whether it is reached from this
// host alone. A name other than localhost may lead anywhere.
func OnLoopback(addr string) bool {
	host, _, _ := net.SplitHostPort(addr)
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Unmap().IsLoopback() || strings.EqualFold(strings.TrimSuffix(host, "."), "localhost")
}

// APIOff tells that the admin port has no API, since it is off loopback and
// there is no token.
func (c *Config) APIOff() bool {
	return c.AdminListen != "" && c.AdminTokenFile == "" && !OnLoopback(c.AdminListen)
}

// Network is the network to listen on for an address: an IPv4 or IPv6 literal
// means that family alone, so that 0.0.0.0 and [::] stand side by side; an
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
