package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"postern/bench/internal/handover"
)

// TestReplacementsAreCounted replaces Postern with a restart, of which clients notice,
// and by a handover, of which they do not.
func TestReplacementsAreCounted(t *testing.T) {
	dir := t.TempDir()
	binaries := make([]string, 2)
	for i, version := range []string{"this", "next"} {
		binaries[i] = filepath.Join(dir, version)
		build := exec.Command("go", "build", "-ldflags", "-X main.release="+version, "-o", binaries[i], "./cmd/postern")
		build.Dir = filepath.Join("..", "..", "..")
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	t.Setenv("POSTERN_BIN", binaries[0])
	figures := filepath.Join(dir, "figures.json")
	err := benchHandover(t.Context(), []string{"-next", binaries[1], "-ways", "restart,hand", "-sessions", "40", "-replacements", "2", "-rest", "100ms", "-json", figures})
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(figures)
	if err != nil {
		t.Fatal(err)
	}
	var results []handover.Result
	if err := json.Unmarshal(b, &results); err != nil || len(results) != 2 {
		t.Fatalf("%v: %s", err, b)
	}
	for i, r := range results {
		if r.Replacements != 2 || r.Logins < 20 || r.Handshakes < 120 || r.Legacy == 0 || r.Legacy != r.LedgerLegacy {
			t.Errorf("%+v", r)
		}
		if noticed := r.Refused + r.Reset + r.Cut; (noticed > 0) != (i == 0) {
			t.Errorf("%s: %d clients have noticed", r.Way, noticed)
		}
	}
}
