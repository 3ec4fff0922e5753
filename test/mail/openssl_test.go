package mail

import (
	"fmt"
	"strings"
	"testing"

	"postern/internal/posterntest"
)

// session is what s_client and gnutls-cli say once TLS is up, and a part of the
// answer. Keywords are in lower case: s_client takes a line that begins with Q
// or R for itself.
func (w *world) session(listener string) (commands, want string) {
	if strings.HasPrefix(listener, "imap") {
		return fmt.Sprintf("a login %q %q\r\nb examine INBOX\r\nc logout\r\n", w.user.Name, w.user.Password),
			fmt.Sprintf("* %d EXISTS", len(smallMailbox()))
	}
	return fmt.Sprintf("user %s\r\npass %s\r\nstat\r\nquit\r\n", w.user.Name, w.user.Password),
		fmt.Sprintf("+OK %d ", len(smallMailbox()))
}

func (w *world) openssl(listener string, args ...string) program {
	args = append([]string{"s_client", "-connect", w.Addr(listener), "-CAfile", w.CA.File,
		"-verify_return_error", "-ign_eof"}, args...)
	if listener == "imap" || listener == "pop3" {
		args = append(args, "-starttls", listener)
	}
	input, _ := w.session(listener)
	return program{name: "openssl", args: args, input: input}
}

// eachListener runs a parallel subtest per listener, and returns after all.
func eachListener(t *testing.T, f func(t *testing.T, listener string)) {
	t.Helper()
	t.Run("listeners", func(t *testing.T) {
		for _, listener := range []string{"imaps", "pop3s", "imap", "pop3"} {
			t.Run(listener, func(t *testing.T) {
				t.Parallel()
				f(t, listener)
			})
		}
	})
}

// counted asserts the outcome of n handshakes of one version on one listener.
func (w *world) counted(t *testing.T, listener, version, outcome string, n float64) {
	t.Helper()
	var got float64
	w.Wait(t, func(m posterntest.Samples) bool {
		got = m.Value("postern_handshakes_total", "listener="+listener, "version="+version, "outcome="+outcome)
		return got == n
	})
	if got != n {
		t.Errorf("%s: %v %s handshakes %s, want %v", listener, got, version, outcome, n)
	}
}

func TestOpenSSLReadsMailOverModernTLS(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "enforce", smallMailbox()...)
	eachListener(t, func(t *testing.T, listener string) {
		_, want := w.session(listener)
		for flag, protocol := range map[string]string{"-tls1_2": "New, TLSv1.2", "-tls1_3": "New, TLSv1.3"} {
			out := w.openssl(listener, flag).succeed(t)
			for _, s := range []string{want, protocol, "Verify return code: 0 (ok)"} {
				if !strings.Contains(out, s) {
					t.Errorf("%s: no %q in\n%s", flag, s, out)
				}
			}
		}
		w.counted(t, listener, "tls1.2", "accepted", 1)
		w.counted(t, listener, "tls1.3", "accepted", 1)
	})
	w.CheckIdentities(t, 8)
}

// old makes s_client a program of the day before TLS 1.2.
var old = []string{"-tls1", "-cipher", "ALL:@SECLEVEL=0"}

func TestOpenSSLOverTLS10IsRefusedUnderEnforce(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "enforce", smallMailbox()...)
	eachListener(t, func(t *testing.T, listener string) {
		stdout, stderr, code := w.openssl(listener, old...).run(t)
		if code == 0 || !strings.Contains(stderr, "SSL alert number 70") {
			t.Errorf("exit code %d, stderr %s", code, stderr)
		}
		if strings.Contains(stdout, "EXISTS") || strings.Contains(stdout, "Dovecot") {
			t.Errorf("Dovecot spoke to a refused client:\n%s", stdout)
		}
		w.counted(t, listener, "tls1.0", "rejected", 1)
	})
	w.CheckIdentities(t, 4)
}

