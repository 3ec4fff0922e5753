#!/usr/bin/env bash
# A mail fetcher that could not fetch says so in its exit code: mpop 76, curl 35,
# fetchmail 2. fdm does not. It ends with 0 although the server refused the TLS
# handshake, although nobody listens, and although the password is wrong; only a
# line on stderr tells. A cron job that watches the exit code never notices.
#
# Seen with fdm 1.9 (Debian 12, 1.9+git20181219). Needs root for a chroot.
# Exits 1 where it is otherwise.
set -euo pipefail
work=$(mktemp -d)
servers=
# shellcheck disable=SC2086 # several processes
trap 'kill $servers 2>/dev/null || true; rm -rf "$work"' EXIT

echo 'making a chroot of Debian 12 with fdm and openssl'
debootstrap --variant=minbase --include=fdm,openssl,ca-certificates,python3-minimal,libpython3-stdlib \
	bookworm "$work/root" >"$work/log" 2>&1
chroot "$work/root" dpkg-query -W fdm
inside() { chroot "$work/root" "$@"; }
echo '127.0.0.1 localhost' >"$work/root/etc/hosts"
inside openssl req -x509 -newkey rsa:2048 -nodes -subj /CN=localhost -keyout /key -out /cert >"$work/log" 2>&1

# A server of TLS 1.3 alone, and an IMAP server that refuses every login.
sleep 60 | inside openssl s_server -accept 127.0.0.1:19931 -tls1_3 -key /key -cert /cert -quiet >"$work/log" 2>&1 &
servers=$!
cat >"$work/root/imap.py" <<'END'
import socketserver, ssl
class IMAP(socketserver.StreamRequestHandler):
    def handle(self):
        self.wfile.write(b"* OK ready\r\n")
        for line in self.rfile:
            tag, command = line.split()[:2]
            if command.upper() == b"CAPABILITY":
                self.wfile.write(b"* CAPABILITY IMAP4rev1\r\n" + tag + b" OK done\r\n")
            elif command.upper() == b"LOGIN":
                self.wfile.write(tag + b" NO [AUTHENTICATIONFAILED] wrong password\r\n")
            else:
                self.wfile.write(tag + b" OK done\r\n")
socketserver.TCPServer.allow_reuse_address = True
socketserver.ThreadingTCPServer(("127.0.0.1", 19932), IMAP).serve_forever()
END
inside python3 /imap.py >"$work/log" 2>&1 &
servers="$servers $!"
sleep 1

fetch() { # PORT PROTOCOL WHAT SAID OPTIONS
	mkdir -p "$work/root/home/a"
	printf '%s\n' 'action "keep" keep' 'match all action "keep"' \
		"account \"a\" $2 server \"localhost\" port $1 user \"a\" pass \"b\" ${5:-}" \
		>"$work/root/home/a/fdm.conf"
	chmod 600 "$work/root/home/a/fdm.conf"
	code=0
	inside env HOME=/home/a OPENSSL_CONF=/tls12 fdm -f /home/a/fdm.conf fetch >"$work/said" 2>&1 || code=$?
	echo "$3: exit code $code, it says: $(tr '\n' ' ' <"$work/said")"
	[ "$code" = 0 ] && grep -q "$4" "$work/said"
}
printf '%s\n' 'openssl_conf = a' '[a]' 'ssl_conf = b' '[b]' 'system_default = c' '[c]' \
	'MaxProtocol = TLSv1.2' >"$work/root/tls12"
fetch 19931 imaps 'TLS refused' 'alert protocol version' no-verify
fetch 19939 imaps 'nobody listens' 'onnection refused' no-verify
fetch 19932 imap 'wrong password' 'AUTHENTICATIONFAILED'
