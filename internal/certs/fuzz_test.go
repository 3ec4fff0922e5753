package certs

import (
	"testing"
	"time"

	"postern/policy"
)

// FuzzPEM: any file is either read or an error, and what is read can be used.
func FuzzPEM(f *testing.F) {
	key := testKeys()[policy.ECDSAP256]
	cert, private := certPEM(f, key, template("mail.example.org")), keyPEM(f, key)
	for _, seed := range []string{
		"", "hello", cert, private, cert + private, private + cert + cert, cert[:len(cert)/2], "\xef\xbb\xbf" + cert,
		"-----BEGIN \n", "-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n",
		"-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\nAA==\n-----END RSA PRIVATE KEY-----\n",
		keyPEM(f, testKeys()[policy.RSA]), keyPEM(f, testKeys()[policy.Ed25519]),
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		one, err := parse("f.pem", data)
		if err != nil {
			if one != nil {
				t.Fatalf("an error with contents: %v", err)
			}
			return
		}
		l := newLoader("POSTERN_", nil)
		one.name = "fuzz.pem"
		l.addKeys(one)
		for _, signer := range one.keys {
			if _, err := keyType(signer.Public()); err != nil {
				t.Fatalf("a key was read that has no type: %v", err)
			}
		}
		if len(one.chain) == 0 || l.match(one) != nil {
			return
		}
		if s := newStore(l.pairs); s.Lookup("").Keys() == 0 || s.Lookup("").Certificate(0, time.Now()).Leaf == nil {
			t.Fatal("a pair was found, but nothing is served")
		}
	})
}
