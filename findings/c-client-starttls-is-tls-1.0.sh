#!/usr/bin/env bash
# A program's TLS comes from its TLS library, so with OpenSSL 3.0 it speaks TLS 1.3,
# whichever port it takes. Not c-client, the IMAP library of the University of Washington,
# which PHP's imap functions, mailsync and mailutil use: on 993 and 995 (/ssl) it offers
# TLS 1.3, after STARTTLS and STLS (/tls) TLS 1.0 and nothing newer, since it asks for
# TLSv1_client_method there. So a ticket system or webmail of this year shows up as an old
# client on 143 and 110 alone, and what mends it is no update but /ssl in place of /tls.
# (alpine has a c-client of its own that does better.)
#
# Seen with Debian 12: libc-client2007e 2007f under mailutil and PHP 8.2, OpenSSL 3.0.
# Needs root for a chroot, python3. Exits 1 where it is otherwise.
set -euo pipefail
work=$(mktemp -d)
server=
# shellcheck disable=SC2086 # no process, or one
trap 'kill $server 2>/dev/null || true; rm -rf "$work"' EXIT

echo 'making a chroot of Debian 12 with mailutil'
debootstrap --variant=minbase --include=uw-mailutils,ca-certificates,openssl bookworm "$work/root" >"$work/log" 2>&1
echo '127.0.0.1 localhost' >"$work/root/etc/hosts"

# Reads a ClientHello, after STARTTLS or at once, prints the newest version it offers and
# hangs up.
cat >"$work/server.py" <<'END'
import socket, sys
s = socket.create_server(("127.0.0.1", 0))
print(s.getsockname()[1], flush=True)
while True:
    c, _ = s.accept()
    if sys.argv[1] == "tls":
        c.sendall(b"* OK [CAPABILITY IMAP4rev1 STARTTLS LOGINDISABLED] ready\r\n")
        while line := c.recv(4096):
            tag, command = line.split()[:2]
            if command == b"CAPABILITY":
                c.sendall(b"* CAPABILITY IMAP4rev1 STARTTLS LOGINDISABLED\r\n")
            c.sendall(tag + b" OK done\r\n")
            if command == b"STARTTLS":
                break
    hello = c.recv(16384)
    c.close()
    if hello[:1] == b"\x16":
        newest = max([hello[10]] + [4] * (b"\x00\x2b\x00" in hello))  # supported_versions: TLS 1.3
        print(f"TLS 1.{newest - 1 if newest < 4 else 3}", flush=True)
END
for how in ssl tls; do
	python3 "$work/server.py" "$how" >"$work/seen-$how" &
	server=$!
	for _ in $(seq 100); do [ -s "$work/seen-$how" ] && break; sleep 0.1; done
	timeout 20 chroot "$work/root" mailutil check "{localhost:$(head -1 "$work/seen-$how")/imap/$how/novalidate-cert/user=a}INBOX" \
		</dev/null >>"$work/log" 2>&1 || true
	for _ in $(seq 50); do [ "$(wc -l <"$work/seen-$how")" -gt 1 ] && break; sleep 0.1; done
	kill $server
	wait $server 2>/dev/null || true
	server=
	echo "/$how: offers up to $(sed -n 2p "$work/seen-$how")"
done
[ "$(sed -n 2p "$work/seen-ssl")" = 'TLS 1.3' ] && [ "$(sed -n 2p "$work/seen-tls")" = 'TLS 1.0' ]
