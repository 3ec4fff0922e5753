package text

import (
	"errors"
	"net/netip"
	"strings"
)

var errPrefix = errors.New("not an address or a CIDR: write one such as 192.0.2.7, 10.0.0.0/8 or 2001:db8::/32")

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

// HostBits is a warning of a CIDR that names an address in the network, as
// 10.0.0.1/16 does: it may be the network that was meant, or the address. It is
// empty where there is no doubt.
func HostBits(s string) string {
	p, err := netip.ParsePrefix(s)
	if err != nil || p.Addr() == p.Masked().Addr() {
		return ""
	}
	network, _ := ParsePrefix(s)
	return s + " is taken as the network " + network.String() + "; write it so, or " + p.Addr().Unmap().String() + " if the one address is meant"
}
