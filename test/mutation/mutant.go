package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// mutant is one defect.
type mutant struct {
	// name says in words what would be wrong.
	name string
	// file is the path from the root of the repository; old stands in it
	// exactly once, and is replaced by new.
	file, old, new string
	// seen is the test that must fail.
	seen check
}

// check is the narrowest test that sees a defect: a package, as the path from
// the root, and a pattern for -run.
type check struct{ pkg, run string }

func (c check) String() string { return fmt.Sprintf("./%s -run %q", c.pkg, c.run) }

// blackBox reports whether the tests of the package start the built program.
func (c check) blackBox() bool { return strings.HasPrefix(c.pkg, "test/") || c.pkg == "cmd/postern" }

// inside reports whether they call the product's own code too.
func (c check) inside() bool { return !strings.HasPrefix(c.pkg, "test/") }

// all are the defects, by the part of the product that they are planted in.
func all() []mutant {
	return slices.Concat(
		policyMutants(),
		handshakeMutants(),
		lookMutants(),
		frontMutants(),
		relayMutants(),
		copyMutants(),
		parkMutants(),
		flowMutants(),
		thresholdMutants(),
		tellingMutants(),
		outwardMutants(),
		adminMutants(),
		memoryMutants(),
		passthroughMutants(),
		planMutants(),
		reloadMutants(),
		storyMutants(),
		ruleMutants(),
		namingMutants(),
		apiMutants(),
		reportMutants(),
		ledgerMutants(),
		dashboardMutants(),
	)
}

// planted is the text of a file with the defect in it.
func (m mutant) planted(text []byte) ([]byte, error) {
	switch n := bytes.Count(text, []byte(m.old)); {
	case m.old == m.new:
		return nil, fmt.Errorf("%s: the defect changes nothing", m.file)
	case n != 1:
		return nil, fmt.Errorf("%s: the code to change stands there %d times, not once:\n%s", m.file, n, m.old)
	}
	return bytes.Replace(text, []byte(m.old), []byte(m.new), 1), nil
}

// plant writes the changed file and an overlay that names it into dir, and
// returns the overlay's path.
func (m mutant) plant(root, dir string) (string, error) {
	path := filepath.Join(root, filepath.FromSlash(m.file))
	text, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("reading the code to change: %w", err)
	}
	if text, err = m.planted(text); err != nil {
		return "", err
	}
	changed := filepath.Join(dir, filepath.Base(path))
	if err := os.WriteFile(changed, text, 0o600); err != nil {
		return "", err
	}
	overlay, err := json.Marshal(map[string]map[string]string{"Replace": {path: changed}})
	if err != nil {
		return "", err
	}
	file := filepath.Join(dir, "overlay.json")
	return file, os.WriteFile(file, overlay, 0o600)
}
