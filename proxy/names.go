package proxy

import (
	"crypto/tls"
	"slices"
	"strings"

	"postern/internal/text"
	"postern/policy"
)

// Listener is one of the four listeners; its text is a label and log value.
type Listener string

// The listeners: implicit TLS (RFC 8314, Section 3), STARTTLS (RFC 9051,
// Section 6.2.1) and STLS (RFC 2595, Section 4).
const (
	IMAPS Listener = "imaps"
	POP3S Listener = "pop3s"
	IMAP  Listener = "imap"
	POP3  Listener = "pop3"
)

// Listeners lists all four.
var Listeners = []Listener{IMAPS, POP3S, IMAP, POP3}

// ImplicitTLS reports whether TLS begins with the first byte.
func (l Listener) ImplicitTLS() bool { return strings.HasSuffix(string(l), "s") }

// Protocol is what the listener speaks inside TLS: imap or pop3, which are also
// the ALPN names of the two (RFC 7301, IANA registry).
func (l Listener) Protocol() Protocol { return Protocol(strings.TrimSuffix(string(l), "s")) }

// Protocol is a mail access protocol.
type Protocol string

// The protocols, by ALPN name.
const (
	ProtocolIMAP Protocol = "imap"
	ProtocolPOP3 Protocol = "pop3"
)

// Outcome is what became of a handshake; every one has exactly one.
type Outcome string

const (
	Accepted  Outcome = "accepted"  // not legacy, handshake complete
	Observed  Outcome = "observed"  // legacy, let in and counted
	Explained Outcome = "explained" // legacy, got the explanation, closed
	Rejected  Outcome = "rejected"  // legacy, rejected with an alert
	Failed    Outcome = "failed"    // broke off for another reason
)

// Outcomes lists all outcomes.
var Outcomes = []Outcome{Accepted, Observed, Explained, Rejected, Failed}

// LegacyOutcomes lists those that a legacy handshake can have.
var LegacyOutcomes = []Outcome{Observed, Explained, Rejected, Failed}

// Failure is why a handshake failed.
type Failure string

const (
	NoFailure         Failure = ""
	FailPlaintext     Failure = "plaintext"            // text where TLS was due
	FailHTTP          Failure = "http"                 // an HTTP request where TLS was due
	FailTLSOnStartTLS Failure = "tls_on_starttls_port" // TLS before STARTTLS or STLS
	FailMalformed     Failure = "malformed"            // neither TLS nor text, or a broken hello
	FailFallback      Failure = "fallback"             // SCSV on a version that reaches the floor
	FailClientAlert   Failure = "client_alert"         // the client refused us, or sent an alert alone
	FailALPN          Failure = "alpn"                 // no protocol in common (alert 120)
	FailClientCert    Failure = "client_certificate"   // the client's certificate is not accepted
	FailTimeout       Failure = "timeout"
	FailClosed        Failure = "closed" // the client left in order
	FailIO            Failure = "io"     // reset, or another error of the connection
	FailLimit         Failure = "limit"
	FailShutdown      Failure = "shutdown"
	FailOther         Failure = "other"
)

// Failures lists every failure that is a label value.
var Failures = []Failure{
	FailPlaintext, FailHTTP, FailTLSOnStartTLS, FailMalformed, FailFallback, FailClientAlert,
	FailALPN, FailClientCert, FailTimeout, FailClosed, FailIO, FailLimit, FailShutdown, FailOther,
}

// KeyType is the type of the certificate's key that answered a handshake.
type KeyType string

const (
	KeyECDSA KeyType = "ecdsa" // Ed25519 too
	KeyRSA   KeyType = "rsa"
	KeyNone  KeyType = "none" // resumed: no certificate was needed
)

// KeyTypes lists all key types.
var KeyTypes = []KeyType{KeyECDSA, KeyRSA, KeyNone}

func keyType(k policy.KeyTypes) KeyType {
	switch {
	case k == 0:
		return KeyNone
	case k&policy.RSA != 0:
		return KeyRSA
	}
	return KeyECDSA
}

// KeyExchange is how a handshake has agreed on a key: the IANA name of a group in lower
// case, or one of these.
type KeyExchange string

const (
	KeyExchangeRSA     KeyExchange = "rsa" // encrypted to an RSA key
	KeyExchangeResumed KeyExchange = "resumed"
	KeyExchangeNone    KeyExchange = "none" // no other
)

// KeyExchanges lists all key exchanges: groups come first, in their order.
var KeyExchanges = append(text.Each(groups, func(g tls.CurveID) KeyExchange {
	return KeyExchange(strings.ToLower(policy.GroupName(g)))
}), KeyExchangeRSA, KeyExchangeResumed, KeyExchangeNone)

// groups are those that can be negotiated under any floor.
var groups = policy.FloorTLS12.Groups()

func keyExchange(state *tls.ConnectionState) KeyExchange {
	i := slices.Index(groups, state.CurveID)
	switch {
	case state.DidResume:
		return KeyExchangeResumed
	case i >= 0:
		return KeyExchanges[i]
	case state.CurveID == 0:
		return KeyExchangeRSA
	}
	return KeyExchangeNone
}

// UpstreamFailure is why an upstream could not serve a session.
type UpstreamFailure string

const (
	UpstreamDial     UpstreamFailure = "dial"     // no connection
	UpstreamTimeout  UpstreamFailure = "timeout"  // none, or no greeting, in time
	UpstreamTLS      UpstreamFailure = "tls"      // its TLS failed, or its certificate
	UpstreamStartTLS UpstreamFailure = "starttls" // STARTTLS or STLS missing, refused or injected
	UpstreamGreeting UpstreamFailure = "greeting" // it greets in no known way
	UpstreamPreauth  UpstreamFailure = "preauth"  // it greets with PREAUTH
	UpstreamRefused  UpstreamFailure = "refused"  // it greets with BYE or -ERR, or refuses what follows
	UpstreamClosed   UpstreamFailure = "closed"   // it went away before the login
)

// UpstreamFailures lists all upstream failures.
var UpstreamFailures = []UpstreamFailure{
	UpstreamDial, UpstreamTimeout, UpstreamTLS, UpstreamStartTLS,
	UpstreamGreeting, UpstreamPreauth, UpstreamRefused, UpstreamClosed,
}

// Direction is a way through the proxy.
type Direction string

const (
	ToClient   Direction = "to_client"
	ToUpstream Direction = "to_upstream"
)

// Directions lists both.
var Directions = []Direction{ToClient, ToUpstream}
