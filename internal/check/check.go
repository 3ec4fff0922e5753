// Package check finds problems with a configuration before Postern runs with it:
// variables, files, ports and upstreams.
package check

import (
	"context"
	"errors"
	"net"
	"strings"
	"syscall"
	"time"

	"postern/internal/admin"
	"postern/internal/certs"
	"postern/internal/config"
)

// Report has the findings, one line each, naming the variable, the file or the
// upstream.
type Report struct {
	// Errors keep Postern from starting, or clients from using it.
	Errors []string
	// Unanswered are upstreams that cannot serve anybody now.
	Unanswered []string
	// Warnings are about settings that are allowed but probably not meant.
	Warnings []string
	// Fine lists the checks without a problem.
	Fine []string
}

// Run checks everything that an environment, as of os.Environ, configures.
// Offline dials nothing.
func Run(ctx context.Context, environ []string, offline bool) *Report {
	cfg, problems := config.Inspect(environ)
	r := &Report{Errors: problems, Warnings: cfg.Warnings()}
	roots := r.files(cfg, time.Now())
	r.api(cfg)
	r.listeners(cfg)
	r.ledger(ctx, cfg, offline)
	if !offline {
		r.servers(ctx, cfg, roots)
	}
	return r
}

// addError adds an error that may have several lines.
func (r *Report) addError(err error) {
	if err != nil {
		r.Errors = append(r.Errors, strings.Split(err.Error(), "\n")...)
	}
}

// listeners tries to bind Postern's ports. A port in use is no error, as Postern
// may be running.
func (r *Report) listeners(cfg *config.Config) {
	try := func(variable, addr string) {
		if addr == "" {
			return
		}
		nl, err := net.Listen(config.Network(addr), addr)
		switch {
		case err == nil:
			nl.Close()
		case errors.Is(err, syscall.EADDRINUSE):
			r.Warnings = append(r.Warnings, variable+": "+addr+" is in use; that is as it should be where Postern runs already")
		default:
			r.addError(config.BindError(variable, addr, err))
		}
	}
	for _, l := range cfg.Listeners() {
		for _, addr := range l.Addrs {
			try(l.Variable, addr)
		}
	}
	try(config.Prefix+"ADMIN_LISTEN", cfg.AdminListen)
}

func variable(name string) string { return config.Prefix + name }

// api checks who could use the page and the API.
func (r *Report) api(cfg *config.Config) {
	_, err := admin.ReadToken(cfg.AdminTokenFile)
	r.addError(err)
	if cfg.APIOff() {
		r.Fine = append(r.Fine, variable("ADMIN_LISTEN")+": not on loopback, so page and API are off; they need "+variable("ADMIN_TOKEN_FILE"))
	}
}

// files reads all files, and returns the roots for upstreams.
func (r *Report) files(cfg *config.Config, now time.Time) upstreamRoots {
	var store *certs.Store
	if len(cfg.TLSCertFile) > 0 {
		var err error
		store, err = certs.Load(cfg.TLSCertFile, cfg.TLSKeyFile)
		r.addError(err)
		if store != nil {
			r.certificates(store, now)
		}
	}
	r.policy(cfg, store, now)
	admin, err := certs.LoadPair(cfg.AdminTLSCertFile, cfg.AdminTLSKeyFile)
	r.addError(err)
	if admin != nil {
		r.certificates(admin, now)
	}
	_, err = certs.LoadTicketKeys(cfg.TLSTicketKeysFile)
	r.addError(err)
	r.authorities(cfg.TLSClientCAFile, now)
	r.authorities(cfg.UpstreamCAFile, now)
	roots, _, err := certs.LoadPool(cfg.UpstreamCAFile)
	return upstreamRoots{pool: roots, unusable: err != nil}
}
