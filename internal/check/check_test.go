package check

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"postern/internal/config"
	"postern/internal/posterntest"
)

// environ is one that is right, but for what set, as NAME=value, changes.
func environ(t *testing.T, set ...string) []string {
	t.Helper()
	ca := posterntest.NewCA(t)
	pair := ca.Issue(t, posterntest.DefaultNames, posterntest.RSA)
	values := map[string]string{
		"TLS_CERT_FILE": longLived(t, testKey(t)), "TLS_KEY_FILE": "",
		"UPSTREAM_IMAP": "imap://127.0.0.1:1", "LISTEN_IMAPS": "127.0.0.1:0", "LISTEN_IMAP": "127.0.0.1:0",
		"LISTEN_POP3S": "127.0.0.1:0", "LISTEN_POP3": "127.0.0.1:0", "ADMIN_LISTEN": "127.0.0.1:0",
	}
	for _, s := range set {
		name, value, _ := strings.Cut(s, "=")
		value = strings.NewReplacer("$CA", ca.File, "$CERT", pair.CertFile, "$KEY", pair.KeyFile).Replace(value)
		values[name] = value
	}
	for _, protocol := range []string{"IMAP", "POP3"} {
		if values["UPSTREAM_"+protocol] == "" {
			delete(values, "LISTEN_"+protocol)
			delete(values, "LISTEN_"+protocol+"S")
		}
	}
	var env []string
	for name, value := range values {
		env = append(env, "POSTERN_"+name+"="+value)
	}
	return env
}

func testKey(t *testing.T) crypto.Signer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// longLived writes a certificate and its key for the next hundred days.
func longLived(t *testing.T, key crypto.Signer, change ...func(*x509.Certificate)) string {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "mail"}, DNSNames: []string{"mail.example.org"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(0, 0, 100),
	}
	issuer := template
	for _, c := range change {
		c(template)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, issuer, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	text := append(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})...)
	path := filepath.Join(t.TempDir(), "pair.pem")
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// expectLine fails the test unless one of the lines holds all the parts.
func expectLine(t *testing.T, what string, lines []string, parts ...string) {
	t.Helper()
	if !slices.ContainsFunc(lines, func(line string) bool {
		return !slices.ContainsFunc(parts, func(part string) bool { return !strings.Contains(line, part) })
	}) {
		t.Errorf("no %s with %q in:\n%s", what, parts, strings.Join(lines, "\n"))
	}
}

func TestARightConfigurationIsFine(t *testing.T) {
	r := Run(t.Context(), environ(t), true)
	if len(r.Errors)+len(r.Unanswered)+len(r.Warnings) > 0 || len(r.Fine) != 1 {
		t.Errorf("%+v", r)
	}
	expectLine(t, "line", r.Fine, "pair.pem: valid until ")
}

func TestEverythingIsReportedAtOnce(t *testing.T) {
	dir := t.TempDir()
	keys := filepath.Join(dir, "tickets")
	if err := os.WriteFile(keys, []byte("c2hvcnQ=\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	r := Run(t.Context(), environ(t, "TIMEOUT_IDLE=soon", "NONSENSE=1", "TLS_CERT_FILE="+dir+"/none.pem",
		"TLS_CLIENT_CA_FILE="+dir+"/noca.pem", "TLS_TICKET_KEYS_FILE="+keys, "ADMIN_TLS_CERT_FILE=$CERT",
		"UPSTREAM_IMAP=imaps://127.0.0.1:1", "UPSTREAM_CA_FILE=$KEY", "LISTEN_IMAPS=192.0.2.1:0"), false)
	for _, want := range []string{
		"POSTERN_TIMEOUT_IDLE: ", "POSTERN_NONSENSE: ", dir + "/none.pem: no such file", dir + "/noca.pem: no such file",
		keys + ":1: 5 bytes, not 32", "rsa.crt: the key to this certificate is missing", "rsa.key: no certificate in it", "POSTERN_LISTEN_IMAPS: 192.0.2.1:0 is not an address",
	} {
		expectLine(t, "error", r.Errors, want)
	}
	if len(r.Errors) != 8 {
		t.Errorf("%d errors:\n%s", len(r.Errors), strings.Join(r.Errors, "\n"))
	}
	expectLine(t, "failure", r.Unanswered, "imaps://127.0.0.1:1: not asked")
	if len(r.Warnings) > 0 {
		t.Errorf("warnings: %q", r.Warnings)
	}
}

