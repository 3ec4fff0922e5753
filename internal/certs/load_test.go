package certs

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"postern/policy"
)

func TestEveryKeyTypeAndFormIsRead(t *testing.T) {
	keys := testKeys()
	sec1 := func(k policy.KeyTypes) string {
		der, err := x509.MarshalECPrivateKey(keys[k].(*ecdsa.PrivateKey))
		if err != nil {
			t.Fatal(err)
		}
		return block("EC PRIVATE KEY", der)
	}
	pkcs1 := block("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(keys[policy.RSA].(*rsa.PrivateKey)))
	for _, test := range []struct {
		name string
		key  policy.KeyTypes
		pem  string
	}{
		{"P-256 PKCS8", policy.ECDSAP256, keyPEM(t, keys[policy.ECDSAP256])},
		{"P-384 PKCS8", policy.ECDSAP384, keyPEM(t, keys[policy.ECDSAP384])},
		{"P-521 PKCS8", policy.ECDSAP521, keyPEM(t, keys[policy.ECDSAP521])},
		{"Ed25519 PKCS8", policy.Ed25519, keyPEM(t, keys[policy.Ed25519])},
		{"RSA PKCS8", policy.RSA, keyPEM(t, keys[policy.RSA])},
		{"P-256 SEC1", policy.ECDSAP256, sec1(policy.ECDSAP256)},
		{"P-384 SEC1", policy.ECDSAP384, sec1(policy.ECDSAP384)},
		{"P-521 SEC1 with parameters", policy.ECDSAP521, block("EC PARAMETERS", []byte{6, 5}) + sec1(policy.ECDSAP521)},
		{"RSA PKCS1", policy.RSA, pkcs1},
		{"RSA PKCS1 under the name of PKCS8", policy.RSA, strings.ReplaceAll(pkcs1, "RSA PRIVATE", "PRIVATE")},
		{"text and a byte order mark", policy.RSA, "\xef\xbb\xbf" + pkcs1 + "Bag Attributes\n"},
		{"lines of Windows", policy.RSA, strings.ReplaceAll(pkcs1, "\n", "\r\n")},
	} {
		t.Run(test.name, func(t *testing.T) {
			d := newTree(t)
			cert := d.put("tls.crt", certPEM(t, keys[test.key], template("mail.example.org")))
			s := mustLoad(t, []string{cert}, []string{d.put("tls.key", test.pem)})
			set := s.Lookup("mail.example.org")
			if set.Keys() != test.key {
				t.Errorf("keys %b, want %b", set.Keys(), test.key)
			}
			c := set.Certificate(test.key, time.Now())
			if c.Leaf == nil || c.PrivateKey == nil || len(c.Certificate) != 1 {
				t.Errorf("certificate is not complete: %+v", c)
			}
		})
	}
}

func TestPairsAreFoundByKeyNotByPlace(t *testing.T) {
	d, keys := newTree(t), testKeys()
	ecdsaCert := d.put("ecdsa.crt", certPEM(t, keys[policy.ECDSAP256], template("mail.example.org")))
	rsaCert := d.put("rsa.crt", certPEM(t, keys[policy.RSA], template("mail.example.org")))
	edKey := newKey(t)
	combined := d.put("combined.pem", keyPEM(t, edKey), certPEM(t, edKey, template("pop.example.org")))
	s := mustLoad(t, []string{ecdsaCert, rsaCert, combined}, []string{
		d.put("rsa.key", keyPEM(t, keys[policy.RSA])),
		d.put("ecdsa.key", keyPEM(t, keys[policy.ECDSAP256])),
	})
	for _, info := range s.Certificates() {
		p := s.Lookup(info.Leaf.DNSNames[0]).Certificate(mustKeyType(t, info.Leaf.PublicKey), time.Now())
		if !p.PrivateKey.(crypto.Signer).Public().(interface{ Equal(crypto.PublicKey) bool }).Equal(info.Leaf.PublicKey) {
			t.Errorf("%s has another one's key", info.Name)
		}
	}
	if got := s.Lookup("mail.example.org").Keys(); got != policy.ECDSAP256|policy.RSA {
		t.Errorf("keys %b", got)
	}
	if got := s.Certificates()[2].Name; got != combined {
		t.Errorf("third name %q, want %q", got, combined)
	}
}

func mustKeyType(t *testing.T, public crypto.PublicKey) policy.KeyTypes {
	t.Helper()
	k, err := keyType(public)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestOneKeyForSeveralCertificates(t *testing.T) {
	d, key := newTree(t), newKey(t)
	s := mustLoad(t, []string{
		d.put("a.crt", certPEM(t, key, template("a.example.org"))),
		d.put("b.crt", certPEM(t, key, template("b.example.org"))),
	}, []string{d.put("tls.key", keyPEM(t, key)), d.put("again.key", keyPEM(t, key))})
	if a, b := serves(s, "a.example.org", 0), serves(s, "b.example.org", 0); a != "a.crt" || b != "b.crt" {
		t.Errorf("a is served %s, b %s", a, b)
	}
}

func TestCertbotDirectory(t *testing.T) {
	d, key, other := newTree(t), newKey(t), newKey(t)
	intermediate := certPEM(t, newKey(t), func() *x509.Certificate {
		c := template()
		c.Subject, c.IsCA, c.BasicConstraintsValid = pkix.Name{CommonName: "R11"}, true, true
		return c
	}())
	leaf := certPEM(t, key, template("mail.example.org"))
	d.put("live/README", "This directory contains your keys and certificates.\n")
	d.put("archive/cert1.pem", leaf)
	d.put("live/mail.example.org/chain.pem", intermediate)
	d.put("live/mail.example.org/fullchain.pem", leaf, intermediate)
	d.put("live/mail.example.org/privkey.pem", keyPEM(t, key))
	d.put("live/pop.example.org/fullchain.pem", certPEM(t, other, template("pop.example.org")), intermediate)
	d.put("live/pop.example.org/privkey.pem", keyPEM(t, other))
	if err := os.Symlink("../../archive/cert1.pem", d.path("live/mail.example.org/cert.pem")); err != nil {
		t.Fatal(err)
	}
	s := mustLoad(t, []string{d.path("live")}, nil)
	infos := s.Certificates()
	if len(infos) != 2 {
		t.Fatalf("%d certificates, want 2", len(infos))
	}
	if want := d.path("live/mail.example.org/fullchain.pem"); infos[0].Name != want {
		t.Errorf("first certificate from %s, want %s", infos[0].Name, want)
	}
	if n := len(s.Lookup("mail.example.org").Certificate(0, time.Now()).Certificate); n != 2 {
		t.Errorf("chain of %d served, want the longer one of 2", n)
	}
}

func TestKubernetesSecret(t *testing.T) {
	d, key := newTree(t), newKey(t)
	d.put("..2026_06_01/tls.crt", certPEM(t, key, template("mail.example.org")))
	d.put("..2026_06_01/tls.key", keyPEM(t, key))
	d.put("..2026_06_01/ca.crt")
	for link, target := range map[string]string{
		"..data": "..2026_06_01", "tls.crt": "..data/tls.crt", "tls.key": "..data/tls.key", "ca.crt": "..data/ca.crt",
	} {
		if err := os.Symlink(target, d.path(link)); err != nil {
			t.Fatal(err)
		}
	}
	s := mustLoad(t, []string{d.dir}, nil)
	infos := s.Certificates()
	if len(infos) != 1 || infos[0].Name != d.path("tls.crt") {
		t.Errorf("certificates %v, want tls.crt alone", infos)
	}
}

func TestCAOfItsOwnIsNotServed(t *testing.T) {
	d, key, caKey := newTree(t), newKey(t), newKey(t)
	ca := template()
	ca.Subject, ca.IsCA, ca.BasicConstraintsValid = pkix.Name{CommonName: "Example Root CA"}, true, true
	d.put("ca.crt", certPEM(t, caKey, ca))
	d.put("ca.key", keyPEM(t, caKey))
	d.put("server.pem", certPEM(t, key, template("mail.example.org")), keyPEM(t, key))
	s := mustLoad(t, []string{d.dir}, nil)
	if got := serves(s, "", 0); got != "server.pem" || len(s.Certificates()) != 1 {
		t.Errorf("%s is the default of %d certificates, want server.pem of 1", got, len(s.Certificates()))
	}
}

func TestExpiredCertificateLoads(t *testing.T) {
	d, key := newTree(t), newKey(t)
	old := template("mail.example.org")
	old.NotAfter = time.Now().Add(-time.Hour)
	s := mustLoad(t, []string{d.put("a.pem", certPEM(t, key, old), keyPEM(t, key))}, nil)
	if got := s.Certificates()[0].Leaf.NotAfter; !got.Before(time.Now()) {
		t.Errorf("not after %v, want a time that is past", got)
	}
}

func TestLoadedCertificateCompletesHandshake(t *testing.T) {
	d, key := newTree(t), newKey(t)
	s := mustLoad(t, []string{d.put("a.pem", keyPEM(t, key), certPEM(t, key, template("mail.example.org")))}, nil)
	client, server := net.Pipe()
	defer client.Close()
	go func() {
		defer server.Close()
		config := &tls.Config{Certificates: []tls.Certificate{*s.Lookup("mail.example.org").Certificate(0, time.Now())}}
		_ = tls.Server(server, config).Handshake() // the client tells how it went
	}()
	roots := x509.NewCertPool()
	roots.AddCert(s.Certificates()[0].Leaf)
	if err := tls.Client(client, &tls.Config{RootCAs: roots, ServerName: "mail.example.org"}).Handshake(); err != nil {
		t.Errorf("handshake: %v", err)
	}
}

// TestProblemsNameTheirFile: each case is files, what is named, and what the
// errors must say; one line each and no more.
func TestProblemsNameTheirFile(t *testing.T) {
	key, other := newKey(t), newKey(t)
	cert := certPEM(t, key, template("mail.example.org"))
	otherCert := certPEM(t, other, template("other.example.org"))
	p224, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	encrypted := block("ENCRYPTED PRIVATE KEY", []byte{1})
	oldEncrypted := string(pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: []byte{1},
		Headers: map[string]string{"Proc-Type": "4,ENCRYPTED", "DEK-Info": "DES-EDE3-CBC,00"}}))
	k, ok := keyPEM(t, key), keyPEM(t, other)
	for _, test := range []struct {
		name        string
		files       map[string]string
		certs, keys []string
		want        []string
	}{
		{"nothing named", nil, nil, nil, []string{"no certificate is named"}},
		{"missing", nil, []string{"a.crt"}, []string{"a.key"},
			[]string{"a.crt: no such file", "a.key: no such file"}},
		{"no PEM", map[string]string{"a.crt": "hello", "a.key": ""}, []string{"a.crt"}, []string{"a.key"},
			[]string{"a.crt: no PEM in it", "a.key: no PEM in it"}},
		{"swapped", map[string]string{"a.crt": k, "a.key": cert}, []string{"a.crt"}, []string{"a.key"},
			[]string{"a.crt: no certificate in it but a key: name it in POSTERN_TLS_KEY_FILE, and its certificate in POSTERN_TLS_CERT_FILE", "a.key: no private key in it but certificates: name it in"}},
		{"mismatch", map[string]string{"a.crt": cert, "a.key": ok}, []string{"a.crt"}, []string{"a.key"},
			[]string{"a.crt: does not belong to the key in "}},
		{"mismatch in one file", map[string]string{"a.pem": cert + ok}, []string{"a.pem"}, nil,
			[]string{"a.pem: the certificate and the key in it do not"}},
		{"no key", map[string]string{"a.crt": cert}, []string{"a.crt"}, nil,
			[]string{"a.crt: the key to this certificate is missing: name it in POSTERN_TLS_KEY_FILE, which is not set, or append it to the file"}},
		{"a key too many", map[string]string{"a.pem": cert + k, "b.key": ok}, []string{"a.pem"}, []string{"b.key"},
			[]string{"b.key: the key belongs to none"}},
		{"encrypted", map[string]string{"a.pem": cert + encrypted, "b.pem": oldEncrypted + cert}, []string{"a.pem", "b.pem"}, nil,
			[]string{"a.pem: the key is encrypted", "b.pem: the key is encrypted"}},
		{"cut off", map[string]string{"a.pem": k + cert[:len(cert)-40]}, []string{"a.pem"}, nil,
			[]string{"a.pem: a PEM block is broken"}},
		{"first block broken", map[string]string{"a.pem": k + strings.Replace(cert, "M", "*", 1) + cert}, []string{"a.pem"}, nil,
			[]string{"a.pem: a PEM block is broken"}},
		{"no certificate's DER", map[string]string{"a.pem": k + block("CERTIFICATE", []byte("x"))}, []string{"a.pem"}, nil,
			[]string{"a.pem: the certificate cannot be read ("}},
		{"no key's DER", map[string]string{"a.pem": block("EC PRIVATE KEY", []byte("x")) + cert}, []string{"a.pem"}, nil,
			[]string{"a.pem: the private key cannot be read"}},
		{"key type", map[string]string{"a.pem": keyPEM(t, p224) + certPEM(t, p224, template("a"))}, []string{"a.pem"}, nil,
			[]string{"a.pem: the key is of a type"}},
		{"key type of the certificate", map[string]string{"a.pem": certPEM(t, p224, template("a"))}, []string{"a.pem"}, nil,
			[]string{"a.pem: the key is of a type"}},
		{"order", map[string]string{"a.pem": otherCert + cert, "a.key": k}, []string{"a.pem"}, []string{"a.key"},
			[]string{"a.pem: the server's own certificate must come first"}},
		{"too large", map[string]string{"a.pem": strings.Repeat("x", maxFile+1)}, []string{"a.pem"}, nil,
			[]string{"a.pem: larger than any certificate: name the file that holds it alone"}},
		{"directory as a key", map[string]string{"a.crt": cert, "d/a.key": k}, []string{"a.crt"}, []string{"d"},
			[]string{"d: is a directory"}},
		{"empty directory", map[string]string{"d/.keep": ""}, []string{"d"}, nil,
			[]string{"d: no certificate with its key"}},
		{"directory of chains", map[string]string{"d/ca.pem": cert, "d/x/b.pem": cert}, []string{"d"}, nil,
			[]string{"d/ca.pem: none of the keys belongs to this certificate: put its key into the directory", "d/x/b.pem: none of the keys belongs to this certificate: put its key into the directory"}},
		{"directory of another form", map[string]string{"d/a.cer": der(cert), "d/a.key": k}, []string{"d"}, nil,
			[]string{"d/a.cer: it is DER"}},
		{"broken in a directory", map[string]string{"d/a.pem": k + cert[:len(cert)-40]}, []string{"d"}, nil,
			[]string{"d/a.pem: a PEM block is broken"}},
		{"link to nowhere alone in a directory", map[string]string{"d/a.pem": "->/nowhere/a.pem"}, []string{"d"}, nil,
			[]string{"d/a.pem: no such file or directory: it is a link to /nowhere/a.pem, which is not there"}},
		{"DER", map[string]string{"a.crt": der(cert), "a.key": der(k)}, []string{"a.crt"}, []string{"a.key"},
			[]string{"a.crt: it is DER, not PEM: openssl x509", "a.key: it is DER, not PEM: openssl pkey"}},
		{"PKCS #12", map[string]string{"a.p12": "\x30\x05\x02\x01\x03\x30\x00"}, []string{"a.p12"}, nil, []string{"a.p12: it is PKCS #12"}},
		{"PKCS #7", map[string]string{"a.p7b": "\x30\x0b\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x07\x02", "b.p7b": block("PKCS7", []byte{1})},
			[]string{"a.p7b", "b.p7b"}, nil, []string{"a.p7b: it is PKCS #7", "b.p7b: it holds PKCS #7"}},
		{"a request", map[string]string{"a.pem": block("CERTIFICATE REQUEST", []byte{1})}, []string{"a.pem"}, nil,
			[]string{"a.pem: it holds a certificate request"}},
		{"indented", map[string]string{"a.pem": strings.ReplaceAll(cert, "\n", "\n  ")[:40], "b.pem": "  " + cert}, []string{"b.pem"}, nil,
			[]string{"b.pem: blanks stand before -----BEGIN"}},
		{"Dovecot's way of writing", nil, []string{"<a.pem"}, nil, []string{"<a.pem: no such file"}},
		{"three levels", map[string]string{"d/a/b/a.pem": k + cert}, []string{"d"}, nil,
			[]string{"d: no certificate with its key"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			d := newTree(t)
			for name, text := range test.files {
				d.putOrLink(name, text)
			}
			s, err := Load(d.paths(test.certs), d.paths(test.keys))
			if err == nil || s != nil {
				t.Fatalf("Load: %v, %v; want an error", s, err)
			}
			got := strings.Split(strings.ReplaceAll(err.Error(), d.dir+string(filepath.Separator), ""), "\n")
			if len(got) != len(test.want) {
				t.Fatalf("problems:\n%s\nwant %d", strings.Join(got, "\n"), len(test.want))
			}
			for _, want := range test.want {
				if !containsPrefix(got, want) {
					t.Errorf("no %q in:\n%s", want, strings.Join(got, "\n"))
				}
			}
		})
	}
}

