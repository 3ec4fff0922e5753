package handshake

import (
	"crypto/tls"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"postern/internal/hello"
	"postern/internal/posterntest"
)

const cipherText = "The encryption that your mail program offers is no longer accepted here; please update it."

func versionText(version, floor string) string {
	return "TLS " + version + " is no longer accepted here; update your mail program to one that supports TLS " + floor + " or later."
}

// inProtocol is a text as the listener's protocol says it.
func inProtocol(listener, text string) string {
	if strings.HasPrefix(listener, "imap") {
		return "* BYE [ALERT] " + text + "\r\n"
	}
	return "-ERR [SYS/PERM] " + text + "\r\n"
}

// noise is what a client may have sent before it reads: a login and more.
var noise = []byte("a1 LOGIN anna s3cr3t-word\r\n" + strings.Repeat("a2 NOOP\r\n", 2000))

// explained completes an old handshake and expects the text, close_notify
// and FIN, although the client goes on sending.
func (r *rig) explained(t *testing.T, listener, version, reason string, config *tls.Config, text string) {
	t.Helper()
	r.over(t, listener, want{version: version, outcome: "explained", reason: reason}, func(conn *net.TCPConn) {
		raw := &recorded{Conn: conn}
		c := tls.Client(raw, config)
		if err := c.Handshake(); err != nil {
			t.Errorf("handshake: %v", err)
			return
		}
		write(t, c, noise)
		// The text has to outlast what is still on its way to the proxy.
		time.Sleep(50 * time.Millisecond)
		got, err := io.ReadAll(c)
		if err != nil || string(got) != inProtocol(listener, text) {
			t.Errorf("read %q, %v\nwant %q", got, err, inProtocol(listener, text))
		}
		io.Copy(io.Discard, raw)
		raw.endedWithCloseNotify(t)
	})
}

func TestExplainSaysWhyAndCloses(t *testing.T) {
	t.Parallel()
	r := newRig(t, map[string]string{"POLICY_MODE": "explain"})
	rsa := []uint16{tls.TLS_RSA_WITH_AES_128_GCM_SHA256, tls.TLS_RSA_WITH_AES_128_CBC_SHA}
	for _, listener := range posterntest.Listeners {
		for _, c := range []struct {
			name, version, reason, text string
			config                      *tls.Config
		}{
			{"TLS 1.0", "tls1.0", "version", versionText("1.0", "1.2"), r.config(tls.VersionTLS10)},
			{"TLS 1.0, RSA", "tls1.0", "version", versionText("1.0", "1.2"), r.config(tls.VersionTLS10, rsa[1])},
			{"TLS 1.0, 3DES", "tls1.0", "version", versionText("1.0", "1.2"), r.config(tls.VersionTLS10, tls.TLS_RSA_WITH_3DES_EDE_CBC_SHA)},
			{"TLS 1.1", "tls1.1", "version", versionText("1.1", "1.2"), r.config(tls.VersionTLS11)},
			{"TLS 1.2, RSA", "tls1.2", "cipher", cipherText, r.config(tls.VersionTLS12, rsa...)},
			{"TLS 1.2, 3DES", "tls1.2", "cipher", cipherText, r.config(tls.VersionTLS12, tls.TLS_RSA_WITH_3DES_EDE_CBC_SHA)},
		} {
			t.Run(listener+" "+c.name, func(t *testing.T) {
				r.explained(t, listener, c.version, c.reason, c.config, c.text)
			})
		}
		r.accepted(t, listener, "tls1.2", r.config(tls.VersionTLS12), plain)
		r.accepted(t, listener, "tls1.3", r.config(tls.VersionTLS13), plain)
	}
	if strings.Contains(r.Stderr(), "s3cr3t-word") {
		t.Error("a password is in the log")
	}
	r.finish(t)
}

func TestExplainTextOfTheOperator(t *testing.T) {
	t.Parallel()
	r := newRig(t, map[string]string{
		"POLICY_MODE": "explain", "POLICY_FLOOR": "tls1.3",
		"EXPLAIN_TEXT": "Not {version}, but {floor}: https://example.org/help",
	})
	for _, listener := range posterntest.Listeners {
		r.explained(t, listener, "tls1.0", "version", r.config(tls.VersionTLS10), "Not 1.0, but 1.3: https://example.org/help")
		r.explained(t, listener, "tls1.2", "version", r.config(tls.VersionTLS12), "Not 1.2, but 1.3: https://example.org/help")
	}
	r.finish(t)
	cut := newRig(t, map[string]string{
		"POLICY_MODE": "explain", "POLICY_FLOOR": "tls1.2-aead", "EXPLAIN_TEXT": "Not {version}",
	})
	cbc := cut.config(tls.VersionTLS12, tls.TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA)
	cut.explained(t, "imaps", "tls1.2", "cipher", cbc, cipherText)
	cut.finish(t)
}

