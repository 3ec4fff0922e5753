package check

import (
	"bytes"
	"cmp"
	"crypto/rsa"
	"crypto/x509"
	"fmt"
	"path/filepath"
	"time"

	"postern/internal/certs"
	"postern/internal/text"
)

const (
	// A renewal is commonly due with a third of the lifetime left. It must have
	// failed where less than a fifth is left; of a year, where three weeks are.
	expiresShare = 5
	expiresSoon  = 21 * 24 * time.Hour
	// leastRSA is the shortest key that today's clients accept, in bits.
	leastRSA = 2048
)

// Certificates checks what clients will see. serve starts all the same, since mail then
// still goes to clients that have accepted the certificate, so nothing is among Errors.
func (r *Report) Certificates(store *certs.Store, now time.Time) {
	r.Warnings = append(r.Warnings, store.Warnings(now)...)
	for _, info := range store.Served(now) {
		before := len(r.Invalid) + len(r.Warnings)
		r.validity(info.Name, "the certificate", info.Leaf, now)
		if key, ok := info.Leaf.PublicKey.(*rsa.PublicKey); ok && key.N.BitLen() < leastRSA {
			r.warn(info.Name, "an RSA key of %d bits: clients refuse fewer than %d: have a certificate issued for a longer key", key.N.BitLen(), leastRSA)
		}
		r.chain(info, now)
		switch {
		case len(info.Leaf.DNSNames)+len(info.Leaf.IPAddresses) > 0:
		case len(info.Hostnames()) == 0:
			r.warn(info.Name, "the certificate has no host name in it: have one issued with a subjectAltName")
		default:
			r.warn(info.Name, "the host name is in the common name alone, where today's clients do not look: have a certificate issued with a subjectAltName")
		}
		if len(r.Invalid)+len(r.Warnings) == before {
			r.Fine = append(r.Fine, fmt.Sprintf("%s: valid until %s", info.Name, info.Leaf.NotAfter.UTC().Format(time.DateOnly)))
		}
	}
}

func (r *Report) warn(name, format string, args ...any) {
	r.Warnings = append(r.Warnings, name+": "+fmt.Sprintf(format, args...))
}

// validity reports a certificate that clients refuse, or will soon.
func (r *Report) validity(name, which string, c *x509.Certificate, now time.Time) {
	switch left := c.NotAfter.Sub(now); {
	case left < 0:
		r.Invalid = append(r.Invalid, fmt.Sprintf("%s: %s has expired at %s, and clients refuse it: renew it", name, which, c.NotAfter.UTC().Format(time.RFC3339)))
	case now.Before(c.NotBefore):
		r.Invalid = append(r.Invalid, fmt.Sprintf("%s: %s is not valid before %s, and clients refuse it: set the clock right, or name one that is valid", name, which, c.NotBefore.UTC().Format(time.RFC3339)))
	case left < min(expiresSoon, c.NotAfter.Sub(c.NotBefore)/expiresShare):
		r.warn(name, "%s expires at %s, %s: look at what renews it", which, c.NotAfter.UTC().Format(time.RFC3339), text.Ahead(left))
	}
}

// chain checks the signatures of the chain, and its other certificates.
func (r *Report) chain(info certs.Info, now time.Time) {
	issued := selfSigned(info.Leaf)
	for i, der := range info.Chain {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			r.warn(info.Name, "certificate %d in it cannot be read (%v): export it again", i+1, err)
			continue
		}
		if i > 0 {
			r.validity(info.Name, fmt.Sprintf("certificate %d in it (%s)", i+1, c.Subject.CommonName), c, now)
			issued = issued || bytes.Equal(c.RawSubject, info.Leaf.RawIssuer)
		}
		switch c.SignatureAlgorithm {
		case x509.SHA1WithRSA, x509.ECDSAWithSHA1, x509.MD5WithRSA, x509.MD2WithRSA:
			if !selfSigned(c) || i == 0 { // nobody verifies a root's signature
				r.warn(info.Name, "certificate %d in it is signed with %v, which clients refuse: have one issued with SHA-256", i+1, c.SignatureAlgorithm)
			}
		}
	}
	if !issued {
		r.issuer(info)
	}
}

func selfSigned(c *x509.Certificate) bool { return bytes.Equal(c.RawSubject, c.RawIssuer) }

// issuer tells of a chain without the certificate that clients need to verify the
// leaf. What that one's issuer is cannot be told from here: the root is left out for
// good reason.
func (r *Report) issuer(info certs.Info) {
	roots, err := x509.SystemCertPool()
	if err == nil {
		_, err = info.Leaf.Verify(x509.VerifyOptions{
			Roots: roots, CurrentTime: info.Leaf.NotAfter, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
		})
	}
	full := filepath.Join(filepath.Dir(info.Name), "fullchain.pem")
	chain, _, _ := certs.ReadCertificates(full)
	switch name := cmp.Or(info.Leaf.Issuer.CommonName, info.Leaf.Issuer.String()); {
	case err == nil:
	case len(chain) > 1 && chain[0].Equal(info.Leaf):
		r.warn(info.Name, "the certificate of its issuer (%s) is not in it: name %s, which has it", name, full)
	case len(info.Leaf.IssuingCertificateURL) > 0:
		// A public CA names the URL of the missing certificate, but mail
		// programs do not fetch it.
		r.warn(info.Name, "the certificate of its issuer (%s) is not in it: most mail programs will not trust it; append it, or name the full chain", name)
	default:
		r.warn(info.Name, "the certificate of its issuer (%s) is not in it: fine only if clients have that as a root; append it if it is an intermediate", name)
	}
}

// Authorities checks the certificates of CAs.
func (r *Report) Authorities(file string, now time.Time) {
	list, warnings, _ := certs.ReadCertificates(file) // it could be read before
	r.Warnings = append(r.Warnings, warnings...)
	for _, c := range list {
		if now.After(c.NotAfter) {
			r.warn(file, "the CA %s has expired at %s: take it away, or put its successor there", c.Subject.CommonName, c.NotAfter.UTC().Format(time.RFC3339))
		}
		if !c.IsCA && c.BasicConstraintsValid {
			r.warn(file, "%s is not a CA: put the certificate of the CA that has issued it there", c.Subject.CommonName)
		}
	}
}
