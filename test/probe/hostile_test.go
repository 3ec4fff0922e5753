// Package probe runs postern probe, the real binary, against servers that mean harm.
package probe

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"postern/internal/posterntest"
)

func TestMain(m *testing.M) { posterntest.Main(m) }

const (
	timeout = 4 * time.Second
	// mostMemory is what the probe may take, in KB.
	mostMemory = 20 << 10
)

// A run is what came of a command.
type run struct {
	out    string
	code   int
	memory int // the most that it took, in KB
	took   time.Duration
}

// measure runs the program that users have. It is begun by a small process: what a child
// has at most counts from its fork on, with all that its parent has.
func measure(t *testing.T, args ...string) run {
	t.Helper()
	const script = `import os, sys, time
begun = time.monotonic()
_, status, usage = os.wait4(os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ), 0)
print(os.waitstatus_to_exitcode(status), usage.ru_maxrss, int(1e9 * (time.monotonic() - begun)))`
	cmd := exec.Command("python3", append([]string{"-Sc", script, posterntest.Shipped(t)}, args...)...)
	cmd.Env = append(os.Environ(), "COLUMNS=200")
	out, err := cmd.CombinedOutput()
	at := bytes.LastIndexByte(bytes.TrimSpace(out), '\n') + 1
	r := run{out: string(out[:at])}
	if _, scanErr := fmt.Sscan(string(out[at:]), &r.code, &r.memory, &r.took); err != nil || scanErr != nil {
		t.Fatalf("%v, %v:\n%s", err, scanErr, out)
	}
	return r
}

// says writes a text, then waits for the client to leave.
func says(text string) func(net.Conn) {
	return func(c net.Conn) {
		io.WriteString(c, text)
		io.Copy(io.Discard, c)
	}
}

// floods writes the same again and again.
func floods(first string, again []byte) func(net.Conn) {
	return func(c net.Conn) {
		io.WriteString(c, first)
		go io.Copy(io.Discard, c)
		for {
			if _, err := c.Write(again); err != nil {
				return
			}
		}
	}
}

// drips writes a byte each tick.
func drips(text string) func(net.Conn) {
	return func(c net.Conn) {
		go io.Copy(io.Discard, c)
		for _, b := range []byte(text) {
			if _, err := c.Write([]byte{b}); err != nil {
				return
			}
			time.Sleep(100 * time.Millisecond)
		}
	}
}

// resets closes with bytes of the client unread.
func resets(c net.Conn) { io.ReadFull(c, make([]byte, 1)) }

// listen serves each connection until the test ends.
func listen(t *testing.T, serve func(net.Conn)) (addr string) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				serve(c)
			}()
		}
	}()
	return l.Addr().String()
}

// wantsHeader answers nobody who does not begin with a PROXY header.
func wantsHeader(answer string) func(net.Conn) {
	return func(c net.Conn) {
		begin := make([]byte, 5)
		if io.ReadFull(c, begin); string(begin) == "PROXY" {
			io.WriteString(c, answer)
			io.Copy(io.Discard, c)
		}
	}
}

var noise = func() []byte { b := make([]byte, 4096); rand.Read(b); return append([]byte{0xff}, b...) }()

const (
	alert     = "\x15\x03\x01\x00\x02\x02\x28"
	handshake = "\x16\x03\x03\x40\x00"
)

// serverHello begins an answer in TLS 1.2.
var serverHello = "\x16\x03\x03\x00\x2a\x02\x00\x00\x26\x03\x03" + strings.Repeat("r", 32) + "\x00\xc0\x2f\x00"

func TestEveryAnswerOfAHostileServerEndsInWords(t *testing.T) {
	for name, c := range map[string]struct {
		startTLS string
		serve    func(net.Conn)
		words    string
	}{
		"hangs":                         {"", says(""), "no answer in 1s"},
		"hangs up":                      {"", func(c net.Conn) { c.Read(make([]byte, 4096)) }, "closes the connection"},
		"resets":                        {"", resets, "resets the connection"},
		"plaintext":                     {"", says("* OK ready\r\n"), `answers in plaintext (try -starttls imap): "* OK ready"`},
		"plaintext of another protocol": {"", says("220 smtp\r\n"), `answers in plaintext: "220 smtp"`},
		"the other protocol":            {"imap", says("+OK ready\r\n"), `greets with "+OK ready" (try -starttls pop3)`},
		"escapes":                       {"", says("* OK \x1b[31mred\r\n"), "the answer is malformed"},
		"noise":                         {"", floods("", noise), "the answer is malformed"},
		"100 MB in one line":            {"", floods("", bytes.Repeat([]byte("x"), 1<<20)), "answers in plaintext"},
		"endless records":               {"", floods("", append([]byte(handshake), make([]byte, 1<<14)...)), "the answer is malformed"},
		"endless certificates":          {"", floods(serverHello+handshake+"\x0b\xff\xff\xff"+strings.Repeat("c", 0x4000-4), append([]byte(handshake), make([]byte, 1<<14)...)), "the answer is malformed"},
		"endless small records":         {"", floods("", bytes.Repeat([]byte("\x16\x03\x03\x00\x01\x02"), 1<<12)), "the answer is malformed"},
		"a byte at a time":              {"", drips(handshake + strings.Repeat("\x02", 100)), "no answer in 1s"},
		"wants a PROXY header":          {"", wantsHeader(alert), "the connection, but answers behind a PROXY header"},
		"BYE":                           {"imap", says("* BYE go away\r\n"), `greets with "* BYE go away"`},
		"an error":                      {"pop3", says("-ERR go away\r\n"), `greets with "-ERR go away"`},
		"PREAUTH":                       {"imap", says("* PREAUTH in\r\n"), `greets with "* PREAUTH in"`},
		"another protocol":              {"imap", says("220 smtp\r\n"), `greets with "220 smtp"`},
		"100 MB greeting":               {"imap", floods("* OK ", bytes.Repeat([]byte("x"), 1<<20)), "line too long"},
		"a greeting a byte at a time":   {"imap", drips("* OK " + strings.Repeat("x", 100)), "no answer in 1s"},
		"endless responses":             {"imap", floods("* OK ready\r\n", bytes.Repeat([]byte("* 1 EXISTS\r\n"), 1<<12)), "answers what was not asked"},
		"endless literals":              {"imap", floods("* OK ready\r\n", append([]byte("* LIST {200000}\r\n"), make([]byte, 200000)...)), "literals too long"},
		"an endless list":               {"pop3", floods("+OK ready\r\n+OK\r\n", bytes.Repeat([]byte("TOP\r\n"), 1<<12)), "answers what was not asked"},
		"no STARTTLS":                   {"imap", says("* OK ready\r\n* CAPABILITY IMAP4rev1\r\npostern OK done\r\n"), "offers no STARTTLS"},
		"greets behind a PROXY header":  {"imap", wantsHeader("* OK ready\r\n"), "no answer in 1s"},
		"TLS at once":                   {"imap", func(c net.Conn) { io.ReadFull(c, make([]byte, 1)); io.WriteString(c, alert) }, "no answer in 1s"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			addr := listen(t, c.serve)
			posterntest.Within(t, "the probe", timeout+time.Second, func() time.Duration {
				r := measure(t, "probe", "-timeout", timeout.String(), "-starttls", c.startTLS, addr)
				if r.code != 3 || !strings.Contains(r.out, c.words) {
					t.Errorf("exit code %d, want 3 and %q:\n%s", r.code, c.words, r.out)
				}
				if r.memory > mostMemory {
					t.Errorf("it took %d KB", r.memory)
				}
				t.Logf("%+v", r)
				return r.took
			})
		})
	}
}
