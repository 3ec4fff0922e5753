package config

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

// least is the smallest environment that starts Postern.
var least = []string{"POSTERN_UPSTREAM_IMAP=imap://127.0.0.1:10143", "POSTERN_TLS_CERT_FILE=/tls"}

func with(extra ...string) []string { return append(slices.Clone(least), extra...) }

func mustLoad(t *testing.T, environ ...string) *Config {
	t.Helper()
	c, err := Load(environ)
	if err != nil {
		t.Fatalf("Load: %v", err)
	}
	return c
}

func problems(t *testing.T, environ ...string) Problems {
	t.Helper()
	c, err := Load(environ)
	var p Problems
	if !errors.As(err, &p) || c != nil {
		t.Fatalf("Load = %v, %v; want no config and Problems", c, err)
	}
	return p
}

func TestDefaultsAreThoseOfTheContract(t *testing.T) {
	c := mustLoad(t, least...)
	c.given = nil
	want := &Config{
		ListenIMAPS: Addrs{":993"}, ListenPOP3S: Addrs{":995"}, ListenIMAP: Addrs{":143"}, ListenPOP3: Addrs{":110"},
		UpstreamIMAP:     Upstreams{{schemes[0], "127.0.0.1", 10143}},
		UpstreamTimeout:  10 * time.Second,
		TLSCertFile:      Paths{"/tls"},
		UpstreamClientID: "off", UpstreamProxyProtocol: "off", AdminPprof: "off",
		PolicyMode: "enforce", PolicyFloor: "tls1.2",
		ExplainText:      "TLS {version} is no longer accepted here; update your mail program to one that supports TLS {floor} or later.",
		TimeoutHandshake: 10 * time.Second, TimeoutLogin: 3 * time.Minute,
		TimeoutIdle: 35 * time.Minute, TimeoutDrain: 30 * time.Second, TimeoutHandover: Period(24 * time.Hour),
		AdminListen: "127.0.0.1:9993", LogLevel: slog.LevelInfo, LogFormat: "json",
		LedgerURL: "memory:", LedgerRetention: 90 * 24 * time.Hour, LedgerIdentity: "off",
	}
	if !reflect.DeepEqual(c, want) {
		t.Errorf("got  %+v\nwant %+v", c, want)
	}
	if w := c.Warnings(); len(w) != 0 {
		t.Errorf("warnings: %q", w)
	}
}

func TestEveryVariableIsRead(t *testing.T) {
	c := mustLoad(t,
		"POSTERN_LISTEN_IMAPS=127.0.0.1:1993, [0:0::1]:1993", "POSTERN_LISTEN_POP3S=Mail.Example.org:995",
		"POSTERN_LISTEN_IMAP=off", "POSTERN_LISTEN_POP3=[::ffff:127.0.0.1]:0,127.0.0.1:0",
		"POSTERN_UPSTREAM_IMAP=imap://[::1]:1143,IMAP://Dovecot", "POSTERN_UPSTREAM_POP3=pop3://localhost",
		"POSTERN_UPSTREAM_TIMEOUT=1500ms", "POSTERN_TLS_CERT_FILE=/a.pem, /b.pem", "POSTERN_TLS_KEY_FILE=/a.key,/b.key",
		"POSTERN_POLICY_MODE=explain", "POSTERN_POLICY_FLOOR=tls1.2-aead", "POSTERN_EXPLAIN_TEXT=No {version}.",
		"POSTERN_TIMEOUT_HANDSHAKE=5s", "POSTERN_TIMEOUT_LOGIN=1m", "POSTERN_TIMEOUT_IDLE=1d12h", "POSTERN_TIMEOUT_DRAIN=90d", "POSTERN_TIMEOUT_HANDOVER=0s",
		"POSTERN_ADMIN_LISTEN=[::]:9993", "POSTERN_LOG_LEVEL=debug", "POSTERN_LOG_FORMAT=text",
		"POSTERN_UPSTREAM_CA_FILE=/ca.pem", "POSTERN_UPSTREAM_SERVER_NAME=Mail.Example.org.", "POSTERN_UPSTREAM_CLIENT_ID=id",
		"POSTERN_UPSTREAM_PROXY_PROTOCOL=v2", "POSTERN_TLS_CLIENT_CA_FILE=/clients.pem", "POSTERN_TLS_TICKET_KEYS_FILE=/tickets",
		"POSTERN_PROXY_PROTOCOL_FROM=10.1.2.3/8, ::ffff:192.0.2.7,::ffff:192.0.2.0/120,2001:db8::1,::/0",
		"POSTERN_LIMIT_CONNECTIONS=0", "POSTERN_LIMIT_CONNECTIONS_PER_CLIENT=20", "POSTERN_LIMIT_HANDSHAKES_PER_CLIENT=5",
		"POSTERN_ADMIN_TLS_CERT_FILE=/admin.pem", "POSTERN_ADMIN_TLS_KEY_FILE=/admin.key", "POSTERN_ADMIN_PPROF=on",
		"POSTERN_ADMIN_TOKEN_FILE=/token",
		"POSTERN_UPSTREAM_PASSTHROUGH_IMAPS=Old.Example.org:10993", "POSTERN_UPSTREAM_PASSTHROUGH_POP3S=[::0:1]:10995",
		"POSTERN_LEDGER_URL=sqlite:/ledger.db", "POSTERN_LEDGER_RETENTION=30d", "POSTERN_LEDGER_IDENTITY=hashed", "POSTERN_LEDGER_IDENTITY_KEY_FILE=/key")
	if n := c.ConnectionLimit(); n != 0 {
		t.Errorf("LIMIT_CONNECTIONS=0 came to a limit of %d", n)
	}
	c.given = nil
	want := &Config{
		ListenIMAPS: Addrs{"127.0.0.1:1993", "[::1]:1993"}, ListenPOP3S: Addrs{"mail.example.org:995"},
		ListenIMAP: Addrs{}, ListenPOP3: Addrs{"127.0.0.1:0", "127.0.0.1:0"},
		UpstreamIMAP:    Upstreams{{schemes[0], "::1", 1143}, {schemes[0], "dovecot", 143}},
		UpstreamPOP3:    Upstreams{{schemes[3], "localhost", 110}},
		UpstreamTimeout: 1500 * time.Millisecond,
		TLSCertFile:     Paths{"/a.pem", "/b.pem"}, TLSKeyFile: Paths{"/a.key", "/b.key"},
		PolicyMode: "explain", PolicyFloor: "tls1.2-aead", ExplainText: "No {version}.",
		TimeoutHandshake: 5 * time.Second, TimeoutLogin: time.Minute,
		TimeoutIdle: 36 * time.Hour, TimeoutDrain: 90 * 24 * time.Hour,
		AdminListen: "[::]:9993", LogLevel: slog.LevelDebug, LogFormat: "text",
		UpstreamCAFile: "/ca.pem", UpstreamServerName: "mail.example.org", UpstreamClientID: "id",
		UpstreamProxyProtocol: "v2", TLSClientCAFile: "/clients.pem", TLSTicketKeysFile: "/tickets",
		ProxyProtocolFrom: Prefixes{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("192.0.2.7/32"),
			netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("2001:db8::1/128"), netip.MustParsePrefix("::/0")},
		LimitConnectionsPerClient: 20, LimitHandshakesPerClient: 5,
		AdminTLSCertFile: "/admin.pem", AdminTLSKeyFile: "/admin.key", AdminPprof: "on",
		AdminTokenFile:           "/token",
		UpstreamPassthroughIMAPS: "old.example.org:10993", UpstreamPassthroughPOP3S: "[::1]:10995",
		LedgerURL: "sqlite:/ledger.db", LedgerRetention: 30 * 24 * time.Hour, LedgerIdentity: "hashed", LedgerIdentityKeyFile: "/key",
	}
	if !reflect.DeepEqual(c, want) {
		t.Errorf("got  %+v\nwant %+v", c, want)
	}
	if got := c.UpstreamIMAP[0].String(); got != "imap://[::1]:1143" {
		t.Errorf("upstream as a URL: %s", got)
	}
}

