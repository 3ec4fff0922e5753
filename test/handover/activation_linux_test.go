package handover

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"postern/internal/handover"
	"postern/internal/posterntest"
)

func TestMain(m *testing.M) { posterntest.Main(m) }

// upstreams are small servers of both protocols.
func upstreams(t *testing.T) map[string]string {
	t.Helper()
	return map[string]string{
		"UPSTREAM_IMAP": posterntest.StartUpstream(t, posterntest.IMAPGreeting, posterntest.IMAPReply).URL("imap"),
		"UPSTREAM_POP3": posterntest.StartUpstream(t, posterntest.POP3Greeting, posterntest.POP3Reply).URL("pop3"),
	}
}

// socket listens as a socket unit does.
func socket(t *testing.T, name string) posterntest.Socket {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return posterntest.Socket{Name: name, TCPListener: l.(*net.TCPListener)}
}

func TestSocketsTakeThePlaceOfTheirAddresses(t *testing.T) {
	t.Parallel()
	var sockets []posterntest.Socket
	for _, name := range append(slices.Clone(posterntest.Listeners), "admin", "imaps") {
		sockets = append(sockets, socket(t, name))
	}
	g := posterntest.Process{Sockets: sockets}.Start(t, upstreams(t))
	for _, s := range sockets {
		if s.Name == "admin" {
			continue // Start has asked it
		}
		c, err := posterntest.Caller{To: s.Addr().String()}.Login(g, s.Name, "anna", "password")
		if err != nil {
			t.Fatalf("%s at %v: %v", s.Name, s.Addr(), err)
		}
		c.Close()
	}
	for _, line := range g.WaitLog(t, "listening", 4) {
		if line["listener"] == "imaps" && fmt.Sprint(line["addresses"]) != fmt.Sprintf("[%v %v]", sockets[0].Addr(), sockets[5].Addr()) {
			t.Errorf("imaps listens at %v", line["addresses"])
		}
	}
	if line := g.WaitLog(t, "serving", 1)[0]; line["admin"] != g.Admin() {
		t.Errorf("the admin port is at %v", line["admin"])
	}
}

// A listener without a socket has its address, and a variable that says otherwise gives
// way to the socket.
func TestOneSocketIsEnough(t *testing.T) {
	t.Parallel()
	env := upstreams(t)
	s := socket(t, "imaps")
	env["LISTEN_POP3"] = "off"
	g := posterntest.Process{Sockets: []posterntest.Socket{s}}.Start(t, env)
	for _, listener := range []string{"imaps", "imap", "pop3s"} {
		c, err := posterntest.Caller{}.Login(g, listener, "anna", "password")
		if err != nil {
			t.Fatalf("%s: %v", listener, err)
		}
		c.Close()
	}
}

// Who may see the page goes by the socket's address, and by a name off loopback.
func TestANameOfTheAdminPortOutlivesAHandover(t *testing.T) {
	t.Parallel()
	s := handover.Sockets{"admin": {socket(t, "admin")}}
	at := "POSTERN_ADMIN_LISTEN=" + s["admin"][0].Addr().String()
	for _, tt := range []struct{ is, want string }{
		{"POSTERN_ADMIN_LISTEN=admin.example.org:9993", "POSTERN_ADMIN_LISTEN=admin.example.org:9993"},
		{"POSTERN_ADMIN_LISTEN=localhost:9993", at}, {"POSTERN_ADMIN_LISTEN=127.0.0.1:1", at}, {"POSTERN_ADMIN_LISTEN=[fd00::a]:1", at},
		{"POSTERN_ADMIN_LISTEN=:9993", at}, {"OTHER_ADMIN_LISTEN=admin.example.org:9993", at},
	} {
		if got := s.Environ([]string{tt.is}); got[len(got)-1] != tt.want {
			t.Errorf("%s has become %v", tt.is, got)
		}
	}
}

