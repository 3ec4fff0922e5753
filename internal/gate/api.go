package gate

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"strings"
	"time"

	"postern/internal/admin"
	"postern/internal/config"
	"postern/internal/ledger"
	"postern/internal/policyfile"
	"postern/internal/programs"
	"postern/internal/report"
	"postern/internal/text"
	"postern/policy"
	"postern/proxy"
)

// api returns the handler below /api/v1/. Access is checked before it.
func (g *Runtime) api() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /api/v1/policy", admin.PolicyHandler(g.policyState))
	mux.Handle("GET /api/v1/legacy-clients", g.legacyClients())
	mux.Handle("GET /api/v1/report", admin.ReportHandler(g.log, g.cfg.LedgerIdentity, g.Report))
	mux.Handle("GET /api/v1/hellos", admin.HellosHandler(g.log, g.ledger.store.Hellos))
	return mux
}

func (g *Runtime) legacyClients() *admin.Clients {
	return &admin.Clients{
		Store: g.ledger.store, Policy: func() *policy.Policy { return g.policy.Load().Policy }, Now: g.now, Log: g.log,
		Backlog: g.ledger.recorder.Backlog, OldServer: g.hasOldServer, Hash: g.identity(),
	}
}

// policyState returns the policy in force.
func (g *Runtime) policyState() admin.PolicyState {
	running := g.policy.Load()
	s := admin.PolicyState{
		Policy: running.Policy, File: g.cfg.PolicyFile, Read: running.read, Now: g.now(),
		Site:         policyfile.Site(g.cfg, g.material.Certificates.Load()),
		Listeners:    text.Each(g.cfg.Listeners(), func(l config.Listener) string { return l.Name }),
		FirstRefused: g.ledger.store.FirstRefused,
	}
	if failed := g.policyErrors.Load(); failed != nil {
		s.Failed = *failed
	}
	return s
}

// hasOldServer reports whether clients of a listener can be passed through.
func (g *Runtime) hasOldServer(l proxy.Listener) bool { return passthrough(g.cfg)[l] != "" }

// page returns the contents of / and /client.
func (g *Runtime) page() http.Handler {
	p := &admin.Page{
		Clients: g.legacyClients(), Counts: g.ledger.counts.Load, Candidates: g.ledger.candidates.Load, Dropped: g.ledger.recorder.Dropped, State: g.policyState, Readiness: g.readiness,
		Names: g.cfg.LedgerIdentity != "off", Memory: g.cfg.LedgerURL == ledger.Memory, Version: g.build.Version,
		Report: func(ctx context.Context, candidate string) (*report.Report, error) {
			since, _ := report.ParseSince(report.DefaultSince, g.now())
			o := report.Options{Since: since, Days: admin.ChartDays, Brief: true, Candidate: candidate}
			facts, err := g.facts(ctx, o)
			if err != nil {
				return nil, err
			}
			return report.Build(ctx, facts, o)
		},
	}
	return p.Handler()
}

// reportTime bounds how long the ledger is read for a report, not how long the
// report is written.
const reportTime = 5 * time.Minute

// Report writes a report from the ledger, and returns its outcome as [report.Trailer]
// has it.
func (g *Runtime) Report(ctx context.Context, w io.Writer, q report.Query) (outcome string, err error) {
	reading, cancel := context.WithTimeout(ctx, reportTime)
	defer cancel()
	facts, err := g.facts(reading, q.Options)
	if err != nil {
		return "", err
	}
	if g.Reporter != "" && !facts.Memory {
		if outcome, err = g.reportApart(ctx, w, facts, q); !errors.Is(err, errNoReporter) {
			return outcome, err
		}
		g.log.Warn("making the report in this process", "error", err.Error())
	}
	ledger.Background(func() {
		var r *report.Report
		if r, err = facts.Write(reading, w, q.Options, q.Style); err == nil {
			outcome = r.Outcome()
		}
	})
	return outcome, err
}

// facts are the input of a report.
func (g *Runtime) facts(ctx context.Context, o report.Options) (report.Facts, error) {
	f := ReportFacts(g.cfg, g.now())
	f.Policy = g.policy.Load().Policy
	f.Backlog, f.Programs = g.ledger.recorder.Backlog(), g.ledger.store.Table().Own
	return f, f.Of(ctx, g.ledger.store, o)
}

