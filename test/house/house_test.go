package main

import (
	"io/fs"
	"os"
	"strings"
	"testing"
	"testing/fstest"
)

const connFile = `package proxy

/* A comment
of two lines. */
type session struct {
	server
	srv *server
	a, b int
}

type otherConn struct{ a, b, c, d, e int }

const words = ` + "`one\n\ntwo`" + `

func (s *session) serve() {

	return
}
`

const evaluators = `package policy

func one() Outcome { return Outcome{1, 2} }

func two() []any { return []any{Outcome{}} }

func three() []Outcome { return nil }
`

func loadSample(t *testing.T) map[string]figure {
	t.Helper()
	long := "package proxy\n\nfunc long() {\n" + strings.Repeat("\t_ = 1\n", maxFileLines) + "}\n"
	h, err := load(fstest.MapFS{
		"proxy/conn.go":                   {Data: []byte(connFile)},
		"proxy/long.go":                   {Data: []byte(long)},
		"proxy/conn_test.go":              {Data: []byte(long)},
		"internal/demo/pop3.go":           {Data: []byte("package demo\n")},
		"internal/posterntest/proxy.go":   {Data: []byte(long)},
		"policy/evaluate.go":              {Data: []byte(evaluators)},
		"internal/netpoll/poller_linux.s": {Data: []byte("nothing")},
	}, "proxy", "policy", "internal")
	if err != nil {
		t.Fatal(err)
	}
	figures := make(map[string]figure)
	for _, f := range h.figures() {
		figures[f.name] = f
	}
	return figures
}

func TestFigures(t *testing.T) {
	figures := loadSample(t)
	const connCode, longCode, evaluatorCode = 13, maxFileLines + 3, 4
	for name, want := range map[string]int{
		"product code lines":       connCode + longCode + evaluatorCode + 1,
		"proxy code lines":         connCode + longCode,
		"proxy files":              2,
		"fields of the connection": 4,
		"longest file":             maxFileLines + 4,
		"longest function":         maxFileLines + 2,
		"evaluators of policy":     2,
		"demo code lines":          1,
	} {
		if got := figures[name].got; got != want {
			t.Errorf("%s: %d, want %d", name, got, want)
		}
	}
	if got := codeLines([]byte(connFile)); got != connCode {
		t.Errorf("%d lines of code, want %d", got, connCode)
	}
}

func TestAFigureOverItsBoundIsNamed(t *testing.T) {
	var text strings.Builder
	if report(&text, []figure{loadSample(t)["longest function"]}) {
		t.Error("a function that is too long passed")
	}
	for _, want := range []string{"OVER", "proxy/long.go:3 long"} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("%q is missing in\n%s", want, text.String())
		}
	}
}

// TestNoSettingOfGODEBUGIsReliedOn: Go 1.27 has removed those of TLS (tls10server,
// tlsrsakex, tls3des), and its go command fails on a line that has one.
func TestNoSettingOfGODEBUGIsReliedOn(t *testing.T) {
	root := os.DirFS("../..")
	seen := 0
	if err := fs.WalkDir(root, ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") && d.Name() != "go.mod" {
			return err
		}
		text, err := fs.ReadFile(root, path)
		for line := range strings.Lines(string(text)) {
			if strings.HasPrefix(line, "//go:debug ") || d.Name() == "go.mod" && strings.HasPrefix(line, "godebug") {
				t.Errorf("%s: %s", path, line)
			}
		}
		seen++
		return err
	}); err != nil || seen < 100 {
		t.Fatalf("%d files, %v", seen, err)
	}
}
