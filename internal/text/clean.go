package text

import (
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Clean returns a stranger's text on one line of at most n bytes, without what
// a terminal would obey or the eye does not see. Formulas stay as they are:
// [AppendRecord] guards against them where a spreadsheet may read the text.
func Clean(s string, n int) string {
	if len(s) <= n && harmless(s) {
		return s
	}
	if len(s) > 8*n {
		s = s[:8*n] // the rest could matter only behind that many blanks
	}
	s = strings.Map(func(r rune) rune {
		// Controls, and what turns the direction of writing or has no width.
		if unicode.IsControl(r) || unicode.In(r, unicode.Cf, unicode.Zl, unicode.Zp) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
	return strings.TrimSpace(Cut(strings.Join(strings.Fields(s), " "), n))
}

// harmless reports whether a text needs no cleaning; most do not.
func harmless(s string) bool {
	strange := func(r rune) bool { return r < ' ' || r > '~' }
	return strings.Trim(s, " ") == s && !strings.Contains(s, "  ") && !strings.ContainsFunc(s, strange)
}

// Cut returns the first n bytes of a text, or up to three fewer where a character
// would be cut in two.
func Cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for i := n; i > n-utf8.UTFMax && i >= 0; i-- {
		if utf8.RuneStart(s[i]) {
			return s[:i]
		}
	}
	return s[:n]
}

// Clip returns a text of at most n characters; one that is longer ends in tail.
func Clip(s string, n int, tail string) string {
	if utf8.RuneCountInString(s) <= n {
		return s
	}
	return string([]rune(s)[:max(n-utf8.RuneCountInString(tail), 0)]) + tail
}

// Quote returns a text of at most n characters as a literal of printable ASCII.
func Quote(s string, n int) string { return strconv.QuoteToASCII(Clip(s, n, "...")) }

// AppendRecord appends a line of CSV (RFC 4180). It guards fields that begin like a
// formula, as a spreadsheet takes them for one (OWASP, CSV injection).
func AppendRecord(b []byte, fields []string) []byte {
	for i, field := range fields {
		if i > 0 {
			b = append(b, ',')
		}
		if field != "" && strings.ContainsRune("=+-@\t\r\n", rune(field[0])) {
			field = "'" + field
		}
		if strings.ContainsAny(field, "\",\r\n") {
			field = `"` + strings.ReplaceAll(field, `"`, `""`) + `"`
		}
		b = append(b, field...)
	}
	return append(b, "\r\n"...)
}
