package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"postern/internal/config"
	"postern/internal/gate"
	"postern/internal/mailbox"
	"postern/internal/policyfile"
	"postern/internal/report"
	"postern/internal/text"
)

// demoMail is the demo's world: a mail server, a certificate and a gate.
type demoMail struct {
	upstream *mailbox.Server
	dir      string
	cert     *demoCertificate
	gate     *gate.Runtime
	log      *demoLog
	addrs    map[string]string // by listener
	// mode is empty for the policy of demoPolicy.
	mode, floor string
}

func demo(ctx context.Context, sys system) int {
	fs := flag.NewFlagSet("demo", flag.ContinueOnError)
	once := fs.Bool("once", false, "leave after the table")
	mode := fs.String("mode", "", "what meets old clients everywhere: enforce, explain or observe; otherwise imaps and pop3s enforce, imap and pop3 observe")
	floor := fs.String("floor", "tls1.2", "the floor: tls1.2-compat, tls1.2, tls1.2-aead or tls1.3")
	if code, done := sys.parse(fs, demoHelp); done {
		return code
	}
	d, err := newDemo(ctx, *mode, *floor)
	if err != nil {
		sys.errorf("postern demo: %v", err)
		if errors.As(err, new(config.Problems)) || errors.As(err, new(policyfile.Problems)) {
			return exitUsage
		}
		return exitBroken
	}
	defer d.close()
	fmt.Fprintf(sys.stdout, "Postern in front of an embedded mail server, %s, floor %s.\n"+
		"One client of each generation knocks at each listener:\n\n", d.policyWords(), *floor)
	rows := d.visitAll()
	color := false
	if f, ok := sys.stdout.(*os.File); ok {
		color = text.ColorOK(f)
	}
	if err := text.WriteTable(sys.stdout, color, demoHeader, demoCells(rows)); err != nil {
		sys.errorf("postern demo: writing the table: %v", err)
		return exitBroken
	}
	code := demoVerdict(sys.stdout, rows)
	if !*once {
		d.tryIt(sys.stdout)
	}
	if err := d.report(ctx, sys.stdout); err != nil {
		sys.errorf("postern demo: making the report: %v", err)
		return exitBroken
	}
	if *once {
		return code
	}
	select {
	case <-sys.stop:
	case <-ctx.Done():
	}
	fmt.Fprintln(sys.stdout, "\nStopping.")
	return code
}

func demoHelp(w io.Writer) {
	fmt.Fprint(w, `postern demo shows the whole thing on loopback, with nothing to set up: an
embedded IMAP and POP3 server with a few messages, a throw-away certificate, a
policy, and one client of every TLS generation on every listener. It prints
what each of them met, and what log and counter said of it, and ends with the
report on who is left. It stays up until Ctrl-C. The exit code is 0 only where every row is what the policy says.

`)
}

