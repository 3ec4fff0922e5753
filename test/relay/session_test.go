package relay

import (
	"crypto/tls"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"testing"
	"time"

	"postern/internal/hello"
	"postern/internal/posterntest"
)

func noise(n int) string {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{7}).Read(b)
	return string(b)
}

// halfClose ends the client's side, by close_notify or by a FIN alone.
func halfClose(t *testing.T, c *tls.Conn, notify bool) {
	t.Helper()
	var err error
	if notify {
		err = c.CloseWrite()
	}
	if err == nil {
		err = c.NetConn().(*net.TCPConn).CloseWrite()
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestAClientThatClosesItsSideStillReads(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	for _, listener := range []string{"imaps", "imap", "pop3s", "pop3"} {
		for _, notify := range []bool{true, false} {
			d := r.enter(t, listener)
			d.pass(t, "the last command\r\n")
			halfClose(t, d.client.Conn.(*tls.Conn), notify)
			if rest := d.upstream.ExpectEnd(t); rest != "" {
				t.Errorf("upstream gets %q", rest)
			}
			last := noise(1 << 20)
			for range 3 {
				d.back(t, last)
				time.Sleep(10 * time.Millisecond)
			}
			d.upstream.Close()
			if rest := d.client.ExpectEnd(t); rest != "" {
				t.Errorf("client gets %q", rest)
			}
		}
	}
}

func TestAClientThatClosesItsSideBeforeLoginIsAnswered(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	for listener, lines := range map[string][2]string{
		"imaps": {"a LOGOUT\r\n", "* BYE bye\r\na OK done\r\n"}, "pop3s": {"QUIT\r\n", "+OK bye\r\n"},
	} {
		d := r.open(t, listener)
		d.client.Send(t, lines[0])
		halfClose(t, d.client.Conn.(*tls.Conn), true)
		d.upstream.Expect(t, lines[0])
		d.back(t, lines[1])
		d.upstream.Close()
		if rest := d.client.ExpectEnd(t); rest != "" {
			t.Errorf("client gets %q", rest)
		}
	}
}

func TestAnUpstreamThatClosesItsSideStillReads(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	for _, listener := range []string{"imaps", "pop3"} {
		d := r.enter(t, listener)
		d.upstream.Send(t, "the last word")
		if err := d.upstream.Conn.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
			t.Fatal(err)
		}
		if rest := d.client.ExpectEnd(t); rest != "the last word" {
			t.Errorf("client gets %q", rest)
		}
		last := noise(1 << 20)
		for range 3 {
			d.pass(t, last)
			time.Sleep(10 * time.Millisecond)
		}
		d.client.Close()
		if rest := d.upstream.ExpectEnd(t); rest != "" {
			t.Errorf("upstream gets %q", rest)
		}
	}
}

func TestByteCountsAreExact(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	for _, listener := range []string{"imaps", "imap", "pop3s", "pop3"} {
		const metric = "postern_relayed_bytes_total"
		d := r.open(t, listener)
		words, own := 0.0, "STLS\r\n"
		switch listener {
		case "imaps":
			words, own = float64(len(imapGreeting)), "x STARTTLS\r\n"
		case "pop3s":
			words = float64(len(pop3Greeting))
		case "imap":
			own = "x STARTTLS\r\n"
		}
		d.client.Send(t, own) // the proxy answers it, and no relayed bytes
		d.client.ExpectLine(t, "")
		d.login(t, listener)
		before := len("in LOGIN anna s3cr3t-word\r\n")
		answers := len("in OK logged in\r\n")
		if !isIMAP(listener) {
			before, answers = len("USER anna\r\nPASS s3cr3t-word\r\n"), len("+OK\r\n+OK logged in\r\n")
		}
		d.pass(t, noise(123_457))
		d.back(t, noise(1_000_003))
		d.pass(t, "x")
		d.back(t, "y")
		halfClose(t, d.client.Conn.(*tls.Conn), true)
		d.upstream.ExpectEnd(t)
		d.upstream.Send(t, noise(77))
		d.upstream.Close()
		d.client.ExpectEnd(t)
		l := "listener=" + listener
		r.becomes(t, float64(before+123_457+1), metric, l, "direction=to_upstream")
		r.becomes(t, words+float64(answers+1_000_003+1+77), metric, l, "direction=to_client")
	}
}

func TestBinaryStreamsPassBothWaysAtOnce(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	stream := noise(4<<20) + "\r\n* BYE\r\n" + noise(100)
	for _, listener := range []string{"imaps", "imap", "pop3s", "pop3"} {
		d := r.enter(t, listener)
		up, down := sending(d.client, stream), sending(d.upstream, stream)
		got := make(chan struct{})
		go func() {
			defer close(got)
			b := make([]byte, len(stream))
			if _, err := io.ReadFull(d.upstream, b); err != nil || string(b) != stream {
				t.Errorf("%s: the stream to the upstream differs: %v", listener, err)
			}
		}()
		d.client.Expect(t, stream)
		wasSent(t, up)
		wasSent(t, down)
		<-got
	}
}

func TestTimeoutLoginEndsConnectionsThatDoNotLogIn(t *testing.T) {
	t.Parallel()
	const limit = 4 * time.Second
	r := newRig(t, map[string]string{"TIMEOUT_LOGIN": limit.String()})
	for listener, words := range map[string]string{"imaps": "* BYE ", "imap": "* BYE ", "pop3s": "-ERR ", "pop3": "-ERR "} {
		t.Run(listener, func(t *testing.T) {
			t.Parallel()
			posterntest.Within(t, "the end", limit+3*time.Second, func() (took time.Duration) {
				began := time.Now()
				silent, busy := r.open(t, listener), r.open(t, listener)
				busy.goesOn(t, listener)
				clients := []*posterntest.Client{silent.client, busy.client}
				if !strings.HasSuffix(listener, "s") {
					clients = append(clients, r.plain(t, listener))
				}
				for _, c := range clients {
					c.ExpectLastLine(t, words)
					if took = time.Since(began); took < limit-500*time.Millisecond {
						t.Errorf("ended after %v, want %v", took, limit)
					}
					c.Close()
				}
				return took
			})
			r.becomes(t, 0, "postern_connections_open", "listener="+listener)
		})
	}
}

func TestTimeoutIdleEndsOnlySilentSessions(t *testing.T) {
	t.Parallel()
	const limit = 6 * time.Second
	r := newRig(t, map[string]string{"TIMEOUT_IDLE": limit.String(), "TIMEOUT_LOGIN": "5s"})
	for _, listener := range []string{"imaps", "pop3"} {
		t.Run(listener, func(t *testing.T) {
			t.Parallel()
			posterntest.Within(t, "the end of the silent one", limit+2*time.Second, func() time.Duration {
				return r.silentSession(t, listener, limit)
			})
		})
	}
}

// silentSession returns how long a silent session lasts beside others.
func (r *rig) silentSession(t *testing.T, listener string, limit time.Duration) (took time.Duration) {
	t.Helper()
	silent, up, down := r.enter(t, listener), r.enter(t, listener), r.enter(t, listener)
	began := time.Now()
	ended := make(chan time.Duration, 1)
	go func() {
		silent.client.ExpectEnd(t)
		ended <- time.Since(began)
	}()
	for took == 0 {
		select {
		case took = <-ended:
		case <-time.After(500 * time.Millisecond):
		}
		up.pass(t, "one way only\r\n")
		down.back(t, "one way only\r\n")
	}
	if took < limit-time.Second {
		t.Errorf("the silent one ended after %v, want %v", took, limit)
	}
	if rest := silent.upstream.ExpectEnd(t); rest != "" {
		t.Errorf("the upstream of the silent one gets %q", rest)
	}
	up.back(t, "still here\r\n")
	down.pass(t, "still here\r\n")
	return took
}

func TestOneByteASecondDoesNotOutlastTheHandshakeTimeout(t *testing.T) {
	t.Parallel()
	r := newRig(t, map[string]string{"TIMEOUT_HANDSHAKE": "2s"})
	for _, listener := range []string{"imaps", "imap", "pop3s", "pop3"} {
		t.Run(listener, func(t *testing.T) {
			t.Parallel()
			came := 0.0
			posterntest.Within(t, "the end", 4*time.Second, func() time.Duration {
				came++
				conn := r.DialForTLS(t, listener)
				flight := hello.ClientHello(hello.Typical(tls.VersionTLS12))
				conn.Write(flight) // all of it, then what follows drips
				began := time.Now()
				go func() {
					for _, b := range append([]byte{22, 3, 3, 0, 37, 16, 0, 0, 33, 32}, flight[:31]...) {
						if _, err := conn.Write([]byte{b}); err != nil {
							return
						}
						time.Sleep(time.Second)
					}
				}()
				io.Copy(io.Discard, conn) // a reset is fine, bytes are on their way
				took := time.Since(began)
				if took < 1500*time.Millisecond {
					t.Errorf("closed after %v, want about two seconds", took)
				}
				return took
			})
			r.Wait(t, func(s posterntest.Samples) bool {
				return s.Value("postern_handshake_failures_total", "listener="+listener, "reason=timeout") == came
			})
		})
	}
}
