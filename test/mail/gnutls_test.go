package mail

import (
	"strings"
	"testing"
)

func (w *world) gnutls(t *testing.T, listener, priority string) program {
	args := []string{"--port", w.port(t, listener), "--x509cafile", w.CA.File, "--priority", priority}
	if listener == "imap" || listener == "pop3" {
		args = append(args, "--starttls-proto", listener)
	}
	input, _ := w.session(listener)
	return program{name: "gnutls-cli", args: append(args, "127.0.0.1"), input: input}
}

func TestGnuTLSReadsMailOverModernTLS(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "enforce", smallMailbox()...)
	eachListener(t, func(t *testing.T, listener string) {
		_, want := w.session(listener)
		for _, version := range []string{"TLS1.2", "TLS1.3"} {
			out := w.gnutls(t, listener, "NORMAL:-VERS-ALL:+VERS-"+version).succeed(t)
			for _, s := range []string{want, "Description: (" + version + "-", "certificate is trusted"} {
				if !strings.Contains(out, s) {
					t.Errorf("%s: no %q in\n%s", version, s, out)
				}
			}
		}
	})
	w.CheckIdentities(t, 8)
}

func TestGnuTLSOverTLS10MeetsTheMode(t *testing.T) {
	t.Parallel()
	const priority = "NORMAL:-VERS-ALL:+VERS-TLS1.0:%VERIFY_ALLOW_SIGN_WITH_SHA1"
	t.Run("enforce", func(t *testing.T) {
		w := newWorld(t, "enforce", smallMailbox()...)
		eachListener(t, func(t *testing.T, listener string) {
			stdout, stderr, code := w.gnutls(t, listener, priority).run(t)
			if code == 0 || !strings.Contains(stdout+stderr, "Error in protocol version") {
				t.Errorf("exit code %d\n%s\n%s", code, stdout, stderr)
			}
			w.counted(t, listener, "tls1.0", "rejected", 1)
		})
	})
	t.Run("observe", func(t *testing.T) {
		w := newWorld(t, "observe", smallMailbox()...)
		eachListener(t, func(t *testing.T, listener string) {
			_, want := w.session(listener)
			out := w.gnutls(t, listener, priority).succeed(t)
			if !strings.Contains(out, want) || !strings.Contains(out, "Description: (TLS1.0-") {
				t.Errorf("no %q over TLS 1.0 in\n%s", want, out)
			}
			w.counted(t, listener, "tls1.0", "observed", 1)
		})
	})
}
