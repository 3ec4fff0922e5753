// Package policyfile gets the policy that an environment names: from its
// file, or out of its two variables.
package policyfile

import (
	"crypto/fips140"
	"errors"
	"net"
	"strconv"
	"time"

	"postern/internal/certs"
	"postern/internal/config"
	"postern/internal/ledger"
	"postern/internal/text"
	"postern/policy"
)

// maxRead is more than a policy file may have, in bytes; package policy says
// so of one that is longer.
const maxRead = 2 << 20

// Load reads a policy file. The error is of type [config.Problems] where the file
// can be read. Each line starts with the path, and where that helps with line and
// column:
//
//	/etc/postern/policy.yaml:12:5: rule "ramp": until is not after from
func Load(path string) (*policy.Policy, error) {
	data, err := text.ReadFile(path, maxRead)
	if err != nil {
		return nil, text.FileError(path, err)
	}
	p, err := policy.Parse(data)
	if found, ok := errors.AsType[policy.Problems](err); ok {
		return nil, config.Problems(text.Each(found, func(p policy.Problem) string { return path + ":" + p.String() }))
	}
	// Whether it may is asked of all times at once: an error does not depend on
	// the clock.
	if fips140.Enabled() && p.MayServeLegacy(time.Time{}) {
		return nil, config.Problems{path + ": FIPS 140 mode forbids TLS 1.0 and 1.1: set every mode to enforce"}
	}
	return p, nil
}

// Of is the policy of a configuration: that of POLICY_FILE, or what POLICY_MODE
// and POLICY_FLOOR say. The error is that of [Load].
func Of(cfg *config.Config) (*policy.Policy, error) {
	if cfg.PolicyFile != "" {
		return Load(cfg.PolicyFile)
	}
	floor, ferr := policy.ParseFloor(cfg.PolicyFloor)
	mode, merr := policy.ParseMode(cfg.PolicyMode)
	if err := errors.Join(ferr, merr); err != nil {
		return nil, err
	}
	return policy.New(floor, mode), nil
}

// Site is what rules can match where the configuration is used: the ports of the
// listeners, and the names of the certificates, which may be nil.
func Site(cfg *config.Config, certificates *certs.Store) policy.Site {
	s := policy.Site{Ports: []uint16{}, Listeners: []policy.SiteListener{}}
	for _, l := range cfg.Listeners() {
		at := policy.SiteListener{Name: l.Name, OldServer: l.Passthrough != ""}
		for _, addr := range l.Addrs {
			_, port, _ := net.SplitHostPort(addr)
			n, _ := strconv.ParseUint(port, 10, 16) // config has seen to it that it is one
			at.Ports = append(at.Ports, uint16(n))
		}
		s.Ports, s.Listeners = append(s.Ports, at.Ports...), append(s.Listeners, at)
	}
	if certificates == nil {
		return s
	}
	s.Names = []string{}
	for _, c := range certificates.Certificates() {
		s.Names = append(s.Names, c.Hostnames()...)
	}
	return s
}

// Warnings says what does not go together in the configuration and its policy:
// what is learnt of old clients and will be lost, old clients that cannot be served, and
// what is not used. Certificates may be nil.
func Warnings(cfg *config.Config, p *policy.Policy, certificates *certs.Store, now time.Time) (w config.Warnings) {
	legacy := p.MayServeLegacy(now)
	mode := text.Either(cfg.PolicyFile != "", "observe and explain", "mode "+p.Mode().String())
	w.Add(legacy && certificates != nil && certificates.Lookup("").Keys()&policy.RSA == 0, config.Prefix+"TLS_CERT_FILE",
		"no RSA certificate, without which old clients cannot be served: "+mode+" will refuse most of them: add one beside it")
	w.Add(legacy && cfg.LedgerURL == ledger.Memory, config.Prefix+"LEDGER_URL",
		"memory: is gone at a restart, and with it who the old clients are; sqlite:/path/file.db keeps them")
	w.Add(legacy && !cfg.Given("LEDGER_IDENTITY"), config.Prefix+"LEDGER_IDENTITY",
		"not set, so that nobody will know whose the old clients are (report -mail): plain or hashed remembers, off says that you do not want to")
	for _, l := range cfg.PassingThrough() {
		w.Add(!legacy, l.PassthroughVariable(), "not used, since the policy lets in no old client: take it away")
	}
	w.Add(p.ExplainText() != "" && cfg.Given("EXPLAIN_TEXT"), config.Prefix+"EXPLAIN_TEXT",
		"not used, since explain_text in "+cfg.PolicyFile+" takes its place: take one of them away")
	return w
}
