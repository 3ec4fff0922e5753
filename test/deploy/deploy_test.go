// Package deploy holds what an operator takes away (manifests, unit, image) to
// the program: its configuration is taken, its ports match, its timeouts leave
// room for each other, and it runs with as few rights as it says.
package deploy

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"postern/internal/config"
	"postern/internal/posterntest"
)

func TestMain(m *testing.M) { posterntest.Main(m) }

const (
	root    = "../.."
	sidecar = "deploy/kubernetes/sidecar.yaml"
	compose = "deploy/compose.yaml"
	unit    = "deploy/systemd/postern.service"
)

func read(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// documents returns the YAML documents of a file.
func documents(t *testing.T, name string) []*yaml.Node {
	t.Helper()
	var docs []*yaml.Node
	for dec := yaml.NewDecoder(strings.NewReader(read(t, name))); ; {
		doc := new(yaml.Node)
		err := dec.Decode(doc)
		if errors.Is(err, io.EOF) {
			return docs
		}
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		docs = append(docs, doc)
	}
}

// Decoding into a value finds what a tree of nodes does not: a key that stands
// twice.
func TestEveryManifestIsYAML(t *testing.T) {
	var files []string
	err := filepath.WalkDir(filepath.Join(root, "deploy"), func(path string, entry os.DirEntry, err error) error {
		if entry.IsDir() && entry.Name() == "templates" { // of the Helm chart: rendered by test/kubernetes
			return filepath.SkipDir
		}
		if ext := filepath.Ext(path); ext == ".yaml" || ext == ".yml" {
			name, _ := filepath.Rel(root, path)
			files = append(files, name)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{sidecar, compose} {
		if !slices.Contains(files, name) {
			t.Errorf("%s is not there", name)
		}
	}
	for _, name := range files {
		for _, doc := range documents(t, name) {
			var value any
			if err := doc.Decode(&value); err != nil || value == nil {
				t.Errorf("%s: %v %v", name, value, err)
			}
		}
	}
}

// taken loads a configuration that has to be taken without a warning.
func taken(t *testing.T, vars map[string]string) *config.Config {
	t.Helper()
	var environ []string
	for name, value := range vars {
		environ = append(environ, name+"="+value)
	}
	cfg, err := config.Load(environ)
	if err != nil {
		t.Fatal(err)
	}
	if w := cfg.Warnings(); len(w) > 0 {
		t.Errorf("warnings: %q", w)
	}
	if n := len(cfg.Listeners()); n != 4 {
		t.Errorf("%d listeners", n)
	}
	return cfg
}

// wellKnown are the ports that mail programs go to, by listener.
var wellKnown = map[string]int{"imaps": 993, "pop3s": 995, "imap": 143, "pop3": 110}

// flush is what follows the drain: the log's last lines, and the exit.
const flush = 2 * time.Second

// checkStopTimeout fails where sessions would be cut before TIMEOUT_DRAIN.
func checkStopTimeout(t *testing.T, what string, timeout, drain time.Duration) {
	t.Helper()
	if timeout < drain+flush {
		t.Errorf("%s is %v: too short for a drain of %v", what, timeout, drain)
	}
}

// variables are those of a file of KEY=VALUE lines, comments aside.
func variables(text string) map[string]string {
	vars := make(map[string]string)
	for line := range strings.Lines(text) {
		name, value, ok := strings.Cut(strings.TrimSpace(line), "=")
		if ok && strings.HasPrefix(name, config.Prefix) {
			vars[name] = value
		}
	}
	return vars
}
