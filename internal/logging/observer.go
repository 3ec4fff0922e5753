package logging

import (
	"log/slog"
	"slices"
	"strings"

	"postern/internal/ledger"
	"postern/internal/text"
	"postern/policy"
	"postern/proxy"
)

// Observer logs the events of connections: every legacy handshake and refused login
// that is not suppressed at info, and the rest at debug. It implements
// [proxy.Observer].
type Observer struct {
	Log         *slog.Logger
	Suppression *Suppression
	// Identify tells what is known of a client. It must not block.
	Identify func(*proxy.Handshake) ledger.Known
	// Logins is for logins that were refused, and Account the form in which the account of
	// one is kept; nil keeps none.
	Logins  *Suppression
	Account func(account string) string
}

// LegacyHandshake is the message of a legacy handshake's line, HandshakeFailed that of
// another one that failed.
const (
	LegacyHandshake = "legacy handshake"
	HandshakeFailed = "handshake failed"
)

// Bounds on what a stranger can put into one line.
const (
	maxServerName = 255
	maxALPN       = 16
)

// Handshake logs a legacy handshake, or a failed one: at info where a hello offers enough
// and is refused as malformed, since another server may have served that client; else at
// debug.
func (o *Observer) Handshake(h *proxy.Handshake) {
	if !h.Verdict.Legacy() {
		if h.Outcome != proxy.Failed {
			return
		}
		attrs := []any{
			"listener", h.Listener, "client", h.Client.Addr(), "client_port", h.Client.Port(),
			"failure", h.Failure, "version", h.Verdict.Version.String(), "starttls", h.StartTLS, "conn_id", h.ID,
		}
		switch {
		case h.Hello == nil || h.Failure != proxy.FailMalformed:
			o.Log.Debug(HandshakeFailed, attrs...)
		case o.Suppression.Allow(h.Client.Addr()):
			o.Log.Info(HandshakeFailed, append(attrs, offered(h.Hello)...)...)
		}
		return
	}
	if !o.Suppression.Allow(h.Client.Addr()) {
		return
	}
	attrs := slices.Concat([]any{
		"listener", h.Listener, "client", h.Client.Addr(), "client_port", h.Client.Port(),
		"outcome", h.Outcome, "reason", h.Verdict.Reason.String(), "version", h.Verdict.Version.String(),
	}, offered(h.Hello), []any{
		"ja4", h.JA4.String(), "mode", h.Verdict.Mode.String(), "rule", h.Verdict.Rule,
		"starttls", h.StartTLS, "conn_id", h.ID,
	})
	if h.Outcome == proxy.Failed {
		attrs = append(attrs, "failure", h.Failure)
	}
	o.Log.Info(LegacyHandshake, append(attrs, known(h, o.Identify(h))...)...)
}

// known are the attributes of what is known of a client.
func known(h *proxy.Handshake, n ledger.Known) (attrs []any) {
	add := func(is bool, name string, value any) {
		if is {
			attrs = append(attrs, name, value)
		}
	}
	add(n.Accounts > 1, "accounts_known", n.Accounts)
	add(n.Account != "", "account", n.Account)
	add(n.Inferred && n.Account != "", "account_inferred", true)
	add(n.Software != "" && h.Listener.Protocol() == proxy.ProtocolIMAP, "software", n.Software) // a name is learnt from IMAP
	add(n.SpeaksLike != "", "speaks_like", n.SpeaksLike)
	add(n.Library != "", "library", n.Library)
	return attrs
}

// offered are the attributes of a hello.
func offered(h *policy.Hello) []any {
	return []any{
		"offered_versions", h.VersionNames(), "cipher_suites", h.CipherSuiteNames(),
		"server_name", valid(h.ServerName), "alpn", alpn(h.ALPN),
	}
}

// FailedLogin is the message of the line of a login that was refused.
const FailedLogin = "login failed"

// LoginFailed logs a login that was refused, unless it is suppressed.
func (o *Observer) LoginFailed(l *proxy.LoginFailed) {
	if !o.Logins.Allow(l.Client.Addr()) {
		return
	}
	attrs := []any{"listener", l.Listener, "client", l.Client.Addr(), "client_port", l.Client.Port(), "mechanism", l.Mechanism}
	if l.Code != "" {
		attrs = append(attrs, "code", l.Code)
	}
	// Last, since a stranger chose it: what reads the line by pattern has read the rest by then.
	if account := strings.ToLower(text.Clean(l.Account, maxServerName)); account != "" && o.Account != nil {
		attrs = append(attrs, "account", o.Account(account))
	}
	o.Log.Info(FailedLogin, attrs...)
}

// Login logs a login at debug.
func (o *Observer) Login(l *proxy.Login) {
	o.Log.Debug("login", "listener", l.Listener, "client", l.Client.Addr(), "conn_id", l.ID)
}

// Software does nothing: the name is for the ledger.
func (o *Observer) Software(*proxy.Software) {}

// Closed logs the end of a connection at debug.
func (o *Observer) Closed(c *proxy.Closed) {
	o.Log.Debug("closed", "listener", c.Listener, "client", c.Client.Addr(), "why", c.Reason,
		"to_client", c.ToClient, "to_upstream", c.ToUpstream,
		"seconds", c.Duration.Seconds(), "conn_id", c.ID)
}

func valid(s string) string { return strings.ToValidUTF8(text.Cut(s, maxServerName), "?") }

func alpn(list []string) []string {
	return text.Each(list[:min(len(list), maxALPN)], valid)
}