func TestSocketsOfNoUseStopTheStart(t *testing.T) {
	t.Parallel()
	binary := posterntest.Binary(t)
	pair := posterntest.NewCA(t).Issue(t, posterntest.DefaultNames, posterntest.RSA)
	datagrams, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer datagrams.Close()
	for _, tt := range []struct {
		names string
		want  []string
	}{
		{"imaps:postern.socket", []string{"LISTEN_FDNAMES: postern.socket: not one of imaps, pop3s, imap, pop3, admin: FileDescriptorName="}},
		{"imaps", []string{"LISTEN_FDNAMES: LISTEN_FD_4: not one of"}},
		{"admin:admin", []string{"LISTEN_FDNAMES: admin: given twice"}},
		{"pop3s:pop3", []string{"LISTEN_FDNAMES: pop3: there is no POSTERN_UPSTREAM_POP3", "LISTEN_FDNAMES: pop3s: there is no POSTERN_UPSTREAM_POP3"}},
		{"imap:udp", []string{"LISTEN_FDNAMES: imap: not a listening TCP socket"}},
	} {
		cmd := exec.Command("sh", "-c", `LISTEN_PID=$$ exec "$0" serve`, binary)
		cmd.Env = []string{
			"LISTEN_FDS=2", "LISTEN_FDNAMES=" + tt.names, "POSTERN_UPSTREAM_IMAP=imap://127.0.0.1:1",
			"POSTERN_TLS_CERT_FILE=" + pair.CertFile, "POSTERN_TLS_KEY_FILE=" + pair.KeyFile,
			"POSTERN_LISTEN_IMAPS=127.0.0.1:0", "POSTERN_LISTEN_IMAP=127.0.0.1:0", "POSTERN_ADMIN_LISTEN=127.0.0.1:0",
		}
		for _, l := range []interface{ File() (*os.File, error) }{socket(t, ""), socket(t, "")} {
			if strings.HasSuffix(tt.names, "udp") {
				l = datagrams.(*net.UDPConn)
			}
			f, err := l.File()
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			cmd.ExtraFiles = append(cmd.ExtraFiles, f)
		}
		out, _ := cmd.CombinedOutput()
		if code := cmd.ProcessState.ExitCode(); code != 2 {
			t.Errorf("%s: exit code %d", tt.names, code)
		}
		for _, want := range tt.want {
			if !strings.Contains("\n"+string(out), "\n"+want) {
				t.Errorf("%s: no %q in\n%s", tt.names, want, out)
			}
		}
	}
}

// systemd is what a service tells its manager.
type systemd struct {
	*net.UnixConn
	heard chan string
}

func startSystemd(t *testing.T) systemd {
	t.Helper()
	addr := &net.UnixAddr{Net: "unixgram", Name: filepath.Join(t.TempDir(), "notify")}
	c, err := net.ListenUnixgram(addr.Net, addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	s := systemd{c, make(chan string, 10_000)}
	go func() { // which never keeps the service waiting
		for buf := make([]byte, 4096); ; {
			n, err := c.Read(buf)
			if err != nil {
				return
			}
			s.heard <- string(buf[:n])
		}
	}()
	return s
}

// environ has Postern tell it, and say within so long that it is alive.
func (s systemd) environ(watchdog time.Duration) []string {
	return []string{"NOTIFY_SOCKET=" + s.LocalAddr().String(), fmt.Sprint("WATCHDOG_USEC=", watchdog.Microseconds())}
}

// hears waits for a message that begins so, and returns it.
func (s systemd) hears(t *testing.T, begin string) string {
	t.Helper()
	var all []string
	for timeout := time.After(time.Minute); ; {
		select {
		case message := <-s.heard:
			if all = append(all, message); strings.HasPrefix(message, begin) {
				return message
			}
		case <-timeout:
			t.Fatalf("waiting for %s; heard %q", begin, all)
		}
	}
}

func TestSystemdHearsOfTheStartOfReloadsAndOfTheEnd(t *testing.T) {
	t.Parallel()
	s := startSystemd(t)
	env := upstreams(t)
	env["TIMEOUT_DRAIN"] = "20s" // in which a busy machine says so
	g := posterntest.Process{Environ: s.environ(300 * time.Millisecond)}.Start(t, env)
	s.hears(t, "READY=1")
	c, err := posterntest.Caller{}.Login(g, "imaps", "anna", "password")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if status := s.hears(t, "STATUS=open connections: 1"); status != "STATUS=open connections: 1" {
		t.Errorf("its status is %q", status)
	}
	for range 3 {
		s.hears(t, "WATCHDOG=1")
		before := monotonic(t)
		g.Signal(t, syscall.SIGHUP)
		const reloading = "RELOADING=1\nMONOTONIC_USEC="
		usec, err := strconv.ParseInt(strings.TrimSpace(strings.TrimPrefix(s.hears(t, reloading), reloading)), 10, 64)
		if after := monotonic(t); err != nil || usec < before || usec > after {
			t.Errorf("the reload began at %d µs, not between %d and %d; %v", usec, before, after, err)
		}
		s.hears(t, "READY=1")
	}
	g.WaitLog(t, "files reloaded", 3)
	g.Signal(t, syscall.SIGTERM)
	s.hears(t, "STOPPING=1")
	s.hears(t, "WATCHDOG=1") // as long as it drains
	if status := s.hears(t, "STATUS="); status != "STATUS=open connections: 1; draining: yes" {
		t.Errorf("its status is %q", status)
	}
}

func monotonic(t *testing.T) int64 {
	t.Helper()
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		t.Fatal(err)
	}
	return now.Nano() / 1000
}
