// Package check finds problems with a configuration before Postern runs with it:
// variables, files, ports and upstreams.
package check

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"postern/internal/certs"
	"postern/internal/config"
	"postern/internal/ledger"
	"postern/internal/netpoll"
	"postern/internal/policyfile"
	"postern/internal/text"
	"postern/policy"
)

// Report has the findings, one line each, beginning with the variable or the file.
type Report struct {
	// Errors keep Postern from starting, or clients from using it.
	Errors []string `json:"errors"`
	// Invalid are certificates that clients refuse today, which keep nothing from starting.
	Invalid []string `json:"-"`
	// Unanswered are upstreams that cannot serve anybody now.
	Unanswered []string `json:"unanswered"`
	// Warnings are about settings that are allowed but probably not meant.
	Warnings []string `json:"warnings"`
	// Fine lists the checks without a problem.
	Fine []string `json:"ok"`
	// Notes are what cannot be checked.
	Notes []string `json:"notes"`
}

// Run checks everything that an environment, as of os.Environ, configures.
// Offline dials nothing; else running returns what /readyz says on the admin port.
func Run(ctx context.Context, environ []string, offline bool, running func(context.Context, *config.Config) string) *Report {
	cfg, problems := config.Inspect(environ)
	r := &Report{Errors: problems, Warnings: cfg.Warnings()}
	files := r.files(cfg, time.Now())
	if cfg.APIOff() {
		r.Fine = append(r.Fine, variable("ADMIN_LISTEN")+": not on loopback, so page and API are off; they need "+variable("ADMIN_TOKEN_FILE"))
	}
	r.listeners(cfg, func() bool { return !offline && strings.HasPrefix(running(ctx, cfg), "listeners: ") }, offline)
	own := r.own(ctx, cfg, offline)
	r.ledger(ctx, cfg, offline)
	if !offline {
		r.servers(ctx, cfg, files.UpstreamRoots.Load(), own)
		r.started(cfg, environ, "", "POLICY_")
	}
	return r
}

// Reload checks the files that serve reads again, as it does: nothing else is an error.
// Variables are compared with those of the process that serves; pid is as in started.
func Reload(environ []string, pid string) *Report {
	cfg, problems := config.Inspect(environ)
	r := new(Report)
	r.files(cfg, time.Now())
	r.Warnings = slices.Concat(problems, r.Invalid, r.Warnings)
	r.Invalid = nil
	before := len(r.Warnings)
	switch process := r.started(cfg, environ, pid, ""); {
	case process == "":
		r.Notes = append(r.Notes, "a reload reads no variable again: where you have changed one, restart Postern")
	case len(r.Warnings) == before:
		r.Fine = append(r.Fine, "the variables are those with which the Postern that runs was started ("+process+")")
	}
	return r
}

// addError adds an error that may have several lines.
func (r *Report) addError(err error) {
	r.Errors = append(r.Errors, strings.Split(err.Error(), "\n")...)
}

// listeners tries to bind Postern's ports.
func (r *Report) listeners(cfg *config.Config, running func() bool, offline bool) {
	admin := config.Holder(cfg.AdminListen)
	ours := sync.OnceValue(running)
	var held []string
	for _, l := range cfg.Bound() {
		for _, addr := range l.Addrs {
			nl, err := net.Listen(config.Network(addr), addr)
			if err == nil {
				nl.Close()
			} else if r.heldByPostern(l.Variable, addr, err, offline, func(holder string) bool { return holder == admin && ours() }) {
				held = append(held, l.Variable+" "+addr)
			}
		}
	}
	if len(held) > 0 {
		r.Fine = append(r.Fine, "in use by the Postern that runs: "+strings.Join(held, ", "))
	}
}

// heldByPostern judges an address that cannot be bound: that Postern holds it is no
// error, nor that this user may not bind a port which the unit's user may.
func (r *Report) heldByPostern(variable, addr string, err error, offline bool, ours func(holder string) bool) bool {
	problem := config.BindError(variable, addr, err)
	taken, by := errors.Is(err, syscall.EADDRINUSE), config.Holder(addr)
	switch {
	case errors.Is(err, syscall.EACCES):
		r.warn(variable, "%v; docs/operations.md says how to check as the unit's user", strings.TrimPrefix(problem.Error(), variable+": "))
	case taken && by == "" && offline:
		r.warn(variable, "%s is in use, and with -offline nobody is asked by whom", addr)
	case taken && (strings.HasSuffix(by, " (postern)") || ours(by)):
		return true
	case taken && strings.HasSuffix(by, " (systemd)"):
		r.Fine = append(r.Fine, variable+": "+addr+": a socket unit of systemd holds it, and hands it over to serve")
	default:
		r.addError(problem)
	}
	return false
}

