package main

import (
	"cmp"
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

// planFlags are the values of the flags.
type planFlags struct {
	source
	span     time.Duration
	from, at time.Time
	client   policy.Client
	json     bool
	given    []string
	known    guardsKnown
}

// clientFlags are for what a client has for each key of a match.
func clientFlags() []string {
	return text.Each(policy.Keys, func(k *policy.Key) string { return strings.ReplaceAll(k.Name, "_", "-") })
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
	define(fs, "for", "90d", "how far to look: a `duration` such as 36h or 90d; ten years at most", into(&f.span, readDuration))
	define(fs, "from", "", "begin at this `time` (default now)", into(&f.from, readTime))
	f.flags(fs)
	fs.BoolVar(&f.json, "json", false, "write JSON")
	define(fs, "at", "", "explain a decision at this `time` (default now)", into(&f.at, readTime))
	for i, name := range clientFlags() {
		usual := map[string]string{"version": "tls1.0", "listener": "imaps"}
		define(fs, name, usual[name], "... "+policy.Keys[i].Usage, func(s string) error { return f.client.Set(policy.Keys[i], s) })
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
	given := func(name string) bool { return slices.Contains(f.given, name) }
	about, over := slices.IndexFunc(decision, given), slices.IndexFunc(timeline, given)
	ask := f.plan
	switch {
	case about >= 0 && over >= 0:
		return nil, flagError{timeline[over], "does not go with -" + decision[about] + ", which asks about one decision: leave one of them out (-at is its time)"}
	case f.span > longestPlan:
		return nil, flagError{"for", "longer than 3660d, the most"}
	case about >= 0:
		ask = f.question
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
	if f.policy == "" && p.Watches() {
		var errGuards error
		if f.known, err = sys.guards(ctx, "", f.client.Client); err != nil {
			// A running instance knows its guards also while the ledger is away.
			f.known, errGuards = sys.guards(ctx, "", netip.Addr{})
			sys.errorf("warning: %swhose grace has begun is not known: %v", text.Either(errGuards != nil, "which guards have tripped and ", ""), err)
		}
	}
	return ask(cfg, p.Guarded(f.known.Guards, nil), sys.clock())
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
	from := cmp.Or(f.from, now.Truncate(time.Minute))
	listeners := openListeners(cfg)
	if len(listeners) == 0 {
		return nil, errors.New(config.Prefix + "LISTEN_IMAPS: all four listeners are off: give one an address, such as :993")
	}
	return &plan.Plan{Source: cfg.PolicyFile, Policy: p, From: from, Until: from.Add(f.span), Listeners: listeners}, nil
}

func (f *planFlags) question(cfg *config.Config, p *policy.Policy, now time.Time) (printable, error) {
	q := &plan.Question{FirstRefused: f.known.FirstRefused, Source: cfg.PolicyFile, Policy: p, Client: f.client}
	q.Time = cmp.Or(f.at, now.Truncate(time.Second))
	q.Client.Port = cmp.Or(q.Client.Port, listenerPort(cfg, q.Client.Listener))
	return q, nil
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
