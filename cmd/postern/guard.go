package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"time"

	"postern/internal/admin"
	"postern/internal/config"
	"postern/internal/policyfile"
	"postern/internal/text"
	"postern/policy"
)

// guard prints what the guards of the policy have seen, or lets one go.
func guard(ctx context.Context, sys system) error {
	var src source
	fs := flag.NewFlagSet("guard", flag.ContinueOnError)
	release := fs.String("release", "", "let the guard of this `rule` go; \"(policy)\" is that of the policy's own mode")
	until := fs.String("until", "", "with -release: the guard counts nothing before this `time` (default now)")
	from := fs.String("from", "", "ask the instance with its admin port at this `URL`")
	asJSON := fs.Bool("json", false, "write JSON")
	src.envFlag(fs)
	if err := sys.configure(fs, &src); err != nil {
		return err
	}
	sys.warnOfEnv()
	switch {
	case slices.Contains(given(fs), "release"):
		return sys.release(ctx, *from, url.Values{"release": {*release}, "until": {*until}})
	case *until != "":
		return flagError{"until", "goes with -release RULE"}
	}
	known, err := sys.guards(ctx, *from, netip.Addr{})
	if err != nil {
		return err
	}
	if *asJSON {
		return text.WriteJSON(sys.stdout, known)
	}
	words := text.Either(len(known.Guards) == 0, "The policy has no guard.\n", "")
	for _, g := range known.Guards {
		words += text.Unglued(g.String()) + "\n"
	}
	_, err = io.WriteString(sys.stdout, words)
	return err
}

// release asks the running instance to let a guard go.
func (sys system) release(ctx context.Context, from string, query url.Values) error {
	_, running, err := sys.instance(from)
	if err != nil {
		return err
	}
	var g admin.Released
	if err := running.call(ctx, http.MethodPost, "/api/v1/guards", query, &g); err != nil {
		return err
	}
	part := text.Either(g.Share < 1, fmt.Sprintf(" for %.3g %% of the clients", 100*g.Share), "")
	_, err = fmt.Fprintf(sys.stdout, "The guard of %q is released: the mode is %s%s.\nMore than %d known clients within %s, from %s on, trip it: %s.\n",
		g.Rule, g.Mode, text.Either(g.Share > 0, part, ", and its rule is not in force now"), g.Clients, g.Within, text.Unglued(text.Date(g.Released, nil)), g.Then)
	return err
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
// policy, and what was refused to a client, which is none where it is not valid.
func (sys system) guards(ctx context.Context, from string, client netip.Addr) (known guardsKnown, err error) {
	cfg, running, err := sys.instance(from)
	if err != nil {
		return known, err
	}
	err = running.get(ctx, "/api/v1/policy", url.Values{"client": {client.String()}}, &known)
	if err == nil || from != "" || !notRunning(err) {
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
	if known.Guards, err = store.Guards(ctx, p, sys.clock()); err == nil {
		known.FirstRefused, err = store.FirstRefused(ctx, client)
	}
	return known, err
}
