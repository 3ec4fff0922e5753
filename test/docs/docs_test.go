// Package docs holds the documentation to the program: the commands that it
// shows are run here, and what it names exists.
package docs

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

const (
	readme     = "README.md"
	install    = "docs/install.md"
	upstreams  = "docs/upstreams.md"
	policyDoc  = "docs/policy.md"
	monitoring = "docs/monitoring.md"
)

// block is one fenced block of a document.
type block struct {
	doc     string
	section string // the heading above it, without its marks
	lang    string // as the fence names it
	lines   []string
}

func (b block) text() string { return strings.Join(b.lines, "\n") + "\n" }

// blocksOf returns the fenced blocks of a document that are in lang, and of one
// section unless that is empty.
func blocksOf(t *testing.T, doc, section, lang string) []block {
	t.Helper()
	var found []block
	var open *block
	heading := ""
	for line := range strings.Lines(read(t, doc)) {
		line = strings.TrimSuffix(line, "\n")
		fence, isFence := strings.CutPrefix(line, "```")
		switch {
		case isFence && open == nil:
			open = &block{doc: doc, section: heading, lang: fence}
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
		t.Fatalf("%s: the last fence of %q is not closed", doc, open.section)
	}
	return found
}

// allBlocks returns the blocks in lang of all pages.
func allBlocks(t *testing.T, lang string) []block {
	t.Helper()
	var found []block
	for _, doc := range pages(t) {
		found = append(found, blocksOf(t, doc, "", lang)...)
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

// pages returns the names of the README and of what is in docs.
func pages(t *testing.T) []string {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(root, "docs/*.md"))
	if err != nil || len(paths) < 10 {
		t.Fatalf("%q are in docs: %v", paths, err)
	}
	names := []string{readme}
	for _, path := range paths {
		names = append(names, "docs/"+filepath.Base(path))
	}
	return names
}

// documents returns the texts that an operator reads, by name.
func documents(t *testing.T) map[string]string {
	t.Helper()
	docs := make(map[string]string)
	for _, name := range append(pages(t), "SECURITY.md", "CONTRIBUTING.md", "CHANGELOG.md", "Dockerfile") {
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

func TestREADMEIsShortAndLeadsToEveryPage(t *testing.T) {
	text := read(t, readme)
	if n := strings.Count(text, "\n"); n > 160 {
		t.Errorf("the README has %d lines, and may have 160", n)
	}
	for _, doc := range pages(t)[1:] {
		if !strings.Contains(text, "]("+doc+")") {
			t.Errorf("the README has no link to %s", doc)
		}
	}
}

var (
	mdLink  = regexp.MustCompile(`\]\(([^)#:]*)(?:#([^)]+))?\)`)
	heading = regexp.MustCompile(`(?m)^#+ (.+)$`)
	notSlug = regexp.MustCompile(`[^\w -]`)
)

// anchors returns the fragments that lead to a heading of a page, as GitHub
// makes them.
func anchors(text string) []string {
	var found []string
	for _, m := range heading.FindAllStringSubmatch(text, -1) {
		slug := notSlug.ReplaceAllString(strings.ToLower(m[1]), "")
		found = append(found, strings.ReplaceAll(slug, " ", "-"))
	}
	return found
}

func TestLinksLeadSomewhere(t *testing.T) {
	links := 0
	for name, text := range documents(t) {
		for _, m := range mdLink.FindAllStringSubmatch(text, -1) {
			links++
			target := name
			if m[1] != "" {
				target = filepath.Join(filepath.Dir(name), m[1])
			}
			if _, err := os.Stat(filepath.Join(root, target)); err != nil {
				t.Errorf("%s: %v", name, err)
			} else if m[2] != "" && !slices.Contains(anchors(read(t, target)), m[2]) {
				t.Errorf("%s: %s has no heading for #%s", name, target, m[2])
			}
		}
	}
	if links == 0 {
		t.Error("no links found")
	}
}

// What a reader may paste into a shell is tried here, but for test/run, which
// runs these tests itself.
func TestEveryShellBlockIsTried(t *testing.T) {
	tried := map[string][]string{
		readme:    {freshMachine, sameHost},
		install:   {sameHost},
		policyDoc: {seeWhoWouldBeRejected, writePolicy, putInForce, goBack},
	}
	for _, b := range allBlocks(t, "sh") {
		if !slices.Contains(tried[b.doc], b.section) {
			t.Errorf("%s: nobody tries the block under %q:\n%s", b.doc, b.section, b.text())
		}
	}
}
