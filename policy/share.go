package policy

import (
	"crypto/sha256"
	"encoding/binary"
	"net/netip"
	"time"
)

// takes reports whether the share at that time has the client, or the
// connection, in it. For a client that depends on nothing but the rule's name,
// its address and the share: it is the same on every replica and after a
// restart, and a client that is in stays in while the share grows.
func (s *Share) takes(r *Rule, client netip.Addr, t time.Time, dice uint64) bool {
	return s.position(r, client, dice) < s.at(r, t)
}

// position is where a client or connection stands between 0 and 1: a share
// takes those below it.
func (s *Share) position(r *Rule, client netip.Addr, dice uint64) float64 {
	x := dice
	if !s.Connection {
		x = clientNumber(client)
	}
	// Every rule shuffles anew: the tenth that one takes is not the tenth that
	// another takes.
	x = mix(mix(x^r.shuffle[0]) + r.shuffle[1])
	return float64(x>>11) / (1 << 53)
}

// ClientPrefix returns what counts as one client: the address itself for IPv4,
// also where it is mapped into IPv6, and the /64 for IPv6, without a zone. It is
// the zero Prefix for the zero Addr. It does not allocate.
func ClientPrefix(client netip.Addr) netip.Prefix {
	client = client.Unmap().WithZone("")
	bits := 64
	if client.Is4() {
		bits = client.BitLen()
	}
	p, _ := client.Prefix(bits) // no error: IPv6 has as many bits
	return p
}

// clientNumber is the client as a number.
func clientNumber(client netip.Addr) uint64 {
	client = ClientPrefix(client).Addr()
	b := client.As16()
	if client.Is4() {
		return uint64(binary.BigEndian.Uint32(b[12:]))
	}
	return binary.BigEndian.Uint64(b[:8])
}

// shuffleOf makes a rule's own numbers out of its name.
func shuffleOf(name string) [2]uint64 {
	sum := sha256.Sum256([]byte(name))
	return [2]uint64{binary.BigEndian.Uint64(sum[:8]), binary.BigEndian.Uint64(sum[8:16])}
}

// mix is the finalizer of MurmurHash3: every bit of x decides on every bit of
// the result, and no two x have the same.
func mix(x uint64) uint64 {
	x ^= x >> 33
	x *= 0xff51afd7ed558ccd
	x ^= x >> 33
	x *= 0xc4ceb9fe1a85ec53
	return x ^ x>>33
}
