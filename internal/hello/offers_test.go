package hello

import (
	"maps"
	"regexp"
	"slices"
	"testing"

	"postern/policy"
)

func TestAFamilyIsAllSuitesOfItsNames(t *testing.T) {
	for pattern, family := range map[string][]uint16{
		`^TLS_RSA_WITH_(AES|CAMELLIA|ARIA|SEED|IDEA)_`:            RSA,
		`^TLS_DHE_(RSA|DSS)_WITH_(AES|CHACHA|CAMELLIA|ARIA|SEED)`: DHE,
		`^TLS_ECDHE_(ECDSA|RSA)_WITH_(AES|CHACHA|CAMELLIA|ARIA)`:  ECDHE,
		`^TLS_ECDHE_(ECDSA|RSA)_WITH_(AES|CAMELLIA)_.*_CBC_`:      CBC,
		`^TLS_(ECDHE|DHE|RSA)_.*_3DES_`:                           TDES,
		`^TLS_(ECDHE_ECDSA|ECDHE_RSA|RSA)_WITH_RC4_128_`:          RC4,
	} {
		named, name := make(map[uint16]bool), regexp.MustCompile(pattern)
		for id := range uint16(0xd000) {
			if name.MatchString(policy.CipherSuiteName(id)) {
				named[id] = true
			}
		}
		if want := slices.Sorted(maps.Keys(named)); !slices.Equal(slices.Sorted(slices.Values(family)), want) || len(want) == 0 {
			t.Errorf("%s: %#x, want %#x", pattern, family, want)
		}
	}
}
