package check

import (
	"bufio"
	"bytes"
	"cmp"
	"io"
	"net"
	"testing"

	"github.com/pires/go-proxyproto"

	"postern/internal/posterntest"
)

func TestWhatAnOldServerAnswers(t *testing.T) {
	imap := posterntest.StartUpstream(t, posterntest.IMAPGreeting, posterntest.IMAPReply)
	for name, test := range map[string]struct {
		serve   func(net.Conn)
		failure string
		timeout string // of the upstream; by default 10s
		off     bool
	}{
		"alert":    {serve: says("\x15\x03\x01\x00\x02\x02\x46")},
		"silent":   {serve: says(""), failure: "no answer in 2s", timeout: "2s"},
		"text":     {serve: says(posterntest.IMAPGreeting), failure: `not a port for TLS: name that port: it says "* OK [CAPABILITY`},
		"hangs up": {serve: func(c net.Conn) { c.Read(make([]byte, 4096)) }, failure: "it hangs up on a hello"},
		"down":     {failure: "dialing: dial tcp"},
		"not used": {off: true},
	} {
		t.Run(name, func(t *testing.T) {
			old := posterntest.StartRawUpstream(t, test.serve)
			if test.serve == nil {
				old.Close()
			}
			set := []string{"UPSTREAM_IMAP=" + imap.URL("imap"), "UPSTREAM_PASSTHROUGH_IMAPS=" + old.Addr(),
				"UPSTREAM_TIMEOUT=" + cmp.Or(test.timeout, "10s")}
			if test.off {
				set = append(set, "LISTEN_IMAPS=off")
			}
			r := Run(t.Context(), environ(t, set...), false, nobody)
			line := "POSTERN_UPSTREAM_PASSTHROUGH_IMAPS: " + old.Addr() + ": "
			switch {
			case test.failure != "":
				expectLine(t, "failure", r.Unanswered, line+test.failure)
			case test.off:
				expectLine(t, "warning", r.Warnings, "POSTERN_UPSTREAM_PASSTHROUGH_IMAPS: not used, since POSTERN_LISTEN_IMAPS is off: take it away")
			default:
				expectLine(t, "line", r.Fine, line+"answers in TLS")
			}
			if test.failure == "" && len(r.Unanswered) > 0 || len(r.Errors) > 0 {
				t.Errorf("%+v", r)
			}
			before := old.Connections()
			if r := Run(t.Context(), environ(t, set...), true, nobody); len(r.Unanswered) > 0 || old.Connections() != before || test.off && before > 0 {
				t.Errorf("offline: %+v, or dialled", r)
			}
		})
	}
}

// says says what it has to say to a hello, and waits.
func says(answer string) func(net.Conn) {
	return func(c net.Conn) {
		c.Read(make([]byte, 4096))
		io.WriteString(c, answer)
		io.Copy(io.Discard, c)
	}
}

func TestAnOldServerBehindAPROXYHeaderIsAskedWithOne(t *testing.T) {
	old := posterntest.StartRawUpstream(t, says("\x15\x03\x01\x00\x02\x02\x46"))
	Run(t.Context(), environ(t, "UPSTREAM_PASSTHROUGH_IMAPS="+old.Addr(), "UPSTREAM_PROXY_PROTOCOL=v2", "UPSTREAM_TIMEOUT=10s"), false, nobody)
	old.Close()
	in := bufio.NewReader(bytes.NewReader(old.Received(0)))
	h, err := proxyproto.Read(in)
	if err != nil || h.DestinationAddr.String() != old.Addr() {
		t.Errorf("header %+v, %v", h, err)
	}
	if hello, _ := in.Peek(2); string(hello) != "\x16\x03" {
		t.Errorf("behind it comes %q", hello)
	}
}