// own finds servers that are Postern itself, which would be its own client without end.
func (r *Report) own(ctx context.Context, cfg *config.Config, offline bool) (own []string) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	look := func(variable, name, addr string) {
		host, port, _ := net.SplitHostPort(addr)
		if _, err := netip.ParseAddr(host); err != nil && offline && !config.OnLoopback(addr) {
			return
		}
		ips, _ := net.DefaultResolver.LookupNetIP(ctx, "ip", host) // what does not resolve is said elsewhere
		ips = slices.DeleteFunc(ips, func(ip netip.Addr) bool { return !netpoll.Local(ip.Unmap()) })
		if l := cfg.OwnListener(ips, port); l != "" {
			r.Errors = append(r.Errors, fmt.Sprintf("%s: %s leads back to %s of this instance: name the mail server's port in %[1]s", variable, name, l))
			own = append(own, variable+": "+name)
		}
	}
	for _, u := range slices.Concat(cfg.UpstreamIMAP, cfg.UpstreamPOP3) {
		look(u.Variable(), u.String(), u.Addr())
	}
	for _, l := range cfg.PassingThrough() {
		look(l.PassthroughVariable(), string(l.Passthrough), string(l.Passthrough))
	}
	return own
}

func variable(name string) string { return config.Prefix + name }

// files reads all files.
func (r *Report) files(cfg *config.Config, now time.Time) *Files {
	var f Files
	for _, set := range f.Sets(cfg) {
		if err := set.Read(); err != nil {
			r.addError(err)
		} else {
			set.Check(r)
		}
	}
	r.policy(cfg, f.Certificates.Load(), now)
	return &f
}

// ledger checks whether the ledger can be opened and written. A database that cannot
// now is no error: Postern runs without it.
func (r *Report) ledger(ctx context.Context, cfg *config.Config, offline bool) {
	isFile := strings.HasPrefix(cfg.LedgerURL, "sqlite:")
	if ledger.Check(cfg.LedgerURL) != "" || cfg.LedgerURL == ledger.Memory || offline && !isFile {
		return // it did not parse, which was said, or there is nothing to open
	}
	name := variable("LEDGER_URL") + ": "
	switch err := ledger.Try(ctx, cfg.LedgerURL); {
	case errors.Is(err, ledger.ErrAway) && errors.As(err, new(net.Error)):
		r.Warnings = append(r.Warnings, name+err.Error()+"; start it, or mend host and port in the URL; until then Postern keeps what it sees in memory")
	case errors.Is(err, ledger.ErrAway):
		r.Warnings = append(r.Warnings, name+err.Error())
	case err != nil:
		r.Errors = append(r.Errors, name+err.Error())
	}
}

// policy checks the policy; certificates may be nil.
func (r *Report) policy(cfg *config.Config, certificates *certs.Store, now time.Time) {
	if cfg.PolicyFile == "" && (cfg.PolicyMode == "" || cfg.PolicyFloor == "") {
		return // they did not parse, which was said
	}
	p, err := policyfile.Of(cfg)
	if err != nil {
		r.addError(err)
		return
	}
	warnings := p.Warnings(now, policyfile.Site(cfg, certificates))
	for _, w := range warnings {
		blank := text.Either(w.Line == 0, " ", "") // else it begins with the line
		r.Warnings = append(r.Warnings, cmp.Or(cfg.PolicyFile, variable("POLICY_FLOOR"))+":"+blank+w.String())
	}
	r.Warnings = append(r.Warnings, policyfile.Warnings(cfg, p, certificates, now)...)
	if cfg.PolicyFile != "" && len(warnings) == 0 {
		r.Fine = append(r.Fine, fmt.Sprintf("%s: %s", cfg.PolicyFile, summary(p, now)))
	}
}

// summary says in a few words what old clients meet now.
func summary(p *policy.Policy, now time.Time) string {
	snapshot := p.At(now)
	s := "floor " + p.Floor().String() + ", mode " + snapshot.Mode.String()
	if n := len(p.Rules()); n > 0 {
		s += fmt.Sprintf(", rules: %d", n)
		if names := snapshot.InForce(); len(names) > 0 {
			s += ", in force now: " + strings.Join(names, ", ")
		}
	}
	return s
}

// started warns of variables that the running Postern has otherwise since its start, of
// those that begin with a name without its prefix. pid is its process; "" is the one that
// holds the admin port. It returns the process; "" if that, or what it has, cannot be known.
func (r *Report) started(cfg *config.Config, environ []string, pid, begin string) (process string) {
	process, is := "process "+pid, true
	if pid == "" {
		process, is = strings.CutSuffix(config.Holder(cfg.AdminListen), " (postern)")
		pid = strings.TrimPrefix(process, "process ")
	}
	if _, err := strconv.Atoi(pid); err != nil || !is {
		return ""
	}
	has, err := os.ReadFile("/proc/" + pid + "/environ") // proc_pid_environ(5)
	if err != nil || len(has) == 0 {
		return ""
	}
	for _, d := range config.Differences(environ, strings.Split(string(has), "\x00")) {
		if strings.HasPrefix(d.Variable, config.Prefix+begin) {
			r.warn(d.Variable, "%s here, but the Postern that runs (%s) has %s since its start: a reload does not change that: restart it (systemctl restart postern)", d.Here, process, d.There)
		}
	}
	return process
}