// badValues are what is set, and the one line that must come of it.
var badValues = []struct{ set, line string }{
	{"LISTEN_IMAPS=993", `LISTEN_IMAPS: "993": not host:port: write :993 for every address`},
	{"LISTEN_IMAPS=*:993", `LISTEN_IMAPS: "*:993": for every address leave the host empty, as in :993`},
	{"LISTEN_IMAPS=localhost", `LISTEN_IMAPS: "localhost": the port is missing: write host:port, or write off to close the listener`},
	{"LISTEN_IMAPS=localhost:", `LISTEN_IMAPS: "localhost:": the port is missing: write host:port, or write off to close the listener`},
	{"LISTEN_IMAPS=:imaps", `LISTEN_IMAPS: ":imaps": not a port: write a number from 1 to 65535`},
	{"LISTEN_IMAPS=:65536", `LISTEN_IMAPS: ":65536": not a port: write a number from 1 to 65535`},
	{"LISTEN_IMAPS=::1:993", `LISTEN_IMAPS: "::1:993": an IPv6 address stands in brackets, as in [::1]:993`},
	{"LISTEN_IMAPS=[::1:993", `LISTEN_IMAPS: "[::1:993": the bracket is not closed: write it as in [::1]:993`},
	{"LISTEN_IMAPS=[::1]993", `LISTEN_IMAPS: "[::1]993": after the bracket comes :port, as in [::1]:993`},
	{"LISTEN_IMAPS=[127.0.0.1]:993", `LISTEN_IMAPS: "[127.0.0.1]:993": not an IPv6 address in the brackets: brackets are for such as [::1]:993 alone`},
	{"LISTEN_IMAPS=127.0.0.256:993", `LISTEN_IMAPS: "127.0.0.256:993": not an IPv4 address: write four numbers from 0 to 255, as in 192.0.2.7`},
	{"LISTEN_IMAPS=bad name:993", `LISTEN_IMAPS: "bad name:993": not a host name or an IP address: write one such as mail.example.org, 192.0.2.7 or [2001:db8::7]`},
	{"LISTEN_IMAPS=:993 :10993", `LISTEN_IMAPS: ":993 :10993": separate the entries of a list by commas`},
	{"LISTEN_IMAPS=imaps://:993", `LISTEN_IMAPS: "imaps://:993": not host:port: take the scheme away`},
	{"UPSTREAM_IMAP=imap://a;imap://b", `UPSTREAM_IMAP: "imap://a;imap://b": separate the entries of a list by commas`},
	{"TLS_CERT_FILE=/a.pem /b.pem", `TLS_CERT_FILE: "/a.pem /b.pem": separate the entries of a list by commas`},
	{"LISTEN_IMAPS=:993,", `LISTEN_IMAPS: ":993,": the list has an empty entry: take the comma away that is too much`},
	{"LISTEN_IMAPS=off,:993", `LISTEN_IMAPS: "off": off stands alone: take it or the addresses away`},
	{"LISTEN_IMAPS=:993,:993", `LISTEN_IMAPS: ":993": listed twice: leave one out`},
	{"LISTEN_IMAPS=[::0]:993,[::]:993", `LISTEN_IMAPS: "[::]:993": listed twice: leave one out`},
	{"LISTEN_IMAPS=:993,127.0.0.1:993", `LISTEN_IMAPS: "127.0.0.1:993": taken by POSTERN_LISTEN_IMAPS with ":993": choose another port for one of them`},
	{"LISTEN_IMAP=0.0.0.0:1993,[::]:1993,[::1]:1993", `LISTEN_IMAP: "[::1]:1993": taken by POSTERN_LISTEN_IMAP with "[::]:1993": choose another port for one of them`},
	{"LISTEN_IMAP=:993", `LISTEN_IMAP: ":993": taken by POSTERN_LISTEN_IMAPS: choose another port for one of them`},
	{"LISTEN_IMAPS=", `LISTEN_IMAPS: set but empty: give it a value, or take it away`},
	{"TIMEOUT_HANDOVER=1", `TIMEOUT_HANDOVER: "1": neither 0 nor a duration, since its unit is missing: write one such as 10s, 30m, 36h or 90d`},
	{"TIMEOUT_HANDOVER=-1s", `TIMEOUT_HANDOVER: "-1s": neither 0 nor a duration above zero: write one such as 10s, 30m, 36h or 90d`},
	{"ADMIN_LISTEN=off", `ADMIN_LISTEN: "off": there is always an admin port: on loopback, as 127.0.0.1:9993, it is this host's alone`},
	{"ADMIN_LISTEN=:143", `ADMIN_LISTEN: ":143": taken by POSTERN_LISTEN_IMAP: choose another port for one of them`},
	{"ADMIN_LISTEN=:1,:2", `ADMIN_LISTEN: ":1,:2": an IPv6 address stands in brackets, as in [::1]:993`},
	{"UPSTREAM_IMAP=unix:/run/imap", `UPSTREAM_IMAP: "unix:/run/imap": a Unix socket cannot be used: let the server listen on a port of loopback, and write imap://127.0.0.1:port`},
	{"UPSTREAM_IMAP=imaps://[fe80::1]:993", `UPSTREAM_IMAP: "imaps://[fe80::1]:993": a link-local address needs its interface, as in [fe80::1%eth0]`},
	{"UPSTREAM_IMAP=localhost:143", `UPSTREAM_IMAP: "localhost:143": the scheme is missing: put imap:// before it where the server speaks in plaintext, imap+starttls:// where it has STARTTLS, or imaps:// where it begins with TLS`},
	{"UPSTREAM_IMAP=http://h", `UPSTREAM_IMAP: "http://h": unknown scheme: write imap://, imap+starttls:// or imaps://`},
	{"UPSTREAM_IMAP=imap://", `UPSTREAM_IMAP: "imap://": the host is missing: write it before the colon`},
	{"UPSTREAM_IMAP=imap://h:0", `UPSTREAM_IMAP: "imap://h:0": port 0 cannot be dialled: write that of the server`},
	{"UPSTREAM_IMAP=imap://h:", `UPSTREAM_IMAP: "imap://h:": the port is missing: write host:port`},
	{"UPSTREAM_IMAP=imap://h/", `UPSTREAM_IMAP: "imap://h/": a URL holds only scheme, host and port: take away what follows them`},
	{"UPSTREAM_IMAP=imap://h?a", `UPSTREAM_IMAP: "imap://h?a": a URL holds only scheme, host and port: take away what follows them`},
	{"UPSTREAM_IMAP=imap://h#a", `UPSTREAM_IMAP: "imap://h#a": a URL holds only scheme, host and port: take away what follows them`},
	{"UPSTREAM_IMAP=imap://u:p,w@h", `UPSTREAM_IMAP: a URL holds only scheme, host and port: take user and password away, which clients send themselves`},
	{"UPSTREAM_IMAP=imap://h,imap://h:143", `UPSTREAM_IMAP: "imap://h:143": listed twice: leave one out`},
	{"UPSTREAM_IMAP=pop3://h", `UPSTREAM_IMAP: "pop3://h:110": not an address of this protocol; write imap://host:port, or move it to POSTERN_UPSTREAM_POP3`},
	{"UPSTREAM_POP3=imap://h", `UPSTREAM_POP3: "imap://h:143": not an address of this protocol; write pop3://host:port, or move it to POSTERN_UPSTREAM_IMAP`},
	{"UPSTREAM_IMAP=pop3s://h", `UPSTREAM_IMAP: "pop3s://h:995": not an address of this protocol; write imap://host:port, or move it to POSTERN_UPSTREAM_POP3`},
	{"UPSTREAM_SERVER_NAME=mail server", `UPSTREAM_SERVER_NAME: "mail server": not a host name or an IP address: write one such as mail.example.org, 192.0.2.7 or [2001:db8::7]`},
	{"UPSTREAM_CLIENT_ID=yes", `UPSTREAM_CLIENT_ID: "yes": not one of off, id`},
	{"UPSTREAM_PROXY_PROTOCOL=2", `UPSTREAM_PROXY_PROTOCOL: "2": not one of off, v1, v2`},
	{"UPSTREAM_PASSTHROUGH_IMAPS=imaps://h:993", `UPSTREAM_PASSTHROUGH_IMAPS: "imaps://h:993": not host:port: take the scheme away`},
	{"UPSTREAM_PASSTHROUGH_IMAPS=:993", `UPSTREAM_PASSTHROUGH_IMAPS: ":993": the host is missing: write it before the colon`},
	{"UPSTREAM_PASSTHROUGH_IMAPS=10993", `UPSTREAM_PASSTHROUGH_IMAPS: "10993": the port is missing: write host:port`},
	{"UPSTREAM_PASSTHROUGH_IMAPS=h:0", `UPSTREAM_PASSTHROUGH_IMAPS: "h:0": port 0 cannot be dialled: write that of the server`},
	{"UPSTREAM_PASSTHROUGH_IMAPS=h:imaps", `UPSTREAM_PASSTHROUGH_IMAPS: "h:imaps": not a port: write a number from 1 to 65535`},
	{"UPSTREAM_PASSTHROUGH_POP3S=a,b:1", `UPSTREAM_PASSTHROUGH_POP3S: "a,b:1": not a host name or an IP address: write one such as mail.example.org, 192.0.2.7 or [2001:db8::7]`},
	{"UPSTREAM_PASSTHROUGH_POP3S=off", `UPSTREAM_PASSTHROUGH_POP3S: "off": the port is missing: write host:port`},
	{"UPSTREAM_PASSTHROUGH_POP3S=", `UPSTREAM_PASSTHROUGH_POP3S: set but empty: give it a value, or take it away`},
	{"PROXY_PROTOCOL_FROM=10.0.0.0/33", `PROXY_PROTOCOL_FROM: "10.0.0.0/33": not an address or a CIDR: write one such as 192.0.2.7, 10.0.0.0/8 or 2001:db8::/32`},
	{"PROXY_PROTOCOL_FROM=10.0.0.1,loadbalancer", `PROXY_PROTOCOL_FROM: "loadbalancer": not an address or a CIDR: write one such as 192.0.2.7, 10.0.0.0/8 or 2001:db8::/32`},
	{"PROXY_PROTOCOL_FROM=fe80::1%eth0", `PROXY_PROTOCOL_FROM: "fe80::1%eth0": not an address or a CIDR: write one such as 192.0.2.7, 10.0.0.0/8 or 2001:db8::/32`},
	{"PROXY_PROTOCOL_FROM=10.0.0.1,", `PROXY_PROTOCOL_FROM: "10.0.0.1,": the list has an empty entry: take the comma away that is too much`},
	{"POLICY_MODE=observe\r", `POLICY_MODE: "observe\r": take away the carriage return: the file's lines end as Windows ends them (sed -i 's/\r$//')`},
	{"UPSTREAM_SMTP=smtp://127.0.0.1", `UPSTREAM_SMTP: unknown variable; take it away: Postern stands before IMAP and POP3 alone`},
	{"LIMIT_CONNECTIONS=-1", `LIMIT_CONNECTIONS: "-1": not a whole number from 0 on, written in digits alone (connections at once, 0 for no limit; default: (file descriptors - 128) / 2, since a session takes two, and 16 at least)`},
	{"LIMIT_CONNECTIONS_PER_CLIENT=1k", `LIMIT_CONNECTIONS_PER_CLIENT: "1k": not a whole number from 0 on, written in digits alone (connections at once from one IPv4 address or IPv6 /64; 0 for no limit)`},
	{"LIMIT_HANDSHAKES_PER_CLIENT=2147483648", `LIMIT_HANDSHAKES_PER_CLIENT: "2147483648": not a whole number from 0 on, written in digits alone (new handshakes a second from one IPv4 address or IPv6 /64; 0 for no limit)`},
	{"LIMIT_HANDSHAKES_PER_CLIENT=", `LIMIT_HANDSHAKES_PER_CLIENT: set but empty: give it a value, or take it away`},
	{"ADMIN_TLS_KEY_FILE=/admin.key", `ADMIN_TLS_KEY_FILE: set without POSTERN_ADMIN_TLS_CERT_FILE: name its certificate there, or take this away`},
	{"ADMIN_PPROF=true", `ADMIN_PPROF: "true": not one of off, on`},
	{"UPSTREAM_IMAP=", `UPSTREAM_IMAP: must be set, or POSTERN_UPSTREAM_POP3: the mail server behind Postern, such as imap://127.0.0.1:10143`},
	{"TLS_CERT_FILE=", `TLS_CERT_FILE: must be set: a certificate in PEM, or a directory of them`},
	{"TLS_KEY_FILE=/a,,/b", `TLS_KEY_FILE: "/a,,/b": the list has an empty entry: take the comma away that is too much`},
	{"POLICY_MODE=observe  # at first", `POLICY_MODE: "observe  # at first": not one of enforce, explain, observe; write a comment on a line of its own`},
	{"POLICY_MODE=Enforce", `POLICY_MODE: "Enforce": not one of enforce, explain, observe`},
	{"POLICY_MODE=", `POLICY_MODE: set but empty: give it a value, or take it away`},
	{"POLICY_FLOOR=tls1.1", `POLICY_FLOOR: "tls1.1": not one of tls1.2-compat, tls1.2, tls1.2-aead, tls1.3, tls1.3-pq`},
	{"POLICY_FILE=", `POLICY_FILE: set but empty: give it a value, or take it away`},
	{"LOG_LEVEL=INFO+1", `LOG_LEVEL: "INFO+1": not one of debug, info, warn, error`},
	{"LEDGER_URL=mysql://root:hunter2@db/postern", `LEDGER_URL: use memory:, sqlite:/path/file.db or postgres://user@host/database`},
	{"LEDGER_URL=sqlite:ledger.db", `LEDGER_URL: write sqlite: and the absolute path of a file, such as sqlite:/var/lib/postern/ledger.db`},
	{"LEDGER_RETENTION=0s", `LEDGER_RETENTION: "0s": not a duration above zero: write one such as 10s, 30m, 36h or 90d`},
	{"LEDGER_IDENTITY=full", `LEDGER_IDENTITY: "full": not one of off, hashed, plain`},
	{"LEDGER_IDENTITY=hashed", `LEDGER_IDENTITY_KEY_FILE: must be set, since POSTERN_LEDGER_IDENTITY is hashed: name a file that openssl rand -base64 32 has written`},
	{"LOG_FORMAT=xml", `LOG_FORMAT: "xml": not one of json, text`},
	{"EXPLAIN_TEXT= ", `EXPLAIN_TEXT: " ": holds nothing to read: write a text, or take it away`},
	{"EXPLAIN_TEXT=a\r\nb", `EXPLAIN_TEXT: "a\r\nb": it holds a line end: put it in quotes on one line`},
	{"EXPLAIN_TEXT=größer", `EXPLAIN_TEXT: "gr\u00f6\u00dfer": not one line of printable ASCII: write it without letters such as ä or é`},
	{"EXPLAIN_TEXT=see {url}", `EXPLAIN_TEXT: "see {url}": use braces in {version} and {floor} alone`},
	{"EXPLAIN_TEXT=see {5}", `EXPLAIN_TEXT: "see {5}": use braces in {version} and {floor} alone`},
	{"EXPLAIN_TEXT={ver{floor}sion}", `EXPLAIN_TEXT: "{ver{floor}sion}": use braces in {version} and {floor} alone`},
	{"EXPLAIN_TEXT=" + strings.Repeat("x", 401), `EXPLAIN_TEXT: "` + strings.Repeat("x", 80) + `...": longer than 400 bytes when {version} and {floor} are filled in: shorten it`},
	{`POLICY_MODE="observe"`, `POLICY_MODE: the quotes are a part of the value: take them away`},
	{`TLS_CERT_FILE='/a'`, `TLS_CERT_FILE: the quotes are a part of the value: take them away`},
	{"POLICY_FILE=/a ", `POLICY_FILE: "/a ": take away the blanks around it`},
	{"TIMEOUT_IDLE=30", `TIMEOUT_IDLE: "30": not a duration, since its unit is missing: write one such as 10s, 30m, 36h or 90d`},
	{"CERT_FILE=/a", `CERT_FILE: unknown variable; did you mean POSTERN_TLS_CERT_FILE?`},
	{"LOG_LEVLE=debug", `LOG_LEVLE: unknown variable; did you mean POSTERN_LOG_LEVEL?`},
	{"log_level=debug", `log_level: unknown variable; did you mean POSTERN_LOG_LEVEL?`},
	{"TLS_CERT_FILES=/a", `TLS_CERT_FILES: unknown variable; did you mean POSTERN_TLS_CERT_FILE?`},
	{"ADMIN_PASSWORD=hunter2", `ADMIN_PASSWORD: unknown variable; postern serve -h lists all`},
	{"=x", `: unknown variable; postern serve -h lists all`},
	{"A\x1b[2J=x", `A\x1b[2J: unknown variable; postern serve -h lists all`},
	{"BLUE_SERVICE_PORT_IMAPS=993", `BLUE_SERVICE_PORT_IMAPS: unknown variable; if Kubernetes set it, put enableServiceLinks: false into the pod`},
}

