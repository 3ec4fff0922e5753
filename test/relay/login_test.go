package relay

import (
	"cmp"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"postern/internal/posterntest"
)

// token is as long as the OAuth tokens of large organisations.
var token = strings.Repeat("QUJD", 4<<10)

// logins are LOGIN commands in the pieces in which a client sends them.
var logins = map[string][]string{
	"atoms":              {"a LOGIN anna s3cr3t-word\r\n"},
	"lower case":         {"a login anna s3cr3t-word\r\n"},
	"quoted":             {"a LOGIN \"an\\\"na\" \"s3 (cr3t} {4}\\\\\"\r\n"},
	"quoted, 8-bit":      {"a LOGIN \"\xc3\xa4nna\" \"s\xe93cr3t\"\r\n"},
	"{n}":                {"a LOGIN {4}\r\n", "anna {11}\r\n", "s3cr3t-word\r\n"},
	"{n+}":               {"a LOGIN {4+}\r\nanna {11+}\r\ns3cr3t-word\r\n"},
	"{n} and quoted":     {"a LOGIN {4}\r\n", "anna \"s3cr3t-word\"\r\n"},
	"quoted and {n}":     {"a LOGIN \"anna\" {11}\r\n", "s3cr3t-word\r\n"},
	"quoted and {n+}":    {"a LOGIN \"anna\" {11+}\r\ns3cr3t-word\r\n"},
	"{n+} and quoted":    {"a LOGIN {4+}\r\nanna \"s3cr3t-word\"\r\n"},
	"{n+} and {n}":       {"a LOGIN {4+}\r\nanna {11}\r\n", "s3cr3t-word\r\n"},
	"{n} and {n+}":       {"a LOGIN {4}\r\n", "anna {11+}\r\ns3cr3t-word\r\n"},
	"{0}":                {"a LOGIN {0}\r\n", " {0}\r\n", "\r\n"},
	"{0+}":               {"a LOGIN {0+}\r\n {0+}\r\n\r\n"},
	"anna and {0}":       {"a LOGIN anna {0}\r\n", "\r\n"},
	"{0+} and {0}":       {"a LOGIN {0+}\r\n {0}\r\n", "\r\n"},
	"lines in a literal": {"a LOGIN {4}\r\n", "anna {20}\r\n", "b NOOP\r\nc STARTTLS\r\n\r\n"},
	"8 KB password":      {"a LOGIN anna {8192}\r\n", strings.Repeat("p", 8192) + "\r\n"},
}

func TestLOGINIsTheUpstreamsFromTheFirstByteToTheLast(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	for _, listener := range []string{"imaps", "imap"} {
		for name, pieces := range logins {
			t.Run(listener+" "+name, func(t *testing.T) {
				d := r.open(t, listener)
				want := strings.Join(pieces, "")
				if got := d.speak(t, pieces...); got != want {
					t.Errorf("upstream gets %q\nwant %q", got, want)
				}
				d.back(t, "a NO [AUTHENTICATIONFAILED] wrong\r\n")
				d.goesOn(t, listener)
				if got := d.speak(t, pieces...); got != want {
					t.Errorf("upstream gets %q\nwant %q", got, want)
				}
				d.back(t, "a OK in\r\n")
				d.pass(t, "any\nthing\r")
			})
		}
	}
	noSecret(t, r)
}

func TestALiteralThatTheUpstreamRefuses(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	d := r.open(t, "imaps")
	for _, answer := range []string{"a NO too long\r\n", "a BAD no literals here\r\n", "* NO hm\r\na NO [ALERT] no\r\n"} {
		for _, line := range []string{"a LOGIN {4}\r\n", "a LOGIN anna {100}\r\n", "a ID ({4}\r\n"} {
			d.pass(t, line)
			d.back(t, answer)
			d.goesOn(t, "imaps")
		}
	}
	d.login(t, "imaps")
}

