package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"time"

	"golang.org/x/term"

	"postern/internal/config"
	"postern/internal/gate"
	"postern/internal/ledger"
	"postern/internal/policyfile"
	"postern/internal/report"
	"postern/internal/text"
	"postern/policy"
)

// reportFlags are the values of the flags.
type reportFlags struct {
	source
	patterns               bool
	accounts, forget, from string
	q                      report.Query
	given                  []string
}

// reportLedger prints the remaining clients and whether old TLS can be cut.
func reportLedger(ctx context.Context, sys system) error {
	var f reportFlags
	fs := flag.NewFlagSet("report", flag.ContinueOnError)
	define(fs, "since", report.DefaultSince, "clients that were seen in this `time`, such as 36h or 30d, or since a date", into(&f.q.Since, sys.readSince))
	define(fs, "by", "", "put together by `account`, domain, network, program or software (default account where\n"+
		"POSTERN_LEDGER_IDENTITY keeps it, else network: an address, or an IPv6 /64)", into(&f.q.By, report.ParseBy))
	define(fs, "candidate", "", "clients that this remembered `candidate` of the policy would refuse, in the place of legacy ones",
		into(&f.q.Candidate, readText))
	define(fs, "format", "text", "`text`, markdown, csv or json, or an inventory as cyclonedx (1.6, a CBOM)", into(&f.q.Style.Format, report.ParseFormat))
	fs.BoolVar(&f.q.Noise, "noise", false, "list noise too")
	fs.BoolVar(&f.q.Style.Ready, "ready", false, "say whether it can be cut: exit code 1 while more than -max clients remain")
	define(fs, "max", "0", "the `number` of clients that may remain", into(&f.q.Max, readCount))
	define(fs, "max-unknown", "0", "the `number` of clients that may be left that were never let in, so that nobody knows who they\n"+
		"are (where POSTERN_LEDGER_IDENTITY keeps who logs in)", into(&f.q.MaxUnknown, readCount))
	define(fs, "top", strconv.Itoa(report.Shown), "the first `N` of each list, 0 for all; unless told otherwise a text has as many as fit\n"+
		"the terminal, csv and json have all", into(&f.q.Style.Top, readCount))
	fs.BoolVar(&f.q.Style.Summary, "summary", false, "leave the lists out")
	fs.BoolVar(&f.q.Mail, "mail", false, "list the accounts to write to: a line each, with the days that are left, by the owner\n"+
		"of its exemption; with -format csv for a mail merge")
	define(fs, "accounts", "", "a `file` with accounts, one a line, to resolve hashed ones with\nPOSTERN_LEDGER_IDENTITY_KEY_FILE", into(&f.accounts, readText))
	define(fs, "forget", "", "erase this `account or IP address` from the ledger", into(&f.forget, readText))
	fs.BoolVar(&f.patterns, "patterns", false, "print how the programs speak that are not known, as POSTERN_PROGRAMS_FILE has it, and nothing\nelse")
	fs.BoolVar(&f.q.Style.Inventory, "inventory", false, "print what handshakes have agreed on (versions, cipher suites, groups, keys) since the day of\n-since, and nothing else")
	define(fs, "from", "", "ask the instance with its admin port at this `URL`", into(&f.from, readText))
	f.flags(fs)
	f.q.Style.Width = sys.width()
	if err := sys.configure(fs, &f.source); err != nil {
		return err
	}
	f.given = given(fs)
	sys.warnOfEnv()
	return f.run(ctx, sys)
}

func (f *reportFlags) run(ctx context.Context, sys system) error {
	if err := f.options(); err != nil {
		return err
	}
	cfg, err := config.LoadLedger(sys.environ)
	if err != nil {
		return err
	}
	if f.forget != "" {
		return f.erase(ctx, sys, cfg)
	}
	known, err := f.knownAccounts(cfg)
	if err != nil {
		return err
	}
	format := f.q.Style.Format
	if !slices.Contains(f.given, "top") {
		f.q.Style.Top = sys.top(format)
	}
	p := sys.progress()
	if columns, _ := sys.terminal(); columns > 0 && format != report.Text && format != report.Markdown {
		p = nil // what is written as it comes would mix with it
	}
	r, err := f.answer(ctx, sys, cfg, f.q, known, p)
	p.clear()
	if err != nil {
		return err
	}
	switch {
	case f.q.Style.Ready && r.Unwritten != nil:
		return exitError{errors.New(r.Verdict()), exitBroken}
	case r.Unwritten != nil && (f.q.Mail || format == report.CSV): // which hold no verdict
		sys.errorf("postern report: %s", r.Verdict())
	case f.q.Style.Ready && !r.Readiness.Ready:
		return exitError{code: exitNo}
	}
	return nil
}

