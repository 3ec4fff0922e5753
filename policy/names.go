package policy

import (
	"crypto/tls"
	"fmt"
	"strings"
)

// groupNames are those of the IANA registry "TLS Supported Groups", from 1 on.
// Clients of TLS 1.0 offer many that no one else remembers.
var groupNames = strings.Fields(`
	sect163k1 sect163r1 sect163r2 sect193r1 sect193r2 sect233k1 sect233r1 sect239k1 sect283k1 sect283r1 sect409k1 sect409r1
	sect571k1 sect571r1 secp160k1 secp160r1 secp160r2 secp192k1 secp192r1 secp224k1 secp224r1 secp256k1 secp256r1 secp384r1
	secp521r1 brainpoolP256r1 brainpoolP384r1 brainpoolP512r1 x25519 x448`)

var otherGroups = map[tls.CurveID]string{
	0x0100: "ffdhe2048", 0x0101: "ffdhe3072", 0x0102: "ffdhe4096", 0x0103: "ffdhe6144", 0x0104: "ffdhe8192",
	0x11eb: "SecP256r1MLKEM768", 0x11ec: "X25519MLKEM768", 0x11ed: "SecP384r1MLKEM1024",
}

// groupName is the IANA name of a group, or its number as in 0x1a2b.
func groupName(id tls.CurveID) string {
	if i := int(id) - 1; i >= 0 && i < len(groupNames) {
		return groupNames[i]
	}
	if name, ok := otherGroups[id]; ok {
		return name
	}
	return fmt.Sprintf("0x%04x", uint16(id))
}

// The hashes and signatures of RFC 5246, Section 7.4.1.4.1.
var (
	hashes     = []string{1: "md5", 2: "sha1", 3: "sha224", 4: "sha256", 5: "sha384", 6: "sha512"}
	signatures = []string{1: "rsa_pkcs1_", 2: "dsa_", 3: "ecdsa_"}
	schemes    = map[tls.SignatureScheme]string{
		0x0403: "ecdsa_secp256r1_sha256", 0x0503: "ecdsa_secp384r1_sha384", 0x0603: "ecdsa_secp521r1_sha512",
		0x0804: "rsa_pss_rsae_sha256", 0x0805: "rsa_pss_rsae_sha384", 0x0806: "rsa_pss_rsae_sha512", 0x0807: "ed25519",
		0x0808: "ed448", 0x0809: "rsa_pss_pss_sha256", 0x080a: "rsa_pss_pss_sha384", 0x080b: "rsa_pss_pss_sha512",
	}
)

// schemeName is the IANA name of a signature scheme, or its number.
func schemeName(id tls.SignatureScheme) string {
	hash, signature := int(id>>8), int(id&0xff)
	name, known := schemes[id]
	switch {
	case known:
		return name
	case hash > 0 && hash < len(hashes) && signature > 0 && signature < len(signatures):
		return signatures[signature] + hashes[hash]
	}
	return fmt.Sprintf("0x%04x", uint16(id))
}

// named lists what a hello offers by name, as sent, without GREASE; maxListed at
// most, with those that are listed already.
func named[T ~uint16](names []string, ids []T, name func(T) string) []string {
	for _, id := range ids {
		if !isGREASE(uint16(id)) && len(names) < maxListed {
			names = append(names, name(id))
		}
	}
	return names
}

// GroupNames lists the offered groups by IANA name, unknown ones as 0x1a2b, as
// sent, without GREASE; 64 at most.
func (h *Hello) GroupNames() []string { return named([]string{}, h.Groups, groupName) }

// SignatureNames is GroupNames for signature schemes.
func (h *Hello) SignatureNames() []string {
	return named([]string{}, h.SignatureSchemes, schemeName)
}
