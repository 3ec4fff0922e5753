package relay

import (
	"strings"
	"testing"
	"time"

	"postern/internal/posterntest"
)

// longAfter is longer than any last word may take to be written: a deadline that
// was set for an answer, and not taken back, has passed by then.
const longAfter = 1300 * time.Millisecond

// A command that Postern itself refuses changes nothing (RFC 9051, Section 6.2.1;
// RFC 2595, Section 4): the session goes on, however long the client thinks.
func TestASessionGoesOnLongAfterARefusedCommand(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	for _, c := range []struct{ listener, command, reply string }{
		{"imaps", "a STARTTLS\r\n", "a BAD STARTTLS is not available here.\r\n"},
		{"imaps", "a XCLIENT ADDR=192.0.2.1\r\n", "a BAD XCLIENT is not available here.\r\n"},
		{"imap", "a COMPRESS DEFLATE\r\n", "a BAD COMPRESS is not available here.\r\n"},
		{"pop3s", "STLS\r\n", "-ERR STLS is not available here.\r\n"},
		{"pop3", "XCLIENT ADDR=192.0.2.1\r\n", "-ERR XCLIENT is not available here.\r\n"},
	} {
		t.Run(c.listener+" "+strings.TrimSpace(c.command), func(t *testing.T) {
			t.Parallel()
			d := r.open(t, c.listener)
			d.client.Send(t, c.command)
			d.client.Expect(t, c.reply)
			time.Sleep(longAfter)
			d.goesOn(t, c.listener)
			d.login(t, c.listener)
		})
	}
}

// The same before TLS, where a login is refused.
func TestTheSTARTTLSStageGoesOnLongAfterARefusedLogin(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	for listener, c := range map[string]struct{ login, refusal, next, reply string }{
		"imap": {"a LOGIN anna secret\r\n", "a NO [PRIVACYREQUIRED] ", "b NOOP\r\n", "b OK "},
		"pop3": {"USER anna\r\n", "-ERR [AUTH] ", "NOOP\r\n", "+OK"},
	} {
		t.Run(listener, func(t *testing.T) {
			t.Parallel()
			e := r.plain(t, listener)
			for _, step := range [][2]string{{c.login, c.refusal}, {c.next, c.reply}} {
				e.Send(t, step[0])
				e.ExpectLine(t, step[1])
				time.Sleep(longAfter)
			}
		})
	}
}

// APOP's digest is of the greeting of an upstream that is gone.
func TestASessionGoesOnLongAfterARefusedAPOP(t *testing.T) {
	t.Parallel()
	first, second := newStage(t, pop3Greeting), newStage(t, pop3Greeting)
	r := &rig{pop3: first, Proxy: posterntest.Start(t, map[string]string{
		"UPSTREAM_POP3": first.URL("pop3") + "," + second.URL("pop3"),
	})}
	for _, s := range []*stage{first, second} {
		r.becomes(t, 1, "postern_upstream_up", "upstream="+s.URL("pop3"))
		s.forgetProbes()
	}
	d := r.open(t, "pop3s") // least connections: the first of two that have none
	d.upstream.Close()
	r.pop3 = second
	d.upstream = r.taken(t, "pop3s")
	d.client.Send(t, "APOP anna 00000000000000000000000000000000\r\n")
	d.client.Expect(t, "-ERR [SYS/TEMP] Please connect again.\r\n")
	time.Sleep(longAfter)
	d.goesOn(t, "pop3s")
}
