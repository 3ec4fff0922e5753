package proxy

import (
	"math/rand/v2"
	"sync"

	"postern/policy"
)

// A door is where the connections of one listening socket come in. Most clients
// have sent their hello by then, or do a moment later. Where that cannot reach the
// floor, and the policy enforces, they are turned away on the threshold: without a
// goroutine, a net.Conn, or crypto/tls. It may only refuse; who is not understood,
// or may come in after all, begins a session like anybody else, with what has been
// read of it.
type door struct {
	srv      *Server
	listener Listener
	acceptor *acceptor
	// One client at a time: observers keep nothing of it.
	first [maxFirst]byte
	look  look
	s     session
	hs    handshake
}

// maxFirst is how much is read on the threshold: the hellos of old clients are
// a few hundred bytes long.
const maxFirst = 2048

// enter turns a connection away, or begins its session.
func (d *door) enter(a arrival) {
	// Thrown once, whoever asks the policy.
	dice := rand.Uint64()
	if !d.looksAt() {
		d.srv.begin(d.listener, a, dice, nil, nil)
		return
	}
	n, err := a.readNow(d.first[:])
	if err == errWouldBlock {
		if d.acceptor.wait(a) {
			return
		}
		err = nil
	}
	if n == 0 || !d.turnAway(a, dice, d.first[:n]) {
		d.srv.begin(d.listener, a, dice, d.first[:n], err)
	}
}

// looksAt reports whether TLS begins with the first byte, and no limit has to be
// asked before.
func (d *door) looksAt() bool {
	cfg := &d.srv.cfg
	if !d.listener.ImplicitTLS() || len(cfg.ProxyProtocolFrom) > 0 || cfg.Limits.ConnectionsPerClient > 0 || cfg.Limits.HandshakesPerClient > 0 {
		return false
	}
	d.srv.mu.Lock()
	defer d.srv.mu.Unlock()
	return !d.srv.full() && !d.srv.isDraining()
}

// turnAway refuses a client, if its first bytes are a hopeless hello, and all
// that it has said.
func (d *door) turnAway(a arrival, dice uint64, first []byte) bool {
	if !d.look.read(first) || a.pending() {
		return false
	}
	d.s = session{srv: d.srv, hs: &d.hs, random: dice, Conn: Conn{
		Listener: d.listener, Accepted: a.at, Client: a.peer, Local: a.local,
	}}
	d.hs = handshake{begun: a.at}
	if d.s.judge(d.look.hello); !d.hs.hopeless() {
		return false
	}
	d.s.ID = d.srv.lastID.Add(1)
	d.srv.cfg.Metrics.Opened(d.listener)
	alert := alertRecord(alertProtocolVersion, policy.TLS10)
	a.dismiss(alert[:])
	d.s.report(Rejected, NoFailure)
	d.s.tellClosed(ReasonHandshake)
	return true
}

var looks = sync.Pool{New: func() any { return new(look) }}

// turnAway refuses a client that came in without a look at it, if all it has sent
// is a hopeless hello.
func (s *session) turnAway() bool {
	l := looks.Get().(*look)
	defer looks.Put(l)
	if !l.read(s.raw.unread) {
		return false
	}
	if s.judge(l.hello); !s.hs.hopeless() {
		s.hs.judged = false // by crypto/tls's hook, once more
		return false
	}
	s.raw.unread = nil
	alert := alertRecord(alertProtocolVersion, policy.TLS10)
	dismissConn(s.raw.tcpConn, alert[:])
	s.report(Rejected, NoFailure)
	s.raw.finish()
	return true
}

// hopeless reports whether a hello that a look has read is to be refused. The
// policy may let in one that is below the floor; and what it does not call
// legacy is for crypto/tls to refuse.
func (hs *handshake) hopeless() bool {
	return hs.verdict.Legacy() && hs.verdict.Mode == policy.Enforce
}
