package load

import (
	"crypto/tls"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"postern/internal/hello"
	"postern/internal/posterntest"
)

const (
	halfOpen = 2000
	silent   = 500
	good     = 20
	// within is what a good client may have to wait, for all of its visit.
	within = 2 * time.Second
)

func TestManySilentClientsDoNotKeepOthersOut(t *testing.T) {
	for _, listener := range []string{"imaps", "imap"} {
		t.Run(listener, func(t *testing.T) {
			g := start(t, map[string]string{"TIMEOUT_HANDSHAKE": "10m", "TIMEOUT_LOGIN": "10m"})
			var mu sync.Mutex
			var held []net.Conn
			hold := func(c net.Conn) {
				mu.Lock()
				defer mu.Unlock()
				held = append(held, c)
			}
			t.Cleanup(func() {
				for _, c := range held {
					c.Close()
				}
			})
			flight := hello.ClientHello(hello.Typical(tls.VersionTLS13))
			crowd(t, halfOpen, 8, func(number int) error {
				c, err := caller(number).DialForTLS(g, listener)
				if err != nil {
					return err
				}
				hold(c)
				// Nothing, half a hello, or a hello and no more.
				_, err = c.Write(flight[:[]int{0, len(flight) / 2, len(flight)}[number%3]])
				return err
			})
			crowd(t, silent, 8, func(number int) error {
				c, err := caller(number).Open(g, listener)
				if err == nil {
					hold(c)
				}
				return err
			})
			g.Wait(t, func(s posterntest.Samples) bool {
				return s.Value("postern_connections_open", "listener="+listener) == halfOpen+silent
			})
			posterntest.Within(t, "a good client", within, func() time.Duration {
				took := make([]time.Duration, good)
				crowd(t, good, good, func(number int) error { // all at once
					began := time.Now()
					err := login(g, listener, number)
					took[number] = time.Since(began)
					return err
				})
				t.Logf("%d good clients took %v to %v", good, slices.Min(took), slices.Max(took))
				return slices.Max(took)
			})
			g.Wait(t, func(s posterntest.Samples) bool {
				return s.Value("postern_connections_open", "listener="+listener) == halfOpen+silent
			})
		})
	}
}
