package subject

import (
	"fmt"
	"os/exec"
	"path/filepath"
)

// NginxMail is nginx's mail proxy: it greets and takes the login itself, asks
// an HTTP endpoint where to send the user, and logs in upstream.
var NginxMail = &Subject{
	Name: "nginx-mail", Peer: true, Note: "mail module, auth_http, 2 workers",
	Size: packages("nginx-light", "libnginx-mod-mail"),
	Bin:  at("/usr/sbin/nginx"), Version: versionOf(at("/usr/sbin/nginx"), "-v"),
	Plan: func(o Options) (Plan, error) {
		return nginx(o, "mail", fmt.Sprintf(`mail {
  auth_http 127.0.0.1:%d/auth;
  %s
  server { listen 127.0.0.1:%d ssl backlog=4096; protocol imap; imap_auth plain login; }
  server { listen 127.0.0.1:%d ssl backlog=4096; protocol pop3; pop3_auth plain; }
}`, o.Stub.AuthHTTP, nginxTLS(o), o.IMAPS, o.POP3S))
	},
}

// NginxStream is nginx as a plain TLS terminator.
var NginxStream = &Subject{
	Name: "nginx-stream", Peer: true, Note: "stream module, ssl termination, 2 workers",
	Size: packages("nginx-light", "libnginx-mod-stream"),
	Bin:  at("/usr/sbin/nginx"), Version: versionOf(at("/usr/sbin/nginx"), "-v"),
	Plan: func(o Options) (Plan, error) {
		return nginx(o, "stream", fmt.Sprintf(`stream {
  %s
  proxy_timeout 30m;
  server { listen 127.0.0.1:%d ssl backlog=4096; proxy_pass 127.0.0.1:%d; }
  server { listen 127.0.0.1:%d ssl backlog=4096; proxy_pass 127.0.0.1:%d; }
}`, nginxTLS(o), o.IMAPS, o.Stub.IMAP, o.POP3S, o.Stub.POP3))
	},
}

// nginxTLS is what both modules are told about TLS.
func nginxTLS(o Options) string {
	return fmt.Sprintf("ssl_certificate %s;\n  ssl_certificate_key %s;\n  ssl_protocols TLSv1.2 TLSv1.3;", o.Cert.Cert, o.Cert.Key)
}

// nginx writes a configuration with one module's block in it.
func nginx(o Options, module, block string) (Plan, error) {
	log := filepath.Join(o.Dir, "error.log")
	cfg, err := write(o, "nginx.conf", fmt.Sprintf(`load_module /usr/lib/nginx/modules/ngx_%s_module.so;
user root;
daemon off;
worker_processes 2;
pid %s/nginx.pid;
error_log %s %s;
events { worker_connections %d; }
%s
`, module, o.Dir, log, iff(o.Log, "info", "emerg"), 2*o.MaxConn+100, block))
	return Plan{Cmds: []*exec.Cmd{exec.Command("/usr/sbin/nginx", "-p", o.Dir, "-e", log, "-c", cfg)}, Log: log}, err
}
