package check

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"database/sql"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"postern/internal/config"
	"postern/internal/ledger"
	"postern/internal/posterntest"
	"postern/internal/postgrestest"
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

// nobody runs.
func nobody(context.Context, *config.Config) string { return "" }

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
	r := Run(t.Context(), environ(t), true, nobody)
	if len(r.Errors)+len(r.Unanswered)+len(r.Warnings) > 0 || len(r.Fine) != 1 {
		t.Errorf("%+v", r)
	}
	expectLine(t, "line", r.Fine, "pair.pem: valid until ")
}

func TestAFileOfPatternsIsReported(t *testing.T) {
	good, bad := filepath.Join(t.TempDir(), "good"), filepath.Join(t.TempDir(), "bad")
	for name, text := range map[string]string{good: "imaps 1 X\tscanner\nimaps 2 X\t?\n", bad: "# Read this\nplease.\nNow.\n"} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	r := Run(t.Context(), environ(t, "PROGRAMS_FILE="+good), true, nobody)
	expectLine(t, "line", r.Fine, good+": 1 pattern with names")
	r = Run(t.Context(), environ(t, "PROGRAMS_FILE="+bad), true, nobody)
	if expectLine(t, "error", r.Errors, bad+":2: POSTERN_PROGRAMS_FILE: it is not a file of patterns"); len(r.Errors) != 1 {
		t.Errorf("errors: %q", r.Errors)
	}
}

func TestEverythingIsReportedAtOnce(t *testing.T) {
	dir := t.TempDir()
	keys := filepath.Join(dir, "tickets")
	if err := os.WriteFile(keys, []byte("c2hvcnQ=\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	r := Run(t.Context(), environ(t, "TIMEOUT_IDLE=soon", "NONSENSE=1", "TLS_CERT_FILE="+dir+"/none.pem",
		"TLS_CLIENT_CA_FILE="+dir+"/noca.pem", "TLS_TICKET_KEYS_FILE="+keys, "ADMIN_TLS_CERT_FILE=$CERT",
		"UPSTREAM_IMAP=imaps://127.0.0.1:1", "UPSTREAM_CA_FILE=$KEY", "LISTEN_IMAPS=192.0.2.1:0"), false, nobody)
	for _, want := range []string{
		"POSTERN_TIMEOUT_IDLE: ", "POSTERN_NONSENSE: ", dir + "/none.pem: no such file", dir + "/noca.pem: no such file",
		keys + ":1: 5 bytes, not 32", "rsa.crt: the key to this certificate is missing", "rsa.key: no certificate in it", "POSTERN_LISTEN_IMAPS: 192.0.2.1:0 is not an address",
	} {
		expectLine(t, "error", r.Errors, want)
	}
	if len(r.Errors) != 8 {
		t.Errorf("%d errors:\n%s", len(r.Errors), strings.Join(r.Errors, "\n"))
	}
	expectLine(t, "failure", r.Unanswered, "POSTERN_UPSTREAM_IMAP: imaps://127.0.0.1:1: not asked")
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
	r := Run(t.Context(), environ(t, "ADMIN_TOKEN_FILE="+short), true, nobody)
	expectLine(t, "error", r.Errors, "POSTERN_ADMIN_TOKEN_FILE: "+short+": the token has 14 bytes, 16 are the least")
	if all := fmt.Sprint(r); strings.Contains(all, secret) || len(r.Errors) != 1 {
		t.Errorf("%s", all)
	}
	r = Run(t.Context(), environ(t, "ADMIN_TOKEN_FILE="+good, "ADMIN_LISTEN=:0"), true, nobody)
	expectLine(t, "warning", r.Warnings, "POSTERN_ADMIN_TOKEN_FILE: the token comes unencrypted")
	r = Run(t.Context(), environ(t, "ADMIN_LISTEN=:0"), true, nobody)
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
		invalid string
		warning string
	}{
		"expired":                        {change: func(c *x509.Certificate) { c.NotAfter = now.Add(-time.Minute) }, invalid: ", and clients refuse it: renew it"},
		"early":                          {change: func(c *x509.Certificate) { c.NotBefore = now.Add(time.Hour) }, invalid: "the certificate is not valid before "},
		"soon":                           {change: lifetime(398, 20), warning: ", in 20 days"},
		"not soon":                       {change: lifetime(398, 22)},
		"45 days to be renewed now":      {change: lifetime(45, 15)},
		"45 days was not renewed":        {change: lifetime(45, 8), warning: ", in 8 days"},
		"90 days to be renewed for long": {change: lifetime(90, 19)},
		"6 days was not renewed":         {change: lifetime(6, 1), warning: ", in 24 hours"},
		"no name":                        {change: func(c *x509.Certificate) { c.DNSNames = nil }, warning: "the certificate has no host name in it: have one issued with a subjectAltName"},
		"name where none looks":          {change: func(c *x509.Certificate) { c.DNSNames, c.Subject.CommonName = nil, "mail.example.org" }, warning: "the host name is in the common name alone"},
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
				"LEDGER_URL=sqlite:"+t.TempDir()+"/ledger.db", "LEDGER_IDENTITY=off"), true, nobody)
			one := func(what string, got []string, want string) {
				if want == "" && len(got) > 0 || want != "" && len(got) != 1 {
					t.Errorf("%s: %q, want %q", what, got, want)
				}
				if want != "" {
					expectLine(t, what, got, want)
				}
			}
			one("error", r.Errors, "")
			one("invalid", r.Invalid, test.invalid)
			one("warning", r.Warnings, test.warning)
		})
	}
}

