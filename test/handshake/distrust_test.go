package handshake

import (
	"bytes"
	"context"
	"crypto/tls"
	"net"
	"os/exec"
	"strings"
	"testing"
	"time"

	"postern/internal/hello"
	"postern/internal/posterntest"
)

func TestClientsThatDistrustTheCertificate(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	for _, listener := range posterntest.Listeners {
		for version, highest := range map[string]uint16{"tls1.2": tls.VersionTLS12, "tls1.3": tls.VersionTLS13} {
			t.Run(listener+" crypto/tls "+version, func(t *testing.T) {
				r.over(t, listener, failed(version, "client_alert"), func(conn *net.TCPConn) {
					if err := tls.Client(conn, r.distrusting(t, highest)).Handshake(); err == nil {
						t.Error("the client trusts a stranger's certificate")
					}
				})
			})
		}
		t.Run(listener+" TLS 1.3 with the alert in clear", func(t *testing.T) {
			r.over(t, listener, failed("tls1.3", "client_alert"), func(conn *net.TCPConn) {
				write(t, conn, hello.ClientHello(tls13))
				if a, err := hello.ReadFlight(conn); err != nil || a.Version != tls.VersionTLS13 {
					t.Errorf("answer %+v, %v, want TLS 1.3", a, err)
				}
				write(t, conn, []byte{21, 3, 3, 0, 2, 2, 48})
				ended(t, conn)
			})
		})
	}
	r.finish(t)
}

func TestOpenSSLThatDistrustsTheCertificate(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	other := posterntest.NewCA(t)
	for _, listener := range posterntest.Listeners {
		for version, flag := range map[string]string{"tls1.2": "-tls1_2", "tls1.3": "-tls1_3"} {
			t.Run(listener+" "+version, func(t *testing.T) {
				client := r.client()
				r.expect(t, listener, client, failed(version, "client_alert"), func() {
					args := []string{
						"s_client", "-connect", r.Addr(listener), "-bind", client + ":0", flag,
						"-CAfile", other.File, "-verify_return_error", "-servername", "mail.example.org",
					}
					if listener == "imap" || listener == "pop3" {
						args = append(args, "-starttls", listener)
					}
					openssl(t, args, "certificate verify failed")
				})
			})
		}
	}
	r.finish(t)
}

// openssl runs a client that must fail and say why.
func openssl(t *testing.T, args []string, why string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, "openssl", args...).CombinedOutput()
	if err == nil || !strings.Contains(string(out), why) {
		t.Errorf("openssl: %v, want %q in:\n%s", err, why, bytes.TrimSpace(out))
	}
}
