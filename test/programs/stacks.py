"""Old TLS stacks: what each offers, and what it meets. Imported by measure.py."""

import pathlib
import shutil
import socket
import subprocess
import threading
import time

NODE = """
var tls = require("tls"), c = tls.connect({host: HOST, port: 993, servername: HOST, secureProtocol: METHOD,
  rejectUnauthorized: false});
["secureConnect", "end", "close"].forEach(function (e) { c.on(e, function () { console.log(e); }); });
c.on("error", function (e) { console.log("error: " + e.message); });
c.on("data", function (d) { console.log("data: " + d.toString()); });
setTimeout(function () { process.exit(); }, 1500);
"""

JAVA = """
import java.util.Arrays;
import javax.net.ssl.*;
public class Stack {
  public static void main(String[] args) throws Exception {
    SSLSocket s = (SSLSocket) SSLSocketFactory.getDefault().createSocket(args[0], 993);
    s.setEnabledProtocols(Arrays.copyOfRange(args, 1, args.length));
    s.startHandshake();
    System.out.println(s.getSession().getProtocol() + " " + s.getSession().getCipherSuite());
  }
}
"""

ERLANG = ('ssl:start(), R = ssl:connect("{host}", 993, [{{verify, verify_none}}, {{active, false}}, '
          '{{versions, [tlsv1]}}, {{ciphers, ssl:cipher_suites(all, tlsv1)}}], 5000), io:format("~p~n", [R]), halt().')


def node(version, method):
    script = NODE.replace("METHOD", f'"{method}"' if method else "undefined")
    return lambda host: [f"/measured/npm/node_modules/node-{version}/bin/node", "-e", script.replace("HOST", f'"{host}"')]


def shell(command):
    return lambda host: ["sh", "-c", command.format(host=host)]


def stacks():
    """Yields name, package or version, and the command against a host."""
    for version in ("0.10.48", "0.12.18", "4.9.1", "6.17.1", "8.17.0"):
        for method in ("", "TLSv1_1_method", "TLSv1_method", "SSLv3_method"):
            yield f"node {version}", method or "defaults", node(version, method)
    for where, name in (("chroot /bullseye ", "OpenSSL 1.1.1w (Debian 11)"), ("", "OpenSSL 3.0.22 (Debian 12)")):
        program = where + "openssl s_client -connect {host}:993 -servername {host} -quiet </dev/null"
        for how in ("", "-tls1", "-tls1 -cipher ALL:@SECLEVEL=0", "-tls1_1 -cipher ALL:@SECLEVEL=0"):
            yield name, how or "defaults", shell(f"sleep 1 | {program} {how}".replace("</dev/null", ""))
    gnutls = "sleep 1 | gnutls-cli --no-ca-verification -p 993 {host} --priority "
    for how in ("NORMAL", "NORMAL:-VERS-ALL:+VERS-TLS1.0", "NORMAL:-VERS-ALL:+VERS-TLS1.0:-KX-ALL:+RSA",
                "NORMAL:-VERS-ALL:+VERS-TLS1.0:-KX-ALL:+DHE-RSA"):
        yield "GnuTLS 3.7.9", how, shell(gnutls + how)
    for how in ("ssl3:ssl3", "tls1.0:tls1.0", "tls1.0:"):
        yield "NSS 3.87 (tstclnt)", how, shell("sleep 1 | tstclnt -h {host} -p 993 -o -D -V " + how)
    yield "Erlang/OTP 25", "tlsv1, all suites", lambda host: ["erl", "-noshell", "-eval", ERLANG.format(host=host)]
    for how in ("TLSv1", "SSLv2Hello TLSv1", "SSLv2Hello TLSv1.2", "SSLv3"):
        yield "OpenJDK 17", how, shell("java -Djava.security.properties=/run/programs/java "
                                    "-Djavax.net.ssl.trustStore=/etc/ssl/certs/java/cacerts /run/programs/Stack.java {host} " + how)


VERSIONS = {0x0002: "SSL 2.0", 0x0300: "SSL 3.0", 0x0301: "1.0", 0x0302: "1.1", 0x0303: "1.2", 0x0304: "1.3"}
SUITES = {}