// exchanges are SASL dialogues of IMAP and POP3: what the client sends (C) and
// what the upstream sends (S).
var exchanges = map[string][]string{
	"initial response":         {"C A PLAIN AGFubmEAczNjcjN0", "S OK"},
	"an empty one":             {"C A EXTERNAL =", "S OK"},
	"none":                     {"C A PLAIN", "S + ", "C AGFubmEAczNjcjN0", "S OK"},
	"none, + without a space":  {"C A PLAIN", "S +", "C AGFubmEAczNjcjN0", "S OK"},
	"several steps":            {"C A LOGIN", "S + VXNlcm5hbWU6", "C YW5uYQ==", "S + UGFzc3dvcmQ6", "C czNjcjN0", "S OK"},
	"GSSAPI":                   {"C A GSSAPI", "S +", "C " + token, "S + " + token, "C ", "S + YGgGCSqGSIb3", "C YDMGCSqGSIb3", "S OK"},
	"cancelled, then again":    {"C A PLAIN", "S + ", "C *", "S BAD", "C A PLAIN AGFubmEAczNjcjN0", "S OK"},
	"cancelled at second step": {"C A LOGIN", "S + VXNlcm5hbWU6", "C YW5uYQ==", "S + UGFzc3dvcmQ6", "C *", "S NO", "C A PLAIN x", "S OK"},
	"failed, then again":       {"C A PLAIN d3Jvbmc=", "S NO", "C A PLAIN", "S + ", "C d3Jvbmc=", "S NO", "C A PLAIN x", "S OK"},
	"a long token at once":     {"C A XOAUTH2 " + token, "S OK"},
	"a long token on request":  {"C A OAUTHBEARER", "S + ", "C " + token, "S OK"},
	"a token refused":          {"C A XOAUTH2 " + token, "S + eyJzdGF0dXMiOiI0MDAifQ==", "C ", "S NO", "C A PLAIN x", "S OK"},
	"a token refused, AQ==":    {"C A OAUTHBEARER " + token, "S + eyJzdGF0dXMiOiI0MDAifQ==", "C AQ==", "S NO", "C A PLAIN x", "S OK"},
}

// wire is a step of an exchange as it stands on the wire.
func wire(listener, step string) string {
	side, text := step[:2], step[2:]
	switch {
	case side == "C " && isIMAP(listener):
		text = strings.Replace(text, "A ", "a AUTHENTICATE ", 1)
	case side == "C ":
		text = strings.Replace(text, "A ", "auth ", 1)
	case strings.HasPrefix(text, "+"):
	case isIMAP(listener):
		text = "a " + text + " said"
	default:
		text = map[string]string{"OK": "+OK said", "NO": "-ERR [AUTH] said", "BAD": "-ERR said"}[text]
	}
	return text + "\r\n"
}

func TestAUTHENTICATEAndAUTHAreTheUpstreams(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	for _, listener := range []string{"imaps", "imap", "pop3s", "pop3"} {
		for name, steps := range exchanges {
			t.Run(listener+" "+name, func(t *testing.T) {
				d := r.open(t, listener)
				for _, step := range steps {
					if text := wire(listener, step); step[0] == 'C' {
						d.pass(t, text)
					} else {
						d.back(t, text)
					}
				}
				d.pass(t, "any\nthing\r")
				d.back(t, "any\nthing\r")
			})
		}
	}
	noSecret(t, r)
}

