package handshake

import (
	"crypto/tls"
	"fmt"
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

// told is all that a client hears that is explained, with the tag of its first
// command over IMAP, and that many refused commands over POP3.
func told(listener, text, tag string, refused int) string {
	alert := "[ALERT] " + text + "\r\n"
	refusal := "-ERR [SYS/PERM] " + text + "\r\n"
	bye := "* BYE " + alert
	switch {
	case listener == "imaps":
		return bye
	case listener == "imap" && tag == "":
		return "* OK " + alert + bye
	case listener == "imap":
		return "* OK " + alert + bye + tag + " NO " + alert
	case listener == "pop3s":
		return "+OK Postern ready.\r\n" + strings.Repeat(refusal, refused)
	}
	return strings.Repeat(refusal, refused)
}

// noise is what a client may have sent before it reads: a login and more, in so many
// commands. Over POP3 each is answered: there are no more of them than a slow machine
// answers in the second that a client has once it was told.
func noise(listener string) (sent []byte, commands int) {
	more := 2000
	if strings.HasPrefix(listener, "pop3") {
		more = 50
	}
	return []byte("a1 LOGIN anna s3cr3t-word\r\n" + strings.Repeat("a2 NOOP\r\n", more)), 1 + more
}

// explained completes an old handshake and expects the text, close_notify
// and FIN, although the client goes on sending.
func (r *rig) explained(t *testing.T, listener, version, reason string, config *tls.Config, text string) {
	t.Helper()
	sent, commands := noise(listener)
	r.converse(t, listener, want{version: version, outcome: "explained", reason: reason}, config, sent, 0, told(listener, text, "a1", commands))
}

// converse completes an old handshake, sends all at once, and half closes after a
// while, if ever: it hears heard, close_notify and FIN. It returns how long that took.
func (r *rig) converse(t *testing.T, listener string, w want, config *tls.Config, sent []byte, leave time.Duration, heard string) (took time.Duration) {
	t.Helper()
	r.over(t, listener, w, func(conn *net.TCPConn) {
		begun := time.Now()
		raw := &recorded{Conn: conn}
		c := tls.Client(raw, config)
		if err := c.Handshake(); err != nil {
			t.Errorf("handshake: %v", err)
			return
		}
		write(t, c, sent)
		// The text has to outlast what is still on its way to the proxy.
		time.Sleep(50*time.Millisecond + leave)
		if leave > 0 {
			c.CloseWrite()
		}
		got, err := io.ReadAll(c)
		if err != nil || string(got) != heard {
			t.Errorf("%.80q: read %q, %v\nwant %q", sent, got, err, heard)
		}
		io.Copy(io.Discard, raw)
		took = time.Since(begun)
		raw.endedWithCloseNotify(t)
	})
	return took
}

// A client is told in answer to its first command over STARTTLS, and in answer to a
// login over POP3. No password is asked for.
func TestExplainAnswersTheFirstCommand(t *testing.T) {
	t.Parallel()
	r := newRig(t, map[string]string{"POLICY_MODE": "explain", "TIMEOUT_HANDSHAKE": "1m"})
	w := want{version: "tls1.0", outcome: "explained", reason: "version"}
	text, config := versionText("1.0", "1.2"), r.config(tls.VersionTLS10)
	for _, first := range []string{
		"a1 CAPABILITY\r\n", "a1 LOGIN anna s3cr3t-word\r\na2 NOOP\r\n", "a1 LOGIN {4}\r\n", "a1 AUTHENTICATE PLAIN\r\n",
		"a1 LOGIN {4+}\r\nanna {11+}\r\ns3cr3t-word\r\na2 NOOP\r\n", "a1 LOGIN anna {14+}\r\na2 s3cr3t-word\r\n",
		"a1 AUTHENTICATE PLAIN AGFubmEAczNjcjN0LXdvcmQ=\r\n", "\r\n\r\na1 LOGOUT\r\n", "a1 FOO(\r\n", "a1  NOOP\r\n", "a1 STARTTLS\n",
		"a1 AUTHENTICATE GSSAPI " + strings.Repeat("A", 65<<10) + "\r\n",
	} {
		r.converse(t, "imap", w, config, []byte(first), 0, told("imap", text, "a1", 0))
	}
	for _, first := range []string{"\x00\x01 NOOP\r\n", "a1\r\n", "(a) NOOP\r\n", strings.Repeat("a", 65) + " NOOP\r\n", strings.Repeat("a", 65<<10)} {
		r.converse(t, "imap", w, config, []byte(first), 0, told("imap", text, "", 0))
	}
	refusal := told("pop3", text, "", 1)
	const capa, ok = "+OK Capabilities follow.\r\nUSER\r\nRESP-CODES\r\nAUTH-RESP-CODE\r\n.\r\n", "+OK\r\n"
	for i, tt := range [][2]string{
		{"CAPA\r\nNOOP\r\nUSER anna\r\n", capa + ok + refusal},
		{"AUTH\r\n", refusal}, {"AUTH PLAIN AGFubmEAczNjcjN0LXdvcmQ=\r\n", refusal}, {"APOP anna 0123\r\n", refusal},
		{"PASS s3cr3t-word\r\n", refusal}, {"STLS\r\n", refusal}, {"\x00\r\n", refusal}, {"\r\n", refusal},
		{"USER anna\r\nPASS s3cr3t-word\r\nCAPA\r\nQUIT\r\nUSER anna\r\n", refusal + refusal + capa + "+OK Goodbye.\r\n"},
		{"QUIT\r\n", "+OK Goodbye.\r\n"}, {strings.Repeat("a", 65<<10), refusal},
	} {
		listener := []string{"pop3s", "pop3"}[i%2]
		posterntest.Within(t, fmt.Sprintf("%.40q", tt[0]), 2500*time.Millisecond, func() time.Duration {
			return r.converse(t, listener, w, config, []byte(tt[0]), 0, told(listener, text, "", 0)+tt[1])
		})
	}
	if strings.Contains(r.Stderr(), "s3cr3t-word") {
		t.Error("a password is in the log")
	}
	r.finish(t)
}

// A client that says nothing that could be answered is told at the end of
// TIMEOUT_HANDSHAKE, and at once where it leaves.
func TestExplainTellsTheSilent(t *testing.T) {
	t.Parallel()
	const timeout = 2 * time.Second
	r := newRig(t, map[string]string{"POLICY_MODE": "explain", "TIMEOUT_HANDSHAKE": timeout.String()})
	w := want{version: "tls1.0", outcome: "explained", reason: "version"}
	text, config := versionText("1.0", "1.2"), r.config(tls.VersionTLS10)
	for _, listener := range []string{"imap", "pop3s", "pop3"} {
		for _, tt := range []struct {
			sent   string
			leaves time.Duration
			tag    string
		}{
			{"", 0, ""}, {"", timeout / 5, ""}, {"a LOG", 0, ""}, {"a LOG", timeout / 5, ""}, {"\r\n", 0, ""},
			{"a LOGIN {100+}\r\n", 0, "a"}, {"a LOGIN {100+}\r\n", timeout / 5, "a"},
		} {
			if strings.HasPrefix(listener, "pop3") && strings.HasSuffix(tt.sent, "\n") {
				continue // a line over POP3 has an answer
			}
			most := timeout + 1500*time.Millisecond
			if tt.leaves > 0 {
				most = timeout * 9 / 10
			}
			posterntest.Within(t, fmt.Sprintf("%s, %q", listener, tt.sent), most, func() time.Duration {
				begun := time.Now()
				took := r.converse(t, listener, w, config, []byte(tt.sent), tt.leaves, told(listener, text, tt.tag, 1))
				if all := time.Since(begun); tt.leaves == 0 && all < timeout*9/10 {
					t.Errorf("%s, %q: %v", listener, tt.sent, all)
				}
				return took
			})
		}
	}
	// NOOP does not hold a connection.
	posterntest.Within(t, "a client that says NOOP", timeout+1500*time.Millisecond, func() time.Duration {
		var took time.Duration
		r.over(t, "pop3", w, func(conn *net.TCPConn) {
			begun := time.Now()
			c := tls.Client(conn, config)
			for time.Since(begun) < 40*time.Second {
				if _, err := io.WriteString(c, "NOOP\r\n"); err != nil {
					break
				}
				time.Sleep(timeout / 20)
			}
			got, _ := io.ReadAll(c)
			took = time.Since(begun)
			if !strings.HasSuffix(strings.TrimLeft(string(got), "+OK\r\n"), told("pop3", text, "", 1)) {
				t.Errorf("read %q", got)
			}
		})
		return took
	})
	r.finish(t)
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