func TestAReloadIsAboutFilesAlone(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	env := environ(t, "LISTEN_IMAPS="+taken.Addr().String(), "UPSTREAM_IMAP=imap://"+taken.Addr().String(), "LOG_LEVEL=loud",
		"TLS_CERT_FILE="+longLived(t, testKey(t), func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) }))
	r := Reload(env, "")
	if len(r.Errors) > 0 {
		t.Errorf("errors: %q", r.Errors)
	}
	expectLine(t, "warning", r.Warnings, "has expired at")
	expectLine(t, "warning", r.Warnings, "POSTERN_LOG_LEVEL")
	expectLine(t, "note", r.Notes, "where you have changed one, restart Postern")
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte("short\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	expectLine(t, "error", Reload(append(env, "POSTERN_ADMIN_TOKEN_FILE="+token), "").Errors, token)
}

// TestAFileIsComplainedOfOnce: neither of one that cannot be read, nor of a key whose
// certificate is not named, is there more than one error.
func TestAFileIsComplainedOfOnce(t *testing.T) {
	for name, env := range map[string][]string{
		"a CA":                environ(t, "TLS_CLIENT_CA_FILE=/nowhere/ca.pem"),
		"an upstream's CA":    environ(t, "UPSTREAM_CA_FILE=/nowhere/ca.pem"),
		"a key":               {"POSTERN_UPSTREAM_IMAP=imap://127.0.0.1:1", "POSTERN_TLS_KEY_FILE=/nowhere/key.pem"},
		"an admin port's key": environ(t, "ADMIN_TLS_KEY_FILE=/nowhere/key.pem"),
		"a key of hashes":     environ(t, "LEDGER_IDENTITY=hashed", "LEDGER_IDENTITY_KEY_FILE=/nowhere/key"),
	} {
		r := Reload(env, "")
		var said []string
		for _, line := range slices.Concat(r.Errors, r.Warnings) {
			if strings.Contains(line, "/nowhere/") || strings.Contains(line, "_CERT_FILE: ") || strings.Contains(line, "KEY_FILE: ") {
				said = append(said, line)
			}
		}
		if len(said) != 1 {
			t.Errorf("%s: %q", name, said)
		}
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
		return Run(t.Context(), environ(t, "TLS_CERT_FILE="+path), true, nobody)
	}
	expectLine(t, "warning", look().Warnings, "mail.pem: the certificate of its issuer (Public CA) is not in it: "+words)
	if n := len(look().Warnings); n != 1 {
		t.Errorf("%d warnings", n)
	}
	full := filepath.Join(filepath.Dir(path), "fullchain.pem")
	alone := chain
	chain = append(chain, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: caDER})...)
	if err := os.WriteFile(full, chain, 0o600); err != nil {
		t.Fatal(err)
	}
	chain, alone = alone, chain
	expectLine(t, "warning", look().Warnings, "(Public CA) is not in it: name "+full+", which has it")
	chain = alone
	if r := look(); len(r.Warnings)+len(r.Errors) > 0 {
		t.Errorf("with the issuer: %+v", r)
	}
}