// leastWidth is the narrowest text that can be read, and leastTop the shortest list;
// otherLines is what a report has beside the first one.
const (
	leastWidth = 60
	leastTop   = 10
	otherLines = 12
)

// width returns how many columns a text may have: those of COLUMNS or of the
// terminal, or 0 if neither is known.
func (sys system) width() int {
	columns, _ := strconv.Atoi(sys.getenv("COLUMNS"))
	if columns <= 0 {
		columns, _ = sys.terminal()
	}
	if columns > 0 {
		columns = max(columns, leastWidth)
	}
	return columns
}

// terminal returns the size of that of stdout; 0 if it is none.
func (sys system) terminal() (columns, rows int) {
	if f, ok := sys.stdout.(untilClosed); ok {
		columns, rows, _ = term.GetSize(int(f.Fd()))
	}
	return columns, rows
}

// top is how long a list is by default: as fits the terminal.
func (sys system) top(format report.Format) int {
	if _, rows := sys.terminal(); rows > 0 && format == report.Text {
		return max(rows-otherLines, leastTop)
	}
	return report.DefaultTop
}

// options judges the flags together.
func (f *reportFlags) options() error {
	f.q.Style.Mail = f.q.Mail
	if f.patterns {
		f.q.Style.Format = report.Patterns
	}
	if _, err := netip.ParsePrefix(f.forget); err == nil {
		return flagError{"forget", "a network: give one account or one IP address, as the report writes it"}
	}
	f.q.Style.Inventory = f.q.Style.Inventory || f.q.Style.Format == report.CycloneDX
	for flag, along := range map[string][]string{
		"forget": {"env"}, "patterns": {"env", "from", "since"}, "inventory": {"env", "from", "since", "format"},
	} {
		for _, name := range f.given {
			if (slices.Contains(f.given, flag) || flag == "inventory" && f.q.Style.Inventory) && name != flag && !slices.Contains(along, name) {
				return flagError{flag, "does not go with -" + name + ": leave that out"}
			}
		}
	}
	return nil
}

// mailTo refuses to list accounts where none are kept.
func (f *reportFlags) mailTo(identity string) error {
	if f.q.Mail && identity == "off" {
		return usageErrorf("-mail: %sLEDGER_IDENTITY is off, so that no account is known: set it to plain or hashed and restart Postern, which knows "+
			"accounts from then on; until then use -by network", config.Prefix)
	}
	return nil
}

// answer writes what the running proxy or, if none runs, its store says. It
// returns the report, or the outcome of it.
func (f *reportFlags) answer(ctx context.Context, sys system, cfg *config.Config, q report.Query, known map[string]string, p *progress) (*report.Report, error) {
	running, err := findInstance(cfg, f.from)
	if err != nil {
		return nil, err
	}
	facts := gate.ReportFacts(cfg, sys.clock())
	facts.Progress = p.share
	var perr error
	facts.Policy, perr = policyfile.Of(cfg)
	var r *report.Report
	inMemory := f.policy != "" || known != nil
	if !inMemory {
		r, err = running.report(ctx, &q, sys.stdout, f.mailTo, p)
		inMemory = errors.Is(err, errOlder)
	}
	if inMemory {
		all := report.Query{Options: q.Options, Style: report.Style{Format: report.JSON, Top: report.DefaultTop, Mail: q.Mail}}
		r, err = running.report(ctx, &all, nil, nil, p)
	}
	switch {
	case err != nil && (f.from != "" || !notRunning(err)):
		return nil, err
	case err != nil && perr != nil, f.policy != "" && perr != nil:
		return nil, exitError{perr, exitUsage}
	case err != nil:
		if r, err = f.fromStore(ctx, sys.stdout, cfg, facts, q, known != nil, p); err != nil || known == nil {
			return r, err
		}
	case !inMemory:
		return r, nil
	case f.policy != "":
		if r, err = judgeHere(ctx, running, facts, q.Options, r, p); err != nil {
			return nil, err
		}
	}
	if err := f.mailTo(r.Identity); err != nil {
		return nil, err
	}
	if known != nil {
		if n := r.Resolve(known); n > 0 {
			r.Notes = append(r.Notes, fmt.Sprintf("Accounts that -accounts could not resolve: %d.", n))
		}
	}
	p.clear()
	if err := r.Write(sys.stdout, q.Style); err != nil {
		return nil, fmt.Errorf("writing: %w", err)
	}
	return r, nil
}

