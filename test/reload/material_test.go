package reload

import (
	"bufio"
	"crypto/rand"
	"crypto/tls"
	"encoding/base64"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"postern/internal/posterntest"
)

func ticketKey(t *testing.T) string {
	t.Helper()
	var key [32]byte
	if _, err := rand.Read(key[:]); err != nil {
		t.Fatal(err)
	}
	return base64.StdEncoding.EncodeToString(key[:]) + "\n"
}

// resumes tells whether a session of the cache was taken up. It reads the
// greeting, behind which new tickets come.
func (w *world) resumes(t *testing.T, cache tls.ClientSessionCache) bool {
	t.Helper()
	c := w.dial(t, func(config *tls.Config) {
		config.ServerName, config.ClientSessionCache = "127.0.0.1", cache
	})
	defer c.Close()
	if _, err := bufio.NewReader(c).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	return c.ConnectionState().DidResume
}

// oneTicket never forgets the first ticket that it was given.
type oneTicket struct{ tls.ClientSessionCache }

func (c oneTicket) Put(key string, s *tls.ClientSessionState) {
	if _, ok := c.Get(key); !ok && s != nil {
		c.ClientSessionCache.Put(key, s)
	}
}

func TestTicketKeysAreSharedAndRotateLive(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := dir + "/tickets"
	first, second, third := ticketKey(t), ticketKey(t), ticketKey(t)
	must(t, os.WriteFile(file, []byte(first), 0o600))
	env := map[string]string{"TLS_TICKET_KEYS_FILE": file}
	one := start(t, dir+"/c", dir+"/k", env)
	two := &world{ca: one.ca}
	two.run(t, map[string]string{"TLS_CERT_FILE": dir + "/c", "TLS_KEY_FILE": dir + "/k"}, env)
	cache := oneTicket{tls.NewLRUClientSessionCache(1)}
	if one.resumes(t, cache) {
		t.Error("resumed without a ticket")
	}
	rotate := func(keys string) {
		must(t, os.WriteFile(file+".new", []byte(keys), 0o600))
		must(t, os.Rename(file+".new", file))
		for _, w := range []*world{one, two} {
			n := len(w.LogLines("files reloaded")) + len(w.LogLines("reloading failed, the old files stay in force"))
			w.Signal(t, syscall.SIGHUP)
			for end := time.Now().Add(takenOver); len(w.LogLines("files reloaded"))+len(w.LogLines("reloading failed, the old files stay in force")) < n+2; {
				if time.Now().After(end) {
					t.Fatal("the keys were not read again")
				}
				time.Sleep(20 * time.Millisecond)
			}
		}
	}
	expect := func(what string, want bool) {
		t.Helper()
		for i, w := range []*world{one, two} {
			if got := w.resumes(t, cache); got != want {
				t.Errorf("%s: proxy %d resumes: %v, want %v", what, i+1, got, want)
			}
		}
	}
	expect("the key of the start", true)
	rotate(second + first)
	expect("a newer key before it", true)
	rotate("broken\n" + first)
	expect("a broken file", true)
	if text := one.Stderr(); !strings.Contains(text, file+":1: ") || strings.Contains(text, first[:20]) {
		t.Error("the log does not name the line, or holds a key")
	}
	rotate(third + second)
	expect("the key gone", false)
}

func TestUpstreamCAIsReadAgain(t *testing.T) {
	t.Parallel()
	upCA, otherCA := posterntest.NewCA(t), posterntest.NewCA(t)
	pair := upCA.Issue(t, []string{"127.0.0.1"}, posterntest.ECDSA)
	cert, err := tls.LoadX509KeyPair(pair.CertFile, pair.KeyFile)
	must(t, err)
	up := posterntest.StartRawUpstream(t, func(c net.Conn) {
		s := tls.Server(c, &tls.Config{Certificates: []tls.Certificate{cert}})
		if _, err := io.WriteString(s, posterntest.IMAPGreeting); err != nil {
			return
		}
		for lines := bufio.NewScanner(s); lines.Scan(); {
			io.WriteString(s, posterntest.IMAPReply(lines.Text()))
		}
	})
	dir := t.TempDir()
	ca := dir + "/ca.pem"
	copyFile(t, upCA.File, ca)
	w := start(t, dir+"/c", dir+"/k", map[string]string{"UPSTREAM_IMAP": up.URL("imaps"), "UPSTREAM_CA_FILE": ca})
	staying := w.login(t)
	// greeted waits until a new client is greeted so.
	greeted := func(want string) {
		t.Helper()
		line := ""
		for end := time.Now().Add(takenOver); !strings.HasPrefix(line, want); time.Sleep(50 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("greeted with %q, want %s", line, want)
			}
			c := w.dial(t, nil)
			line, _ = bufio.NewReader(c).ReadString('\n')
			c.Close()
		}
	}
	replace(t, otherCA.File, ca)
	w.Signal(t, syscall.SIGHUP)
	greeted("* BYE [UNAVAILABLE]")
	replace(t, upCA.File, ca)
	w.Signal(t, syscall.SIGHUP)
	greeted("* OK")
	staying.Must(t, "NOOP")
}

