package proxy

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"postern/internal/hello"
	"postern/policy"
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

// nextLine and nextOctets are what a lineReader ought to do, over bytes in
// memory.
func nextLine(data []byte) (line, rest []byte, err error) {
	i := bytes.IndexByte(data, '\n')
	switch {
	case i >= 0 && i < maxLine:
		return data[:i+1], data[i+1:], nil
	case i >= 0 || len(data) >= maxLine:
		return nil, nil, errLineTooLong
	case len(data) > 0:
		return nil, nil, io.ErrUnexpectedEOF
	}
	return nil, nil, io.EOF
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
	long := bytes.Repeat([]byte("0123456789abcdef"), maxLine/16+2)
	f.Add([]byte("a LOGIN {5}\r\nhello {0+}\r\n\r\nb NOOP\r\n"), []byte{0}, []byte{0, 5, 0, 0, 0})
	f.Add([]byte("bare\rCR\r\nbare LF\nNUL \x00\r\nend"), []byte{2, 0, 7}, []byte{0, 0, 0, 0})
	f.Add([]byte("line\r\n"), []byte{}, []byte{0, 200})
	f.Add(long, []byte{255}, []byte{0})
	f.Add(append(bytes.Clone(long[:maxLine-2]), "\r\nnext\r\n"...), []byte{99, 1}, []byte{0, 0})
	f.Add(append([]byte("x\r\n"), long[:maxLine-1]...), []byte{200}, []byte{0, 0})
	f.Add([]byte("\r\n\r\r\n\n"), []byte{1}, []byte{0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, data, sizes, plan []byte) {
		r := &lineReader{src: &pieces{data: data, sizes: sizes}}
		rest := data
		for _, p := range append(plan, 0) {
			var got, want []byte
			var err, wantErr error
			if p == 0 {
				want, rest, wantErr = nextLine(rest)
				got, err = r.strictLine()
				strict := wantErr == nil && strictBytes(want)
				if errors.Is(err, errLineEnd) == strict && wantErr == nil {
					t.Fatalf("%q: %v", want, err)
				}
				if err == errLineEnd {
					got, err = want, nil
				}
			} else {
				want, rest, wantErr = nextOctets(rest, int(p))
				got, err = r.octets([]byte{}, int(p))
			}
			if len(r.buf) > 2*maxLine {
				t.Fatalf("holds %d bytes", len(r.buf))
			}
			if err != wantErr || err == nil && !bytes.Equal(got, want) {
				t.Fatalf("%q, %v, want %q, %v", got, err, want, wantErr)
			}
			if err != nil {
				return
			}
		}
		if !bytes.HasPrefix(rest, r.buffered()) {
			t.Fatalf("read ahead %q, want the beginning of %q", r.buffered(), rest)
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

// asciiUpper knows no letters but those of ASCII, as the protocols do.
func asciiUpper(s string) string {
	b := []byte(s)
	for i, c := range b {
		if c >= 'a' && c <= 'z' {
			b[i] = c - 'a' + 'A'
		}
	}
	return string(b)
}

// untrueWord is the rule for one capability, written down once more.
func untrueWord(word string) bool {
	word = asciiUpper(word)
	return word == "STARTTLS" || word == "LOGINDISABLED" || strings.HasPrefix(word, "AUTH=") && strings.HasSuffix(word, "-PLUS")
}

// FuzzCapabilities rewrites any line: only whole tokens of a list disappear,
// all untrue ones, and the second time there is nothing left to do.
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
		out := bytes.Clone(trueIMAP(line))
		if !bytes.Equal(line, kept) {
			t.Fatalf("the line itself has changed: %q to %q", kept, line)
		}
		if again := trueIMAP(out); !bytes.Equal(again, out) {
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
			if !untrueWord(word) {
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
	out := bytes.Clone(trueCAPA(line))
	if len(out) > len(line) || !bytes.Equal(trueCAPA(out), out) {
		t.Fatalf("%q became %q, then %q", line, out, trueCAPA(out))
	}
	words := strings.Split(strings.TrimRight(string(out), "\r\n"), " ")
	for i, word := range words {
		word = asciiUpper(word)
		if len(words) == 1 && word == "STLS" || strings.HasSuffix(word, "-PLUS") && (len(words) == 1 || i > 0 && strings.EqualFold(words[0], "SASL")) {
			t.Fatalf("%q became %q: %q is still there", line, out, word)
		}
	}
}

// idStrings is a reader of ID arguments of its own, as an upstream would have
// one; it returns the strings in the list, and whether it is one.
func idStrings(b []byte) (list []string, ok bool) {
	s := strings.TrimSpace(strings.TrimSuffix(string(b), "\r\n"))
	if strings.EqualFold(s, "NIL") {
		return nil, true
	}
	if !strings.HasPrefix(s, "(") {
		return nil, false
	}
	for s = s[1:]; ; {
		s = strings.TrimLeft(s, " ")
		switch {
		case s == ")":
			return list, len(list)%2 == 0
		case s == "" || s[0] == ')' || s[0] == '(':
			return list, false
		case s[0] == '"':
			value, size, ok := quotedString([]byte(s))
			if !ok {
				return list, false
			}
			list, s = append(list, value), s[size:]
			continue
		}
		if header, rest, found := strings.Cut(s, "\r\n"); found {
			if lit, ok := literalAtEnd([]byte(header + "\r\n")); ok && lit.header == len(header)+2 && lit.size <= len(rest) {
				list, s = append(list, rest[:lit.size]), rest[lit.size:]
				continue
			}
		}
		n := strings.IndexAny(s, " ()\"\r")
		if n <= 0 {
			return list, false
		}
		list, s = append(list, s[:n]), s[n:]
	}
}

func withoutForbidden(list []string) (kept []string, found bool) {
	for i := 0; i+1 < len(list); i += 2 {
		key := strings.ToLower(list[i])
		if strings.HasPrefix(key, "x-forward-") || slices.Contains([]string{"x-originating-ip", "x-originating-port",
			"x-connected-ip", "x-connected-port", "x-proxy-ttl", "x-session-id", "x-session-ext-id"}, key) {
			found = true
			continue
		}
		kept = append(kept, list[i], list[i+1])
	}
	return kept, found
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
		line, rest, _ := nextLine(in)
		if !strictBytes(line) {
			return
		}
		for lit, more := literalAtEnd(line); more; lit, more = literalAtEnd(line) {
			// The relay passes on only literals that are placed, and whole.
			if !literalPlaced(line, lit) || lit.sync || lit.size > len(rest) {
				return
			}
			if line, rest, _ = nextLine(rest[lit.size:]); line == nil || !strictBytes(line) {
				return
			}
		}
		if len(rest) > 0 {
			return
		}
		var filter idFilter
		out, err := filter.text(bytes.Clone(in), false)
		list, ok := idStrings(in)
		if err != nil {
			return
		}
		if !ok {
			t.Fatalf("%q is no ID, but passed as %q", in, out)
		}
		want, found := withoutForbidden(list)
		got, ok := idStrings(out)
		if !ok || !slices.Equal(got, want) || !found && !bytes.Equal(out, in) {
			t.Fatalf("%q became %q: %q, %v, want %q", in, out, got, ok, want)
		}
	})
}

// FuzzSSL2Hello parses any bytes, and reads them as a connection would.
func FuzzSSL2Hello(f *testing.F) {
	for _, b := range [][]byte{
		hello.SSLv2(), hello.SSLv2Offering(0x0300), hello.SSLv2Offering(0x0301), hello.SSLv2Offering(0x0303), hello.SSLv2Large(0x0302),
		ssl2Bytes(0x0304, []byte{0, 0, 1}, []byte{1}, nil), ssl2Bytes(2, []byte{1, 0, 0x80}, nil, []byte{9}), {0x80, 9, 1}, {}, {0x80},
	} {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		h, ok := parseSSL2Hello(b)
		if !ok {
			return
		}
		specs := int(binary.BigEndian.Uint16(b[5:]))
		if !h.SSL2Format || len(h.Versions) == 0 || 3*(len(h.CipherSuites)+len(h.SSL2Ciphers)) != specs {
			t.Fatalf("% x: %+v", b, h)
		}
		if h.Version() == policy.TLS13 || h.Versions[0] > binary.BigEndian.Uint16(b[3:]) {
			t.Fatalf("% x offers %v", b, h.Versions)
		}
		verdict := policy.New(policy.FloorTLS12Compat, policy.Observe).At(time.Now()).Decide(&h, policy.ConnInfo{Keys: policy.RSA}, time.Time{}, 0)
		if verdict.Serve != policy.Enforce || h.Version() != policy.NoVersion && !verdict.Legacy() {
			t.Fatalf("% x: %+v", b, verdict)
		}
		again := ssl2Bytes(binary.BigEndian.Uint16(b[3:]), b[11:11+specs], nil, make([]byte, 16))
		if specs < 256 {
			if h2, ok := parseSSL2Hello(again); !ok || !slices.Equal(h2.CipherSuites, h.CipherSuites) || !slices.Equal(h2.SSL2Ciphers, h.SSL2Ciphers) {
				t.Fatalf("% x: %+v, built again %+v", b, h, h2)
			}
		}
	})
}
