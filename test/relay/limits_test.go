package relay

import (
	"bytes"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"postern/internal/posterntest"
)

// offences are inputs before login that end the session: what the client says
// after complete commands, and what of it the upstream may see. SASL starts in
// a dialogue, so that the offence is a line of that.
type offence struct{ name, sasl, says, upstream string }

var imapOffences = []offence{
	{"a line over 64 KB", "", "a LOGIN anna " + strings.Repeat("x", 70000) + "\r\n", ""},
	{"a line that does not end", "", strings.Repeat("x", 70000), ""},
	{"an unknown command over 64 KB", "", "a " + strings.Repeat("X", 70000) + "\r\n", ""},
	{"an ID over 64 KB", "", "a ID (\"name\" \"" + strings.Repeat("x", 70000) + "\")\r\n", ""},
	{"a SASL line over 64 KB", "a AUTHENTICATE PLAIN\r\n", strings.Repeat("x", 70000) + "\r\n", ""},
	{"a {n+} over 256 KB", "", "a LOGIN {262145+}\r\nxyz", "a LOGIN {262145+}\r\n"},
	{"a {n+} of absurd size", "", "a LOGIN {99999999999999999999999+}\r\nxyz", "a LOGIN {99999999999999999999999+}\r\n"},
	{"an ID's {n+} over 256 KB", "", "a ID (\"name\" {262145+}\r\nxyz", ""},
	{"literals that sum up to more", "", "a LOGIN {200000+}\r\n" + strings.Repeat("x", 200000) + " {70000+}\r\nxyz",
		"a LOGIN {200000+}\r\n" + strings.Repeat("x", 200000) + " {70000+}\r\n"},
	{"a bare LF", "", "a NOOP\nb NOOP\r\n", ""},
	{"a bare LF amid a command", "", "a LOGIN anna\n s3cr3t-word\r\n", ""},
	{"a bare LF in quotes", "", "a LOGIN \"an\nna\" x\r\n", ""},
	{"a bare CR", "", "a NOOP\rb NOOP\r\n", ""},
	{"a bare CR in quotes", "", "a LOGIN \"an\rna\" x\r\n", ""},
	{"CR CR LF", "", "a NOOP\r\r\n", ""},
	{"LF CR", "", "a NOOP\n\rb NOOP\r\n", ""},
	{"a NUL", "", "a LOGIN anna\x00 s3cr3t-word\r\n", ""},
	{"a NUL at the end", "", "a NOOP\x00\r\n", ""},
	{"a bare LF behind a literal", "", "a LOGIN {4+}\r\nanna s3cr3t-word\n", "a LOGIN {4+}\r\nanna"},
	{"a literal's header before a bare LF", "", "a LOGIN {4+}\nanna s3cr3t-word\r\n", ""},
	{"a bare LF in a SASL line", "a AUTHENTICATE PLAIN\r\n", "eHl6\nb NOOP\r\n", ""},
	{"a bare CR in a SASL line", "a AUTHENTICATE PLAIN\r\n", "eHl6\rb NOOP\r\n", ""},
	{"a NUL in a SASL line", "a AUTHENTICATE PLAIN\r\n", "eHl6\x00\r\n", ""},
	{"a bare LF in an ID", "", "a ID (\"name\" \"x\ny\")\r\n", ""},
}

var pop3Offences = []offence{
	{"a line over 64 KB", "", "USER " + strings.Repeat("x", 70000) + "\r\n", ""},
	{"a line that does not end", "", strings.Repeat("x", 70000), ""},
	{"a SASL line over 64 KB", "AUTH PLAIN\r\n", strings.Repeat("x", 70000) + "\r\n", ""},
	{"a bare LF", "", "USER anna\nPASS s3cr3t-word\r\n", ""},
	{"a bare CR", "", "USER anna\rPASS s3cr3t-word\r\n", ""},
	{"CR CR LF", "", "NOOP\r\r\n", ""},
	{"a NUL", "", "USER an\x00na\r\n", ""},
	{"a bare LF in a SASL line", "AUTH PLAIN\r\n", "eHl6\nSTAT\r\n", ""},
	{"a bare CR in a SASL line", "AUTH PLAIN\r\n", "eHl6\rSTAT\r\n", ""},
	{"a NUL in a SASL line", "AUTH PLAIN\r\n", "eHl6\x00\r\n", ""},
}

