package measure

import (
	"crypto/tls"
	"time"

	"postern/bench/internal/client"
	"postern/bench/internal/subject"
)

var connColumns = []Column{
	{Key: "cpu_ms", Title: "CPU ms/conn", Format: "%.3f", Ratio: true},
	{Key: "per_s", Title: "conn/s", Format: "%.0f", Higher: true},
	{Key: "kernel_pct", Title: "kernel %", Format: "%.0f"},
	{Key: "failed", Title: "failed", Format: "%.0f"},
}

// handshakes makes a measure of one kind of handshake.
func handshakes(name, title string, g Group, version uint16, resume, pq, login bool) *Measure {
	cols := connColumns
	if resume {
		cols = append(cols[:3:3], Column{Key: "resumed_pct", Title: "resumed %", Format: "%.0f", Higher: true}, cols[3])
	}
	return &Measure{
		Name: name, Title: title, Group: g, Direct: !resume, Columns: cols, Seconds: 3,
		Run: func(e *Env, in *subject.Instance, v Values, n Notes) error {
			cfg := func() *tls.Config { return client.Config(version, resume, pq) }
			return connections(in, e.span(2*time.Second), cfg, login, v, n)
		},
	}
}

var (
	full13    = handshakes("full13", "Full handshake, TLS 1.3, ECDSA P-256, X25519; greeting; LOGOUT (8 clients)", ECDSA, tls.VersionTLS13, false, false, false)
	resume13  = handshakes("resume13", "The same, resumed by ticket", ECDSA, tls.VersionTLS13, true, false, false)
	pq13      = handshakes("pq13", "Full handshake, TLS 1.3, the client offers X25519MLKEM768 first", ECDSA, tls.VersionTLS13, false, true, false)
	session   = handshakes("session", "Full handshake TLS 1.3, greeting, LOGIN, LOGOUT (every subject goes upstream)", ECDSA, tls.VersionTLS13, false, false, true)
	full12RSA = handshakes("full12rsa", "Full handshake, TLS 1.2, RSA-2048, ECDHE X25519; greeting; LOGOUT", RSA, tls.VersionTLS12, false, false, false)
)
