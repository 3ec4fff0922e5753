// Package certs holds the proxy's certificates, indexed by server name.
//
// crypto/tls tries tls.Config.Certificates one by one, which with thousands of
// names costs more than the rest of a handshake. A [Store] looks up a map once
// per hello instead.
package certs

import (
	"crypto/tls"
	"crypto/x509"
	"math/bits"
	"slices"
	"strings"
	"time"

	"postern/policy"
)

// Store holds the certificates that were loaded together. It is immutable.
type Store struct {
	exact     map[string]*Set // by lower-case name
	wildcards map[string]*Set // by what follows "*."
	fallback  *Set
	infos     []Info
}

// Info describes one certificate.
type Info struct {
	// Name is the file as the operator named it; dir/file in a directory.
	Name     string
	Leaf     *x509.Certificate
	NotAfter time.Time
	// Chain is sent to clients, in DER; the leaf comes first.
	Chain [][]byte
}

// Hostnames lists the names that the certificate serves, in lower case.
func (i Info) Hostnames() []string { return names(i.Leaf) }

// Lookup returns the certificates for a server name (RFC 6066, Section 3):
// those of the name itself, else those with a wildcard for its first label
// (RFC 9525, Section 6.3), else the default ones. It never returns nil.
func (s *Store) Lookup(serverName string) *Set {
	name := strings.ToLower(serverName)
	if set := s.exact[name]; set != nil {
		return set
	}
	if set := s.wildcardFor(name); set != nil {
		return set
	}
	return s.fallback
}

func (s *Store) wildcardFor(name string) *Set {
	first, rest, found := strings.Cut(name, ".")
	if !found || first == "" {
		return nil
	}
	return s.wildcards[rest]
}

// Certificates lists the certificates in the order in which they were named.
func (s *Store) Certificates() []Info { return slices.Clone(s.infos) }

// keyTypes is the number of key types in policy.KeyTypes, one bit each.
const keyTypes = 8

// Set is the certificates for one name: one for each type of key at most.
type Set struct {
	byKey [keyTypes]*tls.Certificate
	first *tls.Certificate
	keys  policy.KeyTypes
}

// Keys returns the types of key that the set has a certificate for.
func (s *Set) Keys() policy.KeyTypes { return s.keys }

// Certificate returns the certificate with that type of key. If there is none,
// or k is zero, it returns the first one; never nil.
func (s *Set) Certificate(k policy.KeyTypes) *tls.Certificate {
	if k &= s.keys; k != 0 {
		return s.byKey[bits.TrailingZeros8(uint8(k))]
	}
	return s.first
}

// add adds the certificate unless there is one with such a key already.
func (s *Set) add(cert *tls.Certificate, k policy.KeyTypes) {
	if cert == nil || s.keys&k != 0 {
		return
	}
	if s.first == nil {
		s.first = cert
	}
	s.byKey[bits.TrailingZeros8(uint8(k))] = cert
	s.keys |= k
}

// fill adds the certificates that only the other set has.
func (s *Set) fill(other *Set) {
	for i, cert := range other.byKey {
		s.add(cert, 1<<i)
	}
}

// pair is a certificate with its key, and the type of it.
type pair struct {
	name string
	key  policy.KeyTypes
	cert *tls.Certificate
}

// newStore indexes the pairs; there must be at least one.
func newStore(pairs []*pair) *Store {
	s := &Store{exact: map[string]*Set{}, wildcards: map[string]*Set{}, fallback: &Set{}}
	for _, p := range pairs {
		leaf := p.cert.Leaf
		s.infos = append(s.infos, Info{Name: p.name, Leaf: leaf, NotAfter: leaf.NotAfter, Chain: p.cert.Certificate})
		for _, name := range names(leaf) {
			s.setFor(name).add(p.cert, p.key)
		}
	}
	// An RSA certificate for *.example.org serves those who cannot use the
	// ECDSA one for mail.example.org.
	for name, set := range s.exact {
		if wildcard := s.wildcardFor(name); wildcard != nil {
			set.fill(wildcard)
		}
	}
	s.makeFallback(pairs)
	return s
}

// setFor returns the set of a name as it stands in a certificate.
func (s *Store) setFor(name string) *Set {
	index := s.exact
	if suffix, ok := strings.CutPrefix(name, "*."); ok {
		index, name = s.wildcards, suffix
	}
	set := index[name]
	if set == nil {
		set = &Set{}
		index[name] = set
	}
	return set
}

// makeFallback makes the set for clients that send no name or an unknown one.
// Old clients send none and need RSA, so it has every type of key, preferably
// for the same name.
func (s *Store) makeFallback(pairs []*pair) {
	first := pairs[0]
	s.fallback.add(first.cert, first.key)
	for _, name := range names(first.cert.Leaf) {
		s.fallback.fill(s.setFor(name))
	}
	for _, p := range pairs {
		s.fallback.add(p.cert, p.key)
	}
}

// names lists the DNS names of a certificate in lower case. The common name
// counts only if there is no other, as it does for old clients.
func names(leaf *x509.Certificate) []string {
	list := leaf.DNSNames
	if len(list) == 0 && isHostname(leaf.Subject.CommonName) {
		list = []string{leaf.Subject.CommonName}
	}
	lower := make([]string, len(list))
	for i, name := range list {
		lower[i] = strings.TrimSuffix(strings.ToLower(name), ".")
	}
	return lower
}

// isHostname tells mail.example.org from Example Root CA.
func isHostname(s string) bool {
	return s == "localhost" || strings.Contains(s, ".") && !strings.ContainsAny(s, " /@,")
}