// ReportFacts returns the configuration's part of a report.
func ReportFacts(cfg *config.Config, now time.Time) report.Facts {
	return report.Facts{
		Now: now, PolicyFile: cfg.PolicyFile, Identity: cfg.LedgerIdentity,
		Memory: cfg.LedgerURL == ledger.Memory, Retention: cfg.LedgerRetention, Dir: ScratchDir(cfg),
	}
}

// ScratchDir is where a report may write what does not fit into memory: beside the
// file of the ledger, or in the system's directory for that (empty).
func ScratchDir(cfg *config.Config) string {
	if file, ok := strings.CutPrefix(cfg.LedgerURL, "sqlite:"); ok {
		return filepath.Dir(strings.TrimPrefix(file, "//"))
	}
	return ""
}

// ReporterCommand is the command of the process that makes a report for another one.
const ReporterCommand = "report-for-serve"

// reportJob is what that process reads from its stdin, as JSON.
type reportJob struct {
	LedgerURL string
	Facts     report.Facts
	Query     report.Query
}

// reporterEnd bounds how long it may take to end.
const reporterEnd = time.Second

// reportApart has a report made by a process of its own, of low priority: so neither
// its work nor its garbage has mail wait.
func (g *Runtime) reportApart(ctx context.Context, w io.Writer, facts report.Facts, q report.Query) (outcome string, err error) {
	job, err := json.Marshal(reportJob{g.cfg.LedgerURL, facts, q})
	if err != nil {
		return "", err
	}
	cmd := exec.CommandContext(ctx, g.Reporter, ReporterCommand)
	var said bytes.Buffer
	cmd.Stderr, cmd.WaitDelay = &said, reporterEnd
	stdin, err := cmd.StdinPipe() // open to the end, which tells it that this process has gone
	stdout, failed := cmd.StdoutPipe()
	if err = cmp.Or(err, failed); err != nil {
		return "", err
	}
	ledger.Background(func() { err = cmd.Start() }) // a process has the priority of the thread that starts it
	if err != nil {
		return "", fmt.Errorf("%w: %w", errNoReporter, err)
	}
	_, _ = stdin.Write(job)        // without it there is no report, and that is said
	_, failed = io.Copy(w, stdout) // which takes as long as the reader does
	stdout.Close()
	if err := cmd.Wait(); err != nil {
		return "", fmt.Errorf("a report: %w: %s", err, bytes.TrimSpace(said.Bytes()))
	}
	return said.String(), failed
}

// reporterGC is as GOGC: what lives is a few megabytes, which need no collection each
// time there are twice as many.
const reporterGC = 400

// errNoReporter reports that no process could be started.
var errNoReporter = errors.New("starting a process for a report")

// RunReporter makes the report that another process asks for, as reportApart does. Said
// gets its outcome, or why there is none.
func RunReporter(ctx context.Context, stdin io.Reader, stdout, said io.Writer) (ok bool) {
	r, err := runReporter(ctx, stdin, stdout)
	if err != nil {
		fmt.Fprintln(said, err)
		return false
	}
	_, err = io.WriteString(said, r.Outcome())
	return err == nil
}

func runReporter(ctx context.Context, stdin io.Reader, stdout io.Writer) (*report.Report, error) {
	debug.SetGCPercent(reporterGC)
	var job reportJob
	if err := json.NewDecoder(stdin).Decode(&job); err != nil {
		return nil, fmt.Errorf("postern serve starts this command; postern report asks for a report: %w", err)
	}
	ctx, cancel := whileOpen(ctx, stdin)
	defer cancel()
	store, err := ledger.OpenReadOnly(ctx, job.LedgerURL)
	if err != nil {
		return nil, err
	}
	defer store.Close()
	table, err := programs.New("", job.Facts.Programs)
	store.SetPrograms(table)
	if err = cmp.Or(err, job.Facts.Of(ctx, store, job.Query.Options)); err != nil {
		return nil, err
	}
	return job.Facts.Write(ctx, stdout, job.Query.Options, job.Query.Style)
}

// whileOpen ends with the other end of a pipe: where the process that has asked is
// killed, nobody else would end this one. It also ends after reportTime.
func whileOpen(ctx context.Context, pipe io.Reader) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithTimeout(ctx, reportTime)
	go func() {
		_, _ = io.Copy(io.Discard, pipe)
		cancel()
	}()
	return ctx, cancel
}
