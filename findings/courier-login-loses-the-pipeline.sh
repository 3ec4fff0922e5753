#!/usr/bin/env bash
# Courier IMAP throws away what comes behind LOGIN in the same segment, and with
# -haproxy closes the connection on "PROXY UNKNOWN".
#
# A client may send several commands at once (RFC 9051, Section 5.5), and Courier
# answers several before the login. But what its login program has read behind a
# LOGIN is gone when it starts the server proper: no answer, no error, and a
# client that pipelines waits for ever. The specification of the PROXY protocol
# has every receiver take "PROXY UNKNOWN"; couriertcpd calls it malformed, or waits
# for more, so a health check that sends it finds a healthy Courier dead.
#
# Debian 13, courier-imap 5.2.11+1.4.1. Takes a minute.
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

debootstrap --variant=minbase trixie "$tree" >"$work/log" 2>&1 ||
	{ tail -n 3 "$work/log" >&2; exit 1; }
printf '#!/bin/sh\nexit 101\n' >"$tree/usr/sbin/policy-rc.d"
chmod 755 "$tree/usr/sbin/policy-rc.d"
inside apt-get -q update >"$work/log" 2>&1
inside apt-get -q -y install --no-install-recommends msmtp-mta courier-imap courier-authlib-userdb >"$work/log" 2>&1 ||
	{ tail -n 3 "$work/log" >&2; exit 1; }
version=$(inside dpkg-query -W -f '${Version}' courier-imap)
echo "courier-imap $version"
[[ $version == 5.2.11+1.4.1* ]] || fail 'another version'

mkdir "$tree/d"
inside sh -c '
mkdir /d/anna
maildirmake.courier /d/anna/Maildir
chown -R mail:mail /d/anna
sed -i "s/^authmodulelist=.*/authmodulelist=authuserdb/" /etc/courier/authdaemonrc
umask 077
printf "anna\tuid=8|gid=8|home=/d/anna|mail=/d/anna/Maildir|systempw=%s\n" "$(perl -e "print crypt(q(secret), q(\$6\$salt))")" >/etc/courier/userdb
makeuserdb
mkdir -p -m 755 /run/courier /run/courier/authdaemon
chown courier /run/courier/authdaemon'
chroot "$tree" sh -c 'set -a; . /etc/courier/authdaemonrc; exec /usr/lib/courier/courier-authlib/authdaemond' >"$work/auth" 2>&1 &
pids+=($!)
# couriertcpd runs as Debian's /usr/lib/courier/imapd starts it.
serve() {
	chroot "$tree" sh -c "set -a; . /etc/courier/imapd; prefix=/usr exec_prefix=/usr sbindir=/usr/sbin bindir=/usr/bin
		exec couriertcpd -address=127.0.0.1 -nodnslookup -stderr=/d/log $2 $1 \\
			/usr/lib/courier/courier/imaplogin /usr/bin/imapd Maildir" >"$work/tcpd" 2>&1 &
	pids+=($!)
}
serve 11145 ''
serve 11146 -haproxy=5
# say PORT TEXT prints what comes within three seconds.
say() {
	(
		exec 3<>"/dev/tcp/127.0.0.1/$1"
		printf "$2" >&3
		timeout 3 cat <&3 | cut -c 1-100
	) 2>/dev/null || true
}
for try in {1..50}; do
	if grep -q 'a OK' <(say 11145 'a LOGIN anna secret\r\n'); then break; fi
	sleep .2
done

echo '== two commands at once, before the login'
say 11145 'a NOOP\r\nb NOOP\r\n' | tee "$work/before"
echo '== LOGIN and NOOP at once'
say 11145 'a LOGIN anna secret\r\nb NOOP\r\n' | tee "$work/login"
echo '== PROXY TCP4'
say 11146 'PROXY TCP4 127.0.0.1 127.0.0.1 4711 143\r\n' | tee "$work/tcp4"
echo '== PROXY UNKNOWN'
say 11146 'PROXY UNKNOWN\r\n' | tee "$work/unknown"
sleep 3
grep '^haproxy: ' "$tree/d/log" | tail -n 1 | tee "$work/why"

grep -q '^b OK' "$work/before" || fail 'before the login the second command is lost, too'
grep -q '^a OK' "$work/login" || fail 'the login fails'
! grep -q '^b ' "$work/login" || fail 'the NOOP behind the login is answered'
grep -q '^\* OK' "$work/tcp4" || fail 'PROXY TCP4 is refused'
[ ! -s "$work/unknown" ] || fail 'PROXY UNKNOWN is taken'
grep -Eq 'malformed PROXY|timeout' "$work/why" || fail 'the log gives another reason'
echo 'As said above.'
