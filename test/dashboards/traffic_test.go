package dashboards

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"postern/internal/demo"
	"postern/internal/posterntest"
)

// exemptionLeft is how long the exemption of thePolicy has to run.
const exemptionLeft = 10 * 24 * time.Hour

// thePolicy has something of everything that a dashboard shows.
func thePolicy() string {
	return fmt.Sprintf(`
floor: tls1.2
mode: observe
rules:
  - name: warehouse
    mode: observe
    match: {client: [127.0.3.0/24]}
    until: %s
    owner: facilities@example.org
  - {name: told, mode: explain, match: {client: [127.0.4.0/24]}}
  - {name: pop3s is cut, mode: enforce, match: {listener: [pop3s]}, guard: {clients: 1000, within: 1h, then: observe}}
  - {name: half, mode: explain, match: {version: [tls1.1]}, share: 50%%}
candidates:
  - {name: aead only, floor: tls1.2-aead}
  - {name: tls 1.3 only, floor: tls1.3}
`, time.Now().Add(exemptionLeft).UTC().Format(time.RFC3339))
}

// The legacy clients that are no noise: that on 127.0.0.1, which comes in every
// generation, and these.
const legacyClients = 4

var callers = []struct{ from, listener string }{
	{"127.0.3.1", "imaps"}, {"127.0.3.2", "imap"}, {"127.0.4.1", "pop3"},
}

// scanner is an address that shows many hellos within a minute.
const scanner = "127.0.9.1"

// clientLimit is how many connections an address may have.
const clientLimit = 20

func startProxy(t *testing.T) *posterntest.Proxy {
	t.Helper()
	file := filepath.Join(t.TempDir(), "policy.yaml")
	must(t, os.WriteFile(file, []byte(thePolicy()), 0o600))
	imap := posterntest.StartUpstream(t, posterntest.IMAPGreeting, func(line string) string {
		if tag, ok := strings.CutSuffix(line, " SELECT INBOX"); ok {
			return "* 0 EXISTS\r\n" + tag + " OK done\r\n"
		}
		return posterntest.IMAPReply(line)
	})
	pop3 := posterntest.StartUpstream(t, posterntest.POP3Greeting, posterntest.POP3Reply)
	return posterntest.Start(t, map[string]string{
		"UPSTREAM_IMAP": imap.URL("imap"), "UPSTREAM_POP3": pop3.URL("pop3"), "POLICY_FILE": file,
		"LIMIT_CONNECTIONS_PER_CLIENT": fmt.Sprint(clientLimit),
	})
}

// visitAll sends one client of every generation to every listener.
func visitAll(g *posterntest.Proxy) error {
	for _, v := range demo.Generations {
		c := demo.Client{Generation: v, Roots: g.CA.Pool, Account: "anna", Password: "secret"}
		for _, l := range posterntest.Listeners {
			if _, err := c.Visit(g.Addr(l), strings.TrimSuffix(l, "s"), !strings.HasSuffix(l, "s")); err != nil {
				return fmt.Errorf("%v on %s: %w", v, l, err)
			}
		}
	}
	return nil
}

func upTo(version uint16, suites ...uint16) *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS10, MaxVersion: version, CipherSuites: suites}
}

// callOnce has the old clients with addresses of their own call, and the scanner.
func callOnce(g *posterntest.Proxy) error {
	for _, c := range callers {
		client, err := posterntest.Caller{From: c.from, TLS: upTo(tls.VersionTLS10)}.Open(g, c.listener)
		if err != nil {
			return fmt.Errorf("%s on %s: %w", c.from, c.listener, err)
		}
		client.Close()
	}
	// Ten hellos, each with other suites.
	for i := range 10 {
		var suites []uint16
		for bit, suite := range []uint16{
			tls.TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA, tls.TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA,
			tls.TLS_RSA_WITH_AES_128_CBC_SHA, tls.TLS_RSA_WITH_AES_256_CBC_SHA,
		} {
			if (i+1)>>bit&1 == 1 {
				suites = append(suites, suite)
			}
		}
		client, err := posterntest.Caller{From: scanner, TLS: upTo(tls.VersionTLS10, suites...)}.Open(g, "imaps")
		if err != nil {
			return fmt.Errorf("scanner: %w", err)
		}
		client.Close()
	}
	return nil
}

// misbehave is what is no handshake: plaintext on a TLS port, a login without
// TLS, bytes behind STARTTLS, and one who opens too many connections.
func misbehave(g *posterntest.Proxy) error {
	for _, c := range []struct{ listener, says string }{
		{"imaps", "a LOGIN anna secret\r\n"}, {"pop3s", "GET / HTTP/1.1\r\n\r\n"},
		{"imap", "a LOGIN anna secret\r\nb LOGOUT\r\n"}, {"pop3", "USER anna\r\nQUIT\r\n"}, {"imap", "a STARTTLS\r\nb NOOP\r\n"},
	} {
		conn, err := net.Dial("tcp", g.Addr(c.listener))
		if err != nil {
			return err
		}
		conn.SetDeadline(time.Now().Add(10 * time.Second))
		io.WriteString(conn, c.says)
		io.Copy(io.Discard, conn)
		conn.Close()
	}
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP("127.0.5.1")}}
	for range clientLimit + 3 {
		conn, err := dialer.Dial("tcp", g.Addr("imap"))
		if err != nil {
			return err
		}
		defer conn.Close()
	}
	return nil
}

// mixedTraffic goes on until the test ends.
func mixedTraffic(t *testing.T, g *posterntest.Proxy) {
	t.Helper()
	must(t, visitAll(g))
	must(t, callOnce(g))
	must(t, misbehave(g))
	stop := make(chan struct{})
	var done sync.WaitGroup
	done.Go(func() {
		for {
			select {
			case <-stop:
				return
			case <-time.After(time.Second):
			}
			if err := visitAll(g); err != nil {
				t.Error(err)
				return
			}
		}
	})
	t.Cleanup(func() {
		close(stop)
		done.Wait()
	})
}
