package limits

import (
	"bufio"
	"crypto/sha256"
	"io"
	"math/rand/v2"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"postern/internal/posterntest"
)

// download is what the upstream sends after "+OK" to a login, without end or
// hurry.
const download = 100 << 20

func TestASlowReaderCostsABoundedBuffer(t *testing.T) {
	t.Parallel()
	var sent atomic.Int64
	chunk := make([]byte, 64<<10)
	random := rand.NewChaCha8([32]byte{1})
	random.Read(chunk)
	u := posterntest.StartRawUpstream(t, func(c net.Conn) {
		io.WriteString(c, posterntest.POP3Greeting)
		in := bufio.NewReader(c)
		for range 2 { // USER, PASS
			if _, err := in.ReadString('\n'); err != nil {
				return
			}
			io.WriteString(c, "+OK\r\n")
		}
		for sent.Load() < download {
			n, err := c.Write(chunk)
			if sent.Add(int64(n)); err != nil {
				return
			}
		}
	})
	g := posterntest.Process{Measured: true}.Start(t, map[string]string{"UPSTREAM_POP3": u.URL("pop3")})
	warm := holds(t, g, posterntest.Caller{}, "pop3s")
	warm.Close()
	open(t, g, 0)
	sent.Store(0)
	before := g.RSS(t)
	c := holds(t, g, posterntest.Caller{}, "pop3s")

	// The kernel's buffers fill up, and then nothing moves.
	last := int64(-1)
	for still := 0; still < 5; {
		time.Sleep(200 * time.Millisecond)
		if now := sent.Load(); now > 0 && now == last {
			still++
		} else {
			last, still = now, 0
		}
	}
	if last >= download/2 {
		t.Errorf("the upstream could send %d MB to a client that reads nothing", last>>20)
	}
	const most = 4 << 20
	if grown := settled(t, g, before+most) - before; grown > most {
		t.Errorf("memory has grown by %d KB for one slow reader", grown>>10)
	}
	want, got := sha256.New(), sha256.New()
	for range download / len(chunk) {
		want.Write(chunk)
	}
	if n, err := io.Copy(got, c); n != download || err != nil || string(want.Sum(nil)) != string(got.Sum(nil)) {
		t.Errorf("%d bytes arrived, or others than were sent: %v", n, err)
	}
	if grown := settled(t, g, before+most) - before; grown > most {
		t.Errorf("memory has grown by %d KB after 100 MB", grown>>10)
	}
}

// settled is the memory of the process, once it is no more than most, or does not come
// down to it: garbage is collected, and handed back, some time later.
func settled(t *testing.T, g *posterntest.Proxy, most int) int {
	t.Helper()
	now := g.RSS(t)
	for end := time.Now().Add(30 * time.Second); now > most && time.Now().Before(end); now = g.RSS(t) {
		time.Sleep(100 * time.Millisecond)
	}
	return now
}
