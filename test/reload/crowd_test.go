package reload

import (
	"bufio"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

const (
	idleSessions = 2000
	loginStreams = 4
	atOnce       = 16
)

// loginErr is login for goroutines of their own.
func (w *world) loginErr(i int) (*session, error) {
	from := net.IPv4(127, 0, 1, byte(1+i%200))
	dialer := tls.Dialer{
		NetDialer: &net.Dialer{LocalAddr: &net.TCPAddr{IP: from}},
		Config:    &tls.Config{RootCAs: w.ca.Pool, ServerName: "127.0.0.1"},
	}
	c, err := dialer.Dial("tcp", w.Addr("imaps"))
	if err != nil {
		return nil, err
	}
	c.SetDeadline(time.Now().Add(2 * time.Minute))
	s := &session{c.(*tls.Conn), bufio.NewReader(c)}
	if _, err := fmt.Fprint(c, "a LOGIN anna secret\r\n"); err != nil {
		return s, err
	}
	return s, errors.Join(s.expectErr("* OK"), s.expectErr("a OK"))
}

func (s *session) expectErr(want string) error {
	line, err := s.r.ReadString('\n')
	if err == nil && !strings.HasPrefix(line, want) {
		err = fmt.Errorf("%q, want %s", line, want)
	}
	return err
}

// No session is lost and no login fails while certificates are renewed, broken
// and mended under them.
func TestRenewalUnderACrowd(t *testing.T) {
	dir := t.TempDir()
	cert, key := dir+"/c.pem", dir+"/k.pem"
	w := start(t, cert, key, nil)
	sessions := make([]*session, idleSessions)
	var wg sync.WaitGroup
	slots := make(chan struct{}, atOnce)
	for i := range sessions {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			s, err := w.loginErr(i)
			if err != nil {
				t.Errorf("session %d: %v", i, err)
			}
			sessions[i] = s
		})
	}
	wg.Wait()
	if t.Failed() {
		return
	}
	stop := make(chan struct{})
	var logins atomic.Int64
	for i := range loginStreams {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				case <-time.After(10 * time.Millisecond):
				}
				s, err := w.loginErr(i)
				if err != nil {
					t.Errorf("login %d: %v", logins.Load(), err)
				}
				if s != nil {
					s.c.Close()
				}
				logins.Add(1)
			}
		})
	}
	for _, name := range []string{"second.example.org", "third.example.org"} {
		pair := w.issue(t, name)
		must(t, syscall.Truncate(cert, 100))
		w.Signal(t, syscall.SIGHUP)
		time.Sleep(100 * time.Millisecond)
		replace(t, pair.KeyFile, key)
		replace(t, pair.CertFile, cert)
		w.waitShown(t, name)
	}
	close(stop)
	wg.Wait()
	if n := logins.Load(); n < 50 {
		t.Errorf("only %d logins meanwhile", n)
	}
	for i, s := range sessions {
		if _, err := fmt.Fprint(s.c, "b NOOP\r\n"); err != nil {
			t.Fatalf("session %d: %v", i, err)
		}
		if err := s.expectErr("b OK"); err != nil {
			t.Fatalf("session %d: %v", i, err)
		}
	}
	if open := w.Metrics(t).Count("postern_connections_open"); open < idleSessions {
		t.Errorf("%v connections open, want %d", open, idleSessions)
	}
	for _, s := range sessions {
		s.c.Close()
	}
}
