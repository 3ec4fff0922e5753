// Package certs holds the proxy's certificates, indexed by server name.
//
// crypto/tls tries tls.Config.Certificates one by one, which with thousands of
// names costs more than the rest of a handshake. A [Store] looks up a map once
// per hello instead.
package certs

import (
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"postern/internal/text"
	"postern/policy"
)

// Store holds the certificates that were loaded together. It is immutable.
type Store struct {
	// sets are by lower-case name, without the asterisk of a wildcard; the default one has
	// none.
	sets   map[string]*Set
	infos  []Info
	strays []string
}

// Info describes one certificate.
type Info struct {
	// Name is the file as the operator named it; dir/file in a directory.
	Name string
	Leaf *x509.Certificate
	// Chain is sent to clients, in DER; the leaf comes first.
	Chain [][]byte

	key  policy.KeyTypes
	cert *tls.Certificate
}

// Hostnames lists the names that the certificate serves, in lower case.
func (i Info) Hostnames() []string { return names(i.Leaf) }

// Lookup returns the certificates for a server name (RFC 6066, Section 3):
// those of the name itself, else those with a wildcard for its first label
// (RFC 9525, Section 6.3), else the default ones. It never returns nil.
func (s *Store) Lookup(serverName string) *Set {
	return cmp.Or(s.find(strings.ToLower(serverName)), s.sets[""])
}

// find returns the certificates of a lower-case name, or of a wildcard for it; nil if
// there are none.
func (s *Store) find(name string) *Set {
	if strings.HasPrefix(name, ".") {
		return nil
	}
	return cmp.Or(s.sets[name], s.wildcardFor(name))
}

func (s *Store) wildcardFor(name string) *Set {
	if dot := strings.IndexByte(name, '.'); dot > 0 {
		return s.sets[name[dot:]]
	}
	return nil
}

// Certificates lists the certificates in the order in which they were named.
func (s *Store) Certificates() []Info { return slices.Clone(s.infos) }

// Set is the certificates for one name. Of those with the same type of key the best
// comes first: those of the name itself before those of a wildcard, and among them,
// which only their dates tell apart, the one that ends last.
type Set struct {
	certs []*Info
	keys  policy.KeyTypes
}

// Keys returns the types of key that the set has a certificate for.
func (s *Set) Keys() policy.KeyTypes { return s.keys }

// Certificate returns the certificate with that type of key to be served at
// that time. If there is none, or k is zero, it returns one of the first type;
// never nil. Of several, one that is valid comes before others, and then the one
// that ends last.
func (s *Set) Certificate(k policy.KeyTypes, now time.Time) *tls.Certificate {
	return s.choose(k, now).cert
}

func (s *Set) choose(k policy.KeyTypes, now time.Time) (first *Info) {
	if k &= s.keys; k == 0 {
		k = s.certs[0].key
	}
	for _, c := range s.certs {
		switch {
		case k&-k != c.key:
		case valid(c.Leaf, now):
			return c
		case first == nil:
			first = c
		}
	}
	return first
}

// add adds a certificate of the set's own name.
func (s *Set) add(c *Info) {
	if slices.Contains(s.certs, c) {
		return
	}
	at := slices.IndexFunc(s.certs, func(o *Info) bool { return o.key == c.key && o.Leaf.NotAfter.Before(c.Leaf.NotAfter) })
	if at < 0 {
		at = len(s.certs)
	}
	s.certs, s.keys = slices.Insert(s.certs, at, c), s.keys|c.key
}

// join puts those of another set's certificates that have certain types of key behind
// those of this one, each once.
func (s *Set) join(other *Set, keys policy.KeyTypes) {
	for _, c := range other.certs {
		if c.key&keys != 0 && !slices.Contains(s.certs, c) {
			s.certs, s.keys = append(s.certs, c), s.keys|c.key
		}
	}
}

// newStore indexes the certificates; there must be at least one.
func newStore(pairs []*Info) *Store {
	s := &Store{sets: map[string]*Set{}}
	for _, p := range pairs {
		s.infos = append(s.infos, *p)
		for _, name := range names(p.Leaf) {
			s.setFor(name).add(p)
		}
	}
	// An RSA certificate for *.example.org serves those who cannot use the
	// ECDSA one for mail.example.org, and everybody once that has expired.
	for name, set := range s.sets {
		if wildcard := s.wildcardFor(name); wildcard != nil {
			set.join(wildcard, wildcard.keys)
		}
	}
	s.makeFallback(pairs)
	return s
}

// setFor returns the set of a name as it stands in a certificate.
func (s *Store) setFor(name string) *Set {
	if strings.HasPrefix(name, "*.") {
		name = name[1:]
	}
	if s.sets[name] == nil {
		s.sets[name] = &Set{}
	}
	return s.sets[name]
}

// makeFallback makes the set for clients that send no name or an unknown one.
// Old clients send none and need RSA, so it has every type of key, preferably
// for the same name.
func (s *Store) makeFallback(pairs []*Info) {
	fallback := s.setFor("")
	for _, name := range names(pairs[0].Leaf) {
		set := s.setFor(name)
		fallback.join(set, set.keys)
	}
	for _, p := range pairs {
		if fallback.keys&p.key != 0 {
			continue
		}
		for _, name := range names(p.Leaf) {
			fallback.join(s.setFor(name), p.key)
		}
		fallback.add(p)
	}
}

