package check

import (
	"bufio"
	"crypto/tls"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"

	"postern/internal/posterntest"
	"postern/policy"
)

// elsewhere stands for an address that others than this host reach, which not every
// machine has.
const elsewhere = "127.0.0.2"

// startOld runs an IMAP server with TLS until the test ends.
func startOld(t *testing.T, host string, ca *posterntest.CA, config *tls.Config) string {
	t.Helper()
	pair := ca.Issue(t, []string{host}, posterntest.RSA)
	cert, err := tls.LoadX509KeyPair(pair.CertFile, pair.KeyFile)
	if err != nil {
		t.Fatal(err)
	}
	config.Certificates = []tls.Certificate{cert}
	l, err := tls.Listen("tcp", net.JoinHostPort(host, "0"), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				io.WriteString(c, "* OK ready\r\n")
				for lines := bufio.NewScanner(c); lines.Scan(); {
					io.WriteString(c, imapWith("IMAP4rev1 AUTH=PLAIN")(lines.Text()))
				}
			}()
		}
	}()
	return l.Addr().String()
}

func TestAServersOwnPortThatTakesOldTLSIsAWayPast(t *testing.T) {
	reachedFromHere = func(ip netip.Addr) bool { return ip.IsLoopback() && ip.String() != elsewhere }
	defer func() { reachedFromHere = netip.Addr.IsLoopback }()
	host, ca := elsewhere, posterntest.NewCA(t)
	old := startOld(t, host, ca, policy.LenientTLSConfig())
	for _, c := range []struct {
		addr, more string
		past       bool
	}{
		{old, "", true}, {startOld(t, host, ca, policy.FloorTLS12.TLSConfig()), "", false},
		{old, "UPSTREAM_PASSTHROUGH_IMAPS=" + old, false}, {startOld(t, "127.0.0.1", ca, policy.LenientTLSConfig()), "", false},
		{startOld(t, host, ca, policy.FloorTLS12Compat.TLSConfig()), "POLICY_FLOOR=tls1.2", true},
		{startOld(t, host, ca, policy.FloorTLS12Compat.TLSConfig()), "POLICY_FLOOR=tls1.2-compat", false},
	} {
		set := []string{"UPSTREAM_IMAP=imaps://" + c.addr, "UPSTREAM_CA_FILE=" + ca.File}
		if c.more != "" {
			set = append(set, c.more)
		}
		r := Run(t.Context(), environ(t, set...), false, nobody)
		// Other programs may run on the ports of mail.
		said := strings.Contains(strings.Join(r.Warnings, "\n"), "POSTERN_UPSTREAM_IMAP: "+c.addr+
			" is a way past Postern for whoever reaches it: close it to clients, or raise what it takes; it refuses SSL 2.0")
		if len(r.Errors)+len(r.Unanswered) > 0 || said != c.past {
			t.Errorf("%+v: %q, %q, %q", c, r.Errors, r.Unanswered, r.Warnings)
		}
	}
}
