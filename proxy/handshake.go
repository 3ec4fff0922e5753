package proxy

import (
	"cmp"
	"crypto/tls"
	"errors"
	"net"
	"slices"
	"time"

	"postern/internal/certs"
	"postern/internal/legacyhello"
	"postern/internal/mailproto"
	"postern/policy"
)

// handshake is what is known of a handshake under way.
type handshake struct {
	begun    time.Time
	startTLS bool
	said     []byte // before TLS
	// hello is what the policy has judged; nil before, and where none could be read.
	hello *policy.Hello
	// legacyVersion is the version that the hello names as its own, whatever
	// supported_versions says.
	legacyVersion policy.Version
	verdict       policy.Verdict
	certs         *certs.Set
	// presented is the key of the certificate that was presented.
	presented policy.KeyTypes
}

// handshake does TLS with the client and reports how it ended: accepted, observed and
// explained connections go on. For one that is passed through it returns the tunnel to
// the old server as well.
func (s *session) handshake(said []byte) (Outcome, *tunnel) {
	s.hs = &handshake{begun: time.Now(), startTLS: !s.Listener.ImplicitTLS(), said: said}
	defer func() { s.hs = nil }()
	deadline := s.hs.begun.Add(s.srv.cfg.TimeoutHandshake)
	s.setDeadline(deadline)
	first, err := s.raw.peek(1)
	switch {
	case err != nil:
		return s.failed(s.failure(err)), nil
	case s.raw.sslv2():
		return s.sslv2Hello()
	case first[0] < 0x80 && (first[0] < recordChangeCipherSpec || first[0] > recordApplicationData):
		return s.notTLS(deadline), nil
	}
	s.raw.recorder.start(s.raw.unread)
	return s.tlsHandshake()
}

// tlsHandshake lets crypto/tls do its work: configForClient is called with the hello.
func (s *session) tlsHandshake() (Outcome, *tunnel) {
	s.raw.handshaking, s.raw.answered = true, false
	s.raw.records = records{} // earlier bytes were no TLS records, or will be read again
	first := s.raw.unread[0]
	s.tls = &tlsConn{Conn: tls.Server(s.raw, s.srv.tls.base), raw: s.raw}
	err := s.tls.Handshake()
	s.raw.handshaking = false
	if s.raw.recorder.holding {
		return s.passThroughTLS()
	}
	return s.tlsOutcome(first, err), nil
}

// tlsOutcome reports how crypto/tls has ended, and closes unless the client goes on.
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
		return s.ended(Rejected, NoFailure)
	}
	f := s.failure(err)
	if f == FailClosed && first == recordAlert && hs.hello == nil {
		f = FailClientAlert
	}
	return s.failed(f)
}

// refusedFor reports whether crypto/tls has sent the alert for a legacy handshake: the
// hello may have had another fault that came first.
func (s *session) refusedFor(r policy.Reason) bool {
	if r == policy.ReasonCipher {
		return s.raw.alertSent == alertHandshakeFailure
	}
	return s.raw.alertSent == alertProtocolVersion
}

// configForClient sees the hello before crypto/tls looks at its version. It returns a
// configuration of the snapshot that has judged the hello, since another one may have
// come into force while the client was silent: the strict one enforces the floor, the
// lenient one is for a legacy client that the policy lets in. crypto/tls would send
// alert 80 for an error, so it returns one only where what crypto/tls sends is held
// back: to a client that is to be passed through.
func (srv *Server) configForClient(chi *tls.ClientHelloInfo) (*tls.Config, error) {
	s := chi.Conn.(*clientConn).s
	snapshot := s.judge(policy.FromClientHello(chi))
	s.hs.legacyVersion = cmp.Or(s.hs.legacyVersion, s.raw.recorder.version())
	// SSL 3.0 has no supported_versions (RFC 8446, Appendix D.5).
	contradicts := s.hs.legacyVersion <= policy.SSL3 && slices.Contains(chi.Extensions, extensionSupportedVersions)
	if s.raw.recorder.hold(s.hs.verdict.PassThrough && s.hasOldServer() && !contradicts) {
		return nil, errPassedThrough
	}
	if contradicts {
		s.hs.verdict.Serve = policy.Enforce
		return noVersion, nil
	}
	return snapshot.config(&s.hs.verdict, s.Listener.Protocol()), nil
}

const extensionSupportedVersions = 43

// noVersion has crypto/tls send protocol_version, whatever is offered.
var noVersion = &tls.Config{MinVersion: tls.VersionTLS13, MaxVersion: tls.VersionTLS12}

