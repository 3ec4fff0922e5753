package config

import (
	"fmt"
	"math"
	"syscall"
)

const (
	// sessionDescriptors are the client's and the upstream's connection.
	sessionDescriptors = 2
	// reservedDescriptors are for listeners, the admin port, files, and
	// connections that are about to be refused.
	reservedDescriptors = 128
	// leastConnections is the limit with next to no descriptors.
	leastConnections = 16
)

// ConnectionLimit returns LIMIT_CONNECTIONS or, if that is not set, the number
// of connections that this process has file descriptors for. 0 is no limit.
func (c *Config) ConnectionLimit() int {
	if c.given[Prefix+"LIMIT_CONNECTIONS"] != "" {
		return int(c.LimitConnections)
	}
	return connectionLimit(Descriptors())
}

func connectionLimit(descriptors uint64) int {
	return max((int(min(descriptors, math.MaxInt32))-reservedDescriptors)/sessionDescriptors, leastConnections)
}

// fewConnections are too few for most mail servers.
const fewConnections = 400

// limitWarning says that a limit on connections does not go with the file descriptors, or
// that there are few.
func limitWarning(given bool, limit int, descriptors uint64) string {
	switch n := connectionLimit(descriptors); {
	case given && limit > n:
		return fmt.Sprintf("%d file descriptors are enough for %d: set no more, or raise their limit (ulimit -n; LimitNOFILE= of a unit)", descriptors, n)
	case !given && n < fewConnections:
		return fmt.Sprintf("%d connections, all that %d file descriptors are enough for: raise their limit (ulimit -n; LimitNOFILE= of a unit)", n, descriptors)
	}
	return ""
}

// Descriptors returns how many files and connections this process may have open
// at once. The Go runtime has raised it as far as it may.
func Descriptors() uint64 {
	var r syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &r); err != nil {
		return math.MaxInt32 // no limit that could be asked for
	}
	return uint64(r.Cur)
}
