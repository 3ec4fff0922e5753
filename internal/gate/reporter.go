package gate

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"runtime/debug"
	"time"

	"postern/internal/ledger"
	"postern/internal/programs"
	"postern/internal/report"
)

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
