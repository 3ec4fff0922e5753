package programs

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"postern/policy"
)

// TestEveryBuiltInLineIsRead, and the columns for people are there. A library has no line
// that says something else.
func TestEveryBuiltInLineIsRead(t *testing.T) {
	if _, err := New("", nil); err != nil {
		t.Error(err)
	}
	for name, columns := range map[string]int{"patterns.txt": 5, "libraries.txt": 4, "advice.txt": 5} {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for i, line := range strings.Split(string(b), "\n") {
			if line == "" || line[0] == '#' {
				continue
			}
			list := strings.Split(line, "\t")
			if len(list) != columns {
				t.Errorf("%s:%d: %d columns, want %d", name, i+1, len(list), columns)
			}
			if ja4, err := policy.ParseJA4(list[0]); err == nil && Builtin.Library(ja4) != list[1] {
				t.Errorf("%s:%d: the library is %q elsewhere", name, i+1, Builtin.Library(ja4))
			}
		}
	}
}

// TestAnOperatorsPatternsStandBesideTheOthers.
func TestAnOperatorsPatternsStandBesideTheOthers(t *testing.T) {
	file := filepath.Join(t.TempDir(), "programs.txt")
	write := func(s string) {
		if err := os.WriteFile(file, []byte(s), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("# ours\n\nimaps 1 X\tscanner\t2019\nimap 7 STARTTLS TLS LOGIN:atom:atom\tscanner, copier\r\nimap 7 STARTTLS TLS ID\tfax\n")
	table, err := Load(file)
	if err != nil {
		t.Fatal(err)
	}
	for pattern, want := range map[string]string{
		"imaps 1 X":                           "scanner",
		"imap 7 STARTTLS TLS LOGIN:atom:atom": "copier, scanner",
		"imap 7 STARTTLS":                     "copier, fax, scanner", // refused, so that no more is known
		"imaps 2 X":                           "imaps 2 X",
	} {
		if got := table.SpeaksLike(pattern); got != want {
			t.Errorf("%s: %q, want %q", pattern, got, want)
		}
	}
	if len(table.patterns) != len(Builtin.patterns)+4 {
		t.Errorf("%d patterns, want %d and 4 more", len(table.patterns), len(Builtin.patterns))
	}
	write("imaps 1 X\t\nsmtp 1 X\tscanner\nimaps 1 X\nimaps 1 X\tscanner\nimaps 2 X\t?\t\t2026-11-30\t1 client\n")
	_, err = Load(file)
	if want := file + ":1: the name is missing: write it behind the pattern and a tab\n" +
		file + `:2: "smtp 1 X" is no pattern: write one as postern report -patterns does` + "\n" +
		file + ":3: the name is missing: write it behind the pattern and a tab"; err == nil || err.Error() != want {
		t.Errorf("%v, want\n%s", err, want)
	}
}

// TestNobodyIsNamedForWhatAnyProbeSays: postern probe, health checks of load balancers,
// openssl s_client and gnutls-cli.
func TestNobodyIsNamedForWhatAnyProbeSays(t *testing.T) {
	for _, pattern := range []string{"imaps a1 LOGOUT", "imaps a1 CAPABILITY LOGOUT", "imaps A01 CAPABILITY ?LOGOUT", "imaps 1 CAPABILITY ^LOGOUT",
		"imaps aaaaaaa ID ^LOGOUT", "imap aaaaaaa CAPABILITY ^LOGOUT", "imap aaaaaaa STARTTLS TLS ^ID ^LOGOUT", "imap a001 STARTTLS TLS", "imap A001 CAPABILITY STARTTLS TLS", "imap . CAPABILITY ^STARTTLS", "pop3s CAPA QUIT", "pop3s QUIT", "pop3s CAPA",
		"pop3 STLS", "pop3 CAPA STLS", "pop3 CAPA STLS TLS CAPA QUIT", "pop3 STLS TLS QUIT"} {
		if got := Builtin.SpeaksLike(pattern); got != pattern {
			t.Errorf("%s: it speaks like %s", pattern, got)
		}
	}
}

// TestAFileThatIsMeantOtherwiseIsToldOfInItsOwnWords.
func TestAFileThatIsMeantOtherwiseIsToldOfInItsOwnWords(t *testing.T) {
	for _, tt := range []struct{ text, want string }{
		{"# Postern\n\nRead this.\n\n\tmake\n", "f:3: " + noPatterns},
		{"-----BEGIN PRIVATE KEY-----\nMIGHAgEA\nAAAA\n-----END PRIVATE KEY-----\n", "f:1: " + noPatterns},
		{"mode: observe\nrules:\n  - name: x\n", "f:1: " + noPatterns},
		{"imaps and pop3s are for mail.\nHere is more,\nand more.\n", "f:1: " + noPatterns},
		{"fax\timaps 1 X\n", "f:1: " + noPatterns},
		{"imaps 1 X    scanner\n", "f:1: there are blanks in the place of the tab between the pattern and its names: write a tab"},
		{"imaps 1 X\tscanner\nimaps 1 X\t?\n\nimaps 1 X\tfax\nimaps 1 X\tscanner\t2019\n",
			"f:4: line 1 has other names for this pattern: write all of them in one line, with a comma between two"},
		{"imaps 1 X\tscanner, fax\nimaps 1 ID\t?\nimaps 2 X\tcopier\n", ""},
		{"", ""},
	} {
		table, err := New("f", []byte(tt.text))
		if err == nil && (tt.want != "" || tt.text != "" && table.Named != 2) || err != nil && err.Error() != tt.want {
			t.Errorf("%q: %d patterns, %v, want %s", tt.text, table.Named, err, tt.want)
		}
	}
}

// TestALibraryIsKnownWithAndWithoutServerNameAndALPN.
func TestALibraryIsKnownWithAndWithoutServerNameAndALPN(t *testing.T) {
	for a, same := range map[string]string{
		"t10d0409ip_c491f621fb4c_195413a0cc0f": "t10i040700_c491f621fb4c_195413a0cc0f",
		"t10d040800_c491f621fb4c_195413a0cc0f": "t10i040700_c491f621fb4c_195413a0cc0f",
		"t10i0411ip_c491f621fb4c_195413a0cc0f": "t10i041000_c491f621fb4c_195413a0cc0f",
		"ts3i380000_c491f621fb4c_000000000000": "ts3i380000_c491f621fb4c_000000000000",
		"t10d040000_c491f621fb4c_195413a0cc0f": "t10d040000_c491f621fb4c_195413a0cc0f", // which cannot be
	} {
		if got := Stable(policy.JA4([]byte(a))); got.String() != same {
			t.Errorf("%s: %s, want %s", a, got, same)
		}
	}
	if Stable(policy.JA4{}) != (policy.JA4{}) {
		t.Error("one that is not known has become another")
	}
}

// TestAdviceIsOfTheProgramOrElseOfItsLibrary, and has its source.
func TestAdviceIsOfTheProgramOrElseOfItsLibrary(t *testing.T) {
	table := &Table{advice: map[[2]string]string{
		{"program", "Thunderbird"}: "version 27", {"library", "OpenSSL 1.0.0"}: "version 1.0.1", {"library", "OpenSSL"}: "any",
		{"library", "OpenSSL 1.1.1, 3"}: "its settings",
	}}
	for _, tt := range []struct{ software, speaksLike, library, want string }{
		{"Thunderbird 24.0", "", "OpenSSL 1.0.0", "version 27"},
		{"", "Thunderbird", "", "version 27"},
		{"Outlook 14.0", "Thunderbird", "", ""}, // what it says counts
		{"", "Thunderbird, mutt", "", ""},       // which of them?
		{"Thunderbirds 1", "", "", ""},
		{"", "mutt", "OpenSSL 1.0.0", "version 1.0.1"},
		{"", "", "OpenSSL 1.0.01", "any"},
		{"", "", "OpenSSL 1.1.1, 3.0, 3.5 limited to TLS 1.0", "its settings"},
		{"", "", "", ""},
	} {
		if got := table.Advise(tt.software, tt.speaksLike, tt.library); got != tt.want {
			t.Errorf("%+v: %q", tt, got)
		}
	}
	const want = "curl: Remove --tlsv1.0, --tlsv1.1 and --tls-max from the command; --tlsv1.2 asks for 1.2 or later " +
		"(https://manpages.debian.org/bookworm/curl/curl.1.en.html, 2026-11-30)"
	if got := Builtin.Advise("curl 7.1", "", ""); got != want {
		t.Errorf("%q, want %q", got, want)
	}
	line := Builtin.Advise("", "", "OpenSSL 3.0 limited to TLS 1.0")
	for _, library := range []string{"OpenSSL 1.0.1", "OpenSSL 1.0.2 limited to TLS 1.1", "OpenSSL 1.1.1, 3.0, 3.5 limited to TLS 1.0"} {
		if got := Builtin.Advise("", "", library); line == "" || got != line { // a report lists what differs
			t.Errorf("%s: %q, want %q as for others", library, got, line)
		}
	}
	for _, said := range []string{"Mac OS X Mail 9.3 (3124)", "iPhone Mail 13G36"} { // as Apple's programs call themselves
		if got := Builtin.Advise(said, "", ""); !strings.Contains(got, "macOS 10.12 and iOS 10") {
			t.Errorf("%s: %q", said, got)
		}
	}
}
