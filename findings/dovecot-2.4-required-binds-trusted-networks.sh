#!/usr/bin/env bash
# Dovecot 2.4: "ssl = required" also binds the hosts of login_trusted_networks.
#
# A proxy on a private line relies on login_trusted_networks to log its clients
# in without TLS. In 2.3 that held whatever ssl said. In 2.4 it holds with
# "ssl = yes", and with "ssl = required" the same host gets LOGINDISABLED, and
# its LOGIN the answer PRIVACYREQUIRED: after the upgrade no client of the proxy
# can log in, though no setting of the proxy has changed.
#
# Debian 13, dovecot-imapd 1:2.4.1. Takes a minute.
set -euo pipefail
[ "$(id -u)" = 0 ] || { echo "this needs root, for debootstrap and chroot" >&2; exit 2; }
work=$(mktemp -d)
dovecot=
cleanup() {
	stop
	rm -rf --one-file-system "$work"
}
stop() {
	[ -z "$dovecot" ] || kill "$dovecot" 2>/dev/null || true
	wait
	dovecot=
}
trap cleanup EXIT
tree=$work/tree
inside() { chroot "$tree" env DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8 "$@" </dev/null; }
fail() { echo "OTHERWISE: $*" >&2; exit 1; }

debootstrap --variant=minbase --include=dovecot-imapd,openssl trixie "$tree" >"$work/log" 2>&1 ||
	{ tail -n 3 "$work/log" >&2; exit 1; }
version=$(inside dpkg-query -W -f '${Version}' dovecot-imapd)
echo "dovecot-imapd $version"
[[ $version == 1:2.4.1* ]] || fail 'another version'

mkdir "$tree/d" "$tree/d/mail"
inside chown mail:mail /d/mail
echo 'anna:{PLAIN}secret' >"$tree/d/users"
inside openssl req -x509 -newkey rsa:2048 -nodes -keyout /d/key -out /d/cert -days 2 -subj /CN=localhost 2>/dev/null

# run SSL starts Dovecot with that setting on 127.0.0.1:11143, and trusts 127.0.0.2.
run() {
	cat >"$tree/d/conf" <<CONF
dovecot_config_version = 2.4.0
dovecot_storage_version = 2.4.0
base_dir = /d/run
log_path = /d/log
protocols = imap
listen = 127.0.0.1
first_valid_uid = 8
first_valid_gid = 8
mail_driver = maildir
mail_path = /d/mail/%{user}
auth_allow_cleartext = no
login_trusted_networks = 127.0.0.2
ssl = $1
ssl_server_cert_file = /d/cert
ssl_server_key_file = /d/key
passdb passwd-file {
  passwd_file_path = /d/users
}
userdb static {
  fields {
    uid = 8
    gid = 8
    home = /d/mail/%{user}
  }
}
service imap-login {
  inet_listener imap {
    port = 11143
  }
  inet_listener imaps {
    port = 0
  }
}
CONF
	chroot "$tree" /usr/sbin/dovecot -F -c /d/conf >"$work/out" 2>&1 &
	dovecot=$!
	local try
	for try in {1..50}; do
		if grep -q 'BYE' <(login 127.0.0.2); then return; fi
		sleep .2
	done
	cat "$work/out" "$tree/d/log" >&2
	fail 'Dovecot does not answer'
}
# login ADDRESS prints the dialogue of a login without TLS from that address.
login() {
	python3 - "$1" 2>/dev/null <<'PYTHON' | cut -c 1-150 || true
import socket, sys
peer = socket.create_connection(("127.0.0.1", 11143), 10, (sys.argv[1], 0))
lines = peer.makefile("rwb")
sys.stdout.write(lines.readline().decode())
for line in b"a LOGIN anna secret\r\n", b"b LOGOUT\r\n":
    lines.write(line)
    lines.flush()
    for answer in lines:
        sys.stdout.write(answer.decode())
        if answer.startswith(line[:2]):
            break
PYTHON
}

for ssl in yes required; do
	run "$ssl"
	echo "== ssl = $ssl, from 127.0.0.2, which is trusted"
	login 127.0.0.2 | tee "$work/$ssl"
	stop
done
grep -q '^a OK' "$work/yes" || fail 'ssl = yes: the login is refused'
grep -q 'LOGINDISABLED' "$work/required" || fail 'ssl = required: LOGINDISABLED is missing'
grep -q '^a NO \[PRIVACYREQUIRED\]' "$work/required" || fail 'ssl = required: the login is not refused'
echo 'As said above.'