// judgeHere makes the report by another policy than that of the instance, of its
// clients and of what else it says.
func judgeHere(ctx context.Context, running *instance, facts report.Facts, o report.Options, r *report.Report, p *progress) (*report.Report, error) {
	facts.Identity, facts.Began = r.Identity, r.Began
	if u := r.Unwritten; u != nil {
		facts.Backlog = ledger.Backlog{Stuck: true, Clients: u.Clients, Since: u.Since, Ledger: u.Ledger}
	}
	clients, err := running.clients(ctx, r.Since, o.Candidate, true, p)
	if err != nil {
		return nil, err
	}
	for i := range clients { // the instance does not list their days
		clients[i].Days = []ledger.Day{{Number: facts.Now.Unix() / int64((24 * time.Hour).Seconds()), Counts: clients[i].Counts}}
	}
	facts.Source = report.SourceOf(clients)
	other, err := report.Build(ctx, facts, o)
	if err != nil {
		return nil, err
	}
	other.Trend, other.Totals.Handshakes, other.Totals.ByPlace = r.Trend, r.Totals.Handshakes, r.Totals.ByPlace
	return other, nil
}

// fromStore writes what the store of a proxy that does not run has, or makes it in
// memory.
func (f *reportFlags) fromStore(ctx context.Context, w io.Writer, cfg *config.Config, facts report.Facts, q report.Query, inMemory bool, p *progress) (*report.Report, error) {
	store, err := openForReading(ctx, cfg)
	if err != nil {
		return nil, err
	}
	defer store.Close()
	if err := f.mailTo(facts.Identity); err != nil {
		return nil, err
	}
	if err := facts.Of(ctx, store, q.Options); errors.As(err, new(policy.NotRemembered)) {
		return nil, flagError{"candidate", err.Error()}
	} else if err != nil {
		return nil, err
	}
	if inMemory {
		return report.Build(ctx, facts, q.Options)
	}
	return facts.Write(ctx, &behind{w, p.clear}, q.Options, q.Style)
}

// knownAccounts returns the accounts of -accounts by hash; nil without it.
func (f *reportFlags) knownAccounts(cfg *config.Config) (map[string]string, error) {
	if f.accounts == "" {
		return nil, nil
	}
	key, err := cfg.IdentityKey()
	if err != nil {
		return nil, exitError{err, exitUsage}
	}
	if key == nil {
		return nil, usageErrorf("-accounts: set %sLEDGER_IDENTITY_KEY_FILE to the file of the key that accounts are hashed with, as serve has it (-env FILE)", config.Prefix)
	}
	list, err := os.ReadFile(f.accounts)
	if err != nil {
		return nil, usageErrorf("-accounts: %w", text.FileError(f.accounts, err))
	}
	known := make(map[string]string)
	for _, account := range report.ReadAccounts(string(list)) {
		known[ledger.HashAccount(key, account)] = account
	}
	return known, nil
}

// erase has the ledger forget an account or an address.
func (f *reportFlags) erase(ctx context.Context, sys system, cfg *config.Config) error {
	switch {
	case cfg.Bare():
		return usageErrorf("-forget: %s", noVariable)
	case cfg.LedgerURL == ledger.Memory:
		return usageErrorf("-forget: %sLEDGER_URL is memory:, which only the running instance has: restart it, and all is forgotten", config.Prefix)
	}
	names := []string{f.forget}
	_, notIP := netip.ParseAddr(f.forget)
	if notIP != nil {
		key, err := cfg.IdentityKey()
		if err != nil {
			return exitError{err, exitUsage}
		}
		if key != nil {
			names = append(names, ledger.HashAccount(key, f.forget))
		}
	}
	store, err := ledger.OpenReadOnly(ctx, cfg.LedgerURL) // Open would create a missing file
	if err == nil {
		store.Close()
		store, err = ledger.Open(ctx, cfg.LedgerURL)
	}
	if err != nil {
		return fmt.Errorf("%sLEDGER_URL: %w", config.Prefix, err)
	}
	defer store.Close()
	var rows int64
	for _, name := range names {
		n, err := store.Forget(ctx, name)
		if err != nil {
			return err
		}
		rows += n
	}
	if err := store.Scrub(ctx); err != nil {
		return fmt.Errorf("-forget: %w", err)
	}
	if rows == 0 {
		hint := "an account is given whole, as it logs in"
		switch {
		case notIP == nil:
			hint = "an address is given as the report writes it, and not as a network"
		case len(names) == 1:
			hint += "; one that is kept hashed is found only with the key, " + config.Prefix + "LEDGER_IDENTITY_KEY_FILE"
		}
		return exitError{fmt.Errorf("-forget: nothing about %q is in %s: %s", f.forget, ledger.Redacted(cfg.LedgerURL), hint), exitNo}
	}
	fmt.Fprintf(sys.stdout, "Erased %s about %q from %s.\n", text.Number(int(rows), "row"), f.forget, ledger.Redacted(cfg.LedgerURL))
	if notIP != nil {
		fmt.Fprintln(sys.stdout, "A running instance may name the account in its log for some time yet.")
	}
	return nil
}
