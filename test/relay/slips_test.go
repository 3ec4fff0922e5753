package relay

import (
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"postern/internal/posterntest"
)

// A small slip before login is answered, and the session goes on.
func TestASlipBeforeLoginIsAnswered(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	slips := map[string]map[string]string{
		"imap": {
			"a ID\r\n": "a BAD ", "a ID (\"name\")\r\n": "a BAD ", "a ID \"NIL\"\r\n": "a BAD ", "a ID (\"name\" \"x\") y\r\n": "a BAD ",
			"a FOO(\r\n": "a BAD ", "a  NOOP\r\n": "a BAD ", "a \r\n": "a BAD ", "a LOGIN\"x\" y\r\n": "a BAD ",
			"a\r\n": "* BAD ", " NOOP\r\n": "* BAD ", "+a NOOP\r\n": "* BAD ", "(a NOOP\r\n": "* BAD ",
		},
		"pop3": {"FOO(\r\n": "-ERR ", " USER anna\r\n": "-ERR ", "\r\n": "-ERR ", "N\tOOP\r\n": "-ERR "},
	}
	for _, listener := range posterntest.Listeners {
		d := r.open(t, listener)
		for slip, answer := range slips[strings.TrimSuffix(listener, "s")] {
			d.client.Send(t, slip)
			d.client.ExpectLine(t, answer)
			d.goesOn(t, listener)
		}
		d.login(t, listener)
		d.client.Close()
	}
	// Before TLS too, where the tag can be echoed.
	c := r.plain(t, "imap")
	for slip, answer := range map[string]string{
		"a FOO(\r\n": "a BAD ", "a  NOOP\r\n": "a BAD ", "a {5}\r\n": "a BAD ", "a FOO( {9+}\r\nb NOOP\r\nz\r\n": "a BAD ", "(a NOOP\r\n": "* BAD ",
	} {
		c.Send(t, slip+"c NOOP\r\n")
		c.ExpectLine(t, answer)
		c.ExpectLine(t, "c OK ")
	}
	// Not for ever, and not where a literal may follow.
	for _, offence := range []string{strings.Repeat("a FOO(\r\n", 30), "a ID x {3}\r\n", "a FOO( {3}\r\n", "a FOO( {3+}\r\nabc\r\n"} {
		d := r.open(t, "imaps")
		d.client.Send(t, offence)
		if text := d.client.ExpectEnd(t); !strings.Contains(text, "* BYE ") {
			t.Errorf("%.20q: %q", offence, text)
		}
		mayHaveSeen(t, d.upstream, "")
	}
	if n := r.Metrics(t).Value("postern_upstream_failures_total"); n != 0 {
		t.Errorf("%v failures of upstreams counted", n)
	}
}

// Line ends in a literal that was not asked for need an upstream that knows those; NUL
// is in none, and no line is one that Postern would not pass on.
func TestLineEndsInALiteralWithoutSynchronization(t *testing.T) {
	t.Parallel()
	for announced, greeting := range map[string]string{
		"LITERAL+": imapGreeting, "LITERAL-": "* OK [CAPABILITY IMAP4rev1 LITERAL-] hi\r\n",
		"IMAP4rev2": "* OK [CAPABILITY IMAP4rev2] hi\r\n", "": "* OK [CAPABILITY IMAP4rev1] hi\r\n",
	} {
		r := newRigGreeting(t, nil, greeting, pop3Greeting)
		for literal, passes := range map[string]bool{
			"an\r\nna": true, "an\nna": true, "\r": true, "b NOOP\r\nc NOOP\r\n": true, "x y": true, "x LOGIN y": false, "an\x00na": false,
			"x\r\nb XCLIENT ADDR=1.2.3.4 ": false, "x\rb ID (\"x-session-id\" \"y\")\r": false, "\nb STARTTLS\r\n": false, "b LOGIN x y\r\n": false,
		} {
			conn := r.secure(t, "imaps", r.DialForTLS(t, "imaps"))
			d := &dialogue{newEnd("client", conn), r.taken(t, "imaps")}
			d.client.Expect(t, greeting)
			command := "a LOGIN anna {" + strconv.Itoa(len(literal)) + "+}\r\n" + literal + "\r\n"
			if passes && (announced != "" || !strings.ContainsAny(literal, "\r\n")) {
				d.pass(t, command)
				d.back(t, "a NO no\r\n")
				d.goesOn(t, "imaps")
			} else {
				d.client.Send(t, command)
				d.client.ExpectLastLine(t, "* BYE ")
				mayHaveSeen(t, d.upstream, "a LOGIN anna {"+strconv.Itoa(len(literal))+"+}\r\n")
			}
			d.client.Close()
			d.upstream.Close()
		}
	}
}

