package probe

import (
	"os/exec"
	"strings"
	"testing"
	"time"

	"postern/internal/posterntest"
)

// TestFourPortsTakeLittleTimeAndMemory probes Postern itself.
func TestFourPortsTakeLittleTimeAndMemory(t *testing.T) {
	const most = 3 * time.Second // for all four
	bin := posterntest.Shipped(t)
	t.Setenv("POSTERN_BIN", bin)
	g := posterntest.Start(t, map[string]string{
		"UPSTREAM_IMAP": posterntest.StartUpstream(t, posterntest.IMAPGreeting, posterntest.IMAPReply).URL("imap"),
		"UPSTREAM_POP3": posterntest.StartUpstream(t, posterntest.POP3Greeting, posterntest.POP3Reply).URL("pop3"),
	})
	posterntest.Within(t, "four ports", most, func() (took time.Duration) {
		for _, args := range []string{g.Addr("imaps") + " " + g.Addr("pop3s"), "-starttls imap " + g.Addr("imap"), "-starttls pop3 " + g.Addr("pop3")} {
			r := measure(t, strings.Fields("probe "+args)...)
			took += r.took
			if r.code != 0 || strings.Count(r.out, ": refuses SSL 2.0, SSL 3.0, TLS 1.0 and 1.1; ") != strings.Count(args, ":") {
				t.Errorf("%q: exit code %d\n%s", args, r.code, r.out)
			}
			if r.memory > mostMemory {
				t.Errorf("%q: %d KB", args, r.memory)
			}
			t.Log(args, took, r.memory)
		}
		return took
	})
}

// TestPosternObeysNothingFromBeforeTLS asks Postern's own guard: a command behind STARTTLS
// ends the connection, and is counted.
func TestPosternObeysNothingFromBeforeTLS(t *testing.T) {
	g := posterntest.Start(t, map[string]string{
		"UPSTREAM_IMAP": posterntest.StartUpstream(t, posterntest.IMAPGreeting, posterntest.IMAPReply).URL("imap"),
		"UPSTREAM_POP3": posterntest.StartUpstream(t, posterntest.POP3Greeting, posterntest.POP3Reply).URL("pop3"),
	})
	for _, protocol := range []string{"imap", "pop3"} {
		for _, flags := range []string{"", " -injection"} {
			out, err := exec.Command(posterntest.Shipped(t), strings.Fields("probe -json -starttls "+protocol+flags+" "+g.Addr(protocol))...).Output()
			if err != nil || strings.Contains(string(out), `"injected": false`) != (flags != "") || strings.Contains(string(out), `"injected": true`) ||
				!strings.Contains(string(out), `"login_before_tls": false`) {
				t.Errorf("%s%s: %v\n%s", protocol, flags, err, out)
			}
		}
		g.Wait(t, func(s posterntest.Samples) bool { // it is counted once
			return s.Value("postern_starttls_injections_total", "listener="+protocol) == 1
		})
	}
}
