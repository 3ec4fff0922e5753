package config

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"postern/internal/text"
	"postern/proxy"
)

// Addrs are the addresses of one listener: host:port each, IP addresses in their
// shortest form, names in lower case. Off is empty and not nil.
type Addrs []string

// UnmarshalText reads a comma-separated list, or the word off.
func (a *Addrs) UnmarshalText(b []byte) (err error) {
	if string(b) == "off" {
		*a = Addrs{}
		return nil
	}
	*a, err = readList(b, func(entry string) (addr, problem string) {
		addr, problem = listenAddr(entry)
		if entry == "off" {
			problem = "off stands alone: take it or the addresses away"
		} else if problem == noPort {
			problem += ", or write off to close the listener"
		}
		return addr, problem
	})
	return err
}

// Paths is a list of files or directories.
type Paths []string

// UnmarshalText reads a comma-separated list.
func (p *Paths) UnmarshalText(b []byte) error {
	list, err := readList(b, func(entry string) (path, problem string) {
		if regexp.MustCompile(`[;: ]/|:[^:/]+\.[a-z]+$`).MatchString(entry) {
			problem = byCommas
		} else if strings.ContainsAny(entry, "*?") {
			problem = "not a pattern: name each file, or the directory"
		}
		return entry, problem
	})
	if err == nil { // else what is missing would be missed in the files of the others
		*p = list
	}
	return err
}

// Prefixes is a list of networks, IPv4-mapped ones as IPv4.
type Prefixes []netip.Prefix

// UnmarshalText reads a comma-separated list of CIDRs and single addresses.
func (p *Prefixes) UnmarshalText(b []byte) (err error) {
	*p, err = readList(b, func(entry string) (netip.Prefix, string) {
		network, err := text.ParsePrefix(entry)
		if err != nil {
			return network, err.Error()
		}
		return network, ""
	})
	return err
}

// Upstreams is a list of mail servers of one protocol.
type Upstreams []Upstream

// UnmarshalText reads comma-separated URLs of any known scheme.
func (us *Upstreams) UnmarshalText(b []byte) (err error) {
	if strings.Contains(string(b), "@") {
		// The URL is not shown: its host may be half a password.
		return badValue{"", "a URL holds only scheme, host and port: take user and password away, which clients send themselves"}
	}
	var seen Upstreams
	*us, err = readList(b, func(entry string) (Upstream, string) {
		u, problem := parseUpstream(entry)
		if problem == "" && slices.Contains(seen, u) {
			problem = "listed twice: leave one out"
		}
		seen = append(seen, u)
		return u, problem
	})
	return err
}

const byCommas = "separate the entries of a list by commas"

// readList reads the entries of a comma-separated list, without the blanks
// around them. It returns the good entries, and a joined error for the others.
func readList[T any](b []byte, parse func(entry string) (v T, problem string)) (list []T, err error) {
	var errs []error
	for entry := range strings.SplitSeq(string(b), ",") {
		if entry = strings.TrimSpace(entry); entry == "" {
			errs = append(errs, badValue{string(b), "the list has an empty entry: take the comma away that is too much"})
			continue
		}
		if v, problem := parse(entry); problem != "" {
			parts := strings.FieldsFunc(entry, func(r rune) bool { return strings.ContainsRune("; \t\n", r) })
			bad := func(part string) bool { _, problem := parse(part); return problem != "" }
			if len(parts) > 1 && !slices.ContainsFunc(parts, bad) {
				problem = byCommas
			}
			errs = append(errs, badValue{entry, problem})
		} else {
			list = append(list, v)
		}
	}
	return list, errors.Join(errs...)
}

// Endpoint is the canonical host:port of a server to dial; empty if there is
// none.
type Endpoint string

// UnmarshalText reads host:port.
func (e *Endpoint) UnmarshalText(b []byte) error {
	s := string(b)
	host, port, problem := ParseAddr(s, true, 0)
	if problem != "" {
		return badValue{s, problem}
	}
	*e = Endpoint(net.JoinHostPort(host, strconv.Itoa(port)))
	return nil
}

