package policy

import (
	"bytes"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/gaissmai/bart"

	"postern/internal/text"
)

// Key is a key of a match.
type Key struct {
	// Name in a policy file.
	Name string
	// singular and plural stand before one value and before several.
	singular, plural string
	// example is a list of values.
	example string
	// Usage is the help for a flag that gives a client the key's value.
	Usage string
	// numbers: the values are numbers in JSON.
	numbers bool
	// hashed: it is the fingerprint of a hello, which takes long to find.
	hashed bool

	// parse reads a value of a policy file and returns the form to keep.
	parse func(text string) (string, error)
	// doubt is a warning of a value as written that may be meant otherwise; nil is
	// for keys without one.
	doubt func(text string) string
	// parseOne is the same for what one client has; nil is parse.
	parseOne func(text string) (string, error)
	// give has a client have a value, or a part of what it stands for.
	give func(c *Client, value string)
	// Of is what a client has; empty where that is not known.
	Of func(c Client) string
	// find makes the look-up of what a client has in the rules by value. It must
	// not allocate; the client is passed by value for that.
	find func(listed map[string]*ruleSet) func(Client) *ruleSet
	// covers reports whether value a takes all that b takes; nil is equality.
	covers func(a, b string) bool
	// missing says why nobody can have a value at a site, if so; nil is for keys
	// of which that is never known.
	missing func(s Site, value string) string
}

// Keys is the table of match keys, in the order in which mismatches are reported.
// Everything particular to a key is in its entry.
var Keys = []*Key{
	{
		Name: "client", singular: "clients in", plural: "clients in", example: `10.20.0.0/16, "2001:db8::/32"`,
		Usage: "about a client with this IP `address`",
		parse: parseNetwork, parseOne: parseAddress, doubt: text.HostBits,
		give:   func(c *Client, network string) { c.Client = netip.MustParsePrefix(network).Addr() },
		Of:     func(c Client) string { return text.Either(c.Client.IsValid(), c.Client.String(), "") },
		find:   findNetwork,
		covers: coversNetwork,
	},
	{
		Name: "listener", singular: "listener", plural: "listeners", example: "imaps, pop3s",
		Usage: "on this `listener`: imaps, pop3s, imap or pop3",
		parse: ParseListener,
		give:  func(c *Client, listener string) { c.Listener = listener },
		Of:    func(c Client) string { return c.Listener },
		find:  findValue(func(s string) string { return s }, func(c Client) string { return c.Listener }),
	},
	{
		Name: "port", singular: "port", plural: "ports", example: "10993", numbers: true,
		Usage:   "on this local `port` (default the listener's)",
		parse:   parsePort,
		give:    func(c *Client, port string) { c.Port = portNumber(port) },
		Of:      func(c Client) string { return strconv.Itoa(int(c.Port)) },
		find:    findValue(portNumber, func(c Client) uint16 { return c.Port }),
		missing: missingPort,
	},
	{
		Name: "server_name", singular: "server name", plural: "server names", example: "imap-legacy.example.org",
		Usage: "which asks for this host `name`",
		parse: parseServerName, parseOne: parseOneName,
		give:    func(c *Client, name string) { c.ServerName = strings.Replace(name, "*", "any", 1) },
		Of:      func(c Client) string { return c.ServerName },
		find:    findName,
		covers:  coversName,
		missing: missingName,
	},
	{
		Name: "version", singular: "version", plural: "versions", example: "tls1.0, tls1.1",
		Usage: "which offers this `version` at most",
		parse: func(s string) (string, error) { v, err := ParseVersion(s); return v.String(), err },
		give:  func(c *Client, version string) { c.Version, _ = ParseVersion(version) },
		Of:    func(c Client) string { return c.Version.String() },
		find:  findValue(func(s string) Version { v, _ := ParseVersion(s); return v }, func(c Client) Version { return c.Version }),
	},
	{
		Name: "ja4", singular: "fingerprint", plural: "fingerprints", example: exampleJA4, hashed: true,
		Usage: "which has this JA4 `fingerprint`",
		parse: func(s string) (string, error) { ja4, err := ParseJA4(s); return ja4.String(), err },
		give:  func(c *Client, ja4 string) { copy(c.JA4[:], ja4) },
		Of:    func(c Client) string { return c.JA4.String() },
		find:  findValue(func(s string) JA4 { return JA4([]byte(s)) }, func(c Client) JA4 { return c.JA4 }),
	},
}