// names lists the DNS names of a certificate in lower case. The common name
// counts only if there is no other, as it does for old clients.
func names(leaf *x509.Certificate) []string {
	list := leaf.DNSNames
	if len(list) == 0 && isHostname(leaf.Subject.CommonName) {
		list = []string{leaf.Subject.CommonName}
	}
	return text.Each(list, func(name string) string { return strings.TrimSuffix(strings.ToLower(name), ".") })
}

// isHostname tells mail.example.org from Example Root CA.
func isHostname(s string) bool {
	return s == "localhost" || strings.Contains(s, ".") && !strings.ContainsAny(s, " /@,")
}

// Served lists the certificates that some client is served at that time, in the
// order in which they were named.
func (s *Store) Served(now time.Time) []Info {
	served := make(map[*tls.Certificate]bool)
	for _, set := range s.sets {
		for _, c := range set.certs {
			served[set.Certificate(c.key, now)] = true
		}
	}
	return slices.DeleteFunc(s.Certificates(), func(i Info) bool { return !served[i.cert] })
}

// Warnings says what was found in directories and is of no use, and which
// certificates others are preferred to, as of now. Each is a line that begins
// with the name of the file.
func (s *Store) Warnings(now time.Time) []string {
	list := slices.Clone(s.strays)
	for _, info := range s.infos {
		if text := s.outdone(info, now); text != "" {
			list = append(list, info.Name+": "+text)
		}
	}
	return list
}

// outdone says why another certificate is served for a name of this one.
func (s *Store) outdone(p Info, now time.Time) string {
	for _, name := range names(p.Leaf) {
		other := s.setFor(name).choose(p.key, now)
		if other.cert == p.cert {
			continue
		}
		why := cmp.Or(untimely(p.Leaf, now), "ends at "+date(p.Leaf.NotAfter))
		return fmt.Sprintf("not served for %s, since it %s: clients get %s, valid until %s",
			name, why, other.Name, date(other.Leaf.NotAfter))
	}
	return ""
}

func valid(leaf *x509.Certificate, now time.Time) bool {
	return !now.Before(leaf.NotBefore) && !now.After(leaf.NotAfter)
}

// untimely returns why the certificate is not valid at that time, or "".
func untimely(leaf *x509.Certificate, now time.Time) string {
	switch {
	case now.After(leaf.NotAfter):
		return "has expired at " + date(leaf.NotAfter)
	case now.Before(leaf.NotBefore):
		return "is not valid before " + date(leaf.NotBefore)
	}
	return ""
}

func date(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// Renew decides whether the new store may replace the old one, and returns the
// old certificates whose files are gone. An error means that the new store is
// worse: it has an invalid certificate for a valid one, or a file that is still
// there has lost its certificate or key, and no other is valid for its names.
// The error holds all reasons, a line each, with the name of the file.
func Renew(old, fresh *Store, now time.Time) (gone []Info, err error) {
	var problems []error
	byName := make(map[string]Info, len(fresh.infos))
	byLeaf := make(map[string]bool, len(fresh.infos))
	validNow := func(i Info) bool { return valid(i.Leaf, now) }
	for _, info := range fresh.infos {
		byName[info.Name] = info
		byLeaf[string(info.Leaf.Raw)] = true
	}
	for _, was := range old.infos {
		is, there := byName[was.Name]
		switch {
		case there && validNow(was) && !validNow(is) && !fresh.replaces(was, now):
			problems = append(problems, invalid(is, now))
		case there || byLeaf[string(was.Leaf.Raw)]:
		case exists(was.Name) && !fresh.replaces(was, now):
			problems = append(problems, fmt.Errorf("%s: no certificate with its key any more, as one that is half renewed: put both of one renewal there", was.Name))
		default:
			gone = append(gone, was)
		}
	}
	if len(problems) == 0 && slices.ContainsFunc(old.infos, validNow) && !slices.ContainsFunc(fresh.infos, validNow) {
		problems = append(problems, invalid(fresh.infos[0], now))
	}
	if len(problems) > 0 {
		return nil, errors.Join(problems...)
	}
	return gone, nil
}

func invalid(i Info, now time.Time) error {
	return fmt.Errorf("%s: the new certificate %s: put one there that is valid now", i.Name, untimely(i.Leaf, now))
}

// replaces reports whether the store has valid certificates with the same type
// of key for all names of one.
func (s *Store) replaces(p Info, now time.Time) bool {
	list := names(p.Leaf)
	for _, name := range list {
		set := s.find(name)
		if set == nil || set.keys&p.key == 0 || !valid(set.Certificate(p.key, now).Leaf, now) {
			return false
		}
	}
	return len(list) > 0
}

func exists(name string) bool {
	_, err := os.Stat(name)
	return !errors.Is(err, fs.ErrNotExist)
}
