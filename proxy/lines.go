package proxy

import (
	"bytes"
	"errors"
	"io"
)

// What is taken from either side before login.
const (
	// maxLine is the longest line, its end included.
	maxLine = 64 << 10
	// maxLiterals is what the literals of one command or response may sum up
	// to.
	maxLiterals = 256 << 10
)

var (
	errLineTooLong = errors.New("line too long")
	errLiterals    = errors.New("literals too long")
	// errLineEnd is a line that does not end in CRLF, or has a CR, an LF or a
	// NUL elsewhere: the two sides of a relay might see different lines in it.
	errLineEnd = errors.New("line with a bare CR, LF or NUL")
)

// lineReader is the one reader of a side, until login: it hands out whole
// lines and literals, and what it has read ahead afterwards.
type lineReader struct {
	src        io.Reader
	buf        []byte
	start, end int
}

// line returns the next line with its CRLF; the slice is good until the next
// call. At the end of the stream it returns io.EOF, and io.ErrUnexpectedEOF
// inside a line.
func (r *lineReader) line() ([]byte, error) {
	searched := 0
	for {
		if i := bytes.IndexByte(r.buf[r.start+searched:r.end], '\n'); i >= 0 {
			n := searched + i + 1
			line := r.buf[r.start : r.start+n]
			r.start += n
			if n > maxLine {
				return nil, errLineTooLong
			}
			return line, nil
		}
		searched = r.end - r.start
		if searched >= maxLine {
			return nil, errLineTooLong
		}
		if err := r.fill(); err != nil {
			if err == io.EOF && searched > 0 {
				err = io.ErrUnexpectedEOF
			}
			return nil, err
		}
	}
}

// strictLine is line for a client's commands: it takes no line that an
// upstream might end elsewhere.
func (r *lineReader) strictLine() ([]byte, error) {
	line, err := r.line()
	if err != nil {
		return nil, err
	}
	if !strictLineEnd(line) {
		return nil, errLineEnd
	}
	return line, nil
}

func strictLineEnd(line []byte) bool {
	body, ok := bytes.CutSuffix(line, crlf)
	return ok && !bytes.ContainsAny(body, "\r\n\x00")
}

var crlf = []byte("\r\n")

// octets appends the next n octets to dst.
func (r *lineReader) octets(dst []byte, n int) ([]byte, error) {
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

// fill reads once, making room as needed; the room never exceeds maxLine by
// more than its doubling.
func (r *lineReader) fill() error {
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

// buffered is what was read ahead and not taken.
func (r *lineReader) buffered() []byte { return r.buf[r.start:r.end] }
