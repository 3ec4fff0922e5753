package mailproto

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"

	"postern/internal/posterntest"
)

// pieces hands out data in reads of the given sizes, over and over.
type pieces struct {
	data, sizes []byte
	i           int
}

func (p *pieces) Read(b []byte) (int, error) {
	if len(p.data) == 0 {
		return 0, io.EOF
	}
	n := len(p.data)
	if len(p.sizes) > 0 {
		n = 1 + int(p.sizes[p.i%len(p.sizes)])
		p.i++
	}
	n = copy(b[:min(n, len(b))], p.data)
	p.data = p.data[n:]
	return n, nil
}

func nextOctets(data []byte, n int) (octets, rest []byte, err error) {
	if len(data) < n {
		return nil, nil, io.ErrUnexpectedEOF
	}
	return data[:n], data[n:], nil
}

// FuzzLineReader reads lines and literals from a stream that comes in reads of
// any sizes; plan says which, and how many octets.
func FuzzLineReader(f *testing.F) {
	long := bytes.Repeat([]byte("0123456789abcdef"), MaxLine/16+2)
	f.Add([]byte("a LOGIN {5}\r\nhello {0+}\r\n\r\nb NOOP\r\n"), []byte{0}, []byte{0, 5, 0, 0, 0})
	f.Add([]byte("bare\rCR\r\nbare LF\nNUL \x00\r\nend"), []byte{2, 0, 7}, []byte{0, 0, 0, 0})
	f.Add([]byte("line\r\n"), []byte{}, []byte{0, 200})
	f.Add(long, []byte{255}, []byte{0})
	f.Add(append(bytes.Clone(long[:MaxLine-2]), "\r\nnext\r\n"...), []byte{99, 1}, []byte{0, 0})
	f.Add(append([]byte("x\r\n"), long[:MaxLine-1]...), []byte{200}, []byte{0, 0})
	f.Add([]byte("\r\n\r\r\n\n"), []byte{1}, []byte{0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, data, sizes, plan []byte) {
		r := NewLineReader(&pieces{data: data, sizes: sizes})
		rest := data
		for _, p := range append(plan, 0) {
			var got, want []byte
			var err, wantErr error
			if p == 0 {
				if want, rest, wantErr = posterntest.NextLine(rest); wantErr == posterntest.ErrLineTooLong {
					wantErr = ErrLineTooLong
				}
				got, err = r.StrictLine()
				strict := wantErr == nil && strictBytes(want)
				if errors.Is(err, ErrLineEnd) == strict && wantErr == nil {
					t.Fatalf("%q: %v", want, err)
				}
				if err == ErrLineEnd {
					got, err = want, nil
				}
			} else {
				want, rest, wantErr = nextOctets(rest, int(p))
				got, err = r.Octets([]byte{}, int(p))
			}
			if cap(r.buf) > 2*MaxLine {
				t.Fatalf("holds %d bytes", cap(r.buf))
			}
			if err != wantErr || err == nil && !bytes.Equal(got, want) {
				t.Fatalf("%q, %v, want %q, %v", got, err, want, wantErr)
			}
			if err != nil {
				return
			}
		}
		if !bytes.HasPrefix(rest, r.Buffered()) {
			t.Fatalf("read ahead %q, want the beginning of %q", r.Buffered(), rest)
		}
	})
}

// strictBytes is the rule for a client's line, byte by byte.
func strictBytes(line []byte) bool {
	n := len(line)
	if n < 2 || line[n-2] != '\r' || line[n-1] != '\n' {
		return false
	}
	for _, c := range line[:n-2] {
		if c == 0 || c == '\r' || c == '\n' {
			return false
		}
	}
	return true
}

