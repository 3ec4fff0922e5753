#!/usr/bin/env bash
# A mail program that a server refuses for its old TLS tells its user to update, or
# says nothing. Alpine explains that "your current setup is not compatible with the
# configuration of your mail server", and that "you may want to add the option
# /notls": its advice against too little security is none at all. Who follows it
# may send the password in clear.
#
# Seen with alpine 2.26 (Debian 12) limited to TLS 1.0, against s_server of the same
# Debian, which takes TLS 1.2 and later. Needs root for a chroot.
# Exits 1 where it is otherwise.
set -euo pipefail
work=$(mktemp -d)
server=
# shellcheck disable=SC2086 # no process, or one
trap 'kill $server 2>/dev/null || true; rm -rf "$work"' EXIT

echo 'making a chroot of Debian 12 with alpine, openssl and tmux'
debootstrap --variant=minbase --include=alpine,openssl,tmux bookworm "$work/root" >"$work/log" 2>&1
inside() { chroot "$work/root" env HOME=/alpine TERM=xterm LANG=C.UTF-8 OPENSSL_CONF="${old:-}" "$@"; }
inside dpkg-query -W alpine
inside openssl req -x509 -newkey rsa:2048 -nodes -subj /CN=localhost -keyout /key -out /cert -config /etc/ssl/openssl.cnf >"$work/log" 2>&1
sleep 60 | inside openssl s_server -accept 127.0.0.1:19933 -key /key -cert /cert -quiet -min_protocol TLSv1.2 >"$work/log" 2>&1 &
server=$!
sleep 1

mkdir -p "$work/root/alpine/mail" "$work/root/dev/pts"
printf '%s\n' 'openssl_conf = a' '[a]' 'ssl_conf = b' '[b]' 'system_default = c' '[c]' 'MinProtocol = TLSv1' \
	'MaxProtocol = TLSv1' 'CipherString = DEFAULT:@SECLEVEL=0' >"$work/root/alpine/old"
printf '%s\n' 'user-domain=example.org' 'inbox-path={127.0.0.1:19933/ssl/user=a}INBOX' \
	'last-time-prune-questioned=126.11' 'last-version-used=6.26' >"$work/root/alpine/.pinerc"
old=/alpine/old
# shellcheck disable=SC2016 # for the inner shell
# A terminal needs /dev/pts, which leaves with the namespace.
unshare -m bash -c 'mount -t devpts -o ptmxmode=666 devpts "$1/dev/pts"; mount --bind "$1/dev/pts/ptmx" "$1/dev/ptmx"
	chroot "$1" env HOME=/alpine TERM=xterm LANG=C.UTF-8 OPENSSL_CONF=/alpine/old sh -c "
		tmux -L alpine new-session -d -x 130 -y 40 alpine -p /alpine/.pinerc -i
		sleep 8; tmux -L alpine capture-pane -p; tmux -L alpine kill-server"' - "$work/root" >"$work/screen" 2>&1 || true
grep -v '^ *$' "$work/screen"
grep -q 'SSL/TLS FAILURE' "$work/screen" && grep -q '/notls' "$work/screen"