// An upstream that complains without a tag, and says nothing more, holds up nobody, and
// what it says later means what it says.
func TestAComplaintWithoutATagIsAnAnswer(t *testing.T) {
	t.Parallel()
	const limit = 5 * time.Second
	r := newRig(t, map[string]string{"UPSTREAM_TIMEOUT": limit.String()})
	var all sync.WaitGroup
	for _, complaint := range []string{"* BAD what\r\n", "* NO never\r\n", "BAD what\r\n", "BAD\r\n", "NO no\r\n"} {
		d := r.open(t, "imaps")
		all.Go(func() { complains(t, d, complaint, limit) })
	}
	all.Wait()
	// Under a tag that was used before it would not be known which it is.
	r = newRig(t, map[string]string{"UPSTREAM_TIMEOUT": "2s"})
	d := r.open(t, "imaps")
	d.pass(t, "a NOOP\r\n")
	d.back(t, "* BAD what\r\n")
	d.client.Send(t, "a LOGIN anna s3cr3t-word\r\n")
	d.client.ExpectLastLine(t, "* BYE ")
	if n := r.Metrics(t).Value("postern_upstream_failures_total"); n != 0 {
		t.Errorf("%v failures of upstreams counted", n)
	}
}

func complains(t *testing.T, d *dialogue, complaint string, limit time.Duration) {
	d.back(t, complaint) // unasked
	tags := 0
	for command, most := range map[string]time.Duration{
		"CAPABILITY\r\n": 2500 * time.Millisecond, "LOGIN anna s3cr3t-word\r\n": limit + time.Second,
		"AUTHENTICATE PLAIN\r\n": limit + time.Second, "ID NIL\r\n": 2500 * time.Millisecond,
	} {
		posterntest.Within(t, fmt.Sprintf("the command after %q to %q", complaint, command), most, func() time.Duration {
			tags++
			d.pass(t, fmt.Sprintf("a%d %s", tags, command))
			d.back(t, complaint)
			began := time.Now()
			d.goesOn(t, "imaps")
			return time.Since(began)
		})
	}
	// An answer that comes all the same.
	d.pass(t, "e NOOP\r\n")
	d.back(t, complaint)
	d.back(t, "e OK at once\r\n")
	d.pass(t, "f NOOP\r\n")
	d.back(t, complaint)
	time.Sleep(1200 * time.Millisecond)
	d.back(t, "f OK late\r\n")
	d.goesOn(t, "imaps")
	// One to a login would have come sooner.
	d.pass(t, "g LOGIN anna s3cr3t-word\r\n")
	d.back(t, complaint)
	d.goesOn(t, "imaps")
	d.upstream.Send(t, "g OK in\r\n")
	d.client.ExpectLastLine(t, "* BYE ")
	d.client.Close()
}

// +OK before the client has said anything asks for it, and is no login.
func TestABareOKToAUTHIsARequestForMore(t *testing.T) {
	t.Parallel()
	r, hasty := newRig(t, nil), newRig(t, map[string]string{"TIMEOUT_LOGIN": "6s"})
	for _, listener := range []string{"pop3s", "pop3"} {
		d := r.open(t, listener)
		d.pass(t, "AUTH NTLM\r\n")
		d.back(t, "+OK\r\n")
		for _, command := range []string{"STLS\r\n", "XCLIENT ADDR=192.0.2.1\r\n"} {
			d.client.Send(t, command)
			d.client.ExpectLine(t, "-ERR ")
		}
		d.pass(t, "TlRMTVNTUAABAAAA\r\n")
		d.back(t, "+ TlRMTVNTUAACAAAA\r\n")
		d.pass(t, "TlRMTVNTUAADAAAA\r\n")
		d.back(t, "-ERR no\r\n")
		d.goesOn(t, listener)
		d.pass(t, "AUTH NTLM\r\n")
		d.back(t, "+OK\r\n")
		d.pass(t, "TlRMTVNTUAABAAAA\r\n")
		d.back(t, "+OK in\r\n")
		d.pass(t, "STLS\r\n")
		d.back(t, "-ERR no\r\n")
		d.client.Close()
		d = hasty.open(t, listener)
		d.pass(t, "AUTH NTLM\r\n")
		d.back(t, "+OK\r\n")
		d.client.ExpectLastLine(t, "-ERR [SYS/TEMP] Too slow to log in.")
	}
}

