#!/usr/bin/env bash
# A server that writes one line in one Write has it arrive as one line: so one
# would think, and so it is with OpenSSL. Go's crypto/tls, speaking TLS 1.0 with a
# CBC suite, splits each write into a record of one byte and a record of the rest
# (the cure for BEAST, "1/n-1"). A mail client that takes one read for one line
# meets the greeting "*", and then " OK ready".
#
# Seen with Go 1.26.8 as the server and Python 3.11.2 with OpenSSL 3.0 (Debian 12)
# as the client; the server of comparison is s_server of the same OpenSSL.
# Needs Go, and root for a chroot of Debian 12. Exits 1 where it is otherwise.
set -euo pipefail
work=$(mktemp -d)
server=
# shellcheck disable=SC2086 # no process, or one
trap 'kill $server 2>/dev/null || true; rm -rf "$work"' EXIT

echo 'making a chroot of Debian 12 with python3 and openssl'
debootstrap --variant=minbase --include=python3-minimal,libpython3-stdlib,openssl \
	bookworm "$work/root" >"$work/log" 2>&1
openssl() { chroot "$work/root" openssl "$@"; }
openssl req -x509 -newkey rsa:2048 -nodes -subj /CN=localhost -keyout /key -out /cert >"$work/log" 2>&1

cat >"$work/main.go" <<'END'
package main

import (
	"crypto/tls"
	"fmt"
	"os"
)

func main() {
	pair, err := tls.LoadX509KeyPair(os.Args[1]+"/cert", os.Args[1]+"/key")
	if err != nil {
		panic(err)
	}
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{
		Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS10})
	if err != nil {
		panic(err)
	}
	fmt.Println(l.Addr())
	for {
		c, err := l.Accept()
		if err != nil {
			panic(err)
		}
		fmt.Fprint(c, "* OK ready\r\n")
	}
}
END
go version
go build -o "$work/server" "$work/main.go"
"$work/server" "$work/root" >"$work/address" &
server=$!

cat >"$work/root/client.py" <<'END'
import socket, ssl, sys, time
c = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
c.check_hostname, c.verify_mode = False, ssl.CERT_NONE
c.set_ciphers("ECDHE-RSA-AES128-SHA:@SECLEVEL=0")
c.minimum_version = getattr(ssl.TLSVersion, sys.argv[2])
c.maximum_version = c.minimum_version
s = c.wrap_socket(socket.create_connection(("127.0.0.1", int(sys.argv[1]))))
time.sleep(0.5)
print(s.recv(4096))
END
first_read() { chroot "$work/root" python3 -W ignore /client.py "$1" "$2"; }

for _ in $(seq 50); do [ -s "$work/address" ] && break; sleep 0.1; done
port=$(sed 's/.*://' "$work/address")
old=$(first_read "$port" TLSv1)
new=$(first_read "$port" TLSv1_1)
kill "$server"

(sleep 1; printf '* OK ready\r\n'; sleep 3) | openssl s_server -accept "127.0.0.1:$port" \
	-tls1 -cipher ECDHE-RSA-AES128-SHA:@SECLEVEL=0 -key /key -cert /cert -quiet >"$work/log" 2>&1 &
server=$!
sleep 0.5
other=$(first_read "$port" TLSv1)

echo "first read from Go, TLS 1.0:      $old"
echo "first read from Go, TLS 1.1:      $new"
echo "first read from OpenSSL, TLS 1.0: $other"
[ "$old" = "b'*'" ] && [ "$new" = "b'* OK ready\\r\\n'" ] && [ "$other" = "b'* OK ready\\r\\n'" ]
