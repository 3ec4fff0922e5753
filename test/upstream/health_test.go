package upstream

import (
	"net"
	"strings"
	"testing"
	"time"

	"postern/internal/dovecot"
	"postern/internal/posterntest"
)

// readyz waits until the words of /readyz hold all parts, and returns the status.
func readyz(t *testing.T, g *posterntest.Proxy, within time.Duration, parts ...string) int {
	t.Helper()
	for deadline := time.Now().Add(within); ; time.Sleep(20 * time.Millisecond) {
		status, body, err := g.Get("/readyz")
		missing := err != nil
		for _, part := range parts {
			missing = missing || !strings.Contains(body, part)
		}
		if !missing {
			return status
		}
		if time.Now().After(deadline) {
			t.Fatalf("no %q in /readyz: %v\n%s", parts, err, body)
		}
	}
}

// A server that greets and then refuses everybody is not up, whatever clients come.
func TestARealDovecotThatExpectsNoHeaderIsDown(t *testing.T) {
	t.Parallel()
	d := dovecot.Start(t, dovecot.Options{})
	for _, version := range []string{"v1", "v2"} {
		g := posterntest.Start(t, map[string]string{
			"UPSTREAM_IMAP": "imap://" + d.IMAP, "UPSTREAM_POP3": "pop3://" + d.POP3, "UPSTREAM_PROXY_PROTOCOL": version,
		})
		for protocol, url := range map[string]string{"imap": "imap://" + d.IMAP, "pop3": "pop3://" + d.POP3} {
			status := readyz(t, g, 30*time.Second, "upstream "+protocol+": has greeted, but does not serve now",
				"upstream "+url+": does not answer now: ", "POSTERN_UPSTREAM_PROXY_PROTOCOL")
			if status != 200 {
				t.Errorf("%s: status %d, but clients get words", version, status)
			}
			for range 3 {
				if c, err := (posterntest.Caller{}).Open(g, implicit[protocol]); err == nil {
					c.Login(dovecot.Anna.Name, dovecot.Anna.Password)
					c.Close()
				}
			}
			isUp(t, g, url, 0)
			if n := g.Metrics(t).Value("postern_upstream_failures_total", "upstream="+url); n == 0 {
				t.Errorf("%s %s: no failure counted", version, url)
			}
			g.WaitLog(t, "upstream failed", 1)
		}
		if code, out := g.Command("check"); code != 1 || strings.Count(out, "set POSTERN_UPSTREAM_PROXY_PROTOCOL=off if it expects no PROXY header, else have it trust this host") != 2 {
			t.Errorf("%s: check exits %d:\n%s", version, code, out)
		}
		g.Stop(t)
	}
}

// Nobody comes, and yet it is noticed that the servers are gone, and that they are back.
func TestServersAreAskedWhereNoClientComes(t *testing.T) {
	t.Parallel()
	imap, pop3 := plain(t, "imap"), plain(t, "pop3")
	g := posterntest.Start(t, map[string]string{"UPSTREAM_IMAP": imap.URL("imap"), "UPSTREAM_POP3": pop3.URL("pop3")})
	isUp(t, g, imap.URL("imap"), 1)
	isUp(t, g, pop3.URL("pop3"), 1)
	const every, back = 30 * time.Second, 20 * time.Second
	posterntest.Within(t, "noticing that they are gone, or fifteen seconds beside that they are back", every+5*time.Second, func() time.Duration {
		begun := time.Now()
		imap.Close()
		pop3.Close()
		readyz(t, g, every+30*time.Second, "upstream imap: has greeted, but does not serve now", "upstream pop3: has greeted, but does not serve now", "connection refused")
		gone := time.Since(begun)
		isUp(t, g, imap.URL("imap"), 0)
		isUp(t, g, pop3.URL("pop3"), 0)
		begun = time.Now()
		imap.Reopen(t)
		pop3.Reopen(t)
		if status := readyz(t, g, time.Minute, "upstream imap: ok", "upstream pop3: ok"); status != 200 {
			t.Errorf("status %d", status)
		}
		isUp(t, g, imap.URL("imap"), 1)
		return max(gone, time.Since(begun)+every+5*time.Second-back)
	})
}

func TestAnUpstreamThatIsPosternItselfIsNotDialled(t *testing.T) {
	t.Parallel()
	_, port, err := net.SplitHostPort(posterntest.FreeAddr(t))
	if err != nil {
		t.Fatal(err)
	}
	own := "imaps://127.0.0.2:" + port
	good := plain(t, "imap")
	g := posterntest.Start(t, map[string]string{"UPSTREAM_IMAP": own + "," + good.URL("imap"), "LISTEN_IMAPS": ":" + port})
	readyz(t, g, 30*time.Second, "upstream imap: ok", "upstream "+own+": does not answer now", "this is the instance's own listener imaps; name the mail server's port in POSTERN_UPSTREAM_IMAP\n")
	if words := failureLogged(t, g, own, "dial", 0); !strings.HasSuffix(words, "this is the instance's own listener imaps; name the mail server's port in POSTERN_UPSTREAM_IMAP") {
		t.Errorf("the log says %q", words)
	}
	serves(t, g, "imap")
	if n := g.Metrics(t).Value("postern_connections_total", "listener=imaps"); n != 0 {
		t.Errorf("%v connections to itself", n)
	}
	code, out := g.Command("check")
	if code != 2 || !strings.Contains(out, "POSTERN_UPSTREAM_IMAP: "+own+" leads back to POSTERN_LISTEN_IMAPS of this instance: name the mail server's port in POSTERN_UPSTREAM_IMAP\n") {
		t.Errorf("check exits %d:\n%s", code, out)
	}
	if strings.Count(out, own) != 1 {
		t.Errorf("check says more than one thing of it:\n%s", out)
	}
}

func TestCheckBesideAnInstanceIsFine(t *testing.T) {
	t.Parallel()
	u := plain(t, "imap")
	g := posterntest.Start(t, map[string]string{"UPSTREAM_IMAP": u.URL("imap")})
	code, out := g.Command("check")
	if code != 0 || !strings.Contains(out, "ok: in use by the Postern that runs: POSTERN_LISTEN_IMAPS "+g.Addr("imaps")) {
		t.Errorf("check exits %d:\n%s", code, out)
	}
}