// findValue looks up by the value itself, since some cannot be written out without
// allocating.
func findValue[V comparable](parse func(string) V, of func(Client) V) func(map[string]*ruleSet) func(Client) *ruleSet {
	return func(listed map[string]*ruleSet) func(Client) *ruleSet {
		sets := make(map[V]*ruleSet, len(listed))
		for text, set := range listed {
			sets[parse(text)] = set
		}
		return func(c Client) *ruleSet { return sets[of(c)] }
	}
}

// ListenerNames lists the values that the key listener can have.
var ListenerNames = []string{"imaps", "pop3s", "imap", "pop3"}

// Client has the properties of a legacy handshake that rules match.
type Client struct {
	ConnInfo
	Version    Version `json:"version"`
	ServerName string  `json:"server_name"` // empty: it sends none
	JA4        JA4     `json:"ja4"`         // zero: not known
}

// Set gives the client what a key of a match asks for, such as 192.0.2.7 for
// the key client.
func (c *Client) Set(key *Key, value string) error {
	parse := key.parse
	if key.parseOne != nil {
		parse = key.parseOne
	}
	value, err := parse(value)
	if err == nil {
		key.give(c, value)
	}
	return err
}

func parseNetwork(s string) (string, error) {
	p, err := text.ParsePrefix(s)
	if err != nil {
		return "", fmt.Errorf("%q is %w", clip(s), err)
	}
	return p.String(), nil
}

func parseAddress(s string) (string, error) {
	addr, err := netip.ParseAddr(s)
	if p, notPrefix := netip.ParsePrefix(s); notPrefix == nil {
		one := p.Masked().Addr()
		if next := one.Next(); p.Contains(next) {
			one = next
		}
		return "", fmt.Errorf("%q is a network: give one address of it, such as %v", clip(s), one)
	}
	if err != nil {
		return "", fmt.Errorf("%q is not an IP address: write one such as 192.0.2.7 or 2001:db8::7", clip(s))
	}
	addr = addr.Unmap().WithZone("")
	return netip.PrefixFrom(addr, addr.BitLen()).String(), nil
}

func coversNetwork(a, b string) bool {
	wide, narrow := netip.MustParsePrefix(a), netip.MustParsePrefix(b)
	return wide.Bits() <= narrow.Bits() && wide.Contains(narrow.Addr())
}

// findNetwork has each network hold the rules of those around it too, so that
// the longest match is all that is to be looked up.
func findNetwork(listed map[string]*ruleSet) func(Client) *ruleSet {
	table := new(bart.Table[*ruleSet])
	for text, set := range listed {
		p := netip.MustParsePrefix(text)
		whole := *set
		for bits := range p.Bits() {
			around, _ := p.Addr().Prefix(bits)
			whole.join(listed[around.String()])
		}
		table.Insert(p, &whole)
	}
	return func(c Client) *ruleSet {
		set, _ := table.Lookup(c.Client.Unmap().WithZone(""))
		return set
	}
}

// ParseListener returns the listener of that name, one of [ListenerNames].
func ParseListener(s string) (string, error) { return oneOf("listener", "", ListenerNames, s) }

func parsePort(s string) (string, error) {
	n := portNumber(s)
	if n == 0 {
		return "", fmt.Errorf("%q is not a port: write a number from 1 to 65535", clip(s))
	}
	return strconv.Itoa(int(n)), nil
}

// portNumber returns a port, or 0 for other text.
func portNumber(s string) uint16 {
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil {
		return 0
	}
	return uint16(n)
}

