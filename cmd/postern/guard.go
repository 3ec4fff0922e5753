package main

import (
	"context"
	"flag"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"time"

	"postern/internal/config"
	"postern/internal/policyfile"
	"postern/internal/text"
	"postern/policy"
)

// guardFlags are the values of the flags, as they were written.
type guardFlags struct {
	release, until, from string
	json                 bool
}

// guard prints what the guards of the policy have seen, or lets one go.
func guard(ctx context.Context, sys system) error {
	var src source
	var f guardFlags
	fs := flag.NewFlagSet("guard", flag.ContinueOnError)
	fs.StringVar(&f.release, "release", "", "let the guard of this `rule` go; \"(policy)\" is that of the policy's own mode")
	fs.StringVar(&f.until, "until", "", "with -release: the guard counts nothing before this `time` (default now)")
	fs.StringVar(&f.from, "from", "", "ask the instance with its admin port at this `URL`")
	fs.BoolVar(&f.json, "json", false, "write JSON")
	src.envFlag(fs)
	if err := sys.configure(fs, &src); err != nil {
		return err
	}
	sys.warnOfEnv()
	switch given := given(fs); {
	case f.release != "":
		return f.letGo(ctx, sys)
	case given.has("release"):
		return flagError{"release", "the name of the rule is missing"}
	case given.has("until"):
		return flagError{"until", "goes with -release RULE"}
	}
	known, err := sys.guards(ctx, f.from, netip.Addr{})
	switch {
	case err != nil:
		return err
	case f.json:
		return text.WriteJSON(sys.stdout, known)
	case len(known.Guards) == 0:
		_, err := fmt.Fprintln(sys.stdout, "The policy has no guard.")
		return err
	}
	var rows [][]text.Cell
	for _, g := range known.Guards {
		now := text.Cell{Text: "watches", Color: text.Green}
		switch {
		case !g.Tripped.IsZero():
			now = text.Cell{Text: fmt.Sprintf("tripped %s; postern guard -release %q lets it go", text.Unglued(text.Date(g.Tripped, nil)), g.Rule), Color: text.Red}
		case g.Released.After(sys.clock()):
			now = text.Cell{Text: "counts nothing until " + text.Unglued(text.Date(g.Released, nil)), Color: text.Yellow}
		}
		rows = append(rows, []text.Cell{{Text: g.Rule}, {Text: fmt.Sprintf("%d, more than %d trip it", g.Seen, g.Clients)}, {Text: g.Within}, {Text: g.Then}, now})
	}
	return text.WriteTable(sys.stdout, text.ColorOK(sys.stdout), []string{"rule", "clients", "within", "then", "now"}, rows)
}

// letGo asks the running instance to.
func (f *guardFlags) letGo(ctx context.Context, sys system) error {
	query := url.Values{"release": {f.release}}
	if f.until != "" {
		t, err := flagTime("until", f.until)
		if err != nil {
			return err
		}
		query.Set("until", t.Format(time.RFC3339))
	}
	_, running, err := sys.instance(f.from)
	if err != nil {
		return err
	}
	resp, err := running.do(ctx, http.MethodPost, "/api/v1/guards", query)
	if err != nil {
		return err
	}
	return resp.Body.Close()
}

// instance is the one of the environment, or at a URL.
func (sys system) instance(from string) (*config.Config, *instance, error) {
	cfg, err := config.LoadLedger(sys.environ)
	if err != nil {
		return nil, nil, err
	}
	running, err := findInstance(cfg, from)
	return cfg, running, err
}

// guardsKnown is the part of /api/v1/policy that is about guards and graces.
type guardsKnown struct {
	Guards       []policy.GuardState  `json:"guards"`
	FirstRefused map[string]time.Time `json:"first_refused,omitempty"`
}

// guards asks the running instance or, if none runs, its store for the guards of its
// policy, and what was refused to a client, if it is valid.
func (sys system) guards(ctx context.Context, from string, client netip.Addr) (known guardsKnown, err error) {
	cfg, running, err := sys.instance(from)
	if err != nil {
		return known, err
	}
	query := url.Values{}
	if client.IsValid() {
		query.Set("client", client.String())
	}
	if err = running.get(ctx, "/api/v1/policy", query, &known); err == nil || from != "" || !notRunning(err) {
		return known, err
	}
	p, err := policyfile.Of(cfg)
	if err != nil {
		return known, exitError{err, exitUsage}
	}
	store, err := openForReading(ctx, cfg)
	if err != nil {
		return known, err
	}
	defer store.Close()
	if known.Guards, err = store.Guards(ctx, p, sys.clock()); err == nil && client.IsValid() {
		known.FirstRefused, err = store.Refusals(ctx, client)
	}
	return known, err
}
