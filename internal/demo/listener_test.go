package demo

import (
	"context"
	"testing"
	"time"
)

func TestCloseWaitsForThoseWhoServe(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	s := &MailServer{cancel: cancel}
	l, err := listen(ctx, &s.serving)
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