// unservable are the legacy hellos that no mode can complete.
func unservable() []offer {
	return append(ssl2Offers(),
		legacy("SSLv3", hello.Typical(hello.VersionSSL30), "ssl3", "version"),
		legacy("TLS 1.0 that falls back", fallback, "tls1.0", "fallback"),
		legacy("TLS 1.0, DHE only", suites(tls.VersionTLS10, 0x0033), "tls1.0", "version"),
		legacy("TLS 1.2, DHE only", dheOnly, "tls1.2", "cipher"),
		offer{"only versions of the future", hello.ClientHello(future), 70, failed("none", "other")},
	)
}

func TestAClientThatCannotBeServedIsRefusedAsInEnforce(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{"explain", "observe"} {
		r := newRig(t, map[string]string{"POLICY_MODE": mode})
		for _, listener := range posterntest.Listeners {
			for _, o := range unservable() {
				t.Run(mode+" "+listener+" "+o.name, func(t *testing.T) { r.refused(t, listener, o.flight, o.alert, o.want) })
			}
		}
		r.finish(t)
	}
}

// TestLegacyHandshakesThatBreakOff are legacy and failed at once.
func TestLegacyHandshakesThatBreakOff(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{"explain", "observe"} {
		r := newRig(t, map[string]string{"POLICY_MODE": mode, "TIMEOUT_HANDSHAKE": "1s"})
		for _, listener := range posterntest.Listeners {
			brokenOff := func(reason string) want {
				return want{version: "tls1.0", outcome: "failed", reason: "version", failure: reason}
			}
			t.Run(mode+" "+listener+" distrust", func(t *testing.T) {
				r.over(t, listener, brokenOff("client_alert"), func(conn *net.TCPConn) {
					if err := tls.Client(conn, r.distrusting(t, tls.VersionTLS10)).Handshake(); err == nil {
						t.Error("the client trusts a stranger's certificate")
					}
				})
			})
			for reason, leave := range map[string]func(*net.TCPConn){
				"closed":  func(c *net.TCPConn) { c.CloseWrite(); ended(t, c) },
				"io":      func(c *net.TCPConn) { c.SetLinger(0); c.Close() },
				"timeout": func(c *net.TCPConn) { ended(t, c) },
			} {
				t.Run(mode+" "+listener+" "+reason, func(t *testing.T) {
					r.over(t, listener, brokenOff(reason), func(conn *net.TCPConn) {
						toStage(t, conn, hello.ClientHello(tls10), true)
						leave(conn)
					})
				})
			}
		}
		r.finish(t)
	}
}

func TestObserveLetsInAndCounts(t *testing.T) {
	t.Parallel()
	r := newRig(t, map[string]string{"POLICY_MODE": "observe"})
	for _, listener := range posterntest.Listeners {
		for _, c := range []struct {
			name, version, reason string
			config                *tls.Config
		}{
			{"TLS 1.0", "tls1.0", "version", r.config(tls.VersionTLS10)},
			{"TLS 1.0, 3DES", "tls1.0", "version", r.config(tls.VersionTLS10, tls.TLS_RSA_WITH_3DES_EDE_CBC_SHA)},
			{"TLS 1.1", "tls1.1", "version", r.config(tls.VersionTLS11)},
			{"TLS 1.2, RSA", "tls1.2", "cipher", r.config(tls.VersionTLS12, tls.TLS_RSA_WITH_AES_128_CBC_SHA)},
			{"TLS 1.2, CBC-SHA256", "tls1.2", "cipher", r.config(tls.VersionTLS12, tls.TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256)},
		} {
			t.Run(listener+" "+c.name, func(t *testing.T) {
				w := want{version: c.version, outcome: "observed", reason: c.reason, forwarded: true, log: &logged{name: "mail.example.org"}}
				r.over(t, listener, w, func(conn *net.TCPConn) { session(t, listener, conn, c.config) })
				if all := r.upstreamOf(listener).ReceivedAll(); !slices.Contains(strings.Fields(string(all)), "NOOP") {
					t.Errorf("the upstream has received %q", all)
				}
			})
		}
		r.accepted(t, listener, "tls1.2", r.config(tls.VersionTLS12), plain)
		r.accepted(t, listener, "tls1.3", r.config(tls.VersionTLS13), plain)
	}
	r.finish(t)
}
