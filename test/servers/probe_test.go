package servers

import (
	"bytes"
	"context"
	"encoding/json"
	"encoding/xml"
	"flag"
	"fmt"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"postern/internal/debian13"
	"postern/internal/hello"
	"postern/internal/posterntest"
	"postern/internal/probe"
)

var everything = flag.Bool("everything", false, "compare postern probe on every server and port, and with testssl.sh too, which takes an hour")

// cells are offers, and whether they are taken; those that a program does not try are
// not there.
type cells map[string]bool

// TestProbeAgreesWithSslscan has two programs ask the same servers; test/probe/compare
// runs all of it.
func TestProbeAgreesWithSslscan(t *testing.T) {
	for name, start := range probedServers {
		for _, loose := range []bool{false, true} {
			ours := strings.HasPrefix(name, "Postern")
			if ours && loose || !*everything && !ours && name+choose(loose, " loose", "") != "Dovecot 2.3 loose" {
				continue // Postern has its modes
			}
			t.Run(name+choose(loose, " loose", " strict"), func(t *testing.T) {
				t.Parallel()
				for protocol, addr := range start(t, loose) {
					if !*everything && protocol != "imaps" && protocol != "pop3" {
						continue
					}
					startTLS := strings.TrimSuffix(protocol, "s")
					if startTLS != protocol {
						startTLS = ""
					}
					asked := probeCells(t, addr, startTLS)
					theirs := map[string]cells{"sslscan": sslscan(t, addr, startTLS)}
					if *everything && protocol == "imaps" {
						theirs["testssl"] = testssl(t, addr)
					}
					for program, other := range theirs {
						for _, offer := range slices.Sorted(maps.Keys(other)) {
							if taken, both := asked[offer]; both && taken != other[offer] {
								t.Errorf("%s: %s: the probe says %v, %s %v", protocol, offer, taken, program, other[offer])
							}
						}
					}
				}
			})
		}
	}
}

func probeCells(t *testing.T, addr, startTLS string) cells {
	t.Helper()
	o := probe.Options{StartTLS: startTLS, Timeout: 20 * time.Second}
	all, err := probe.Listeners(t.Context(), []string{addr}, o)
	if err != nil {
		t.Fatal(err)
	}
	probe.Run(context.Background(), all, o, func(int) {})
	if all[0].Error != "" {
		t.Fatalf("%s: %s", addr, all[0].Error)
	}
	got := make(cells)
	for _, r := range all[0].Results {
		got[r.Offer] = r.Taken
	}
	t.Log(addr, startTLS, all[0].Summary, got)
	return got
}

// ofSuites fills in the offers that are about suites of TLS 1.2.
func (c cells) ofSuites(accepted []uint16) {
	for offer, family := range map[string][]uint16{"rsa": hello.RSA, "dhe": hello.DHE, "3des": hello.TDES, "rc4": hello.RC4, "cbc": hello.CBC} {
		c[offer] = slices.ContainsFunc(family, func(id uint16) bool { return slices.Contains(accepted, id) })
	}
}

func sslscan(t *testing.T, addr, startTLS string) cells {
	t.Helper()
	args := []string{"--no-colour", "--show-sigs", "--no-heartbleed", "--no-renegotiation", "--timeout=30", "--xml=-", addr}
	if startTLS != "" {
		args = append([]string{"--starttls-" + startTLS}, args...)
	}
	out, err := exec.Command("sslscan", args...).Output()
	if err != nil {
		t.Fatalf("sslscan: %v\n%s", err, out)
	}
	var found struct {
		Test struct {
			Protocols []struct {
				Type    string `xml:"type,attr"`
				Version string `xml:"version,attr"`
				Enabled string `xml:"enabled,attr"`
			} `xml:"protocol"`
			Fallback *struct {
				Supported string `xml:"supported,attr"`
			} `xml:"fallback"`
			Ciphers []struct {
				Version string `xml:"sslversion,attr"`
				ID      string `xml:"id,attr"`
			} `xml:"cipher"`
			Signatures []struct {
				Version string `xml:"sslversion,attr"`
				Name    string `xml:"name,attr"`
			} `xml:"connection-signature-algorithm"`
		} `xml:"ssltest"`
	}
	if err := xml.Unmarshal(out, &found); err != nil {
		t.Fatalf("sslscan: %v\n%s", err, out)
	}
	c := make(cells)
	for _, p := range found.Test.Protocols {
		c[strings.TrimPrefix(p.Type, "ssl")+map[string]string{"ssl": "ssl"}[p.Type]+p.Version] = p.Enabled == "1"
	}
	if f := found.Test.Fallback; f != nil {
		c["fallback"] = f.Supported != "1"
	}
	var accepted []uint16
	for _, s := range found.Test.Ciphers {
		if id, err := strconv.ParseUint(s.ID, 0, 16); err == nil && s.Version == "TLSv1.2" {
			accepted = append(accepted, uint16(id))
		}
	}
	c.ofSuites(accepted)
	for _, s := range found.Test.Signatures {
		c["sha1"] = c["sha1"] || s.Version == "TLSv1.2" && strings.HasSuffix(s.Name, "_sha1")
	}
	return c
}

