// Package mailproto reads IMAP4 (RFC 9051, RFC 3501) and POP3 (RFC 1939) as far
// as a proxy has to understand them before a login: lines and literals with
// limits, the syntax of commands and replies, capabilities, ID, and who logs
// in. It knows bytes and io.Reader, and neither connections nor sessions.
package mailproto

import (
	"bytes"
	"errors"
	"io"
)

const (
	// MaxLine is the longest line that is read, its end included.
	MaxLine = 64 << 10
	// MaxLiterals is what the literals of one command or response, or a
	// multi-line POP3 reply, may sum up to.
	MaxLiterals = 256 << 10
)

var (
	ErrLineTooLong = errors.New("line too long")
	ErrLiterals    = errors.New("literals too long")
	// ErrLineEnd is a line that does not end in CRLF, or has a CR, an LF or a
	// NUL elsewhere: two readers might see different lines in it.
	ErrLineEnd = errors.New("line with a bare CR, LF or NUL")
)

var crlf = []byte("\r\n")

// LineReader reads whole lines and literals from a stream.
type LineReader struct {
	src        io.Reader
	buf        []byte
	start, end int
}

// NewLineReader returns a LineReader that reads from src.
func NewLineReader(src io.Reader) *LineReader { return &LineReader{src: src} }

// Line returns the next line with its LF or CRLF; the slice is valid until the
// next call. At the end of the stream it returns io.EOF, and
// io.ErrUnexpectedEOF inside a line.
func (r *LineReader) Line() ([]byte, error) {
	searched := 0
	for {
		if i := bytes.IndexByte(r.buf[r.start+searched:r.end], '\n'); i >= 0 {
			n := searched + i + 1
			line := r.buf[r.start : r.start+n]
			r.start += n
			if n > MaxLine {
				return nil, ErrLineTooLong
			}
			return line, nil
		}
		searched = r.end - r.start
		if searched >= MaxLine {
			return nil, ErrLineTooLong
		}
		if err := r.fill(); err != nil {
			if err == io.EOF && searched > 0 {
				err = io.ErrUnexpectedEOF
			}
			return nil, err
		}
	}
}

// StrictLine is Line for commands that are passed on: it returns ErrLineEnd for
// a line that another server might end elsewhere.
func (r *LineReader) StrictLine() ([]byte, error) {
	line, err := r.Line()
	if err != nil {
		return nil, err
	}
	if !strictLineEnd(line) {
		return nil, ErrLineEnd
	}
	return line, nil
}

func strictLineEnd(line []byte) bool {
	body, ok := bytes.CutSuffix(line, crlf)
	return ok && !bytes.ContainsAny(body, "\r\n\x00")
}

// Octets appends the next n octets to dst.
func (r *LineReader) Octets(dst []byte, n int) ([]byte, error) {
	for n > 0 {
		if r.start == r.end {
			if err := r.fill(); err != nil {
				if err == io.EOF {
					err = io.ErrUnexpectedEOF
				}
				return dst, err
			}
		}
		take := min(n, r.end-r.start)
		dst = append(dst, r.buf[r.start:r.start+take]...)
		r.start += take
		n -= take
	}
	return dst, nil
}

// fill reads once, making room as needed. The buffer never grows beyond twice
// MaxLine.
func (r *LineReader) fill() error {
	if r.start == r.end {
		r.start, r.end = 0, 0
	}
	if r.end == len(r.buf) {
		if r.start > 0 {
			r.end = copy(r.buf, r.buf[r.start:r.end])
			r.start = 0
		} else {
			grown := make([]byte, max(1024, 2*len(r.buf)))
			copy(grown, r.buf[:r.end])
			r.buf = grown
		}
	}
	n, err := r.src.Read(r.buf[r.end:])
	r.end += n
	if n > 0 {
		return nil
	}
	return err
}

// Buffered returns what was read from the stream and not handed out yet.
func (r *LineReader) Buffered() []byte { return r.buf[r.start:r.end] }

// TrimLineEnd returns line without the CRLF, or LF, at its end.
func TrimLineEnd(line []byte) []byte {
	body, ok := bytes.CutSuffix(line, crlf[1:])
	if ok {
		body = bytes.TrimSuffix(body, crlf[:1])
	}
	return body
}

// Keyword is a word of a mail protocol. Its case does not matter in ASCII, and
// does in all else (RFC 9051, Section 2.2; RFC 1939, Section 3).
type Keyword []byte

// Is reports whether k is one of the words.
func (k Keyword) Is(words ...string) bool {
	for _, w := range words {
		if len(k) == len(w) && HasPrefixFold(k, w) {
			return true
		}
	}
	return false
}

// HasPrefixFold reports whether b begins with prefix, without regard to the
// case of ASCII letters.
func HasPrefixFold(b []byte, prefix string) bool {
	if len(b) < len(prefix) {
		return false
	}
	for i := range len(prefix) {
		if lower(b[i]) != lower(prefix[i]) {
			return false
		}
	}
	return true
}

func lower(c byte) byte {
	if c >= 'A' && c <= 'Z' {
		c += 'a' - 'A'
	}
	return c
}
