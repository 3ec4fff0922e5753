#!/usr/bin/env python3
"""TLS libraries: records what each offers, as it comes and limited (stacks), and makes
libraries.txt, the table from JA4 to library, from hellos.txt."""

import pathlib
import re
import sys

HERE = pathlib.Path(__file__).parent
NODES = ("0.8", "0.10", "0.12", "4", "6", "8", "10", "12", "14")

NODE = """
var tls = require("tls"), c = tls.connect({host: HOST, port: 993, servername: HOST, secureProtocol: METHOD, ciphers: CIPHERS,
  rejectUnauthorized: false});
c.on("error", function (e) { console.log("error: " + e.message); });
setTimeout(function () { process.exit(); }, 1500);
"""

JAVA = """
import java.util.Arrays;
import javax.net.ssl.*;
public class Stack {
  public static void main(String[] args) throws Exception {
    SSLSocketFactory f = (SSLSocketFactory) SSLSocketFactory.getDefault();
    java.net.Socket plain = new java.net.Socket(args[0], 993);
    SSLSocket s = (SSLSocket) f.createSocket(plain, args[0], 993, true);
    if (args.length > 1) s.setEnabledProtocols(Arrays.copyOfRange(args, 1, args.length));
    s.startHandshake();
  }
}
"""

# The C clients take the newest version that they may offer as their argument: 1.0 to 1.3, or nothing.
C_CONNECT = """
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
static int dial(void) {
  struct addrinfo *found, hints = {.ai_family = AF_INET, .ai_socktype = SOCK_STREAM};
  getaddrinfo(getenv("HOST"), "993", &hints, &found);
  int fd = socket(AF_INET, SOCK_STREAM, 0);
  connect(fd, found->ai_addr, found->ai_addrlen);
  return fd;
}
static int is(int argc, char **argv, const char *version) { return argc > 1 && !strcmp(argv[1], version); }
"""

WOLFSSL = C_CONNECT + """
#include <wolfssl/options.h>
#include <wolfssl/ssl.h>
int main(int argc, char **argv) {
  wolfSSL_Init();
  WOLFSSL_METHOD *method = wolfSSLv23_client_method();
  if (is(argc, argv, "1.2")) method = wolfTLSv1_2_client_method();
#ifndef NO_OLD_TLS
  if (is(argc, argv, "1.1")) method = wolfTLSv1_1_client_method();
#ifdef WOLFSSL_ALLOW_TLSV10
  if (is(argc, argv, "1.0")) method = wolfTLSv1_client_method();
#else
  if (is(argc, argv, "1.0")) return 1;
#endif
#endif
  WOLFSSL_CTX *ctx = wolfSSL_CTX_new(method);
  wolfSSL_CTX_set_verify(ctx, WOLFSSL_VERIFY_NONE, NULL);
  WOLFSSL *ssl = wolfSSL_new(ctx);
  wolfSSL_UseSNI(ssl, WOLFSSL_SNI_HOST_NAME, getenv("HOST"), strlen(getenv("HOST")));
  wolfSSL_set_fd(ssl, dial());
  printf("%d\\n", wolfSSL_connect(ssl));
}
"""

MBEDTLS = C_CONNECT + """
#include <mbedtls/ctr_drbg.h>
#include <mbedtls/entropy.h>
#include <mbedtls/net_sockets.h>
#include <mbedtls/ssl.h>
#include <mbedtls/version.h>
#if MBEDTLS_VERSION_MAJOR >= 3
#include <psa/crypto.h>
#endif
int main(int argc, char **argv) {
  mbedtls_entropy_context entropy; mbedtls_ctr_drbg_context random; mbedtls_ssl_config config; mbedtls_ssl_context ssl;
  mbedtls_net_context net;
  mbedtls_entropy_init(&entropy); mbedtls_ctr_drbg_init(&random); mbedtls_ssl_config_init(&config); mbedtls_ssl_init(&ssl);
  net.fd = dial();
#if MBEDTLS_VERSION_MAJOR >= 3
  psa_crypto_init();
#endif
  mbedtls_ctr_drbg_seed(&random, mbedtls_entropy_func, &entropy, NULL, 0);
  mbedtls_ssl_config_defaults(&config, MBEDTLS_SSL_IS_CLIENT, MBEDTLS_SSL_TRANSPORT_STREAM, MBEDTLS_SSL_PRESET_DEFAULT);
  mbedtls_ssl_conf_authmode(&config, MBEDTLS_SSL_VERIFY_NONE);
  mbedtls_ssl_conf_rng(&config, mbedtls_ctr_drbg_random, &random);
  if (argc > 1) {
    int minor = argv[1][2] - '0' + 1;
#if MBEDTLS_VERSION_MAJOR >= 3
    mbedtls_ssl_conf_max_tls_version(&config, 0x300 + minor);
#else
    mbedtls_ssl_conf_min_version(&config, 3, minor < 2 ? minor : 1);
    mbedtls_ssl_conf_max_version(&config, 3, minor);
#endif
  }
  mbedtls_ssl_setup(&ssl, &config);
  mbedtls_ssl_set_hostname(&ssl, getenv("HOST"));
  mbedtls_ssl_set_bio(&ssl, &net, mbedtls_net_send, mbedtls_net_recv, NULL);
  printf("%d\\n", mbedtls_ssl_handshake(&ssl));
}
"""