func TestABadTokenFileIsReported(t *testing.T) {
	const secret = "hunter2hunter2"
	short, good := filepath.Join(t.TempDir(), "short"), filepath.Join(t.TempDir(), "good")
	for name, text := range map[string]string{short: secret, good: secret + secret} {
		if err := os.WriteFile(name, []byte(text+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	r := Run(t.Context(), environ(t, "ADMIN_TOKEN_FILE="+short), true)
	expectLine(t, "error", r.Errors, "POSTERN_ADMIN_TOKEN_FILE: "+short+": the token has 14 bytes, 16 are the least")
	if all := fmt.Sprint(r); strings.Contains(all, secret) || len(r.Errors) != 1 {
		t.Errorf("%s", all)
	}
	r = Run(t.Context(), environ(t, "ADMIN_TOKEN_FILE="+good, "ADMIN_LISTEN=:0"), true)
	expectLine(t, "warning", r.Warnings, "POSTERN_ADMIN_TOKEN_FILE: the token comes unencrypted")
	r = Run(t.Context(), environ(t, "ADMIN_LISTEN=:0"), true)
	expectLine(t, "line", r.Fine, "POSTERN_ADMIN_LISTEN: not on loopback, so page and API are off")
	if len(r.Errors)+len(r.Warnings) > 0 {
		t.Errorf("%+v", r)
	}
}

// lifetime gives a certificate so many days, of which so many are left.
func lifetime(days, left int) func(*x509.Certificate) {
	return func(c *x509.Certificate) {
		c.NotAfter = time.Now().Add(time.Duration(left)*24*time.Hour + time.Hour)
		c.NotBefore = c.NotAfter.Add(time.Duration(-days) * 24 * time.Hour)
	}
}

func TestCertificatesThatClientsRefuse(t *testing.T) {
	weak, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	for name, test := range map[string]struct {
		key     crypto.Signer
		change  func(*x509.Certificate)
		mode    string
		err     string
		warning string
	}{
		"expired":                        {change: func(c *x509.Certificate) { c.NotAfter = now.Add(-time.Minute) }, err: "the certificate has expired at "},
		"early":                          {change: func(c *x509.Certificate) { c.NotBefore = now.Add(time.Hour) }, err: "the certificate is not valid before "},
		"soon":                           {change: lifetime(398, 20), warning: ", in 20 days"},
		"not soon":                       {change: lifetime(398, 22)},
		"45 days to be renewed now":      {change: lifetime(45, 15)},
		"45 days was not renewed":        {change: lifetime(45, 8), warning: ", in 8 days"},
		"90 days to be renewed for long": {change: lifetime(90, 19)},
		"6 days was not renewed":         {change: lifetime(6, 1), warning: ", in 24 hours"},
		"no name":                        {change: func(c *x509.Certificate) { c.DNSNames = nil }, warning: "the certificate has no host name in it"},
		"weak key":                       {key: weak, warning: "an RSA key of 1024 bits: clients refuse fewer than 2048"},
		"observe":                        {mode: "observe", warning: "POSTERN_TLS_CERT_FILE: no RSA certificate"},
		"explain":                        {mode: "explain", warning: "mode explain will refuse most of them"},
		"enforce":                        {mode: "enforce"},
	} {
		t.Run(name, func(t *testing.T) {
			if test.key == nil {
				test.key = testKey(t)
			}
			if test.change == nil {
				test.change = func(*x509.Certificate) {}
			}
			if test.mode == "" {
				test.mode = "enforce"
			}
			r := Run(t.Context(), environ(t, "TLS_CERT_FILE="+longLived(t, test.key, test.change), "POLICY_MODE="+test.mode,
				"LEDGER_URL=sqlite:"+t.TempDir()+"/ledger.db"), true)
			one := func(what string, got []string, want string) {
				if want == "" && len(got) > 0 || want != "" && len(got) != 1 {
					t.Errorf("%s: %q, want %q", what, got, want)
				}
				if want != "" {
					expectLine(t, what, got, want)
				}
			}
			one("error", r.Errors, test.err)
			one("warning", r.Warnings, test.warning)
		})
	}
}

func TestAMissingIssuerIsWarnedOf(t *testing.T) {
	// A public CA says where its own certificate is; a private one does not.
	missingIssuer(t, []string{"http://ca.example.org/issuer.der"}, "most mail programs will not trust it")
	missingIssuer(t, nil, "fine only if clients have that as a root")
}

func missingIssuer(t *testing.T, urls []string, words string) {
	t.Helper()
	caKey, key := testKey(t), testKey(t)
	ca := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Public CA"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(0, 0, 100)}
	leaf := &x509.Certificate{SerialNumber: big.NewInt(2), DNSNames: []string{"mail.example.org"}, NotBefore: ca.NotBefore, NotAfter: ca.NotAfter,
		IssuingCertificateURL: urls}
	var chain []byte
	caDER, err := x509.CreateCertificate(rand.Reader, ca, ca, caKey.Public(), caKey)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, leaf, ca, key.Public(), caKey)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "mail.pem")
	for _, block := range []*pem.Block{{Type: "PRIVATE KEY", Bytes: keyDER}, {Type: "CERTIFICATE", Bytes: der}} {
		chain = append(chain, pem.EncodeToMemory(block)...)
	}
	look := func() *Report {
		if err := os.WriteFile(path, chain, 0o600); err != nil {
			t.Fatal(err)
		}
		return Run(t.Context(), environ(t, "TLS_CERT_FILE="+path), true)
	}
	expectLine(t, "warning", look().Warnings, "mail.pem: the certificate of its issuer (Public CA) is not in it: "+words)
	if n := len(look().Warnings); n != 1 {
		t.Errorf("%d warnings", n)
	}
	chain = append(chain, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: caDER})...)
	if r := look(); len(r.Warnings)+len(r.Errors) > 0 {
		t.Errorf("with the issuer: %+v", r)
	}
}

