package load

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"postern/internal/hello"
	"postern/internal/posterntest"
)

const (
	visits = 20000
	// slack is how many descriptors and goroutines may come and go by chance.
	slack = 5
	// visitTime bounds the CPU time of all visits together.
	visitTime = 60 * time.Second
	// settleTime is for what is left of the last ones.
	settleTime = time.Minute
)

// visit is one connection of the kind that its number says.
func visit(g *posterntest.Proxy, number int) error {
	listener := posterntest.Listeners[number/10%4]
	if number%10 == 0 {
		return login(g, listener, number)
	}
	dial := caller(number).Dial
	if kind := number % 10; kind >= 3 && kind <= 6 || kind == 9 {
		dial = caller(number).DialForTLS
	}
	c, err := dial(g, listener)
	if err != nil {
		return err
	}
	defer c.Close()
	switch number % 10 {
	case 1: // at once
	case 2: // by a reset; with implicit TLS nobody would hear of one before the first byte
		c.Write([]byte{22})
		return c.SetLinger(0)
	case 3, 4, 5, 6: // an old client
		return refused(c)
	case 7: // in plaintext, or TLS too soon
		text := "QUIT\r\n"
		if listener == "imap" || listener == "pop3" {
			text = string(hello.ClientHello(hello.Typical(tls.VersionTLS13)))
		}
		io.WriteString(c, text)
		io.Copy(io.Discard, c)
	case 8: // something behind STARTTLS
		text := "a STARTTLS\r\na NOOP\r\n"
		if listener == "pop3" {
			text = "STLS\r\nNOOP\r\n"
		}
		io.WriteString(c, text)
		io.Copy(io.Discard, c)
	case 9: // amid a hello
		c.Write(hello.ClientHello(hello.Typical(tls.VersionTLS12))[:50])
	}
	return nil
}

// refused is a client of TLS 1.0, which wants its alert.
func refused(c net.Conn) error {
	if _, err := c.Write(hello.ClientHello(hello.Typical(tls.VersionTLS10))); err != nil {
		return err
	}
	a, err := hello.ReadFlight(c)
	if err == nil && a.Kind == hello.ServerHello {
		err = fmt.Errorf("TLS 1.0 is let in")
	}
	return err
}

// state is what a connection could leave behind.
type state struct{ descriptors, goroutines, open int }

func stateOf(t *testing.T, g *posterntest.Proxy) state {
	t.Helper()
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", g.PID()))
	if err != nil {
		t.Fatal(err)
	}
	m := g.Metrics(t)
	return state{len(entries), int(m.Value("go_goroutines")), int(m.Value("postern_connections_open"))}
}

func TestNothingIsLeftOfTwentyThousandVisits(t *testing.T) {
	g := start(t, map[string]string{"LOG_LEVEL": "error"}) // thousands of lines say nothing here
	for number := range 40 {                               // one of each kind first: what is made once is no leak
		if err := visit(g, number); err != nil {
			t.Fatal(err)
		}
	}
	before := settle(t, g, state{})
	began := g.CPUTime(t)
	crowd(t, visits, 16, func(number int) error { return visit(g, number) })
	took := g.CPUTime(t) - began
	after := settle(t, g, before)
	t.Logf("%d visits in %v of CPU time; before %+v, after %+v", visits, took, before, after)
	if took > visitTime {
		t.Errorf("%d visits took %v of CPU time, want %v at most", visits, took, visitTime)
	}
	if after.descriptors > before.descriptors+slack || after.goroutines > before.goroutines+slack {
		t.Errorf("before %+v, after %+v", before, after)
	}
	m := g.Metrics(t)
	if got := m.Value("postern_connections_total"); got != visits+40 {
		t.Errorf("%v connections counted, want %d", got, visits+40)
	}
	g.CheckIdentities(t)
}

// settle waits until no connection is open, and the state is near what it was.
func settle(t *testing.T, g *posterntest.Proxy, before state) state {
	t.Helper()
	deadline := time.Now().Add(settleTime)
	for {
		now := stateOf(t, g)
		near := now.descriptors <= before.descriptors+slack && now.goroutines <= before.goroutines+slack
		if now.open == 0 && (near || before == state{}) {
			return now
		}
		if time.Now().After(deadline) {
			if now.open != 0 {
				t.Errorf("%d connections are still open", now.open)
			}
			return now
		}
		time.Sleep(50 * time.Millisecond)
	}
}
