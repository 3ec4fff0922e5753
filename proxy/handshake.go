package proxy

import (
	"bytes"
	"crypto/tls"
	"errors"
	"net"
	"time"

	"postern/internal/certs"
	"postern/policy"
)

// handshake is what is known of a handshake under way; it is gone when that is
// over.
type handshake struct {
	begun    time.Time
	startTLS bool
	hello    policy.Hello
	// judged: there was a hello that could be read, and a verdict on it.
	judged  bool
	verdict policy.Verdict
	certs   *certs.Set
	// answered is the key of the certificate that was presented.
	answered policy.KeyTypes
}

// handshake does TLS with the client and reports how it ended: accepted, observed and
// explained connections go on. For one that is passed through it returns the tunnel to
// the old server as well.
func (s *session) handshake() (Outcome, *tunnel) {
	s.hs = &handshake{begun: time.Now(), startTLS: !s.Listener.ImplicitTLS()}
	defer func() { s.hs = nil }()
	deadline := s.hs.begun.Add(s.srv.cfg.TimeoutHandshake)
	s.setDeadline(deadline)
	first, err := s.raw.peek(1)
	switch {
	case err != nil:
		return s.failed(s.failure(err)), nil
	case s.raw.ssl2Hello():
		return s.ssl2()
	case first[0] < 0x80 && (first[0] < 20 || first[0] > 23):
		return s.notTLS(deadline), nil
	case !s.looked && s.turnAway():
		return Rejected, nil
	}
	s.raw.recorder.on = s.passesThrough()
	return s.tlsHandshake()
}

// tlsHandshake lets crypto/tls do its work, with the hook below, and names the
// result.
func (s *session) tlsHandshake() (Outcome, *tunnel) {
	s.raw.handshaking = true
	s.raw.records = records{} // what came before was none, or is read again
	first := s.raw.unread[0]
	regime, _ := s.srv.regime()
	s.tls = tls.Server(s.raw, regime.strict[s.Listener.Protocol()])
	err := s.tls.Handshake()
	s.raw.handshaking = false
	if s.raw.recorder.holding {
		return s.passTLS()
	}
	return s.tlsOutcome(first, err), nil
}

// tlsOutcome reports how crypto/tls has ended.
func (s *session) tlsOutcome(first byte, err error) Outcome {
	hs := s.hs
	switch {
	case err == nil && hs.verdict.Serve == policy.Explain:
		return s.report(Explained, NoFailure)
	case err == nil && hs.verdict.Serve == policy.Observe:
		return s.report(Observed, NoFailure)
	case err == nil:
		// crypto/tls has enforced the floor, whatever the verdict says.
		hs.verdict.Reason = policy.NotLegacy
		return s.report(Accepted, NoFailure)
	case hs.verdict.Legacy() && hs.verdict.Serve == policy.Enforce && s.refusedFor(hs.verdict.Reason):
		s.report(Rejected, NoFailure)
		s.raw.finish()
		return Rejected
	}
	f := s.failure(err)
	if f == FailClosed && first == recordAlert && !hs.judged {
		f = FailClientAlert
	}
	return s.failed(f)
}

// refusedFor reports whether the alert that crypto/tls sent is the one of a
// legacy handshake: the hello may have had another fault that came first.
func (s *session) refusedFor(r policy.Reason) bool {
	if r == policy.ReasonCipher {
		return s.raw.sent == alertHandshakeFailure
	}
	return s.raw.sent == alertProtocolVersion
}

// configForClient is the hook: it sees the hello before crypto/tls looks at
// its version. An error would be told as an alert 80, so it returns one only
// where nothing is told: to a client that is to be passed through. What it
// returns else is of the regime that has judged the hello, since another one may
// have begun while the client was silent: the strict configuration enforces the
// floor, the lenient one is for a legacy client that the policy lets in.
func (srv *Server) configForClient(chi *tls.ClientHelloInfo) (*tls.Config, error) {
	s := chi.Conn.(*clientConn).s
	regime := s.judge(policy.FromClientHello(chi))
	if s.raw.recorder.hold(s.hs.verdict.PassThrough) {
		return nil, errPassedThrough
	}
	if s.hs.verdict.Serve != policy.Enforce {
		return regime.lenient[s.Listener.Protocol()], nil
	}
	return regime.strict[s.Listener.Protocol()], nil
}

// judge asks the policy about a hello, and returns the regime that has judged.
func (s *session) judge(hello policy.Hello) *regime {
	hs := s.hs
	hs.hello = hello
	hs.certs = s.srv.tls.certificates.Load().Lookup(hello.ServerName)
	regime, now := s.srv.regime()
	hs.verdict = regime.snapshot.Decide(&hs.hello, policy.ConnInfo{
		Keys: hs.certs.Keys(), Listener: string(s.Listener), Port: s.Local.Port(), Client: s.Client.Addr(),
	}, now, s.random)
	hs.judged = true
	return regime
}

// certificate chooses the one to present, by the same rules as the verdict.
func (srv *Server) certificate(chi *tls.ClientHelloInfo) (*tls.Certificate, error) {
	hs := chi.Conn.(*clientConn).s.hs
	v := &hs.verdict
	hs.answered = v.Floor.PickKey(&hs.hello, hs.certs.Keys(), v.Serve != policy.Enforce)
	return hs.certs.Certificate(hs.answered), nil
}

