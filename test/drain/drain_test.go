// Package drain tests, through the built binary, what a client notices when
// the proxy or a mail server goes away, and when others attack.
package drain

import (
	"bufio"
	"bytes"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"postern/internal/dovecot"
	"postern/internal/posterntest"
)

func TestMain(m *testing.M) { posterntest.Main(m) }

// start runs a proxy in front of small servers of both protocols.
func start(t *testing.T, p posterntest.Process, env map[string]string) *posterntest.Proxy {
	t.Helper()
	all := map[string]string{
		"UPSTREAM_IMAP": posterntest.StartUpstream(t, posterntest.IMAPGreeting, posterntest.IMAPReply).URL("imap"),
		"UPSTREAM_POP3": posterntest.StartUpstream(t, posterntest.POP3Greeting, posterntest.POP3Reply).URL("pop3"),
	}
	maps.Copy(all, env)
	return p.Start(t, all)
}

func login(t *testing.T, g *posterntest.Proxy, listener, user, password string) *posterntest.Client {
	t.Helper()
	c, err := posterntest.Caller{}.Login(g, listener, user, password)
	if err != nil {
		t.Fatalf("%s: %v", listener, err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// gone waits for the end of the process, and returns how long that took.
func gone(t *testing.T, g *posterntest.Proxy, begun time.Time, least time.Duration) time.Duration {
	t.Helper()
	select {
	case <-g.Exited():
	case <-time.After(time.Minute):
		t.Errorf("the process is still there after %v", time.Since(begun))
	}
	took := time.Since(begun)
	if took < least {
		t.Errorf("the process was gone after %v, want %v at least", took, least)
	}
	return took
}

// body is some size of lines that no one could take for a protocol.
func body(size int) []byte {
	rng := rand.New(rand.NewPCG(3, 30))
	var b bytes.Buffer
	for b.Len() < size {
		line := make([]byte, 76)
		for i := range line {
			line[i] = byte(0x40 + rng.IntN(0x3f))
		}
		b.Write(line)
		b.WriteString("\r\n")
	}
	return b.Bytes()
}

func TestADownloadInFlightArrivesWhole(t *testing.T) {
	t.Parallel()
	const size, drain = 30 << 20, 16 * time.Second
	d := dovecot.Start(t, dovecot.Options{})
	message := dovecot.Message(1, body(size))
	d.Deliver(t, dovecot.Anna.Name, message)
	posterntest.Within(t, "the end of the process", drain+1500*time.Millisecond, func() time.Duration {
		return drainOfDownloads(t, d, message, drain)
	})
}

// drainOfDownloads returns how long the process was there after SIGTERM.
func drainOfDownloads(t *testing.T, d *dovecot.Server, message []byte, drain time.Duration) time.Duration {
	t.Helper()
	g := posterntest.Process{Measured: true}.Start(t, map[string]string{
		"UPSTREAM_IMAP": "imap://" + d.IMAP, "UPSTREAM_POP3": "pop3://" + d.POP3, "TIMEOUT_DRAIN": drain.String(),
	})
	// They are under way at SIGTERM, and still so in the second half: four read
	// slowly, the last one has put its laptop down for a moment.
	const takes = 9 * time.Second
	var readers sync.WaitGroup
	for i, listener := range append(slices.Clone(posterntest.Listeners), "imaps") {
		c := login(t, g, listener, dovecot.Anna.Name, dovecot.Anna.Password)
		if i < len(posterntest.Listeners) {
			c.SlowDown(len(message) / int(takes.Seconds()))
		} else {
			c.Stall(64<<10, takes+time.Second)
		}
		readers.Go(func() {
			got, err := c.Fetch(1)
			if err != nil || !bytes.Equal(got, message) {
				t.Errorf("%s: %d of %d bytes have arrived, or others: %v", listener, len(got), len(message), err)
			}
		})
	}
	g.Wait(t, func(s posterntest.Samples) bool {
		return s.Count("postern_relayed_bytes_total", "direction=to_client") > 4<<20
	})
	begun := time.Now()
	g.Signal(t, syscall.SIGTERM)
	readers.Wait()
	if took := time.Since(begun); took < drain/2 {
		t.Errorf("the downloads took %v only after SIGTERM", took)
	}
	return gone(t, g, begun, drain/2)
}

func TestIdleSessionsGoEvenlyInTheSecondHalf(t *testing.T) {
	t.Parallel()
	// So long that a machine which stands still for a second moves but two of them.
	const drain = 40 * time.Second
	posterntest.Within(t, "the end of the process", drain+1500*time.Millisecond, func() time.Duration { return drainOfIdle(t, drain) })
}

// drainOfIdle returns how long the process was there after SIGTERM.
func drainOfIdle(t *testing.T, drain time.Duration) time.Duration {
	t.Helper()
	const sessions = 40
	g := start(t, posterntest.Process{}, map[string]string{"TIMEOUT_DRAIN": drain.String()})
	var clients []*posterntest.Client
	for i := range sessions {
		c := login(t, g, posterntest.Listeners[i%4], "anna", "password")
		c.Timeout = 2 * drain
		clients = append(clients, c)
	}
	time.Sleep(1100 * time.Millisecond) // so that the last one is idle, too
	begun := time.Now()
	g.Signal(t, syscall.SIGTERM)
	ended := make([]time.Duration, sessions)
	var waiting sync.WaitGroup
	for i, c := range clients {
		waiting.Go(func() {
			if rest, err := io.ReadAll(c); err != nil || len(rest) > 0 {
				t.Errorf("session %d ended with %q, %v", i, rest, err)
			}
			ended[i] = time.Since(begun)
		})
	}
	waiting.Wait()
	took := gone(t, g, begun, drain/2)
	slices.Sort(ended)
	t.Logf("the first went after %v, the last after %v", ended[0], ended[sessions-1])
	if ended[0] < drain/2-50*time.Millisecond {
		t.Errorf("the first went after %v, in the first half of %v", ended[0], drain)
	}
	// Of forty, eight belong into each fifth. A quarter of a second at the end
	// is for cutting what is left.
	var fifths [5]int
	for _, at := range ended {
		i := int((at - drain/2) * 5 / (drain/2 - 250*time.Millisecond))
		fifths[min(max(i, 0), 4)]++
	}
	for _, n := range fifths {
		if n < 5 || n > 11 {
			t.Errorf("not evenly: %v went in the fifths of the second half", fifths)
			break
		}
	}
	return took
}

func TestClientsBeforeLoginAreNotifiedAtOnce(t *testing.T) {
	t.Parallel()
	posterntest.Within(t, "telling all, or the end after the last session", 2*time.Second, func() time.Duration { return notified(t) })
}

// notified returns how long it takes until all are told, or how long the process is there
// after its last session: whichever is longer.
func notified(t *testing.T) time.Duration {
	t.Helper()
	g := start(t, posterntest.Process{}, map[string]string{"TIMEOUT_DRAIN": "1m"})
	words := map[string]string{"imap": "* BYE ", "pop3": "-ERR [SYS/TEMP] "}
	type waiting struct {
		what, want string
		conn       io.Reader
	}
	var all []waiting
	for _, listener := range posterntest.Listeners {
		c, err := posterntest.Caller{}.Open(g, listener)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		want := words[strings.TrimSuffix(listener, "s")]
		all = append(all, waiting{listener + " inside TLS", want, c})
		if want, ok := words[listener]; ok {
			conn := g.Dial(t, listener)
			in := bufio.NewReader(conn)
			if _, err := in.ReadString('\n'); err != nil {
				t.Fatal(err)
			}
			all = append(all, waiting{listener + " before TLS", want, in})
		}
		conn := g.DialForTLS(t, listener)
		conn.Write([]byte{22, 3, 1}) // the beginning of a hello
		all = append(all, waiting{listener + " amid the handshake", "", conn})
	}
	stays := login(t, g, "imaps", "anna", "password")
	begun := time.Now()
	g.Signal(t, syscall.SIGTERM)
	for _, w := range all {
		got, err := io.ReadAll(w.conn)
		if err != nil || !strings.HasPrefix(string(got), w.want) || w.want == "" && len(got) > 0 {
			t.Errorf("%s: told %q, %v, want %s", w.what, got, err, w.want)
		}
	}
	took := time.Since(begun)
	if took > 20*time.Second {
		t.Errorf("it took %v until all were told", took)
	}
	if status, _, err := g.Get("/readyz"); err == nil && status != http.StatusServiceUnavailable {
		t.Errorf("readyz says %d", status)
	}
	if c, err := net.Dial("tcp", g.Addr("imaps")); err == nil {
		c.Close()
		t.Error("the listener is still open")
	}
	if err := stays.Do("NOOP"); err != nil {
		t.Errorf("a session was not left to run on: %v", err)
	}
	left := time.Now()
	stays.Close()
	return max(took, gone(t, g, left, 0))
}

// chatter keeps a session busy until it ends.
func chatter(c *posterntest.Client) {
	for c.Do("NOOP") == nil {
		time.Sleep(20 * time.Millisecond)
	}
}

func TestTheProcessIsGoneByTheEndOfTheDrain(t *testing.T) {
	t.Parallel()
	const drain = 3 * time.Second
	posterntest.Within(t, "the end of the process", drain+200*time.Millisecond, func() time.Duration {
		g := start(t, posterntest.Process{}, map[string]string{"TIMEOUT_DRAIN": drain.String()})
		var busy sync.WaitGroup
		defer busy.Wait()
		for _, listener := range posterntest.Listeners {
			c := login(t, g, listener, "anna", "password")
			busy.Go(func() { chatter(c) })
		}
		begun := time.Now()
		g.Signal(t, syscall.SIGTERM)
		return gone(t, g, begun, drain-400*time.Millisecond)
	})
}

func TestASecondSIGTERMEndsItAtOnce(t *testing.T) {
	t.Parallel()
	posterntest.Within(t, "the end after the second SIGTERM", 2*time.Second, func() time.Duration {
		g := start(t, posterntest.Process{}, map[string]string{"TIMEOUT_DRAIN": "1m"})
		login(t, g, "imaps", "anna", "password")
		g.Signal(t, syscall.SIGTERM)
		g.WaitLog(t, "stopping", 1)
		select {
		case <-g.Exited():
			t.Fatal("the first SIGTERM did not wait for the session")
		case <-time.After(time.Second):
		}
		begun := time.Now()
		g.Signal(t, syscall.SIGTERM)
		return gone(t, g, begun, 0)
	})
}
