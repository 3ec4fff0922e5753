package subject

import (
	"fmt"
	"os/exec"
)

// Haproxy runs in TCP mode, TLS in front, plaintext behind.
var Haproxy = &Subject{
	Name: "haproxy", Peer: true, Note: "TCP mode, bind ssl, nbthread 2",
	Size: packages("haproxy"),
	Bin:  at("/usr/sbin/haproxy"), Version: versionOf(at("/usr/sbin/haproxy"), "-v"),
	Plan: func(o Options) (Plan, error) {
		cfg, err := write(o, "haproxy.cfg", fmt.Sprintf(`global
  nbthread 2
  maxconn %d
  ssl-default-bind-options ssl-min-ver TLSv1.2
  ssl-default-bind-ciphersuites TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256
  %s
defaults
  mode tcp
  timeout connect 5s
  timeout client 30m
  timeout server 30m
  %s
listen imaps
  bind 127.0.0.1:%d ssl crt %s
  server up 127.0.0.1:%d
listen pop3s
  bind 127.0.0.1:%d ssl crt %s
  server up 127.0.0.1:%d
`, o.MaxConn, iff(o.Log, "log stdout format raw local0 info", ""), iff(o.Log, "log global\n  option tcplog", ""),
			o.IMAPS, o.Cert.Combined, o.Stub.IMAP, o.POP3S, o.Cert.Combined, o.Stub.POP3))
		return Plan{Cmds: []*exec.Cmd{exec.Command("/usr/sbin/haproxy", "-db", "-f", cfg)}}, err
	},
}