// Period is a duration that may be 0.
type Period time.Duration

// UnmarshalText reads a duration, or 0.
func (p *Period) UnmarshalText(b []byte) error {
	d, err := text.ParseDuration(string(b))
	if zero, zerr := time.ParseDuration(string(b)); err != nil && (zerr != nil || zero != 0) {
		return badValue{string(b), "neither 0 nor " + strings.TrimPrefix(err.Error(), "not ")}
	}
	*p = Period(d)
	return nil
}

// Count is a number from 0 on.
type Count int

// UnmarshalText reads decimal digits.
func (n *Count) UnmarshalText(b []byte) error {
	v, err := strconv.ParseUint(string(b), 10, 31)
	if err != nil {
		return badValue{string(b), "not a whole number from 0 on, written in digits alone"}
	}
	*n = Count(v)
	return nil
}

const (
	noPort   = "the port is missing: write host:port"
	noScheme = "not host:port: take the scheme away"
)

// listenAddr returns the canonical form of a listen address, or its problem.
func listenAddr(s string) (addr, problem string) {
	if _, err := strconv.ParseUint(s, 10, 16); err == nil {
		return "", "not host:port: write :" + s + " for every address"
	}
	host, port, problem := ParseAddr(s, false, 0)
	if problem != "" {
		return "", problem
	}
	return net.JoinHostPort(host, strconv.Itoa(port)), ""
}

// ParseAddr reads host:port, or returns the problem. With dial, host and port
// must name a server; otherwise an empty host means every address, and port 0
// any port. A missing port is the given one, unless that is 0.
func ParseAddr(s string, dial bool, defaultPort int) (host string, port int, problem string) {
	for _, not := range notAddresses {
		if not.form.MatchString(s) {
			return "", 0, not.problem
		}
	}
	parts := address.FindStringSubmatch(s)
	host, digits := parts[1], parts[2]
	switch {
	case digits == "" && defaultPort == 0:
		problem = noPort
	case host == "" && dial:
		problem = "the host is missing: write it before the colon"
	case host == "*" && !dial:
		problem = "for every address leave the host empty, as in :993"
	case host != "":
		host, problem = parseHost(host)
	}
	if problem != "" || digits == "" {
		return host, defaultPort, problem
	}
	n, err := strconv.ParseUint(digits, 10, 16)
	switch {
	case err != nil:
		problem = "not a port: write a number from 1 to 65535"
	case n == 0 && dial:
		problem = "port 0 cannot be dialled: write that of the server"
	}
	return host, int(n), problem
}

// address is host, host:port or [IPv6]:port; a name has 63 characters in a label at most.
// The underscore is not valid in a host name, but container networks use it.
var (
	address  = regexp.MustCompile(`(?s)^(\[[^\]]*\]|[^:]*)(?::(.+))?$`)
	hostName = regexp.MustCompile(`^[\w-]{1,63}(\.[\w-]{1,63})*$`)
	zoneName = regexp.MustCompile(`^[\w-]*$`)
)

// notAddresses are what people write in the place of an address.
var notAddresses = []struct {
	form    *regexp.Regexp
	problem string
}{
	{regexp.MustCompile(`://`), noScheme},
	{regexp.MustCompile(`^\[[^\]]*$`), "the bracket is not closed: write it as in [::1]:993"},
	{regexp.MustCompile(`^\[[^\]]*\](:$|[^:])`), "after the bracket comes :port, as in [::1]:993"},
	{regexp.MustCompile(`(?s)^([^\[:][^:]*)?:.*:`), "an IPv6 address stands in brackets, as in [::1]:993"},
	{regexp.MustCompile(`(?s)^([^\[].*)?:$`), noPort},
}

