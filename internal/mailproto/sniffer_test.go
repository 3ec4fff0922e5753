package mailproto

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
)

// sniff hands data to a Sniffer, in pieces of the given sizes, and returns what
// it has found.
func sniff(t testing.TB, data, sizes []byte) (found []string) {
	t.Helper()
	s := NewSniffer()
	in := &pieces{data: data, sizes: sizes}
	buf := make([]byte, 64<<10)
	for {
		n, err := in.Read(buf)
		if n > 0 {
			software, more := s.Sniff(buf[:n])
			if software != "" {
				found = append(found, software)
			}
			if !more && (!s.over || s.part != nil) {
				t.Fatalf("it is over, but not all is gone: %+v", s)
			}
			clear(buf[:n]) // nothing may be held of it
		}
		if err != nil {
			break
		}
	}
	if len(data) >= maxSniffed && !s.over {
		t.Fatalf("after %d bytes it still reads: %+v", len(data), s)
	}
	return found
}

// nonSync is a string as a literal without synchronization.
func nonSync(s string) string { return fmt.Sprintf("{%d+}\r\n%s", len(s), s) }

func sniffings() []struct{ name, said, want string } {
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
		{"behind a literal that looks like one", "a SELECT " + nonSync(message) + "\r\n" + id, "Outlook 14.0"},
		{"behind an empty literal", "a SELECT {0}\r\n\r\n" + id, "Outlook 14.0"},
		{"behind a message", "a APPEND Sent (\\Seen) " + nonSync(message) + "\r\n" + id, "Outlook 14.0"},
		{"behind two messages", "a APPEND Sent " + nonSync(message) + " ~" + nonSync(message) + "\r\n" + id, "Outlook 14.0"},
		{"in a message", "a APPEND Sent " + nonSync("From: x\r\n\r\n"+message), ""},
		{"in a message that is awaited", "a APPEND Sent " + fmt.Sprintf("{%d}\r\n", len(message)) + message + "\r\n" + id, ""},
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
		{"forged", "b ID (\"name\" " + nonSync(forged) + ")\r\n", forged},
		{"too long", "b ID (\"name\" \"" + strings.Repeat("é", 100) + "\" \"version\" \"1\")\r\n", strings.Repeat("é", 64)},
		{"version too long", "b ID (\"version\" \"" + strings.Repeat("1", 1000) + "\" \"name\" \"x\")\r\n", "x " + strings.Repeat("1", 126)},
		{"at the very end", "a " + strings.Repeat("x", 8<<10-len(id)-4) + "\r\n" + id, "Outlook 14.0"},
		{"one byte too late", "a " + strings.Repeat("x", 8<<10-len(id)-3) + "\r\n" + id, ""},
		{"64 KB", "b ID (\"name\" \"" + strings.Repeat("x", 64<<10) + "\")\r\n", ""},
	}
}

func TestAnIDBehindTheLoginIsFound(t *testing.T) {
	for _, tt := range sniffings() {
		t.Run(tt.name, func(t *testing.T) {
			for _, sizes := range [][]byte{nil, {0}, {6, 0, 30}} {
				got := strings.Join(sniff(t, []byte(tt.said), sizes), "|")
				if got != tt.want {
					t.Errorf("in pieces of %v: found %q, want %q", sizes, got, tt.want)
				}
				if ref := sniffedIn([]byte(tt.said)); ref != tt.want {
					t.Errorf("the reference finds %q, want %q", ref, tt.want)
				}
			}
		})
	}
}

// Once it is over, nothing is allocated.
func TestSniffingEnds(t *testing.T) {
	s := NewSniffer()
	chunk := bytes.Repeat([]byte("a NOOP\r\n"), maxSniffed/8)
	if _, more := s.Sniff(chunk); more {
		t.Errorf("it goes on: %+v", s)
	}
	if n := testing.AllocsPerRun(100, func() { s.Sniff(chunk) }); n > 0 {
		t.Errorf("%v allocations a chunk", n)
	}
}

// BenchmarkSniffer is what the first 8 KB cost, in commands of a client
// that says no ID.
func BenchmarkSniffer(b *testing.B) {
	chunk := bytes.Repeat([]byte("a UID FETCH 1:* FLAGS\r\n"), maxSniffed/23)
	b.SetBytes(int64(len(chunk)))
	b.ReportAllocs()
	for b.Loop() {
		NewSniffer().Sniff(chunk)
	}
}
