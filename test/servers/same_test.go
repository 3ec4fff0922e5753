package servers

import (
	"slices"
	"strings"
	"sync"
	"testing"

	"postern/internal/posterntest"
)

func TestDovecot23IsTheSameBehindTheProxy(t *testing.T) {
	t.Parallel()
	startDovecot(t, false, "disable_plaintext_auth = no").sameOnEveryLine(t)
}

func TestDovecot24IsTheSameBehindTheProxy(t *testing.T) {
	t.Parallel()
	startDovecot(t, true, "auth_allow_cleartext = yes").sameOnEveryLine(t)
}

func TestCyrusIsTheSameBehindTheProxy(t *testing.T) {
	t.Parallel()
	startCyrus(t, "").sameOnEveryLine(t)
}

func TestCourierIsTheSameBehindTheProxy(t *testing.T) {
	t.Parallel()
	startCourier(t).sameOnEveryLine(t)
}

// sameOnEveryLine compares dialogues with the server itself and those through a
// proxy: on each line to the server one, and on the plain line every way to log in.
func (s *server) sameOnEveryLine(t *testing.T) {
	// They wait for the server more than for the processor.
	var all sync.WaitGroup
	defer all.Wait()
	for _, l := range s.lines() {
		all.Go(func() { t.Run(l.name, func(t *testing.T) { s.sameOn(t, l) }) })
	}
}

func (s *server) sameOn(t *testing.T, l line) {
	g := s.behind(t, l, nil)
	var all sync.WaitGroup
	defer all.Wait()
	for protocol, logins := range loginsOf {
		for way := range logins {
			if l.name == "plain" || slices.Contains([]string{"LOGIN", "AUTHENTICATE PLAIN", "USER"}, way) {
				all.Go(func() { t.Run(way, func(t *testing.T) { s.same(t, g, l, protocol, way) }) })
			}
		}
	}
}

func (s *server) same(t *testing.T, g *posterntest.Proxy, l line, protocol, way string) {
	login := loginsOf[protocol][way]
	speak := map[string]func(*dialogue, *testing.T, func(*testing.T, *dialogue)){
		"imap": (*dialogue).speakIMAP, "pop3": (*dialogue).speakPOP3,
	}[protocol]
	itself := &dialogue{Client: s.direct(t, l, protocol), s: s, user: s.user(t), way: way}
	greeting := itself.Greeting
	speak(itself, t, login)
	if !strings.Contains(strings.Join(itself.said, "\n"), "Message-ID: <4@example.net>") {
		t.Fatalf("no fourth message in\n%s", strings.Join(itself.said, "\n"))
	}
	want := settled(filtered(itself.said))
	for _, listener := range []string{protocol + "s", protocol} {
		d := &dialogue{Client: through(t, g, listener), s: s, user: s.user(t), way: way}
		if d.Greeting != "" && l.scheme != "+starttls" {
			got, want := settled([]string{d.Greeting}), settled(filtered([]string{greeting}))
			if got != want {
				t.Errorf("%s: greeted with %q, want %q", listener, got, want)
			}
		}
		speak(d, t, login)
		if got := settled(d.said); got != want {
			t.Errorf("%s: %s", listener, firstDifference(got, want))
		}
	}
}
