package subject

import (
	"fmt"
	"os/exec"
	"path/filepath"
)

// Stunnel has one thread a connection (there is no limit to set on them).
var Stunnel = &Subject{
	Name: "stunnel", Peer: true, Note: "a thread per connection",
	Size: packages("stunnel4"),
	Bin:  at("/usr/bin/stunnel4"), Version: versionOf(at("/usr/bin/stunnel4"), "-version"),
	Plan: func(o Options) (Plan, error) {
		log := filepath.Join(o.Dir, "stunnel.log")
		service := func(name string, listen, upstream int) string {
			return fmt.Sprintf(`[%s]
accept = 127.0.0.1:%d
connect = 127.0.0.1:%d
cert = %s
key = %s
sslVersionMin = TLSv1.2
ciphersuites = TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256
libwrap = no
`, name, listen, upstream, o.Cert.Cert, o.Cert.Key)
		}
		cfg, err := write(o, "stunnel.conf", fmt.Sprintf(`foreground = yes
pid =
syslog = no
debug = %s
output = %s
socket = l:TCP_NODELAY=1
socket = r:TCP_NODELAY=1
%s%s`, iff(o.Log, "5", "0"), log,
			service("imaps", o.IMAPS, o.Stub.IMAP), service("pop3s", o.POP3S, o.Stub.POP3)))
		return Plan{Cmds: []*exec.Cmd{exec.Command("/usr/bin/stunnel4", cfg)}, Log: log}, err
	},
}
