package certs

import (
	"encoding/base64"
	"slices"
	"strings"
	"testing"

	"postern/policy"
)

func TestLoadPool(t *testing.T) {
	d, key := newTree(t), testKeys()[policy.ECDSAP256]
	ca := template("CA")
	both := d.put("both.pem", "some text\n", certPEM(t, key, ca), certPEM(t, key, template("b.example.org")))
	if _, err := LoadPool(both); err != nil {
		t.Error(err)
	}
	if list, warnings, err := ReadCertificates(both); err != nil || warnings != nil || len(list) != 2 || list[0].Subject.CommonName != "CA" {
		t.Errorf("%v, %v", list, err)
	}
	good := certPEM(t, key, ca)
	for name, text := range map[string]struct{ content, want string }{
		"empty":            {"", "no PEM in it: name a file with a line -----BEGIN CERTIFICATE----- or -----BEGIN PRIVATE KEY-----"},
		"key alone":        {keyPEM(t, key), "no certificate in it: name the file that has one"},
		"truncated":        {good[:len(good)/2], "a PEM block is broken or cut off: copy the file again"},
		"second truncated": {good + good[:len(good)/2], "a PEM block is broken or cut off: copy the file again"},
		"no DER":           {block("CERTIFICATE", []byte("x")), "certificate 1 cannot be used (x509: malformed certificate): export it again, or take it away"},
	} {
		path := d.put("bad.pem", text.content)
		if pool, err := LoadPool(path); pool != nil || err == nil || err.Error() != path+": "+text.want {
			t.Errorf("%s: %v, %v; want %q", name, pool, err, text.want)
		}
	}
	missing := d.path("missing")
	if _, err := LoadPool(missing); err == nil || err.Error() != missing+": no such file or directory: create it, or mend the name" {
		t.Errorf("a missing file: %v", err)
	}
}

// brainpool is a root on a curve that Go does not have.
const brainpool = `-----BEGIN CERTIFICATE-----
MIIBxTCCAWygAwIBAgIUWc/395YANyQtalHkL5jOTRwR1HIwCgYIKoZIzj0EAwIw
ODELMAkGA1UEBhMCREUxEDAOBgNVBAoMB0V4YW1wbGUxFzAVBgNVBAMMDkJyYWlu
cG9vbCBSb290MB4XDTI2MTEyOTE5NDIwM1oXDTQ2MTEyNDE5NDIwM1owODELMAkG
A1UEBhMCREUxEDAOBgNVBAoMB0V4YW1wbGUxFzAVBgNVBAMMDkJyYWlucG9vbCBS
b290MFowFAYHKoZIzj0CAQYJKyQDAwIIAQEHA0IABEDxm/cqHzQqX9QbUNAR0t4x
XkTKmrwlyJOpluXaJdY6pSu5QnsXjYHL0c0p5zZEMY9dKE39Uv6xhQ89wUaPguyj
UzBRMB0GA1UdDgQWBBTkJiJUC9tIL75EXFmvYd08mNsL9jAfBgNVHSMEGDAWgBTk
JiJUC9tIL75EXFmvYd08mNsL9jAPBgNVHRMBAf8EBTADAQH/MAoGCCqGSM49BAMC
A0cAMEQCIC646pe42drAwsxp9DrRrDya/gBurN0c6c2HlKqAY3vFAiBFB3Qk7PIn
D4z+/+JnJcCYDX5yeq4bu/Z26AGX4WkNkg==
-----END CERTIFICATE-----
`

func TestAnEntryThatCannotBeUsedIsAWarning(t *testing.T) {
	d, key := newTree(t), testKeys()[policy.ECDSAP256]
	good := certPEM(t, key, template("CA"))
	broken := strings.Replace(certPEM(t, key, template("broken")), "MI", "*I", 1)
	secret := block("ENCRYPTED PRIVATE KEY", []byte{1})
	path := d.put("ca.pem", brainpool, secret, broken, good)
	list, warnings, err := ReadCertificates(path)
	if err != nil || len(list) != 1 || list[0].Subject.CommonName != "CA" {
		t.Fatalf("%v, %v", list, err)
	}
	want := []string{
		path + ": certificate 1 (CN=Brainpool Root,O=Example,C=DE) cannot be used (x509: unsupported elliptic curve): export it again, or take it away",
		path + ": certificate 2 cannot be used (x509: malformed certificate): export it again, or take it away",
	}
	if !slices.Equal(warnings, want) {
		t.Errorf("warnings\n%s\nwant\n%s", strings.Join(warnings, "\n"), strings.Join(want, "\n"))
	}
	if _, err := LoadPool(d.put("all.pem", brainpool, broken)); err == nil || strings.Count(err.Error(), "cannot be used") != 2 {
		t.Errorf("where none can be used: %v", err)
	}
}

func key32(b byte) string {
	return base64.StdEncoding.EncodeToString([]byte(strings.Repeat(string(rune(b)), 32)))
}

func TestTicketKeysComeInTheirOrder(t *testing.T) {
	d := newTree(t)
	keys, err := LoadTicketKeys(d.put("keys", "# newest\r\n", key32('n'), "\r\n\r\n ", key32('o')))
	if err != nil || len(keys) != 2 || keys[0][31] != 'n' || keys[1][0] != 'o' {
		t.Errorf("got %v, %v", keys, err)
	}
}

func TestABadTicketKeyIsNamedByLineAndNeverShown(t *testing.T) {
	d := newTree(t)
	secret := key32('s')
	path := d.put("keys", secret, "\n", secret[:20], "\n!", secret[1:], "\n", secret, "\n", secret[:43], "\n")
	keys, err := LoadTicketKeys(path)
	if keys != nil || err == nil {
		t.Fatalf("accepted: %v", keys)
	}
	want := strings.NewReplacer("F", path).Replace("F:2: 15 bytes, not 32: make a key with openssl rand -base64 32\nF:3: not base64: make a key with openssl rand -base64 32\nF:4: the same key as before: take one of them away\nF:5: not base64: make a key with openssl rand -base64 32")
	if err.Error() != want {
		t.Errorf("got\n%v\nwant\n%s", err, want)
	}
	if strings.Contains(err.Error(), secret[:8]) {
		t.Error("a key is in the error")
	}
	path = d.put("keys", "# none\n")
	if _, err := LoadTicketKeys(path); err == nil || err.Error() != path+": no key in it: put one there with openssl rand -base64 32" {
		t.Errorf("a file without a key: %v", err)
	}
	path = d.put("keys", strings.Repeat("x", maxFile+1))
	if _, err := LoadTicketKeys(path); err == nil || err.Error() != path+": "+errTooLarge.Error() {
		t.Errorf("a huge file: %v", err)
	}
}