def suite(number):
    if not SUITES:  # by number, as OpenSSL knows them
        for line in subprocess.run(["openssl", "ciphers", "-V", "-stdname", "ALL:COMPLEMENTOFALL:@SECLEVEL=0"],
                                   capture_output=True, text=True, check=True).stdout.splitlines():
            high, low, _, name = line.split()[0][2:4], line.split()[0][7:9], *line.split()[1:3]
            SUITES[int(high + low, 16)] = name
    return SUITES.get(number, f"0x{number:04x}")


class Wire(threading.Thread):
    """Passes one connection on to a Postern, and keeps the first bytes of both sides."""

    def __init__(self, upstream):
        super().__init__(daemon=True)
        self.listener, self.upstream = socket.create_server(("127.0.0.1", 993)), upstream
        self.sent, self.got, self.connections = [], [], 0
        self.start()

    def run(self):
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            self.connections += 1
            server = socket.create_connection(self.upstream)
            for a, b, kept in ((client, server, self.sent), (server, client, self.got)):
                threading.Thread(target=self.copy, args=(a, b, kept), daemon=True).start()

    def copy(self, a, b, kept):
        try:
            while data := a.recv(16384):
                kept.append(data)
                b.sendall(data)
            b.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def end(self):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        return b"".join(self.sent), b"".join(self.got)


def offered(hello):
    """Says what the first bytes of a client are."""
    if len(hello) < 11:
        return "nothing" if not hello else hello.hex()
    if hello[0] == 0x15:
        return f"nothing but alert {hello[6]}"
    if hello[0] & 0x80:
        return f"SSLv2 format, {VERSIONS.get(int.from_bytes(hello[3:5], 'big'))}, {int.from_bytes(hello[5:7], 'big') // 3} suites"
    session = hello[43]
    suites = int.from_bytes(hello[44 + session:46 + session], "big") // 2
    size = 5 + int.from_bytes(hello[3:5], "big")
    return f"record {VERSIONS[int.from_bytes(hello[1:3], 'big')]}, hello {VERSIONS[int.from_bytes(hello[9:11], 'big')]}, {suites} suites, {size} bytes"


def met(answer):
    """Says what the first record of the server is."""
    if not answer:
        return "closed"
    if answer[0] == 0x15:
        return f"alert {answer[6]} in a record of {VERSIONS.get(int.from_bytes(answer[1:3], 'big'))}"
    if answer[0] != 0x16:
        return answer[:20].hex()
    session = answer[43]
    return suite(int.from_bytes(answer[44 + session:46 + session], "big"))


def measure(Gate, chosen, say, home):
    pathlib.Path("/run/programs/Stack.java").write_text(JAVA)
    pathlib.Path("/run/programs/java").write_text("jdk.tls.disabledAlgorithms=\njdk.tls.legacyAlgorithms=\n")
    shutil.copy("/etc/hosts", "/bullseye/etc/hosts")
    shutil.copytree("/run/programs", "/bullseye/run/programs", dirs_exist_ok=True,
                    ignore=lambda _, names: [n for n in names if not n.endswith(".pem")])
    for name, how, command in stacks():
        if chosen and not name.lower().startswith(tuple(chosen)):
            continue
        row = {"stack": name, "how": how}
        for mode in ("observe", "enforce"):
            gate = Gate.of(mode, "tls1.2")
            wire, before = Wire((gate.address, 993)), len(gate.handshakes())
            try:
                out = subprocess.run(command("stack.example.org"), cwd=home, capture_output=True, text=True, errors="replace",
                                     timeout=20, stdin=subprocess.DEVNULL)
                text, code = out.stdout + out.stderr, out.returncode
            except subprocess.TimeoutExpired as e:
                text, code = str(e.stdout), "hangs"
            time.sleep(0.3)
            sent, got = wire.end()
            lines = gate.handshakes()[before:]
            row[mode] = {"said": text, "exit": code, "offered": offered(sent), "met": met(got), "connections": wire.connections,
                         "log": lines[:1]}
            say(name, how, mode, row[mode]["offered"], row[mode]["met"], code, repr(text[-200:]))
        yield row
