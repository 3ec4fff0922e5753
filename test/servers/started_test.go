package servers

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"postern/internal/debian13"
	"postern/internal/dovecot"
	"postern/internal/posterntest"
)

// ports are free ones of 127.0.0.1, by protocol.
func ports(t *testing.T, protocols ...string) map[string]string {
	t.Helper()
	addresses := make(map[string]string)
	for _, p := range protocols {
		addresses[p] = posterntest.FreeAddr(t)
	}
	return addresses
}

func startDovecot(t *testing.T, debian13 bool, config string) *server {
	t.Helper()
	ca := posterntest.NewCA(t)
	pair := ca.Issue(t, posterntest.DefaultNames, posterntest.RSA)
	o := dovecot.Options{Debian13: debian13, HAProxy: true, CertFile: pair.CertFile, KeyFile: pair.KeyFile, Config: config}
	for i := range maxUsers {
		o.Users = append(o.Users, dovecot.User{Name: userName(i), Password: password})
	}
	d := dovecot.Start(t, o)
	return &server{
		name: "Dovecot", ca: ca, compresses: true, headers: []string{"v1", "v2"},
		ports:      map[string]string{"imap": d.IMAP, "imaps": d.IMAPS, "pop3": d.POP3, "pop3s": d.POP3S},
		proxyPorts: map[string]string{"imap": d.ProxyIMAP, "imaps": d.ProxyIMAPS, "pop3": d.ProxyPOP3, "pop3s": d.ProxyPOP3S},
		log:        func() string { return d.Log(t) },
		suspend:    func(process string) func() { return d.Suspend(t, process) },
	}
}

// place is a directory in the tree for one server.
type place struct {
	tree   debian13.Tree
	dir    string // outside
	inside string
}

func newPlace(t *testing.T) place {
	t.Helper()
	tree := debian13.Get(t)
	dir := tree.Dir(t)
	p := place{tree, dir, tree.Inside(dir)}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the server's log:\n%s", p.log())
		}
	})
	return p
}

func (p place) write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(p.dir, name), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// certificate writes key and certificate into one file.
func (p place) certificate(t *testing.T, ca *posterntest.CA) {
	t.Helper()
	pair := ca.Issue(t, posterntest.DefaultNames, posterntest.RSA)
	var text []byte
	for _, path := range []string{pair.KeyFile, pair.CertFile} {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		text = append(text, b...)
	}
	p.write(t, "cert.pem", string(text))
}

// run runs a program in the tree to its end.
func (p place) run(t *testing.T, stdin, program string, args ...string) {
	t.Helper()
	cmd := p.tree.Command(program, args...)
	cmd.Stdin = strings.NewReader(stdin)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", program, err, out)
	}
}

