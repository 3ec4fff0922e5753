// Package load shows, through the built binary, that a crowd at the door does
// not keep good clients out, and that nothing is left of those who went.
package load

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"postern/internal/posterntest"
)

// descriptors are needed by each of the two processes: this one has both ends
// of the upstream's connections, too.
const descriptors = 6000

func TestMain(m *testing.M) {
	var limit syscall.Rlimit
	err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit)
	if err == nil && limit.Cur < limit.Max {
		limit.Cur = limit.Max
		err = syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit)
	}
	if err != nil || limit.Cur < descriptors {
		fmt.Fprintf(os.Stderr, "these tests need %d file descriptors, and the hard limit is %d (%v): raise it with ulimit -Hn\n",
			descriptors, limit.Max, err)
		os.Exit(1)
	}
	posterntest.Main(m)
}

func start(t *testing.T, env map[string]string) *posterntest.Proxy {
	t.Helper()
	imap := posterntest.StartUpstream(t, posterntest.IMAPGreeting, posterntest.IMAPReply)
	pop3 := posterntest.StartUpstream(t, posterntest.POP3Greeting, posterntest.POP3Reply)
	all := map[string]string{"UPSTREAM_IMAP": imap.URL("imap"), "UPSTREAM_POP3": pop3.URL("pop3")}
	for k, v := range env {
		all[k] = v
	}
	return posterntest.Start(t, all)
}

// client connects from any address of 127.1.0.0/16, chosen by number.
func client(g *posterntest.Proxy, listener string, number int) (*net.TCPConn, error) {
	from := net.IPv4(127, 1, byte(number/250%250), byte(1+number%250))
	d := net.Dialer{Timeout: patience, LocalAddr: &net.TCPAddr{IP: from}}
	c, err := d.Dial("tcp", g.Addr(listener))
	if err != nil {
		return nil, err
	}
	c.SetDeadline(time.Now().Add(patience))
	return c.(*net.TCPConn), nil
}

// patience is for what is not measured.
const patience = 30 * time.Second

// line reads one line byte by byte, so that nothing behind it is taken.
func line(c net.Conn) (string, error) {
	var text []byte
	for b := make([]byte, 1); ; {
		if _, err := c.Read(b); err != nil {
			return string(text), fmt.Errorf("reading a line after %q: %w", text, err)
		}
		if text = append(text, b[0]); b[0] == '\n' {
			return string(text), nil
		}
	}
}

// exchange sends and wants an answer that begins in this way.
func exchange(c net.Conn, send, want string) error {
	if _, err := io.WriteString(c, send); err != nil {
		return err
	}
	text, err := line(c)
	if err == nil && !strings.HasPrefix(text, want) {
		err = fmt.Errorf("%q answered %q, want %q", send, text, want)
	}
	return err
}

// toTLS goes as far as the hello.
func toTLS(c net.Conn, listener string) error {
	switch listener {
	case "imap":
		if err := exchange(c, "", "* OK"); err != nil {
			return err
		}
		return exchange(c, "s STARTTLS\r\n", "s OK")
	case "pop3":
		if err := exchange(c, "", "+OK"); err != nil {
			return err
		}
		return exchange(c, "STLS\r\n", "+OK")
	}
	return nil
}

// secure completes the handshake, too.
func secure(g *posterntest.Proxy, c net.Conn, listener string) (*tls.Conn, error) {
	if err := toTLS(c, listener); err != nil {
		return nil, err
	}
	s := tls.Client(c, &tls.Config{RootCAs: g.CA.Pool, ServerName: "mail.example.org"})
	return s, s.Handshake()
}

// login is a whole visit of a good client.
func login(g *posterntest.Proxy, listener string, number int) error {
	raw, err := client(g, listener, number)
	if err != nil {
		return err
	}
	defer raw.Close()
	c, err := secure(g, raw, listener)
	if err != nil {
		return err
	}
	steps := [][2]string{{"a LOGIN anna secret\r\n", "a OK"}, {"b NOOP\r\n", "b OK"}, {"c LOGOUT\r\n", "* BYE"}}
	greeting := "* OK"
	if strings.HasPrefix(listener, "pop3") {
		steps = [][2]string{{"USER anna\r\n", "+OK"}, {"PASS secret\r\n", "+OK"}, {"QUIT\r\n", "+OK"}}
		greeting = "+OK"
	}
	if strings.HasSuffix(listener, "s") {
		if err := exchange(c, "", greeting); err != nil {
			return err
		}
	}
	for _, s := range steps {
		if err := exchange(c, s[0], s[1]); err != nil {
			return err
		}
	}
	return c.Close()
}

// crowd runs f for every number below n, on so many goroutines.
func crowd(t *testing.T, n, workers int, f func(number int) error) {
	t.Helper()
	numbers := make(chan int)
	var all sync.WaitGroup
	for range workers {
		all.Go(func() {
			for number := range numbers {
				if err := f(number); err != nil {
					t.Errorf("client %d: %v", number, err)
				}
			}
		})
	}
	for number := range n {
		numbers <- number
	}
	close(numbers)
	all.Wait()
}
