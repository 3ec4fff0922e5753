package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"postern/internal/config"
	"postern/internal/plan"
	"postern/internal/policyfile"
	"postern/internal/text"
	"postern/policy"
)

// planFlags are the values of the flags, as they were written.
type planFlags struct {
	source
	span, from, at string
	client         []string // by policy.Keys
	json           bool
	given          flagValues
}

// clientFlags are for what a client has for each key of a match.
func clientFlags() (names []string) {
	for _, k := range policy.Keys {
		names = append(names, strings.ReplaceAll(k.Name, "_", "-"))
	}
	return names
}

// longestPlan bounds -for.
const longestPlan = 3660 * 24 * time.Hour

// printable is a plan or a decision, in both output formats.
type printable interface {
	WriteText(io.Writer) error
	WriteJSON(io.Writer) error
}

// planPolicy prints what the policy does over time, or to one client.
func planPolicy(ctx context.Context, sys system) error {
	var f planFlags
	fs := flag.NewFlagSet("plan", flag.ContinueOnError)
	fs.StringVar(&f.span, "for", "90d", "how far to look: a `duration` such as 36h or 90d; ten years at most")
	fs.StringVar(&f.from, "from", "", "begin at this `time` (default now)")
	f.flags(fs)
	fs.BoolVar(&f.json, "json", false, "write JSON")
	fs.StringVar(&f.at, "at", "", "explain a decision at this `time` (default now)")
	f.client = make([]string, len(policy.Keys))
	for i, name := range clientFlags() {
		usual := map[string]string{"version": "tls1.0", "listener": "imaps"}
		fs.StringVar(&f.client[i], name, usual[name], "... "+policy.Keys[i].Usage)
	}
	if err := sys.configure(fs, &f.source); err != nil {
		return err
	}
	f.given = given(fs)
	sys.warnOfEnv()
	answer, err := f.answer(ctx, sys)
	if errors.As(err, new(exitError)) || errors.As(err, new(flagError)) {
		return err
	}
	if err != nil {
		return config.Problems{err.Error()}
	}
	print := answer.WriteText
	if f.json {
		print = answer.WriteJSON
	}
	if err := print(sys.stdout); err != nil {
		return fmt.Errorf("writing: %w", err)
	}
	return nil
}

// answer returns the plan or the decision.
func (f *planFlags) answer(ctx context.Context, sys system) (printable, error) {
	timeline, decision := []string{"for", "from"}, append([]string{"at"}, clientFlags()...)
	about := slices.IndexFunc(decision, f.given.has)
	over := slices.IndexFunc(timeline, f.given.has)
	ask := f.plan
	switch {
	case about >= 0 && over >= 0:
		return nil, flagError{timeline[over], "does not go with -" + decision[about] + ", which asks about one decision: leave one of them out (-at is its time)"}
	case about >= 0:
		ask = f.question
	}
	defaults, err := config.LoadPolicy(nil)
	var asked printable
	if err == nil {
		asked, err = ask(defaults, nil, sys.clock()) // flags come before the policy
	}
	if err != nil {
		return nil, err
	}
	cfg, err := config.LoadPolicy(sys.environ)
	if err == nil && !sys.has("POLICY_", "LISTEN_", "UPSTREAM_") {
		cfg, err = runningPolicy(ctx, sys)
	}
	if err != nil {
		return nil, err
	}
	p, err := policyfile.Of(cfg)
	if err != nil {
		return nil, err
	}
	var known guardsKnown
	if f.policy == "" && p.WatchesAny() {
		var client netip.Addr
		if q, _ := asked.(*plan.Question); q != nil {
			client = q.Client.Client
		}
		if known, err = sys.guards(ctx, "", client); err != nil {
			sys.errorf("warning: which guards have tripped, and whose grace has begun, is not known: %v", err)
		}
	}
	answer, err := ask(cfg, p.Guarded(known.Guards, nil), sys.clock())
	if q, _ := answer.(*plan.Question); q != nil {
		q.FirstRefused = known.FirstRefused
	}
	return answer, err
}

