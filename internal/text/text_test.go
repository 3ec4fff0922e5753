package text

import (
	"strings"
	"testing"
	"time"
)

func TestTextIsBrokenBetweenWordsAlone(t *testing.T) {
	for _, tt := range []struct{ text, want string }{
		{"", ""},
		{"one", "one"},
		{"one two  three", "one two|  three"},
		{"a longword-that-fits-nowhere b", "a|  longword-that-fits-nowhere|  b"},
		{"at " + Glued("two oh five") + " sharp", "at|  two oh five|  sharp"},
		{"ä ö ü ß ô", "ä ö ü ß|  ô"},
	} {
		if got := strings.Join(Wrap(tt.text, "  ", 8), "|"); got != tt.want {
			t.Errorf("%q is %q, want %q", tt.text, got, tt.want)
		}
	}
}

func TestDatesAndDistances(t *testing.T) {
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	at := time.Date(2026, 6, 8, 0, 0, 0, 0, time.UTC)
	if got := Unglued(Date(at, berlin)); got != "Mon 8 Jun 2026 02:00 CEST" {
		t.Error(got)
	}
	if got := Unglued(Date(at.Add(time.Second), nil)); got != "Mon 8 Jun 2026 00:00:01 UTC" {
		t.Error(got)
	}
	if got := CommaDate(at, berlin); got != "Mon 8 Jun 2026, 02:00 CEST" {
		t.Error(got)
	}
	for d, want := range map[time.Duration][2]string{
		0: {"within a minute", "just now"}, time.Minute: {"in a minute", "a minute ago"},
		119 * time.Minute: {"in 119 minutes", "119 minutes ago"}, 2 * time.Hour: {"in 2 hours", "2 hours ago"},
		47 * time.Hour: {"in 47 hours", "47 hours ago"}, 48 * time.Hour: {"in 2 days", "2 days ago"},
	} {
		if got := [2]string{Ahead(d), Ago(d)}; got != want {
			t.Errorf("%v is %q, want %q", d, got, want)
		}
	}
}

func TestDurationsAreWrittenAsPeopleWriteThem(t *testing.T) {
	for d, want := range map[time.Duration][2]string{
		10 * time.Minute: {"10m", "10m"}, time.Hour: {"1h", "1h"}, 90 * time.Minute: {"1h30m", "1h30m"}, 20 * time.Hour: {"20h", "20h"},
		100 * time.Minute: {"1h40m", "1h40m"}, 45 * time.Second: {"45s", "45s"}, time.Hour + time.Second: {"1h0m1s", "1h0m1s"},
		24 * time.Hour: {"24h", "24 hours"}, 36 * time.Hour: {"36h", "36h"}, 48 * time.Hour: {"48h", "2 days"},
	} {
		if got := [2]string{Duration(d), Days(d)}; got != want {
			t.Errorf("%v: got %q, want %q", d, got, want)
		}
	}
}

func TestCleanText(t *testing.T) {
	for _, c := range [][2]string{
		{"Outlook 14", "Outlook 14"}, {" a \t\r\n b ", "a b"}, {"a  b", "a b"}, {"a ", "a"}, {"a\x00b", "a b"}, {"a\x1b[2Jb", "a [2Jb"},
		{"a\u202eb", "a b"}, {"a\u00a0b", "a b"}, {"Ä\xffÖ", "Ä?Ö"}, {"0123456789ä", "0123456789"}, {"012345678ää", "012345678"},
		{"012345678 a", "012345678"}, {"", ""}, {"\u200b", ""}, {strings.Repeat(" ", 79) + "ab", "a"}, {strings.Repeat(" ", 80) + "ab", ""},
	} {
		if got := Clean(c[0], 10); got != c[1] {
			t.Errorf("%q becomes %q, want %q", c[0], got, c[1])
		}
	}
}

func TestLongTextIsCutBetweenCharacters(t *testing.T) {
	for _, c := range []struct{ got, want string }{
		{Cut("äöü", 6), "äöü"}, {Cut("äöü", 5), "äö"}, {Cut("äöü", 1), ""}, {Cut("\xbf\xbf", 1), "\xbf"}, {Cut("Mail"+strings.Repeat("\x80", 9), 8), "Mail\x80\x80\x80\x80"},
		{Clip("äöü", 3, "..."), "äöü"}, {Clip("äöüß", 3, "…"), "äö…"}, {Clip("abcdef", 5, "..."), "ab..."},
		{Quote("ä\x1b\n", 3), `"\u00e4\x1b\n"`}, {Quote("abcdef", 5), `"ab..."`},
	} {
		if c.got != c.want {
			t.Errorf("got %q, want %q", c.got, c.want)
		}
	}
}

func TestAFormulaIsGuardedInCSV(t *testing.T) {
	for field, want := range map[string]string{
		"=1": "'=1", "+1": "'+1", "-1": "'-1", "@A1": "'@A1", "\t=1": "'\t=1", "\r=1": "\"'\r=1\"", "\n=1": "\"'\n=1\"",
		"": "", "a=1": "a=1", "192.0.2.7": "192.0.2.7", "'=1": "'=1", `a "b", c`: `"a ""b"", c"`, "a\nb": "\"a\nb\"",
	} {
		if got := string(AppendRecord(nil, []string{field, "x"})); got != want+",x\r\n" {
			t.Errorf("%q becomes %q", field, got)
		}
	}
}
