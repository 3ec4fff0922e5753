package proxy

import (
	"bytes"
	"crypto/tls"
	"io"
	"strings"
	"testing"
	"time"
)

// overhearIn writes data, in pieces of the given sizes, to a writer that reads
// along; it returns what was told.
func overhearIn(t testing.TB, data, sizes []byte) (software []string) {
	t.Helper()
	var copied bytes.Buffer
	r := newRecorder()
	login := &Login{Conn: &Conn{ID: 7}, Account: "anna"}
	o := &overhearing{to: &copied, observer: r, login: login, left: maxOverheard}
	kept := bytes.Clone(data)
	in := &pieces{data: data, sizes: sizes}
	buf := make([]byte, bufferSize)
	for {
		n, err := in.Read(buf)
		if n > 0 {
			if wrote, err := o.Write(buf[:n]); wrote != n || err != nil {
				t.Fatalf("%d of %d bytes written, %v", wrote, n, err)
			}
			clear(buf[:n]) // nothing may be held of it
		}
		if err != nil {
			break
		}
	}
	if !bytes.Equal(copied.Bytes(), kept) || !bytes.Equal(data, kept) {
		t.Fatalf("%q became %q", kept, copied.Bytes())
	}
	if len(data) >= maxOverheard && (o.left != 0 || o.part != nil || o.login != nil) {
		t.Fatalf("after %d bytes it is still there: %+v", len(data), o)
	}
	for _, e := range r.software {
		if e.ID != 7 || e.Account != "anna" {
			t.Errorf("told of %d, %q", e.ID, e.Account)
		}
		software = append(software, e.Software)
	}
	return software
}

func overhearings() []struct{ name, said, want string } {
	const id, message = `b ID ("name" "Outlook" "version" "14.0")` + "\r\n", "x ID (\"name\" \"forged\")\r\n"
	forged := "Ou\r\n\x00t<script>\x1b[31m"
	return []struct{ name, said, want string }{
		{"at once", id, "Outlook 14.0"},
		{"behind other commands", "a NOOP\r\n\r\nc LIST \"\" \"*\"\r\n" + id, "Outlook 14.0"},
		{"in small letters", `b id ("Name" "x")` + "\r\n", "x"},
		{"behind one that names nothing", "a ID NIL\r\nc ID (\"os\" \"y\")\r\nd ID (\r\n" + id, "Outlook 14.0"},
		{"only the first", id + message, "Outlook 14.0"},
		{"in literals", "b ID ({4}\r\nname {6}\r\nx\r\ny)z \"version\" {0+}\r\n)\r\n" + id, "x\r\ny)z"},
		{"in literals, one of them broken", "b ID ({4}\r\nnamex\r\n" + id, ""},
		{"behind a literal", "a SELECT {5}\r\nINBOX\r\n" + id, "Outlook 14.0"},
		{"behind a literal that looks like one", "a SELECT " + litPlus(message) + "\r\n" + id, "Outlook 14.0"},
		{"behind an empty literal", "a SELECT {0}\r\n\r\n" + id, "Outlook 14.0"},
		{"behind a message", "a APPEND Sent (\\Seen) " + litPlus(message) + "\r\n" + id, "Outlook 14.0"},
		{"behind two messages", "a APPEND Sent " + litPlus(message) + " ~" + litPlus(message) + "\r\n" + id, "Outlook 14.0"},
		{"in a message", "a APPEND Sent " + litPlus("From: x\r\n\r\n"+message), ""},
		{"in a message that is awaited", "a APPEND Sent " + lit(message) + message + "\r\n" + id, ""},
		{"behind a message that is refused", "a APPEND Sent {24}\r\nc APPEND Sent {30}\r\nFrom\r\n" + message, ""},
		{"in a long message", "a APPEND Sent {9000000+}\r\n" + strings.Repeat(message, 500), ""},
		{"behind what is no literal", "a SEARCH TEXT \"{5}\" x{30}\r\n" + message, ""},
		{"in quotes", `a SEARCH TEXT "b ID (\"name\" \"x\")"` + "\r\n", ""},
		{"not at the beginning of a line", "a NOOP " + id, ""},
		{"behind IDLE", "a IDLE\r\nDONE\r\n" + id, ""},
		{"behind COMPRESS", "a COMPRESS DEFLATE\r\n" + id, ""},
		{"behind another login", "a UNAUTHENTICATE\r\n" + id, ""},
		{"behind a LOGIN", "a LOGIN bert secret\r\n" + id, ""},
		{"behind a bare LF", "a NOOP\n" + id, ""},
		{"behind what is no command", "DONE\r\n" + id, ""},
		{"no list", "b ID \"name\" \"x\"\r\n", ""},
		{"odd", "b ID (\"name\" \"x\" \"y\")\r\n", ""},
		{"more behind it", "b ID (\"name\" \"x\") y\r\n", ""},
		{"without its end", strings.TrimSuffix(id, "\r\n"), ""},
		{"NIL", "b ID (\"name\" \"x\" \"version\" nil)\r\n", "x"},
		{"called NIL", "b ID (\"name\" \"NIL\")\r\n", "NIL"},
		{"forged", "b ID (\"name\" " + litPlus(forged) + ")\r\n", forged},
		{"too long", "b ID (\"name\" \"" + strings.Repeat("é", 100) + "\" \"version\" \"1\")\r\n", strings.Repeat("é", 64)},
		{"version too long", "b ID (\"version\" \"" + strings.Repeat("1", 1000) + "\" \"name\" \"x\")\r\n", "x " + strings.Repeat("1", 126)},
		{"at the very end", "a " + strings.Repeat("x", 8<<10-len(id)-4) + "\r\n" + id, "Outlook 14.0"},
		{"one byte too late", "a " + strings.Repeat("x", 8<<10-len(id)-3) + "\r\n" + id, ""},
		{"64 KB", "b ID (\"name\" \"" + strings.Repeat("x", 64<<10) + "\")\r\n", ""},
	}
}

