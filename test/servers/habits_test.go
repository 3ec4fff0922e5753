package servers

import (
	"strings"
	"sync"
	"testing"
	"time"

	"postern/internal/posterntest"
)

// Courier throws away what stands behind a LOGIN in one segment. The proxy holds it
// back until the login is through.
func TestCourierGetsWhatIsPipelinedBehindALogin(t *testing.T) {
	t.Parallel()
	s := startCourier(t)
	g := s.behind(t, line{}, nil)
	for _, listener := range []string{"imaps", "imap"} {
		c := through(t, g, listener)
		c.Send(t, "a LOGIN "+s.user(t)+" \""+password+"\"\r\nb NOOP\r\nc SELECT INBOX\r\nd LOGOUT\r\n")
		for _, tag := range []string{"a OK", "b OK", "c OK", "d OK"} {
			c.Until(t, tag)
		}
	}
}

// Cyrus announces LOGINDISABLED to who has just logged in: hidden in its answer to the
// login, and passed on like everything that comes later.
func TestCyrusAnnouncesLOGINDISABLEDAfterALogin(t *testing.T) {
	t.Parallel()
	s := startCyrus(t, "")
	g := s.behind(t, line{}, nil)
	const word = " LOGINDISABLED "
	itself := s.direct(t, line{}, "imap").Must(t, "LOGIN %s %q", userName(0), password)
	if !strings.Contains(itself.Text, word) {
		t.Fatalf("Cyrus answers %q: this test is for one that says%s", itself.Text, word)
	}
	for _, listener := range []string{"imaps", "imap"} {
		c := through(t, g, listener)
		if login := c.Must(t, "LOGIN %s %q", userName(0), password); login.Text != "" && strings.Contains(login.Text, word) ||
			!strings.Contains(login.Text, "[CAPABILITY ") {
			t.Errorf("%s: the login is answered by %q", listener, login.Text)
		}
		after := c.Must(t, "CAPABILITY")
		if len(after.Untagged) != 1 || !strings.Contains(after.Untagged[0].Line, word) {
			t.Errorf("%s: after the login Cyrus lists %q", listener, after.Untagged)
		}
	}
}

// Where its authentication does not answer for ten seconds, Dovecot says so in a first
// greeting, and has a second one later.
func TestDovecotMayGreetTwice(t *testing.T) {
	t.Parallel()
	s := startDovecot(t, true, "service imap-login {\n  restart_request_count = 1\n  process_min_avail = 0\n}")
	g := s.behind(t, line{}, map[string]string{"UPSTREAM_TIMEOUT": "30s"})
	resume := s.suspend("auth")
	time.AfterFunc(17*time.Second, resume) // seven more, in which the clients have to come
	var all sync.WaitGroup
	defer all.Wait()
	for _, listener := range []string{"imaps", "imap"} {
		all.Go(func() {
			t.Run(listener, func(t *testing.T) {
				c := through(t, g, listener)
				const first, second = "* OK Waiting for authentication process to respond", "* OK [CAPABILITY "
				if listener == "imaps" && !strings.HasPrefix(c.Greeting, first) {
					t.Errorf("greeted with %q", c.Greeting)
				}
				reply := c.Must(t, "CAPABILITY")
				said := c.Greeting
				for _, r := range reply.Untagged {
					said += "\n" + r.Line
				}
				if !strings.Contains(said, "\n"+second) {
					t.Errorf("no second greeting in %s", said)
				}
				if hidden.MatchString(said) {
					t.Errorf("it lists what does not hold inside TLS: %s", said)
				}
				c.Must(t, "LOGIN %s %q", userName(1), password)
			})
		})
	}
}

// Servers slow down who guesses passwords. It takes as long through the proxy.
func TestWrongPasswordsTakeAsLongAsDirect(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		start func(*testing.T) *server
		least time.Duration
	}{
		"Dovecot": {func(t *testing.T) *server { return startDovecot(t, true, "auth_failure_delay = 2s") }, time.Second},
		"Cyrus":   {func(t *testing.T) *server { return startCyrus(t, "") }, 3 * time.Second},
		"Courier": {startCourier, 5 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			s := test.start(t)
			g := s.behind(t, line{}, nil)
			posterntest.Within(t, "what is more than direct", 2*time.Second, func() time.Duration {
				clients := map[string]*posterntest.Client{"direct": s.direct(t, line{}, "imap"), "imaps": through(t, g, "imaps"), "imap": through(t, g, "imap")}
				took := make(map[string]time.Duration)
				said := make(map[string]string)
				var all sync.WaitGroup
				var mu sync.Mutex
				for way, c := range clients {
					all.Go(func() {
						begun := time.Now()
						reply, err := c.Command("LOGIN %s wrong", userName(2))
						mu.Lock()
						defer mu.Unlock()
						if took[way], said[way] = time.Since(begun), reply.Text; err != nil {
							t.Errorf("%s: %v", way, err)
						}
					})
				}
				all.Wait()
				most := time.Duration(0)
				for way := range clients {
					if took[way] < test.least {
						t.Errorf("%s took %v, direct %v", way, took[way], took["direct"])
					}
					most = max(most, took[way]-took["direct"])
					if said[way] != said["direct"] || !strings.HasPrefix(said[way], "NO") {
						t.Errorf("%s got %q, direct %q", way, said[way], said["direct"])
					}
				}
				return most
			})
		})
	}
}