// judgeUnreadable judges a hello that crypto/tls has refused with an alert, where what it
// offers can be read at all, and returns the alert for it. It is a matter of the floor if
// the floor refuses it, or if it is passed through.
func (s *session) judgeUnreadable(a tls.AlertError) tls.AlertError {
	if a == alertInternalError {
		a = alertDecodeError // longer than crypto/tls reads
	}
	if s.hs.hello == nil {
		hello, ok := legacyhello.Parse(s.raw.recorder.bytes)
		if !ok {
			return a
		}
		hello.Unreadable = true
		s.judge(hello)
	}
	verdict := &s.hs.verdict
	pass := s.raw.recorder.hold(verdict.PassThrough && s.hasOldServer())
	switch verdict.Reason {
	case policy.ReasonVersion, policy.ReasonFallback:
		return alertProtocolVersion
	case policy.ReasonCipher:
		return alertHandshakeFailure
	case policy.ReasonMalformed:
		if !pass {
			verdict.Reason, verdict.Mode, verdict.Rule = policy.NotLegacy, policy.Enforce, ""
		}
	}
	return a
}

// judge asks the policy about a hello, and returns the snapshot that has judged it.
func (s *session) judge(hello policy.Hello) *tlsSnapshot {
	hs := s.hs
	hs.hello = &hello
	hs.certs = s.srv.tls.certificates.Load().Lookup(hello.ServerName)
	snapshot, now := s.srv.tlsSnapshot()
	hs.verdict = snapshot.policy.Decide(hs.hello, policy.ConnInfo{
		Keys: hs.certs.Keys(), Listener: string(s.Listener), Port: s.Local.Port(), Client: s.Client.Addr(),
	}, now, s.random)
	return snapshot
}

// certificate chooses the certificate to present, by the same rules as the verdict.
func (srv *Server) certificate(chi *tls.ClientHelloInfo) (*tls.Certificate, error) {
	hs := chi.Conn.(*clientConn).s.hs
	hs.presented = hs.verdict.Key
	return hs.certs.Certificate(hs.presented, srv.cfg.Now()), nil
}

// failure names what went wrong where it was not the floor that refused.
func (s *session) failure(err error) Failure {
	switch {
	case s.hs.hello != nil && s.hs.verdict.Version == policy.NoVersion:
		return FailOther // only versions of the future
	case s.raw.alertSent == alertNoApplicationProtocol:
		return FailALPN
	case s.raw.alertSent == alertInappropriateFallback:
		return FailFallback
	}
	if s.raw.endedWithAlert() {
		// In clear: OpenSSL says so that it distrusts us, even where TLS 1.3
		// would have it encrypted and crypto/tls finds a bad record.
		return FailClientAlert
	}
	op, _ := errors.AsType[*net.OpError](err)
	switch {
	case errors.As(err, new(*tls.CertificateVerificationError)):
		return FailClientCert
	case op != nil && op.Op == "remote error":
		return FailClientAlert
	case op != nil && op.Op == "local error", errors.As(err, new(tls.RecordHeaderError)), s.raw.alertSent != noAlert:
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
func (s *session) failed(f Failure) Outcome { return s.ended(Failed, f) }

// ended reports how the handshake ended and closes.
func (s *session) ended(o Outcome, f Failure) Outcome {
	s.report(o, f)
	s.raw.finish()
	return o
}

// report tells the observer how the handshake ended.
func (s *session) report(o Outcome, f Failure) Outcome {
	hs := s.hs
	s.verdict = hs.verdict
	event := Handshake{
		Conn: &s.Conn, Hello: hs.hello, Verdict: hs.verdict, Outcome: o, Failure: f,
		Duration: time.Since(hs.begun), StartTLS: hs.startTLS, Key: KeyNone,
	}
	if s.Legacy, s.Remembered = hs.verdict.Legacy(), hs.verdict.Remembered; s.Legacy || s.Remembered != 0 {
		s.JA4 = hs.hello.Fingerprint()
		if o == Observed || o == Accepted || len(hs.said) > 0 {
			s.speech = mailproto.NewSpeech(string(s.Listener), hs.said)
			event.Pattern = s.speech.Pattern()
		}
		if (o == Observed || o == Accepted) && !s.Listener.ImplicitTLS() {
			s.speech.StartTLS()
		}
	}
	if s.tls != nil && (o == Accepted || o == Observed || o == Explained) {
		state := s.tls.ConnectionState()
		event.Version, event.CipherSuite = policy.Version(state.Version), state.CipherSuite
		event.KeyExchange, event.Resumed = keyExchange(&state), state.DidResume
		if !event.Resumed {
			event.Key = keyType(hs.presented)
		}
		s.raw.splits = state.Version == tls.VersionTLS10
	}
	s.srv.cfg.Observer.Handshake(&event)
	return o
}
