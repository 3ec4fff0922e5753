package report

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"postern/internal/ledger"
	"postern/internal/programs"
	"postern/internal/text"
)

var update = flag.Bool("update", false, "write the golden files anew")

// golden compares with a file in testdata.
func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s differs (-want +got):\n%s", name, diff)
	}
}

func TestTheReportThatPeopleRead(t *testing.T) {
	for _, tt := range []struct {
		golden string
		o      Options
		format Format
		ready  bool
		change func(*facts)
	}{
		{"account.txt", Options{}, Text, false, nil},
		{"domain.txt", Options{By: ByDomain}, Text, false, nil},
		{"network.txt", Options{By: ByNetwork, Noise: true}, Text, false, nil},
		{"software.txt", Options{By: BySoftware}, Text, false, nil},
		{"ready.txt", Options{}, Text, true, nil},
		{"max.txt", Options{Max: 5, MaxUnknown: 2}, Text, true, nil},
		{"unknown.txt", Options{Max: 5}, Text, true, nil},
		{"unwritten.txt", Options{}, Text, true, func(f *facts) {
			f.Clients = nil
			f.Backlog = ledger.Backlog{Clients: 60, Stuck: true, Since: sampleNow.Add(-time.Hour), Ledger: "sqlite:/var/lib/postern/ledger.db"}
		}},
		{"young.txt", Options{}, Text, true, func(f *facts) { f.Clients, f.Began = nil, sampleNow.Add(-2*time.Hour) }},
		{"mail.txt", Options{Mail: true}, Text, false, nil},
		{"mail.csv", Options{Mail: true}, CSV, false, nil},
		{"go.txt", Options{MaxUnknown: 1}, Text, true, func(f *facts) { f.Clients = f.Clients[6:] }},
		{"nobody.txt", Options{}, Text, false, func(f *facts) { f.Clients, f.Memory, f.PolicyFile = nil, true, "" }},
		{"off.txt", Options{}, Text, false, func(f *facts) {
			f.Identity = "off"
			for i := range f.Clients {
				f.Clients[i].Logins, f.Clients[i].Advice = nil, nil
			}
		}},
		{"account.md", Options{}, Markdown, false, nil},
		{"program.txt", Options{By: ByProgram}, Text, false, inferredPrograms},
		{"program.csv", Options{By: ByProgram}, CSV, false, inferredPrograms},
		{"patterns.txt", Options{By: ByProgram, Noise: true}, Patterns, false, func(f *facts) {
			f.Clients[0].Logins[0].Software = "imap a1 NOOP" // which is a name, since a client has said it
			inferredPrograms(f)
		}},
		{"inferred.txt", Options{By: ByNetwork}, Text, false, inferredPrograms},
		{"inferred.json", Options{}, JSON, false, inferredPrograms},
		{"inferred-mail.txt", Options{Mail: true}, Text, false, inferredPrograms},
		{"inferred-mail.csv", Options{Mail: true}, CSV, false, inferredPrograms},
		{"software.md", Options{By: BySoftware}, Markdown, false, nil},
		{"account.csv", Options{Noise: true}, CSV, false, nil},
		{"domain.csv", Options{By: ByDomain}, CSV, false, nil},
		{"account.json", Options{}, JSON, false, nil},
	} {
		t.Run(tt.golden, func(t *testing.T) {
			f := sampleFacts(t)
			if tt.change != nil {
				tt.change(&f)
			}
			tt.o.Since = fortnight
			var b bytes.Buffer
			style := Style{Format: tt.format, Ready: tt.ready, Top: DefaultTop, Mail: tt.o.Mail}
			if err := build(t, f, tt.o).Write(&b, style); err != nil {
				t.Fatal(err)
			}
			if tt.format == Text {
				for line := range strings.Lines(b.String()) {
					n := utf8.RuneCountInString(strings.TrimSuffix(line, "\n"))
					if word := strings.TrimSpace(line); n > text.Width && strings.Contains(word, " ") || strings.HasSuffix(line, " \n") { // an address is not broken
						t.Errorf("%d columns: %q", n, line)
					}
				}
			}
			if tt.format == JSON && !json.Valid(b.Bytes()) {
				t.Errorf("not JSON:\n%s", b.String())
			}
			if strings.Contains(b.String(), "\u00a0") {
				t.Errorf("glue is left:\n%s", b.String())
			}
			golden(t, tt.golden, b.String())
		})
	}
}

func TestTheReportsOfTheDocumentsAreReal(t *testing.T) {
	page, err := os.ReadFile("../../docs/report.md")
	if err != nil {
		t.Fatal(err)
	}
	for command, file := range map[string]string{
		"$ postern report\n":                   "account.txt",
		"$ postern report -ready -since 14d\n": "ready.txt",
		"$ postern report -mail\n":             "mail.txt",
		"$ postern replay -policy next.yaml\n": "replay-last.txt",
	} {
		_, rest, found := strings.Cut(string(page), "```\n"+command)
		shown, _, _ := strings.Cut(rest, "```")
		printed, err := os.ReadFile(filepath.Join("testdata", file))
		if err != nil || !found {
			t.Fatalf("%q: found %v, %v", command, found, err)
		}
		for part := range strings.SplitSeq(shown, "...\n") {
			for block := range strings.SplitSeq(part, "\n\n") {
				if !strings.Contains(string(printed), block) {
					t.Errorf("%q does not print\n%s", command, block)
				}
			}
		}
	}
}

// TestSeveralThatSpeakAlikeAreOneOrTheOther: a comma stands between those of several clients.
func TestSeveralThatSpeakAlikeAreOneOrTheOther(t *testing.T) {
	g := &Group{SpeaksLike: []string{"curl, fetchmail, mutt", "getmail", "imaps 1 X"}}
	if got, want := strings.Join(saidOrInferred(g), ", "), "like curl, fetchmail or mutt, like getmail, imaps 1 X"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

// TestNamesOfManyThatSpeakAlikeAreCutBetweenThem, in what has a width; in CSV and JSON
// they are whole, as many as there are.
func TestNamesOfManyThatSpeakAlikeAreCutBetweenThem(t *testing.T) {
	for _, tt := range []struct {
		columns    int
		name, want string
	}{
		{40, "like curl, fetchmail or mutt", "like curl, fetchmail or mutt"},
		{27, "like curl, fetchmail or mutt", "like curl or 2 more"},
		{18, "like curl, fetchmail or mutt", "like curl, fetc..."},
		{12, "Outlook Express, or what", "Outlook E..."},
		{12, "imap a1 NOOP ?STARTTLS", "imap a1 N..."},
	} {
		if got := clipNames(tt.name, tt.columns); got != tt.want {
			t.Errorf("%d columns of %s: %q, want %q", tt.columns, tt.name, got, tt.want)
		}
	}
	many := programs.Builtin.SpeaksLike("pop3s USER") // more than any other
	f := sampleFacts(t)
	f.Clients[0].Logins[0].Software, f.Clients[0].Logins[0].SpeaksLike = "", many
	whole := inferredName(many)
	for format, want := range map[Format]string{JSON: `"name": "` + whole + `"`, CSV: `"` + whole + `",left,`, Text: "like Apache Commons Net or 2"} {
		var b bytes.Buffer
		if err := build(t, f, Options{By: ByProgram, Since: fortnight}).Write(&b, Style{Format: format, Top: DefaultTop}); err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(b.String(), want) || format != Text && !strings.Contains(b.String(), `"`+many+`"`) {
			t.Errorf("%s has no %s:\n%s", format, want, b.String())
		}
	}
}
