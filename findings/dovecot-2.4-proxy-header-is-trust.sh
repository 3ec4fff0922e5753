#!/usr/bin/env bash
# Dovecot 2.4 allows plaintext logins to whoever comes with a PROXY header.
#
# With "auth_allow_cleartext = no" one expects a login without TLS to be refused
# unless the header (version 2) says that the client's side is encrypted; 2.3
# does that. 2.4 takes every connection that begins with a header, also one of
# version 1 that can say nothing of TLS, like one from login_trusted_networks:
# the greeting lists AUTH=PLAIN instead of LOGINDISABLED, and the login succeeds.
# Only with "ssl = required" is it refused, and then PROXY UNKNOWN, which stands
# for the connection's own addresses, is still let in over loopback.
#
# Debian 13, dovecot-imapd 1:2.4.1. Takes a minute.
set -euo pipefail
[ "$(id -u)" = 0 ] || { echo "this needs root, for debootstrap and chroot" >&2; exit 2; }
work=$(mktemp -d)
pids=()
cleanup() {
	local pid
	for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
	wait
	rm -rf --one-file-system "$work"
}
trap cleanup EXIT
tree=$work/tree
inside() { chroot "$tree" env DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8 "$@" </dev/null; }
fail() { echo "OTHERWISE: $*" >&2; exit 1; }

debootstrap --variant=minbase --include=dovecot-imapd,openssl trixie "$tree" http://deb.debian.org/debian >"$work/log" 2>&1 ||
	{ tail -n 3 "$work/log" >&2; exit 1; }
version=$(inside dpkg-query -W -f '${Version}' dovecot-imapd)
echo "dovecot-imapd $version"
[[ $version == 1:2.4.1* ]] || fail 'another version'

mkdir "$tree/d" "$tree/d/mail"
inside chown mail:mail /d/mail
echo 'anna:{PLAIN}secret' >"$tree/d/users"
inside openssl req -x509 -newkey rsa:2048 -nodes -keyout /d/key -out /d/cert -days 2 -subj /CN=localhost 2>/dev/null
# run SSL starts Dovecot with that setting; 127.0.0.1:11143 takes no header,
# 127.0.0.1:11144 begins with one.
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
ssl = $1
ssl_server_cert_file = /d/cert
ssl_server_key_file = /d/key
haproxy_trusted_networks = 127.0.0.0/8
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
  inet_listener behind {
    port = 11144
    haproxy = yes
  }
}
CONF
	chroot "$tree" /usr/sbin/dovecot -F -c /d/conf >"$work/out" 2>&1 &
	dovecot=$!
	pids+=("$dovecot")
	local try
	for try in {1..50}; do
		if grep -q 'a OK' <(login 11144 'PROXY UNKNOWN\r\n'); then return; fi
		sleep .2
	done
	cat "$work/out" "$tree/d/log" >&2
	fail 'Dovecot does not answer'
}
stop() {
	kill "$dovecot"
	wait "$dovecot" || true
	pids=()
}
# login PORT HEADER prints the dialogue of a login without TLS.
login() {
	(
		exec 3<>"/dev/tcp/127.0.0.1/$1"
		printf "$2" >&3
		printf 'a LOGIN anna secret\r\nb LOGOUT\r\n' >&3
		timeout 10 cat <&3 | cut -c 1-170
	) 2>/dev/null || true
}
v1='PROXY TCP4 192.0.2.7 198.51.100.1 4711 143\r\n'

run yes
echo '== ssl = yes, header of version 1 for 192.0.2.7'
login 11144 "$v1" | tee "$work/yes"
stop
run required
echo '== ssl = required, the same'
login 11144 "$v1" | tee "$work/required"
echo '== ssl = required, PROXY UNKNOWN'
login 11144 'PROXY UNKNOWN\r\n' | tee "$work/unknown"
stop

grep -q '^a OK' "$work/yes" || fail 'ssl = yes: the login is refused'
grep -q 'LOGINDISABLED' "$work/required" || fail 'ssl = required: LOGINDISABLED is missing'
! grep -q '^a OK' "$work/required" || fail 'ssl = required: the login succeeds'
grep -q '^a OK' "$work/unknown" || fail 'UNKNOWN: the login is refused'
echo 'As said above.'
