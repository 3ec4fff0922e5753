package main

import (
	"crypto/tls"
	"encoding/json"
	"io"
	"net"
	"regexp"
	"strings"
	"testing"
	"time"

	"postern/internal/posterntest"
	"postern/policy"
)

// tlsServer has that floor, or takes all that Go can.
func tlsServer(t *testing.T, config *tls.Config) string {
	t.Helper()
	pair := posterntest.NewCA(t).Issue(t, posterntest.DefaultNames, posterntest.RSA)
	cert, err := tls.LoadX509KeyPair(pair.CertFile, pair.KeyFile)
	if err != nil {
		t.Fatal(err)
	}
	config.Certificates = []tls.Certificate{cert}
	return posterntest.StartRawUpstream(t, func(c net.Conn) {
		tc := tls.Server(c, config)
		io.WriteString(tc, "* OK ready\r\n")
		tc.Read(make([]byte, 100))
	}).Addr()
}

func TestProbeExitCodes(t *testing.T) {
	compat, old := tlsServer(t, policy.FloorTLS12Compat.TLSConfig()), tlsServer(t, policy.LenientTLSConfig())
	for _, c := range []struct {
		args string
		code int
	}{
		{"-floor tls1.2-compat " + compat, 0}, {compat, 1}, {compat + " -floor tls1.3", 1}, {"-floor tls1.2-compat " + old, 1},
		{"127.0.0.1:1", 3}, {"-floor tls1.2-compat 127.0.0.1:1 " + compat, 0}, {"127.0.0.1:1 " + old, 1},
	} {
		if o := runCommand(t, nil, append([]string{"probe"}, strings.Fields(c.args)...)...); o.code != c.code || o.stderr != "" {
			t.Errorf("%s: exit code %d, want %d\n%s%s", c.args, o.code, c.code, o.stdout, o.stderr)
		}
	}
}

func TestProbePrintsATableAndJSON(t *testing.T) {
	addr := tlsServer(t, policy.FloorTLS12Compat.TLSConfig())
	out := runCommand(t, nil, "probe", addr).stdout
	for _, want := range []string{
		`(?m)^TLS 1\.0 +refused: alert 70, protocol version not supported$`, `(?m)^RSA key exchange +taken: TLS 1\.2, TLS_RSA_WITH_AES_128_GCM_SHA256$`,
		`(?m)^fallback to an older version \(TLS 1\.2\) +refused: alert 86, inappropriate fallback$`,
		` tls: refuses SSL 2\.0, SSL 3\.0, TLS 1\.0 and 1\.1; takes RSA key exchange; knows hybrid\s+groups: tls1\.2-compat\n`,
		`certificate for .*mail\.example\.org.*: RSA 2048, until 20[^;]+; the\s+certificate\s[^;]+;\s+seen\s+at\s+127\.0\.0\.1:\d+\n`,
	} {
		if !regexp.MustCompile(want).MatchString(out) {
			t.Errorf("no %s in\n%s", want, out)
		}
	}
	two := runCommand(t, nil, "probe", addr, addr).stdout
	if strings.Count(two, "RSA key exchange") != 4 || strings.Count(two, "certificate for") != 1 { // in two tables and two summaries
		t.Errorf("two targets are\n%s", two)
	}
	var doc struct {
		Floor     string
		Listeners []struct {
			Address, Floor, Summary string
			Offers                  []struct {
				Offer, Version, Group string
				Taken                 bool
				Alert                 int
				CipherSuite           string `json:"cipher_suite"`
			}
			Certificates []struct{ Key string }
		}
	}
	out = runCommand(t, nil, "probe", "-json", addr).stdout
	if err := json.Unmarshal([]byte(out), &doc); err != nil || doc.Floor != "tls1.2" || len(doc.Listeners) != 1 {
		t.Fatalf("%v in\n%s", err, out)
	}
	l := doc.Listeners[0]
	if l.Floor != "tls1.2-compat" || len(l.Certificates) != 1 || l.Certificates[0].Key != "RSA 2048" || len(l.Offers) != 15 {
		t.Errorf("%+v", l)
	}
	if o := l.Offers[0]; o.Offer != "tls1.3" || !o.Taken || o.Version != "tls1.3" || o.Group != "x25519" || o.CipherSuite != "TLS_AES_128_GCM_SHA256" {
		t.Errorf("%+v", o)
	}
	if o := l.Offers[3]; o.Taken || o.Alert != 70 {
		t.Errorf("%+v", o)
	}
}

// TestProbeThatRunsOutOfTimeIsNoYes has a server that refuses each hello, but late.
func TestProbeThatRunsOutOfTimeIsNoYes(t *testing.T) {
	slow := posterntest.StartRawUpstream(t, func(c net.Conn) {
		c.Read(make([]byte, 4096))
		time.Sleep(250 * time.Millisecond)
		io.WriteString(c, "\x15\x03\x01\x00\x02\x02\x28")
	}).Addr()
	for timeout, code := range map[string]int{"3s": 3, "20s": 0} {
		o := runCommand(t, nil, "probe", "-json", "-timeout", timeout, slow)
		unknown := strings.Contains(o.stdout, `"incomplete": true`) && strings.Contains(o.stdout, "leaves no time for ") &&
			!strings.Contains(o.stdout, `"floor": "tls1.3-pq"`)
		if o.code != code || unknown != (code == 3) {
			t.Errorf("-timeout %s: exit code %d, want %d:\n%s", timeout, o.code, code, o.stdout)
		}
	}
}
