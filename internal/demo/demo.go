// Package demo is `postern demo`: Postern in front of an embedded mail server,
// and a client of every TLS generation at every listener. Tests use [Client]
// and [MailServer] by themselves.
package demo

import (
	"cmp"
	"context"
	"crypto/x509"
	_ "embed"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"postern/internal/config"
	"postern/internal/gate"
	"postern/internal/handover"
	"postern/internal/report"
	"postern/internal/text"
	"postern/policy"
)

// Options are the options of the command line.
type Options struct {
	// Mode is for old clients on every listener. Empty means enforce on imaps
	// and pop3s, and observe on imap and pop3.
	Mode  string
	Floor policy.Floor
	// Once leaves after the report.
	Once  bool
	Build gate.Build
}

// stage is the proxy and mail server of the demo.
type stage struct {
	Options
	dir     string // with certificates and policy
	roots   *x509.CertPool
	mail    *MailServer
	postern *gate.Runtime
	log     legacyLog
	addrs   map[string]string // by listener
	moved   string            // which of them are not on their usual ports
}

// Run starts everything, has the clients visit it, and writes the results.
// Without Once it stays up until a signal arrives on stop or ctx ends. It reports
// whether everything was as the policy says.
func Run(ctx context.Context, o Options, w io.Writer, stop <-chan os.Signal) (right bool, err error) {
	s := &stage{Options: o, addrs: make(map[string]string)}
	defer s.close()
	if err := s.start(ctx); err != nil {
		return false, err
	}
	mode := cmp.Or(o.Mode, "enforce on imaps and pop3s, observe on imap and pop3")
	fmt.Fprintf(w, "Postern in front of an embedded mail server, mode %s, floor %s; SSL 2.0 and 3.0 are rejected in every mode.\n"+
		"One client of each generation knocks at each listener:\n\n", mode, o.Floor)
	rows := s.visitAll()
	if err := text.WriteTable(w, text.ColorOK(w), header, cells(rows)); err != nil {
		return false, fmt.Errorf("writing the table: %w", err)
	}
	right = sumUp(w, rows)
	if !o.Once {
		s.tryIt(w)
	}
	if err := s.report(ctx, w); err != nil {
		return false, fmt.Errorf("making the report: %w", err)
	}
	if o.Once {
		return right, nil
	}
	select {
	case <-stop:
	case <-ctx.Done():
	}
	fmt.Fprintln(w, "\nStopping.")
	return right, nil
}

func (s *stage) file(name string) string { return filepath.Join(s.dir, name) }

func (s *stage) start(ctx context.Context) (err error) {
	if s.dir, err = os.MkdirTemp("", "postern-demo-"); err != nil {
		return err
	}
	if s.roots, err = writeCertificates(s.file("ca.pem"), [2]string{s.file("ecdsa.pem"), s.file("rsa.pem")}); err != nil {
		return err
	}
	if s.mail, err = StartMail(ctx); err != nil {
		return err
	}
	environ, err := s.environ()
	if err != nil {
		return err
	}
	cfg, err := config.Load(environ)
	if err != nil {
		return err
	}
	if s.postern, err = gate.New(cfg, s.Build, handover.Given{}, &s.log, time.Now); err != nil {
		return err
	}
	s.postern.Start()
	return nil
}

// close stops whatever start has started.
func (s *stage) close() {
	if s.postern != nil {
		s.postern.Stop(context.Background())
	}
	if s.mail != nil {
		s.mail.Close()
	}
	if s.dir != "" {
		os.RemoveAll(s.dir)
	}
}

// firstStep is the policy of the first step of a cut: the ports with implicit
// TLS enforce, those with STARTTLS still observe.
const firstStep = `floor: %q
mode: enforce
rules:
  - name: starttls may wait
    mode: observe
    match: {listener: [imap, pop3]}
`

// environ writes the policy file, finds free ports, and returns the
// configuration.
func (s *stage) environ() ([]string, error) {
	environ := []string{
		"POSTERN_UPSTREAM_IMAP=imap://" + s.mail.IMAPAddr(),
		"POSTERN_UPSTREAM_POP3=pop3://" + s.mail.POP3Addr(),
		"POSTERN_TLS_CERT_FILE=" + s.file("ecdsa.pem") + "," + s.file("rsa.pem"),
		"POSTERN_LEDGER_IDENTITY=plain",
		"POSTERN_TIMEOUT_DRAIN=2s",
	}
	if s.Mode != "" {
		environ = append(environ, "POSTERN_POLICY_MODE="+s.Mode, "POSTERN_POLICY_FLOOR="+s.Floor.String())
	} else {
		if err := os.WriteFile(s.file("policy.yaml"), fmt.Appendf(nil, firstStep, s.Floor), 0o600); err != nil {
			return nil, err
		}
		environ = append(environ, "POSTERN_POLICY_FILE="+s.file("policy.yaml"))
	}
	for _, p := range []struct {
		name, variable string
		port           int
	}{
		{"imaps", "LISTEN_IMAPS", 1993}, {"pop3s", "LISTEN_POP3S", 1995},
		{"imap", "LISTEN_IMAP", 1143}, {"pop3", "LISTEN_POP3", 1110}, {"admin", "ADMIN_LISTEN", 9993},
	} {
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", p.port))
		if err != nil {
			if l, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
				return nil, fmt.Errorf("finding a free port: %w", err)
			}
			s.moved += fmt.Sprintf("\n  (port %d is taken here: %s is on %s)", p.port, p.name, l.Addr())
		}
		// All are open at once, so that no two are the same.
		defer l.Close()
		s.addrs[p.name] = l.Addr().String()
		environ = append(environ, "POSTERN_"+p.variable+"="+s.addrs[p.name])
	}
	return environ, nil
}

// report writes which clients remain.
func (s *stage) report(ctx context.Context, w io.Writer) error {
	if err := s.postern.FlushLedger(ctx); err != nil {
		return err
	}
	fmt.Fprintln(w)
	_, err := s.postern.Report(ctx, w, report.Query{Options: report.Options{Since: 24 * time.Hour}, Style: report.Style{Format: report.Text, Top: report.DefaultTop}})
	return err
}

//go:embed try.txt
var tryText string

// tryIt writes what to do next.
func (s *stage) tryIt(w io.Writer) {
	_, imaps, _ := strings.Cut(s.addrs["imaps"], ":")
	meets := map[string]string{"explain": "its last line says why", "observe": "it is let in, and counted"}[s.Mode]
	strings.NewReplacer(
		"{admin}", s.addrs["admin"], "{ca}", s.file("ca.pem"), "{account}", s.mail.Accounts()[0], "{password}", Password,
		"{imaps}", s.addrs["imaps"], "{imaps port}", imaps, "{meets}", cmp.Or(meets, "look for \"SSL alert number 70\""), "{moved}", s.moved,
	).WriteString(w, tryText)
}