func TestAnIDBehindTheLoginIsReadAlong(t *testing.T) {
	for _, tt := range overhearings() {
		t.Run(tt.name, func(t *testing.T) {
			for _, sizes := range [][]byte{nil, {0}, {6, 0, 30}} {
				got := strings.Join(overhearIn(t, []byte(tt.said), sizes), "|")
				if got != tt.want {
					t.Errorf("in pieces of %v: told %q, want %q", sizes, got, tt.want)
				}
				if ref := overheardIn([]byte(tt.said)); ref != tt.want {
					t.Errorf("the reference finds %q, want %q", ref, tt.want)
				}
			}
		})
	}
}

// Through the whole gate, with what is pipelined behind the login and without.
func TestSoftwareIsToldBehindTheLogin(t *testing.T) {
	g := startTalks(t, true)
	d := talk{{"a LOGIN anna secret\r\n", okIn}, {"b NOOP\r\n", "b OK\r\n"}, {`c ID ("name" "Mail" "version" "2")` + "\r\n", "c OK\r\n"}, {`d ID ("name" "x")` + "\r\n", "d OK\r\n"}}
	for _, pipelined := range []bool{false, true} {
		want := told{events: "handshake login software closed", account: "anna", later: "Mail 2"}
		if got := g.run(t, g.oldClient(), IMAPS, d, pipelined); got != want {
			t.Errorf("pipelined %v: told %+v, want %+v", pipelined, got, want)
		}
	}
}

// Only the session of a legacy client reads along, and only with identity on.
func TestNobodyElseIsReadAlong(t *testing.T) {
	for _, identity := range []bool{false, true} {
		g := startTalks(t, identity)
		for i, config := range []*tls.Config{g.ClientConfig(), g.oldClient()} {
			up := g.up[ProtocolIMAP]
			up.mu.Lock()
			up.talk = talk{{"a LOGIN anna secret\r\n", okIn}}
			up.mu.Unlock()
			c := newClient(tls.Client(g.Dial(t, IMAPS), config))
			c.Say(t, "a LOGIN anna secret\r\n")
			c.Until(t, "a OK")
			for {
				if s := g.onlySession(); s != nil && s.tunnel.Load() != nil {
					if want := identity && i == 1; sniffs(s) != want {
						t.Errorf("identity %v, legacy %v: reads along %v", identity, i == 1, sniffs(s))
					}
					break
				}
				time.Sleep(time.Millisecond)
			}
			c.Close()
			g.WaitClosed(t, i+1)
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

// Once it is over, nothing is allocated, and nothing of the session is held.
func TestReadingAlongEnds(t *testing.T) {
	o := &overhearing{to: io.Discard, observer: newRecorder(), login: &Login{Conn: new(Conn)}, left: maxOverheard}
	chunk := bytes.Repeat([]byte("a NOOP\r\n"), maxOverheard/8)
	o.Write(chunk)
	if o.observer != nil || o.login != nil || o.left != 0 {
		t.Errorf("%+v", o)
	}
	if n := testing.AllocsPerRun(100, func() { o.Write(chunk) }); n > 0 {
		t.Errorf("%v allocations a chunk", n)
	}
}

// BenchmarkOverhearing is what the first 8 KB cost, in commands of a client
// that says no ID.
func BenchmarkOverhearing(b *testing.B) {
	chunk := bytes.Repeat([]byte("a UID FETCH 1:* FLAGS\r\n"), maxOverheard/23)
	b.SetBytes(int64(len(chunk)))
	b.ReportAllocs()
	for b.Loop() {
		o := &overhearing{to: io.Discard, login: &Login{}, left: maxOverheard}
		o.Write(chunk)
	}
}

// sniffs reports whether a session that has logged in is read along.
func sniffs(s *session) bool {
	_, ok := s.tunnel.Load().upstream.(*overhearing)
	return ok
}