// A list that is not there is not waited for, and one that nobody has described arrives.
func TestPOP3RepliesWithAndWithoutLines(t *testing.T) {
	t.Parallel()
	r := newRig(t, map[string]string{"UPSTREAM_TIMEOUT": "20s"})
	for _, listener := range []string{"pop3s", "pop3"} {
		d := r.open(t, listener)
		for _, command := range []string{"CAPA\r\n", "AUTH\r\n", "LANG\r\n", "HELP\r\n", "XTND\r\n"} {
			posterntest.Within(t, fmt.Sprintf("the command after %q", command), 1800*time.Millisecond, func() time.Duration {
				began := time.Now()
				d.pass(t, command)
				d.back(t, "+OK\r\n")
				d.goesOn(t, listener)
				return time.Since(began)
			})
			d.pass(t, command)
			d.back(t, "+OK some help\r\n +OK is what I say\r\n-ERR is another\r\n..\r\n+OK\r\n.\r\n")
			d.pass(t, command)
			d.upstream.Send(t, "+OK in pieces\r\n")
			time.Sleep(100 * time.Millisecond)
			d.upstream.Send(t, "a li")
			time.Sleep(1500 * time.Millisecond)
			d.upstream.Send(t, "ne\r\n.\r\n")
			d.client.Expect(t, "+OK in pieces\r\na line\r\n.\r\n")
			d.pass(t, command)
			d.back(t, "-ERR none\r\n")
		}
		d.login(t, listener)
		d.client.Close()
	}
	if n := r.Metrics(t).Value("postern_upstream_failures_total"); n != 0 {
		t.Errorf("%v failures of upstreams counted", n)
	}
}

func TestWhatIsForProxiesIsNotShown(t *testing.T) {
	t.Parallel()
	r := newRigGreeting(t, nil, "* OK [CAPABILITY IMAP4rev1 XCLIENT ID] hi\r\n", "+OK [XCLIENT] Dovecot ready.\r\n")
	newEnd("client", r.secure(t, "imaps", r.DialForTLS(t, "imaps"))).Expect(t, "* OK [CAPABILITY IMAP4rev1 ID] hi\r\n")
	conn := r.secure(t, "pop3s", r.DialForTLS(t, "pop3s"))
	d := &dialogue{newEnd("client", conn), r.taken(t, "pop3s")}
	d.client.Expect(t, "+OK Dovecot ready.\r\n")
	d.pass(t, "CAPA\r\n")
	d.upstream.Send(t, "+OK\r\nUSER\r\nXCLIENT\r\n.\r\n")
	d.client.Expect(t, "+OK\r\nUSER\r\n.\r\n")
}

// A goodbye before anything was answered is the upstream's fault: it may have read a
// PROXY header as commands.
func TestAnUnaskedGoodbyeIsAFailureOfTheUpstream(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	failures := 0
	for listener, bye := range map[string]string{"imaps": "* BYE Too many invalid commands.\r\n", "pop3": "-ERR Unknown command.\r\n"} {
		for _, first := range []string{"", "a NOOP\r\n"} {
			d := r.open(t, listener)
			if isIMAP(listener) && first != "" {
				d.pass(t, first)
				d.back(t, "* BAD what\r\n")
			}
			d.back(t, bye)
			d.upstream.Close()
			if text := d.client.ExpectEnd(t); text != "" {
				t.Errorf("%s: %q after the upstream's own goodbye", listener, text)
			}
			failures++
			r.becomes(t, float64(failures), "postern_upstream_failures_total", "reason=closed")
		}
	}
	r.WaitLog(t, "upstream failed before login", failures)
}

// Whatever a client says, or does not say, makes no upstream count as failed.
func TestNoClientMakesAnUpstreamFail(t *testing.T) {
	t.Parallel()
	hangup := func(greeting string) *posterntest.Upstream {
		return posterntest.StartRawUpstream(t, func(c net.Conn) {
			defer c.Close()
			end := newEnd("upstream", c)
			end.Send(t, greeting)
			for { // until there is something else than the proxy's own question
				switch line, _ := end.Line(); line {
				case "postern CAPABILITY":
					end.Send(t, "* CAPABILITY IMAP4rev1\r\npostern OK done\r\n")
				case "CAPA":
					end.Send(t, "+OK\r\n.\r\n")
				default:
					return
				}
			}
		})
	}
	imap, pop3 := hangup(imapGreeting), hangup(pop3Greeting)
	g := posterntest.Start(t, map[string]string{"UPSTREAM_IMAP": imap.URL("imap"), "UPSTREAM_POP3": pop3.URL("pop3"), "UPSTREAM_TIMEOUT": "10s"})
	r := &rig{Proxy: g}
	for listener, all := range map[string][]string{
		"imaps": {"a CRASH\r\n", "\r\n", "a NOOP " + strings.Repeat("x", 600) + "\r\n", "a LOGIN {3}\r\n", "a LOGIN a\x80b c\r\n", "a XYZZY {3\r\n", "a LOGOUT\r\n"},
		"pop3s": {"CRASH\r\n", "USER " + strings.Repeat("x", 600) + "\r\n", "PASS \x80\r\n", "QUIT\r\n"},
	} {
		for _, says := range all {
			c := newEnd("client", r.secure(t, listener, r.DialForTLS(t, listener)))
			c.ExpectLine(t, "")
			c.Send(t, says)
			c.ExpectEnd(t)
			c.Close()
		}
	}
	if n := g.Metrics(t).Value("postern_upstream_failures_total"); n != 0 {
		t.Errorf("%v failures of upstreams counted", n)
	}
}