func TestCommandsPipelinedBehindALoginWaitForItAndArriveInOrder(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	for _, listener := range []string{"imaps", "imap"} {
		d := r.open(t, listener)
		d.client.Send(t, "a CAPABILITY\r\nb LOGIN anna wrong\r\nc LOGIN {4+}\r\nanna {5+}\r\nwrong\r\nd LOGIN anna s3cr3t-word\r\n"+
			"e SELECT INBOX\r\nf STARTTLS\r\n\x00\n\r")
		for _, step := range [][2]string{
			{"a CAPABILITY\r\n", "* CAPABILITY IMAP4rev1\r\na OK\r\n"},
			{"b LOGIN anna wrong\r\n", "b NO\r\n"},
			{"c LOGIN {4+}\r\nanna {5+}\r\nwrong\r\n", "c NO\r\n"},
			{"d LOGIN anna s3cr3t-word\r\n", "d OK\r\n* 1 EXISTS\r\n"},
		} {
			d.upstream.Expect(t, step[0])
			d.upstream.ExpectSilence(t, quietTime)
			d.back(t, step[1])
		}
		d.upstream.Expect(t, "e SELECT INBOX\r\nf STARTTLS\r\n\x00\n\r")
		d.back(t, "e OK\r\n")
	}
	for _, listener := range []string{"pop3s", "pop3"} {
		d := r.open(t, listener)
		d.client.Send(t, "CAPA\r\nUSER anna\r\nPASS wrong\r\nUSER anna\r\nPASS s3cr3t-word\r\nSTAT\r\nRETR 1\r\nQUIT\r\n")
		for _, step := range [][2]string{
			{"CAPA\r\n", "+OK\r\nUSER\r\n.\r\n"}, {"USER anna\r\n", "+OK\r\n"}, {"PASS wrong\r\n", "-ERR [AUTH] no\r\n"},
			{"USER anna\r\n", "+OK\r\n"}, {"PASS s3cr3t-word\r\n", "+OK in\r\n"},
		} {
			d.upstream.Expect(t, step[0])
			if !strings.HasPrefix(step[0], "PASS s") {
				d.upstream.ExpectSilence(t, quietTime)
			}
			d.back(t, step[1])
		}
		d.upstream.Expect(t, "STAT\r\nRETR 1\r\nQUIT\r\n")
		d.back(t, "+OK 1 5\r\n+OK\r\nSTLS\r\n.\r\n+OK\r\n")
	}
}

func TestALargeAPPENDBehindALoginMeetsNoLimit(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	message := strings.Repeat("SASL X-PLUS STARTTLS \x00\r \n\r\n", 20<<20/26)
	for _, listener := range []string{"imaps", "imap"} {
		for _, plus := range []string{"+", ""} {
			d := r.open(t, listener)
			rest := fmt.Sprintf("b APPEND INBOX {%d%s}\r\n%s\r\nc NOOP\r\n", len(message), plus, message)
			sent := sending(d.client, "a LOGIN anna s3cr3t-word\r\n"+rest)
			d.upstream.Expect(t, "a LOGIN anna s3cr3t-word\r\n")
			d.upstream.ExpectSilence(t, quietTime)
			d.back(t, "a OK in\r\n")
			d.upstream.Expect(t, rest)
			wasSent(t, sent)
			d.back(t, "+ OK\r\nb OK\r\nc OK\r\n")
		}
	}
}

func TestAPOPWithTheUpstreamsTimestamp(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	d := r.open(t, "pop3s") // which has shown the timestamp to the client
	d.pass(t, "APOP anna 00000000000000000000000000000000\r\n")
	d.back(t, "-ERR [AUTH] no\r\n")
	d.pass(t, "apop anna c4c9334bac560ecc979e58001b3e22fb\r\n")
	d.back(t, "+OK in\r\n")
	d.pass(t, "any\nthing\r")
}

