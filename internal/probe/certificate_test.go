package probe

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net"
	"strings"
	"testing"
	"time"
)

// issue makes a certificate with an ECDSA key, signed by itself where there is no issuer.
func issue(t *testing.T, name string, ca bool, end time.Time, issuer *x509.Certificate, by *ecdsa.PrivateKey) (*x509.Certificate, *ecdsa.PrivateKey) {
	t.Helper()
	return issueTo(t, name, []string{name}, ca, end, issuer, by)
}

// issueTo is issue with alternative names, or with the subject alone where there are none.
func issueTo(t *testing.T, name string, names []string, ca bool, end time.Time, issuer *x509.Certificate, by *ecdsa.PrivateKey) (*x509.Certificate, *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, DNSNames: names,
		NotBefore: end.Add(-48 * time.Hour), NotAfter: end, IsCA: ca, BasicConstraintsValid: true,
	}
	if len(names) > 0 {
		template.IPAddresses = []net.IP{net.IPv4(192, 0, 2, 1)}
	}
	if issuer == nil {
		issuer, by = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, issuer, key.Public(), by)
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return c, key
}

func TestWhatIsWrongWithAChainIsSaid(t *testing.T) {
	end := time.Now().Add(24 * time.Hour)
	root, rootKey := issue(t, "Root", true, end, nil, nil)
	intermediate, key := issue(t, "Intermediate", true, end, root, rootKey)
	leaf, _ := issue(t, "mail.example.org", false, end, intermediate, key)
	old, _ := issue(t, "mail.example.org", false, end.Add(-25*time.Hour), intermediate, key)
	namesake, _ := issue(t, "Intermediate", true, end, nil, nil)
	nameless, _ := issueTo(t, "mail.example.org", nil, false, end, intermediate, key)
	alone, _ := issue(t, "mail.example.org", false, end, nil, nil)
	for _, c := range []struct {
		name    string
		sni     string
		chain   [][]byte
		problem string
	}{
		{"whole", "mail.example.org", [][]byte{leaf.Raw, intermediate.Raw}, ""},
		{"whole with its root", "mail.example.org", [][]byte{leaf.Raw, intermediate.Raw, root.Raw}, ""},
		{"asked by address", "", [][]byte{leaf.Raw, intermediate.Raw}, ""},
		{"another name", "imap.example.org", [][]byte{leaf.Raw, intermediate.Raw}, "certificate is valid for mail.example.org, not imap.example.org"},
		{"without its issuer", "mail.example.org", [][]byte{leaf.Raw}, "the certificate of its issuer is not sent: CN=Intermediate"},
		{"with another's issuer", "mail.example.org", [][]byte{leaf.Raw, root.Raw}, "the certificate of its issuer is not sent: CN=Intermediate"},
		{"with one that has its issuer's name", "mail.example.org", [][]byte{leaf.Raw, namesake.Raw}, "certificate signed by unknown authority"},
		{"names its host in the subject alone", "mail.example.org", [][]byte{nameless.Raw, intermediate.Raw}, "certificate relies on legacy Common Name field, use SANs instead"},
		{"expired", "mail.example.org", [][]byte{old.Raw, intermediate.Raw}, "certificate has expired"},
		{"signed by itself", "mail.example.org", [][]byte{alone.Raw}, "it is signed by itself"},
		{"noise", "", [][]byte{[]byte("noise")}, "it cannot be read: "},
	} {
		l := &Listener{sni: c.sni}
		l.see(c.chain)
		l.see(c.chain)
		l.see(nil)
		if len(l.Chains) != 1 {
			t.Fatalf("%s: %d chains", c.name, len(l.Chains))
		}
		got := l.Chains[0]
		if got.Problem != c.problem && (c.problem == "" || !strings.Contains(got.Problem, c.problem)) {
			t.Errorf("%s: %q, want %q", c.name, got.Problem, c.problem)
		}
		if c.name == "whole" && (strings.Join(got.Names, " ") != "mail.example.org 192.0.2.1" || got.Key != "ECDSA P-256" || !got.NotAfter.Equal(leaf.NotAfter)) {
			t.Errorf("%+v", got)
		}
		begin := "certificate for mail.example.org, 192.0.2.1: ECDSA P-256, until "
		switch c.name {
		case "noise":
			begin = "certificate: it cannot be read: "
		case "names its host in the subject alone":
			begin = "certificate for CN=mail.example.org: ECDSA P-256, until "
		}
		if !strings.HasPrefix(got.String(), begin) {
			t.Errorf("%s: %q, want %q", c.name, got, begin)
		}
	}
}