func TestInputThatCannotBeRelayedEndsTheSessionInWords(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	for _, listener := range []string{"imaps", "imap", "pop3s", "pop3"} {
		offences, words := pop3Offences, "-ERR "
		if isIMAP(listener) {
			offences, words = imapOffences, "* BYE "
		}
		for _, o := range offences {
			t.Run(listener+" "+o.name, func(t *testing.T) {
				d := r.open(t, listener)
				d.goesOn(t, listener)
				if o.sasl != "" {
					d.pass(t, o.sasl)
					d.back(t, "+ \r\n")
				}
				d.client.Send(t, o.says)
				d.client.ExpectLastLine(t, words)
				d.client.Close()
				mayHaveSeen(t, d.upstream, o.upstream)
			})
		}
	}
	noSecret(t, r)
}

// TestALiteralOver256KBIsNotTaken leaves it open whether the proxy asks the
// upstream at all, which may refuse it and be heard, also a moment after the proxy's goodbye.
func TestALiteralOver256KBIsNotTaken(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	for _, line := range []string{"a LOGIN {262145}\r\n", "a LOGIN {9999999999}\r\n", "a ID (\"name\" {262145}\r\n"} {
		d := r.open(t, "imaps")
		d.client.Send(t, line)
		time.Sleep(quietTime)
		io.WriteString(d.upstream, "+ go on\r\n")
		text := strings.Replace(d.client.ExpectEnd(t), "+ go on\r\n", "", 1)
		if !strings.HasPrefix(text, "* BYE ") || strings.Count(text, "\r\n") != 1 {
			t.Errorf("%.20q: the client gets %q", line, text)
		}
		d.client.Close()
		mayHaveSeen(t, d.upstream, line)
	}
}

// mayHaveSeen reads what an upstream still gets: some of what is allowed, and
// nothing of a line that it could take for another.
func mayHaveSeen(t *testing.T, e *posterntest.Client, allowed string) {
	t.Helper()
	rest := e.ExpectEnd(t)
	for _, goodbye := range []string{"postern LOGOUT\r\n", "QUIT\r\n"} {
		rest = strings.TrimSuffix(rest, goodbye)
	}
	if !strings.HasPrefix(allowed, rest) {
		t.Errorf("the upstream gets %.200q, want no more than %.200q", rest, allowed)
	}
}

func TestTheLongestThatIsAllowedPasses(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	for _, listener := range []string{"imaps", "pop3s"} {
		d := r.open(t, listener)
		head, refusal := "a LOGIN anna ", "a NO no\r\n"
		if !isIMAP(listener) {
			head, refusal = "AUTH XOAUTH2 ", "-ERR no\r\n"
		}
		line := head + strings.Repeat("x", 64<<10-len(head)-len("\r\n")) + "\r\n"
		d.pass(t, line)
		d.back(t, refusal)
		d.goesOn(t, listener)
	}
	d := r.open(t, "imaps")
	for _, pieces := range [][]string{
		{"a LOGIN {4}\r\n", "anna {262140}\r\n", strings.Repeat("x", 262140) + "\r\n"},
		{"a LOGIN {4+}\r\nanna {262140+}\r\n" + strings.Repeat("x", 262140) + "\r\n"},
	} {
		if got := d.speak(t, pieces...); got != strings.Join(pieces, "") {
			t.Error("256 KB of literals did not arrive as they were sent")
		}
		d.back(t, "a NO no\r\n")
	}
	d.goesOn(t, "imaps")
}

// memoryGrowth is what fifty clients with a megabyte each may take for a while:
// less than they sent, though the race detector makes every byte dear.
const memoryGrowth = 40 << 20

func TestMemoryStaysBoundedUnderLongLines(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	megabyte := bytes.Repeat([]byte("x"), 1<<20)
	warm := r.open(t, "imaps")
	warm.goesOn(t, "imaps")
	memory := func() float64 { return r.Metrics(t).Value("process_resident_memory_bytes") }
	before := memory()
	var clients sync.WaitGroup
	for i := range 50 {
		listener := []string{"imaps", "pop3s"}[i%2]
		d := r.open(t, listener)
		clients.Go(func() {
			if i%4 == 0 {
				io.WriteString(d.client, "a LOGIN {262144+}\r\n")
			}
			d.client.Write(megabyte) // the proxy closes on it
			io.Copy(io.Discard, d.client)
		})
	}
	done := make(chan struct{})
	go func() { clients.Wait(); close(done) }()
	most := before
	for over := false; !over; {
		select {
		case <-done:
			over = true
		case <-time.After(50 * time.Millisecond):
		}
		most = max(most, memory())
	}
	t.Logf("memory was %.1f MB, and %.1f MB at most", before/(1<<20), most/(1<<20))
	if most-before > memoryGrowth {
		t.Errorf("memory grew from %.0f to %.0f bytes", before, most)
	}
	warm.goesOn(t, "imaps")
}
