package text

import (
	"errors"
	"net/netip"
	"strings"
)

var errPrefix = errors.New("not an address or a CIDR such as 10.0.0.0/8 or 2001:db8::/32")

// ParsePrefix reads a CIDR or a single address. IPv4-mapped ones become IPv4,
// and host bits zero. The error is like that of ParseDuration.
func ParsePrefix(s string) (netip.Prefix, error) {
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