func TestAPortThatIsTaken(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	self, err := os.ReadFile("/proc/self/comm")
	if err != nil {
		t.Fatal(err)
	}
	r := Run(t.Context(), environ(t, "ADMIN_LISTEN="+l.Addr().String()), true, nobody)
	expectLine(t, "error", r.Errors, "POSTERN_ADMIN_LISTEN: "+l.Addr().String()+": address already in use", strings.TrimSpace(string(self)), "deploy/dovecot.conf")
	if len(r.Errors) != 1 || len(r.Warnings) > 0 {
		t.Errorf("%+v", r)
	}
}

func TestAPortThatThisUserMayNotBindOrDoesNotKnowTheHolderOf(t *testing.T) {
	const addr = "192.0.2.1:993" // nobody holds it, so that there is no name
	yes, no := func(string) bool { return true }, func(string) bool { return false }
	for name, test := range map[string]struct {
		err           syscall.Errno
		offline       bool
		ours          func(string) bool
		held          bool
		error, warned string
	}{
		"may not":                 {err: syscall.EACCES, ours: no, warned: "needs CAP_NET_BIND_SERVICE"},
		"beside a Postern":        {err: syscall.EADDRINUSE, ours: yes, held: true},
		"beside something else":   {err: syscall.EADDRINUSE, ours: no, error: "already in use by another program"},
		"not asked, with offline": {err: syscall.EADDRINUSE, offline: true, ours: yes, warned: "is in use"},
	} {
		r := &Report{}
		if held := r.heldByPostern("POSTERN_LISTEN_IMAPS", addr, os.NewSyscallError("bind", test.err), test.offline, test.ours); held != test.held {
			t.Errorf("%s: held %v", name, held)
		}
		if got := strings.Join(r.Errors, "\n"); !strings.Contains(got, test.error) || test.error == "" && got != "" {
			t.Errorf("%s: error %q", name, got)
		}
		if got := strings.Join(r.Warnings, "\n"); !strings.Contains(got, test.warned) || test.warned == "" && got != "" {
			t.Errorf("%s: warning %q", name, got)
		}
	}
}

func TestAnUpstreamThatIsPosternItself(t *testing.T) {
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	for set, want := range map[string]string{
		"UPSTREAM_IMAP=imap://127.0.0.1:20143": "", "UPSTREAM_IMAP=imap://127.0.0.2:10143": "LISTEN_IMAP", "UPSTREAM_IMAP=imap://localhost:10143": "LISTEN_IMAP",
		"UPSTREAM_IMAP=imap://[::1]:10143": "LISTEN_IMAP", "UPSTREAM_IMAP=imaps://127.0.0.1:10993": "LISTEN_IMAPS", "UPSTREAM_IMAP=imaps://127.0.0.2:10993": "",
		"UPSTREAM_IMAP=imap://192.0.2.7:10143": "", "UPSTREAM_PASSTHROUGH_IMAPS=127.0.0.1:10993": "LISTEN_IMAPS", "UPSTREAM_IMAP=imap://" + host + ":10143": "LISTEN_IMAP",
	} {
		cfg, problems := config.Inspect(environ(t, "LISTEN_IMAP=:10143", "LISTEN_IMAPS=127.0.0.1:10993", set))
		r := &Report{Errors: problems}
		r.own(t.Context(), cfg, false)
		if got := strings.Join(r.Errors, "\n"); (got != "") != (want != "") || !strings.Contains(got, want) {
			t.Errorf("%s: %q, want %q", set, got, want)
		}
	}
}

