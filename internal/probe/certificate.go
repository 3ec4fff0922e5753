package probe

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/x509"
	"fmt"
	"slices"
	"strings"
	"time"

	"postern/internal/text"
)

// Chain is a certificate with what was sent beside it.
type Chain struct {
	// Names are the alternative ones, or the subject where there are none.
	Names    []string  `json:"names"`
	Key      string    `json:"key"`
	NotAfter time.Time `json:"not_after"`
	// Problem is why clients may not accept it, whatever roots they have.
	Problem string `json:"problem,omitempty"`

	leaf []byte
}

// see keeps a chain that was not seen before. It is judged by itself, not by the roots
// of this host, which other clients need not have.
func (l *Listener) see(der [][]byte) {
	if len(der) == 0 || slices.ContainsFunc(l.Chains, func(c *Chain) bool { return bytes.Equal(c.leaf, der[0]) }) {
		return
	}
	c := &Chain{leaf: der[0]}
	l.Chains = append(l.Chains, c)
	chain, err := x509.ParseCertificates(slices.Concat(der...))
	if err != nil {
		c.Problem = "it cannot be read: " + err.Error()
		return
	}
	leaf, last := chain[0], chain[len(chain)-1]
	c.Names, c.Key, c.NotAfter = slices.Clone(leaf.DNSNames), leaf.PublicKeyAlgorithm.String(), leaf.NotAfter
	for _, ip := range leaf.IPAddresses {
		c.Names = append(c.Names, ip.String())
	}
	if len(c.Names) == 0 {
		c.Names = []string{leaf.Subject.String()}
	}
	switch key := leaf.PublicKey.(type) {
	case *rsa.PublicKey:
		c.Key += fmt.Sprintf(" %d", key.N.BitLen())
	case *ecdsa.PublicKey:
		c.Key += " " + key.Curve.Params().Name
	}
	o := x509.VerifyOptions{Roots: x509.NewCertPool(), Intermediates: x509.NewCertPool(), DNSName: l.sni}
	for _, other := range chain[1:] {
		o.Intermediates.AddCert(other)
	}
	o.Roots.AddCert(last)
	issued := slices.ContainsFunc(chain[1:], func(other *x509.Certificate) bool { return bytes.Equal(other.RawSubject, leaf.RawIssuer) })
	if !issued {
		o.Roots.AddCert(leaf)
	}
	_, err = leaf.Verify(o)
	switch {
	case err != nil:
		c.Problem = strings.TrimPrefix(err.Error(), "x509: ")
	case bytes.Equal(leaf.RawSubject, leaf.RawIssuer):
		c.Problem = "it is signed by itself"
	case !issued:
		c.Problem = "the certificate of its issuer is not sent: " + leaf.Issuer.String()
	}
}

// String describes a chain in one line.
func (c *Chain) String() string {
	if c.Key == "" {
		return text.Clean("certificate: "+c.Problem, 1000)
	}
	return text.Clean(fmt.Sprintf("certificate for %s: %s, until %s%s%s", strings.Join(c.Names, ", "), c.Key,
		c.NotAfter.UTC().Format(time.DateOnly), text.Either(c.Problem == "", "", "; "), c.Problem), 1000)
}