func TestABadValueIsOneLineThatNamesTheVariable(t *testing.T) {
	for _, tt := range badValues {
		p := problems(t, with("POSTERN_"+tt.set)...)
		if want := "POSTERN_" + tt.line; len(p) != 1 || p[0] != want {
			t.Errorf("%s\n got %q\nwant %q", tt.set, []string(p), want)
		}
	}
}

func TestABadDurationIsRefused(t *testing.T) {
	for _, d := range []string{"0s", "-5s", "0d", "-1d", "1d-1h", "1h1d", "1.5d", "d", "1dd", "200000000d", "106751d23h59m", "106751d24h", "forever", "NaN"} {
		p := problems(t, with("POSTERN_TIMEOUT_IDLE="+d)...)
		want := `POSTERN_TIMEOUT_IDLE: "` + d + `": not a duration above zero: write one such as 10s, 30m, 36h or 90d`
		if len(p) != 1 || p[0] != want {
			t.Errorf("%s: got %q, want %q", d, []string(p), want)
		}
	}
}

func TestAllProblemsComeAtOnce(t *testing.T) {
	p := problems(t, "POSTERN_LISTEN_IMAPS=:1x,:2x", "POSTERN_TIMEOUT_IDLE=soon", "POSTERN_POLICY_MODE=", "POSTERN_NONSENSE=1",
		"POSTERN_UPSTREAM_IMAP=h", "POSTERN_LOG_FORMAT=xml")
	var names []string
	for _, line := range p {
		name, _, _ := strings.Cut(line, ":")
		names = append(names, strings.TrimPrefix(name, Prefix))
	}
	want := []string{"LISTEN_IMAPS", "LISTEN_IMAPS", "LOG_FORMAT", "NONSENSE", "POLICY_MODE", "TIMEOUT_IDLE", "TLS_CERT_FILE", "UPSTREAM_IMAP"}
	if !slices.Equal(names, want) {
		t.Errorf("got %v\nwant %v", names, want)
	}
	if got := p.Error(); strings.Count(got, "\n") != len(want)-1 {
		t.Errorf("not one line each:\n%s", got)
	}
}

