package mailproto

import (
	"strings"
	"testing"
)

// TestHowAProgramSpeaks: what real programs send before their login, by what is known of them.
func TestHowAProgramSpeaks(t *testing.T) {
	for _, tt := range []struct{ name, listener, before, inside, want string }{
		{"curl", "imap", "A001 CAPABILITY|A002 STARTTLS|", "A003 CAPABILITY|A004 AUTHENTICATE PLAIN AGFubmEAc2VjcmV0|", "imap A001 CAPABILITY STARTTLS TLS CAPABILITY AUTHENTICATE:PLAIN:ir"},
		{"fetchmail", "imaps", "", "A0001 LOGIN \"anna\" \"secret\"|", "imaps A0001 LOGIN:quoted:quoted"},
		{"imaplib", "imaps", "", "GHHN0 CAPABILITY|GHHN1 LOGIN anna \"secret\"|", "imaps AAAA0 CAPABILITY LOGIN:atom:quoted"},
		{"Gnus, whose tag starts again", "imap", "1 CAPABILITY|1 STARTTLS|", "1 CAPABILITY|2 LOGIN \"a\" \"b\"|", "imap 1 CAPABILITY ^STARTTLS TLS ^CAPABILITY LOGIN:quoted:quoted"},
		{"aerc, whose tags are random", "imaps", "", "qHzWdM CAPABILITY|TnbJKa LOGIN anna b|", "imaps ****** CAPABILITY ?LOGIN:atom:atom"},
		{"go-imap, whose tags have digits", "imaps", "", "8N1vtA LOGIN \"anna\" \"b\"|", "imaps ****** LOGIN:quoted:quoted"},
		{"go-imap, whose tag has a - in the middle", "imaps", "", "fs-kug LOGIN \"anna\" \"b\"|", "imaps ****** LOGIN:quoted:quoted"},
		{"go-imap, whose tag has a _ behind a digit", "imaps", "", "qw7_33 LOGIN \"anna\" \"b\"|", "imaps ****** LOGIN:quoted:quoted"},
		{"a word before the number", "imaps", "", "Tag-01 NOOP|", "imaps Aaa-01 NOOP"},
		{"tags from 9 on", "imaps", "", "a9 NOOP|a10 NOOP|", "imaps a9 NOOP NOOP"},
		{"tags from 0099 on", "imaps", "", "0099 noop|0100 Capability|", "imaps 0099 noop Capability"},
		{"a number that must be random, though it begins with 0", "imaps", "", "x04831 LOGIN {4}|", "imaps a99999 LOGIN:literal"},
		{"Thunderbird, whose first tag is random", "imaps", "", "85 CAPABILITY|86 LOGIN \"a\" \"b\"|", "imaps 99 CAPABILITY LOGIN:quoted:quoted"},
		{"imapfilter", "imaps", "", "1000 CAPABILITY|1001 NOOP|", "imaps 1000 CAPABILITY NOOP"},
		{"a number that must be random", "imaps", "", "x83921 LOGIN {4}|", "imaps a99999 LOGIN:literal"},
		{"a literal that nobody has to ask for", "imaps", "", "x4y1 LOGIN {4+}|", "imaps **** LOGIN:literal+"},
		{"one that does not log in", "imaps", "", "a1 LOGOUT|", "imaps a1 LOGOUT"},
		{"a command that is not known", "imaps", "", "1 XFOO bar|", "imaps 1 X"},
		{"what comes behind a login", "imaps", "", "1 LOGIN a b|2 LOGIN c \"d\"|3 NOOP|", "imaps 1 LOGIN:atom:atom"},
		{"a mechanism that is not known", "imaps", "", "1 AUTHENTICATE anna@example.org secret|", "imaps 1 AUTHENTICATE:other:ir"},
		{"an ID in a literal", "imap", "1 ID (\"name\" {4}|a|b)|2 STARTTLS|", "", "imap 1 ID STARTTLS"},
		{"POP3", "pop3", "CAPA|STLS|", "CAPA|AUTH|USER anna|PASS secret|", "pop3 CAPA STLS TLS CAPA AUTH USER"},
		{"POP3 in lower case", "pop3s", "", "capa|auth plain|", "pop3s capa auth:PLAIN"},
		{"one that is refused", "imap", "A STARTTLS|", "", "imap A STARTTLS"},
		{"nothing but TLS", "imap", "A STARTTLS|", "|", "imap A STARTTLS TLS"},
		{"nothing at all but TLS", "imap", "", "|", ""},
		{"nothing", "imaps", "", "", ""},
		{"no command", "imaps", "", "anna|secret|", ""},
	} {
		s := NewSpeech(tt.listener, []byte(strings.ReplaceAll(tt.before, "|", "\r\n")))
		if tt.inside != "" && !strings.HasSuffix(tt.listener, "s") {
			s.StartTLS()
		}
		for line := range strings.SplitAfterSeq(tt.inside, "|") {
			s.Line([]byte(strings.ReplaceAll(line, "|", "\r\n")))
		}
		if got := s.Pattern(); got != tt.want {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
}

// FuzzSpeech: whatever a client says, its pattern is short and of a closed alphabet.
func FuzzSpeech(f *testing.F) {
	f.Add("imap", "1 ID (\"name\" {4}\r\nab", "2 LOGIN a {4+}\r\n")
	f.Add("pop3", "AUTH x y\n\n", "USER anna\r\n")
	f.Add("imap", "", "0 X\r\n")
	f.Fuzz(func(t *testing.T, listener, before, inside string) {
		for _, listener := range []string{"imaps", "imap", "pop3s", "pop3"} {
			s := NewSpeech(listener, []byte(before))
			if !strings.HasSuffix(listener, "s") {
				s.StartTLS()
			}
			for line := range strings.Lines(inside) {
				s.Line([]byte(line))
			}
			p := s.Pattern()
			if len(p) > maxSpeech {
				t.Errorf("%d bytes: %q", len(p), p)
			}
			words := strings.Fields(strings.ReplaceAll(p, ":", " "))
			for i, word := range words {
				tag := (i == 1 || i == 2 && words[1] == "TLS") && strings.HasPrefix(listener, "imap")
				word = strings.TrimLeft(word, "^?")
				if tag && strings.Trim(word, "Aa0123456789.-_*") == "" || word == listener || speechWords[strings.ToUpper(word)] {
					continue
				}
				t.Errorf("%q has %q", p, word)
			}
		}
	})
}

var speechWords = make(map[string]bool)

func init() {
	for _, list := range [][]string{commands, mechanisms, strings.Fields("TLS X IR ATOM QUOTED LITERAL LITERAL+ OTHER")} {
		for _, w := range list {
			speechWords[w] = true
		}
	}
}

// BenchmarkSpeech is what a legacy session costs, from STARTTLS to its login: two
// microseconds at most.
func BenchmarkSpeech(b *testing.B) {
	before, capability := []byte("a0000 CAPABILITY\r\na0001 STARTTLS\r\n"), []byte("a0002 CAPABILITY\r\n")
	for _, login := range []string{"AUTHENTICATE PLAIN AGFubmEAc2VjcmV0", `LOGIN "anna" "secret"`} {
		line := []byte("a0003 " + login + "\r\n")
		b.Run(login[:5], func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				s := NewSpeech("imap", before)
				s.StartTLS()
				s.Line(capability)
				s.Line(line)
				if s.Pattern() == "" {
					b.Fatal("no pattern")
				}
			}
		})
	}
}

// TestAModernClientCostsNothing: it has no Speech.
func TestAModernClientCostsNothing(t *testing.T) {
	var s *Speech
	line := []byte("a1 LOGIN anna secret\r\n")
	if n := testing.AllocsPerRun(100, func() { s.Line(line) }); n != 0 || s.Pattern() != "" {
		t.Errorf("%v allocations", n)
	}
}
