package config

import (
	"errors"
	"net"
	"net/netip"
	"strconv"
	"strings"
)

// Addrs is where one listener is bound: host:port each, IP addresses in their
// shortest form, names in lower case. Empty means off, and is not nil then.
type Addrs []string

// UnmarshalText reads a comma-separated list, or the word off.
func (a *Addrs) UnmarshalText(text []byte) error {
	*a = nil
	if string(text) == "off" {
		*a = Addrs{}
		return nil
	}
	return eachEntry(string(text), func(entry string) error {
		addr, reason := listenAddr(entry)
		if reason != "" {
			return badValue{entry, reason}
		}
		*a = append(*a, addr)
		return nil
	})
}

// Paths is a list of files or directories.
type Paths []string

// UnmarshalText reads a comma-separated list.
func (p *Paths) UnmarshalText(text []byte) error {
	*p = nil
	return eachEntry(string(text), func(entry string) error {
		*p = append(*p, entry)
		return nil
	})
}

// eachEntry calls parse for the entries of a comma-separated list, without
// the blanks around them, and joins what it returns.
func eachEntry(list string, parse func(string) error) error {
	var errs []error
	for entry := range strings.SplitSeq(list, ",") {
		entry = strings.TrimSpace(entry)
		if entry == "" {
			errs = append(errs, badValue{list, "the list has an empty entry"})
			continue
		}
		errs = append(errs, parse(entry))
	}
	return errors.Join(errs...)
}

// listenAddr brings an address to listen on into its one form, or says what
// is wrong with it.
func listenAddr(s string) (addr, reason string) {
	if s == "off" {
		return "", "off stands alone, and only for LISTEN_ variables"
	}
	if _, err := strconv.ParseUint(s, 10, 16); err == nil {
		return "", "not host:port; for every address put a colon before the port"
	}
	host, port, reason := splitHostPort(s)
	switch {
	case reason != "":
		return "", reason
	case port == "":
		return "", "the port is missing"
	case host == "*":
		return "", "for every address leave the host empty"
	case host != "":
		if host, reason = parseHost(host); reason != "" {
			return "", reason
		}
	}
	number, reason := parsePort(port)
	if reason != "" {
		return "", reason
	}
	return net.JoinHostPort(host, strconv.Itoa(number)), ""
}

// splitHostPort takes host, host:port or [IPv6]:port apart. Unlike
// net.SplitHostPort it lets the port be absent, and keeps the brackets on.
func splitHostPort(s string) (host, port, reason string) {
	if strings.HasPrefix(s, "[") {
		end := strings.IndexByte(s, ']')
		if end < 0 {
			return "", "", "the bracket is not closed"
		}
		host, port = s[:end+1], s[end+1:]
		if port == "" {
			return host, "", ""
		}
		if port[0] != ':' || port == ":" {
			return "", "", "after the bracket comes :port"
		}
		return host, port[1:], ""
	}
	host, port, found := strings.Cut(s, ":")
	if strings.Contains(port, ":") {
		return "", "", "an IPv6 address stands in brackets"
	}
	if found && port == "" {
		return "", "", "the port is missing"
	}
	return host, port, ""
}

// parseHost checks a host name or an IP address, the latter in brackets where
// it is IPv6, and returns it without them.
func parseHost(s string) (host, reason string) {
	if inner, ok := strings.CutPrefix(s, "["); ok {
		ip, err := netip.ParseAddr(strings.TrimSuffix(inner, "]"))
		if err != nil || !ip.Is6() {
			return "", "not an IPv6 address in the brackets"
		}
		if strings.Trim(ip.Zone(), nameBytes) != "" {
			return "", "not a zone of an IPv6 address"
		}
		return ip.Unmap().String(), ""
	}
	if strings.Trim(s, "0123456789.") == "" {
		ip, err := netip.ParseAddr(s)
		if err != nil {
			return "", "not an IPv4 address"
		}
		return ip.String(), ""
	}
	name := strings.TrimSuffix(s, ".")
	if len(name) > 253 {
		return "", "the host name is too long"
	}
	for label := range strings.SplitSeq(name, ".") {
		if label == "" || len(label) > 63 || strings.Trim(label, nameBytes) != "" {
			return "", "not a host name or an IP address"
		}
	}
	return strings.ToLower(s), ""
}

// serverName checks a name that a certificate can have, and returns it without
// brackets and final dot.
func serverName(s string) (name, reason string) {
	if ip, err := netip.ParseAddr(s); err == nil && ip.Zone() == "" {
		return ip.Unmap().String(), ""
	}
	name, reason = parseHost(s)
	return strings.TrimSuffix(name, "."), reason
}

// nameBytes are those of a label; the underscore is no host name's, but
// container networks give such names.
const nameBytes = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_"

func parsePort(s string) (port int, reason string) {
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil {
		return 0, "the port is not a number from 0 to 65535"
	}
	return int(n), ""
}

// explainBytes is how long the filled-in text may be: it shares a line of 512
// bytes (RFC 2449, Section 4) with the words around it.
const explainBytes = 400

// explainProblem says what is wrong with a text for mail programs, or "".
// Braces are for placeholders alone: {5} at the end of an IMAP line would
// announce a literal.
func explainProblem(s string) string {
	if strings.TrimSpace(s) == "" {
		return "holds nothing to read"
	}
	for _, b := range []byte(s) {
		if b < ' ' || b > '~' {
			return "not one line of printable ASCII"
		}
	}
	filled := strings.NewReplacer("{version}", "1.0", "{floor}", "1.2").Replace(s)
	if strings.ContainsAny(filled, "{}") {
		return "braces stand only in {version} and {floor}"
	}
	if len(filled) > explainBytes {
		return "longer than 400 bytes when {version} and {floor} are filled in"
	}
	return ""
}
