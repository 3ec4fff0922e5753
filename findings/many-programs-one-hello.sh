#!/usr/bin/env bash
# JA3 and JA4 are sold as fingerprints of programs: one hash, one program, so a rule
# or a report may name it. For mail programs it is not so. A TLS library of one
# distribution, limited by one openssl.cnf to TLS 1.0 as on an old machine, sends the
# same hello whoever calls it, and what a JA4 looks at (version, suites, extensions,
# signature algorithms) is equal to the byte for programs in C, Python and PHP.
# Host name and ALPN are left out here.
#
# Seen with Debian 12: OpenSSL 3.0 under fetchmail 6.4, isync 1.4 (mbsync),
# getmail 6.18, imapfilter 2.8, Python 3.11, PHP 8.2 and s_client: six of one fingerprint,
# mbsync alone with another. Needs root for a chroot.
# Exits 1 where it is otherwise.
set -euo pipefail
work=$(mktemp -d)
server=
# shellcheck disable=SC2086 # no process, or one
trap 'kill $server 2>/dev/null || true; rm -rf "$work"' EXIT

echo 'making a chroot of Debian 12 with seven TLS clients'
debootstrap --variant=minbase --include=openssl,ca-certificates,python3,fetchmail,isync,getmail6,php8.2-imap,php8.2-cli,imapfilter \
	bookworm "$work/root" >"$work/log" 2>&1
inside() { timeout 20 chroot "$work/root" env OPENSSL_CONF=/old HOME=/home "$@" </dev/null >>"$work/log" 2>&1 || true; }
echo '127.0.0.1 localhost' >"$work/root/etc/hosts"
printf '%s\n' 'openssl_conf = a' '[a]' 'ssl_conf = b' '[b]' 'system_default = c' '[c]' 'MinProtocol = TLSv1' \
	'MaxProtocol = TLSv1' 'CipherString = DEFAULT:@SECLEVEL=0' >"$work/root/old"

# The server reads a hello, prints what JA4 is made of, and hangs up.
cat >"$work/server.py" <<'END'
import hashlib, socket
def vector(data, size):
    n = int.from_bytes(data[:size], "big")
    return data[size:size + n], data[size + n:]
s = socket.create_server(("127.0.0.1", 0))
print(s.getsockname()[1], flush=True)
while True:
    c, _ = s.accept()
    hello = c.recv(16384)
    c.close()
    version, rest = hello[9:11], hello[43:]
    _, rest = vector(rest, 1)
    suites, rest = vector(rest, 2)
    _, rest = vector(rest, 1)
    rest, _ = vector(rest, 2)
    kinds, signatures = [], b""
    while rest:
        kind = int.from_bytes(rest[:2], "big")
        body, rest = vector(rest[2:], 2)
        if kind == 13:
            signatures = body
        if kind not in (0, 16):  # host name and ALPN
            kinds.append(kind)
    seen = repr((version, suites, sorted(kinds), signatures))
    print(hashlib.sha256(seen.encode()).hexdigest()[:12], flush=True)
END
python3 "$work/server.py" >"$work/seen" &
server=$!
for _ in $(seq 50); do [ -s "$work/seen" ] && break; sleep 0.1; done
port=$(head -1 "$work/seen")

mkdir -p "$work/root/home/.getmail" "$work/root/home/Maildir"/{cur,new,tmp}
cat >"$work/root/home/.fetchmailrc" <<END
poll localhost proto imap port $port user "a" pass "b" ssl sslproto "auto" mda "/bin/cat"
END
cat >"$work/root/home/.mbsyncrc" <<END
IMAPStore r
Host localhost
Port $port
User a
Pass b
SSLType IMAPS

MaildirStore l
Path /home/m/
Inbox /home/m/INBOX

Channel a
Far :r:
Near :l:
END
cat >"$work/root/home/.getmail/getmailrc" <<END
[retriever]
type = SimpleIMAPSSLRetriever
server = localhost
port = $port
username = a
password = b
[destination]
type = Maildir
path = /home/Maildir/
END
echo "IMAP { server = 'localhost', port = $port, username = 'a', password = 'b', ssl = 'auto' }.INBOX:check_status()" \
	>"$work/root/home/imapfilter.lua"
chmod 600 "$work/root/home/.fetchmailrc"
chown root "$work/root/home/.fetchmailrc"

program() { # NAME COMMAND...
	local name=$1 before
	shift
	before=$(wc -l <"$work/seen")
	inside "$@"
	sleep 0.3
	echo "$name: $(tail -n +$((before + 1)) "$work/seen" | head -1)"
}
{
	program 's_client' openssl s_client -connect "localhost:$port"
	program 'fetchmail' fetchmail -k -f /home/.fetchmailrc
	program 'mbsync' mbsync a
	program 'getmail' getmail
	program 'imapfilter' imapfilter -c /home/imapfilter.lua
	program 'Python imaplib' python3 -c "import imaplib; imaplib.IMAP4_SSL('localhost', $port)"
	program 'PHP imap' php -r "imap_open('{localhost:$port/imap/ssl}INBOX', 'a', 'b');"
} | tee "$work/all"
count=$(sed 's/.*: //' "$work/all" | sort | uniq -c | sort -rn | awk 'NR == 1 { print $2 == "" ? 0 : $1 }')
echo "$count of 7 programs have one fingerprint"
[ "$count" = 6 ]
