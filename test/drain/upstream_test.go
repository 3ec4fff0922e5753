package drain

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"postern/internal/posterntest"
)

// thinking is a small server that takes a while over each login.
func thinking(t *testing.T, greeting string, reply func(string) string) *posterntest.Upstream {
	t.Helper()
	return posterntest.StartRawUpstream(t, func(c net.Conn) {
		if _, err := io.WriteString(c, greeting); err != nil {
			return
		}
		in := bufio.NewScanner(c)
		for in.Scan() {
			line := strings.TrimRight(in.Text(), "\r")
			if strings.Contains(line, "LOGIN") || strings.HasPrefix(line, "PASS") {
				time.Sleep(20 * time.Millisecond)
			}
			if _, err := io.WriteString(c, reply(line)); err != nil {
				return
			}
		}
	})
}

func TestAKilledUpstreamCostsOnlyTheLoginsRelayedToIt(t *testing.T) {
	greetings := map[string]string{"imap": posterntest.IMAPGreeting, "pop3": posterntest.POP3Greeting}
	replies := map[string]func(string) string{"imap": posterntest.IMAPReply, "pop3": posterntest.POP3Reply}
	killed, left := make(map[string]*posterntest.Upstream), make(map[string]*posterntest.Upstream)
	env := make(map[string]string)
	for protocol, greeting := range greetings {
		killed[protocol] = thinking(t, greeting, replies[protocol])
		left[protocol] = thinking(t, greeting, replies[protocol])
		env["UPSTREAM_"+strings.ToUpper(protocol)] = killed[protocol].URL(protocol) + "," + left[protocol].URL(protocol)
	}
	g := posterntest.Process{Measured: true}.Start(t, env)

	const rate, lasts = 200, 5 * time.Second
	total := int(rate * lasts.Seconds())
	var (
		logins sync.WaitGroup
		slots  = make(chan struct{}, rate/2) // no more are under way, however slow the machine is
		mu     sync.Mutex
		failed = make(map[string]error) // by user
	)
	tick := time.NewTicker(time.Second / rate)
	defer tick.Stop()
	for i := range total {
		<-tick.C
		if i == total/2 {
			for _, u := range killed {
				u.Close()
			}
		}
		user, listener := fmt.Sprintf("user-%04d-", i), posterntest.Listeners[i%4]
		slots <- struct{}{}
		logins.Go(func() {
			defer func() { <-slots }()
			c, err := posterntest.Caller{}.Login(g, listener, user, "password")
			if err == nil {
				c.Close()
				return
			}
			mu.Lock()
			failed[user] = err
			mu.Unlock()
		})
	}
	logins.Wait()
	t.Logf("%d of %d logins failed", len(failed), total)
	if len(failed) > rate {
		t.Errorf("%d logins failed, want %d at most", len(failed), rate)
	}
	relayed := string(killed["imap"].ReceivedAll()) + string(killed["pop3"].ReceivedAll())
	unread := withoutLogin(killed["imap"]) + withoutLogin(killed["pop3"]) // what had come was lost with the server
	for user, err := range failed {
		if strings.Contains(relayed, user) {
			continue
		}
		if unread--; unread < 0 {
			t.Errorf("a login that was never relayed failed: %v", err)
		}
	}
	for protocol, u := range killed {
		url := u.URL(protocol)
		g.Wait(t, func(s posterntest.Samples) bool { return s.Value("postern_upstream_up", "upstream="+url) == 0 })
	}
}

// withoutLogin is how many clients have reached a server that has read no login of them.
func withoutLogin(u *posterntest.Upstream) int {
	n := u.FromClients()
	for i := range u.Connections() {
		if strings.Contains(string(u.Received(i)), "user-") {
			n--
		}
	}
	return n
}