func testssl(t *testing.T, addr string) cells {
	t.Helper()
	file := filepath.Join(t.TempDir(), "found.json")
	out, err := exec.Command("testssl", "--quiet", "--warnings", "off", "--color", "0", "--nodns", "none", "-p", "-E", "-Z", "--jsonfile", file, addr).CombinedOutput()
	b, _ := os.ReadFile(file)
	var found []struct{ ID, Finding string }
	if json.Unmarshal(b, &found) != nil || len(found) == 0 {
		t.Fatalf("testssl: %v\n%s", err, out)
	}
	c := make(cells)
	names := map[string]string{"SSLv2": "ssl2", "SSLv3": "ssl3", "TLS1": "tls1.0", "TLS1_1": "tls1.1", "TLS1_2": "tls1.2", "TLS1_3": "tls1.3"}
	var accepted []uint16
	for _, f := range found {
		if name := names[f.ID]; name != "" {
			c[name] = strings.HasPrefix(f.Finding, "offered")
		}
		if f.ID == "fallback_SCSV" {
			t.Logf("testssl on %s: %s", addr, f.Finding)
		}
		if f.ID == "fallback_SCSV" && (f.Finding == "supported" || strings.HasPrefix(f.Finding, "NOT supported")) {
			c["fallback"] = f.Finding != "supported"
		}
		if hex, ok := strings.CutPrefix(f.ID, "cipher-tls1_2_x"); ok {
			if id, err := strconv.ParseUint(hex, 16, 16); err == nil {
				accepted = append(accepted, uint16(id))
			}
		}
	}
	c.ofSuites(accepted)
	return c
}

// all is what OpenSSL calls all that it has.
const all = "ALL:@SECLEVEL=0"

// aead is a strict list.
const aead = "ECDHE+AESGCM:ECDHE+CHACHA20"

// choose picks the loose or the strict text.
func choose(loose bool, ifLoose, ifStrict string) string {
	if loose {
		return ifLoose
	}
	return ifStrict
}

// probedServers start one each, and return ports by protocol.
var probedServers = map[string]func(t *testing.T, loose bool) map[string]string{
	"Dovecot 2.3": func(t *testing.T, loose bool) map[string]string {
		return startDovecot(t, false, choose(loose, "ssl_min_protocol = TLSv1\nssl_cipher_list = "+all+"\nssl_dh = <"+writeFile(t, t.TempDir(), "dh.pem", dhParameters(t)),
			"ssl_min_protocol = TLSv1.2\nssl_cipher_list = "+aead)).ports
	},
	"Dovecot 2.4": func(t *testing.T, loose bool) map[string]string {
		tree := debian13.Get(t)
		dh := tree.Inside(writeFile(t, tree.Dir(t), "dh.pem", dhParameters(t)))
		return startDovecot(t, true, choose(loose, "ssl_min_protocol = TLSv1\nssl_cipher_list = "+all+"\nssl_server_dh_file = "+dh,
			"ssl_min_protocol = TLSv1.2\nssl_cipher_list = "+aead)).ports
	},
	"Cyrus": func(t *testing.T, loose bool) map[string]string {
		return startCyrus(t, choose(loose, "tls_versions: tls1_0 tls1_1 tls1_2 tls1_3\ntls_ciphers: "+all+"\n", "tls_versions: tls1_2 tls1_3\ntls_ciphers: "+aead+"\n")).ports
	},
	"nginx":           startNginx,
	"HAProxy":         startHAProxy,
	"stunnel":         startStunnel,
	"Postern enforce": func(t *testing.T, _ bool) map[string]string { return startPostern(t, "enforce") },
	"Postern explain": func(t *testing.T, _ bool) map[string]string { return startPostern(t, "explain") },
	"Postern observe": func(t *testing.T, _ bool) map[string]string { return startPostern(t, "observe") },
}

func startPostern(t *testing.T, mode string) map[string]string {
	g := posterntest.Start(t, map[string]string{
		"UPSTREAM_IMAP": posterntest.StartUpstream(t, posterntest.IMAPGreeting, posterntest.IMAPReply).URL("imap"),
		"UPSTREAM_POP3": posterntest.StartUpstream(t, posterntest.POP3Greeting, posterntest.POP3Reply).URL("pop3"),
		"POLICY_MODE":   mode,
	})
	ports := make(map[string]string)
	for _, l := range posterntest.Listeners {
		ports[l] = g.Addr(l)
	}
	return ports
}