func TestAnEmptyVariableWithoutADefaultIsAsGoodAsUnset(t *testing.T) {
	c := mustLoad(t, with("POSTERN_UPSTREAM_POP3=", "POSTERN_TLS_KEY_FILE=")...)
	if len(c.UpstreamPOP3) != 0 || len(c.TLSKeyFile) != 0 {
		t.Errorf("got %+v", c)
	}
}

func TestTheLastOfTwoEqualNamesCounts(t *testing.T) {
	c := mustLoad(t, with("POSTERN_LOG_LEVEL=loud", "POSTERN_LOG_LEVEL=warn")...)
	if c.LogLevel != slog.LevelWarn {
		t.Errorf("log level %v", c.LogLevel)
	}
}

func TestForeignVariablesAreIgnored(t *testing.T) {
	mustLoad(t, with("POSTERN_SERVICE_HOST=10.0.0.1", "POSTERN_SERVICE_PORT=993", "POSTERN_SERVICE_PORT_IMAPS=993", "POSTERN_PORT=tcp://10.0.0.1:993",
		"POSTERN_PORT_993_TCP=tcp://10.0.0.1:993", "POSTERN_PORT_993_TCP_ADDR=10.0.0.1", "PATH=/bin", "POSTERNER=1", "POSTERN_WITHOUT_VALUE", "=C:=C:\\", "POSTERN_BIN=/usr/bin/postern")...)
}