// newDemo starts everything.
func newDemo(ctx context.Context, mode, floor string) (d *demoMail, err error) {
	d = &demoMail{log: &demoLog{}, addrs: make(map[string]string), mode: mode, floor: floor}
	defer func() {
		if err != nil {
			d.close()
		}
	}()
	if d.dir, err = os.MkdirTemp("", "postern-demo-"); err != nil {
		return d, err
	}
	if d.cert, err = writeDemoCertificate(d.dir); err != nil {
		return d, err
	}
	if d.upstream, err = mailbox.Start(ctx); err != nil {
		return d, err
	}
	environ := []string{
		"POSTERN_UPSTREAM_IMAP=imap://" + d.upstream.IMAPAddr(),
		"POSTERN_UPSTREAM_POP3=pop3://" + d.upstream.POP3Addr(),
		"POSTERN_TLS_CERT_FILE=" + filepath.Join(d.dir, "ecdsa.pem") + "," + filepath.Join(d.dir, "rsa.pem"),
		"POSTERN_LEDGER_IDENTITY=plain",
		"POSTERN_TIMEOUT_DRAIN=2s",
	}
	if mode != "" {
		environ = append(environ, "POSTERN_POLICY_MODE="+mode, "POSTERN_POLICY_FLOOR="+floor)
	} else {
		path := filepath.Join(d.dir, "policy.yaml")
		if err := os.WriteFile(path, fmt.Appendf(nil, demoPolicy, floor), 0o600); err != nil {
			return d, err
		}
		environ = append(environ, "POSTERN_POLICY_FILE="+path)
	}
	for _, p := range []struct {
		name, variable string
		port           int
	}{
		{"imaps", "LISTEN_IMAPS", 1993}, {"pop3s", "LISTEN_POP3S", 1995},
		{"imap", "LISTEN_IMAP", 1143}, {"pop3", "LISTEN_POP3", 1110}, {"admin", "ADMIN_LISTEN", 9993},
	} {
		addr, err := freeAddr(p.port)
		for err == nil && slices.Contains(slices.Collect(maps.Values(d.addrs)), addr) {
			addr, err = freeAddr(0)
		}
		if err != nil {
			return d, err
		}
		d.addrs[p.name] = addr
		environ = append(environ, "POSTERN_"+p.variable+"="+d.addrs[p.name])
	}
	cfg, err := config.Load(environ)
	if err != nil {
		return d, err
	}
	if d.gate, err = gate.New(cfg, buildInfo(), d.log, time.Now); err != nil {
		return d, err
	}
	d.gate.Start()
	return d, nil
}

// demoPolicy is the first step of a cut: the ports with TLS from the first byte
// enforce, those with STARTTLS still observe.
const demoPolicy = `floor: %q
mode: enforce
rules:
  - name: starttls may wait
    mode: observe
    match: {listener: [imap, pop3]}
`

// policyWords is the policy in a few words.
func (d *demoMail) policyWords() string {
	if d.mode != "" {
		return "mode " + d.mode
	}
	return "mode enforce on imaps and pop3s, observe on imap and pop3"
}

// report prints who is left, which is what it all is for.
func (d *demoMail) report(ctx context.Context, w io.Writer) error {
	if err := d.gate.FlushLedger(ctx); err != nil {
		return err
	}
	const since = 24 * time.Hour
	r, err := d.gate.Report(ctx, report.Options{Since: since})
	if err != nil {
		return err
	}
	fmt.Fprintln(w)
	return r.WriteText(w)
}

// freeAddr is the loopback address with that port, or with another one where
// it is taken.
func freeAddr(port int) (string, error) {
	for _, p := range []int{port, 0} {
		l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(p)))
		if err == nil {
			defer l.Close()
			return l.Addr().String(), nil
		}
		if p == 0 {
			return "", fmt.Errorf("finding a free port: %w", err)
		}
	}
	return "", nil
}

// close ends what newDemo started, as far as it came.
func (d *demoMail) close() {
	if d.gate != nil {
		d.gate.Stop(context.Background())
	}
	if d.upstream != nil {
		d.upstream.Close()
	}
	if d.dir != "" {
		os.RemoveAll(d.dir)
	}
}

// tryIt prints what to do next.
func (d *demoMail) tryIt(w io.Writer) {
	account := d.upstream.Accounts()[0]
	login := "LOGIN " + account.Name + " " + account.Password
	ca := filepath.Join(d.dir, caName)
	host, imaps, _ := strings.Cut(d.addrs["imaps"], ":")
	fmt.Fprintf(w, `
It is all still up; try it (Ctrl-C ends it):

  the counters
    curl -s http://%[1]s/metrics | grep ^postern_

  the mail, as a client of today reads it
    curl -sS --cacert %[2]s --user %[3]s:%[4]s 'imaps://localhost:%[5]s/INBOX;MAILINDEX=1'

  a client of 1999 (OpenSSL lets it out of the museum with SECLEVEL=0)
    openssl s_client -connect %[6]s:%[5]s -tls1 -cipher 'ALL:@SECLEVEL=0'

  a dialogue by hand: type  a %[7]s
    openssl s_client -quiet -crlf -connect %[8]s -starttls imap

  who is left, in a browser: http://%[1]s/
`, d.addrs["admin"], ca, account.Name, account.Password, imaps, host, login, d.addrs["imap"])
}