// FuzzCapabilities rewrites any line: only whole tokens of a list disappear,
// all that do not hold inside TLS, and the second time changes nothing.
func FuzzCapabilities(f *testing.F) {
	for _, line := range []string{
		"* OK [CAPABILITY IMAP4rev1 STARTTLS LOGINDISABLED] ready\r\n", "* CAPABILITY STARTTLS  AUTH=X-PLUS a\r\n",
		"a ok [capability starttls] STARTTLS\r\n", "* OK say [CAPABILITY STARTTLS]\r\n", "* OK [CAPABILITY STARTTLS\r\n",
		"STLS\r\n", "SASL PLAIN X-PLUS\r\n", "SASL X-PLUS\r\n", "X-PLUS\r\n", "* CAPABILITY \r\n", "* capability auth=-plus ]x[ starttls",
	} {
		f.Add([]byte(line))
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		kept := bytes.Clone(line)
		out := bytes.Clone(FilterIMAPCapabilities(line))
		if !bytes.Equal(line, kept) {
			t.Fatalf("the line itself has changed: %q to %q", kept, line)
		}
		if again := FilterIMAPCapabilities(out); !bytes.Equal(again, out) {
			t.Fatalf("%q became %q, then %q", line, out, again)
		}
		start, end := capabilityList(line)
		if start < 0 {
			if !bytes.Equal(out, line) {
				t.Fatalf("%q has no list and became %q", line, out)
			}
			return
		}
		var want []string
		for _, word := range strings.Split(string(line[start:end]), " ") {
			if posterntest.HoldsInsideTLS(word) {
				want = append(want, word)
			}
		}
		tail := len(line) - end
		if !bytes.HasPrefix(out, line[:start]) || !bytes.HasSuffix(out, line[end:]) || len(out) < start+tail {
			t.Fatalf("%q became %q: something around the list has changed", line, out)
		}
		got := strings.Fields(string(out[start : len(out)-tail]))
		if !slices.Equal(got, strings.Fields(strings.Join(want, " "))) {
			t.Fatalf("%q became %q: tokens %q, want %q", line, out, got, want)
		}
		checkCAPA(t, kept)
	})
}

func checkCAPA(t *testing.T, line []byte) {
	out := bytes.Clone(FilterPOP3Capability(line))
	if len(out) > len(line) || !bytes.Equal(FilterPOP3Capability(out), out) {
		t.Fatalf("%q became %q, then %q", line, out, FilterPOP3Capability(out))
	}
	words := strings.Split(strings.TrimRight(string(out), "\r\n"), " ")
	for i, word := range words {
		word = posterntest.ASCIIUpper(word)
		if len(words) == 1 && word == "STLS" || strings.HasSuffix(word, "-PLUS") && (len(words) == 1 || i > 0 && strings.EqualFold(words[0], "SASL")) {
			t.Fatalf("%q became %q: %q is still there", line, out, word)
		}
	}
}

// FuzzIDFilter gives the arguments of an ID in one piece: what comes out holds
// the honest fields in their order, and is the input itself where all were.
func FuzzIDFilter(f *testing.F) {
	for _, s := range []string{
		" NIL", " ()", ` ("name" "x")`, ` ("x-originating-ip" "1" "a" "b")`, ` ("a" "b" "X-Session-ID" "c\" \\")`, ` (x-forward-x NIL)`,
		" ({16+}\r\nx-originating-ip {1+}\r\n1 \"a\" {3+}\r\n) (", " (\"a\" {1+}\r\n( \"x-session-id\" \"y\" \"b\" \"c\")", ` ("a"`, ` ("a" "b") x`,
		` ("x-originating-ip" "x-originating-ip")`, ` ("a" "x-originating-ip")`, ` (  "x-proxy-ttl"  "1"  "a"  "b"  )`, " ({{5+}\r\n)",
	} {
		f.Add([]byte(s + "\r\n"))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		if !bytes.HasSuffix(in, crlf) {
			return
		}
		line, rest, _ := posterntest.NextLine(in)
		if !strictBytes(line) {
			return
		}
		for lit, more := LiteralAtEnd(line); more; lit, more = LiteralAtEnd(line) {
			// The relay passes on only literals that are placed, and whole.
			if !lit.PlacedIn(line) || lit.Sync || lit.Size > len(rest) {
				return
			}
			if line, rest, _ = posterntest.NextLine(rest[lit.Size:]); line == nil || !strictBytes(line) {
				return
			}
		}
		if len(rest) > 0 {
			return
		}
		out, err := filterID(string(in))
		list, ok := posterntest.IDStrings(in)
		if err != nil {
			return
		}
		if !ok {
			t.Fatalf("%q is no ID, but passed as %q", in, out)
		}
		want, found := posterntest.WithoutForbidden(list)
		got, ok := posterntest.IDStrings([]byte(out))
		if !ok || !slices.Equal(got, want) || !found && out != string(in) {
			t.Fatalf("%q became %q: %q, %v, want %q", in, out, got, ok, want)
		}
	})
}
