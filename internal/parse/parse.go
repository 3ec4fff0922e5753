// Package parse reads the few forms that environment, policy file and flags
// share.
package parse

import (
	"errors"
	"math"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

var (
	errDuration = errors.New("not a duration above zero such as 10s, 30m, 36h or 90d")
	errPrefix   = errors.New("not an address or a CIDR such as 10.0.0.0/8 or 2001:db8::/32")
)

// Duration reads a duration above zero: Go's syntax, and days of 24 hours in
// front, as in 90d or 1d12h. The error says what is expected and holds nothing
// of the text.
func Duration(s string) (time.Duration, error) {
	days, rest, found := strings.Cut(s, "d")
	if !found {
		days, rest = "0", s
	}
	const day = 24 * time.Hour
	n, err := strconv.ParseUint(days, 10, 64)
	if err != nil || n > uint64(math.MaxInt64/day) {
		return 0, errDuration
	}
	var d time.Duration
	if rest != "" || !found {
		d, err = time.ParseDuration(rest)
		if err != nil || found && strings.ContainsAny(rest, "+-") {
			return 0, errDuration
		}
	}
	if d > math.MaxInt64-time.Duration(n)*day {
		return 0, errDuration
	}
	if d += time.Duration(n) * day; d <= 0 {
		return 0, errDuration
	}
	return d, nil
}

// Prefix reads a CIDR or a single address; IPv4-mapped ones become IPv4, and
// bits behind the prefix zero. The error is as that of Duration.
func Prefix(s string) (netip.Prefix, error) {
	if !strings.Contains(s, "/") {
		addr, err := netip.ParseAddr(s)
		if err != nil || addr.Zone() != "" {
			return netip.Prefix{}, errPrefix
		}
		addr = addr.Unmap()
		return netip.PrefixFrom(addr, addr.BitLen()), nil
	}
	p, err := netip.ParsePrefix(s)
	if err != nil {
		return netip.Prefix{}, errPrefix
	}
	const mapped = 96 // bits in front of the IPv4 address
	if p.Addr().Is4In6() && p.Bits() >= mapped {
		p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-mapped)
	}
	return p.Masked(), nil
}
