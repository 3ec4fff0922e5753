// Package logging writes the log so that no connection ever waits for it.
//
// [New] makes the logger, [Writer] queues the lines, and [Suppression] keeps
// handshakes and refused logins from filling the log.
package logging

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"regexp"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"unicode/utf16"
)

// timeFormat is RFC 3339 with milliseconds; times are in UTC.
const timeFormat = "2006-01-02T15:04:05.000Z07:00"

// New returns a logger that writes one line a record to w: text where the
// format is "text", else JSON. Each line is a single Write. Where a [Writer] leads
// to the journal, each line begins with its priority.
func New(w io.Writer, level slog.Level, format string) *slog.Logger {
	opts := &slog.HandlerOptions{Level: level, ReplaceAttr: stamp}
	q, queued := w.(*Writer)
	e := escaper{w, queued && ToJournal(q.w)}
	if format == "text" {
		return slog.New(slog.NewTextHandler(e, opts))
	}
	return slog.New(slog.NewJSONHandler(e, opts))
}

// ToJournal reports whether systemd takes what is written to a file into its
// journal, and reads priorities from it. See sd-daemon(3) and systemd.exec(5).
func ToJournal(w io.Writer) bool {
	f, ok := w.(interface{ Stat() (os.FileInfo, error) }) // a file, or what wraps one
	if !ok {
		return false
	}
	info, err := f.Stat()
	if err != nil {
		return false
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	return ok && os.Getenv("JOURNAL_STREAM") == fmt.Sprintf("%d:%d", stat.Dev, stat.Ino)
}

// Priority returns a level as the journal reads it, in syslog's numbers.
func Priority(level slog.Level) string { return priorities[level.String()[0]] }

var priorities = map[byte]string{'D': "<7>", 'I': "<6>", 'W': "<4>", 'E': "<3>"}

// priority finds the level in a line; only the time is before it.
func priority(line []byte) string {
	_, rest, _ := bytes.Cut(line, []byte("level"))
	return priorities[bytes.TrimLeft(rest, `":=`)[0]]
}

func stamp(groups []string, a slog.Attr) slog.Attr {
	if len(groups) == 0 && a.Key == slog.TimeKey && a.Value.Kind() == slog.KindTime {
		a.Value = slog.StringValue(a.Value.Time().UTC().Format(timeFormat))
	}
	return a
}

// unprintable is what [unicode.IsPrint] does not hold to be, but for ASCII.
var unprintable = regexp.MustCompile(`[^\pL\pM\pN\pP\pS\x00-\x7e]`)

func escape(char []byte) (escaped []byte) {
	for _, unit := range utf16.Encode([]rune(string(char))) {
		escaped = fmt.Appendf(escaped, `\u%04x`, unit)
	}
	return escaped
}

// escaper writes unprintable characters as \uXXXX. A client may put them into a
// server name to manipulate the terminal of the log's reader. The JSON handler
// does not escape DEL, C1 controls and bidirectional overrides, the text handler
// DEL. In JSON they only occur in strings, where the escape means the same.
type escaper struct {
	w       io.Writer
	journal bool
}

func (e escaper) Write(line []byte) (int, error) {
	out := line
	if slices.ContainsFunc(line, func(b byte) bool { return b >= 0x7f }) {
		out = unprintable.ReplaceAllFunc(line, escape)
	}
	if e.journal {
		out = append([]byte(priority(line)), out...)
	}
	if _, err := e.w.Write(out); err != nil {
		return 0, err
	}
	return len(line), nil
}

// Writer is an io.Writer that never blocks and never fails. One goroutine writes
// the queued lines. If the queue is full, or the underlying writer fails, a line
// is dropped and counted. Safe for concurrent use.
//
// If the underlying writer is stderr, the program must ignore SIGPIPE, or the Go
// runtime ends it at the first write after the reader has gone.
type Writer struct {
	w       io.Writer
	lines   chan []byte
	done    chan struct{} // closed when the goroutine has ended
	dropped atomic.Uint64

	mu sync.RWMutex
	in chan<- []byte // lines; nil once that is closed; guarded by mu
}

// NewWriter returns a Writer to w whose queue holds capacity lines. One
// goroutine at a time uses w, until Close.
func NewWriter(w io.Writer, capacity int) *Writer {
	q := &Writer{
		w:     w,
		lines: make(chan []byte, capacity),
		done:  make(chan struct{}),
	}
	q.in = q.lines
	go q.run()
	return q
}

// Write queues a copy of line, or drops it. It always returns len(line), nil.
func (q *Writer) Write(line []byte) (int, error) {
	q.mu.RLock()
	defer q.mu.RUnlock()
	select {
	case q.in <- append([]byte(nil), line...):
	default:
		q.dropped.Add(1)
	}
	return len(line), nil
}

// Dropped returns the number of lines lost since the start.
func (q *Writer) Dropped() uint64 { return q.dropped.Load() }

// Close writes out the queue. If ctx ends first, it drops the rest and returns
// the error of ctx; a write that hangs stays behind. Later lines are dropped. A
// second Close waits like the first.
func (q *Writer) Close(ctx context.Context) error {
	q.mu.Lock()
	if q.in != nil {
		q.in = nil
		close(q.lines)
	}
	q.mu.Unlock()
	select {
	case <-q.done:
		return nil
	case <-ctx.Done():
	}
	for range q.lines {
		q.dropped.Add(1)
	}
	return fmt.Errorf("flushing the log: %w", ctx.Err())
}

func (q *Writer) run() {
	defer close(q.done)
	torn := false // the last line was cut short
	for line := range q.lines {
		if torn {
			// End the line that was cut short, to keep this one intact.
			line = append([]byte{'\n'}, line...)
		}
		n, _ := q.w.Write(line)
		if n < len(line) {
			q.dropped.Add(1)
		}
		torn = n > 0 && n < len(line) || torn && n == 0
	}
}