BEARSSL = C_CONNECT + """
#include <bearssl.h>
int main(int argc, char **argv) {
  static unsigned char buffer[BR_SSL_BUFSIZE_BIDI];
  br_ssl_client_context client; br_x509_minimal_context x509;
  br_ssl_client_init_full(&client, &x509, NULL, 0);
  br_ssl_engine_set_buffer(&client.eng, buffer, sizeof buffer, 1);
  if (argc > 1) br_ssl_engine_set_versions(&client.eng, BR_TLS10, 0x301 + argv[1][2] - '0');
  br_ssl_client_reset(&client, getenv("HOST"), 0);
  size_t n;
  unsigned char *hello = br_ssl_engine_sendrec_buf(&client.eng, &n);
  int fd = dial();
  printf("%ld\\n", (long)write(fd, hello, n));
  sleep(1);
}
"""

MONO = """
using System; using System.Net.Security; using System.Net.Sockets; using System.Security.Authentication;
class Client {
  static void Main(string[] args) {
    var host = Environment.GetEnvironmentVariable("HOST");
    var ssl = new SslStream(new TcpClient(host, 993).GetStream(), false, (a, b, c, d) => true);
    if (args.Length > 0) ssl.AuthenticateAsClient(host, null, (SslProtocols)Enum.Parse(typeof(SslProtocols), args[0]), false);
    else ssl.AuthenticateAsClient(host);
    Console.WriteLine(ssl.SslProtocol);
  }
}
"""

BOUNCY = """
import java.security.Security;
import java.util.Arrays;
import javax.net.ssl.*;
public class Bouncy {
  public static void main(String[] args) throws Exception {
    Security.insertProviderAt(new org.bouncycastle.jce.provider.BouncyCastleProvider(), 1);
    SSLContext context = SSLContext.getInstance("TLS", new org.bouncycastle.jsse.provider.BouncyCastleJsseProvider());
    context.init(null, null, null);
    SSLSocket s = (SSLSocket) context.getSocketFactory().createSocket(args[0], 993);
    if (args.length > 1) s.setEnabledProtocols(Arrays.copyOfRange(args, 1, args.length));
    s.startHandshake();
  }
}
"""


def embedded():
    """Yields what devices and .NET programs have, in the manner of stacks."""
    clients = {"wolfssl": (WOLFSSL, "-lwolfssl"), "mbedtls": (MBEDTLS, "-lmbedtls -lmbedx509 -lmbedcrypto"), "bearssl": (BEARSSL, "-lbearssl")}
    for kind, (source, libs) in clients.items():
        for how in ("", "1.0", "1.1", "1.2"):
            yield kind, f"{kind} client {how}".strip(), f"cat >c.c <<'END'\n{source}END\ncc -o c c.c {libs} && ./c {how}"
    for how in ("", "1.0", "1.1", "1.2"):
        old, new = f"--tls{how}" if how else "", f"--tls-version={how}" if how else ""
        yield "botan", f"botan tls_client {old}".strip(), (
            f"sleep 0.5 | botan tls_client $HOST --port=993 {old} || sleep 0.5 | botan tls_client $HOST --port=993 {new}")
    for how in ("", "Tls", "Tls11", "Tls12"):
        yield "mono", f"SslStream {how}".strip(), f"cat >c.cs <<'END'\n{MONO}END\nmcs c.cs && mono c.exe {how}"
    for how in ("", "TLSv1", "TLSv1.1", "TLSv1.2"):
        yield "bouncycastle", f"BCJSSE {how}".strip(), (
            f"cat >Bouncy.java <<'END'\n{BOUNCY}END\nexport CLASSPATH=/usr/share/java/bctls.jar:/usr/share/java/bcprov.jar:/usr/share/java/bcutil.jar:.\n"
            f"javac Bouncy.java && java -Djavax.net.ssl.trustStore=/etc/ssl/certs/java/cacerts Bouncy $HOST {how}")


