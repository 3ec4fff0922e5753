package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// What a program has said without a login, any probe says, too.
func TestOnlyWhatLogsInNamesAProgram(t *testing.T) {
	dir := t.TempDir()
	transcript := "program: x\nversion: 1\ndate: 2026-11-30\n"
	for _, s := range []struct{ listener, said string }{
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
	} {
		transcript += "\nsession: " + s.listener + " full 1\n"
		for line := range strings.SplitSeq(s.said, "|") {
			if line != "TLS" {
				line = "C: " + line
			}
			transcript += line + "\n"
		}
	}
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
	want := []string{"imaps a1 CAPABILITY login:quoted:quoted", "imaps a1 NOOP ?AUTHENTICATE:PLAIN",
		"pop3 STLS TLS APOP", "pop3s CAPA AUTH:PLAIN:ir", "pop3s user"}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("the patterns are\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}
