package main

import (
	"net/http"

	"postern/internal/admin"
	"postern/internal/policyfile"
)

// api is what answers below /api/v1/; who may ask is decided before it.
func (g *gate) api() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /api/v1/policy", admin.PolicyHandler(g.policyState))
	return mux
}

// policyState is what is in force now.
func (g *gate) policyState() admin.PolicyState {
	running := g.policy.Load()
	s := admin.PolicyState{
		Policy: running.Policy, File: g.cfg.PolicyFile, Read: running.read, Now: g.now(),
		Site: policyfile.Site(g.cfg, g.certificates.Load()),
	}
	if failed := g.policyErrors.Load(); failed != nil {
		s.Failed = *failed
	}
	for _, l := range g.cfg.Listeners() {
		s.Listeners = append(s.Listeners, l.Name)
	}
	return s
}
