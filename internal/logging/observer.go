package logging

import (
	"log/slog"
	"net/netip"
	"slices"
	"strings"

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
	Clients     Identifier
	// Logins is for logins that were refused, and Account the form in which the account of
	// one is kept; nil keeps none.
	Logins  *Suppression
	Account func(account string) string
}

// An Identifier knows which accounts have logged in from an address with a TLS
// fingerprint. For a single account, Identify returns its name, and its program
// if that is known. It must not block.
type Identifier interface {
	Identify(client netip.Addr, ja4 policy.JA4) (accounts int, account, software string)
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
	switch accounts, account, software := o.Clients.Identify(h.Client.Addr(), h.JA4); {
	case accounts > 1:
		attrs = append(attrs, "accounts_known", accounts)
	case accounts == 1 && (software == "" || h.Listener.Protocol() != proxy.ProtocolIMAP): // a name is learnt from IMAP
		attrs = append(attrs, "account", account)
	case accounts == 1:
		attrs = append(attrs, "account", account, "software", software)
	}
	o.Log.Info(LegacyHandshake, attrs...)
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
	out := make([]string, 0, min(len(list), maxALPN))
	for _, s := range list[:min(len(list), maxALPN)] {
		out = append(out, valid(s))
	}
	return out
}
