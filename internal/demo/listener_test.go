package demo

import (
	"context"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2/imapserver/imapmemserver"
)

func TestCloseWaitsForThoseWhoServe(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	s := &MailServer{cancel: cancel}
	l, err := listen(ctx, &s.serving, 1, "")
	if err != nil {
		t.Fatal(err)
	}
	dial(t, l.Addr().String())
	served, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		s.Close()
	}()
	if _, err := served.Read(make([]byte, 1)); err == nil {
		t.Error("read from a connection that was cut")
	}
	select {
	case <-closed:
		t.Error("Close returned while the connection was still served")
	case <-time.After(50 * time.Millisecond):
	}
	served.Close()
	served.Close()
	<-closed
}

func TestAConnectionOverTheLimitIsToldSo(t *testing.T) {
	for name, tt := range map[string]struct {
		busy, greeting, quit string
		serve                func(net.Listener)
	}{
		"imap": {imapBusy, "* OK", "a LOGOUT\r\n", func(l net.Listener) { newIMAP(imapmemserver.New()).Serve(l) }},
		"pop3": {pop3Busy, "+OK", "QUIT\r\n", func(l net.Listener) { servePOP3(l, nil) }},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(context.Background())
			var serving sync.WaitGroup
			defer serving.Wait()
			defer cancel()
			l, err := listen(ctx, &serving, 2, tt.busy)
			if err != nil {
				t.Fatal(err)
			}
			serving.Go(func() { tt.serve(l) })
			first, second := dial(t, l.Addr().String()), dial(t, l.Addr().String())
			for _, conn := range []net.Conn{first, second} {
				if got := readSome(t, conn); !strings.HasPrefix(got, tt.greeting) {
					t.Errorf("within the bound: %q", got)
				}
			}
			third := dial(t, l.Addr().String())
			if got := readSome(t, third); got != tt.busy {
				t.Errorf("over the bound: %q", got)
			}
			if _, err := third.Read(make([]byte, 1)); err != io.EOF {
				t.Errorf("over the bound, then: %v, want EOF", err)
			}
			io.WriteString(first, tt.quit)
			io.Copy(io.Discard, first)
			// The client may see the end just before the slot is free.
			got := await(func() string {
				conn := dial(t, l.Addr().String())
				if said := readSome(t, conn); said != tt.busy {
					return said
				}
				return ""
			})
			if !strings.HasPrefix(got, tt.greeting) {
				t.Errorf("after one left: %q", got)
			}
		})
	}
}

func readSome(t *testing.T, conn net.Conn) string {
	t.Helper()
	buf := make([]byte, 200)
	n, err := conn.Read(buf)
	if err != nil {
		t.Fatal(err)
	}
	return string(buf[:n])
}
