package handover

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"postern/bench/internal/client"
)

// listeners are all listeners of Postern.
var listeners = []string{"imaps", "imap", "pop3s", "pop3"}

// versions are those of the clients, of which those below TLS 1.2 are legacy.
var versions = []uint16{tls.VersionTLS13, tls.VersionTLS10, tls.VersionTLS12, tls.VersionTLS11, tls.VersionTLS13}

// kind is what Postern counts handshakes by.
type kind struct{ listener, version, outcome string }

// kindOf is the kind of a handshake that has succeeded in observe.
func kindOf(listener string, version uint16) kind {
	k := kind{listener, strings.ToLower(strings.ReplaceAll(tls.VersionName(version), " ", "")), "accepted"}
	if version < tls.VersionTLS12 {
		k.outcome = "observed"
	}
	return k
}

// failure is what a client must not meet.
type failure struct {
	at       time.Time
	listener string
	step     string // what the client was about to do
	err      error
}

func (f failure) String() string {
	return fmt.Sprintf("%s %s: %s: %v", f.at.Format("15:04:05.000"), f.listener, f.step, f.err)
}

// class is how the network said it.
func (f failure) class() string {
	switch {
	case errors.Is(f.err, syscall.ECONNREFUSED):
		return "refused"
	case errors.Is(f.err, syscall.ECONNRESET), errors.Is(f.err, syscall.EPIPE):
		return "reset"
	case errors.Is(f.err, io.EOF), errors.Is(f.err, io.ErrUnexpectedEOF):
		return "cut"
	}
	return "other"
}

// load is all the clients, and what has become of them.
type load struct {
	ports map[string]int

	mu       sync.Mutex
	counts   map[kind]int
	failures []failure
	took     []time.Duration // of the logins, from when each was due
	visits   int             // that ended as they should
	held     []*session
	next     int // number of the next session
}

// session stays: over IMAP in IDLE, over POP3 silent.
type session struct {
	*client.Conn
	listener string
	version  uint16
}

// open logs a client in. What it meets is counted.
func (l *load) open(number int, listener string, version uint16) (*session, error) {
	target := client.Target{
		Addr: fmt.Sprintf("127.0.0.1:%d", l.ports[listener]), TLS: client.Config(version, false, false),
		POP3: strings.HasPrefix(listener, "pop3"), StartTLS: !strings.HasSuffix(listener, "s"),
	}
	c, err := client.Dial(target, client.Source(number))
	if err != nil {
		return nil, l.fail(listener, "connecting, handshake", err)
	}
	l.mu.Lock()
	l.counts[kindOf(listener, c.State.Version)]++
	l.mu.Unlock()
	step := "login"
	if !target.StartTLS {
		if err = c.Greeting(); err != nil {
			step = "greeting"
		}
	}
	if err == nil {
		err = c.Login()
	}
	if err != nil {
		c.Close()
		return nil, l.fail(listener, step, err)
	}
	return &session{c, listener, version}, nil
}

// leave ends a session as its client does.
func (l *load) leave(s *session) error {
	if err := s.Do("NOOP"); err != nil {
		s.Close()
		return l.fail(s.listener, "NOOP", err)
	}
	if err := s.Logout(); err != nil {
		return l.fail(s.listener, "logout", err)
	}
	return nil
}

func (l *load) fail(listener, step string, err error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.failures = append(l.failures, failure{time.Now(), listener, step, err})
	return err
}

// come opens sessions that stay until there are n.
func (l *load) come(n int) {
	l.mu.Lock()
	first := l.next
	l.next += n - len(l.held)
	missing := l.next - first
	l.mu.Unlock()
	each(missing, func(i int) {
		number := first + i
		s, err := l.open(number, listeners[number%len(listeners)], versions[number/len(listeners)%len(versions)])
		if err != nil {
			return
		}
		if err := s.stay(); err != nil {
			s.Close()
			l.fail(s.listener, "IDLE", err)
			return
		}
		l.mu.Lock()
		l.held = append(l.held, s)
		l.mu.Unlock()
	})
}

// stay has a session do nothing from now on.
func (s *session) stay() error {
	if strings.HasPrefix(s.listener, "imap") {
		if err := s.Idle(); err != nil {
			return err
		}
	}
	return s.SetDeadline(time.Time{})
}

// go ends all sessions. Each must still be what it was.
func (l *load) goAll() {
	l.mu.Lock()
	all := l.held
	l.held = nil
	l.mu.Unlock()
	each(len(all), func(i int) {
		s := all[i]
		if strings.HasPrefix(s.listener, "imap") {
			if err := s.Done(); err != nil {
				s.Close()
				l.fail(s.listener, "DONE", err)
				return
			}
		}
		l.leave(s)
	})
}

// each calls f for every number below n, on a few goroutines.
func each(n int, f func(i int)) {
	numbers := make(chan int)
	var all sync.WaitGroup
	for range min(n, 16) {
		all.Go(func() {
			for i := range numbers {
				f(i)
			}
		})
	}
	for i := range n {
		numbers <- i
	}
	close(numbers)
	all.Wait()
}

// visit has clients log in and out at a steady beat until the context ends.
func (l *load) visit(ctx context.Context, perSecond int) {
	var all sync.WaitGroup
	defer all.Wait()
	begun := time.Now()
	for n := 0; ; n++ {
		due := begun.Add(time.Duration(n) * time.Second / time.Duration(perSecond))
		select {
		case <-ctx.Done():
			return
		case <-time.After(time.Until(due)):
		}
		all.Go(func() {
			s, err := l.open(n, listeners[n%len(listeners)], versions[n/len(listeners)%len(versions)])
			took := time.Since(due)
			if err != nil || l.leave(s) != nil {
				return
			}
			l.mu.Lock()
			defer l.mu.Unlock()
			l.took = append(l.took, took)
			l.visits++
		})
	}
}

// tally is a copy of what has been counted so far.
func (l *load) tally() (counts map[kind]int, failures int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return maps.Clone(l.counts), len(l.failures)
}

// legacy are the observed handshakes.
func legacy(counts map[kind]int) map[kind]int {
	counts = maps.Clone(counts)
	maps.DeleteFunc(counts, func(k kind, _ int) bool { return k.outcome != "observed" })
	return counts
}

func sum(counts map[kind]int) (n int) {
	for _, c := range counts {
		n += c
	}
	return n
}

func (k kind) compare(other kind) int {
	return cmp.Or(cmp.Compare(k.listener, other.listener), cmp.Compare(k.version, other.version), cmp.Compare(k.outcome, other.outcome))
}

func (k kind) String() string { return k.listener + " " + k.version + " " + k.outcome }

// differ has a line for each kind of which there is another number.
func differ(clients, postern map[kind]int, who string) (problems []string) {
	all := maps.Clone(clients)
	maps.Copy(all, postern)
	for _, k := range slices.SortedFunc(maps.Keys(all), kind.compare) {
		if clients[k] != postern[k] {
			problems = append(problems, fmt.Sprintf("%s: %s says %d, the clients counted %d", k, who, postern[k], clients[k]))
		}
	}
	return problems
}
