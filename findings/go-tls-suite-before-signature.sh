#!/usr/bin/env bash
# A Go server chooses ECDHE before it looks for a signature that the client takes.
#
# In TLS 1.2 an ECDHE suite needs a signature of the server, and RSA key exchange
# needs none. A client that offers both, and knows no signature but RSA with
# SHA-1, could be served with RSA key exchange, as OpenSSL does. crypto/tls takes
# the ECDHE suite, finds that it cannot sign, and ends with handshake_failure (40).
# With a configuration that has no ECDHE suite it serves the same hello.
#
# Go 1.26.8, OpenSSL 3.0 of Debian 12. Needs go, and root for a chroot.
# Exits 1 where it is otherwise.
set -euo pipefail
[ "$(id -u)" = 0 ] || { echo 'this needs root, for debootstrap and chroot' >&2; exit 2; }
work=$(mktemp -d)
pids=()
cleanup() {
	local pid
	for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
	wait
	chmod -R u+w "$work"
	rm -rf --one-file-system "$work"
}
trap cleanup EXIT
fail() { echo "OTHERWISE: $*" >&2; exit 1; }

debootstrap --variant=minbase --include=openssl bookworm "$work/root" >"$work/log" 2>&1 ||
	{ tail -n 3 "$work/log" >&2; exit 1; }
inside() { chroot "$work/root" env LC_ALL=C.UTF-8 "$@"; }
inside openssl version
inside openssl req -x509 -newkey rsa:2048 -nodes -keyout /key -out /cert -days 2 -subj /CN=localhost 2>/dev/null

mkdir "$work/go"
cat >"$work/go/main.go" <<'GO'
package main

import (
	"crypto/tls"
	"fmt"
	"log"
	"os"
	"runtime"
)

func main() {
	cert, err := tls.LoadX509KeyPair(os.Args[1]+"/cert", os.Args[1]+"/key")
	if err != nil {
		log.Fatal(err)
	}
	rsa := []uint16{tls.TLS_RSA_WITH_AES_128_CBC_SHA}
	both := append([]uint16{tls.TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA}, rsa...)
	fmt.Println(runtime.Version())
	for i, suites := range [][]uint16{both, rsa} {
		ln, err := tls.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", 11993+i), &tls.Config{
			Certificates: []tls.Certificate{cert}, CipherSuites: suites, MinVersion: tls.VersionTLS10,
		})
		if err != nil {
			log.Fatal(err)
		}
		go func() {
			for {
				conn, err := ln.Accept()
				if err != nil {
					log.Fatal(err)
				}
				go func() {
					fmt.Fprintln(conn, "hello")
					conn.Close()
				}()
			}
		}()
	}
	select {}
}
GO
(
	cd "$work/go"
	export GOTOOLCHAIN=go1.26.8 GOPATH=$work/gopath GOFLAGS=-modcacherw
	go mod init finding >/dev/null 2>&1
	go build -o "$work/server" .
)
"$work/server" "$work/root" &
pids+=($!)
# ALL:@SECLEVEL=0, since OpenSSL's own default refuses to sign with SHA-1.
inside openssl s_server -accept 127.0.0.1:11995 -cert /cert -key /key -cipher ALL:@SECLEVEL=0 -quiet </dev/null >"$work/s_server" 2>&1 &
pids+=($!)
for port in 11993 11994 11995; do
	for _ in {1..50}; do
		if (: <>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then break; fi
		sleep .1
	done
done

# meet PORT prints what this client meets.
meet() {
	inside timeout 10 openssl s_client -connect "127.0.0.1:$1" -tls1_2 -sigalgs RSA+SHA1 \
		-cipher 'ECDHE-RSA-AES128-SHA:AES128-SHA:@SECLEVEL=0' </dev/null 2>&1 |
		grep -oE 'alert number [0-9]+|New, .*|Cipher is [A-Z0-9-]+' | sort -u || true
}
echo '== Go, ECDHE and RSA key exchange'
meet 11993 | tee "$work/both"
echo '== Go, RSA key exchange alone'
meet 11994 | tee "$work/rsa"
echo '== OpenSSL, all suites'
meet 11995 | tee "$work/openssl"

grep -q 'alert number 40' "$work/both" || fail 'Go with both: no alert 40'
grep -q 'Cipher is AES128-SHA' "$work/rsa" || fail 'Go with RSA key exchange: not served'
grep -qE 'Cipher is (ECDHE-RSA-)?AES128-SHA' "$work/openssl" || fail 'OpenSSL: not served'
echo 'As said above.'