func writeFile(t *testing.T, dir, name, text string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

var makeDH = sync.OnceValues(func() ([]byte, error) {
	return exec.Command("openssl", "genpkey", "-genparam", "-algorithm", "DH", "-pkeyopt", "group:ffdhe2048").Output()
})

func dhParameters(t *testing.T) string {
	t.Helper()
	b, err := makeDH()
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// pem is a certificate with its key in one file.
func pem(t *testing.T, dir string) string {
	t.Helper()
	pair := posterntest.NewCA(t).Issue(t, posterntest.DefaultNames, posterntest.RSA)
	var text []byte
	for _, path := range []string{pair.CertFile, pair.KeyFile} {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		text = append(text, b...)
	}
	return writeFile(t, dir, "cert.pem", string(text))
}

// run starts a program until the test ends, and waits until its ports answer.
func run(t *testing.T, ports map[string]string, program string, args ...string) {
	t.Helper()
	cmd := exec.Command(program, args...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	posterntest.EndWithTest(cmd, syscall.SIGTERM)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
		if t.Failed() {
			t.Logf("%s:\n%s", program, &out)
		}
	})
	for _, addr := range ports {
		waitFor(t, program, func() error {
			c, err := net.Dial("tcp", addr)
			if err == nil {
				c.Close()
			}
			return err
		})
	}
}

func startNginx(t *testing.T, loose bool) map[string]string {
	dir, at := t.TempDir(), ports(t, "imap", "imaps", "pop3", "pop3s")
	var servers strings.Builder
	for protocol, addr := range at {
		name, implicit := strings.CutSuffix(protocol, "s")
		fmt.Fprintf(&servers, "server { listen %s%s; protocol %s; starttls %s; }\n", addr, map[bool]string{true: " ssl"}[implicit], name,
			map[bool]string{true: "off", false: "only"}[implicit])
	}
	conf := fmt.Sprintf(`load_module /usr/lib/nginx/modules/ngx_mail_module.so;
daemon off; master_process off; pid %[1]s/pid; error_log stderr;
events {}
mail { server_name localhost; auth_http 127.0.0.1:1/; ssl_certificate %[2]s; ssl_certificate_key %[2]s; %[3]s
%[4]s}
`, dir, pem(t, dir), choose(loose, "ssl_protocols TLSv1 TLSv1.1 TLSv1.2 TLSv1.3; ssl_ciphers "+all+"; ssl_dhparam "+writeFile(t, dir, "dh.pem", dhParameters(t))+";",
		"ssl_protocols TLSv1.2 TLSv1.3; ssl_ciphers "+aead+";"), &servers)
	run(t, at, "nginx", "-c", writeFile(t, dir, "conf", conf))
	return at
}

func startHAProxy(t *testing.T, loose bool) map[string]string {
	dir, at := t.TempDir(), ports(t, "imaps")
	upstream := posterntest.StartUpstream(t, posterntest.IMAPGreeting, posterntest.IMAPReply)
	conf := fmt.Sprintf(`global
  tune.ssl.default-dh-param 2048
defaults
  mode tcp
  timeout client 10s
  timeout server 10s
  timeout connect 10s
listen mail
  bind %s ssl crt %s %s
  server one %s
`, at["imaps"], pem(t, dir), choose(loose, "ssl-min-ver TLSv1.0 ciphers "+all, "ssl-min-ver TLSv1.2 ciphers "+aead), upstream.Addr())
	run(t, at, "haproxy", "-f", writeFile(t, dir, "conf", conf))
	return at
}

func startStunnel(t *testing.T, loose bool) map[string]string {
	dir, at := t.TempDir(), ports(t, "imaps", "imap", "pop3")
	conf := "foreground = yes\npid =\ncert = " + pem(t, dir) + "\n" +
		choose(loose, "sslVersionMin = TLSv1\nsecurityLevel = 0\nciphers = "+all+"\n", "sslVersionMin = TLSv1.2\nciphers = "+aead+"\n")
	for protocol, addr := range at {
		upstream := posterntest.StartUpstream(t, posterntest.IMAPGreeting, posterntest.IMAPReply)
		if protocol == "pop3" {
			upstream = posterntest.StartUpstream(t, posterntest.POP3Greeting, posterntest.POP3Reply)
		}
		conf += fmt.Sprintf("[%s]\naccept = %s\nconnect = %s\n", protocol, addr, upstream.Addr())
		if protocol != "imaps" {
			conf += "protocol = " + protocol + "\n"
		}
	}
	run(t, at, "stunnel4", writeFile(t, dir, "conf", conf))
	return at
}