func TestListenersNeedAnUpstream(t *testing.T) {
	c := mustLoad(t, with("POSTERN_LISTEN_IMAP=127.0.0.1:0,[::1]:0")...)
	check := func(want string) {
		t.Helper()
		var got []string
		for _, l := range c.Listeners() {
			got = append(got, fmt.Sprint(l.Name, " ", l.Variable, " ", l.Addrs))
		}
		if strings.Join(got, ", ") != want {
			t.Errorf("got %q, want %s", got, want)
		}
	}
	check("imaps POSTERN_LISTEN_IMAPS [:993], imap POSTERN_LISTEN_IMAP [127.0.0.1:0 [::1]:0]")
	c = mustLoad(t, with("POSTERN_UPSTREAM_POP3=pop3://127.0.0.1", "POSTERN_LISTEN_IMAP=off")...)
	check("imaps POSTERN_LISTEN_IMAPS [:993], pop3s POSTERN_LISTEN_POP3S [:995], pop3 POSTERN_LISTEN_POP3 [:110]")
}

func TestAClosedListenerTakesNoAddress(t *testing.T) {
	mustLoad(t, with("POSTERN_LISTEN_POP3=:993")...)
}

func TestAConfigurationWithoutListenersIsRejected(t *testing.T) {
	for _, tt := range []struct {
		environ []string
		line    string
	}{
		{with("POSTERN_LISTEN_IMAPS=off", "POSTERN_LISTEN_IMAP=off"), "POSTERN_LISTEN_IMAPS: every listener is off or has no upstream: open one, or set POSTERN_UPSTREAM_IMAP or POSTERN_UPSTREAM_POP3"},
		{with("POSTERN_LISTEN_IMAPS=off", "POSTERN_LISTEN_IMAP=off", "POSTERN_LISTEN_POP3S=off", "POSTERN_LISTEN_POP3=off"), "POSTERN_LISTEN_IMAPS: all four listeners are off: give one an address, such as :993"},
	} {
		if p := problems(t, tt.environ...); len(p) != 1 || p[0] != tt.line {
			t.Errorf("got %q, want %q", []string(p), tt.line)
		}
	}
}

