package ledger

import (
	"crypto/tls"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"postern/policy"
	"postern/proxy"
)

// Client is one address with one way of doing TLS at one endpoint. Its JSON is
// that of the API.
type Client struct {
	Addr     netip.Addr     `json:"client"`
	Listener proxy.Listener `json:"listener"`
	Endpoint Endpoint       `json:"endpoint"`
	Version  policy.Version `json:"version"`
	Reason   policy.Reason  `json:"reason"`
	// JA4 is empty for a client with too many variants.
	JA4    string    `json:"ja4"`
	First  time.Time `json:"first_seen"`
	Last   time.Time `json:"last_seen"`
	Counts Counts    `json:"counts"`
	// Accounts and Software are sorted, from Logins, without repetition.
	Accounts []string `json:"accounts"`
	Software []string `json:"software"`
	// SpeaksLike and Library are inferred, by the Store's table of programs: whom its
	// sessions at this listener speak like, sorted, or in which pattern, and the TLS
	// library with its hello. Advice is what to do about them, a line each.
	SpeaksLike []string `json:"speaks_like"`
	Library    string   `json:"library"`
	Advice     []string `json:"advice"`
	Login      Login    `json:"login"`
	Noise      bool     `json:"noise"`

	// Logins say which account uses which program, each of them once.
	Logins []Identity `json:"logins,omitempty"`
	// Days are those of a Scope, in order.
	Days []Day `json:"-"`
	// Remembered: a candidate refuses it, and it may reach the floor.
	Remembered bool `json:"-"`

	id, owner, network int64 // as they are stored
	place              int64 // in the order of a page
}

// Network returns the address or its IPv6 /64, which counts as one client.
func (c *Client) Network() string {
	return strings.TrimSuffix(policy.ClientPrefix(c.Addr).String(), "/32")
}

// ForPolicy returns the client as the rules of a policy see it.
func (c *Client) ForPolicy() policy.Client {
	ja4, _ := policy.ParseJA4(c.JA4) // zero where it is empty
	return policy.Client{
		ConnInfo: policy.ConnInfo{Listener: string(c.Listener), Port: c.Endpoint.Port, Client: c.Addr.Unmap()},
		Version:  c.Version, ServerName: c.Endpoint.Name, JA4: ja4,
	}
}

// Endpoint is the server name that a client sent, or empty, and the local port.
type Endpoint struct {
	Name string
	Port uint16
}

// String returns the endpoint as imap.example.org:993.
func (e Endpoint) String() string { return net.JoinHostPort(e.Name, strconv.Itoa(int(e.Port))) }

// MarshalText is String.
func (e Endpoint) MarshalText() ([]byte, error) { return []byte(e.String()), nil }

// UnmarshalText reads what MarshalText writes.
func (e *Endpoint) UnmarshalText(b []byte) error {
	name, port, err := net.SplitHostPort(string(b))
	if err != nil {
		return fmt.Errorf("reading an endpoint: %w", err)
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return fmt.Errorf("reading the port of an endpoint: %w", err)
	}
	e.Name, e.Port = name, uint16(n)
	return nil
}

// Counts are handshakes by outcome.
type Counts struct {
	Observed  int64 `json:"observed"`
	Explained int64 `json:"explained"`
	Rejected  int64 `json:"rejected"`
	Failed    int64 `json:"failed"`
}

// Add adds the other counts.
func (c *Counts) Add(o Counts) {
	c.Observed += o.Observed
	c.Explained += o.Explained
	c.Rejected += o.Rejected
	c.Failed += o.Failed
}

func (c *Counts) of(o proxy.Outcome) *int64 {
	switch o {
	case proxy.Observed, proxy.Accepted:
		return &c.Observed
	case proxy.Explained:
		return &c.Explained
	case proxy.Rejected:
		return &c.Rejected
	}
	return &c.Failed
}

// countsOf returns the counts in a row, which begin at a column.
func countsOf(r row, first int) Counts {
	return Counts{r.int(first), r.int(first + 1), r.int(first + 2), r.int(first + 3)}
}

// Identity is an account and a program that it used: by what that has said or, where that
// is not known, by how it speaks, as in Client. Each may be empty.
type Identity struct {
	Account    string `json:"account,omitempty"`
	Software   string `json:"software,omitempty"`
	SpeaksLike string `json:"speaks_like,omitempty"`
}

// known orders what is known of the program: its name before how it speaks.
func (l Identity) known() int {
	switch {
	case l.Software != "":
		return 2
	case l.SpeaksLike != "":
		return 1
	}
	return 0
}

// Login is how the logins of a client have ended.
type Login string

const (
	LoginOK      Login = "ok"      // one was accepted
	LoginFailed  Login = "failed"  // there were some, and none was accepted
	LoginNone    Login = "none"    // the client was let in, and has not tried
	LoginUnknown Login = "unknown" // the client was never let in, so that it could not try
	LoginUnseen  Login = "unseen"  // an old server has its sessions, and knows
)

// Logins lists the values of Login. The first of several speaks for a group.
var Logins = []Login{LoginOK, LoginUnseen, LoginUnknown, LoginNone, LoginFailed}

func loginOf(ok, failed, observed, marks int64) Login {
	switch {
	case ok > 0:
		return LoginOK
	case marks&markPassed != 0:
		return LoginUnseen
	case failed > 0:
		return LoginFailed
	case observed > 0:
		return LoginNone
	}
	return LoginUnknown
}

// Hello is the part of a hello that a policy judges, as IANA numbers, in the
// JSON of the API.
type Hello struct {
	SSL2Format       bool                  `json:"ssl2_format,omitempty"`
	Versions         []uint16              `json:"versions"`
	CipherSuites     []uint16              `json:"cipher_suites"`
	SSL2Ciphers      []uint32              `json:"ssl2_ciphers,omitempty"`
	Groups           []tls.CurveID         `json:"groups"`
	Points           []uint16              `json:"point_formats,omitempty"` // bytes would become base64
	SignatureSchemes []tls.SignatureScheme `json:"signature_schemes"`
}

// HelloOf returns the JSON of a hello.
func HelloOf(h *policy.Hello) Hello {
	v := Hello{
		SSL2Format: h.SSL2Format, Versions: h.Versions, CipherSuites: h.CipherSuites, SSL2Ciphers: h.SSL2Ciphers,
		Groups: h.Groups, SignatureSchemes: h.SignatureSchemes,
	}
	for _, p := range h.Points {
		v.Points = append(v.Points, uint16(p))
	}
	return v
}

// ForPolicy returns the hello as a policy judges it.
func (v *Hello) ForPolicy() policy.Hello {
	h := policy.Hello{
		SSL2Format: v.SSL2Format, Versions: v.Versions, CipherSuites: v.CipherSuites, SSL2Ciphers: v.SSL2Ciphers,
		Groups: v.Groups, SignatureSchemes: v.SignatureSchemes,
	}
	for _, p := range v.Points {
		h.Points = append(h.Points, uint8(p))
	}
	return h
}