func TestOpenSSLOverTLS10IsServedUnderObserve(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "observe", smallMailbox()...)
	eachListener(t, func(t *testing.T, listener string) {
		_, want := w.session(listener)
		out := w.openssl(listener, old...).succeed(t)
		for _, s := range []string{want, "Protocol  : TLSv1\n"} {
			if !strings.Contains(out, s) {
				t.Errorf("no %q in\n%s", s, out)
			}
		}
		w.counted(t, listener, "tls1.0", "observed", 1)
	})
	w.CheckIdentities(t, 4)
	if lines := w.WaitLog(t, "legacy handshake", 4); len(lines) != 4 {
		t.Errorf("%d log lines for 4 legacy handshakes", len(lines))
	}
}

func TestOpenSSLOverTLS10IsToldWhyUnderExplain(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "explain", smallMailbox()...)
	seen := strings.Count(w.dovecot.Log(t), "Login: ")
	eachListener(t, func(t *testing.T, listener string) {
		want := "* BYE [ALERT] "
		if strings.HasPrefix(listener, "pop3") {
			want = "-ERR [SYS/PERM] "
		}
		want += "TLS 1.0 is no longer accepted here; update your mail program to one that supports TLS 1.2 or later."
		stdout, stderr, _ := w.openssl(listener, old...).run(t)
		if !strings.Contains(stdout, want+"\r\n") {
			t.Errorf("no %q in\n%s\nstderr: %s", want, stdout, stderr)
		}
		w.counted(t, listener, "tls1.0", "explained", 1)
	})
	w.CheckIdentities(t, 4)
	if now := strings.Count(w.dovecot.Log(t), "Login: "); now != seen {
		t.Errorf("Dovecot saw logins of explained clients:\n%s", w.dovecot.Log(t))
	}
}

// withoutSHA2 are programs of a time before the signatures of TLS 1.2 were all SHA-2, told to
// be so: they know ECDHE and RSA key exchange, and sign with SHA-1 alone.
func (w *world) withoutSHA2(t *testing.T, listener string) []program {
	return []program{
		w.openssl(listener, "-tls1_2", "-cipher", "ECDHE-RSA-AES128-SHA:AES128-SHA:@SECLEVEL=0", "-sigalgs", "RSA+SHA1"),
		w.gnutls(t, listener, "NORMAL:-VERS-ALL:+VERS-TLS1.2:+RSA:-SIGN-ALL:+SIGN-RSA-SHA1:%VERIFY_ALLOW_SIGN_WITH_SHA1"),
	}
}

func TestAClientWithoutSHA2SignaturesIsServedByRSAKeyExchange(t *testing.T) {
	t.Parallel()
	for name, env := range map[string]map[string]string{
		"compat":  {"POLICY_FLOOR": "tls1.2-compat"},
		"observe": {"POLICY_MODE": "observe"},
	} {
		w := newWorldWith(t, env, smallMailbox()...)
		eachListener(t, func(t *testing.T, listener string) {
			_, want := w.session(listener)
			for _, p := range w.withoutSHA2(t, listener) {
				if out := p.succeed(t); !strings.Contains(out, want) || !strings.Contains(out, "AES128-SHA\n") && !strings.Contains(out, "(TLS1.2-X.509)-(RSA)") && !strings.Contains(out, "-(RSA)-") {
					t.Errorf("%s, %s: no %q over RSA key exchange in\n%s", name, p.name, want, out)
				}
			}
			w.counted(t, listener, "tls1.2", map[string]string{"compat": "accepted", "observe": "observed"}[name], 2)
		})
		w.CheckIdentities(t, 8)
	}
	w := newWorldWith(t, map[string]string{"POLICY_MODE": "explain"})
	eachListener(t, func(t *testing.T, listener string) {
		for _, p := range w.withoutSHA2(t, listener) {
			p.run(t)
		}
		w.counted(t, listener, "tls1.2", "explained", 2)
	})
	w = newWorldWith(t, nil)
	eachListener(t, func(t *testing.T, listener string) {
		for _, p := range w.withoutSHA2(t, listener) {
			if stdout, stderr, code := p.run(t); code == 0 {
				t.Errorf("%s: exit code 0\n%s\n%s", p.name, stdout, stderr)
			}
		}
		w.counted(t, listener, "tls1.2", "rejected", 2)
	})
}