// check tries what an instance would do with its ledger.
func TestALedgerThatCannotBeWritten(t *testing.T) {
	dir := t.TempDir()
	noise := filepath.Join(dir, "noise.db")
	if err := os.WriteFile(noise, bytes.Repeat([]byte("noise..."), 1024), 0o600); err != nil {
		t.Fatal(err)
	}
	kept := filepath.Join(dir, "kept.db")
	store, err := ledger.Open(t.Context(), "sqlite:"+kept)
	if err != nil {
		t.Fatal(err)
	}
	store.Close()
	contents := func() (all string) {
		list, _ := os.ReadDir(dir)
		for _, e := range list {
			b, _ := os.ReadFile(filepath.Join(dir, e.Name()))
			all += fmt.Sprintf("%s %x\n", e.Name(), sha256.Sum256(b))
		}
		return all
	}
	before := contents()
	for url, want := range map[string]struct{ problem, warning string }{
		"sqlite:" + dir + "/ledger.db":            {},
		"sqlite:" + kept:                          {},
		"sqlite:" + noise:                         {problem: "the file is no SQLite database"},
		"sqlite:" + dir + "/missing/ledger.db":    {problem: "its folder is not there: make it"},
		"sqlite:" + dir:                           {problem: dir + ": is a directory"},
		"postgres://u:hunter2@127.0.0.1:1/ledger": {warning: "the ledger's database does not answer"},
	} {
		r := &Report{}
		r.ledger(t.Context(), &config.Config{LedgerURL: url}, false)
		for what, part := range map[string]struct {
			got  []string
			want string
		}{"error": {r.Errors, want.problem}, "warning": {r.Warnings, want.warning}} {
			if part.want == "" && len(part.got) > 0 || len(part.got) > 1 || strings.Contains(fmt.Sprint(part.got), "hunter2") {
				t.Errorf("%s: %s %q", url, what, part.got)
			}
			if part.want != "" {
				expectLine(t, what, part.got, "POSTERN_LEDGER_URL: ", part.want)
			}
		}
		offline := &Report{}
		offline.ledger(t.Context(), &config.Config{LedgerURL: url}, true)
		if len(offline.Warnings) != 0 {
			t.Errorf("%s: offline, and yet %q", url, offline.Warnings)
		}
	}
	if after := contents(); after != before {
		t.Errorf("the files were\n%snow they are\n%s", before, after)
	}
}

func TestADatabaseThatMayNotBeUsed(t *testing.T) {
	server := postgrestest.New(t)
	run := func(statements ...string) (url string) {
		url = server.NewDatabase(t)
		db, err := sql.Open("pgx", url)
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close()
		name := path.Base(strings.Split(url, "?")[0])
		for _, s := range statements {
			if _, err := db.Exec(strings.ReplaceAll(s, "$DB", `"`+name+`"`)); err != nil {
				t.Fatal(err)
			}
		}
		return url
	}
	look := func(url string) *Report {
		r := &Report{}
		r.ledger(t.Context(), &config.Config{LedgerURL: url}, false)
		return r
	}
	fine := run()
	if r := look(fine); len(r.Errors)+len(r.Warnings) > 0 {
		t.Errorf("%+v", r)
	}
	if _, err := ledger.OpenReadOnly(t.Context(), fine); err == nil {
		t.Error("check has left tables behind")
	}
	powerless := run("CREATE ROLE powerless LOGIN", "REVOKE CREATE ON SCHEMA public FROM PUBLIC")
	u, err := url.Parse(powerless)
	if err != nil {
		t.Fatal(err)
	}
	u.User = url.User("powerless")
	expectLine(t, "error", look(u.String()).Errors, "POSTERN_LEDGER_URL: ", "permission denied for schema public")
	readOnly := run("ALTER DATABASE $DB SET default_transaction_read_only = on")
	expectLine(t, "warning", look(readOnly).Warnings, "POSTERN_LEDGER_URL: ", "cannot be written now")
}
