// Package measure holds the measures. Each drives one running subject and
// returns plain numbers; the report package knows how to compare them.
package measure

import (
	"cmp"
	"crypto/tls"
	"fmt"
	"os"
	"time"

	"postern/bench/internal/certs"
	"postern/bench/internal/client"
	"postern/bench/internal/stub"
	"postern/bench/internal/subject"
)

// Env is what one run has set up for its measures.
type Env struct {
	Dir       string
	EC, RSA   certs.Pair
	Stub      stub.Ports
	Quick     bool
	IdleSteps []int // established connections at which idle is measured
	MaxConn   int
	// Profile has Postern serve profiles.
	Profile bool
	// Snapshot, if set, is called where a subject holds the most connections.
	Snapshot func(in *subject.Instance) error
}

// span is how long a timed measure runs.
func (e *Env) span(full time.Duration) time.Duration {
	if e.Quick {
		return full / 2
	}
	return full
}

// Values are a measure's numbers; Notes what it saw besides.
type (
	Values map[string]float64
	Notes  map[string]string
)

// Column is one figure of a measure, as the report shows it.
type Column struct {
	Key, Title string
	Format     string
	Higher     bool // higher is better
	Ratio      bool // compared with haproxy and with the best peer
	OverDirect bool // also shown as the difference to direct
}

// Measure is one measure. All that share a Group value run on one instance
// of the subject, started with that group's certificate and logging.
type Measure struct {
	Name, Title string
	Group       Group
	Columns     []Column
	Direct      bool    // makes sense without a proxy
	Slow        bool    // expensive and steady: -idle-repeat says in how many rounds
	Seconds     float64 // about how long it takes
	Run         func(*Env, *subject.Instance, Values, Notes) error
}

// ColumnsAt are the columns, of which some measures have one for each number
// of idle connections.
func (m *Measure) ColumnsAt(steps []int) []Column {
	if m == idle && len(steps) > 0 {
		return idleColumns(steps)
	}
	return m.Columns
}

// Group is how the subject is started for a measure.
type Group int

const (
	ECDSA Group = iota // the usual instance
	RSA
	Fresh  // an instance of its own, for memory
	Logged // an instance that logs
)

// All measures, in the order they run.
func All() []*Measure {
	return []*Measure{startup, full13, resume13, pq13, session, bulk, bulkPOP3, rtt, legacy, storm,
		full12RSA, legacyLogged, legacyMany, idle, used}
}

// Start starts a subject for a group and waits for its first handshake.
func Start(e *Env, s *subject.Subject, g Group) (*subject.Instance, time.Duration, error) {
	o := subject.Options{Cert: e.EC, Stub: e.Stub, Log: g == Logged, Profile: e.Profile, MaxConn: e.MaxConn}
	if g == RSA {
		o.Cert = e.RSA
	}
	return Launch(s, e.Dir, o)
}

// Launch starts a subject in a directory below dir and waits for its first
// handshake.
func Launch(s *subject.Subject, dir string, o subject.Options) (*subject.Instance, time.Duration, error) {
	t0 := time.Now()
	in, err := subject.Start(s, dir, o)
	if err != nil {
		return nil, 0, err
	}
	t := target(in, client.Config(tls.VersionTLS13, false, false))
	for {
		c, err := client.Dial(t, src(0))
		if err == nil {
			took := time.Since(t0)
			if err = c.Greeting(); err == nil {
				c.Logout()
				return in, took, nil
			}
			c.Close()
		}
		if in.Exited() || time.Since(t0) > cmp.Or(o.Patience, 10*time.Second) {
			out, _ := os.ReadFile(in.Log)
			in.Stop()
			return nil, 0, fmt.Errorf("%s does not serve: %v; it says: %.2000s", s.Name, err, out)
		}
		time.Sleep(time.Millisecond)
	}
}