// start runs a program until the test ends. What it writes goes to the file log.
func (p place) start(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	out, err := os.OpenFile(filepath.Join(p.dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o666)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	cmd.Stdout, cmd.Stderr = out, out
	// At its end Cyrus kills all of its group that it may: Dovecot's processes, too.
	cmd.SysProcAttr.Setpgid = true
	if err := cmd.Start(); err != nil {
		t.Fatalf("starting %s: %v", cmd.Path, err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		timer := time.AfterFunc(10*time.Second, func() { _ = cmd.Process.Kill() })
		_ = cmd.Wait()
		timer.Stop()
	})
}

func (p place) log() string {
	text, _ := os.ReadFile(filepath.Join(p.dir, "log"))
	return string(text)
}

// give makes everything in the place belong to a user of the tree.
func (p place) give(t *testing.T, user string) {
	t.Helper()
	passwd, err := os.ReadFile(filepath.Join(string(p.tree), "etc/passwd"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(passwd)) {
		if f := strings.Split(line, ":"); f[0] == user {
			uid, _ := strconv.Atoi(f[2])
			gid, _ := strconv.Atoi(f[3])
			err := filepath.WalkDir(p.dir, func(path string, _ os.DirEntry, err error) error {
				if err != nil {
					return err
				}
				return os.Chown(path, uid, gid)
			})
			if err != nil {
				t.Fatal(err)
			}
			return
		}
	}
	t.Fatalf("no user %s in Debian 13", user)
}

const cyrusIMAPD = `configdirectory: DIR/lib
proc_path: DIR/run/proc
mboxname_lockpath: DIR/run/lock
idlesocket: DIR/run/idle
lmtpsocket: DIR/run/lmtp
notifysocket: DIR/run/notify
defaultpartition: default
partition-default: DIR/spool
sievedir: DIR/sieve
servername: mail.example.org
allowplaintext: yes
allowstarttls: yes
sasl_pwcheck_method: auxprop
sasl_auxprop_plugin: sasldb
sasl_sasldb_path: DIR/sasldb
sasl_mech_list: PLAIN LOGIN
autocreate_quota: 0
tls_server_cert: DIR/cert.pem
tls_server_key: DIR/cert.pem
tls_session_timeout: 0
`

// startCyrus has no ports for a PROXY header: Cyrus 3.10 knows none.
func startCyrus(t *testing.T, config string) *server {
	t.Helper()
	p := newPlace(t)
	s := &server{name: "Cyrus", compresses: true, ca: posterntest.NewCA(t), ports: ports(t, "imap", "imaps", "pop3", "pop3s"), log: p.log}
	p.certificate(t, s.ca)
	for _, dir := range []string{"lib", "lib/socket", "run", "spool", "sieve"} {
		if err := os.Mkdir(filepath.Join(p.dir, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	conf := strings.ReplaceAll(cyrusIMAPD, "DIR", p.inside)
	ready := s.logsIn
	if strings.HasPrefix(config, "allowplaintext") {
		conf = strings.Replace(conf, "allowplaintext: yes\n", "", 1) // it takes nothing twice
		ready = s.greets
	}
	p.write(t, "imapd.conf", conf+config)
	var services strings.Builder
	for protocol, address := range s.ports {
		name, secure := strings.CutSuffix(protocol, "s")
		fmt.Fprintf(&services, "  %s cmd=\"/usr/lib/cyrus/bin/%sd -C %s/imapd.conf%s\" listen=\"%s\" prefork=1\n",
			protocol, name, p.inside, map[bool]string{true: " -s"}[secure], address)
	}
	p.write(t, "cyrus.conf", fmt.Sprintf(`START {
  recover cmd="/usr/lib/cyrus/bin/ctl_cyrusdb -C %[1]s/imapd.conf -r"
}
DAEMON {
  idled cmd="/usr/lib/cyrus/bin/idled -C %[1]s/imapd.conf"
}
SERVICES {
%[2]s}
EVENTS {
}
`, p.inside, &services))
	for i := range maxUsers {
		p.run(t, password+"\n", "/usr/sbin/saslpasswd2", "-p", "-c", "-f", p.inside+"/sasldb", "-u", "mail.example.org", userName(i))
	}
	p.give(t, "cyrus")
	p.start(t, p.tree.Command("/usr/lib/cyrus/bin/master", "-C", p.inside+"/imapd.conf", "-M", p.inside+"/cyrus.conf",
		"-p", p.inside+"/run/pid", "-D"))
	waitFor(t, s.name, ready)
	return s
}

// startCourier reads Debian's configuration, with logins allowed without TLS and
// other files. Its authentication has one socket in the tree.
func startCourier(t *testing.T) *server {
	t.Helper()
	p := newPlace(t)
	p.tree.Lock(t, "courier")
	s := &server{name: "Courier", ca: posterntest.NewCA(t), headers: []string{"v1"}, log: p.log,
		ports: ports(t, "imap", "imaps", "pop3", "pop3s"), proxyPorts: ports(t, "imap", "pop3")}
	p.certificate(t, s.ca)
	var userdb strings.Builder
	for i := range maxUsers {
		home := p.inside + "/" + userName(i)
		if err := os.Mkdir(filepath.Join(p.dir, userName(i)), 0o755); err != nil {
			t.Fatal(err)
		}
		p.run(t, "", "/usr/bin/maildirmake.courier", home+"/Maildir")
		fmt.Fprintf(&userdb, "%s\tuid=8|gid=8|home=%s|mail=%s/Maildir|systempw=%s\n", userName(i), home, home, crypted)
	}
	// What is appended within a second it does not keep in order.
	s.put = func(t *testing.T, user string, messages [][]byte) {
		for i, m := range messages {
			p.write(t, fmt.Sprintf("%s/Maildir/new/%d.M1P1.example", user, 1000000000+i), string(m))
		}
	}
	p.give(t, "mail")
	p.write(t, "log", "")
	if err := os.Chmod(filepath.Join(p.dir, "log"), 0o666); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(string(p.tree), "etc/courier/userdb")
	if err := os.WriteFile(file, []byte(userdb.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	p.run(t, "", "/usr/sbin/makeuserdb")
	p.start(t, p.tree.Command("/bin/sh", "-c", `set -a
. /etc/courier/authdaemonrc
mkdir -p /run/courier/authdaemon
chown courier /run/courier/authdaemon
exec /usr/lib/courier/courier-authlib/authdaemond`))
	for protocol, address := range s.ports {
		p.listen(t, protocol, address, "")
	}
	for protocol, address := range s.proxyPorts {
		p.listen(t, protocol, address, "-haproxy=5")
	}
	waitFor(t, s.name, s.logsIn)
	return s
}

// crypted is the password as crypt(3) has it.
const crypted = "$6$postern$j08FbVYA4UNie17LtvhpBfedRo7qkrMwNqvIt9933QHUPfmje2WU.voQm/TEQGNLdj8F..jorDMAG.rVqPkvL/"

// listen runs one port of Courier as its scripts in /usr/lib/courier do.
func (p place) listen(t *testing.T, protocol, address, more string) {
	t.Helper()
	name, secure := strings.CutSuffix(protocol, "s")
	login := map[string]string{
		"imap": "/usr/lib/courier/courier/imaplogin /usr/bin/imapd Maildir",
		"pop3": "/usr/lib/courier/courier/courierpop3login /usr/lib/courier/courier/courierpop3d Maildir",
	}[name]
	variables := "IMAP_STARTTLS=YES"
	if secure {
		login = "/usr/bin/couriertls -server -tcpd -user=courier " + login
		variables = "IMAP_TLS=1 POP3_TLS=1"
	}
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	p.start(t, p.tree.Command("/bin/sh", "-c", fmt.Sprintf(`set -a
prefix=/usr exec_prefix=/usr sbindir=/usr/sbin bindir=/usr/bin
. /etc/courier/%[1]sd
. /etc/courier/%[1]sd-ssl
IMAP_CAPABILITY="$IMAP_CAPABILITY AUTH=PLAIN" IMAP_CAPABILITY_TLS=$IMAP_CAPABILITY
POP3AUTH="PLAIN LOGIN" POP3AUTH_TLS="PLAIN LOGIN"
TLS_CERTFILE=%[2]s/cert.pem TLS_CACHEFILE= %[3]s
exec couriertcpd -address=127.0.0.1 -maxprocs=100 -maxperip=100 -nodnslookup %[4]s -stderr=%[2]s/log %[5]s %[6]s`,
		name, p.inside, variables, more, port, login)))
}
