package dovecot

import (
	"fmt"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"text/template"
)

// owner is who Dovecot's parts run as. Started by root it keeps the separation
// of a real installation; otherwise everything is the caller's.
type owner struct {
	Internal, Login string
	UID, GID        int
	Chroot          bool
}

func currentOwner() (owner, error) {
	if os.Getuid() != 0 {
		u, err := user.Current()
		if err != nil {
			return owner{}, fmt.Errorf("finding the current user: %w", err)
		}
		return owner{Internal: u.Username, Login: u.Username, UID: os.Getuid(), GID: os.Getgid()}, nil
	}
	u, err := user.Lookup("mail")
	if err != nil {
		return owner{}, fmt.Errorf("finding whom mail belongs to: %w", err)
	}
	uid, err := strconv.Atoi(u.Uid)
	if err != nil {
		return owner{}, fmt.Errorf("reading the uid of mail: %w", err)
	}
	gid, err := strconv.Atoi(u.Gid)
	if err != nil {
		return owner{}, fmt.Errorf("reading the gid of mail: %w", err)
	}
	return owner{Internal: "dovecot", Login: "dovenull", UID: uid, GID: gid, Chroot: true}, nil
}

// The delays against guessing are off, and so is the limit on connections from
// one address: behind a proxy every client has the same one, and tests fail
// logins on purpose. Login processes are shared, as on a busy server, and are
// there from the start: an early client is not told to wait for authentication.
var config = template.Must(template.New("conf").Parse(`
base_dir = {{.Dir}}/run
state_dir = {{.Dir}}/run
instance_name = {{.Dir}}
log_path = {{.Dir}}/log
auth_verbose = yes
protocols = imap pop3
listen = 127.0.0.1
default_internal_user = {{.Internal}}
default_login_user = {{.Login}}
{{- if not .Chroot}}
default_internal_group =
service anvil {
  chroot =
}
{{- end}}
auth_mechanisms = plain login
auth_failure_delay = 0
disable_plaintext_auth = yes
{{- if .HAProxy}}
haproxy_trusted_networks = 127.0.0.0/8
{{- end}}
mail_max_userip_connections = 0
mailbox_idle_check_interval = 1s
first_valid_uid = {{.UID}}
first_valid_gid = {{.GID}}
mail_location = maildir:{{.Dir}}/mail/%u
passdb {
  driver = passwd-file
  args = scheme=PLAIN username_format=%u {{.Dir}}/users
}
userdb {
  driver = static
  args = uid={{.UID}} gid={{.GID}} home={{.Dir}}/mail/%u
}
{{- if .CertFile}}
ssl = yes
ssl_cert = <{{.CertFile}}
ssl_key = <{{.KeyFile}}
{{- else}}
ssl = no
{{- end}}
service anvil {
  unix_listener anvil-auth-penalty {
    mode = 0
  }
}
{{range .Services}}
service {{.Name}}-login {
  service_count = 0
  process_min_avail = 1
{{- if not $.Chroot}}
  chroot =
{{- end}}
  inet_listener {{.Name}} {
    port = {{.Port}}
  }
  inet_listener {{.Name}}s {
    port = {{.TLSPort}}
  }
{{- if .ProxyPort}}
  inet_listener {{.Name}}_haproxy {
    port = {{.ProxyPort}}
    haproxy = yes
  }
{{- end}}
{{- if .ProxyTLSPort}}
  inet_listener {{.Name}}s_haproxy {
    port = {{.ProxyTLSPort}}
    ssl = yes
    haproxy = yes
  }
{{- end}}
}
{{end}}
protocol imap {
  mail_plugins = imap_zlib
  mail_max_userip_connections = 0
}
protocol pop3 {
  mail_max_userip_connections = 0
}
`))

type service struct {
	Name                     string
	Port, TLSPort, ProxyPort int // TLSPort 0 closes it, ProxyPort 0 leaves it out
	ProxyTLSPort             int // 0 leaves it out
}

