// Package reload checks, through the real binary, that files are read again
// when they change, that broken ones change nothing, and that no session ever
// notices.
package reload

import (
	"crypto/tls"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"postern/internal/posterntest"
)

func TestMain(m *testing.M) { posterntest.Main(m) }

// takenOver is how long a change may take without a signal: two checks, and
// then some for a busy machine.
const takenOver = time.Minute

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// copyFile writes a copy in place.
func copyFile(t testing.TB, from, to string) {
	t.Helper()
	text, err := os.ReadFile(from)
	must(t, err)
	must(t, os.MkdirAll(filepath.Dir(to), 0o700))
	must(t, os.WriteFile(to, text, 0o600))
}

// replace does it by rename.
func replace(t testing.TB, from, to string) {
	t.Helper()
	copyFile(t, from, to+".new")
	must(t, os.Rename(to+".new", to))
}

// world is a proxy in front of a small mail server, with certificates in dir.
type world struct {
	*posterntest.Proxy
	ca   *posterntest.CA
	dir  string
	cert string // as the environment names it
	key  string
}

// start runs a proxy whose certificate was copied to cert and key; env may
// change it.
func start(t *testing.T, cert, key string, env map[string]string) *world {
	t.Helper()
	w := &world{ca: posterntest.NewCA(t), cert: cert, key: key}
	pair := w.issue(t, "first.example.org")
	copyFile(t, pair.CertFile, cert)
	copyFile(t, pair.KeyFile, key)
	w.run(t, map[string]string{"TLS_CERT_FILE": cert, "TLS_KEY_FILE": key}, env)
	return w
}

func (w *world) run(t *testing.T, envs ...map[string]string) {
	t.Helper()
	up := posterntest.StartUpstream(t, posterntest.IMAPGreeting, posterntest.IMAPReply)
	env := map[string]string{"UPSTREAM_IMAP": up.URL("imap"), "LISTEN_IMAP": "off"}
	for _, more := range envs {
		for k, v := range more {
			env[k] = v
		}
	}
	w.Proxy = posterntest.Start(t, env)
	w.CA = w.ca
}

func (w *world) issue(t *testing.T, name string) posterntest.Pair {
	t.Helper()
	return w.ca.Issue(t, []string{name, "127.0.0.1"}, posterntest.ECDSA)
}

// shown is the name on the certificate that a client sees now.
func (w *world) shown(t *testing.T) string {
	t.Helper()
	c := w.dial(t, nil)
	defer c.Close()
	return c.ConnectionState().PeerCertificates[0].DNSNames[0]
}

func (w *world) dial(t *testing.T, change func(*tls.Config)) *tls.Conn {
	t.Helper()
	config := &tls.Config{RootCAs: w.ca.Pool, ServerName: "127.0.0.1"}
	if change != nil {
		change(config)
	}
	c := tls.Client(w.Dial(t, "imaps"), config)
	must(t, c.Handshake())
	return c
}

// waitShown waits until clients see the certificate of that name.
func (w *world) waitShown(t *testing.T, name string) {
	t.Helper()
	for end := time.Now().Add(takenOver); ; time.Sleep(50 * time.Millisecond) {
		now := w.shown(t)
		if now == name {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("still %s after %v, want %s", now, takenOver, name)
		}
	}
}

// login is a client that stays.
func (w *world) login(t *testing.T) *posterntest.Client {
	t.Helper()
	c, err := w.caller("127.0.0.1").Login(w.Proxy, "imaps", "anna", "secret")
	must(t, err)
	t.Cleanup(func() { c.Close() })
	return c
}

func (w *world) caller(from string) posterntest.Caller {
	return posterntest.Caller{From: from, TLS: &tls.Config{ServerName: "127.0.0.1"}}
}

