package check

import (
	"crypto/x509"
	"slices"
	"sync/atomic"
	"time"

	"postern/internal/admin"
	"postern/internal/certs"
	"postern/internal/config"
	"postern/internal/programs"
	"postern/internal/text"
	"postern/proxy"
)

// Files holds what serve reads from files, and reads again when they change. The policy is
// separate.
type Files struct {
	Certificates             Part[*certs.Store]
	ClientCAs, UpstreamRoots Part[*x509.CertPool]
	TicketKeys               Part[[][32]byte]
	Admin                    Part[*certs.Store] // nil: no TLS on the admin port
	Token                    Part[*admin.Token] // nil: none
	IdentityKey              Part[[]byte]
	Programs                 Part[*programs.Table] // nil: the built-in ones alone

	// Renewed judges certificates that are to replace others.
	Renewed func(old, fresh *certs.Store) error
}

// A Part is what some files hold; the zero value before they were read. It is safe for
// concurrent use.
type Part[T any] struct{ now atomic.Pointer[T] }

// Load returns what was read last.
func (p *Part[T]) Load() (v T) {
	if now := p.now.Load(); now != nil {
		v = *now
	}
	return v
}

// A Set is files that are read together.
type Set struct {
	What  string // in the log
	Paths []string
	// Read changes nothing if it fails.
	Read func() error
	// Use has a proxy take what was read, where it needs any.
	Use func(*proxy.Server)
	// Check reports what is not as clients want it.
	Check func(*Report)
}

// Sets are those that a configuration names.
func (f *Files) Sets(cfg *config.Config) []Set {
	certFiles := slices.Concat(cfg.TLSCertFile, cfg.TLSKeyFile)
	if len(cfg.TLSCertFile) == 0 {
		certFiles = []string{""} // which is said of the variable
	}
	certificates := func(string) (*certs.Store, error) {
		fresh, err := certs.Load(cfg.TLSCertFile, cfg.TLSKeyFile)
		return f.renewed(&f.Certificates, fresh, err)
	}
	adminPair := func(name string) (*certs.Store, error) {
		fresh, err := certs.LoadPair(name, cfg.AdminTLSKeyFile)
		return f.renewed(&f.Admin, fresh, err)
	}
	key := text.Either(cfg.LedgerIdentity == "hashed", cfg.LedgerIdentityKeyFile, "")
	identityKey := func(string) ([]byte, error) { return cfg.IdentityKey() }
	served := func(r *Report, s *certs.Store, _ string) { r.Certificates(s, time.Now()) }
	authorities := func(r *Report, _ *x509.CertPool, name string) { r.Authorities(name, time.Now()) }
	named := func(r *Report, t *programs.Table, name string) {
		r.Fine = append(r.Fine, name+": "+text.Number(t.Named, "pattern")+" with names")
	}
	all := []Set{
		newSet("certificates", &f.Certificates, certificates, (*proxy.Server).SetCertificates, served, certFiles...),
		newSet("client CA", &f.ClientCAs, certs.LoadPool, (*proxy.Server).SetClientCAs, authorities, cfg.TLSClientCAFile),
		newSet("upstream CA", &f.UpstreamRoots, certs.LoadPool, (*proxy.Server).SetUpstreamRoots, authorities, cfg.UpstreamCAFile),
		newSet("ticket keys", &f.TicketKeys, certs.LoadTicketKeys, (*proxy.Server).SetTicketKeys, unjudged, cfg.TLSTicketKeysFile),
		newSet("admin certificate", &f.Admin, adminPair, unused, served, cfg.AdminTLSCertFile, cfg.AdminTLSKeyFile),
		newSet("admin token", &f.Token, admin.ReadToken, unused, unjudged, cfg.AdminTokenFile),
		newSet("identity key", &f.IdentityKey, identityKey, unused, unjudged, key),
		newSet("programs", &f.Programs, programs.Load, unused, named, cfg.ProgramsFile),
	}
	return slices.DeleteFunc(all, func(s Set) bool { return s.Read == nil })
}

// renewed judges what was read of certificates, where there were others.
func (f *Files) renewed(part *Part[*certs.Store], fresh *certs.Store, err error) (*certs.Store, error) {
	if old := part.Load(); err == nil && old != nil {
		err = f.Renewed(old, fresh)
	}
	return fresh, err
}

// newSet makes a set of which the first path is read into a part, as are the others with
// it; an empty one where that is not configured.
func newSet[T any](what string, part *Part[T], read func(string) (T, error), use func(*proxy.Server, T), check func(*Report, T, string), paths ...string) Set {
	file := paths[0]
	if file == "" {
		return Set{}
	}
	return Set{
		What: what, Paths: slices.DeleteFunc(paths, func(path string) bool { return path == "" }),
		Read: func() error {
			fresh, err := read(file)
			if err == nil {
				part.now.Store(&fresh)
			}
			return err
		},
		Use:   func(s *proxy.Server) { use(s, part.Load()) },
		Check: func(r *Report) { check(r, part.Load(), file) },
	}
}

// unused is for what no proxy takes, and unjudged for what clients do not see.
func unused[T any](*proxy.Server, T)     {}
func unjudged[T any](*Report, T, string) {}
