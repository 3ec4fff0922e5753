package certs

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"postern/policy"
)

func TestLookup(t *testing.T) {
	d, keys := newTree(t), testKeys()
	file := func(name string, k policy.KeyTypes, c *x509.Certificate) string {
		return d.put(name, keyPEM(t, keys[k]), certPEM(t, keys[k], c))
	}
	cnOnly := template()
	cnOnly.Subject = pkix.Name{CommonName: "old.example.net"}
	s := mustLoad(t, []string{
		file("default", policy.ECDSAP256, template("mail.example.org", "imap.example.org")),
		file("other-rsa", policy.RSA, template("*.example.net")),
		file("same-rsa", policy.RSA, template("IMAP.Example.ORG.")),
		file("wildcard", policy.ECDSAP384, template("*.example.org")),
		file("late", policy.ECDSAP256, at(-2, 1, "mail.example.org", "late.example.org")),
		file("common-name", policy.Ed25519, cnOnly),
	}, nil)
	for _, test := range []struct {
		server string
		keys   policy.KeyTypes
		files  map[policy.KeyTypes]string
	}{
		{"mail.example.org", policy.ECDSAP256 | policy.ECDSAP384,
			map[policy.KeyTypes]string{0: "default", policy.ECDSAP256: "default", policy.ECDSAP384: "wildcard", policy.RSA: "default"}},
		{"MAIL.example.ORG", policy.ECDSAP256 | policy.ECDSAP384, map[policy.KeyTypes]string{0: "default"}},
		{"imap.example.org", policy.ECDSAP256 | policy.ECDSAP384 | policy.RSA, map[policy.KeyTypes]string{policy.RSA: "same-rsa"}},
		{"late.example.org", policy.ECDSAP256 | policy.ECDSAP384, map[policy.KeyTypes]string{0: "late"}},
		{"pop.example.org", policy.ECDSAP384, map[policy.KeyTypes]string{0: "wildcard", policy.ECDSAP256: "wildcard"}},
		{"old.example.net", policy.Ed25519 | policy.RSA, map[policy.KeyTypes]string{0: "common-name", policy.RSA: "other-rsa"}},
		{"any.example.net", policy.RSA, map[policy.KeyTypes]string{policy.RSA: "other-rsa"}},
		// The default has every type of key, RSA by the shared name.
		{"", 31 &^ policy.ECDSAP521, map[policy.KeyTypes]string{
			0: "default", policy.RSA: "same-rsa", policy.ECDSAP384: "wildcard", policy.Ed25519: "common-name"}},
		{"a.b.example.org", 31 &^ policy.ECDSAP521, nil},
		{"example.org", 31 &^ policy.ECDSAP521, nil},
		{".example.org", 31 &^ policy.ECDSAP521, nil},
		{"*.example.com", 31 &^ policy.ECDSAP521, nil},
	} {
		if got := s.Lookup(test.server).Keys(); got != test.keys {
			t.Errorf("%q: keys %b, want %b", test.server, got, test.keys)
		}
		for k, want := range test.files {
			if got := serves(s, test.server, k); got != want {
				t.Errorf("%q with key %b is served %s, want %s", test.server, k, got, want)
			}
		}
	}
}

func TestDefaultTakesAnyRSAWhereNoneSharesItsName(t *testing.T) {
	d, keys := newTree(t), testKeys()
	s := mustLoad(t, []string{
		d.put("a", keyPEM(t, keys[policy.ECDSAP256]), certPEM(t, keys[policy.ECDSAP256], template("a.example.org"))),
		d.put("b", keyPEM(t, keys[policy.RSA]), certPEM(t, keys[policy.RSA], template("b.example.org"))),
	}, nil)
	if got := s.Lookup("").Keys(); got != policy.ECDSAP256|policy.RSA {
		t.Errorf("keys %b of the default", got)
	}
	if got := s.Lookup("a.example.org").Keys(); got != policy.ECDSAP256 {
		t.Errorf("keys %b of a name, want its own alone", got)
	}
}

func TestCertificatesIsACopy(t *testing.T) {
	s := manyNames(t, 1)
	s.Certificates()[0].Name = "changed"
	if got := s.Certificates()[0].Name; got == "changed" {
		t.Error("the store was changed from outside")
	}
}

func TestLookupDoesNotAllocate(t *testing.T) {
	s, now := manyNames(t, 100), time.Now()
	for _, name := range []string{"n7.example.org", "any.n7.example.net", "unknown.example.com", ""} {
		if n := testing.AllocsPerRun(100, func() { s.Lookup(name).Certificate(policy.RSA, now) }); n != 0 {
			t.Errorf("%q: %v allocations, want none", name, n)
		}
	}
}

