package drain

import (
	"crypto/tls"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"postern/internal/hello"
	"postern/internal/posterntest"
)

func TestGoodLoginsDoNotSufferFromHalfOpenOnes(t *testing.T) {
	g := start(t, posterntest.Process{Measured: true}, map[string]string{"TIMEOUT_HANDSHAKE": "10m", "TIMEOUT_LOGIN": "10m"})
	const halfOpen, logins = 2000, 22
	begins := hello.ClientHello(hello.Typical(tls.VersionTLS13))
	stop := make(chan struct{})
	var attackers sync.WaitGroup
	for i := range halfOpen {
		// A third each: says nothing, asks for TLS, begins with it.
		dial := posterntest.Caller{}.Dial
		if i%3 > 0 {
			dial = posterntest.Caller{}.DialForTLS
		}
		conn, err := dial(g, "imap")
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		conn.SetDeadline(time.Time{})
		if i%3 > 1 {
			attackers.Go(func() { drip(conn, begins, 100*time.Millisecond, stop) })
		}
	}
	g.Wait(t, func(s posterntest.Samples) bool {
		return s.Count("postern_connections_open", "listener=imap") == halfOpen
	})
	posterntest.Within(t, "a good login", 2*time.Second, func() (slowest time.Duration) {
		for range logins {
			begun := time.Now()
			c, err := posterntest.Caller{From: "127.0.0.9"}.Login(g, "imap", "anna", "password")
			if err != nil {
				t.Fatalf("a good login failed: %v", err)
			}
			slowest = max(slowest, time.Since(begun))
			c.Close()
		}
		t.Logf("%d logins beside %d half-open connections: %v at most", logins, halfOpen, slowest)
		return slowest
	})
	close(stop)
	attackers.Wait()
}

// drip sends a hello slowly, but for its last byte.
func drip(conn net.Conn, hello []byte, every time.Duration, stop <-chan struct{}) {
	for _, b := range hello[:len(hello)-1] {
		if _, err := conn.Write([]byte{b}); err != nil {
			return
		}
		select {
		case <-stop:
			return
		case <-time.After(every):
		}
	}
}

func TestAHandshakeThatDripsEndsInTime(t *testing.T) {
	t.Parallel()
	const limit = 3 * time.Second
	g := start(t, posterntest.Process{}, map[string]string{"TIMEOUT_HANDSHAKE": limit.String()})
	begins := hello.ClientHello(hello.Typical(tls.VersionTLS13))
	for _, listener := range posterntest.Listeners {
		t.Run(listener, func(t *testing.T) {
			t.Parallel()
			came := 0.0
			posterntest.Within(t, "a handshake", limit+1500*time.Millisecond, func() time.Duration {
				begun := time.Now()
				conn := g.DialForTLS(t, listener)
				stop := make(chan struct{})
				defer close(stop)
				go drip(conn, begins, time.Second, stop)
				io.Copy(io.Discard, conn)
				took := time.Since(begun)
				if took < limit {
					t.Errorf("it took %v, with TIMEOUT_HANDSHAKE=%v", took, limit)
				}
				came++
				return took
			})
			g.Wait(t, func(s posterntest.Samples) bool {
				return s.Count("postern_handshake_failures_total", "listener="+listener, "reason=timeout") == came
			})
		})
	}
}

// mutate changes a hello in one of many ways.
func mutate(rng *rand.Rand, b []byte) []byte {
	b = slices.Clone(b)
	switch rng.IntN(6) {
	case 0:
		return b[:rng.IntN(len(b))]
	case 1:
		at := rng.IntN(len(b))
		return slices.Insert(b, at, make([]byte, rng.IntN(300))...)
	case 2:
		at := rng.IntN(len(b))
		return slices.Delete(b, at, at+rng.IntN(len(b)-at))
	case 3:
		return append(b, b...)
	}
	for range 1 + rng.IntN(8) {
		b[rng.IntN(len(b))] = byte(rng.Uint32())
	}
	return b
}

func TestMutatedHellosCostLittle(t *testing.T) {
	g := start(t, posterntest.Process{Measured: true}, map[string]string{"POLICY_MODE": "explain", "ADMIN_PPROF": "on"})
	const hellos, workers = 20_000, 16
	var seeds [][]byte
	for _, v := range []uint16{hello.VersionSSL30, tls.VersionTLS10, tls.VersionTLS11, tls.VersionTLS12, tls.VersionTLS13} {
		seeds = append(seeds, hello.ClientHello(hello.Typical(v)))
	}
	seeds = append(seeds, hello.SSLv2(), posterntest.SSLv2Offering(tls.VersionTLS10))
	begun := g.CPUTime(t)
	var all sync.WaitGroup
	for w := range workers {
		all.Go(func() {
			rng := rand.New(rand.NewPCG(20_000, uint64(w)))
			for i := range hellos / workers {
				listener := []string{"imaps", "pop3s"}[i%2]
				from := fmt.Sprintf("127.3.%d.%d", w, 1+i%200)
				if err := fire(g.Addr(listener), from, mutate(rng, seeds[rng.IntN(len(seeds))])); err != nil {
					t.Errorf("hello %d of worker %d: %v", i, w, err)
					return
				}
			}
		})
	}
	all.Wait()
	took := g.CPUTime(t) - begun
	g.Wait(t, func(s posterntest.Samples) bool {
		return s.Count("postern_connections_open") == 0 && s.Value("postern_ledger_pending") == 0
	})
	live := liveHeap(t, g)
	t.Logf("%d mutated hellos: %v of CPU time, %d KB are left of them", hellos, took, live>>10)
	if took > 30*time.Second {
		t.Errorf("%d mutated hellos took %v of CPU time", hellos, took)
	}
	if live > 12<<20 { // 9 MB, of which the ledger of them takes most
		t.Errorf("mutated hellos cost %d KB", live>>10)
	}
	for _, listener := range posterntest.Listeners {
		login(t, g, listener, "anna", "password")
	}
	g.CheckIdentities(t, hellos+len(posterntest.Listeners))
}

// liveHeap is what is left after two collections: the first leaves pools. What the process takes from the system
// depends on when the ledger writes, and so on how busy the machine is.
func liveHeap(t *testing.T, g *posterntest.Proxy) int {
	t.Helper()
	for range 2 {
		if status, _, err := g.Get("/debug/pprof/heap?gc=1"); err != nil || status != http.StatusOK {
			t.Fatalf("status %d, %v", status, err)
		}
	}
	return int(g.Metrics(t).Value("go_memstats_heap_alloc_bytes"))
}

// fire sends bytes, says that no more come, and waits for the end.
func fire(addr, from string, b []byte) error {
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}, Timeout: time.Minute}
	c, err := d.Dial("tcp", addr)
	if err != nil {
		return err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(time.Minute))
	// Either may meet a connection that was closed already.
	c.Write(b)
	c.(*net.TCPConn).CloseWrite()
	_, err = io.Copy(io.Discard, c)
	if timeout, ok := err.(net.Error); ok && timeout.Timeout() {
		return err
	}
	return nil
}