// configure chooses the ports and writes everything Dovecot reads at its start.
func (s *Server) configure(o Options) error {
	who, err := currentOwner()
	if err != nil {
		return err
	}
	ports, err := freePorts(8)
	if err != nil {
		return err
	}
	imap, pop3 := service{Name: "imap", Port: ports[0]}, service{Name: "pop3", Port: ports[1]}
	s.IMAP, s.POP3 = loopback(imap.Port), loopback(pop3.Port)
	if o.CertFile != "" {
		imap.TLSPort, pop3.TLSPort = ports[2], ports[3]
		s.IMAPS, s.POP3S = loopback(imap.TLSPort), loopback(pop3.TLSPort)
	}
	if o.HAProxy {
		imap.ProxyPort, pop3.ProxyPort = ports[4], ports[5]
		s.ProxyIMAP, s.ProxyPOP3 = loopback(imap.ProxyPort), loopback(pop3.ProxyPort)
	}
	if o.HAProxy && o.CertFile != "" {
		imap.ProxyTLSPort, pop3.ProxyTLSPort = ports[6], ports[7]
		s.ProxyIMAPS, s.ProxyPOP3S = loopback(imap.ProxyTLSPort), loopback(pop3.ProxyTLSPort)
	}
	if err := s.takeCertificate(&o); err != nil {
		return err
	}
	version, dir := config, s.dir
	if s.tree != "" {
		version, dir = config24, s.tree.Inside(s.dir)
	}
	var conf strings.Builder
	err = version.Execute(&conf, struct {
		owner
		Options
		Dir      string
		Services []service
	}{who, o, dir, []service{imap, pop3}})
	if err != nil {
		return fmt.Errorf("filling in the configuration: %w", err)
	}
	conf.WriteString(o.Config + "\n")
	var users strings.Builder
	for _, u := range o.Users {
		fmt.Fprintf(&users, "%s:{PLAIN}%s\n", u.Name, u.Password)
	}
	if err := s.writeFiles(conf.String(), users.String()); err != nil {
		return err
	}
	return s.makeMaildirs(who, o.Users)
}

// takeCertificate copies it to where a Dovecot in a tree can read it.
func (s *Server) takeCertificate(o *Options) error {
	if s.tree == "" {
		return nil
	}
	for name, path := range map[string]*string{"cert.pem": &o.CertFile, "key.pem": &o.KeyFile} {
		if *path == "" {
			continue
		}
		text, err := os.ReadFile(*path)
		if err != nil {
			return fmt.Errorf("reading for dovecot: %w", err)
		}
		to := filepath.Join(s.dir, name)
		if err := os.WriteFile(to, text, 0o600); err != nil {
			return fmt.Errorf("writing for dovecot: %w", err)
		}
		*path = s.tree.Inside(to)
	}
	return nil
}

// writeFiles lets everyone look into the directory: Dovecot's processes change
// their user before they read.
func (s *Server) writeFiles(conf, users string) error {
	if err := os.Chmod(s.dir, 0o755); err != nil {
		return fmt.Errorf("opening the directory to dovecot: %w", err)
	}
	for name, text := range map[string]string{"conf": conf, "users": users} {
		path := filepath.Join(s.dir, name)
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			return fmt.Errorf("writing for dovecot: %w", err)
		}
	}
	return nil
}

func (s *Server) makeMaildirs(who owner, users []User) error {
	dirs := []string{filepath.Join(s.dir, "mail")}
	for _, u := range users {
		box := s.maildir(u.Name)
		dirs = append(dirs, box, filepath.Join(box, "tmp"), filepath.Join(box, "new"), filepath.Join(box, "cur"))
	}
	for _, dir := range dirs {
		if err := os.Mkdir(dir, 0o700); err != nil {
			return fmt.Errorf("making a mailbox: %w", err)
		}
		if err := os.Chown(dir, who.UID, who.GID); err != nil {
			return fmt.Errorf("giving a mailbox to its owner: %w", err)
		}
	}
	return nil
}

func (s *Server) maildir(user string) string { return filepath.Join(s.dir, "mail", user) }

func loopback(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

// freePorts holds all ports until the last is found, so that none comes twice.
func freePorts(n int) ([]int, error) {
	ports := make([]int, n)
	for i := range ports {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, fmt.Errorf("finding a free port: %w", err)
		}
		defer l.Close()
		ports[i] = l.Addr().(*net.TCPAddr).Port
	}
	return ports, nil
}
