package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"postern/bench/internal/report"
)

// TestMain: the harness starts itself as the stub.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "stub" {
		main()
		return
	}
	os.Exit(m.Run())
}

// TestALedgerIsMeasured compares today's binary with itself, on small ledgers.
func TestALedgerIsMeasured(t *testing.T) {
	dir := t.TempDir()
	binary := filepath.Join(dir, "postern")
	build := exec.Command("go", "build", "-o", binary, "./cmd/postern")
	build.Dir = filepath.Join("..", "..", "..")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	t.Setenv("POSTERN_BIN", binary)
	figures, tables := filepath.Join(dir, "figures.json"), filepath.Join(dir, "tables.md")
	err := benchLedger(t.Context(), []string{"-old", binary, "-sqlite", "2000", "-postgres", "2000", "-instances", "2", "-repeat", "1",
		"-idle", "1s", "-span", "1s", "-profile", filepath.Join(dir, "profiles"), "-json", figures, "-md", tables})
	if err != nil {
		t.Fatal(err)
	}
	run, err := report.ReadFile(figures)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"sqlite-2000", "postgres-2000"} {
		for _, key := range []string{"page_ms", "account_ms", "domain_ms", "json_first_ms", "above_mb", "idle_cpu_pct", "busy_p99_ms", "start_s"} {
			for _, s := range []string{report.Ours, report.Old} {
				if v, ok := run.Lowest(s, name, key); !ok || v <= 0 {
					t.Errorf("%s, %s, %s: %v, %v", name, s, key, v, ok)
				}
			}
		}
		if v, _ := run.Lowest(report.Ours, name, "same"); v < 50 {
			t.Errorf("%s: only %v numbers were compared", name, v)
		}
		if _, err := os.Stat(filepath.Join(dir, "profiles", name+"-json.pprof")); err != nil {
			t.Error(err)
		}
	}
	for _, r := range run.Records {
		if len(r.Notes) > 0 || r.Values["json_mb"] < 0.1 {
			t.Errorf("%+v", r)
		}
	}
	md, err := os.ReadFile(tables)
	if err != nil || strings.Count(string(md), "≤ 1/200 | **no** |") != 2 {
		t.Errorf("%v\n%s", err, md)
	}
}

func TestTheLedgerMeasureInTheDocumentation(t *testing.T) {
	testdata := filepath.Join("..", "..", "internal", "report", "testdata")
	whole, err := report.ReadFile(filepath.Join(testdata, "run.json"))
	if err != nil {
		t.Fatal(err)
	}
	run, err := report.ReadFile(filepath.Join(testdata, "ledger.json"))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	o := ledgerOptions{docs: dir, findings: filepath.Join("..", "..", "findings.md"), md: filepath.Join(dir, "tables.md")}
	if err := whole.WriteFile(filepath.Join(dir, "performance.json")); err != nil {
		t.Fatal(err)
	}
	if err := o.write(run, false); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, ledgerFile)); err == nil {
		t.Error("a run that failed is in the documentation")
	}
	if err := o.write(run, true); err != nil {
		t.Fatal(err)
	}
	page, errPage := os.ReadFile(filepath.Join(dir, "performance.md"))
	tables, errTables := os.ReadFile(o.md)
	if errPage != nil || errTables != nil || !strings.Contains(string(page), string(tables)) {
		t.Errorf("performance.md lacks the tables: %v, %v", errPage, errTables)
	}
}

func TestWhatMakesNoSenseToTheLedgerMeasure(t *testing.T) {
	t.Setenv("POSTERN_BIN", os.Args[0])
	for _, args := range [][]string{
		{},
		{"-old", "/nowhere/postern"},
		{"-old", os.Args[0], "-sqlite", "many"},
		{"-old", os.Args[0], "-repeat", "0"},
		{"-old", os.Args[0], "run"},
	} {
		if _, err := parseLedger(args); err == nil {
			t.Errorf("%q was taken", args)
		}
	}
	o, err := parseLedger([]string{"-old", os.Args[0]})
	if err != nil || len(o.ledgers) != 3 || o.ledgers[2].Rows != 5_000_000 || o.ledgers[2].Instances != 3 {
		t.Errorf("%+v, %v", o.ledgers, err)
	}
}
