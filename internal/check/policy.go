package check

import (
	"fmt"
	"strings"
	"time"

	"postern/internal/certs"
	"postern/internal/config"
	"postern/internal/policyfile"
	"postern/policy"
)

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
		place := cfg.PolicyFile + ":"
		if cfg.PolicyFile == "" {
			place = variable("POLICY_FLOOR") + ":"
		}
		if w.Line == 0 {
			place += " " // it is about no line
		}
		r.Warnings = append(r.Warnings, place+w.String())
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
