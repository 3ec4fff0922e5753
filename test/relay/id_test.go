package relay

import (
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"postern/internal/posterntest"
)

// literalAtEnd finds a literal's header at the end of a line.
var literalAtEnd = regexp.MustCompile(`\{(\d+)(\+?)\}\r\n$`)

// speak sends pieces of one command as a client does, each after the first one
// when the upstream has asked for it; the upstream asks, and the proxy must not.
// It returns all that the upstream got.
func (d *dialogue) speak(t *testing.T, pieces ...string) string {
	t.Helper()
	var got strings.Builder
	octets := 0
	for i, piece := range pieces {
		if i > 0 {
			d.client.ExpectSilence(t, quietTime)
			d.back(t, "+ "+strings.Repeat("go on ", i%3)+"\r\n")
		}
		d.client.Send(t, piece)
		if octets = readPiece(t, d.upstream, &got, octets); (octets < 0) != (i == len(pieces)-1) {
			t.Fatalf("upstream gets %q", got.String())
		}
	}
	return got.String()
}

// readPiece reads, as a server does, the octets of the literal that it has asked
// for, and on to the next one or to the end of the command; it returns the size
// of that literal, -1 at the end.
func readPiece(t *testing.T, e *posterntest.Client, got *strings.Builder, octets int) int {
	t.Helper()
	for {
		text := make([]byte, octets)
		if n, err := io.ReadFull(e, text); err != nil {
			t.Fatalf("upstream gets %q: %v", text[:n], err)
		}
		line := e.ExpectLine(t, "") + "\r\n"
		got.Write(text)
		got.WriteString(line)
		m := literalAtEnd.FindStringSubmatch(line)
		if m == nil {
			return -1
		}
		n, err := strconv.Atoi(m[1])
		if err != nil {
			t.Fatal(err)
		}
		if m[2] == "" {
			return n
		}
		octets = n
	}
}

// idStrings reads the strings and NILs of an ID command as an upstream does.
func idStrings(t *testing.T, command string) []string {
	t.Helper()
	_, list, ok := strings.Cut(command, "(")
	var words []string
	for list = strings.TrimLeft(list, " "); ok && !strings.HasPrefix(list, ")"); list = strings.TrimLeft(list, " ") {
		m := regexp.MustCompile(`^(?:"((?:[^"\\]|\\.)*)"|(NIL)\b|\{(\d+)\+?\}\r\n)`).FindStringSubmatch(list)
		if m == nil {
			t.Fatalf("upstream gets %q, which is no ID at %q", command, list)
		}
		word := m[1]
		list = list[len(m[0]):]
		if m[3] != "" {
			n, _ := strconv.Atoi(m[3])
			if n > len(list) {
				t.Fatalf("upstream gets %q: a literal is cut", command)
			}
			word, list = list[:n], list[n:]
		}
		words = append(words, word)
	}
	if !ok || list != ")\r\n" || len(words)%2 != 0 {
		t.Fatalf("upstream gets %q, which is no ID", command)
	}
	return words
}

const address = "192.0.2.77"

var forbiddenFields = []string{
	"x-originating-ip", "x-originating-port", "x-connected-ip", "x-connected-port",
	"x-proxy-ttl", "x-session-id", "x-session-ext-id", "x-forward-", "x-forward-account",
}

