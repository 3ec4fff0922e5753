package plan

import (
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"postern/internal/text"
)

func TestADateAndANameStayOnOneLine(t *testing.T) {
	when := time.Date(2026, 6, 8, 0, 0, 0, 0, time.UTC)
	for n := range 90 {
		got := columns([]row{{text.Date(when, nil), strings.Repeat("x ", n) + text.Date(when, time.UTC) + " 5 % end"}})
		if strings.Count(got, "Mon 8 Jun 2026 00:00 UTC") != 2 || strings.Count(got, "5 %") != 1 || strings.Contains(got, "\u00a0") {
			t.Errorf("broken:\n%s", got)
		}
		for line := range strings.Lines(got) {
			if utf8.RuneCountInString(line) > text.Width+1 || strings.HasSuffix(line, " \n") {
				t.Errorf("line of %d: %q", utf8.RuneCountInString(line), line)
			}
		}
	}
}

func TestALongLabelStandsOnItsOwnLine(t *testing.T) {
	label := strings.Repeat("n", widestLabel+1)
	got := columns([]row{{label, "words"}, {"short", "more words"}, {"", "further"}})
	if want := label + "\n       words\nshort  more words\n       further\n"; got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestSharesThatDifferAreWrittenSo(t *testing.T) {
	for _, tt := range []struct {
		a, b float64
		x, y string
	}{
		{0.613, 0.43, "61.3 %", "43 %"}, {0.25, 0.25, "25 %", "25 %"}, {0.250001, 0.25, "25.0001 %", "25.0000 %"}, {0.1234567, 0, "12.35 %", "0 %"},
	} {
		if x, y := apart(tt.a, tt.b); x != tt.x || y != tt.y {
			t.Errorf("%v and %v: %s, %s; want %s, %s", tt.a, tt.b, x, y, tt.x, tt.y)
		}
	}
}
