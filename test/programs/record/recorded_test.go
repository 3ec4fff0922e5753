package main

import (
	"encoding/hex"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"postern/internal/legacyhello"
	"postern/internal/programs"
	"postern/policy"
)

// A hello of the list is what its JA4 says: the table of TLS libraries is made from it.
func TestHellosHaveTheirJA4(t *testing.T) {
	for line := range strings.Lines(read(t, "../hellos.txt")) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		fields := strings.Split(strings.TrimSuffix(line, "\n"), "\t")
		if len(fields) != 5 {
			t.Fatalf("%d fields in %.80q", len(fields), line)
		}
		hello, err := hex.DecodeString(fields[4])
		if err != nil {
			t.Fatalf("%.80q: %v", line, err)
		}
		if parsed, ok := legacyhello.Parse(hello); !ok || parsed.JA4() != fields[0] {
			t.Errorf("%s %s: the hello is %s", fields[0], fields[3], parsed.JA4())
		}
		ja4, err := policy.ParseJA4(fields[0])
		if library, _, _ := strings.Cut(strings.Replace(fields[2], "OpenJDK", "Java", 1), " "); err != nil || !strings.HasPrefix(programs.Builtin.Library(ja4), library) {
			t.Errorf("%s of %s: the table of libraries has %q; try record/libraries.py (%v)", fields[0], fields[2], programs.Builtin.Library(ja4), err)
		}
	}
}

var (
	header   = regexp.MustCompile(`\Aprogram: .+\nversion: .+\nfrom: .+\nlibrary: .+\ndate: 20\d\d-\d\d-\d\d\n\n`)
	opening  = regexp.MustCompile(`\Asession: (imaps?|pop3s?) (full|bare|sasl|apop) [12]\n(ja4: [ts][0-9s][^\n]+\n)?`)
	sentence = regexp.MustCompile(`\A(TLS|[CS]: [ -~]*)\n\z`)
)

// What a transcript may hold is what the table of patterns is made from, and nothing of
// who recorded it.
func TestTranscriptsAreInTheirForm(t *testing.T) {
	files, err := filepath.Glob("../transcripts/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("%d transcripts: %v", len(files), err)
	}
	for _, file := range files {
		text := read(t, file)
		head := header.FindString(text)
		if head == "" {
			t.Errorf("%s: no header", file)
			continue
		}
		for session := range strings.SplitSeq(text[len(head):], "\n\n") {
			session = strings.TrimSuffix(session, "\n") + "\n"
			first := opening.FindString(session)
			if first == "" {
				t.Errorf("%s: no session: %.80q", file, session)
			}
			for line := range strings.Lines(session[len(first):]) {
				if !sentence.MatchString(line) {
					t.Errorf("%s: %q", file, line)
				}
			}
		}
		for _, word := range []string{"anna", "Sesame", "record.example"} {
			if strings.Contains(text, word) {
				t.Errorf("%s: has the word %s", file, word)
			}
		}
	}
}

func read(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
