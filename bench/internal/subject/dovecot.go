package subject

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// Dovecot is a login proxy: its login processes take the login, ask the auth
// process (which says yes and where to), and log in upstream.
var Dovecot = &Subject{
	Name: "dovecot", Peer: true, Root: true, Note: "login proxy, passdb static, service_count=0, 2 login processes",
	Size: packages("dovecot-core", "dovecot-imapd", "dovecot-pop3d"),
	Bin:  at("/usr/sbin/dovecot"), Version: versionOf(at("/usr/sbin/dovecot"), "--version"),
	Plan: func(o Options) (Plan, error) {
		log := filepath.Join(o.Dir, "dovecot.log")
		login := func(name string, plain, tls int) string {
			return fmt.Sprintf(`service %s-login {
  service_count = 0
  process_min_avail = 2
  process_limit = 2
  client_limit = %d
  vsz_limit = 0
  inet_listener %s {
    port = %d
  }
  inet_listener %ss {
    port = %d
    ssl = yes
  }
}
`, name, o.MaxConn, name, plain, name, tls)
		}
		cfg, err := write(o, "dovecot.conf", fmt.Sprintf(`protocols = imap pop3
listen = 127.0.0.1
base_dir = %[1]s/run
state_dir = %[1]s/state
log_path = %[2]s
ssl = required
ssl_cert = <%[3]s
ssl_key = <%[4]s
ssl_min_protocol = TLSv1.2
auth_mechanisms = plain login
mail_max_userip_connections = 0
default_client_limit = %[5]d
default_vsz_limit = 0
service stats {
  client_limit = %[5]d
}
passdb {
  driver = static
  args = nopassword=y proxy=y host=127.0.0.1 port=%%{if;%%s;eq;imap;%[6]d;%[7]d}
}
`, o.Dir, iff(o.Log, log, "/dev/null"), o.Cert.Cert, o.Cert.Key, 2*o.MaxConn+100, o.Stub.IMAP, o.Stub.POP3)+
			login("imap", o.IMAP, o.IMAPS)+login("pop3", o.POP3, o.POP3S))
		if err == nil {
			err = os.MkdirAll(filepath.Join(o.Dir, "state"), 0o755)
		}
		return Plan{Cmds: []*exec.Cmd{exec.Command("/usr/sbin/dovecot", "-F", "-c", cfg)}, Log: log}, err
	},
}
