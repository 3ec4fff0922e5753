package text

import (
	"bytes"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the golden files anew")

var (
	header = []string{"client", "listener", "met", "outcome"}
	rows   = [][]Cell{
		{{"TLS 1.0", ""}, {"imaps", Dim}, {"alert 70", Yellow}, {"rejected", Green}},
		{{"Jörgs TLS 1.3", ""}, {"imap", Dim}, {"", ""}, {"accepted", Red}},
		{{"SSLv2", ""}, {"pop3s", Dim}},
		{{"odd\x1b[31m\r\n", ""}, {"", ""}, {"", ""}, {"failed", ""}, {"extra", Green}},
		{},
	}
)

func TestTableAlignsWithAndWithoutColor(t *testing.T) {
	for name, color := range map[string]bool{"plain.golden": false, "color.golden": true} {
		t.Run(name, func(t *testing.T) {
			var got bytes.Buffer
			if err := WriteTable(&got, color, header, rows); err != nil {
				t.Fatal(err)
			}
			file := filepath.Join("testdata", name)
			if *update {
				if err := os.WriteFile(file, got.Bytes(), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), got.String()); diff != "" {
				t.Errorf("table differs (-want +got):\n%s", diff)
			}
		})
	}
}

func TestColorTakesNoRoom(t *testing.T) {
	var plain, colored bytes.Buffer
	if err := errors.Join(WriteTable(&plain, false, header, rows), WriteTable(&colored, true, header, rows)); err != nil {
		t.Fatal(err)
	}
	stripped := colored.Bytes()
	for _, code := range []Color{Green, Yellow, Red, Dim, bold, reset} {
		stripped = bytes.ReplaceAll(stripped, []byte(code), nil)
	}
	if diff := cmp.Diff(plain.String(), string(stripped)); diff != "" {
		t.Errorf("colour moves columns (-plain +coloured):\n%s", diff)
	}
}

type fullDisk struct{}

func (fullDisk) Write([]byte) (int, error) { return 0, os.ErrInvalid }

func TestWriteReportsItsWritersError(t *testing.T) {
	if err := WriteTable(fullDisk{}, false, header, rows); !errors.Is(err, os.ErrInvalid) {
		t.Errorf("got %v, want os.ErrInvalid", err)
	}
}

func TestColorOnlyOnTerminalsThatWantIt(t *testing.T) {
	terminal, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer terminal.Close()
	file, err := os.Create(filepath.Join(t.TempDir(), "out"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for _, c := range []struct {
		name          string
		f             *os.File
		noColor, term string
		want          bool
	}{
		{"terminal", terminal, "", "xterm", true},
		{"file", file, "", "xterm", false},
		{"NO_COLOR", terminal, "1", "xterm", false},
		{"dumb terminal", terminal, "", "dumb", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Setenv("NO_COLOR", c.noColor)
			t.Setenv("TERM", c.term)
			if got := ColorOK(c.f); got != c.want {
				t.Errorf("ColorOK = %v, want %v", got, c.want)
			}
		})
	}
}
