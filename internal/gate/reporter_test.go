package gate

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"postern/internal/config"
	"postern/internal/ledger"
	"postern/internal/report"
	"postern/policy"
)

// standIn is a runtime whose reports a shell script makes.
func standIn(t *testing.T, script string) *Runtime {
	t.Helper()
	file := filepath.Join(t.TempDir(), "reporter")
	if err := os.WriteFile(file, []byte("#!/bin/sh\n"+script), 0o700); err != nil {
		t.Fatal(err)
	}
	return &Runtime{cfg: &config.Config{LedgerURL: "sqlite:/nowhere"}, Reporter: file}
}

func TestAReportApart(t *testing.T) {
	var out bytes.Buffer
	g := standIn(t, `echo "$1"; printf outcome >&2`)
	outcome, err := g.reportApart(t.Context(), &out, report.Facts{}, report.Query{})
	if err != nil || outcome != "outcome" || out.String() != ReporterCommand+"\n" {
		t.Errorf("%q, %q, %v", outcome, out.String(), err)
	}
	g = standIn(t, "echo disk full >&2; exit 3")
	if _, err = g.reportApart(t.Context(), io.Discard, report.Facts{}, report.Query{}); err == nil || !strings.Contains(err.Error(), "disk full") {
		t.Error(err)
	}
	g.Reporter += "-gone"
	if _, err = g.reportApart(t.Context(), io.Discard, report.Facts{}, report.Query{}); !errors.Is(err, errNoReporter) {
		t.Error(err)
	}
}

// TestAReportApartEndsWithItsReader: begun is what it has written by then.
func TestAReportApartEndsWithItsReader(t *testing.T) {
	g := standIn(t, "echo begun; exec sleep 60")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	begun := time.Now()
	_, err := g.reportApart(ctx, writer(func(p []byte) { cancel() }), report.Facts{}, report.Query{})
	if took := time.Since(begun); err == nil || took > 30*time.Second {
		t.Errorf("%v after %v", err, took)
	}
}

// TestAReportApartWaitsForItsReader: it has ended long before its reader.
func TestAReportApartWaitsForItsReader(t *testing.T) {
	t.Parallel()
	g, n := standIn(t, "head -c 60000 /dev/zero"), 0
	_, err := g.reportApart(t.Context(), writer(func(p []byte) {
		if n == 0 {
			time.Sleep(reporterEnd + 500*time.Millisecond)
		}
		n += len(p)
	}), report.Facts{}, report.Query{})
	if err != nil || n != 60000 {
		t.Errorf("%d bytes, %v", n, err)
	}
}

// TestAReportApartEndsWithAReaderThatIsGone: the script would write for ever.
func TestAReportApartEndsWithAReaderThatIsGone(t *testing.T) {
	t.Parallel()
	g := standIn(t, "while echo line; do :; done")
	r, w := io.Pipe()
	r.Close()
	if _, err := g.reportApart(t.Context(), w, report.Facts{}, report.Query{}); err == nil {
		t.Error("nobody has read it, and there is no error")
	}
}

type writer func([]byte)

func (w writer) Write(p []byte) (int, error) {
	w(p)
	return len(p), nil
}

// TestTheProcessForAReport: it makes what this process would make.
func TestTheProcessForAReport(t *testing.T) {
	url := "sqlite:" + filepath.Join(t.TempDir(), "ledger.db")
	store, err := ledger.Open(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	p, err := policy.Parse([]byte("mode: observe\nrules:\n  - {name: printers, mode: enforce, from: 2026-01-01T00:00:00Z}\n"))
	if err != nil {
		t.Fatal(err)
	}
	facts := report.Facts{Now: time.Date(2026, 6, 16, 12, 0, 0, 0, time.UTC), Policy: p, PolicyFile: "/etc/postern/policy.yaml", Identity: "plain",
		Backlog: ledger.Backlog{Stuck: true, Clients: 7, Ledger: "sqlite:x"}, Retention: 90 * 24 * time.Hour}
	q := report.Query{Options: report.Options{Since: 24 * time.Hour, Max: 3}, Style: report.Style{Format: report.Markdown, Top: 5}}
	job, err := json.Marshal(reportJob{url, facts, q})
	if err != nil {
		t.Fatal(err)
	}
	if err := facts.Of(t.Context(), store, q.Options); err != nil {
		t.Fatal(err)
	}
	var want, got, said bytes.Buffer
	r, err := facts.Write(t.Context(), &want, q.Options, q.Style)
	if err != nil {
		t.Fatal(err)
	}
	stdin, parent := io.Pipe()
	defer parent.Close()
	go parent.Write(job)
	if !RunReporter(t.Context(), stdin, &got, &said) || got.String() != want.String() || said.String() != r.Outcome() {
		t.Errorf("%s\n%s\nwant\n%s\n%s", got.String(), said.String(), want.String(), r.Outcome())
	}
	for job, words := range map[string]string{"": "postern serve starts this command", `{"LedgerURL": "sqlite:/nowhere/x"}`: "no ledger is there yet"} {
		said.Reset()
		if RunReporter(t.Context(), strings.NewReader(job), io.Discard, &said) || !strings.Contains(said.String(), words) {
			t.Errorf("%q: %s", job, said.String())
		}
	}
}

func TestTheProcessForAReportEndsWithTheOther(t *testing.T) {
	stdin, parent := io.Pipe()
	ctx, cancel := whileOpen(t.Context(), stdin)
	defer cancel()
	if _, err := parent.Write([]byte("\n")); err != nil || ctx.Err() != nil {
		t.Error(err, ctx.Err())
	}
	parent.Close()
	<-ctx.Done()
}