// runningPolicy returns the policy's part of the configuration of the running
// instance, for a host where the environment says nothing.
func runningPolicy(ctx context.Context, sys system) (*config.Config, error) {
	_, running, err := sys.instance("")
	if err != nil {
		return nil, err
	}
	var state struct {
		File         string
		Mode, Floor  string
		Listeners    map[string]string
		ReloadErrors []string `json:"reload_errors"`
	}
	switch err := running.get(ctx, "/api/v1/policy", nil, &state); {
	case notRunning(err):
		return nil, usageErrorf("%s, or a policy (-policy FILE); "+nobody+" either", noVariable, running.where)
	case err != nil && !errors.As(err, new(exitError)):
		return nil, exitError{err, exitBroken}
	case err != nil:
		return nil, err
	}
	for _, line := range state.ReloadErrors {
		sys.errorf("warning: the instance at %s could not read the file again, and runs with an older one: %s", running.where, line)
	}
	environ := []string{config.Prefix + "POLICY_FILE=" + state.File}
	if state.File == "" {
		environ = []string{config.Prefix + "POLICY_MODE=" + state.Mode, config.Prefix + "POLICY_FLOOR=" + state.Floor}
	}
	for _, name := range policy.ListenerNames {
		if state.Listeners[name] == "" {
			environ = append(environ, config.Prefix+"LISTEN_"+strings.ToUpper(name)+"=off")
		}
	}
	sys.errorf("postern plan: no POSTERN_ variable is set here; this is the policy of the instance at %s", running.where)
	return config.LoadPolicy(environ)
}

func (f *planFlags) plan(cfg *config.Config, p *policy.Policy, now time.Time) (printable, error) {
	span, err := text.ParseDuration(f.span)
	switch {
	case err != nil:
		return nil, flagError{"for", fmt.Sprintf("%q is %v", f.span, err)}
	case span > longestPlan:
		return nil, flagError{"for", "longer than 3660d, the most"}
	}
	from := now.Truncate(time.Minute)
	if f.given.has("from") {
		if from, err = flagTime("from", f.from); err != nil {
			return nil, err
		}
	}
	listeners := openListeners(cfg)
	if len(listeners) == 0 {
		return nil, errors.New(config.Prefix + "LISTEN_IMAPS: all four listeners are off: give one an address, such as :993")
	}
	return &plan.Plan{Source: cfg.PolicyFile, Policy: p, From: from, Until: from.Add(span), Listeners: listeners}, nil
}

func (f *planFlags) question(cfg *config.Config, p *policy.Policy, now time.Time) (printable, error) {
	q := &plan.Question{Source: cfg.PolicyFile, Policy: p, Time: now.Truncate(time.Second)}
	for i, name := range clientFlags() {
		if f.client[i] == "" && !f.given.has(name) {
			continue
		}
		if err := q.Client.Set(policy.Keys[i], f.client[i]); err != nil {
			return nil, flagError{name, err.Error()}
		}
	}
	if q.Client.Port == 0 {
		q.Client.Port = listenerPort(cfg, q.Client.Listener)
	}
	if f.given.has("at") {
		var err error
		if q.Time, err = flagTime("at", f.at); err != nil {
			return nil, err
		}
	}
	return q, nil
}

// flagTime reads a time as people write it; without a zone it is UTC.
func flagTime(name, s string) (time.Time, error) {
	t, _, err := text.ParseTime(s)
	if err == nil && t.Year() < 9000 {
		return t, nil
	}
	return time.Time{}, flagError{name, fmt.Sprintf("%q is not a time: write one such as 2026-07-01, \"2026-07-01 10:30\" (both UTC) or 2026-07-01T10:30:00+02:00", s)}
}

// listenerAddrs returns the addresses of each listener; none if it is off.
func listenerAddrs(cfg *config.Config) map[string]config.Addrs {
	return map[string]config.Addrs{"imaps": cfg.ListenIMAPS, "pop3s": cfg.ListenPOP3S, "imap": cfg.ListenIMAP, "pop3": cfg.ListenPOP3}
}

func openListeners(cfg *config.Config) []string {
	addrs := listenerAddrs(cfg)
	return slices.DeleteFunc(slices.Clone(policy.ListenerNames), func(name string) bool { return len(addrs[name]) == 0 })
}

// listenerPort returns a listener's first port, or its standard port.
func listenerPort(cfg *config.Config, listener string) uint16 {
	for _, addr := range listenerAddrs(cfg)[listener] {
		_, port, _ := net.SplitHostPort(addr)
		if n, _ := strconv.ParseUint(port, 10, 16); n > 0 {
			return uint16(n)
		}
	}
	return map[string]uint16{"imaps": 993, "pop3s": 995, "imap": 143, "pop3": 110}[listener]
}
