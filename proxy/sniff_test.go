package proxy

import (
	"bytes"
	"crypto/tls"
	"io"
	"testing"
	"time"

	"postern/internal/mailproto"
)

// An ID behind the login is found, whether it is pipelined or not.
func TestSoftwareBehindTheLoginIsReported(t *testing.T) {
	g := startTalks(t, true)
	d := talk{{"a LOGIN anna secret\r\n", okIn}, {"b NOOP\r\n", "b OK\r\n"}, {`c ID ("name" "Mail" "version" "2")` + "\r\n", "c OK\r\n"}, {`d ID ("name" "x")` + "\r\n", "d OK\r\n"}}
	for _, pipelined := range []bool{false, true} {
		want := reported{events: "handshake login software closed", account: "anna", later: "Mail 2"}
		if got := g.run(t, g.oldClient(), IMAPS, d, pipelined); got != want {
			t.Errorf("pipelined %v: reported %+v, want %+v", pipelined, got, want)
		}
	}
}

// Only the session of a legacy client is sniffed, and only with identity on.
func TestNoOtherClientIsSniffed(t *testing.T) {
	for _, identity := range []bool{false, true} {
		g := startTalks(t, identity)
		for i, config := range []*tls.Config{g.ClientConfig(), g.oldClient()} {
			up := g.up[ProtocolIMAP]
			up.mu.Lock()
			up.talk = talk{{"a LOGIN anna secret\r\n", okIn}}
			up.mu.Unlock()
			c := newClient(tls.Client(g.Dial(t, IMAPS), config))
			c.Send(t, "a LOGIN anna secret\r\n")
			c.Until(t, "a OK")
			for {
				if s := g.onlySession(); s != nil && s.tunnel.Load() != nil {
					if want := identity && i == 1; sniffs(s) != want {
						t.Errorf("identity %v, legacy %v: sniffs %v", identity, i == 1, sniffs(s))
					}
					break
				}
				time.Sleep(time.Millisecond)
			}
			c.Close()
			for g.onlySession() != nil { // which is removed behind its last event
				time.Sleep(time.Millisecond)
			}
		}
	}
}

func (g *talks) onlySession() *session {
	g.Server.mu.Lock()
	defer g.Server.mu.Unlock()
	for s := range g.open {
		return s
	}
	return nil
}

// What is copied stays as it is, whatever is found in it, and once that is over,
// nothing of the session is held.
func TestSniffingChangesNothing(t *testing.T) {
	var copied bytes.Buffer
	r := newRecorder()
	w := &sniffingWriter{to: &copied, sniffer: mailproto.NewSniffer(), observer: r, login: &Login{Conn: &Conn{ID: 7}, Account: "anna"}}
	said := "a NOOP\r\nb ID (\"name\" \"x\")\r\nc ID (\"name\" \"y\")\r\n"
	for i := range len(said) {
		if n, err := w.Write([]byte(said[i : i+1])); n != 1 || err != nil {
			t.Fatalf("%d bytes written, %v", n, err)
		}
	}
	if copied.String() != said {
		t.Errorf("%q became %q", said, copied.String())
	}
	if len(r.software) != 1 || r.software[0].ID != 7 || r.software[0].Account != "anna" || r.software[0].Software != "x" {
		t.Errorf("reported %+v", r.software)
	}
	if w.observer != nil || w.login != nil || w.sniffer != nil {
		t.Errorf("%+v", w)
	}
	w.to = io.Discard
	chunk := []byte(said)
	if n := testing.AllocsPerRun(100, func() { w.Write(chunk) }); n > 0 {
		t.Errorf("%v allocations a write", n)
	}
}

// sniffs reports whether a session that has logged in is sniffed.
func sniffs(s *session) bool {
	_, ok := s.tunnel.Load().upstream.(*sniffingWriter)
	return ok
}
