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
		x = clientKey(client)
	}
	// Every rule shuffles anew: the tenth that one takes is not the tenth that
	// another takes.
	x = mix(mix(x^r.shuffle[0]) + r.shuffle[1])
	return float64(x>>11) / (1 << 53)
}

// clientKey is what a client is known by: its IPv4 address or its IPv6 /64.
func clientKey(client netip.Addr) uint64 {
	client = client.Unmap()
	if client.Is4() {
		b := client.As4()
		return uint64(binary.BigEndian.Uint32(b[:]))
	}
	b := client.As16()
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