def stacks(root):
    """Yields for a root: library, how it was limited, and the command against $HOST. The
    library is named by what shares its hello; {version} is the package's."""
    for how in ("", "-tls1", "-tls1 -cipher DEFAULT:@SECLEVEL=0", "-tls1 -cipher ALL:@SECLEVEL=0", "-tls1_1 -cipher DEFAULT:@SECLEVEL=0",
                "-tls1_1 -cipher ALL:@SECLEVEL=0", "-tls1_2", "-tls1_2 -cipher DEFAULT:@SECLEVEL=0", "-tls1_2 -cipher ALL:@SECLEVEL=0"):
        yield "openssl", f"openssl s_client {how}".strip(), f"sleep 0.5 | openssl s_client -connect $HOST:993 -servername $HOST {how}"
    for how in ("NORMAL", "NORMAL:-VERS-ALL:+VERS-TLS1.0", "NORMAL:-VERS-ALL:+VERS-TLS1.1", "NORMAL:-VERS-ALL:+VERS-TLS1.1:+VERS-TLS1.0",
                "NORMAL:-VERS-ALL:+VERS-TLS1.2", "NORMAL:-VERS-TLS1.3", "LEGACY:-VERS-ALL:+VERS-TLS1.0"):
        yield "gnutls", f"gnutls-cli --priority {how}", f"sleep 0.5 | gnutls-cli --no-ca-verification -p 993 $HOST --priority {how}"
    for how in ("tls1.0:tls1.0", "tls1.1:tls1.1", "tls1.0:tls1.1", "tls1.2:tls1.2", "tls1.0:tls1.2", "tls1.0:"):
        yield "nss", f"tstclnt -V {how}", f"sleep 0.5 | tstclnt -h $HOST -p 993 -o -D -V {how}"
    for how in ("", "TLSv1", "TLSv1.1", "TLSv1.1 TLSv1", "TLSv1.2", "TLSv1.2 TLSv1.1 TLSv1"):
        # Java 8 has no launch of a source file.
        yield "java", f"SSLSocket {how}".strip(), (
            "cat >Stack.java <<'END'\n" + JAVA + "END\nprintf 'jdk.tls.disabledAlgorithms=\\njdk.tls.legacyAlgorithms=\\n' >security\n"
            "javac Stack.java && java -Djava.security.properties=security -Djavax.net.ssl.trustStore=/etc/ssl/certs/java/cacerts Stack $HOST " + how)
    python = ("python3 -c 'import os, socket, ssl\nc = ssl.create_default_context()\n{}\n"
              "c.wrap_socket(socket.create_connection((os.environ[\"HOST\"], 993)), server_hostname=os.environ[\"HOST\"])'")
    for how in ("", "c.minimum_version = c.maximum_version = ssl.TLSVersion.TLSv1; c.set_ciphers(\"DEFAULT:@SECLEVEL=0\")",
                "c.minimum_version = c.maximum_version = ssl.TLSVersion.TLSv1_1; c.set_ciphers(\"DEFAULT:@SECLEVEL=0\")"):
        yield "openssl", "Python ssl" + (", TLSv1" if "TLSv1;" in how else ", TLSv1_1" if how else ""), python.format(how)
    yield from embedded()
    if root.name == "bookworm":
        for version in NODES:
            for method in ("", "TLSv1_2_method", "TLSv1_1_method", "TLSv1_method"):
                for ciphers in ("undefined", '"DEFAULT"', '"ALL"'):
                    if ciphers != "undefined" and version in ("10", "12", "14"):
                        continue
                    script = NODE.replace("HOST", "process.env.HOST").replace("METHOD", f'"{method}"' if method else "undefined")
                    yield f"node-{version}", f"Node {method} {'' if ciphers == 'undefined' else ciphers}".strip(), (
                        f"/npm/node_modules/node-{version}/bin/node -e '{script.replace('CIPHERS', ciphers)}'")
        yield "rustls", "Deno", ("/npm/node_modules/@deno/linux-x64-glibc/deno eval 'const c = await Deno.connectTls({hostname: "
                                 "Deno.env.get(\"HOST\"), port: 993}); await c.handshake(); Deno.exit()'")
        yield "boringssl", "Bun", ("/npm/node_modules/@oven/bun-linux-x64/bin/bun -e 'require(\"tls\").connect({host: process.env.HOST, port: 993, "
                                   "servername: process.env.HOST, rejectUnauthorized: false}); setTimeout(() => process.exit(), 2000)'")
        for how in ("1.0", "1.1", "1.2", "1.3"):
            yield "go", f"MaxVersion {how}", f"MAX={how} /go/maxversion"
        yield "erlang", "tlsv1", (
            "erl -noshell -eval 'ssl:start(), R = ssl:connect(os:getenv(\"HOST\"), 993, [{verify, verify_none}, {active, false}, "
            "{versions, [tlsv1]}, {ciphers, ssl:cipher_suites(all, tlsv1)}], 5000), io:format(\"~p~n\", [R]), halt().'")


