package reload

import (
	"fmt"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"postern/internal/posterntest"
)

const (
	idleSessions = 2000
	loginStreams = 4
	atOnce       = 16
)

// loginErr is login for goroutines of their own.
func (w *world) loginErr(i int) (*posterntest.Client, error) {
	return w.caller(fmt.Sprintf("127.0.1.%d", 1+i%200)).Login(w.Proxy, "imaps", "anna", "secret")
}

// No session is lost and no login fails while certificates are renewed, broken
// and mended under them.
func TestRenewalUnderACrowd(t *testing.T) {
	dir := t.TempDir()
	cert, key := dir+"/c.pem", dir+"/k.pem"
	w := start(t, cert, key, nil)
	sessions := make([]*posterntest.Client, idleSessions)
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
					s.Close()
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
	for end := time.Now().Add(time.Minute); logins.Load() < 50; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("only %d logins", logins.Load())
		}
	}
	close(stop)
	wg.Wait()
	for i, s := range sessions {
		if err := s.Do("NOOP"); err != nil {
			t.Fatalf("session %d: %v", i, err)
		}
	}
	if open := w.Metrics(t).Count("postern_connections_open"); open < idleSessions {
		t.Errorf("%v connections open, want %d", open, idleSessions)
	}
	for _, s := range sessions {
		s.Close()
	}
}
