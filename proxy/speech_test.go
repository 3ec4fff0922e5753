package proxy

import (
	"crypto/tls"
	"io"
	"strings"
	"testing"

	"postern/internal/posterntest"
	"postern/policy"
)

// TestHowALegacyClientSpeaksIsReported once: with its login, or at its end if there was
// none; of a client that is refused what it has said before TLS.
func TestHowALegacyClientSpeaksIsReported(t *testing.T) {
	for _, tt := range []struct {
		name                    string
		listener                Listener
		mode                    policy.Mode
		modern                  bool
		before, inside          string
		handshake, login, close string
	}{
		{"imaps", IMAPS, policy.Observe, false, "", "a1 CAPABILITY\na2 LOGIN anna secret\na3 NOOP\n", "", "imaps a1 CAPABILITY LOGIN:atom:atom", ""},
		{"imap", IMAP, policy.Observe, false, "a1 CAPABILITY\na2 STARTTLS\n", "a3 LOGIN \"anna\" {6}\nsecret\n", "imap a1 CAPABILITY STARTTLS", "imap a1 CAPABILITY STARTTLS TLS LOGIN:quoted:literal", ""},
		{"pop3", POP3, policy.Observe, false, "CAPA\nSTLS\n", "USER anna\nPASS secret\n", "pop3 CAPA STLS", "pop3 CAPA STLS TLS USER", ""},
		{"one that logs in in clear first", POP3, policy.Observe, false, "USER anna\nPASS secret\nSTLS\n", "USER anna\nPASS secret\n", "", "pop3 TLS USER", ""},
		{"one that says a lot first", IMAP, policy.Observe, false, strings.Repeat("a1 NOOP\n", 200) + "a2 STARTTLS\n", "a3 LOGIN anna secret\n", "", "imap TLS a9 LOGIN:atom:atom", ""},
		{"no login", IMAPS, policy.Observe, false, "", "a1 NOOP\na2 LOGOUT\n", "", "", "imaps a1 NOOP LOGOUT"},
		{"a login that is refused", IMAPS, policy.Observe, false, "", "a1 AUTHENTICATE anna secret\na2 LOGOUT\n", "", "", "imaps a1 AUTHENTICATE:other:ir"},
		{"no word inside TLS", IMAP, policy.Observe, false, "1 STARTTLS\n", "", "imap 1 STARTTLS", "", "imap 1 STARTTLS TLS"},
		{"refused", IMAP, policy.Enforce, false, "1 STARTTLS\n", "", "imap 1 STARTTLS", "", "imap 1 STARTTLS"},
		{"told why", POP3, policy.Explain, false, "STLS\n", "USER anna\n", "pop3 STLS", "", "pop3 STLS"},
		{"refused at once", IMAPS, policy.Enforce, false, "", "", "", "", ""},
		{"a modern client", IMAP, policy.Observe, true, "a1 STARTTLS\n", "a2 LOGIN anna secret\n", "", "", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			imap, pop3 := posterntest.StartUpstream(t, posterntest.IMAPGreeting, posterntest.IMAPReply), posterntest.StartUpstream(t, posterntest.POP3Greeting, posterntest.POP3Reply)
			g := StartProxy(t, tt.mode, imap.Addr(), pop3.Addr(), nil)
			c, config := g.Dial(t, tt.listener), g.oldClient()
			if tt.modern {
				config = g.ClientConfig()
			}
			answer := make([]byte, 4096)
			if tt.before != "" {
				c.Read(answer)
			}
			for line := range strings.Lines(tt.before) {
				io.WriteString(c, strings.TrimSpace(line)+"\r\n")
				c.Read(answer)
			}
			tc := tls.Client(c, config)
			if tc.Handshake() == nil {
				io.WriteString(tc, strings.ReplaceAll(tt.inside, "\n", "\r\n"))
				tc.CloseWrite()
				io.Copy(io.Discard, tc)
			}
			tc.Close()
			closed := g.WaitClosed(t, 1)
			if got := g.WaitHandshake(t, 1).Pattern; got != tt.handshake {
				t.Errorf("at the handshake %q, want %q", got, tt.handshake)
			}
			login := ""
			for _, l := range g.logins {
				login += l.Pattern
			}
			if login != tt.login || closed.Pattern != tt.close {
				t.Errorf("at the login %q, want %q; at the end %q, want %q", login, tt.login, closed.Pattern, tt.close)
			}
			if logged := len(g.logins) > 0; logged != (tt.login != "" || tt.modern) {
				t.Errorf("it has logged in: %v", logged)
			}
		})
	}
}
