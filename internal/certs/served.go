package certs

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"slices"
	"time"
)

// Served lists the certificates that some client is served at that time, in the
// order in which they were named.
func (s *Store) Served(now time.Time) []Info {
	served := make(map[*tls.Certificate]bool)
	for _, index := range []map[string]*Set{s.exact, s.wildcards, {"": s.fallback}} {
		for _, set := range index {
			for _, certs := range set.byKey {
				if len(certs) > 0 {
					served[certs.at(now)] = true
				}
			}
		}
	}
	var list []Info
	for i, p := range s.pairs {
		if served[p.cert] {
			list = append(list, s.infos[i])
		}
	}
	return list
}

// Warnings says what was found in directories and is of no use, and which
// certificates others are preferred to, as of now. Each is a line that begins
// with the name of the file.
func (s *Store) Warnings(now time.Time) []string {
	list := slices.Clone(s.strays)
	for _, p := range s.pairs {
		if text := s.outdone(p, now); text != "" {
			list = append(list, p.name+": "+text)
		}
	}
	return list
}

// outdone says why another certificate is served for a name of this one.
func (s *Store) outdone(p *pair, now time.Time) string {
	leaf := p.cert.Leaf
	for _, name := range names(leaf) {
		other := s.setFor(name).Certificate(p.key, now)
		if other == p.cert {
			continue
		}
		why := untimely(leaf, now)
		if why == "" {
			why = "ends earlier, at " + date(leaf.NotAfter)
			if leaf.NotAfter.Equal(other.Leaf.NotAfter) {
				why = "ends at the same time"
			}
		}
		i := slices.IndexFunc(s.pairs, func(o *pair) bool { return o.cert == other })
		return fmt.Sprintf("not served for %s, since it %s: clients get %s, valid until %s",
			name, why, s.pairs[i].name, date(other.Leaf.NotAfter))
	}
	return ""
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
