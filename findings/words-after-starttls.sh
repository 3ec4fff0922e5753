#!/usr/bin/env bash
# An IMAP server may say "* BYE reason" at any time, so a server that wants no more
# of a client can say so as soon as TLS is up, on port 993 and after STARTTLS alike.
# So one would think: on 993 every client below shows the reason to its user. After
# STARTTLS they take what comes before their next command for stale, or for an
# injected response (CVE-2011-0411 and kin), and show something else: go-imap that
# the server "sent PREAUTH on unencrypted connection" or a closed socket, Perl's Mail::IMAPClient
# and Ruby's net-imap a closed connection, PHP's c-client that the connection broke.
# The words are seen if the server waits for the next command with them.
#
# Seen with Debian 12: Perl Mail::IMAPClient 3.43, Ruby 3.1.2 net-imap 0.2.3, PHP
# 8.2 imap; and go-imap v2.0.0-beta.8. Needs Go, and root for a chroot.
# Exits 1 where it is otherwise.
# shellcheck disable=SC2016,SC2317 # Perl and PHP; functions called by name
set -euo pipefail
work=$(mktemp -d)
server=
# shellcheck disable=SC2086 # no process, or one
trap 'kill $server 2>/dev/null || true; rm -rf "$work"' EXIT

echo 'making a chroot of Debian 12 with perl, ruby and php'
debootstrap --variant=minbase --include=python3-minimal,libpython3-stdlib,openssl,libmail-imapclient-perl,libio-socket-ssl-perl,ruby,php8.2-imap,php8.2-cli \
	bookworm "$work/root" >"$work/log" 2>&1
chroot "$work/root" dpkg-query -W libmail-imapclient-perl ruby php8.2-imap
chroot "$work/root" openssl req -x509 -newkey rsa:2048 -nodes -subj /CN=localhost -keyout /key -out /cert >"$work/log" 2>&1

cat >"$work/root/server.py" <<'END'
import socketserver, ssl, sys
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain("/cert", "/key")
BYE = b"* BYE [ALERT] closed for repairs\r\n"

def tls(connection):
    return context.wrap_socket(connection, server_side=True)

class IMAPS(socketserver.BaseRequestHandler):
    def handle(self):
        c = tls(self.request)
        c.sendall(BYE)
        c.recv(4096)

class IMAP(socketserver.BaseRequestHandler):
    waits = False
    def handle(self):
        c = self.request
        c.sendall(b"* OK [CAPABILITY IMAP4rev1 STARTTLS LOGINDISABLED] ready\r\n")
        while line := c.recv(4096):
            tag, command = line.split()[:2]
            if command.upper() == b"STARTTLS":
                c.sendall(tag + b" OK begin\r\n")
                c = tls(c)
                if self.waits:
                    tag = c.recv(4096).split()[0]
                    c.sendall(BYE + tag + b" NO [ALERT] closed for repairs\r\n")
                else:
                    c.sendall(BYE)
                c.recv(4096)
                return
            c.sendall(b"* CAPABILITY IMAP4rev1 STARTTLS LOGINDISABLED\r\n" + tag + b" OK done\r\n")

class Waits(IMAP):
    waits = True

import threading
socketserver.ThreadingTCPServer.allow_reuse_address = True
for port, handler in ((19941, IMAPS), (19942, IMAP), (19943, Waits)):
    s = socketserver.ThreadingTCPServer(("127.0.0.1", port), handler)
    threading.Thread(target=s.serve_forever).start()
END
chroot "$work/root" python3 /server.py >"$work/log" 2>&1 &
server=$!

mkdir "$work/go"
cat >"$work/go/main.go" <<'END'
package main

import (
	"crypto/tls"
	"fmt"
	"os"

	"github.com/emersion/go-imap/v2/imapclient"
)

func main() {
	dial := imapclient.DialStartTLS
	if os.Args[2] == "tls" {
		dial = imapclient.DialTLS
	}
	c, err := dial("127.0.0.1:"+os.Args[1], &imapclient.Options{TLSConfig: &tls.Config{InsecureSkipVerify: true}})
	if err == nil {
		err = c.Login("a", "b").Wait()
	}
	fmt.Println(err)
}
END
(cd "$work/go" && go mod init x && go get github.com/emersion/go-imap/v2@v2.0.0-beta.8 && go build -o "$work/goimap") >"$work/log" 2>&1
sleep 1


goimap() { timeout 20 "$work/goimap" "$@"; }
perl() {
	chroot "$work/root" perl -MMail::IMAPClient -e 'my ($port, $how) = @ARGV;
		my @quiet = (SSL_verify_mode => 0);
		my $c = Mail::IMAPClient->new(Server => "127.0.0.1", Port => $port, User => "a", Password => "b",
			$how eq "tls" ? (Ssl => \@quiet) : (Starttls => \@quiet)) or print "$@\n"' "$@"
}
ruby() {
	chroot "$work/root" ruby -rnet/imap -e 'no = {verify_mode: OpenSSL::SSL::VERIFY_NONE}
		begin
			c = Net::IMAP.new("127.0.0.1", port: ARGV[0], ssl: ARGV[1] == "tls" ? no : false)
			c.starttls(no) unless ARGV[1] == "tls"
			c.login("a", "b")
		rescue => e
			puts e.message
		end' "$@"
}
php() {
	local how=/imap/tls/novalidate-cert
	if [ "$2" = tls ]; then how=/imap/ssl/novalidate-cert; fi
	chroot "$work/root" php -d display_errors=0 -r '@imap_open("{127.0.0.1:'"$1$how"'}INBOX", "a", "b", 0, 1);
		echo implode(" / ", array_merge(imap_alerts() ?: [], imap_errors() ?: [])), "\n";'
}
wrong=0
for client in goimap perl ruby php; do
	implicit=$("$client" 19941 tls 2>&1 | tail -1) || true
	at_once=$("$client" 19942 starttls 2>&1 | tail -1) || true
	waits=$("$client" 19943 starttls 2>&1 | tail -1) || true
	printf '%s\n  993, as greeting:              %s\n  STARTTLS, at once:             %s\n  STARTTLS, to the next command: %s\n' \
		"$client" "$implicit" "$at_once" "$waits"
	[[ $at_once != *repairs* && $waits == *repairs* ]] || wrong=1
done
exit $wrong
