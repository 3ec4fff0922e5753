package proxy

import (
	"crypto/tls"
	"io"
	"net"
	"postern/internal/posterntest"
	"postern/policy"
	"testing"
	"time"
)

// A client that goes away while the upstream thinks about its login is not
// the upstream's failure.
func TestClientThatResetsIsNotTheUpstreamsFault(t *testing.T) {
	reset := make(chan struct{})
	up := posterntest.StartRawUpstream(t, func(c net.Conn) {
		io.WriteString(c, posterntest.IMAPGreeting)
		buf := make([]byte, 512)
		if n, err := c.Read(buf); err != nil || n == 0 {
			return
		}
		<-reset
		for range 20 {
			io.WriteString(c, "* OK still thinking\r\n")
			time.Sleep(5 * time.Millisecond)
		}
		io.Copy(io.Discard, c)
	})
	g := StartProxy(t, policy.Enforce, up.Addr(), "", nil)
	raw := g.Dial(t, IMAPS)
	c := tls.Client(raw, g.ClientConfig())
	io.WriteString(c, "a LOGIN u p\r\n")
	io.ReadFull(c, make([]byte, len(posterntest.IMAPGreeting)))
	time.Sleep(50 * time.Millisecond)
	raw.SetLinger(0)
	raw.Close()
	close(reset)
	if end := g.WaitClosed(t, 1); end.Reason != ReasonClient || g.failures[UpstreamClosed] != 0 {
		t.Errorf("ended for %q, upstream failures %v", end.Reason, g.failures)
	}
}