func TestClientCAIsReadAgain(t *testing.T) {
	t.Parallel()
	first, second := posterntest.NewCA(t), posterntest.NewCA(t)
	pair := second.Issue(t, []string{"client"}, posterntest.ECDSA)
	cert, err := tls.LoadX509KeyPair(pair.CertFile, pair.KeyFile)
	must(t, err)
	dir := t.TempDir()
	ca := dir + "/clients.pem"
	copyFile(t, first.File, ca)
	w := start(t, dir+"/c", dir+"/k", map[string]string{"TLS_CLIENT_CA_FILE": ca})
	// asked returns the CAs that the proxy names to a client.
	asked := func() (names [][]byte) {
		w.dial(t, func(config *tls.Config) {
			config.GetClientCertificate = func(info *tls.CertificateRequestInfo) (*tls.Certificate, error) {
				names = info.AcceptableCAs
				if info.SupportsCertificate(&cert) == nil {
					return &cert, nil
				}
				return &tls.Certificate{}, nil
			}
		}).Close()
		return names
	}
	before := asked()
	if len(before) != 1 {
		t.Fatalf("asked for certificates of %d CAs, want one", len(before))
	}
	both, err := os.ReadFile(first.File)
	must(t, err)
	more, err := os.ReadFile(second.File)
	must(t, err)
	must(t, os.WriteFile(ca, append(both, more...), 0o600))
	w.Signal(t, syscall.SIGHUP)
	for end := time.Now().Add(takenOver); len(asked()) != 2; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the second CA was not taken over")
		}
	}
}

func TestAStderrThatIsClosedEndsNothing(t *testing.T) {
	t.Parallel()
	ca := posterntest.NewCA(t)
	pair := ca.Issue(t, posterntest.DefaultNames, posterntest.ECDSA)
	up := posterntest.StartUpstream(t, posterntest.IMAPGreeting, posterntest.IMAPReply)
	env := map[string]string{
		"UPSTREAM_IMAP": up.URL("imap"), "LISTEN_IMAP": "off", "LISTEN_IMAPS": posterntest.FreeAddr(t),
		"ADMIN_LISTEN": posterntest.FreeAddr(t), "LOG_LEVEL": "debug", "TIMEOUT_DRAIN": "1s",
		"TLS_CERT_FILE": pair.CertFile, "TLS_KEY_FILE": pair.KeyFile,
	}
	p := launch(t, `exec "$0" serve 2>&-`, env)
	p.waitHealthy(t)
	for range 20 {
		must(t, p.cmd.Process.Signal(syscall.SIGHUP))
		c, err := tls.Dial("tcp", env["LISTEN_IMAPS"], &tls.Config{RootCAs: ca.Pool, ServerName: "localhost"})
		must(t, err)
		c.Close()
	}
	p.waitHealthy(t)
	p.stop(t)
}

func TestTheAdminPortHasTLSAndItsCertificateIsReadAgain(t *testing.T) {
	t.Parallel()
	ca := posterntest.NewCA(t)
	pair := ca.Issue(t, posterntest.DefaultNames, posterntest.ECDSA)
	up := posterntest.StartUpstream(t, posterntest.IMAPGreeting, posterntest.IMAPReply)
	dir := t.TempDir()
	admin := filepath.Join(dir, "admin.pem")
	put := func() {
		issued := ca.Issue(t, posterntest.DefaultNames, posterntest.ECDSA)
		cert, err := os.ReadFile(issued.CertFile)
		must(t, err)
		key, err := os.ReadFile(issued.KeyFile)
		must(t, err)
		must(t, os.WriteFile(admin, append(cert, key...), 0o600))
	}
	put()
	env := map[string]string{
		"UPSTREAM_IMAP": up.URL("imap"), "LISTEN_IMAP": "off", "LISTEN_IMAPS": posterntest.FreeAddr(t),
		"ADMIN_LISTEN": posterntest.FreeAddr(t), "ADMIN_TLS_CERT_FILE": admin, "ADMIN_PPROF": "on", "TIMEOUT_DRAIN": "1s",
		"TLS_CERT_FILE": pair.CertFile, "TLS_KEY_FILE": pair.KeyFile,
	}
	p := launch(t, `exec "$0" serve`, env)
	p.waitHealthy(t)
	shown := func() string {
		conn, err := tls.Dial("tcp", env["ADMIN_LISTEN"], &tls.Config{RootCAs: ca.Pool, ServerName: "localhost"})
		must(t, err)
		defer conn.Close()
		return conn.ConnectionState().PeerCertificates[0].SerialNumber.String()
	}
	before := shown()
	put()
	must(t, p.cmd.Process.Signal(syscall.SIGHUP))
	for end := time.Now().Add(30 * time.Second); shown() == before; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the admin port keeps its old certificate")
		}
	}
	p.waitHealthy(t)
	client := http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: ca.Pool}, DisableKeepAlives: true}}
	for path, want := range map[string]int{"/metrics": 200, "/debug/pprof/": 200, "/debug/pprof/goroutine": 200} {
		resp, err := client.Get("https://" + env["ADMIN_LISTEN"] + path)
		must(t, err)
		resp.Body.Close()
		if resp.StatusCode != want {
			t.Errorf("%s: status %d, want %d", path, resp.StatusCode, want)
		}
	}
	p.stop(t)
}