func TestWarnings(t *testing.T) {
	for _, tt := range []struct {
		set  []string
		want []string
	}{
		{[]string{"TIMEOUT_IDLE=29m59s"}, []string{"POSTERN_TIMEOUT_IDLE: under 30m, the least that RFC 9051, Section 5.4 allows: write 30m or more"}},
		{[]string{"TIMEOUT_IDLE=30m"}, nil},
		{[]string{"TIMEOUT_HANDSHAKE=1ms"}, []string{"POSTERN_TIMEOUT_HANDSHAKE: under 1s, too short for clients that are far away or slow: write 10s"}},
		{[]string{"UPSTREAM_PASSTHROUGH_IMAPS=192.0.2.1:995"}, []string{"POSTERN_UPSTREAM_PASSTHROUGH_IMAPS: 995 is the port of the other protocol: name that of imaps"}},
		{[]string{"UPSTREAM_IMAP=", "UPSTREAM_POP3=pop3://[::1]:10110", "TIMEOUT_IDLE=9m"}, []string{"POSTERN_TIMEOUT_IDLE: under 10m, the least that RFC 1939, Section 3 allows: write 10m or more"}},
		{[]string{"UPSTREAM_IMAP=", "UPSTREAM_POP3=pop3://localhost.:10110", "TIMEOUT_IDLE=10m"}, nil},
		{[]string{"LISTEN_POP3=:110", "LISTEN_POP3S=off"}, []string{"POSTERN_LISTEN_POP3: not opened, since POSTERN_UPSTREAM_POP3 is not set: set that, or this to off"}},
		{[]string{"UPSTREAM_IMAP=imap://192.0.2.1,imap://[::ffff:127.0.0.1]:10143"}, []string{`POSTERN_UPSTREAM_IMAP: passwords go to "imap://192.0.2.1:143" unencrypted; that is meant for loopback or the same pod: to another host write imap+starttls:// or imaps://`}},
		{[]string{"UPSTREAM_IMAP=imaps://192.0.2.1", "UPSTREAM_CA_FILE=/ca", "UPSTREAM_SERVER_NAME=mail"}, nil},
		{[]string{"UPSTREAM_CA_FILE=/ca", "UPSTREAM_SERVER_NAME=::1"}, []string{
			"POSTERN_UPSTREAM_CA_FILE: not used, since no upstream has TLS: take it away, or write imaps:// or imap+starttls://", "POSTERN_UPSTREAM_SERVER_NAME: not used, since no upstream has TLS: take it away, or write imaps:// or imap+starttls://"}},
		{[]string{"UPSTREAM_IMAP=", "UPSTREAM_POP3=pop3s://h", "UPSTREAM_CLIENT_ID=id"}, []string{"POSTERN_UPSTREAM_CLIENT_ID: not used, since POSTERN_UPSTREAM_IMAP is not set: take it away"}},
		{[]string{"UPSTREAM_PASSTHROUGH_IMAPS=192.0.2.1:10993"}, nil},
		{[]string{"UPSTREAM_PASSTHROUGH_IMAPS=127.0.0.1:10993", "UPSTREAM_PASSTHROUGH_POP3S=127.0.0.1:10995"}, []string{
			"POSTERN_UPSTREAM_PASSTHROUGH_POP3S: not used, since POSTERN_UPSTREAM_POP3 is not set: take it away"}},
		{[]string{"UPSTREAM_PASSTHROUGH_IMAPS=127.0.0.1:10993", "LISTEN_IMAPS=off"}, []string{
			"POSTERN_UPSTREAM_PASSTHROUGH_IMAPS: not used, since POSTERN_LISTEN_IMAPS is off: take it away"}},
		{[]string{"UPSTREAM_IMAP=", "UPSTREAM_POP3=pop3://localhost:10110", "UPSTREAM_PASSTHROUGH_IMAPS=h:1", "LISTEN_IMAPS=off"}, []string{
			"POSTERN_UPSTREAM_PASSTHROUGH_IMAPS: not used, since POSTERN_UPSTREAM_IMAP is not set: take it away"}},
		{[]string{"LISTEN_IMAPS=[::]:993"}, []string{`POSTERN_LISTEN_IMAPS: "[::]:993" is IPv6 alone; for IPv4 as well write :993`}},
		{[]string{"LISTEN_IMAPS=[::]:993,0.0.0.0:993", "LISTEN_IMAP=[::1]:143"}, nil},
		{[]string{"PROXY_PROTOCOL_FROM=0.0.0.0/0,10.0.0.1"}, []string{"POSTERN_PROXY_PROTOCOL_FROM: 0.0.0.0/0 lets everybody claim any address: name the load balancers alone"}},
		{[]string{"PROXY_PROTOCOL_FROM=10.0.0.0/8, 10.0.0.1/16"}, []string{
			"POSTERN_PROXY_PROTOCOL_FROM: 10.0.0.1/16 is taken as the network 10.0.0.0/16; write it so, or 10.0.0.1 if the one address is meant"}},
		{[]string{"ADMIN_LISTEN=:9993", "ADMIN_TOKEN_FILE=/token"}, []string{
			"POSTERN_ADMIN_TOKEN_FILE: the token comes unencrypted, since POSTERN_ADMIN_LISTEN is not on loopback: set POSTERN_ADMIN_TLS_CERT_FILE"}},
		{[]string{"ADMIN_LISTEN=:9993", "ADMIN_TOKEN_FILE=/token", "ADMIN_TLS_CERT_FILE=/admin"}, nil},
		{[]string{"ADMIN_LISTEN=localhost:9993", "ADMIN_TOKEN_FILE=/token"}, nil},
		{[]string{"ADMIN_LISTEN=:9993"}, nil},
		{[]string{"LEDGER_IDENTITY_KEY_FILE=/key", "LEDGER_IDENTITY=plain"}, []string{"POSTERN_LEDGER_IDENTITY_KEY_FILE: not used, since POSTERN_LEDGER_IDENTITY is plain: take it away, or set that to hashed"}},
		{[]string{"LIMIT_CONNECTIONS=2147483647"}, []string{fmt.Sprintf("POSTERN_LIMIT_CONNECTIONS: %d file descriptors are enough for %d: set no more, or raise their limit (ulimit -n; LimitNOFILE= of a unit)", Descriptors(), connectionLimit(Descriptors()))}},
	} {
		environ := slices.Clone(least)
		for _, s := range tt.set {
			environ = append(environ, "POSTERN_"+s)
		}
		if got := mustLoad(t, environ...).Warnings(); !slices.Equal(got, tt.want) {
			t.Errorf("%v: got %q, want %q", tt.set, got, tt.want)
		}
	}
}

