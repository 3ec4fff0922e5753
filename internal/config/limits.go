package config

import (
	"math"
	"net/netip"
	"strconv"
	"syscall"

	"postern/internal/text"
)

// Count is a number from 0 on.
type Count int

// UnmarshalText reads decimal digits.
func (n *Count) UnmarshalText(text []byte) error {
	v, err := strconv.ParseUint(string(text), 10, 31)
	if err != nil {
		return badValue{string(text), "not a number from 0 on"}
	}
	*n = Count(v)
	return nil
}

const (
	// sessionDescriptors are the client's and the upstream's connection.
	sessionDescriptors = 2
	// reservedDescriptors are for listeners, the admin port, files, and
	// connections that are about to be refused.
	reservedDescriptors = 128
	// leastConnections is what is tried even with next to no descriptors.
	leastConnections = 16
)

// ConnectionLimit is LIMIT_CONNECTIONS or, where that is not set, what the
// file descriptors of this process are enough for. 0 is no limit.
func (c *Config) ConnectionLimit() int {
	if c.explicit[Prefix+"LIMIT_CONNECTIONS"] {
		return int(c.LimitConnections)
	}
	return connectionLimit(Descriptors())
}

func connectionLimit(descriptors uint64) int {
	if descriptors > math.MaxInt32 {
		descriptors = math.MaxInt32
	}
	return max((int(descriptors)-reservedDescriptors)/sessionDescriptors, leastConnections)
}

// Descriptors is how many files and connections this process may have open at
// once. The Go runtime has raised it as far as it may.
func Descriptors() uint64 {
	var r syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &r); err != nil {
		return math.MaxInt32 // no limit that could be asked for
	}
	return uint64(r.Cur)
}

// Prefixes is a list of networks, IPv4-mapped ones as IPv4.
type Prefixes []netip.Prefix

// UnmarshalText reads a comma-separated list of CIDRs and single addresses.
func (p *Prefixes) UnmarshalText(list []byte) error {
	*p = nil
	return eachEntry(string(list), func(entry string) error {
		network, err := text.ParsePrefix(entry)
		if err != nil {
			return badValue{entry, err.Error()}
		}
		*p = append(*p, network)
		return nil
	})
}
