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

// material is what the gate reads from files, and again when they change.
type material struct {
	certificates             *certs.Store
	clientCAs, upstreamRoots *x509.CertPool
	ticketKeys               [][32]byte
	admin                    *certs.Store // nil: no TLS on the admin port
	adminToken               *admin.Token // nil: none
	identityKey              []byte
}

// readMaterial reads all files and says all at once what is wrong with them.
func readMaterial(cfg *config.Config) (*material, error) {
	var m material
	var problems [7]error
	m.certificates, problems[0] = certs.Load(cfg.TLSCertFile, cfg.TLSKeyFile)
	m.clientCAs, problems[1] = certs.LoadPool(cfg.TLSClientCAFile)
	m.upstreamRoots, problems[2] = certs.LoadPool(cfg.UpstreamCAFile)
	m.ticketKeys, problems[3] = certs.LoadTicketKeys(cfg.TLSTicketKeysFile)
	m.admin, problems[4] = certs.LoadPair(cfg.AdminTLSCertFile, cfg.AdminTLSKeyFile)
	m.adminToken, problems[5] = admin.ReadToken(cfg.AdminTokenFile)
	m.identityKey, problems[6] = readIdentityKey(cfg)
	if err := errors.Join(problems[:]...); err != nil {
		return nil, err
	}
	return &m, nil
}

// watchFiles has the files read again when they change. It comes before they
// are read for the first time.
func (g *Runtime) watchFiles() {
	cfg := g.cfg
	for _, set := range []struct {
		what   string
		reload func() error
		paths  []string
	}{
		{"certificates", g.reloadCertificates, slices.Concat(cfg.TLSCertFile, cfg.TLSKeyFile)},
		{"client CA", g.reloadClientCAs, []string{cfg.TLSClientCAFile}},
		{"upstream CA", g.reloadUpstreamRoots, []string{cfg.UpstreamCAFile}},
		{"ticket keys", g.reloadTicketKeys, []string{cfg.TLSTicketKeysFile}},
		{"admin certificate", g.reloadAdmin, []string{cfg.AdminTLSCertFile, cfg.AdminTLSKeyFile}},
		{"admin token", g.reloadAdminToken, []string{cfg.AdminTokenFile}},
		{"identity key", g.reloadIdentityKey, []string{cfg.LedgerIdentityKeyFile}},
	} {
		paths := slices.DeleteFunc(set.paths, func(p string) bool { return p == "" })
		if len(paths) > 0 {
			g.files.Add(g.reloading(set.what, set.reload), paths...)
		}
	}
}

// reloading counts failures, and tells each once: an error that stays the same
// is not news.
func (g *Runtime) reloading(what string, reload func() error) func() error {
	told := ""
	return func() error {
		err := reload()
		if err == nil {
			told = ""
			g.log.Info("files reloaded", "what", what)
			return nil
		}
		g.metrics.CertificateReloadFailed()
		if text := err.Error(); text != told {
			told = text
			g.log.Error("reloading failed, the old files stay in force", "what", what, "error", text)
		}
		return err
	}
}

// renew reads a pair of files again, and keeps what there is where the new
// ones are no better.
func (g *Runtime) renew(old *certs.Store, load func() (*certs.Store, error)) (*certs.Store, error) {
	fresh, err := load()
	if err != nil {
		return nil, err
	}
	gone, err := certs.Renew(old, fresh, time.Now())
	if err != nil {
		return nil, err
	}
	for _, info := range gone {
		g.log.Warn("certificate is gone", "certificate", info.Name, "names", info.Hostnames())
	}
	return fresh, nil
}

func (g *Runtime) reloadCertificates() error {
	fresh, err := g.renew(g.material.certificates, func() (*certs.Store, error) {
		return certs.Load(g.cfg.TLSCertFile, g.cfg.TLSKeyFile)
	})
	if err != nil {
		return err
	}
	g.material.certificates = fresh
	g.server.SetCertificates(fresh)
	g.tellCertificates()
	return nil
}

func (g *Runtime) reloadAdmin() error {
	fresh, err := g.renew(g.material.admin, func() (*certs.Store, error) {
		return certs.LoadPair(g.cfg.AdminTLSCertFile, g.cfg.AdminTLSKeyFile)
	})
	if err != nil {
		return err
	}
	g.material.admin = fresh
	g.tellCertificates()
	return nil
}

func (g *Runtime) reloadClientCAs() error {
	pool, err := certs.LoadPool(g.cfg.TLSClientCAFile)
	if err == nil {
		g.server.SetClientCAs(pool)
	}
	return err
}

func (g *Runtime) reloadUpstreamRoots() error {
	pool, err := certs.LoadPool(g.cfg.UpstreamCAFile)
	if err == nil {
		g.server.SetUpstreamRoots(pool)
	}
	return err
}

func (g *Runtime) reloadTicketKeys() error {
	keys, err := certs.LoadTicketKeys(g.cfg.TLSTicketKeysFile)
	if err == nil {
		g.server.SetTicketKeys(keys)
	}
	return err
}

func (g *Runtime) reloadAdminToken() error {
	token, err := admin.ReadToken(g.cfg.AdminTokenFile)
	if err == nil {
		g.adminToken.Store(token)
	}
	return err
}

// tellCertificates passes on which certificates are in use.
func (g *Runtime) tellCertificates() {
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

// warnOfSources says that the clients' addresses are probably not theirs.
func (g *Runtime) warnOfSources(addrs []netip.Addr) {
	g.log.Warn("most connections come from a few private addresses: behind a load balancer, "+
		"clients are told apart only by a PROXY header", "clients", addrs, "variable", config.Prefix+"PROXY_PROTOCOL_FROM")
}
