package proxy

import (
	"net/netip"
	"time"

	"postern/policy"
)

// An Observer receives the events of each connection: Handshake exactly once if TLS was
// to begin, Login at most once, Software at most once and only after Login, Closed
// exactly once, in that order; and LoginFailed for each login that was refused, before
// Handshake where Postern has refused it. It is called on whichever goroutine is at work,
// which may be the accept loop: it must not block, and it must not keep what the events
// point to, nor the lists of a Hello.
type Observer interface {
	Handshake(*Handshake)
	LoginFailed(*LoginFailed)
	Login(*Login)
	Software(*Software)
	Closed(*Closed)
}

// Metrics counts what is no event of a connection. Its methods are called often and
// from many goroutines.
type Metrics interface {
	// Opened: a connection was accepted; Closed of the Observer ends it.
	Opened(Listener)
	// CleartextLogin: a login was tried before TLS, and refused.
	CleartextLogin(Listener)
	// Injection: bytes came pipelined behind STARTTLS or STLS.
	Injection(Listener)
	// Relayed: n bytes of application data were relayed. What is passed through
	// untouched does not count.
	Relayed(Listener, Direction, int)
	// UpstreamConnected: dialled and greeted, in that time.
	UpstreamConnected(l Listener, took time.Duration)
	// UpstreamFailed: an upstream could not serve a session.
	UpstreamFailed(upstream string, reason UpstreamFailure)
	// LimitRefused: a connection or handshake was refused for a limit.
	LimitRefused(Listener, Limit)
	// ProxyHeaderFailed: the PROXY header that is due is missing or broken.
	ProxyHeaderFailed(Listener)
	// UpstreamGreeted: the upstream has greeted the prober.
	UpstreamGreeted(upstream string)
	// UpstreamUp: the upstream serves clients now, or does not, for a reason.
	UpstreamUp(upstream string, problem error)
}

// Conn says which connection an event is about.
type Conn struct {
	ID       uint64
	Listener Listener
	// Client is the address of the client, unmapped; Local the one that it
	// reached.
	Client, Local netip.AddrPort
	Accepted      time.Time
	// Legacy: the hello was below the floor. Where it was not, Remembered are the floors of
	// remembered candidates that refuse it. JA4 is its fingerprint, in either case.
	Legacy     bool
	Remembered policy.FloorSet
	JA4        policy.JA4
}

// Handshake is the end of a handshake, one way or another.
type Handshake struct {
	*Conn
	// Hello is what was offered; nil where there was no hello.
	Hello *policy.Hello
	// Verdict of the policy; zero where there was no hello.
	Verdict policy.Verdict
	Outcome Outcome
	// Failure is set with the outcome Failed.
	Failure Failure
	// Duration from the moment when TLS was to begin.
	Duration time.Duration
	// Version, CipherSuite (by its IANA number), Key, KeyExchange and Resumed are what was
	// negotiated. Version is NoVersion where no handshake was completed here, as for a client
	// that was passed through.
	Version     policy.Version
	CipherSuite uint16
	Key         KeyType
	KeyExchange KeyExchange
	Resumed     bool
	// StartTLS: the handshake followed STARTTLS or STLS.
	StartTLS bool
	// Pattern is how a legacy client has spoken before it, as [mailproto.Speech] has it.
	Pattern string
}

// PassedThrough reports that the client was let in, but that an old server has its TLS:
// no login of it can be seen.
func (h *Handshake) PassedThrough() bool {
	return h.Outcome == Observed && h.Version == policy.NoVersion
}

// LoginFailed is a login that was refused: by the upstream, or here, before TLS. That comes
// before Handshake, if at all.
type LoginFailed struct {
	*Conn
	BeforeTLS bool
	// Mechanism is a name of mailproto.Mechanism, Code the response code of the upstream, if
	// it sent one, and Account what the client claims to be, as in Login, but for clients
	// that are not legacy as well.
	Mechanism, Code, Account string
}

// Login is a login that the upstream accepted.
type Login struct {
	*Conn
	// Account is what the client has logged in as, at most 254 bytes, and Software the
	// name and version in its ID (RFC 2971), at most 128 bytes. They are read only with
	// Config.Identity, and only for a client that is legacy or Remembered; else they are empty, as they are
	// where they are not known. They are a stranger's text: they may hold any bytes.
	Account, Software string
	// Pattern is how a legacy client has spoken up to its login.
	Pattern string
}

// Software is the ID of a client that has sent none before its login.
type Software struct {
	*Conn
	Account, Software string // as in Login; Software is never empty
}

// Closed is the end of a connection.
type Closed struct {
	*Conn
	// ToClient and ToUpstream are relayed application bytes; those of a client
	// that was passed through are all bytes of its TLS, the hello among them.
	ToClient, ToUpstream int64
	Duration             time.Duration
	// FailedLogins is how many logins the upstream has refused; one that the
	// client itself has cancelled is none.
	FailedLogins int
	// Pattern is how a legacy client has spoken that has not logged in.
	Pattern string
	// Reason is one of a few constant phrases.
	Reason CloseReason
}

// CloseReason is the reason for which a connection ended.
type CloseReason string

const (
	ReasonHandshake   CloseReason = "handshake"    // it did not get past TLS
	ReasonExplained   CloseReason = "explained"    // legacy, got the explanation
	ReasonClient      CloseReason = "client"       // the client left
	ReasonUpstream    CloseReason = "upstream"     // the upstream closed
	ReasonLimit       CloseReason = "limit"        // one of the limits
	ReasonProxyHeader CloseReason = "proxy_header" // no PROXY header where one is due
	ReasonNoUpstream  CloseReason = "no_upstream"  // no upstream could be reached
	ReasonTimeout     CloseReason = "timeout"      // TIMEOUT_LOGIN or TIMEOUT_IDLE
	ReasonProtocol    CloseReason = "protocol"     // what was said before login cannot be relayed
	ReasonInjection   CloseReason = "injection"    // bytes behind STARTTLS
	ReasonShutdown    CloseReason = "shutdown"     // this program stops
)
