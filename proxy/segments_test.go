//go:build linux

package proxy

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"io"
	"net"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"postern/internal/posterntest"
	"postern/policy"
)

// segments is how many segments with data have come over a connection, those that the
// kernel has sent twice included: it does where an ACK is late.
func segments(t *testing.T, c *net.TCPConn) uint32 {
	t.Helper()
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var info *unix.TCPInfo
	raw.Control(func(fd uintptr) { info, err = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO) })
	if err != nil {
		t.Fatal(err)
	}
	return info.Data_segs_in
}

// In TLS 1.0 with a CBC suite crypto/tls makes two records of each line. They come in one
// segment: the greeting, what is relayed before login and after it, of one byte and of many.
func TestTwoRecordsOfOneWriteLeaveTogether(t *testing.T) {
	up := posterntest.StartRawUpstream(t, func(c net.Conn) {
		io.WriteString(c, posterntest.IMAPGreeting)
		for in := bufio.NewScanner(c); in.Scan(); {
			switch line := in.Text(); {
			case strings.HasPrefix(line, "a LOGIN"):
				io.WriteString(c, "a OK in\r\n")
			case strings.HasPrefix(line, "one"):
				io.WriteString(c, "x")
			case strings.HasPrefix(line, "many"):
				c.Write(bytes.Repeat([]byte("m"), 20000))
			default:
				io.WriteString(c, "b OK done\r\n")
			}
		}
	})
	steps := []struct {
		say, want string
		segments  uint32
	}{
		{"", posterntest.IMAPGreeting, 1},
		{"b NOOP\r\n", "b OK done\r\n", 1},
		{"a LOGIN u p\r\n", "a OK in\r\n", 1},
		{"b IDLE\r\n", "b OK done\r\n", 1},
		{"one\r\n", "x", 1},
		{"many\r\n", strings.Repeat("m", 20000), 4},
	}
	for _, suite := range []uint16{tls.TLS_RSA_WITH_AES_128_CBC_SHA, tls.TLS_RSA_WITH_3DES_EDE_CBC_SHA, tls.TLS_RSA_WITH_RC4_128_SHA} {
		g := StartProxy(t, policy.Observe, up.Addr(), "", nil)
		config := g.oldClient()
		config.CipherSuites = []uint16{suite}
		fewest := make([]uint32, len(steps))
		for attempt := range 5 {
			nc := g.Dial(t, IMAPS)
			c := tls.Client(nc, config)
			if err := c.Handshake(); err != nil {
				t.Fatal(err)
			}
			for i, step := range steps {
				before := segments(t, nc)
				io.WriteString(c, step.say)
				got := make([]byte, len(step.want))
				if _, err := io.ReadFull(c, got); err != nil || string(got) != step.want {
					t.Fatalf("%04x: %.80q: answered %.80q, %v", suite, step.say, got, err)
				}
				if n := segments(t, nc) - before; attempt == 0 || n < fewest[i] {
					fewest[i] = n
				}
			}
			c.Close()
		}
		for i, step := range steps {
			if n := fewest[i]; n > step.segments {
				t.Errorf("%04x: %.80q is answered in %d segments, want %d", suite, step.say, n, step.segments)
			}
		}
	}
}