// parseHost checks a host name or an IP address, the latter in brackets where
// it is IPv6, and returns it without them.
func parseHost(s string) (host, problem string) {
	ip, err := netip.ParseAddr(s)
	inner, bracketed := strings.CutPrefix(s, "[")
	if bracketed {
		ip, err = netip.ParseAddr(strings.TrimSuffix(inner, "]"))
	}
	name := strings.TrimSuffix(s, ".")
	switch {
	case bracketed && !ip.Is6():
		problem = "not an IPv6 address in the brackets: brackets are for such as [::1]:993 alone"
	case !zoneName.MatchString(ip.Zone()):
		problem = "not a zone of an IPv6 address: write its interface, as in [fe80::1%eth0]"
	case ip.Is6() && ip.IsLinkLocalUnicast() && ip.Zone() == "":
		problem = "a link-local address needs its interface, as in [fe80::1%eth0]"
	case err == nil:
		return ip.Unmap().String(), ""
	case strings.Trim(s, "0123456789.") == "":
		problem = "not an IPv4 address: write four numbers from 0 to 255, as in 192.0.2.7"
	case len(name) > 253:
		problem = "the host name is too long: 253 characters are the most"
	case !hostName.MatchString(name):
		problem = "not a host name or an IP address: write one such as mail.example.org, 192.0.2.7 or [2001:db8::7]"
	}
	return strings.ToLower(s), problem
}

// serverName checks a name that a certificate can have, and returns it without
// brackets and final dot.
func serverName(s string) (name, problem string) {
	if ip, err := netip.ParseAddr(s); err == nil && ip.Zone() == "" {
		return ip.Unmap().String(), ""
	}
	name, problem = parseHost(s)
	return strings.TrimSuffix(name, "."), problem
}

// Scheme is the meaning of an upstream URL's scheme.
type Scheme struct {
	Name        string
	Protocol    string // imap or pop3
	DefaultPort int
	TLS         proxy.LineSecurity
}

var schemes = []Scheme{
	{"imap", "imap", 143, proxy.LinePlain},
	{"imaps", "imap", 993, proxy.LineTLS},
	{"imap+starttls", "imap", 143, proxy.LineStartTLS},
	{"pop3", "pop3", 110, proxy.LinePlain},
	{"pop3s", "pop3", 995, proxy.LineTLS},
	{"pop3+starttls", "pop3", 110, proxy.LineStartTLS},
}

// Upstream is one mail server behind the proxy.
type Upstream struct {
	Scheme Scheme
	Host   string // a name in lower case, or an IP address without brackets
	Port   int    // 1 to 65535
}

// Addr returns host:port, ready for a dialer.
func (u Upstream) Addr() string { return net.JoinHostPort(u.Host, strconv.Itoa(u.Port)) }

// String returns the URL, always with the port.
func (u Upstream) String() string { return u.Scheme.Name + "://" + u.Addr() }

// Variable is the one that names upstreams of this protocol.
func (u Upstream) Variable() string { return Prefix + "UPSTREAM_" + strings.ToUpper(u.Scheme.Protocol) }

// ForProxy returns the upstream as the proxy knows it.
func (c *Config) ForProxy(u Upstream) proxy.UpstreamConfig {
	return proxy.UpstreamConfig{Name: u.String(), Addr: u.Addr(), TLS: u.Scheme.TLS, ServerName: c.ServerName(u)}
}

// ProxyVersion returns the version of the PROXY header for upstreams; 0 for none.
func (c *Config) ProxyVersion() int {
	return map[string]int{"v1": 1, "v2": 2}[c.UpstreamProxyProtocol]
}