func TestEverySchemeHasItsPort(t *testing.T) {
	for url, want := range map[string]Upstream{
		"imap://h": {schemes[0], "h", 143}, "imaps://h": {schemes[1], "h", 993}, "imap+starttls://h": {schemes[2], "h", 143},
		"pop3://h": {schemes[3], "h", 110}, "pop3s://h": {schemes[4], "h", 995}, "pop3+starttls://[::1]:1110": {schemes[5], "::1", 1110},
	} {
		var got Upstreams
		if err := got.UnmarshalText([]byte(url)); err != nil || len(got) != 1 || got[0] != want {
			t.Errorf("%s: got %v, %v; want %v", url, got, err, want)
		}
	}
}

func TestTheLongestExplainTextPasses(t *testing.T) {
	text := strings.Repeat("x", 394) + "{version}{floor}"
	if c := mustLoad(t, with("POSTERN_EXPLAIN_TEXT="+text)...); c.ExplainText != text {
		t.Errorf("got %q", c.ExplainText)
	}
	problems(t, with("POSTERN_EXPLAIN_TEXT=x"+text)...)
}

func TestASecretIsNeverEchoed(t *testing.T) {
	var dst struct {
		Token Addrs         `env:"TOKEN" secret:"true"`
		Wait  time.Duration `env:"WAIT" secret:"true"`
		Word  string        `env:"WORD" oneof:"a b" secret:"true"`
		Count int           `env:"COUNT" secret:"true"`
		Plain int           `env:"PLAIN"`
	}
	l := load(&dst, []string{"POSTERN_TOKEN=hunter2", "POSTERN_WAIT=hunter2", "POSTERN_WORD=hunter2", "POSTERN_COUNT=hunter2",
		"POSTERN_PLAIN=loud", "POSTERN_TOKN=hunter2", "POSTERN_SECRET=hunter2"})
	text := l.problems.Error()
	if strings.Contains(text, "hunter2") {
		t.Errorf("secret shown:\n%s", text)
	}
	want := Problems{
		"POSTERN_COUNT: not a valid int",
		`POSTERN_PLAIN: "loud": not a valid int`,
		"POSTERN_SECRET: unknown variable; postern serve -h lists all",
		"POSTERN_TOKEN: the port is missing: write host:port, or write off to close the listener",
		"POSTERN_TOKN: unknown variable; did you mean POSTERN_TOKEN?",
		"POSTERN_WAIT: not a duration above zero: write one such as 10s, 30m, 36h or 90d",
		"POSTERN_WORD: not one of a, b",
	}
	got := slices.Sorted(slices.Values(l.problems))
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// A seed is an environment, one entry a line.
func FuzzLoad(f *testing.F) {
	f.Add(strings.Join(least, "\n"))
	f.Add("POSTERN_UPSTREAM_POP3=pop3://h,pop3://h\nPOSTERN_LISTEN_POP3=[::1%eth0]:0\nPOSTERN_=\nPOSTERN_0_=x")
	f.Fuzz(func(t *testing.T, text string) {
		c, err := Load(strings.Split(text, "\n"))
		if err == nil {
			if c == nil || len(c.Listeners()) == 0 || len(c.TLSCertFile) == 0 || c.TimeoutIdle <= 0 {
				t.Fatalf("accepted a config that cannot run: %+v", c)
			}
			c.Warnings()
			return
		}
		p, ok := err.(Problems)
		if !ok || len(p) == 0 || c != nil {
			t.Fatalf("Load = %v, %#v", c, err)
		}
		for _, line := range p {
			if !strings.HasPrefix(line, Prefix) || strings.ContainsFunc(line, func(r rune) bool { return r < ' ' || r > '~' }) {
				t.Fatalf("problem is not one plain line with the variable: %q", line)
			}
		}
	})
}

func TestOnlyLoopbackIsLoopback(t *testing.T) {
	for listen, local := range map[string]bool{
		"127.0.0.1:9993": true, "127.8.8.8:9993": true, "[::1]:9993": true, "[::ffff:127.0.0.1]:9993": true, "localhost:9993": true,
		"Localhost.:9993": true, ":9993": false, "0.0.0.0:9993": false, "[::]:9993": false, "192.0.2.1:9993": false, "mail:9993": false,
		"me.localhost:9993": false,
	} {
		c := mustLoad(t, with("POSTERN_ADMIN_LISTEN="+listen)...)
		if OnLoopback(c.AdminListen) != local || c.APIOff() == local {
			t.Errorf("%s: loopback %v, API off %v", listen, !local, c.APIOff())
		}
		if c := mustLoad(t, with("POSTERN_ADMIN_LISTEN="+listen, "POSTERN_ADMIN_TOKEN_FILE=/token")...); c.APIOff() {
			t.Errorf("%s: no API with a token", listen)
		}
	}
	if c, _ := Inspect(with("POSTERN_ADMIN_LISTEN=9993", "POSTERN_ADMIN_TOKEN_FILE=/token")); c.APIOff() || len(c.Warnings()) > 0 {
		t.Errorf("an address that does not parse: %q", c.Warnings())
	}
}

func TestALiteralListensOnItsOwnFamily(t *testing.T) {
	for addr, want := range map[string]string{
		":993": "tcp", "localhost:993": "tcp", "0.0.0.0:993": "tcp4", "127.0.0.1:993": "tcp4", "[::]:993": "tcp6", "[::1]:993": "tcp6",
	} {
		if got := Network(addr); got != want {
			t.Errorf("%s: %s, want %s", addr, got, want)
		}
	}
}

func TestSetButEmptyIsRefusedForAllButFour(t *testing.T) {
	for _, v := range variables(reflect.TypeFor[Config]()) {
		_, err := Load(append(with("POSTERN_UPSTREAM_POP3=pop3://127.0.0.1:10110"), v.name+"="))
		refused := err != nil && strings.Contains(err.Error(), v.name+": set but empty")
		switch strings.TrimPrefix(v.name, Prefix) {
		case "UPSTREAM_IMAP", "UPSTREAM_POP3", "TLS_CERT_FILE", "TLS_KEY_FILE":
			if refused {
				t.Errorf("%s may be empty, but: %v", v.name, err)
			}
		default:
			if !refused {
				t.Errorf("%s is taken empty: %v", v.name, err)
			}
		}
	}
}