// failure names what went wrong where it was not the floor that refused.
func (s *session) failure(err error) Failure {
	switch {
	case s.hs.judged && s.hs.verdict.Version == policy.NoVersion:
		return FailOther // only versions of the future
	case s.raw.sent == alertNoApplicationProtocol:
		return FailALPN
	case s.raw.sent == alertInappropriateFallback:
		return FailFallback
	}
	if s.raw.endedWithAlert() {
		// In clear: OpenSSL says so that it distrusts us, even where TLS 1.3
		// would have it encrypted and crypto/tls finds a bad record.
		return FailClientAlert
	}
	var certificate *tls.CertificateVerificationError
	if errors.As(err, &certificate) {
		return FailClientCert
	}
	var op *net.OpError
	var header tls.RecordHeaderError
	switch errors.As(err, &op); {
	case op != nil && op.Op == "remote error":
		return FailClientAlert
	case op != nil && op.Op == "local error", errors.As(err, &header), s.raw.sent != noAlert:
		return FailMalformed
	}
	switch endingOf(err) {
	case endTimeout:
		if s.srv.isDraining() {
			return FailShutdown
		}
		return FailTimeout
	case endClosed:
		return FailClosed
	}
	if op != nil {
		return FailIO
	}
	return FailOther
}

// failed reports a failure and closes.
func (s *session) failed(f Failure) Outcome {
	s.report(Failed, f)
	s.raw.finish()
	return Failed
}

// report tells the observer how the handshake ended.
func (s *session) report(o Outcome, f Failure) Outcome {
	hs := s.hs
	s.verdict = hs.verdict
	event := Handshake{
		Conn: &s.Conn, Verdict: hs.verdict, Outcome: o, Failure: f,
		Duration: time.Since(hs.begun), StartTLS: hs.startTLS, Key: KeyNone,
	}
	if hs.judged {
		event.Hello = &hs.hello
	}
	if hs.verdict.Legacy() {
		s.Legacy, s.JA4 = true, hs.hello.Fingerprint()
	}
	if s.tls != nil && (o == Accepted || o == Observed || o == Explained) {
		state := s.tls.ConnectionState()
		event.Version = policy.Version(state.Version)
		event.Resumed = state.DidResume
		if !event.Resumed {
			event.Key = keyType(hs.answered)
		}
	}
	s.srv.cfg.Observer.Handshake(&event)
	return o
}

// ssl2 passes an SSLv2-compatible ClientHello through, or refuses it.
func (s *session) ssl2() (Outcome, *tunnel) {
	hs := s.hs
	hello, length, ok, err := s.raw.readSSL2Hello()
	if err != nil {
		return s.failed(s.failure(err)), nil
	}
	whole := s.raw.unread
	s.raw.unread = whole[length:]
	if !ok {
		s.sendAlert(alertDecodeError, policy.TLS10)
		return s.failed(FailMalformed), nil
	}
	s.judge(hello)
	if hs.verdict.PassThrough && s.passesThrough() {
		if outcome, t := s.passThrough(whole); outcome != "" {
			s.raw.unread = nil
			return outcome, t
		}
	}
	s.sendAlert(alertProtocolVersion, hs.verdict.Version)
	if !hs.verdict.Legacy() {
		return s.failed(FailOther), nil
	}
	s.report(Rejected, NoFailure)
	s.raw.finish()
	return Rejected, nil
}

// sendAlert sends a fatal alert.
func (s *session) sendAlert(a alert, offered policy.Version) {
	record := alertRecord(a, offered)
	s.raw.Write(record[:])
}

// alertRecord is a fatal alert in a record of a version that the client can read.
func alertRecord(a alert, offered policy.Version) [alertRecordLen]byte {
	version := min(max(offered, policy.SSL3), policy.TLS10)
	return [...]byte{recordAlert, byte(version >> 8), byte(version), 0, 2, 2, byte(a - 1)}
}

const (
	// maxPlaintext and plaintextPatience bound what is waited for before text
	// on a port of TLS is answered: enough to know a request of HTTP.
	maxPlaintext      = 512
	plaintextPatience = time.Second
)

// notTLS answers text with text, and closes on the rest.
func (s *session) notTLS(deadline time.Time) Outcome {
	if patience := time.Now().Add(plaintextPatience); patience.Before(deadline) {
		s.raw.SetReadDeadline(patience)
	}
	for n := 1; n <= maxPlaintext && !bytes.ContainsRune(s.raw.unread, '\n'); n = len(s.raw.unread) + 1 {
		if _, err := s.raw.peek(n); err != nil {
			if endingOf(err) == endReset {
				return s.failed(FailIO)
			}
			break
		}
	}
	text := s.raw.unread
	if !all(text, isText) {
		return s.failed(FailMalformed)
	}
	f := FailPlaintext
	if isHTTP(text) {
		f = FailHTTP
	}
	s.report(Failed, f)
	s.farewell(s.dialect.goodbye(noticeProtocol, "This is a port for TLS: choose SSL/TLS in your mail program."))
	return Failed
}

func isText(c byte) bool { return c >= ' ' && c < 0x7f || c == '\r' || c == '\n' || c == '\t' }

func isHTTP(text []byte) bool {
	for _, m := range []string{"GET ", "HEAD ", "POST ", "PUT ", "DELETE ", "OPTIONS ", "CONNECT ", "TRACE ", "PATCH ", "PRI "} {
		if bytes.HasPrefix(text, []byte(m)) {
			return true
		}
	}
	return false
}

// tlsTooSoon reports TLS that came before STARTTLS or STLS.
func (s *session) tlsTooSoon() {
	s.hs = &handshake{begun: time.Now()}
	s.report(Failed, FailTLSOnStartTLS)
	s.hs = nil
}
