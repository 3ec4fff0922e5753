package gate

import (
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"postern/internal/admin"
	"postern/internal/certs"
	"postern/internal/check"
	"postern/internal/config"
	"postern/internal/programs"
	"postern/proxy"
)

// material is read from files, and read again when they change. The policy is
// separate.
type material struct {
	certificates             atomic.Pointer[certs.Store]
	clientCAs, upstreamRoots *x509.CertPool
	ticketKeys               [][32]byte
	admin                    atomic.Pointer[certs.Store] // nil: no TLS on the admin port
	adminToken               atomic.Pointer[admin.Token] // nil: none
	identityKey              atomic.Pointer[[]byte]
	programs                 *programs.Table
}

// fileSet is a set of files that are read together. read leaves the material
// unchanged if it fails; use has the proxy take the new material, where it needs any.
type fileSet struct {
	what  string // in the log
	paths []string
	read  func() error
	use   func(*proxy.Server)
	// check finds what is not as clients want it; nil where there are no certificates.
	check func(*check.Report)
}

func (g *Runtime) fileSets() []fileSet {
	cfg, m := g.cfg, &g.material
	pairs := func(_ string) (*certs.Store, error) {
		return g.renewed(m.certificates.Load(), func() (*certs.Store, error) { return certs.Load(cfg.TLSCertFile, cfg.TLSKeyFile) })
	}
	adminPair := func(name string) (*certs.Store, error) {
		return g.renewed(m.admin.Load(), func() (*certs.Store, error) { return certs.LoadPair(name, cfg.AdminTLSKeyFile) })
	}
	identityKey := func(_ string) (*[]byte, error) {
		if cfg.LedgerIdentity != "hashed" {
			return nil, nil
		}
		key, err := cfg.IdentityKey()
		return &key, err
	}
	served, authorities := func(s *atomic.Pointer[certs.Store]) func(*check.Report) {
		return func(r *check.Report) { r.Certificates(s.Load(), time.Now()) }
	}, func(name string) func(*check.Report) {
		return func(r *check.Report) { r.Authorities(name, time.Now()) }
	}
	return []fileSet{
		{"certificates", slices.Concat(cfg.TLSCertFile, cfg.TLSKeyFile), into(m.certificates.Store, pairs, ""),
			func(s *proxy.Server) { s.SetCertificates(m.certificates.Load()) }, served(&m.certificates)},
		{"client CA", []string{cfg.TLSClientCAFile}, into(set(&m.clientCAs), certs.LoadPool, cfg.TLSClientCAFile),
			func(s *proxy.Server) { s.SetClientCAs(m.clientCAs) }, authorities(cfg.TLSClientCAFile)},
		{"upstream CA", []string{cfg.UpstreamCAFile}, into(set(&m.upstreamRoots), certs.LoadPool, cfg.UpstreamCAFile),
			func(s *proxy.Server) { s.SetUpstreamRoots(m.upstreamRoots) }, authorities(cfg.UpstreamCAFile)},
		{"ticket keys", []string{cfg.TLSTicketKeysFile}, into(set(&m.ticketKeys), certs.LoadTicketKeys, cfg.TLSTicketKeysFile),
			func(s *proxy.Server) { s.SetTicketKeys(m.ticketKeys) }, nil},
		{"admin certificate", []string{cfg.AdminTLSCertFile, cfg.AdminTLSKeyFile}, into(m.admin.Store, adminPair, cfg.AdminTLSCertFile), nil, served(&m.admin)},
		{"admin token", []string{cfg.AdminTokenFile}, into(m.adminToken.Store, admin.ReadToken, cfg.AdminTokenFile), nil, nil},
		{"identity key", []string{cfg.LedgerIdentityKeyFile}, into(m.identityKey.Store, identityKey, cfg.LedgerIdentityKeyFile), nil, nil},
		{"programs", []string{cfg.ProgramsFile}, into(set(&m.programs), programs.Load, cfg.ProgramsFile),
			func(*proxy.Server) { g.ledger.store.SetPrograms(m.programs) }, nil},
	}
}

// into returns a function that reads a file into a part of the material.
func into[T any](store func(T), read func(name string) (T, error), name string) func() error {
	return func() error {
		fresh, err := read(name)
		if err == nil {
			store(fresh)
		}
		return err
	}
}

func set[T any](part *T) func(T) { return func(fresh T) { *part = fresh } }

