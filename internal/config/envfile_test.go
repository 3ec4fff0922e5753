package config

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// The values are those that systemd 252 reads.
func TestAnEnvFileIsReadAsSystemdReadsIt(t *testing.T) {
	for text, want := range map[string][]string{
		"A=1\nB=2":                        {"A=1", "B=2"},
		"  A = 1 2 \t\r\nB=":              {"A=1 2", "B="},
		"# A=1\n ; A=2\nA=3 # no comment": {"A=3 # no comment"},
		`A="x y" 'z'w "u`:                 {`A=x yzw "u`},
		`A=x"y"'z'`:                       {`A=x"y"'z'`},
		"A=x \\\n  y":                     {"A=x   y"},
		"A=\"x\\\ny\"\nB='x\\\ny'":        {"A=xy", "B=x\\\ny"},
		`A="\"\\\$\a\` + "`" + `"`:        {`A="\$\a` + "`"},
		`A=\x\ \"$HOME`:                   {`A=x "$HOME`},
		"A=\"x\nB=y":                      {"A=x\nB=y"},
		"A=é\n=1\nA B=1\n1A=1\nA":         {"A=é"},
		"A=x\x01\nB=1 \\":                 {"B=1 "},
		"# x \\\nA=1\nA=2":                {"A=1", "A=2"},
	} {
		path := filepath.Join(t.TempDir(), "env")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if f, err := ReadEnvFile(path); err != nil || !slices.Equal(f.Entries, want) {
			t.Errorf("%q: %q, %v, want %q", text, f.Entries, err, want)
		}
	}
}

func TestAnEnvFileThatSystemdDoesNotRead(t *testing.T) {
	for text, want := range map[string]string{"A=1\nB=\xff": ":2: not UTF-8", "A=\x00": ": not a file of NAME=VALUE lines"} {
		path := filepath.Join(t.TempDir(), "env")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := ReadEnvFile(path); err == nil || !strings.HasPrefix(err.Error(), path+want) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestAMessageSaysWhereItsVariableStands(t *testing.T) {
	path := filepath.Join(t.TempDir(), "env")
	if err := os.WriteFile(path, []byte("\nPOSTERN_A=\\\n1\nPOSTERN_B=\\\n\\\n1\nPOSTERN_C=1\nPOSTERN_A=2\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := ReadEnvFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for message, want := range map[string]string{
		"POSTERN_A: bad": path + ":8: POSTERN_A: bad", "POSTERN_B: bad": path + ":4: POSTERN_B: bad", "POSTERN_C: bad": path + ":7: POSTERN_C: bad",
		"POSTERN_D: must be set": path + ": POSTERN_D: must be set", "/etc/x: bad": "/etc/x: bad",
	} {
		if got := f.Place(message); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
