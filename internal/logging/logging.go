// Package logging writes the log so that no connection ever waits for it.
//
// [New] makes the logger, [Writer] queues the lines, and [Suppression] keeps
// legacy handshakes from filling the log.
package logging

import (
	"fmt"
	"io"
	"log/slog"
	"slices"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

// timeFormat is RFC 3339 with milliseconds; times are in UTC.
const timeFormat = "2006-01-02T15:04:05.000Z07:00"

// New returns a logger that writes one line a record to w: text where the
// format is "text", else JSON. Each line is a single Write.
func New(w io.Writer, level slog.Level, format string) *slog.Logger {
	opts := &slog.HandlerOptions{Level: level, ReplaceAttr: stamp}
	if format == "text" {
		return slog.New(slog.NewTextHandler(escaper{w}, opts))
	}
	return slog.New(slog.NewJSONHandler(escaper{w}, opts))
}

func stamp(groups []string, a slog.Attr) slog.Attr {
	if len(groups) == 0 && a.Key == slog.TimeKey && a.Value.Kind() == slog.KindTime {
		a.Value = slog.StringValue(a.Value.Time().UTC().Format(timeFormat))
	}
	return a
}

// escaper writes unprintable characters as \uXXXX. A client may put them into a
// server name to manipulate the terminal of the log's reader. The JSON handler
// does not escape DEL, C1 controls and bidirectional overrides, the text handler
// DEL. In JSON they only occur in strings, where the escape means the same.
type escaper struct{ w io.Writer }

func (e escaper) Write(line []byte) (int, error) {
	if !slices.ContainsFunc(line, func(b byte) bool { return b >= 0x7f }) {
		return e.w.Write(line)
	}
	out := make([]byte, 0, len(line)+64)
	for i := 0; i < len(line); {
		r, size := utf8.DecodeRune(line[i:])
		if r < 0x7f || unicode.IsPrint(r) {
			out = append(out, line[i:i+size]...)
		} else {
			for _, unit := range utf16.Encode([]rune{r}) {
				out = fmt.Appendf(out, `\u%04x`, unit)
			}
		}
		i += size
	}
	if _, err := e.w.Write(out); err != nil {
		return 0, err
	}
	return len(line), nil
}