// TestStraysInADirectoryAreWarnings: each case is files beside a pair for
// mail.example.org, which is served all the same.
func TestStraysInADirectoryAreWarnings(t *testing.T) {
	key, other := newKey(t), newKey(t)
	cert, k := certPEM(t, key, template("mail.example.org")), keyPEM(t, key)
	otherCert, ok := certPEM(t, other, template("other.example.org")), keyPEM(t, other)
	encrypted, third := block("ENCRYPTED PRIVATE KEY", []byte{1}), keyPEM(t, newKey(t))
	for name, test := range map[string]struct {
		files map[string]string
		want  []string
	}{
		"nothing":            {nil, nil},
		"what belongs there": {map[string]string{"README": "text", "..data/tls.key": "x", "ca.crt": "", "sub/deep/a.pem": otherCert}, nil},
		"old key":            {map[string]string{"mail.key.bak": ok}, []string{"mail.key.bak: the key belongs to none"}},
		"dangling link":      {map[string]string{"old.pem": "->/nowhere/old.pem"}, []string{"old.pem: no such file or directory: it is a link to"}},
		"loop":               {map[string]string{"loop": "->loop"}, []string{"loop: too many levels"}},
		"half a file":        {map[string]string{"b.pem": otherCert[:99]}, []string{"b.pem: a PEM block is broken"}},
		"encrypted":          {map[string]string{"b.key": encrypted}, []string{"b.key: the key is encrypted"}},
		"key lost below":     {map[string]string{"b/b.pem": otherCert, "b/b.key": ""}, []string{"b/b.pem: none of the keys belongs to this certificate: put its key into"}},
		"DER":                {map[string]string{"b.cer": der(otherCert)}, []string{"b.cer: it is DER"}},
		"mixed up":           {map[string]string{"b.pem": otherCert + third}, []string{"b.pem: the certificate and the key in it do not"}},
	} {
		t.Run(name, func(t *testing.T) {
			d := newTree(t)
			d.put("d/mail.pem", cert, k)
			for name, text := range test.files {
				d.putOrLink("d/"+name, text)
			}
			s := mustLoad(t, []string{d.path("d")}, nil)
			got := s.Warnings(time.Now())
			if len(got) != len(test.want) {
				t.Fatalf("warnings %q, want %q", got, test.want)
			}
			for i, want := range test.want {
				if !strings.HasPrefix(got[i], d.path("d/"+want)) {
					t.Errorf("warning %q, want %q", got[i], want)
				}
			}
			if serves(s, "mail.example.org", 0) != "mail.pem" {
				t.Error("the pair is not served")
			}
		})
	}
}

// der is what a PEM block holds.
func der(text string) string {
	block, _ := pem.Decode([]byte(text))
	return string(block.Bytes)
}

func containsPrefix(list []string, prefix string) bool {
	for _, s := range list {
		if strings.HasPrefix(s, prefix) {
			return true
		}
	}
	return false
}

func (d tree) paths(names []string) []string {
	var paths []string
	for _, name := range names {
		paths = append(paths, d.path(name))
	}
	return paths
}
