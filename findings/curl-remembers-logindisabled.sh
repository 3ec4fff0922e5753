#!/usr/bin/env bash
# LOGINDISABLED before TLS is what RFC 9051 (section 6.2.3, 11.1) asks of a server that
# wants STARTTLS first, and what a client learns before TLS it must forget (6.2.1). curl
# asks for the capabilities again inside TLS, is told that nothing is disabled, and does
# not log in all the same: "Login denied", exit code 67, and no LOGIN was sent. Only
# where the server also offers a SASL mechanism (AUTH=PLAIN) does it get in, so that a
# proxy in front of an IMAP server without SASL serves curl on 993 and not on 143.
#
# Seen with curl 7.88.1 (Debian 12) and 8.14.1 (Debian 13). Needs curl, python3, openssl.
# Exits 1 where it is otherwise.
set -euo pipefail
work=$(mktemp -d)
server=
# shellcheck disable=SC2086 # no process, or one
trap 'kill $server 2>/dev/null || true; rm -rf "$work"' EXIT
curl --version | head -1 | cut -d ' ' -f 1-2
openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -keyout "$work/key" -out "$work/cert" 2>"$work/log"

# An IMAP server that says before TLS what its argument is, and LOGIN alone inside it.
cat >"$work/server.py" <<'END'
import socket, ssl, sys
before, inside = sys.argv[1:3]
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(sys.argv[3] + "/cert", sys.argv[3] + "/key")
s = socket.create_server(("127.0.0.1", 0))
print(s.getsockname()[1], flush=True)
c, _ = s.accept()
capabilities = "IMAP4rev1 STARTTLS " + before
c.sendall(f"* OK [CAPABILITY {capabilities}] ready\r\n".encode())
while line := c.recv(4096).decode():
    print("C:", line.strip(), flush=True)
    tag, command = line.split()[:2]
    if command == "CAPABILITY":
        c.sendall(f"* CAPABILITY {capabilities}\r\n".encode())
    c.sendall(f"{tag} OK done\r\n".encode())
    if command == "STARTTLS":
        c, capabilities = context.wrap_socket(c, server_side=True), "IMAP4rev1 " + inside
END
try() { # BEFORE INSIDE; leaves what the client said in $work/said
	python3 "$work/server.py" "$1" "$2" "$work" >"$work/said" &
	server=$!
	for _ in $(seq 100); do [ -s "$work/said" ] && break; sleep 0.1; done
	code=0
	curl -sS -k --max-time 10 --ssl-reqd -u anna:secret "imap://localhost:$(head -1 "$work/said")/" >"$work/log" 2>&1 || code=$?
	kill $server 2>/dev/null || true
	wait $server 2>/dev/null || true
	server=
	echo "before TLS '$1', inside '$2': exit $code, $(grep -cE 'LOGIN|AUTHENTICATE' "$work/said" || true) login sent"
}
try '' ''
[ $code = 0 ] && grep -q LOGIN "$work/said"
try LOGINDISABLED 'SASL-IR AUTH=PLAIN'
[ $code = 0 ] && grep -q AUTHENTICATE "$work/said"
try LOGINDISABLED ''
[ $code = 67 ] && grep -q CAPABILITY "$work/said" && ! grep -q LOGIN "$work/said"
