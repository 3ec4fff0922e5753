package text

import (
	"io"
	"os"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/term"
)

// Color is how a cell looks on a terminal; the zero value is plain.
type Color string

const (
	Green  Color = "\x1b[32m"
	Yellow Color = "\x1b[33m"
	Red    Color = "\x1b[31m"
	Dim    Color = "\x1b[2m"

	bold  Color = "\x1b[1m"
	reset Color = "\x1b[0m"
)

// A Cell is one field of a row.
type Cell struct {
	Text  string
	Color Color
}

// ColorOK reports whether w is a terminal whose user has not asked for plain
// text (a NO_COLOR that is not empty, or TERM=dumb).
func ColorOK(w io.Writer) bool {
	f, ok := w.(interface{ Fd() uintptr })
	return ok && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb" && term.IsTerminal(int(f.Fd()))
}

// WriteTable writes header and rows in columns two spaces apart, with colours if
// color is set (text/tabwriter would count their codes as width). A character
// counts as one column, which holds for Latin text; unprintable ones become '?'.
// Rows may be shorter or longer than the header. The error is the first of w.
func WriteTable(w io.Writer, color bool, header []string, rows [][]Cell) error {
	head := Each(header, func(text string) Cell { return Cell{text, bold} })
	lines := append([][]Cell{head}, rows...)
	var widths []int
	for _, line := range lines {
		for i, cell := range line {
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], utf8.RuneCountInString(cell.Text))
		}
	}
	var b strings.Builder
	for _, line := range lines {
		writeLine(&b, color, line, widths)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// writeLine pads before a cell, never after the last one, so that no line ends in
// spaces.
func writeLine(b *strings.Builder, color bool, line []Cell, widths []int) {
	pad := 0
	for i, cell := range line {
		if cell.Text != "" {
			text := printable(cell.Text)
			if color && cell.Color != "" {
				text = string(cell.Color) + text + string(reset)
			}
			b.WriteString(strings.Repeat(" ", pad) + text)
			pad = 0
		}
		pad += widths[i] - utf8.RuneCountInString(cell.Text) + 2
	}
	b.WriteByte('\n')
}

// printable keeps a stranger's text from steering the terminal.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return '?'
	}, s)
}