// parseUpstream reads scheme://host or scheme://host:port, or returns the
// problem. net/url would accept too much.
func parseUpstream(s string) (u Upstream, problem string) {
	name, rest, found := strings.Cut(s, "://")
	i := slices.IndexFunc(schemes, func(k Scheme) bool { return k.Name == strings.ToLower(name) })
	switch {
	case strings.HasPrefix(s, "/") || strings.HasPrefix(strings.ToLower(s), "unix:"):
		problem = "a Unix socket cannot be used: let the server listen on a port of loopback, and write {protocol}://127.0.0.1:port"
	case !found:
		problem = "the scheme is missing: put {protocol}:// before it where the server speaks in plaintext, {protocol}+starttls:// where it has STARTTLS, or {protocol}s:// where it begins with TLS"
	case i < 0:
		problem = "unknown scheme: write {protocol}://, {protocol}+starttls:// or {protocol}s://"
	case strings.ContainsAny(rest, "/?#"):
		problem = "a URL holds only scheme, host and port: take away what follows them"
	default:
		u.Scheme = schemes[i]
		u.Host, u.Port, problem = ParseAddr(rest, true, u.Scheme.DefaultPort)
	}
	return u, problem
}

// OwnListener returns the variable of the listener that a connection from this host to
// one of these addresses would reach, if any.
func (c *Config) OwnListener(to []netip.Addr, port string) string {
	for _, l := range c.Listeners() {
		for _, addr := range l.Addrs {
			if slices.ContainsFunc(to, func(ip netip.Addr) bool { return overlap(addr, net.JoinHostPort(ip.Unmap().String(), port)) }) {
				return l.Variable
			}
		}
	}
	return ""
}

// overlap reports whether two addresses cannot both be bound. Names are taken to be
// different, but for localhost.
func overlap(a, b string) bool {
	parse := func(addr string) (host, port string, ip netip.Addr) {
		host, port, _ = net.SplitHostPort(addr)
		if ip, _ = netip.ParseAddr(host); host == "localhost" {
			ip = netip.AddrFrom4([4]byte{127, 0, 0, 1})
		}
		return host, port, ip
	}
	hostA, portA, ipA := parse(a)
	hostB, portB, ipB := parse(b)
	switch {
	case portA != portB:
		return false
	case hostA == "" || hostB == "" || hostA == hostB:
		return true
	}
	return ipA.IsValid() && ipA.Is4() == ipB.Is4() && (ipA == ipB || ipA.IsUnspecified() || ipB.IsUnspecified())
}

// The bounds on a secret, in bytes. The upper one fits into an HTTP header, also
// in base64.
const (
	leastSecret = 16
	mostSecret  = 4 << 10
)

// ReadSecret reads the file of a variable, which is given without its prefix: a
// secret, and at most one line ending. what describes the secret in errors;
// check, unless nil, may reject it. The error is one line that names variable
// and file, and never holds any of the secret.
func ReadSecret(variable, file, what string, check func([]byte) error) ([]byte, error) {
	secret, err := text.ReadFile(file, mostSecret+len("\r\n"))
	if line, ok := bytes.CutSuffix(secret, []byte("\n")); ok {
		secret = bytes.TrimSuffix(line, []byte("\r"))
	}
	if err == nil && check != nil {
		err = check(secret)
	}
	switch {
	case err != nil:
	case len(secret) < leastSecret:
		err = fmt.Errorf("the %s has %d bytes, %d are the least: openssl rand -base64 32 makes one", what, len(secret), leastSecret)
	case len(secret) > mostSecret:
		err = fmt.Errorf("the %s has more than %d bytes, the most: openssl rand -base64 32 makes one", what, mostSecret)
	}
	switch {
	case err != nil && (!filepath.IsAbs(file) || filepath.Dir(file) == "/") && errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("%s: no such file (its name is not shown, as it may be the %s itself): put the %s into a file, and name that", Prefix+variable, what, what)
	case err != nil:
		return nil, fmt.Errorf("%s: %w", Prefix+variable, text.FileError(file, err))
	}
	return secret, nil
}

// IdentityKey reads the key of hashed accounts, even if accounts are not hashed
// now; nil if no file is configured.
func (c *Config) IdentityKey() ([]byte, error) {
	if c.LedgerIdentityKeyFile == "" {
		return nil, nil
	}
	return ReadSecret("LEDGER_IDENTITY_KEY_FILE", c.LedgerIdentityKeyFile, "key", nil)
}