# ---- the table

VERSIONS = {"s2": "SSL 2.0", "s3": "SSL 3.0", "10": "TLS 1.0", "11": "TLS 1.1", "12": "TLS 1.2", "13": "TLS 1.3"}


def family(library):
    """The library by the releases that share its ways, and the newest version it offers by itself."""
    if m := re.match(r"OpenSSL (\d+)\.(\d+)\.?(\d*)", library):
        major, minor, patch = int(m[1]), int(m[2]), int(m[3] or 0)
        if major >= 3:
            return f"OpenSSL {major}.{minor}", "13"
        newest = "13" if (minor, patch) >= (1, 1) else "12" if (minor, patch) >= (0, 1) else "10"
        return f"OpenSSL 1.{minor}.{patch}", newest
    if m := re.match(r"GnuTLS (\d+\.\d+)", library):
        return f"GnuTLS {m[1]}", "13"
    if re.match(r"NSS", library):
        return "NSS", "13"
    if m := re.match(r"OpenJDK (?:1\.)?(\d+)", library):  # Debian's package says 1.17
        return f"Java {m[1]}", "12" if m[1] == "8" else "13"
    if re.match(r"Go\b", library):
        return "Go", "13"
    if m := re.match(r"(wolfSSL|Mbed TLS|BearSSL|Botan|Mono|Bouncy Castle) (\d+\.\d+)", library):
        oldest = {"BearSSL": True, "Mono": True, "Mbed TLS": float(m[2]) < 3.6, "Botan": m[2][0] == "2"}  # that offers no more than TLS 1.2
        return m[0], "12" if oldest.get(m[1]) else "13"
    return re.sub(r" [\d(].*", "", library), "13"


def bare(ja4):
    """JA4 without SNI and ALPN: whether they are sent, the program and the listener say."""
    m = re.fullmatch(r"(...)([di])(\d\d)(\d\d)(..)(_.*)", ja4)
    return f"{m[1]}i{m[3]}{int(m[4]) - (m[2] == 'd') - (m[5] != '00'):02}00{m[6]}"


def table(hellos):
    rows = {}
    for line in hellos.splitlines():
        if not line or line.startswith("#"):
            continue
        ja4, date, library, program, _ = line.split("\t")
        name, newest = family(library)
        offered = ja4[1:3]
        limit = f" limited to {VERSIONS[offered]}" if offered in VERSIONS and offered < newest else ""
        row = rows.setdefault(bare(ja4), {"ja4": ja4, "names": {}, "date": date, "how": {}})
        product, _, release = name.partition(" ")
        row["names"].setdefault((product, limit), set()).add(release)
        row["how"].update(dict.fromkeys(program.split("; ")))
        row["date"] = max(row["date"], date)
    out = ["# JA4, library, date, how it was recorded. Made from test/programs/hellos.txt by test/programs/record/libraries.py."]
    for _, row in sorted(rows.items()):
        how = list(row["how"])
        text = ", ".join(how[:2]) + (f" and {len(how) - 2} more" if len(how) > 2 else "")
        names = [f"{product} {', '.join(sorted(releases))}".strip() + limit for (product, limit), releases in sorted(row["names"].items())]
        out.append("\t".join([row["ja4"], "; ".join(names), row["date"], text]))
    return "\n".join(out) + "\n"


def merge(known, new):
    """The list of hellos with the new ones: one for each JA4 and library, and who sends it."""
    rows = {}
    for line in (known + new).splitlines():
        if line and not line.startswith("#"):
            ja4, date, library, programs, hello = line.split("\t")
            row = rows.setdefault((ja4, library), {"date": date, "programs": {}, "hello": hello})
            row["programs"].update(dict.fromkeys(programs.split("; ")))
    out = ["# JA4, date, TLS library, what sent it, the ClientHello in its records. Recorded by test/programs/record/run."]
    out += ["\t".join([ja4, row["date"], library, "; ".join(row["programs"]), row["hello"]]) for (ja4, library), row in sorted(rows.items())]
    return "\n".join(out) + "\n"


def read(file):
    return file.read_text() if file.exists() else ""


if __name__ == "__main__":
    known, new = HERE.parent / "hellos.txt", HERE.parent / "transcripts/hellos.new"
    known.write_text(merge(read(known), read(new)))
    new.unlink(missing_ok=True)
    product = HERE.parents[2] / "internal/programs"
    if product.exists():
        (product / "libraries.txt").write_text(table(read(known)))
