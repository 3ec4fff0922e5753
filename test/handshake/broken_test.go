package handshake

import (
	"bytes"
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

func failed(version, reason string) want {
	return want{version: version, outcome: "failed", failure: reason}
}

// TestBytesThatAreNoHello may be answered by any alert, or by none, but the
// connection ends in order.
func TestBytesThatAreNoHello(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	for _, listener := range posterntest.Listeners {
		for _, c := range []struct {
			name  string
			bytes []byte
			want  want
		}{
			{"a lone fatal alert", []byte{21, 3, 1, 0, 2, 2, 40}, failed("none", "client_alert")},
			{"a lone close_notify", []byte{21, 3, 3, 0, 2, 1, 0}, failed("none", "client_alert")},
			{"binary", bytes.Repeat([]byte{0, 1, 2, 0xfe}, 100), failed("none", "malformed")},
			{"application data", append([]byte{23, 3, 3, 0, 32}, make([]byte, 32)...), failed("none", "malformed")},
			{"a Finished", append([]byte{22, 3, 3, 0, 16, 20, 0, 0, 12}, make([]byte, 12)...), failed("none", "malformed")},
			{"a record too long", append([]byte{22, 3, 1, 0xff, 0xff, 1, 0, 0}, make([]byte, 100)...), failed("none", "malformed")},
			{"a message too long", append([]byte{22, 3, 1, 0, 104, 1, 0xff, 0xff, 0xff}, make([]byte, 100)...), failed("none", "malformed")},
		} {
			t.Run(listener+" "+c.name, func(t *testing.T) {
				r.over(t, listener, c.want, func(conn *net.TCPConn) {
					write(t, conn, c.bytes)
					conn.CloseWrite()
					ended(t, conn)
				})
			})
		}
	}
	r.finish(t)
}

var plaintexts = []struct{ name, text, failure string }{
	{"IMAP", "a1 LOGIN anna s3cr3t-word\r\n", "plaintext"},
	{"POP3", "USER anna\r\nPASS s3cr3t-word\r\n", "plaintext"},
	{"a short line", "CAPA\r\n", "plaintext"},
	{"HTTP GET", "GET / HTTP/1.1\r\nHost: mail.example.org\r\n\r\n", "http"},
	{"HTTP POST", "POST /login HTTP/1.0\r\n\r\nuser=anna", "http"},
	{"HTTP with long headers", "GET / HTTP/1.1\r\nCookie: " + strings.Repeat("x", 12000) + "\r\n\r\n", "http"},
}

func TestPlaintextOnATLSPortIsAnsweredInPlaintext(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	for listener, answer := range map[string]string{"imaps": "* BYE ", "pop3s": "-ERR "} {
		for _, c := range plaintexts {
			t.Run(listener+" "+c.name, func(t *testing.T) {
				r.over(t, listener, failed("none", c.failure), func(conn *net.TCPConn) {
					write(t, conn, []byte(c.text))
					text := string(ended(t, conn))
					if !strings.HasPrefix(text, answer) || strings.Count(text, "\r\n") != 1 || !strings.HasSuffix(text, "\r\n") {
						t.Errorf("answer %q, want one line %q", text, answer)
					}
				})
			})
		}
		t.Run(listener+" less than a record header", func(t *testing.T) {
			r.over(t, listener, failed("none", "plaintext"), func(conn *net.TCPConn) {
				write(t, conn, []byte("hi"))
				conn.CloseWrite()
				if text := string(ended(t, conn)); !strings.HasPrefix(text, answer) {
					t.Errorf("answer %q, want %q", text, answer)
				}
			})
		})
	}
	if strings.Contains(r.Stderr(), "s3cr3t-word") {
		t.Error("a password is in the log")
	}
	r.finish(t)
}

func TestPlaintextAfterSTARTTLSIsNotServed(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	for _, listener := range []string{"imap", "pop3"} {
		for _, c := range plaintexts {
			t.Run(listener+" "+c.name, func(t *testing.T) {
				r.over(t, listener, failed("none", c.failure), func(conn *net.TCPConn) {
					write(t, conn, []byte(c.text))
					ended(t, conn)
				})
			})
		}
	}
	if strings.Contains(r.Stderr(), "s3cr3t-word") {
		t.Error("a password is in the log")
	}
	r.finish(t)
}

func TestTLSOnASTARTTLSPort(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	for _, listener := range []string{"imap", "pop3"} {
		for _, o := range []offer{
			{name: "TLS 1.3", flight: hello.ClientHello(tls13)},
			{name: "TLS 1.0", flight: hello.ClientHello(tls10)},
			{name: "SSLv3", flight: hello.ClientHello(hello.Typical(hello.VersionSSL30))},
			{name: "SSLv2", flight: hello.SSLv2()},
			{name: "TLS 1.2, SSLv2-compatible, long", flight: posterntest.SSLv2Large(tls.VersionTLS12)},
		} {
			t.Run(listener+" "+o.name, func(t *testing.T) {
				client := r.client()
				r.expect(t, listener, client, failed("none", "tls_on_starttls_port"), func() {
					conn := r.DialFrom(t, listener, client)
					write(t, conn, o.flight)
					ended(t, conn)
					conn.Close()
				})
			})
		}
	}
	r.finish(t)
}

// TestNoHandshakeBegins covers visits to the STARTTLS ports that never come
// to TLS.
func TestNoHandshakeBegins(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	for listener, lines := range map[string][]string{
		"imap": {"", "a1 LOGOUT\r\n", "a1 NOOP\r\na2 LOGOUT\r\n", "a1 STARTTLS\r\na2 NOOP\r\n"},
		"pop3": {"", "QUIT\r\n", "STLS\r\nNOOP\r\n"},
	} {
		for _, line := range lines {
			t.Run(listener+" "+line, func(t *testing.T) {
				client := r.client()
				r.expect(t, listener, client, want{}, func() {
					conn := r.DialFrom(t, listener, client)
					write(t, conn, []byte(line))
					conn.CloseWrite()
					ended(t, conn)
				})
			})
		}
		if n := r.Metrics(t).Value("postern_starttls_injections_total", "listener="+listener); n != 1 {
			t.Errorf("%s: %v injections counted, want 1", listener, n)
		}
	}
	r.finish(t)
}

// stages are the points at which a client can go: what it sends first, and
// whether it waits for the server's flight.
var stages = []struct {
	name    string
	flight  []byte
	waits   bool
	version string
}{
	{"before any byte", nil, false, "none"},
	{"after one byte", hello.ClientHello(tls13)[:1], false, "none"},
	{"amid the hello", hello.ClientHello(tls13)[:60], false, "none"},
	{"amid an old hello", hello.ClientHello(tls10)[:60], false, "none"},
	{"after the ServerHello of TLS 1.2", hello.ClientHello(tls12), true, "tls1.2"},
	{"after the ServerHello of TLS 1.3", hello.ClientHello(tls13), true, "tls1.3"},
}

func toStage(t *testing.T, conn net.Conn, flight []byte, waits bool) {
	t.Helper()
	write(t, conn, flight)
	if flight == nil {
		time.Sleep(2500 * time.Millisecond) // with implicit TLS a silent client is accepted after a second
	}
	if !waits {
		// A proxy that has not seen the bytes yet cannot tell the stages apart.
		time.Sleep(20 * time.Millisecond)
		return
	}
	if a, err := hello.ReadFlight(conn); err != nil || a.Kind != hello.ServerHello {
		t.Errorf("answer %+v, %v, want a ServerHello", a, err)
	}
}

func TestClientsThatLeave(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	for _, listener := range posterntest.Listeners {
		for _, s := range stages {
			t.Run(listener+" in order "+s.name, func(t *testing.T) {
				r.over(t, listener, failed(s.version, "closed"), func(conn *net.TCPConn) {
					toStage(t, conn, s.flight, s.waits)
					conn.CloseWrite()
					ended(t, conn)
				})
			})
			t.Run(listener+" by a reset "+s.name, func(t *testing.T) {
				r.over(t, listener, failed(s.version, "io"), func(conn *net.TCPConn) {
					toStage(t, conn, s.flight, s.waits)
					conn.SetLinger(0)
					conn.Close()
				})
			})
		}
	}
	r.finish(t)
}

func TestSilenceRunsIntoTheTimeout(t *testing.T) {
	t.Parallel()
	for _, listener := range posterntest.Listeners {
		t.Run(listener, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, map[string]string{"TIMEOUT_HANDSHAKE": "2s"})
			for _, s := range slices.Delete(slices.Clone(stages), 1, 2) {
				t.Run(s.name, func(t *testing.T) {
					posterntest.Within(t, "the end", 4*time.Second, func() (took time.Duration) {
						r.over(t, listener, failed(s.version, "timeout"), func(conn *net.TCPConn) {
							began := time.Now()
							toStage(t, conn, s.flight, s.waits)
							ended(t, conn)
							if took = time.Since(began); took < 1500*time.Millisecond {
								t.Errorf("closed after %v, want about two seconds", took)
							}
						})
						return took
					})
				})
			}
			r.finish(t)
		})
	}
}

func TestADrippingHelloRunsIntoTheTimeout(t *testing.T) {
	t.Parallel()
	r := newRig(t, map[string]string{"TIMEOUT_HANDSHAKE": "2s"})
	for _, listener := range posterntest.Listeners {
		t.Run(listener, func(t *testing.T) {
			posterntest.Within(t, "the end", 4*time.Second, func() (took time.Duration) {
				r.over(t, listener, failed("none", "timeout"), func(conn *net.TCPConn) {
					began := time.Now()
					go func() {
						for _, b := range hello.ClientHello(tls13) {
							if _, err := conn.Write([]byte{b}); err != nil {
								return
							}
							time.Sleep(100 * time.Millisecond)
						}
					}()
					// The proxy may close on bytes in flight, so a reset is fine.
					io.Copy(io.Discard, conn)
					if took = time.Since(began); took < 1500*time.Millisecond {
						t.Errorf("closed after %v, want about two seconds", took)
					}
				})
				return took
			})
		})
	}
	r.finish(t)
}
