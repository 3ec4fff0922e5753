package policy

import (
	"crypto/tls"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestWhatAHelloOffersHasItsIANANames(t *testing.T) {
	h := &Hello{
		Groups:           []tls.CurveID{0x2a2a, tls.X25519MLKEM768, tls.X25519, tls.CurveP256, tls.CurveP384, tls.CurveP521, 1, 22, 28, 256, 0, 31, 0x1a2b},
		SignatureSchemes: []tls.SignatureScheme{0x0a0a, 0x0403, 0x0804, 0x0401, 0x0201, 0x0203, 0x0202, 0x0101, 0x0303, 0x0807, 0x0001, 0x0700, 0x0904},
	}
	groups := []string{"X25519MLKEM768", "x25519", "secp256r1", "secp384r1", "secp521r1", "sect163k1", "secp256k1", "brainpoolP512r1", "ffdhe2048", "0x0000", "0x001f", "0x1a2b"}
	if diff := cmp.Diff(groups, h.GroupNames()); diff != "" {
		t.Error(diff)
	}
	signatures := []string{"ecdsa_secp256r1_sha256", "rsa_pss_rsae_sha256", "rsa_pkcs1_sha256", "rsa_pkcs1_sha1", "ecdsa_sha1", "dsa_sha1", "rsa_pkcs1_md5", "ecdsa_sha224", "ed25519", "0x0001", "0x0700", "0x0904"}
	if diff := cmp.Diff(signatures, h.SignatureNames()); diff != "" {
		t.Error(diff)
	}
}
