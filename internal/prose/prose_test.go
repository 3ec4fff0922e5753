package prose

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
	if got := Plain(Date(at, berlin)); got != "Mon 8 Jun 2026 02:00 CEST" {
		t.Error(got)
	}
	if got := Plain(Date(at.Add(time.Second), nil)); got != "Mon 8 Jun 2026 00:00:01 UTC" {
		t.Error(got)
	}
	for d, want := range map[time.Duration]string{
		time.Minute: "in 1 minutes", 119 * time.Minute: "in 119 minutes", 2 * time.Hour: "in 2 hours", 47 * time.Hour: "in 47 hours", 48 * time.Hour: "in 2 days",
	} {
		if got := Ahead(d); got != want {
			t.Errorf("%v is %q, want %q", d, got, want)
		}
	}
}