func TestARenewedCertificateIsTakenOverWithoutASignal(t *testing.T) {
	link := func(t *testing.T, target, name string) {
		t.Helper()
		must(t, os.MkdirAll(filepath.Dir(name), 0o700))
		must(t, os.Symlink(target, name+".new"))
		must(t, os.Rename(name+".new", name))
	}
	for name, layout := range map[string]struct {
		prepare func(t *testing.T, dir string, first posterntest.Pair) map[string]string
		renew   func(t *testing.T, dir string, second posterntest.Pair)
	}{
		"written in place": {
			func(t *testing.T, dir string, first posterntest.Pair) map[string]string {
				copyFile(t, first.CertFile, dir+"/c")
				copyFile(t, first.KeyFile, dir+"/k")
				return map[string]string{"TLS_CERT_FILE": dir + "/c", "TLS_KEY_FILE": dir + "/k"}
			},
			func(t *testing.T, dir string, second posterntest.Pair) {
				copyFile(t, second.CertFile, dir+"/c")
				copyFile(t, second.KeyFile, dir+"/k")
			},
		},
		"renamed over": {
			func(t *testing.T, dir string, first posterntest.Pair) map[string]string {
				copyFile(t, first.CertFile, dir+"/c")
				copyFile(t, first.KeyFile, dir+"/k")
				return map[string]string{"TLS_CERT_FILE": dir + "/c", "TLS_KEY_FILE": dir + "/k"}
			},
			func(t *testing.T, dir string, second posterntest.Pair) {
				replace(t, second.KeyFile, dir+"/k")
				replace(t, second.CertFile, dir+"/c")
			},
		},
		"as certbot does it": {
			func(t *testing.T, dir string, first posterntest.Pair) map[string]string {
				copyFile(t, first.CertFile, dir+"/archive/mail/fullchain1.pem")
				copyFile(t, first.KeyFile, dir+"/archive/mail/privkey1.pem")
				link(t, "../../archive/mail/fullchain1.pem", dir+"/live/mail/fullchain.pem")
				link(t, "../../archive/mail/privkey1.pem", dir+"/live/mail/privkey.pem")
				return map[string]string{"TLS_CERT_FILE": dir + "/live/mail/fullchain.pem", "TLS_KEY_FILE": dir + "/live/mail/privkey.pem"}
			},
			func(t *testing.T, dir string, second posterntest.Pair) {
				copyFile(t, second.CertFile, dir+"/archive/mail/fullchain2.pem")
				copyFile(t, second.KeyFile, dir+"/archive/mail/privkey2.pem")
				link(t, "../../archive/mail/privkey2.pem", dir+"/live/mail/privkey.pem")
				link(t, "../../archive/mail/fullchain2.pem", dir+"/live/mail/fullchain.pem")
			},
		},
		"as Kubernetes does it": {
			func(t *testing.T, dir string, first posterntest.Pair) map[string]string {
				copyFile(t, first.CertFile, dir+"/..2026_01/tls.crt")
				copyFile(t, first.KeyFile, dir+"/..2026_01/tls.key")
				link(t, "..2026_01", dir+"/..data")
				link(t, "..data/tls.crt", dir+"/tls.crt")
				link(t, "..data/tls.key", dir+"/tls.key")
				return map[string]string{"TLS_CERT_FILE": dir}
			},
			func(t *testing.T, dir string, second posterntest.Pair) {
				copyFile(t, second.CertFile, dir+"/..2026_02/tls.crt")
				copyFile(t, second.KeyFile, dir+"/..2026_02/tls.key")
				link(t, "..2026_02", dir+"/..data")
				must(t, os.RemoveAll(dir+"/..2026_01"))
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := &world{ca: posterntest.NewCA(t), dir: filepath.Join(t.TempDir(), "tls")}
			w.run(t, layout.prepare(t, w.dir, w.issue(t, "first.example.org")))
			s := w.login(t)
			layout.renew(t, w.dir, w.issue(t, "second.example.org"))
			w.waitShown(t, "second.example.org")
			s.Must(t, "NOOP")
			if m := w.Metrics(t); m.Count("postern_certificate_reload_failures_total") != 0 && name != "written in place" {
				t.Error("a failed reload was counted")
			}
		})
	}
}

