package relay

import (
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"postern/internal/posterntest"
)

// drainTime is TIMEOUT_DRAIN here.
const drainTime = 12 * time.Second

// gone waits for the process, which must end with 0 as Stop judges, and returns how long
// it was there.
func (r *rig) gone(t *testing.T, since time.Time) (took time.Duration) {
	t.Helper()
	select {
	case <-r.Exited():
	case <-time.After(time.Minute):
		t.Error("the process is still there after another minute")
	}
	took = time.Since(since)
	r.Stop(t)
	return took
}

func TestAtShutdownClientsBeforeLoginAreNotifiedAtOnce(t *testing.T) {
	t.Parallel()
	posterntest.Within(t, "telling all, or the end after the last session", time.Second, func() time.Duration { return notified(t) })
}

// notified returns how long it takes until all are told, or how long the process is there
// after its last session: whichever is longer.
func notified(t *testing.T) time.Duration {
	t.Helper()
	r := newRig(t, map[string]string{"TIMEOUT_DRAIN": "1m"})
	told := make(map[*posterntest.Client]string)
	for listener, words := range map[string]string{"imaps": "* BYE ", "imap": "* BYE ", "pop3s": "-ERR [SYS/TEMP] ", "pop3": "-ERR [SYS/TEMP] "} {
		told[r.open(t, listener).client] = words // before login
		waiting := r.open(t, listener)           // for the upstream's answer
		if isIMAP(listener) {
			waiting.pass(t, "a LOGIN anna s3cr3t-word\r\n")
		} else {
			waiting.pass(t, "AUTH PLAIN AGFubmEAczNjcjN0\r\n")
		}
		told[waiting.client] = words
		if !strings.HasSuffix(listener, "s") { // before TLS
			told[r.plain(t, listener)] = words
		}
	}
	shaking := r.DialForTLS(t, "imaps")
	shaking.Write([]byte{22, 3, 1}) // a handshake that comes no further
	stay := r.enter(t, "imaps")
	began := time.Now()
	r.Signal(t, syscall.SIGTERM)
	for c, words := range told {
		c.ExpectLastLine(t, words)
		c.Close()
	}
	if _, err := io.Copy(io.Discard, shaking); err != nil {
		t.Errorf("the handshake did not end in order: %v", err)
	}
	took := time.Since(began)
	if took > 20*time.Second {
		t.Errorf("all were told only after %v", took)
	}
	for _, listener := range posterntest.Listeners {
		if c, err := net.DialTimeout("tcp", r.Addr(listener), time.Second); err == nil {
			t.Errorf("%s still listens", listener)
			c.Close()
		}
	}
	if status, body, err := r.Get("/readyz"); err != nil || status != 503 || !strings.Contains(body, "draining") {
		t.Errorf("readiness %d, %v: %q", status, err, body)
	}
	stay.pass(t, "b NOOP\r\n") // who is in goes on
	stay.back(t, "b OK noop\r\n")
	left := time.Now()
	stay.client.Close()
	stay.upstream.ExpectEnd(t)
	stay.upstream.Close()
	took = max(took, r.gone(t, left)) // as soon as the last one has left
	noSecret(t, r)
	return took
}

func TestAtShutdownIdleSessionsAreClosedOverTheSecondHalf(t *testing.T) {
	t.Parallel()
	posterntest.Within(t, "the drain", drainTime+200*time.Millisecond, func() time.Duration { return drainOfIdle(t) })
}

// drainOfIdle returns how long the process was there.
func drainOfIdle(t *testing.T) time.Duration {
	t.Helper()
	r := newRig(t, map[string]string{"TIMEOUT_DRAIN": drainTime.String()})
	const idle = 8
	sessions := make([]*dialogue, idle)
	for i := range sessions {
		sessions[i] = r.enter(t, posterntest.Listeners[i%4])
	}
	time.Sleep(1200 * time.Millisecond) // until they count as idle
	began := time.Now()
	r.Signal(t, syscall.SIGTERM)
	closed := make([]time.Duration, idle)
	var all sync.WaitGroup
	for i, d := range sessions {
		all.Go(func() {
			if text := d.client.ExpectEnd(t); text != "" {
				t.Errorf("an idle session was told %q", text)
			}
			closed[i] = time.Since(began)
			d.client.Close()
		})
	}
	all.Wait()
	took := r.gone(t, began)
	quarters := 0
	for _, at := range closed {
		if at < 3*drainTime/4 {
			quarters++
		}
	}
	if slices.Min(closed) < drainTime/2-100*time.Millisecond || quarters < 2 || quarters > 6 {
		t.Errorf("closed after %v, want them evenly between %v and %v", closed, drainTime/2, drainTime)
	}
	return took
}

func TestAtShutdownADownloadInFlightArrivesWhole(t *testing.T) {
	t.Parallel()
	posterntest.Within(t, "the drain", drainTime+500*time.Millisecond, func() time.Duration { return drainOfDownloads(t) })
}

// drainOfDownloads returns how long the process was there.
func drainOfDownloads(t *testing.T) time.Duration {
	t.Helper()
	r := newRig(t, map[string]string{"TIMEOUT_DRAIN": drainTime.String()})
	part := noise(200_000)
	sessions := make(map[string]*dialogue)
	for _, listener := range posterntest.Listeners {
		sessions[listener] = r.enter(t, listener)
	}
	end := time.Now().Add(drainTime * 3 / 4)
	var all sync.WaitGroup
	for listener, d := range sessions {
		var parts atomic.Int32
		all.Go(func() {
			for time.Now().Before(end) {
				wasSent(t, sending(d.upstream, part))
				parts.Add(1)
				time.Sleep(drainTime / 40)
			}
			d.upstream.Close()
		})
		all.Go(func() {
			got := d.client.ExpectEnd(t)
			if want := strings.Repeat(part, int(parts.Load())); got != want {
				t.Errorf("%s: %d bytes of %d arrived", listener, len(got), len(want))
			}
			d.client.Close()
		})
	}
	began := time.Now()
	r.Signal(t, syscall.SIGTERM)
	all.Wait()
	return r.gone(t, began)
}

func TestAtShutdownNoSessionOutlastsTheDrain(t *testing.T) {
	t.Parallel()
	posterntest.Within(t, "the drain", 2500*time.Millisecond, func() time.Duration {
		r := newRig(t, map[string]string{"TIMEOUT_DRAIN": "2s"})
		d := r.enter(t, "imaps")
		began := time.Now()
		r.Signal(t, syscall.SIGTERM)
		go func() {
			for { // never idle
				if _, err := io.WriteString(d.upstream, "* 1 EXISTS\r\n"); err != nil {
					return
				}
				time.Sleep(20 * time.Millisecond)
			}
		}()
		go io.Copy(io.Discard, d.client)
		took := r.gone(t, began)
		if took < 1500*time.Millisecond {
			t.Errorf("gone after %v, want two seconds", took)
		}
		return took
	})
}

func TestASecondSignalEndsTheDrainAtOnce(t *testing.T) {
	t.Parallel()
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
		posterntest.Within(t, "the end after the second "+sig.String(), 700*time.Millisecond, func() time.Duration {
			r := newRig(t, map[string]string{"TIMEOUT_DRAIN": "1m"})
			d := r.enter(t, "imaps")
			r.Signal(t, sig)
			r.WaitLog(t, "stopping", 1)
			d.pass(t, "still here\r\n")
			time.Sleep(300 * time.Millisecond)
			d.back(t, "still here\r\n")
			began := time.Now()
			r.Signal(t, sig)
			return r.gone(t, began)
		})
	}
}
