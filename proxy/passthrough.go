package proxy

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"postern/internal/legacyhello"
	"postern/policy"
)

// A client that crypto/tls cannot serve (SSL 2.0, SSL 3.0, DHE alone, a hello in a form
// that it does not take), or that a rule has go there always,
// goes on working only with the server that has served it so far. In observe it is
// passed through to that server's own TLS port: its hello goes there byte for byte, and
// from the first record of the answer on the connection is a tunnel. Its TLS is
// between the two of them, so that there is no certificate to verify, and no account to
// be seen.

// maxRecorded bounds what is kept of a hello, in bytes: twice the longest one that
// crypto/tls reads. A hello that is cut into so many records that they take more is not
// passed through.
const maxRecorded = 128 << 10

// recorder keeps what crypto/tls reads until the hello is judged, and holds back what
// crypto/tls would send to a client that is passed through.
type recorder struct {
	on, holding bool
	bytes       []byte
}

var errPassedThrough = errors.New("to be passed through")

// start begins with what was read ahead, which it shares.
func (r *recorder) start(ahead []byte) { *r = recorder{on: true, bytes: slices.Clip(ahead)} }

func (r *recorder) add(p []byte) {
	switch {
	case !r.on:
	case len(r.bytes)+len(p) > maxRecorded:
		r.on = false
	default:
		r.bytes = append(r.bytes, p...)
	}
}

// version is the one that the hello names as its own, or that of its record.
func (r *recorder) version() policy.Version {
	if v := legacyhello.Version(r.bytes); v != policy.NoVersion || len(r.bytes) < recordHeaderLen || r.bytes[1] != 3 {
		return v
	}
	return policy.Version(r.bytes[1])<<8 | policy.Version(r.bytes[2])
}

// hold ends the recording once the hello has been judged, and reports whether the
// client can be passed through: then nothing may be sent to it.
func (r *recorder) hold(pass bool) bool {
	if !r.on || !pass {
		*r = recorder{}
		return false
	}
	r.on, r.holding = false, true
	return true
}

// passThroughTLS passes through what crypto/tls has read in vain. Where the old server
// does not answer, crypto/tls reads it once more, and refuses as in enforce.
func (s *session) passThroughTLS() (Outcome, *tunnel) {
	s.tls = nil
	hello := s.raw.recorder.bytes
	s.raw.recorder, s.raw.unread = recorder{}, nil
	if outcome, t := s.passThrough(hello); outcome != "" {
		return outcome, t
	}
	s.raw.unread = hello
	return s.tlsHandshake()
}

// hasOldServer reports whether there is an old server for the listener.
func (s *session) hasOldServer() bool { return s.srv.passthrough[s.Listener] != nil }

// passThrough hands the client over to the old server: the outcome is Observed, or
// Failed where the answer was an alert, which the tunnel passes on as well. There is
// no outcome where the client is still to be refused.
func (s *session) passThrough(hello []byte) (Outcome, *tunnel) {
	up := s.srv.passthrough[s.Listener]
	within := min(s.srv.cfg.UpstreamTimeout, time.Until(s.hs.begun.Add(s.srv.cfg.TimeoutHandshake)))
	answer, alert, err := s.connectToOldServer(up, hello, within)
	if err != nil && s.srv.isDraining() {
		return s.failed(FailShutdown), nil
	}
	if err != nil {
		s.oldServerFailed(up, err, within)
		return "", nil
	}
	up.answered.Store(true)
	if up.down.Swap(false) {
		s.srv.cfg.Log.Info("upstream answers", "upstream", up.Name)
	}
	s.count(ToUpstream, len(hello))
	t := newTunnel(s, nil, nil, answer)
	if alert {
		return s.report(Failed, FailOther), t
	}
	return s.report(Observed, NoFailure), t
}

// minOldServerTimeout is what an old server is given before its silence counts against
// it: a client that is slow with its hello may leave it less.
const minOldServerTimeout = time.Second

// oldServerFailed counts a failure of the old server. It is logged like an upstream's,
// but not where it may concern this client alone: OpenSSL, which Dovecot uses, hangs up
// without an alert on versions that it cannot speak.
func (s *session) oldServerFailed(up *upstream, err error, within time.Duration) {
	reason := reasonOf(err)
	hangsUp := reason == UpstreamClosed && up.answered.Load()
	tooSoon := reason == UpstreamTimeout && within < min(minOldServerTimeout, s.srv.cfg.UpstreamTimeout)
	if hangsUp || tooSoon {
		s.srv.refusedClient(up, err, s.ID)
		return
	}
	s.srv.reportFailure(up, err)
	up.down.Store(true)
}

// connectToOldServer connects to the old server, sends the PROXY header, where one is
// configured, and the hello, and waits for the answer to begin. It returns what has
// come of that, and whether it is an alert.
func (s *session) connectToOldServer(up *upstream, hello []byte, within time.Duration) (answer []byte, alert bool, err error) {
	header, err := s.outgoingHeader()
	if err != nil {
		return nil, false, err
	}
	c, stop, err := s.srv.reach(up, within, within)
	if err != nil {
		return nil, false, err
	}
	answer, alert, err = sendHello(c, append(header, hello...), s.hs.hello.SSL2Format)
	if !stop() {
		err = errDraining
	}
	if err != nil {
		c.Close()
		return nil, false, err
	}
	s.upstream = c
	return answer, alert, nil
}

// answerSize is room for a flight of most servers.
const answerSize = 4 << 10

// sendHello sends the hello, and reads the beginning of the answer: enough to tell what
// it is.
func sendHello(c *upstreamConn, hello []byte, ssl2 bool) (answer []byte, alert bool, err error) {
	if _, err := c.raw.Write(hello); err != nil {
		return nil, false, &upstreamError{dialFailure(err, UpstreamClosed), fmt.Errorf("passing a hello on: %w", err)}
	}
	answer = make([]byte, answerSize)
	n, err := io.ReadAtLeast(c.raw, answer, answerHeaderLen)
	if err != nil {
		return nil, false, &upstreamError{dialFailure(err, UpstreamClosed), fmt.Errorf("waiting for the answer to a hello: %w", err)}
	}
	answer = answer[:n]
	alert, ok := judgeAnswer(answer, ssl2)
	if !ok {
		return nil, false, &upstreamError{UpstreamTLS, fmt.Errorf("a hello is not answered in TLS, but with %.80q", answer)}
	}
	return answer, alert, nil
}

const (
	// answerHeaderLen is the record's type and version or, in SSL 2.0, the
	// record's length and the message's type.
	answerHeaderLen = 3
	ssl2Error       = 0
	ssl2ServerHello = 4
)

// judgeAnswer tells whether an answer begins as one in TLS, or in SSL 2.0 where
// the hello was in that format, and whether it is an alert.
func judgeAnswer(b []byte, ssl2 bool) (alert, ok bool) {
	switch {
	case b[0] == recordHandshake:
		return false, b[1] == 3
	case b[0] == recordAlert:
		return true, b[1] == 3
	case ssl2 && b[0]&0x80 != 0:
		return b[2] == ssl2Error, b[2] == ssl2Error || b[2] == ssl2ServerHello
	}
	return false, false
}