// readFiles reads all files, and has them read again when they change. Its
// error holds all problems.
func (g *Runtime) readFiles() error {
	var problems []error
	g.sets = g.fileSets()
	for i, set := range g.sets {
		set.paths = slices.DeleteFunc(set.paths, func(p string) bool { return p == "" })
		g.sets[i] = set
		if len(set.paths) > 0 {
			g.files.Add(g.reloading(set), set.paths...)
		}
		problems = append(problems, set.read())
	}
	return errors.Join(problems...)
}

// afterRestart follows a mend that is in a variable.
const afterRestart = "; what a variable says is in force after a restart"

// reloading reads files again. It counts failures, and logs an error only once
// while it stays the same and no signal asks again.
func (g *Runtime) reloading(set fileSet) func() error {
	logged, signals := "", int64(0)
	return func() error {
		g.newCertificates = nil
		err := set.read()
		g.failing[set.what] = err != nil
		g.metrics.CertificateReload(err == nil, !slices.Contains(slices.Collect(maps.Values(g.failing)), true))
		if err == nil {
			logged = ""
			if set.use != nil {
				set.use(g.server)
			}
			attrs := []any{"what", set.what, "files", set.paths}
			if g.newCertificates != nil {
				attrs = append(attrs, "new", g.newCertificates)
			}
			g.log.Info("files reloaded", attrs...)
			g.warnOfFiles(set)
			return nil
		}
		if text, n := err.Error(), g.signals.Load(); text != logged || n != signals {
			logged, signals = text, n
			if strings.Contains(text, config.Prefix) || strings.Contains(text, "in its place") {
				text += afterRestart
			}
			g.log.Error("reloading failed, the old files stay in force", "what", set.what, "error", text)
		}
		return err
	}
}

// newCertificates describes the certificates that were not there before.
func newCertificates(before, after []certs.Info) []string {
	known := make(map[string]bool)
	for _, info := range before {
		known[string(info.Leaf.Raw)] = true
	}
	list := []string{}
	for _, info := range after {
		if !known[string(info.Leaf.Raw)] {
			list = append(list, fmt.Sprintf("%s: %s, valid until %s",
				info.Name, strings.Join(info.Hostnames(), " "), info.Leaf.NotAfter.UTC().Format(time.RFC3339)))
		}
	}
	return list
}

// warnOfFiles logs what check says of certificates: they are in force all the same.
func (g *Runtime) warnOfFiles(set fileSet) {
	if set.check == nil || len(set.paths) == 0 {
		return
	}
	var found check.Report
	set.check(&found)
	for _, w := range slices.Concat(found.Invalid, found.Warnings) {
		g.log.Warn("file warning", "what", set.what, "warning", w)
	}
}

// renewed loads certificates, which must not be worse than the old ones where
// there are any.
func (g *Runtime) renewed(old *certs.Store, load func() (*certs.Store, error)) (*certs.Store, error) {
	fresh, err := load()
	if err != nil || old == nil {
		return fresh, err
	}
	g.newCertificates = newCertificates(old.Certificates(), fresh.Certificates())
	gone, err := certs.Renew(old, fresh, time.Now())
	for _, info := range gone {
		g.log.Warn("certificate is gone", "certificate", info.Name, "names", info.Hostnames())
	}
	return fresh, err
}

// servedCertificates lists those that clients and the admin port's are served
// now.
func (g *Runtime) servedCertificates() []certs.Info {
	list := g.material.certificates.Load().Served(time.Now())
	if admin := g.material.admin.Load(); admin != nil {
		list = append(list, admin.Served(time.Now())...)
	}
	return list
}

// earliestEnd is when the first of the certificates that clients are served now
// ends.
func (g *Runtime) earliestEnd() time.Time {
	return slices.MinFunc(g.material.certificates.Load().Served(time.Now()), func(a, b certs.Info) int { return a.Leaf.NotAfter.Compare(b.Leaf.NotAfter) }).Leaf.NotAfter
}

// warnOfSources logs that the clients' addresses are probably a proxy's.
func (g *Runtime) warnOfSources(addrs []netip.Addr) {
	g.log.Warn("most connections come from a few private addresses: behind a load balancer, "+
		"clients are told apart only by a PROXY header", "clients", addrs, "variable", config.Prefix+"PROXY_PROTOCOL_FROM")
}
