package gate

import (
	"crypto/x509"
	"errors"
	"net/netip"
	"slices"
	"time"

	"postern/internal/admin"
	"postern/internal/certs"
	"postern/internal/config"
)

// material is read from files, and read again when they change. The policy is
// separate.
type material struct {
	certificates             *certs.Store
	clientCAs, upstreamRoots *x509.CertPool
	ticketKeys               [][32]byte
	admin                    *certs.Store // nil: no TLS on the admin port
	adminToken               *admin.Token // nil: none
	identityKey              []byte
}

// fileSet is a set of files that are read together. read leaves the material
// unchanged if it fails; use puts the new material in force.
type fileSet struct {
	what  string // in the log
	paths []string
	read  func() error
	use   func()
}

func (g *Runtime) fileSets() []fileSet {
	cfg, m := g.cfg, &g.material
	served := func(_ string) (*certs.Store, error) {
		return g.renewed(m.certificates, func() (*certs.Store, error) { return certs.Load(cfg.TLSCertFile, cfg.TLSKeyFile) })
	}
	adminPair := func(name string) (*certs.Store, error) {
		return g.renewed(m.admin, func() (*certs.Store, error) { return certs.LoadPair(name, cfg.AdminTLSKeyFile) })
	}
	identityKey := func(_ string) ([]byte, error) { return readIdentityKey(cfg) }
	return []fileSet{
		{"certificates", slices.Concat(cfg.TLSCertFile, cfg.TLSKeyFile), into(&m.certificates, served, ""), func() {
			g.server.SetCertificates(m.certificates)
			g.publishCertificates()
		}},
		{"client CA", []string{cfg.TLSClientCAFile}, into(&m.clientCAs, certs.LoadPool, cfg.TLSClientCAFile),
			func() { g.server.SetClientCAs(m.clientCAs) }},
		{"upstream CA", []string{cfg.UpstreamCAFile}, into(&m.upstreamRoots, certs.LoadPool, cfg.UpstreamCAFile),
			func() { g.server.SetUpstreamRoots(m.upstreamRoots) }},
		{"ticket keys", []string{cfg.TLSTicketKeysFile}, into(&m.ticketKeys, certs.LoadTicketKeys, cfg.TLSTicketKeysFile),
			func() { g.server.SetTicketKeys(m.ticketKeys) }},
		{"admin certificate", []string{cfg.AdminTLSCertFile, cfg.AdminTLSKeyFile}, into(&m.admin, adminPair, cfg.AdminTLSCertFile),
			g.publishCertificates},
		{"admin token", []string{cfg.AdminTokenFile}, into(&m.adminToken, admin.ReadToken, cfg.AdminTokenFile),
			func() { g.adminToken.Store(m.adminToken) }},
		{"identity key", []string{cfg.LedgerIdentityKeyFile}, into(&m.identityKey, identityKey, cfg.LedgerIdentityKeyFile),
			func() { g.ledger.setKey(m.identityKey) }},
	}
}

// into returns a function that reads a file into a part of the material.
func into[T any](part *T, read func(name string) (T, error), name string) func() error {
	return func() error {
		fresh, err := read(name)
		if err == nil {
			*part = fresh
		}
		return err
	}
}

// readFiles reads all files, and has them read again when they change. Its
// error holds all problems.
func (g *Runtime) readFiles() error {
	var problems []error
	for _, set := range g.fileSets() {
		set.paths = slices.DeleteFunc(set.paths, func(p string) bool { return p == "" })
		if len(set.paths) > 0 {
			g.files.Add(g.reloading(set), set.paths...)
		}
		problems = append(problems, set.read())
	}
	return errors.Join(problems...)
}

// reloading reads files again. It counts failures, and logs an error only once
// while it stays the same.
func (g *Runtime) reloading(set fileSet) func() error {
	logged := ""
	return func() error {
		err := set.read()
		if err == nil {
			logged = ""
			set.use()
			g.log.Info("files reloaded", "what", set.what)
			return nil
		}
		g.metrics.CertificateReloadFailed()
		if text := err.Error(); text != logged {
			logged = text
			g.log.Error("reloading failed, the old files stay in force", "what", set.what, "error", text)
		}
		return err
	}
}

// renewed loads certificates, which must not be worse than the old ones where
// there are any.
func (g *Runtime) renewed(old *certs.Store, load func() (*certs.Store, error)) (*certs.Store, error) {
	fresh, err := load()
	if err != nil || old == nil {
		return fresh, err
	}
	gone, err := certs.Renew(old, fresh, time.Now())
	for _, info := range gone {
		g.log.Warn("certificate is gone", "certificate", info.Name, "names", info.Hostnames())
	}
	return fresh, err
}

// publishCertificates tells metrics, readiness and the admin port which
// certificates are in use.
func (g *Runtime) publishCertificates() {
	g.certificates.Store(g.material.certificates)
	notAfter := make(map[string]time.Time)
	var earliest time.Time
	for _, c := range g.material.certificates.Certificates() {
		notAfter[c.Name] = c.NotAfter
		if earliest.IsZero() || c.NotAfter.Before(earliest) {
			earliest = c.NotAfter
		}
	}
	g.readiness.Certificate(earliest)
	if g.material.admin != nil {
		for _, c := range g.material.admin.Certificates() {
			notAfter[c.Name] = c.NotAfter
		}
		g.adminCertificate.Store(g.material.admin.Lookup("").Certificate(0))
	}
	g.metrics.SetCertificates(notAfter)
}

// warnOfSources logs that the clients' addresses are probably a proxy's.
func (g *Runtime) warnOfSources(addrs []netip.Addr) {
	g.log.Warn("most connections come from a few private addresses: behind a load balancer, "+
		"clients are told apart only by a PROXY header", "clients", addrs, "variable", config.Prefix+"PROXY_PROTOCOL_FROM")
}