func TestBrokenFilesKeepTheOldPair(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	cert, key := dir+"/c.pem", dir+"/k.pem"
	w := start(t, cert, key, nil)
	s := w.login(t)
	second := w.issue(t, "second.example.org")
	text, err := os.ReadFile(second.CertFile)
	must(t, err)
	failures := 0
	for _, broken := range []struct {
		what string
		do   func()
		says string
	}{
		{"truncated", func() { must(t, os.WriteFile(cert, text[:len(text)/2], 0o600)) }, "broken or cut off"},
		{"empty", func() { must(t, os.WriteFile(cert, nil, 0o600)) }, "no PEM in it"},
		{"mismatched", func() { replace(t, second.CertFile, cert) }, "does not belong to the key in"},
		{"vanished", func() { must(t, os.Remove(cert)) }, "no such file or directory"},
	} {
		broken.do()
		w.Signal(t, syscall.SIGHUP)
		failures++
		lines := w.WaitLog(t, "reloading failed, the old files stay in force", failures)
		if last := fmt.Sprint(lines[len(lines)-1]); !strings.Contains(last, broken.says) || !strings.Contains(last, cert) || !strings.Contains(last, "level:ERROR") {
			t.Errorf("%s: log line %s", broken.what, last)
		}
		if now := w.shown(t); now != "first.example.org" {
			t.Errorf("%s: clients see %s", broken.what, now)
		}
	}
	// Who asks again is told again.
	w.Signal(t, syscall.SIGHUP)
	w.WaitLog(t, "reloading failed, the old files stay in force", failures+1)
	const good = "postern_certificate_last_reload_successful"
	m := w.Metrics(t)
	if n := m.Count("postern_certificate_reload_failures_total"); n < float64(failures) || m.Value(good) != 0 {
		t.Errorf("%v failures counted, want %d; last reload successful: %v", n, failures, m.Value(good))
	}
	replace(t, second.KeyFile, key)
	replace(t, second.CertFile, cert)
	w.Signal(t, syscall.SIGHUP)
	w.waitShown(t, "second.example.org")
	s.Must(t, "NOOP")
	lines := w.WaitLog(t, "files reloaded", 1)
	ends := second.Load(t).Leaf.NotAfter.UTC().Format(time.RFC3339)
	if said, want := fmt.Sprint(lines[len(lines)-1]["new"]), "["+cert+": second.example.org, valid until "+ends+"]"; said != want {
		t.Errorf("the log says %s, want %s", said, want)
	}
	if said := w.WaitLog(t, "reading files again", 1)[0]; said["variables"] != "as at the start; a changed one takes a restart" || said["mode"] != "enforce" || said["floor"] != "tls1.2" {
		t.Errorf("a signal is logged as %v", said)
	}
	if w.Metrics(t).Value(good) != 1 {
		t.Error("the last reload is not said to be successful")
	}
}

func TestAHundredHangupsEndNothing(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	w := start(t, dir+"/c", dir+"/k", nil)
	s := w.login(t)
	for i := range 100 {
		w.Signal(t, syscall.SIGHUP)
		if i%10 == 0 {
			w.login(t).Close()
		}
		time.Sleep(5 * time.Millisecond)
	}
	w.WaitLog(t, "files reloaded", 1)
	s.Must(t, "NOOP")
}

// A pipe in place of the file holds the proxy at the point where it reads it.
func TestAHangupBeforeTheListenersAreUpEndsNothing(t *testing.T) {
	t.Parallel()
	w := &world{ca: posterntest.NewCA(t)}
	pair := w.issue(t, "first.example.org")
	text, err := os.ReadFile(pair.CertFile)
	must(t, err)
	fifo := filepath.Join(t.TempDir(), "cert.pem")
	must(t, syscall.Mkfifo(fifo, 0o600))
	fed := make(chan error, 1)
	go func() {
		f, err := os.OpenFile(fifo, os.O_WRONLY, 0) // waits for the reader
		if err != nil {
			fed <- err
			return
		}
		defer f.Close()
		for range 100 {
			if err := hangup(fifo); err != nil {
				fed <- err
				return
			}
		}
		_, err = f.Write(text)
		fed <- err
	}()
	w.run(t, map[string]string{"TLS_CERT_FILE": fifo, "TLS_KEY_FILE": pair.KeyFile})
	must(t, <-fed)
	w.login(t).Must(t, "NOOP")
}

// hangup signals whoever else has the pipe open.
func hangup(fifo string) error {
	procs, err := filepath.Glob("/proc/[0-9]*/fd/*")
	if err != nil {
		return err
	}
	for _, fd := range procs {
		if target, err := os.Readlink(fd); err != nil || target != fifo {
			continue
		}
		var pid int
		if _, err := fmt.Sscanf(fd, "/proc/%d/", &pid); err != nil || pid == os.Getpid() {
			continue
		}
		return syscall.Kill(pid, syscall.SIGHUP)
	}
	return fmt.Errorf("nobody reads %s", fifo)
}
