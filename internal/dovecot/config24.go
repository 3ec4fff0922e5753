package dovecot

import "text/template"

// The same for Dovecot 2.4, whose settings have other names.
var config24 = template.Must(template.New("conf").Parse(`
dovecot_config_version = 2.4.0
dovecot_storage_version = 2.4.0
base_dir = {{.Dir}}/run
state_dir = {{.Dir}}/run
instance_name = {{.Dir}}
log_path = {{.Dir}}/log
auth_verbose = yes
protocols = imap pop3
listen = 127.0.0.1
default_internal_user = {{.Internal}}
default_login_user = {{.Login}}
auth_mechanisms = plain login
auth_failure_delay = 0
auth_allow_cleartext = no
{{- if .HAProxy}}
haproxy_trusted_networks = 127.0.0.0/8
{{- end}}
mail_max_userip_connections = 0
mailbox_idle_check_interval = 1s
first_valid_uid = {{.UID}}
first_valid_gid = {{.GID}}
mail_driver = maildir
mail_path = {{.Dir}}/mail/%{user}
passdb passwd-file {
  passwd_file_path = {{.Dir}}/users
}
userdb static {
  fields {
    uid = {{.UID}}
    gid = {{.GID}}
    home = {{.Dir}}/mail/%{user}
  }
}
{{- if .CertFile}}
ssl = yes
ssl_server_cert_file = {{.CertFile}}
ssl_server_key_file = {{.KeyFile}}
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
  restart_request_count = unlimited
  process_min_avail = 1
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
`))