// A login that the upstream refuses is counted, and has a line in the log; one that Postern
// refuses before TLS has a line alone.
func TestARefusedLoginIsCountedAndLogged(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	for _, listener := range posterntest.Listeners {
		if n := r.Metrics(t).Count("postern_login_failures_total", "listener="+listener); n != 0 {
			t.Errorf("%s begins at %v", listener, n)
		}
	}
	type login struct{ listener, command, reply, mechanism, code string }
	n := 0
	for _, l := range []login{
		{"imaps", "a LOGIN anna s3cr3t-word\r\n", "a NO no [AUTH]\r\n", "LOGIN", ""}, {"imap", "a authenticate plain AHM=\r\n", "a BAD no\r\n", "PLAIN", ""},
		{"imap", "a AUTHENTICATE \"xoauth2\" s3cr3t-word\r\n", "a no [unavailable] no\r\n", "XOAUTH2", "UNAVAILABLE"}, {"imaps", "a AUTHENTICATE s3cr3t-word\r\n", "a NO [\x1bX] no\r\n", "other", ""},
		{"pop3s", "PASS s3cr3t-word\r\n", "-ERR [AUTH] no\r\n", "USER", "AUTH"}, {"pop3", "APOP anna s3cr3t-word\r\n", "-ERR [SYS/TEMP] no\r\n", "APOP", "SYS/TEMP"},
		{"pop3s", "AUTH SCRAM-SHA-256 s3cr3t-word\r\n", "-ERR no\r\n", "SCRAM-SHA-256", ""},
		{"imap", "a LOGIN anna s3cr3t-word\r\n", "", "LOGIN", ""}, {"imap", "a AUTHENTICATE NTLM\r\n", "", "NTLM", ""},
		{"pop3", "USER anna\r\n", "", "USER", ""}, {"pop3", "APOP anna s3cr3t-word\r\n", "", "APOP", ""}, {"pop3", "AUTH PLAIN\r\n", "", "PLAIN", ""},
	} {
		before := r.Metrics(t).Value("postern_login_failures_total", "listener="+l.listener)
		port := ""
		if l.reply != "" {
			d := r.open(t, l.listener)
			d.pass(t, l.command)
			d.back(t, l.reply)
			_, port, _ = net.SplitHostPort(d.client.LocalAddr().String())
			r.becomes(t, before+1, "postern_login_failures_total", "listener="+l.listener)
		} else {
			c := r.plain(t, l.listener)
			c.Send(t, l.command)
			c.ExpectLine(t, "")
			_, port, _ = net.SplitHostPort(c.LocalAddr().String())
		}
		n++
		line := r.WaitLog(t, "login failed", n)[n-1]
		if line["listener"] != l.listener || line["mechanism"] != l.mechanism || line["client"] != "127.0.0.1" || fmt.Sprint(line["client_port"]) != port || line["account"] != nil || cmp.Or(line["code"], any("")) != l.code {
			t.Errorf("%q: %v", l.command, line)
		}
	}
	if all := r.Metrics(t).Value("postern_login_failures_total"); all != 7 {
		t.Errorf("%v logins refused by upstreams, want 7", all)
	}
	// Cancelled by the client itself.
	d := r.open(t, "imaps")
	d.pass(t, "a AUTHENTICATE PLAIN\r\n")
	d.back(t, "+ \r\n")
	d.pass(t, "*\r\n")
	d.back(t, "a BAD cancelled\r\n")
	floodIsFolded(t, r, 7)
	noSecret(t, r)
}

// floodIsFolded wants twenty lines of the thirty refused logins of one client within a
// minute; so many were refused before.
func floodIsFolded(t *testing.T, r *rig, refused float64) {
	t.Helper()
	for n := 1; n <= 5; n++ { // a slow machine may need a minute for them
		from := fmt.Sprintf("127.0.6.%d", n)
		conn := r.secure(t, "imaps", r.DialForTLSFrom(t, "imaps", from))
		d := &dialogue{client: newEnd("client", conn), upstream: r.taken(t, "imaps")}
		d.client.Expect(t, imapGreeting)
		begun := time.Now()
		for range 30 {
			d.pass(t, "b LOGIN anna s3cr3t-word\r\n")
			d.back(t, "b NO no\r\n")
		}
		refused += 30
		r.becomes(t, refused, "postern_login_failures_total")
		if time.Since(begun) > 50*time.Second {
			continue
		}
		lines := 0
		for end := time.Now().Add(dialogTime); lines < 20 && time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
			lines = 0
			for _, line := range r.LogLines("login failed") {
				if line["client"] == from && line["suppressed"] == nil {
					lines++
				}
			}
		}
		if lines != 20 {
			t.Errorf("%d lines", lines)
		}
		return
	}
}
