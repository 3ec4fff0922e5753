// Package mailproto reads IMAP4 (RFC 9051, RFC 3501) and POP3 (RFC 1939) as far
// as a proxy has to understand them before a login: lines and literals with
// limits, the syntax of commands and replies, capabilities, ID, and who logs
// in. It knows bytes and io.Reader, and neither connections nor sessions.
package mailproto

import (
	"bytes"
	"errors"
	"io"
	"slices"
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
	src   io.Reader
	buf   []byte // of which start bytes have been handed out
	start int
	// maxLiterals bounds those of one response.
	maxLiterals int
	// Keep keeps what is handed out, until that takes more room than the buffer has.
	Keep bool
}

// NewLineReader returns a LineReader that reads from src.
func NewLineReader(src io.Reader) *LineReader { return &LineReader{src: src, maxLiterals: MaxLiterals} }

// Buffered returns what was read from the stream and not handed out yet.
func (r *LineReader) Buffered() []byte { return r.buf[r.start:] }

// HandedOut returns all that was handed out, or nothing where it was not kept.
func (r *LineReader) HandedOut() []byte {
	if !r.Keep {
		return nil
	}
	return r.buf[:r.start]
}

// Wait returns when there is something to read, or the error for which nothing is.
func (r *LineReader) Wait() error {
	if len(r.Buffered()) > 0 {
		return nil
	}
	return r.fill()
}

// Line returns the next line with its LF or CRLF; the slice is valid until the
// next call. At the end of the stream it returns io.EOF, and
// io.ErrUnexpectedEOF inside a line.
func (r *LineReader) Line() ([]byte, error) {
	for searched := 0; ; {
		ahead := r.Buffered()
		n := searched + bytes.IndexByte(ahead[searched:], '\n') + 1
		switch {
		case n > MaxLine, n == searched && len(ahead) >= MaxLine:
			return nil, ErrLineTooLong
		case n > searched:
			r.start += n
			return ahead[:n], nil
		}
		searched = len(ahead)
		if err := r.fill(); err == io.EOF && searched > 0 {
			return nil, io.ErrUnexpectedEOF
		} else if err != nil {
			return nil, err
		}
	}
}

// StrictLine is Line for commands that are passed on: it returns ErrLineEnd for
// a line that another server might end elsewhere.
func (r *LineReader) StrictLine() ([]byte, error) {
	line, err := r.Line()
	if err == nil && !strictLineEnd(line) {
		return nil, ErrLineEnd
	}
	return line, err
}

func strictLineEnd(line []byte) bool {
	body, ok := bytes.CutSuffix(line, crlf)
	return ok && !bytes.ContainsAny(body, "\r\n\x00")
}

// Octets appends the next n octets to dst.
func (r *LineReader) Octets(dst []byte, n int) ([]byte, error) {
	for {
		take := min(n, len(r.Buffered()))
		dst = append(dst, r.Buffered()[:take]...)
		r.start += take
		if n -= take; n == 0 {
			return dst, nil
		}
		if err := r.fill(); err == io.EOF {
			return dst, io.ErrUnexpectedEOF
		} else if err != nil {
			return dst, err
		}
	}
}

// fill reads once, making room as needed. The buffer never grows beyond twice
// MaxLine.
func (r *LineReader) fill() error {
	full := len(r.buf) == cap(r.buf)
	if r.Keep = r.Keep && !(full && r.start > 0); full || r.start == len(r.buf) && !r.Keep {
		r.buf = r.buf[:copy(r.buf, r.Buffered())]
		r.start = 0
	}
	if have := len(r.buf); have == cap(r.buf) {
		r.buf = append(make([]byte, 0, max(1024, 2*have)), r.buf...)
	}
	n, err := r.src.Read(r.buf[len(r.buf):cap(r.buf)])
	r.buf = r.buf[:len(r.buf)+n]
	if n > 0 {
		return nil
	}
	return err
}

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

// Is reports whether k is one of the words, which are ASCII.
func (k Keyword) Is(words ...string) bool {
	// As long as w in bytes, k folds to it only if it is ASCII as well.
	return slices.ContainsFunc(words, func(w string) bool { return len(k) == len(w) && bytes.EqualFold(k, []byte(w)) })
}

// HasPrefixFold reports whether b begins with prefix, without regard to the
// case of ASCII letters.
func HasPrefixFold(b []byte, prefix string) bool {
	return len(b) >= len(prefix) && Keyword(b[:len(prefix)]).Is(prefix)
}
