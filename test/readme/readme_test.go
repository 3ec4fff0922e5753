// Package readme holds the documentation to the program: what it says to type
// is typed here, and what it names exists.
package readme

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"postern/internal/posterntest"
)

func TestMain(m *testing.M) { posterntest.Main(m) }

const root = "../.."

// block is one fenced block of a document.
type block struct {
	section string // the heading above it, without its marks
	lang    string // as the fence names it
	lines   []string
}

func (b block) text() string { return strings.Join(b.lines, "\n") + "\n" }

// blocksOf returns the fenced blocks of the README that are in lang, and of one
// section unless that is empty.
func blocksOf(t *testing.T, section, lang string) []block {
	t.Helper()
	var found []block
	var open *block
	heading := ""
	for line := range strings.Lines(read(t, "README.md")) {
		line = strings.TrimSuffix(line, "\n")
		fence, isFence := strings.CutPrefix(line, "```")
		switch {
		case isFence && open == nil:
			open = &block{section: heading, lang: fence}
		case isFence:
			if open.lang == lang && (section == "" || open.section == section) {
				found = append(found, *open)
			}
			open = nil
		case open != nil:
			open.lines = append(open.lines, line)
		case strings.HasPrefix(line, "#"):
			heading = strings.TrimLeft(line, "# ")
		}
	}
	if open != nil {
		t.Fatalf("README.md: the last fence of %q is not closed", open.section)
	}
	return found
}

func read(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// documents returns the texts that an operator reads, by name.
func documents(t *testing.T) map[string]string {
	t.Helper()
	docs := make(map[string]string)
	for _, name := range []string{"README.md", "SECURITY.md", "CONTRIBUTING.md", "CHANGELOG.md", "Dockerfile"} {
		docs[name] = read(t, name)
	}
	before := len(docs)
	err := filepath.WalkDir(filepath.Join(root, "deploy"), func(path string, entry os.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		name, err := filepath.Rel(root, path)
		if err == nil {
			docs[name] = read(t, name)
		}
		return err
	})
	if err != nil || len(docs) == before {
		t.Fatalf("nothing in deploy: %v", err)
	}
	return docs
}

var mdLink = regexp.MustCompile(`\]\(([^)#]+)\)`)

func TestLinksLeadSomewhere(t *testing.T) {
	links := 0
	for name, text := range documents(t) {
		for _, m := range mdLink.FindAllStringSubmatch(text, -1) {
			links++
			if _, err := os.Stat(filepath.Join(root, filepath.Dir(name), m[1])); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
	if links == 0 {
		t.Error("no links found")
	}
}

// What a reader may paste into a shell is tried here, but for test/run, which
// runs these tests itself.
func TestEveryShellBlockOfTheREADMEIsTried(t *testing.T) {
	for _, b := range blocksOf(t, "", "sh") {
		if !slices.Contains([]string{freshMachine, sameHost, seeWhoIsThere, writePolicy, putInForce, theWayBack}, b.section) {
			t.Errorf("nobody tries the block under %q:\n%s", b.section, b.text())
		}
	}
}
