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
	leaf := p.Leaf
	for _, name := range names(leaf) {
		other := s.setFor(name).Certificate(p.key, now)
		if other == p.cert {
			continue
		}
		why := untimely(leaf, now)
		if why == "" {
			why = "ends at " + date(leaf.NotAfter)
		}
		i := slices.IndexFunc(s.infos, func(o Info) bool { return o.cert == other })
		return fmt.Sprintf("not served for %s, since it %s: clients get %s, valid until %s",
			name, why, s.infos[i].Name, date(other.Leaf.NotAfter))
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
