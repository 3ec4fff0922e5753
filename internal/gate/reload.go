package gate

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"postern/internal/certs"
	"postern/internal/check"
	"postern/internal/config"
)

// readFiles reads all files, and has them read again when they change. Its
// error holds all problems.
func (g *Runtime) readFiles() error {
	var problems []error
	g.material.Renewed = g.renewed
	g.sets = g.material.Sets(g.cfg)
	for _, set := range g.sets {
		g.files.Add(g.reloading(set), set.Paths...)
		problems = append(problems, set.Read())
	}
	return errors.Join(problems...)
}

// afterRestart follows a mend that is in a variable.
const afterRestart = "; what a variable says is in force after a restart"

// reloading reads files again. It counts failures, and logs an error only once
// while it stays the same and no signal asks again.
func (g *Runtime) reloading(set check.Set) func() error {
	logged, signals := "", int64(0)
	return func() error {
		g.newCertificates = nil
		err := set.Read()
		g.failing[set.What] = err != nil
		g.metrics.CertificateReload(err == nil, !slices.Contains(slices.Collect(maps.Values(g.failing)), true))
		if err == nil {
			logged = ""
			set.Use(g.server)
			g.ledger.store.SetPrograms(g.material.Programs.Load())
			attrs := []any{"what", set.What, "files", set.Paths}
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
			g.log.Error("reloading failed, the old files stay in force", "what", set.What, "error", text)
		}
		return err
	}
}

// newCertificates describes the certificates that were not there before.
func newCertificates(before, after []certs.Info) []string {
	list := []string{}
	for _, info := range after {
		if !slices.ContainsFunc(before, func(old certs.Info) bool { return old.Leaf.Equal(info.Leaf) }) {
			list = append(list, fmt.Sprintf("%s: %s, valid until %s",
				info.Name, strings.Join(info.Hostnames(), " "), info.Leaf.NotAfter.UTC().Format(time.RFC3339)))
		}
	}
	return list
}

// warnOfFiles logs what check says of certificates: they are in force all the same.
func (g *Runtime) warnOfFiles(set check.Set) {
	var found check.Report
	set.Check(&found)
	for _, w := range slices.Concat(found.Invalid, found.Warnings) {
		g.log.Warn("file warning", "what", set.What, "warning", w)
	}
}

// renewed judges certificates, which must not be worse than the old ones.
func (g *Runtime) renewed(old, fresh *certs.Store) error {
	g.newCertificates = newCertificates(old.Certificates(), fresh.Certificates())
	gone, err := certs.Renew(old, fresh, time.Now())
	for _, info := range gone {
		g.log.Warn("certificate is gone", "certificate", info.Name, "names", info.Hostnames())
	}
	return err
}

// servedCertificates lists those that clients and the admin port's are served
// now.
func (g *Runtime) servedCertificates() []certs.Info {
	list := g.material.Certificates.Load().Served(time.Now())
	if admin := g.material.Admin.Load(); admin != nil {
		list = append(list, admin.Served(time.Now())...)
	}
	return list
}

// earliestEnd is when the first of the certificates that clients are served now
// ends.
func (g *Runtime) earliestEnd() time.Time {
	return slices.MinFunc(g.material.Certificates.Load().Served(time.Now()), func(a, b certs.Info) int { return a.Leaf.NotAfter.Compare(b.Leaf.NotAfter) }).Leaf.NotAfter
}

// warnOfSources logs that the clients' addresses are probably a proxy's.
func (g *Runtime) warnOfSources(addrs []netip.Addr) {
	g.log.Warn("most connections come from a few private addresses: behind a load balancer, "+
		"clients are told apart only by a PROXY header", "clients", addrs, "variable", config.Prefix+"PROXY_PROTOCOL_FROM")
}