func TestAPortThatIsTakenIsAWarning(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	r := Run(t.Context(), environ(t, "ADMIN_LISTEN="+l.Addr().String()), true)
	if len(r.Errors) > 0 || len(r.Warnings) != 1 {
		t.Errorf("%+v", r)
	}
	expectLine(t, "warning", r.Warnings, fmt.Sprintf("POSTERN_ADMIN_LISTEN: %s is in use", l.Addr()))
}

// check opens the ledger's store before an instance needs it.
func TestALedgerThatCannotBeWritten(t *testing.T) {
	dir := t.TempDir()
	for url, want := range map[string]struct{ problem, warning string }{
		"sqlite:" + dir + "/ledger.db":            {},
		"sqlite:" + dir + "/missing/ledger.db":    {problem: "POSTERN_LEDGER_URL: " + dir + "/missing: no such file or directory: the ledger cannot be made there"},
		"sqlite:" + filepath.Dir(dir):             {problem: "POSTERN_LEDGER_URL: " + filepath.Dir(dir) + " is not a file"},
		"postgres://u:hunter2@127.0.0.1:1/ledger": {warning: "POSTERN_LEDGER_URL: opening the ledger postgres://u:xxxxx@127.0.0.1:1/ledger: "},
	} {
		r := &Report{}
		r.ledger(t.Context(), &config.Config{LedgerURL: url}, false)
		if got := strings.Join(r.Errors, "\n"); got != want.problem {
			t.Errorf("%s: %q, want %q", url, got, want.problem)
		}
		if got := strings.Join(r.Warnings, "\n"); !strings.HasPrefix(got, want.warning) || want.warning == "" && got != "" || strings.Contains(got, "hunter2") {
			t.Errorf("%s: warning %q, want %q", url, got, want.warning)
		}
		offline := &Report{}
		offline.ledger(t.Context(), &config.Config{LedgerURL: url}, true)
		if len(offline.Warnings) != 0 {
			t.Errorf("%s: offline, and yet %q", url, offline.Warnings)
		}
	}
}
