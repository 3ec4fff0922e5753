package logging

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"unicode"
)

func TestJSONLineHasUTCTimeAndConstantKeys(t *testing.T) {
	var b bytes.Buffer
	New(&b, slog.LevelInfo, "json").Info("legacy handshake", "offered_versions", []string{"tls1.0"}, "client_port", 993)
	want := regexp.MustCompile(`^\{"time":"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z","level":"INFO","msg":"legacy handshake","offered_versions":\["tls1.0"\],"client_port":993\}\n$`)
	if !want.MatchString(b.String()) {
		t.Errorf("got %s", b.String())
	}
}

func TestTextLineHasUTCTime(t *testing.T) {
	var b bytes.Buffer
	New(&b, slog.LevelInfo, "text").Info("legacy handshake", "listener", "imaps")
	want := regexp.MustCompile(`^time=\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z level=INFO msg="legacy handshake" listener=imaps\n$`)
	if !want.MatchString(b.String()) {
		t.Errorf("got %s", b.String())
	}
}

func TestLinesBelowTheLevelAreNotWritten(t *testing.T) {
	var b bytes.Buffer
	log := New(&b, slog.LevelWarn, "json")
	log.Info("quiet")
	log.Warn("loud")
	if got := strings.Count(b.String(), "\n"); got != 1 || !strings.Contains(b.String(), "loud") {
		t.Errorf("got %q", b.String())
	}
}

// hostile are server names that a client might send.
var hostile = map[string]string{
	"line feed":        "a\nfake line",
	"carriage return":  "a\rfake line",
	"terminal escape":  "a\x1b[2Jb",
	"NUL":              "a\x00b",
	"DEL":              "a\x7fb",
	"C1 control":       "a\u009b2Jb",
	"direction":        "a\u202eb",
	"line separator":   "a\u2028b",
	"tag above 0xffff": "a\U000e0041b",
	"quote":            `a"} {"msg":"fake`,
	"letters":          "bücher.例え",
}

func TestHostileValuesStayOnOneHarmlessLine(t *testing.T) {
	for _, format := range []string{"json", "text"} {
		for name, value := range hostile {
			var b bytes.Buffer
			New(&b, slog.LevelInfo, format).Info("legacy handshake", "server_name", value, "alpn", []string{value})
			line, found := strings.CutSuffix(b.String(), "\n")
			if !found || strings.ContainsFunc(line, func(r rune) bool { return !unicode.IsPrint(r) }) {
				t.Errorf("%s, %s: got %q", format, name, b.String())
			}
			if format == "text" {
				continue
			}
			var got struct {
				ServerName string   `json:"server_name"`
				ALPN       []string `json:"alpn"`
			}
			dec := json.NewDecoder(&b)
			if err := dec.Decode(&got); err != nil || dec.More() {
				t.Errorf("%s: not one JSON value: %v", name, err)
			} else if got.ServerName != value || got.ALPN[0] != value {
				t.Errorf("%s: value changed: %q", name, got)
			}
		}
	}
}

func TestInvalidUTF8StaysValidJSON(t *testing.T) {
	var b bytes.Buffer
	New(&b, slog.LevelInfo, "json").Info("legacy handshake", "server_name", "a\xff\x9bb")
	var got map[string]any
	if err := json.Unmarshal(b.Bytes(), &got); err != nil || got["server_name"] != "a\ufffd\ufffdb" {
		t.Errorf("got %q, %v", b.String(), err)
	}
}

func BenchmarkLegacyLine(b *testing.B) {
	q := NewWriter(discard{}, 1024)
	log := New(q, slog.LevelInfo, "json")
	suites := strings.Fields(strings.Repeat("TLS_RSA_WITH_AES_128_CBC_SHA ", 20))
	b.ReportAllocs()
	for b.Loop() {
		log.Info("legacy handshake", "listener", "imaps", "client", "192.0.2.7", "outcome", "rejected", "cipher_suites", suites)
	}
	q.Close(context.Background())
}

type discard struct{}

func (discard) Write(p []byte) (int, error) { return len(p), nil }

// The journal is the file that systemd names by its device and inode.
func TestLinesForTheJournalBeginWithTheirPriority(t *testing.T) {
	for _, format := range []string{"json", "text"} {
		f, err := os.Create(filepath.Join(t.TempDir(), "journal"))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		info, err := f.Stat()
		if err != nil {
			t.Fatal(err)
		}
		stat := info.Sys().(*syscall.Stat_t)
		for _, stream := range []string{fmt.Sprintf("%d:%d", stat.Dev, stat.Ino), fmt.Sprintf("%d:%d", stat.Dev, stat.Ino+1), ""} {
			t.Setenv("JOURNAL_STREAM", stream)
			f.Truncate(0)
			f.Seek(0, 0)
			q := NewWriter(f, 10)
			log := New(q, slog.LevelDebug, format)
			log.Debug("level=ERROR")
			log.Info(`level":"WARN`)
			log.Warn("warning")
			log.Error("\u0080")
			q.Close(t.Context())
			text, err := os.ReadFile(f.Name())
			if err != nil {
				t.Fatal(err)
			}
			got := regexp.MustCompile(`(?m)^(<\d>)?(\{"time"|time=)`).FindAllStringSubmatch(string(text), -1)
			want := []string{"<7>", "<6>", "<4>", "<3>"}
			if !strings.HasSuffix(stream, fmt.Sprint(stat.Ino)) {
				want = []string{"", "", "", ""}
			}
			for i := range want {
				if len(got) != len(want) || got[i][1] != want[i] {
					t.Fatalf("%s, stream %q: got\n%s", format, stream, text)
				}
			}
		}
	}
}