// manyNames is a store of n certificates that share their key: a name and a
// wildcard each.
func manyNames(t testing.TB, n int) *Store {
	t.Helper()
	key := testKeys()[policy.ECDSAP256]
	pairs := make([]*Info, n)
	for i := range pairs {
		leaf := &x509.Certificate{DNSNames: []string{
			fmt.Sprintf("n%d.example.org", i), fmt.Sprintf("*.n%d.example.net", i),
		}}
		cert := &tls.Certificate{PrivateKey: key, Leaf: leaf}
		pairs[i] = &Info{Name: fmt.Sprintf("certs/%d.pem", i), Leaf: leaf, key: policy.ECDSAP256, cert: cert}
	}
	return newStore(pairs)
}

func BenchmarkLookup(b *testing.B) {
	for _, n := range []int{1, 10_000} {
		s := manyNames(b, n)
		for kind, name := range map[string]string{
			"name":     fmt.Sprintf("n%d.example.org", n-1),
			"wildcard": fmt.Sprintf("any.n%d.example.net", n-1),
			"default":  "unknown.example.com",
		} {
			b.Run(fmt.Sprintf("%s of %d", kind, n), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					s.Lookup(name)
				}
			})
		}
	}
}

// TestOfSeveralTheValidOneThatEndsLastIsServed: each case is certificates of one
// name by file, as days from now, and which is served at which day.
func TestOfSeveralTheValidOneThatEndsLastIsServed(t *testing.T) {
	for name, test := range map[string]struct {
		files map[string][2]int
		want  map[int]string
	}{
		"the first by name expired": {map[string][2]int{"a": {-9, -1}, "b": {-1, 9}}, map[int]string{0: "b", 20: "b"}},
		"the first by name too new": {map[string][2]int{"a": {1, 9}, "b": {-1, 5}}, map[int]string{0: "b", 2: "a", 7: "a"}},
		"both valid":                {map[string][2]int{"a": {-1, 5}, "b": {-1, 9}, "c": {-1, 7}}, map[int]string{0: "b"}},
		"the later one begins late": {map[string][2]int{"a": {-9, 2}, "b": {-1, 1}, "c": {4, 9}}, map[int]string{0: "a", 3: "c", 5: "c"}},
	} {
		t.Run(name, func(t *testing.T) {
			d, key := newTree(t), newKey(t)
			for file, days := range test.files {
				d.put("d/"+file, keyPEM(t, key), certPEM(t, key, at(days[0], days[1], "mail.example.org", "*.example.net")))
			}
			s := mustLoad(t, []string{d.path("d")}, nil)
			for day, want := range test.want {
				now := time.Now().AddDate(0, 0, day)
				for _, server := range []string{"mail.example.org", "any.example.net", "", "unknown.example.com"} {
					if got := s.Lookup(server).Certificate(0, now); !bytes.Equal(got.Leaf.Raw, infoOf(t, s, want).Leaf.Raw) {
						t.Errorf("%q is not served %s on day %d", server, want, day)
					}
				}
				if served := s.Served(now); len(served) != 1 || filepath.Base(served[0].Name) != want {
					t.Errorf("served on day %d: %v, want %s alone", day, served, want)
				}
				for _, w := range s.Warnings(now) {
					if strings.HasPrefix(w, d.path("d/"+want)) || !strings.Contains(w, ": clients get "+d.path("d/"+want)) {
						t.Errorf("warning on day %d: %s", day, w)
					}
				}
				if n := len(s.Warnings(now)); n != len(test.files)-1 {
					t.Errorf("%d warnings on day %d", n, day)
				}
			}
		})
	}
}

func infoOf(t *testing.T, s *Store, file string) Info {
	t.Helper()
	for _, info := range s.Certificates() {
		if filepath.Base(info.Name) == file {
			return info
		}
	}
	t.Fatalf("no certificate from %s", file)
	return Info{}
}

// TestAWildcardServesOnceTheNamesOwnCertificateHasExpired, and not before.
func TestAWildcardServesOnceTheNamesOwnCertificateHasExpired(t *testing.T) {
	d, key := newTree(t), newKey(t)
	s := mustLoad(t, []string{
		d.put("own", keyPEM(t, key), certPEM(t, key, at(-1, 2, "mail.example.org"))),
		d.put("wildcard", certPEM(t, key, at(-1, 9, "*.example.org"))),
	}, nil)
	for day, want := range map[int]string{0: "own", 3: "wildcard", 20: "own"} {
		got := s.Lookup("mail.example.org").Certificate(policy.ECDSAP256, time.Now().AddDate(0, 0, day))
		if !bytes.Equal(got.Leaf.Raw, infoOf(t, s, want).Leaf.Raw) {
			t.Errorf("not served %s on day %d", want, day)
		}
	}
}