func missingPort(s Site, port string) string {
	if s.Ports == nil || slices.Contains(s.Ports, portNumber(port)) {
		return ""
	}
	return "no listener has the port " + port + ": mend it, or add it to that POSTERN_LISTEN_ variable and restart"
}

var labelForm = form(`^[a-z0-9_-]{1,63}$`)

// parseServerName reads a host name in which *. may stand for the first label.
func parseServerName(s string) (string, error) {
	name := strings.TrimSuffix(string(lowerASCII([]byte(s))), ".")
	plain := strings.TrimPrefix(name, "*.")
	for label := range strings.SplitSeq(plain, ".") {
		if !labelForm().MatchString(label) {
			return "", fmt.Errorf("%q is not a host name: write one such as imap.example.org or *.example.org", clip(s))
		}
	}
	if _, err := netip.ParseAddr(plain); err == nil || len(name) > maxServerName {
		return "", fmt.Errorf("%q is no name that a client sends (RFC 6066, Section 3): write a host name, or match by port", clip(s))
	}
	return name, nil
}

func parseOneName(s string) (string, error) {
	if strings.HasPrefix(s, "*.") {
		return "", fmt.Errorf("%q is no name that a client sends: give one such as imap.example.org", clip(s))
	}
	return parseServerName(s)
}

// maxServerName is the longest host name (RFC 1035, Section 2.3.4), in bytes.
const maxServerName = 255

// findName looks a name up as it is, or else with *. in the place of its first
// label. Names are compared without regard to case (RFC 6066, Section 3).
func findName(listed map[string]*ruleSet) func(Client) *ruleSet {
	for name, set := range listed {
		if _, parent, ok := strings.Cut(name, "."); ok && listed["*."+parent] != set {
			set.join(listed["*."+parent])
		}
	}
	return func(c Client) *ruleSet {
		if len(c.ServerName) > maxServerName {
			return nil
		}
		var lower [maxServerName]byte
		name := lowerASCII(lower[:copy(lower[:], c.ServerName)])
		if found := listed[string(name)]; found != nil {
			return found
		}
		dot := bytes.IndexByte(name, '.')
		if dot < 1 {
			return nil
		}
		name[dot-1] = '*'
		return listed[string(name[dot-1:])]
	}
}

// lowerASCII lowers a name in its place: a letter that only Unicode knows to
// be another's upper case stays what it is.
func lowerASCII(name []byte) []byte {
	for i, b := range name {
		if b >= 'A' && b <= 'Z' {
			name[i] = b + 'a' - 'A'
		}
	}
	return name
}

// coversName reports whether a name of a match, which may begin with *., takes
// a server name. As in certificates, the * is one label (RFC 9525, Section
// 6.3).
func coversName(pattern, name string) bool {
	if parent, ok := strings.CutPrefix(pattern, "*."); ok {
		label, rest, found := strings.Cut(name, ".")
		return found && label != "" && rest == parent
	}
	return name == pattern
}

func missingName(s Site, name string) string {
	covered := func(host string) bool {
		host = string(lowerASCII([]byte(strings.TrimSuffix(host, "."))))
		return coversName(host, name) || coversName(name, host)
	}
	if s.Names == nil || slices.ContainsFunc(s.Names, covered) {
		return ""
	}
	return "no certificate covers the name " + name + ": mend it, or add one to POSTERN_TLS_CERT_FILE and restart"
}

const exampleJA4 = "t10d230600_44099cda8a52_195413a0cc0f"

var ja4Form = form(`^t(s2|s3|1[0-3])[di]\d{4}[0-9A-Za-z]{2}_[0-9a-f]{12}_[0-9a-f]{12}$`)

// ParseJA4 reads a fingerprint such as t13d1516h2_8daaf6152771_e5627efa2ab1.
func ParseJA4(s string) (ja4 JA4, err error) {
	if !ja4Form().MatchString(s) {
		return ja4, fmt.Errorf("%q is not a JA4 fingerprint such as %s", clip(s), exampleJA4)
	}
	copy(ja4[:], s)
	return ja4, nil
}
