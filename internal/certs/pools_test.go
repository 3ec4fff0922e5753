package certs

import (
	"encoding/base64"
	"strings"
	"testing"

	"postern/policy"
)

func TestLoadPool(t *testing.T) {
	d, key := newTree(t), testKeys()[policy.ECDSAP256]
	ca := template("CA")
	both := d.put("both.pem", "some text\n", certPEM(t, key, ca), certPEM(t, key, template("b.example.org")))
	if pool, err := LoadPool(""); pool != nil || err != nil {
		t.Errorf("without a name: %v, %v", pool, err)
	}
	if _, err := LoadPool(both); err != nil {
		t.Error(err)
	}
	if list, err := ReadCertificates(both); err != nil || len(list) != 2 || list[0].Subject.CommonName != "CA" {
		t.Errorf("%v, %v", list, err)
	}
	good := certPEM(t, key, ca)
	for name, text := range map[string]struct{ content, want string }{
		"empty":            {"", "no PEM in it"},
		"key alone":        {keyPEM(t, key), "no certificate in it"},
		"truncated":        {good[:len(good)/2], "a PEM block is broken or cut off"},
		"second truncated": {good + good[:len(good)/2], "a PEM block is broken or cut off"},
		"no DER":           {block("CERTIFICATE", []byte("x")), "parsing certificate 1: x509: malformed certificate"},
	} {
		path := d.put("bad.pem", text.content)
		if pool, err := LoadPool(path); pool != nil || err == nil || err.Error() != path+": "+text.want {
			t.Errorf("%s: %v, %v; want %q", name, pool, err, text.want)
		}
	}
	missing := d.path("missing")
	if _, err := LoadPool(missing); err == nil || err.Error() != missing+": no such file or directory" {
		t.Errorf("a missing file: %v", err)
	}
}

func key32(b byte) string {
	return base64.StdEncoding.EncodeToString([]byte(strings.Repeat(string(rune(b)), 32)))
}

func TestTicketKeysComeInTheirOrder(t *testing.T) {
	d := newTree(t)
	if keys, err := LoadTicketKeys(""); keys != nil || err != nil {
		t.Errorf("without a name: %v, %v", keys, err)
	}
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
	want := strings.NewReplacer("F", path).Replace("F:2: 15 bytes, not 32\nF:3: not base64\nF:4: the same key as before\nF:5: not base64")
	if err.Error() != want {
		t.Errorf("got\n%v\nwant\n%s", err, want)
	}
	if strings.Contains(err.Error(), secret[:8]) {
		t.Error("a key is in the error")
	}
	path = d.put("keys", "# none\n")
	if _, err := LoadTicketKeys(path); err == nil || err.Error() != path+": no key in it" {
		t.Errorf("a file without a key: %v", err)
	}
	path = d.put("keys", strings.Repeat("x", maxFile+1))
	if _, err := LoadTicketKeys(path); err == nil || err.Error() != path+": "+errTooLarge.Error() {
		t.Errorf("a huge file: %v", err)
	}
}
