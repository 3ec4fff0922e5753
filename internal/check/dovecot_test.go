package check

import (
	"strings"
	"testing"

	"postern/internal/dovecot"
	"postern/internal/posterntest"
)

// What check says of a real Dovecot is what its clients would meet.
func TestARealDovecotWithAndWithoutAPROXYHeader(t *testing.T) {
	ca := posterntest.NewCA(t)
	pair := ca.Issue(t, []string{"127.0.0.1"}, posterntest.ECDSA)
	d := dovecot.Start(t, dovecot.Options{HAProxy: true, CertFile: pair.CertFile, KeyFile: pair.KeyFile})
	const words = "POSTERN_UPSTREAM_PROXY_PROTOCOL"
	for name, test := range map[string]struct{ imap, pop3, header, failure string }{
		"none":                {d.IMAP, d.POP3, "off", ""},
		"v1 as expected":      {d.ProxyIMAP, d.ProxyPOP3, "v1", ""},
		"v2 as expected":      {d.ProxyIMAP, d.ProxyPOP3, "v2", ""},
		"v1 and none wanted":  {d.IMAP, d.POP3, "v1", words},
		"v2 and none wanted":  {d.IMAP, d.POP3, "v2", words},
		"none and one wanted": {d.ProxyIMAP, d.ProxyPOP3, "off", words},
	} {
		t.Run(name, func(t *testing.T) {
			for protocol, addr := range map[string]string{"imap": test.imap, "pop3": test.pop3} {
				set := []string{"UPSTREAM_IMAP=", "UPSTREAM_" + strings.ToUpper(protocol) + "=" + protocol + "://" + addr,
					"UPSTREAM_PROXY_PROTOCOL=" + test.header, "UPSTREAM_TIMEOUT=5s"}
				r := Run(t.Context(), environ(t, set...), false, nobody)
				if test.failure == "" && len(r.Unanswered) > 0 || test.failure != "" && len(r.Unanswered) != 1 {
					t.Errorf("%s: %q", protocol, r)
				} else if test.failure != "" {
					expectLine(t, "failure", r.Unanswered, test.failure)
				}
			}
		})
	}
}