// forgeries are IDs with forbidden fields, in the pieces in which a client
// sends them; every one also says name and Mutter.
func forgeries() map[string][]string {
	all := map[string][]string{
		"first":               {`a ID ("x-originating-ip" "192.0.2.77" "name" "Mutter")` + "\r\n"},
		"last":                {`a ID ("name" "Mutter" "x-originating-ip" "192.0.2.77")` + "\r\n"},
		"between":             {`a ID ("name" "Mutter" "X-Originating-IP" "192.0.2.77" "os" "Plan 9")` + "\r\n"},
		"twice":               {`a ID ("x-session-id" "192.0.2.77" "x-proxy-ttl" "192.0.2.77" "name" "Mutter")` + "\r\n"},
		"with odd spaces":     {`a ID  ( "x-session-id"  "192.0.2.77"  "name"  "Mutter" )` + "\r\n"},
		"with NIL":            {`a ID ("x-session-id" NIL "name" "Mutter")` + "\r\n"},
		"value {n+}":          {"a ID (\"x-originating-ip\" {10+}\r\n192.0.2.77 \"name\" \"Mutter\")\r\n"},
		"key {n+}":            {"a ID ({16+}\r\nx-originating-ip \"192.0.2.77\" \"name\" \"Mutter\")\r\n"},
		"both {n+}":           {"a ID (\"name\" \"Mutter\" {16+}\r\nX-ORIGINATING-IP {10+}\r\n192.0.2.77)\r\n"},
		"value {n}":           {"a ID (\"x-originating-ip\" {10}\r\n", "192.0.2.77 \"name\" \"Mutter\")\r\n"},
		"key {n}":             {"a ID ({16}\r\n", "x-originating-ip \"192.0.2.77\" \"name\" \"Mutter\")\r\n"},
		"both {n}":            {"a ID ({16}\r\n", "x-Originating-ip {10}\r\n", "192.0.2.77 \"name\" \"Mutter\")\r\n"},
		"key {n}, value {n+}": {"a ID (\"name\" \"Mutter\" {16}\r\n", "x-originating-ip {10+}\r\n192.0.2.77)\r\n"},
		"key {n+}, value {n}": {"a ID (\"name\" \"Mutter\" {16+}\r\nx-originating-ip {10}\r\n", "192.0.2.77)\r\n"},
		"key {n}, value NIL":  {"a ID (\"name\" \"Mutter\" {16}\r\n", "x-originating-ip NIL)\r\n"},
		"behind literals":     {"a ID ({4}\r\n", "name {6}\r\n", "Mutter \"x-connected-ip\" {10}\r\n", "192.0.2.77)\r\n"},
	}
	for _, field := range forbiddenFields {
		all[field] = []string{fmt.Sprintf("a ID (%q %q %q %q)\r\n", "name", "Mutter", strings.ToUpper(field), address)}
	}
	return all
}

func TestAClientCannotForgeItsAddress(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	for _, listener := range []string{"imaps", "imap"} {
		d := r.open(t, listener)
		for name, pieces := range forgeries() {
			t.Run(listener+" "+name, func(t *testing.T) {
				got := d.speak(t, pieces...)
				words := idStrings(t, got)
				if i := slices.Index(words, "name"); i < 0 || i%2 != 0 || words[i+1] != "Mutter" {
					t.Errorf("upstream gets %q, without the name", got)
				}
				if strings.Contains(got, address) {
					t.Errorf("upstream gets a forged address: %q", got)
				}
				for i := 0; i < len(words); i += 2 {
					key := strings.ToLower(words[i])
					if slices.Contains(forbiddenFields, key) || strings.HasPrefix(key, "x-forward-") {
						t.Errorf("upstream gets %q", got)
					}
				}
				d.back(t, "* ID NIL\r\na OK done\r\n")
				d.goesOn(t, listener)
			})
		}
		// Nothing is left of an ID that had nothing else.
		if got := d.speak(t, "a ID (\"x-session-id\" \"192.0.2.77\")\r\n"); len(idStrings(t, got)) != 0 {
			t.Errorf("upstream gets %q", got)
		}
		d.back(t, "a OK done\r\n")
		d.login(t, listener)
	}
}

func TestAnIDWithoutForbiddenFieldsIsPassedOnByteForByte(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	long := strings.Repeat("y", 1000)
	var thirty strings.Builder
	for i := range 30 {
		fmt.Fprintf(&thirty, " \"field%d\" {%d+}\r\n%s", i, len(long), long)
	}
	for _, listener := range []string{"imaps", "imap"} {
		d := r.open(t, listener)
		for _, pieces := range [][]string{
			{"a ID NIL\r\n"}, {"a id nil\r\n"}, {"a ID ()\r\n"}, {"a Id (\"name\" NIL)\r\n"},
			{"a ID  (  \"name\"   \"x-originating-ip\" )\r\n"},
			{"a ID (\"name\" \"a \\\"b\\\\ (c) {3}\" \"x-forward\" \"x\" \"x-originating-ips\" \"192.0.2.77\")\r\n"},
			{"a ID (\"name\" {6+}\r\nMutter {2+}\r\nos {6+}\r\nPlan 9)\r\n"},
			{"a ID ({4}\r\n", "name {6}\r\n", "Mutter \"os\" {0}\r\n", ")\r\n"},
			{"a ID ({4+}\r\nname {6}\r\n", "Mutter)\r\n"},
			{"a ID (\"z\" \"z\"" + thirty.String() + ")\r\n"},
		} {
			if got, want := d.speak(t, pieces...), strings.Join(pieces, ""); got != want {
				t.Errorf("%s: upstream gets %q\nwant %q", listener, got, want)
			}
			d.back(t, "* ID (\"name\" \"upstream\")\r\na OK done\r\n")
		}
		d.goesOn(t, listener)
		d.login(t, listener)
	}
}
