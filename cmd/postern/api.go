package main

import (
	"net/http"

	"postern/internal/admin"
	"postern/internal/ledger"
	"postern/internal/policyfile"
	"postern/internal/report"
	"postern/policy"
)

// api is what answers below /api/v1/; who may ask is decided before it.
func (g *gate) api() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /api/v1/policy", admin.PolicyHandler(g.policyState))
	mux.Handle("GET /api/v1/legacy-clients", g.legacyClients().Handler())
	mux.Handle("GET /api/v1/report", g.reportHandler())
	mux.Handle("GET /api/v1/hellos", report.HellosHandler(g.log, g.book.store.Hellos))
	return mux
}

func (g *gate) legacyClients() *admin.Clients {
	return &admin.Clients{
		Store: g.book.store, Policy: func() *policy.Policy { return g.policy.Load().Policy }, Now: g.now, Log: g.log,
	}
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

// page is what / shows.
func (g *gate) page() http.Handler {
	version, _ := buildVersion()
	p := &admin.Page{
		Store: g.book.store, Counts: g.book.counts, Dropped: g.book.recorder.Dropped, State: g.policyState, Readiness: g.readiness,
		Names: g.cfg.LedgerIdentity != "off", Memory: g.cfg.LedgerURL == ledger.Memory, Version: version, Log: g.log,
	}
	return p.Handler()
}
