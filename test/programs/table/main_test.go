package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// What a program has said without a login, any probe says, too.
func TestOnlyWhatLogsInNamesAProgram(t *testing.T) {
	tableHas(t, []said{
		{"imaps", "a1 LOGOUT"},
		{"imaps", "a1 CAPABILITY|a2 LOGOUT"},
		{"imaps", "a1 capability|a2 ID NIL|a3 NOOP"},
		{"imap", "a1 STARTTLS|TLS|a2 CAPABILITY|a3 LOGOUT"},
		{"imap", "a1 CAPABILITY|a2 STARTTLS|TLS"},
		{"imaps", ""},
		{"pop3s", "CAPA|QUIT"},
		{"pop3s", "AUTH|QUIT"},
		{"pop3s", "QUIT"},
		{"pop3", "CAPA|STLS|TLS|CAPA|QUIT"},
		{"imaps", "a1 CAPABILITY|a2 login \"ACCOUNT\" \"PASSWORD\"|a3 LOGOUT"},
		{"imaps", "a1 NOOP|b7 AUTHENTICATE PLAIN"},
		{"pop3s", "CAPA|AUTH PLAIN BASE64"},
		{"pop3", "STLS|TLS|APOP ACCOUNT DIGEST"},
		{"pop3s", "user ACCOUNT|pass PASSWORD"},
	}, "imaps a1 CAPABILITY login:quoted:quoted", "imaps a1 NOOP ?AUTHENTICATE:PLAIN", "pop3 STLS TLS APOP", "pop3s CAPA AUTH:PLAIN:ir", "pop3s user")
}

// One whose first tag is a random number up to a hundred is known by all of them, and one
// that counts up by its own alone.
func TestARandomTagIsKnownByAnyOther(t *testing.T) {
	tableHas(t, []said{{"imaps", "57 LOGIN a b"}, {"imap", "3 STARTTLS|TLS|4 LOGIN a b"}, {"pop3s", "USER a"}},
		"imap 10 STARTTLS TLS LOGIN:atom:atom", "imap 9 STARTTLS TLS LOGIN:atom:atom", "imap 99 STARTTLS TLS LOGIN:atom:atom",
		"imaps 10 LOGIN:atom:atom", "imaps 9 LOGIN:atom:atom", "imaps 99 LOGIN:atom:atom", "pop3s USER")
	tableHas(t, []said{{"imaps", "1 LOGIN a b"}, {"imaps", "7 LOGIN a b"}}, "imaps 1 LOGIN:atom:atom", "imaps 9 LOGIN:atom:atom")
}

// The table is that of the transcripts.
func TestTheTableIsMadeFromTheTranscripts(t *testing.T) {
	want, err := os.ReadFile("../../../internal/programs/patterns.txt")
	if err != nil {
		t.Fatal(err)
	}
	var got strings.Builder
	if err := write(&got, "../transcripts"); err != nil {
		t.Fatal(err)
	}
	if got.String() != string(want) {
		t.Error("internal/programs/patterns.txt is another: go run ./test/programs/table > internal/programs/patterns.txt")
	}
}

type said struct{ listener, lines string }

// tableHas compares the patterns of a table with those of a program that has said that.
func tableHas(t *testing.T, sessions []said, want ...string) {
	t.Helper()
	transcript := "program: x\nversion: 1\ndate: 2026-11-30\n"
	for _, s := range sessions {
		transcript += "\nsession: " + s.listener + " full 1\n"
		for line := range strings.SplitSeq(s.lines, "|") {
			if line != "TLS" {
				line = "C: " + line
			}
			transcript += line + "\n"
		}
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "x.txt"), []byte(transcript), 0o600); err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	if err := write(&out, dir); err != nil {
		t.Fatal(err)
	}
	var got []string
	for line := range strings.Lines(out.String()) {
		if pattern, _, _ := strings.Cut(line, "\t"); pattern[0] != '#' {
			got = append(got, pattern)
		}
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("the patterns are\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}
