package legacyhello

import (
	"bytes"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"

	"postern/internal/hello"
	"postern/policy"
)

// checkLoose compares what ParseLoose says of b with what crypto/tls does, where that
// takes it at all.
func checkLoose(t testing.TB, b []byte) (taken bool) {
	t.Helper()
	mine := bytes.Clone(b)
	got, ok := ParseLoose(mine)
	version := Version(mine)
	clear(mine) // nothing of it may be kept
	c, _ := cryptoTLS(b, strictConfigs[0])
	if !ok || c.asked == 0 {
		if ok && (len(got.CipherSuites) == 0 || len(got.Versions) == 0 || !got.Unreadable) {
			t.Fatalf("%x: offers nothing: %+v", b, got)
		}
		return false
	}
	got.Unreadable = false
	if !reflect.DeepEqual(got, c.seen) {
		t.Fatalf("%x:\n     %#v\nwant %#v", b, got, c.seen)
	}
	if len(c.written) == len(versionAlert) && c.written[6] == 70 && !slices.Contains(c.seen.Extensions, extSupportedVersions) && version >= policy.TLS12 {
		t.Fatalf("%x: version %s", b, version)
	}
	return true
}

// Of a hello that crypto/tls takes, the loose parser says the same, however it is cut.
func TestParseLooseAgreesWithCryptoTLS(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	hellos := legacyHellos(t)
	for _, version := range []uint16{0x0303, 0x0304} {
		hellos = append(hellos, namedHello{"Go", goHello(version)}, namedHello{"typical", typicalHello(version, nil)})
	}
	for _, h := range hellos {
		if !checkLoose(t, h.bytes) || !checkLoose(t, hello.Fragment(h.bytes, 1+r.IntN(40))) {
			t.Errorf("%s: not taken", h.name)
		}
	}
	taken := 0
	const tried = 10000
	for range tried {
		if checkLoose(t, mutate(r, hellos)) {
			taken++
		}
	}
	if taken < tried/4 || taken > tried*9/10 {
		t.Errorf("crypto/tls takes %d of %d, which says too little", taken, tried)
	}
}

// Wherever a hello ends, what it offers up to there is known.
func TestParseLooseOfTheBeginning(t *testing.T) {
	b := typicalHello(0x0304, func(s *hello.Spec) { s.ServerName = "mail.example.org." })
	whole, ok := ParseLoose(b)
	if !ok || whole.ServerName != "mail.example.org" || whole.Version() != policy.TLS13 {
		t.Fatalf("%+v, %v", whole, ok)
	}
	suites := false
	for n := range b {
		h, ok := ParseLoose(b[:n])
		if suites = suites || ok; ok != suites {
			t.Fatalf("%d bytes of %d say less than fewer", n, len(b))
		}
		if ok && !slices.Equal(h.CipherSuites, whole.CipherSuites) || len(h.Extensions) > len(whole.Extensions) {
			t.Errorf("%d bytes: %+v", n, h)
		}
		if want := policy.TLS12; n >= 11 && Version(b[:n]) != want || n < 11 && Version(b[:n]) != policy.NoVersion {
			t.Errorf("%d bytes name version %s", n, Version(b[:n]))
		}
	}
	if !suites {
		t.Error("no beginning says anything")
	}
}
