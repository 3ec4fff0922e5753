#!/usr/bin/env python3
"""Drives mail programs against the recording server, and writes their transcripts.
test/programs/record/run starts it, in network and process namespaces of its own."""

import argparse
import datetime
import fcntl
import itertools
import json
import os
import pathlib
import pty
import re
import shutil
import signal
import subprocess
import sys
import termios
import time
import urllib.parse

import libraries
from programs import POP3, PORTS, PROGRAMS, Program

HERE = pathlib.Path(__file__).parent
STATE = pathlib.Path("/run/postern-record")
RECIPES = (HERE.parent / "recipes.sh").read_text().replace('\n"$1"\n', "\n") + (HERE / "windows.sh").read_text() + (HERE / "recipes.sh").read_text()
# Of each server, one run with words that need no quotes and one with words that do.
RUNS = {1: ("anna", "Sesame4711"), 2: ("anna@example.org", "Sesame(4711)")}
SERVERS = {"full": "127.0.0.11", "bare": "127.0.0.12", "sasl": "127.0.0.14", "apop": "127.0.0.13"}
DEBIAN = {"bullseye": "11", "bookworm": "12", "trixie": "13", "forky": "testing"}
HOSTNAME = "record.example.org"
USER = 4711  # anna's, in every root
SHOTS = os.environ.get("SHOTS")  # a folder inside the roots, for pictures of the screen
SLOWER = float(os.environ.get("SLOWER", 1))  # than the machine that the programs' seconds were found on


def say(*words):
    print(time.strftime("%T"), *words, file=sys.stderr, flush=True)


def sh(command, **options):
    return subprocess.run(command, shell=True, check=True, capture_output=True, text=True, **options).stdout


def prepare(keys, roots, hosts):
    """Certificates, and what every root has to know of the hosts; and a network with nobody
    on it, since some programs stay offline where there is none."""
    sh(f"""ip link set lo up
    if ! ip route show default | grep -q .; then
      ip link add out type veth peer name nobody; ip addr add 192.0.2.1/24 dev out; ip link set nobody up; ip link set out up
      ip route add default via 192.0.2.2
    fi
    hostname {HOSTNAME}; mkdir -p {STATE}/sessions {keys}; cd {keys}
    if [ -e rsa.pem ]; then exit; fi
    openssl req -x509 -newkey rsa:2048 -nodes -days 3650 -subj '/CN=recording CA' -addext keyUsage=critical,keyCertSign \
      -keyout ca.key -out ca.pem
    printf 'subjectAltName=DNS:*.example.org\\nauthorityKeyIdentifier=keyid\\nkeyUsage=critical,digitalSignature,keyEncipherment\\nextendedKeyUsage=serverAuth\\n' >san
    for kind in rsa:2048 ec; do
      openssl req -newkey $kind $([ $kind = ec ] && echo -pkeyopt ec_paramgen_curve:P-256) -nodes \
        -subj '/CN=mail.example.org' -keyout ${{kind%:*}}.key -out csr
      openssl x509 -req -in csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 3650 -extfile san -out ${{kind%:*}}.pem
      cat ${{kind%:*}}.key >>${{kind%:*}}.pem
    done""")
    shutil.copy(keys / "ca.pem", STATE)
    (STATE / "openssl.cnf").write_text(
        "openssl_conf = a\n[a]\nssl_conf = b\n[b]\nsystem_default = c\n[c]\nMinProtocol = TLSv1\n"
        "MaxProtocol = TLSv1\nCipherString = DEFAULT:@SECLEVEL=0\n")
    (STATE / "gnutls").write_text("[overrides]\ndisabled-version = tls1.3\n")
    names = "\n".join(f"{address} {name}.example.org" for name, address in hosts.items())
    (STATE / "hosts").write_text(f"127.0.0.1 localhost {HOSTNAME} record\n{names}\n")
    for root in roots:
        (root / "etc/hosts").touch()
        sh(f"mount --bind {STATE}/hosts {root}/etc/hosts")
        (root / "etc/resolv.conf").unlink(missing_ok=True)
        (root / "usr/local/share/ca-certificates").mkdir(parents=True, exist_ok=True)
        ours = root / "usr/local/share/ca-certificates/record.crt"
        if not ours.exists() or ours.read_bytes() != (STATE / "ca.pem").read_bytes() or not (root / "etc/ssl/certs/record.pem").exists():
            shutil.copy(STATE / "ca.pem", ours)
            sh(f"chroot {root} update-ca-certificates --fresh")
        sh(f"chroot {root} sh -c 'getent passwd anna || useradd -u {USER} -s /bin/bash anna'")
        if SHOTS:
            (root / SHOTS[1:]).mkdir(parents=True, exist_ok=True)
            (root / SHOTS[1:]).chmod(0o777)
        for file in ("openssl.cnf", "gnutls", "ca.pem"):
            (root / "run/postern-record").mkdir(exist_ok=True)
            shutil.copy(STATE / file, root / "run/postern-record")
        for place in ("etc/thunderbird/policies", "usr/lib/thunderbird/distribution"):
            (root / place).mkdir(parents=True, exist_ok=True)
            (root / place / "policies.json").write_text('{"policies": {"Certificates": {"Install": ["/run/postern-record/ca.pem"]}}}')


def serve(keys):
    """Starts the recording server."""
    words = {"accounts": [], "passwords": []}
    for account, password in reversed(RUNS.values()):
        words["accounts"].append(account)
        words["passwords"].append(password)
    certs = f"{keys}/ec.pem,{keys}/rsa.pem"
    server = subprocess.Popen(
        [os.environ["RECORD_SERVER"], "-dir", str(STATE / "sessions"), "-certs", certs,
         "-accounts", ",".join(words["accounts"]), "-passwords", ",".join(words["passwords"]),
         "-hosts", f"{HOSTNAME},127.0.0.1"], stdout=subprocess.PIPE)
    if server.stdout.readline() != b"ready\n":
        sys.exit("the server does not start")


class Session:
    def __init__(self, text):
        head, self.hello, body = [], "", []
        for line in text.splitlines():
            if line.startswith("hello: "):
                self.hello = line[7:]
            elif re.match(r"(session|ja4): ", line):
                head.append(line)
            else:
                body.append(line)
        self.head, self.body = head, body
        self.ja4 = next((h[5:] for h in head if h.startswith("ja4: ")), "")
        self.inside = "TLS" in body and len(body) > body.index("TLS") + 1

    def logged_in(self):
        last = self.body[-1] if self.body else ""
        return self.inside and bool(re.match(r"S: (\+OK Logged in|\S+ OK (\[CAPABILITY [^]]*\] Logged in|LOGIN completed))", last))

    def text(self, run):
        return "\n".join([self.head[0] + f" {run}"] + self.head[1:] + self.body) + "\n"


def sessions():
    return [Session(f.read_text()) for f in sorted((STATE / "sessions").glob("*.session"))]


def clear():
    for file in (STATE / "sessions").iterdir():
        file.unlink()


def environment(host, listener, account, password, limited):
    env = {
        "HOME": "/home/anna/run", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8", "TERM": "xterm", "USER": "anna",
        "PROTO": listener[:4], "SECURITY": "tls" if listener.endswith("s") else "starttls",
        "HOST": host, "PORT": str(PORTS[listener]), "ACCOUNT": account, "PASSWORD": password,
        "URL_ACCOUNT": urllib.parse.quote(account, safe=""), "URL_PASSWORD": urllib.parse.quote(password, safe=""),
        "XDG_RUNTIME_DIR": "/home/anna/run/xdg", "RUBYOPT": "-W0",
    }
    if SHOTS:
        env["SHOTS"] = f"{SHOTS}/{host}-{listener}"
    if limited:
        env["OPENSSL_CONF"] = "/run/postern-record/openssl.cnf"
        env["GNUTLS_SYSTEM_PRIORITY_FILE"] = "/run/postern-record/gnutls"
    return env


def plain(text):
    return re.sub(r"\x1b(\[[0-9;?]*[A-Za-z]|[()].|[=>78])", "", text)


def drive(name, root, env, password, finished, log, prefix=()):
    """Runs the program in an empty home, until it is at its end or a while after it is
    finished; what is left of it is ended."""
    program = PROGRAMS[name]
    home = root / "home/anna/run"
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir(parents=True)
    (home / "xdg").mkdir(mode=0o700)
    for place in (home.parent, home, home / "xdg"):
        os.chown(place, USER, USER)
    answers = {k: v.replace("PASSWORD", password) for k, v in (program.answers or {}).items()}
    command = [*prefix, "chroot", f"--userspec={USER}:{USER}", str(root), "env", "-i", "-C", env["HOME"],
               *(f"{k}={v}" for k, v in env.items()), "bash", "-c", RECIPES, "recipes.sh", program.recipe or name]
    master, slave = pty.openpty()
    os.set_blocking(master, False)
    process = subprocess.Popen(command, stdin=slave if program.answers is not None else subprocess.DEVNULL,
                               stdout=slave, stderr=slave, start_new_session=True,
                               preexec_fn=lambda: fcntl.ioctl(slave, termios.TIOCSCTTY, 0))
    os.close(slave)
    shown, start, done = "", time.time(), None
    while time.time() - start < program.seconds * SLOWER:
        try:
            shown += os.read(master, 65536).decode(errors="replace")
        except OSError:  # nothing to read, or all have closed it
            pass
        text = plain(shown)
        for pattern in [p for p in answers if re.search(p, text)]:
            time.sleep(0.3)
            os.write(master, answers.pop(pattern).encode())
        if done is None and (process.poll() is not None or finished()):
            done = time.time() + (program.grace if process.poll() is None else 0.2)
        if done is not None and time.time() > done:
            break
        time.sleep(0.1)
    subprocess.run(["pkill", "-KILL", "-u", str(USER)], check=False)
    process.wait()
    os.close(master)
    time.sleep(0.1)
    log.write(f"==== {name} {root.name} {env['HOST']}:{env['PORT']} {env['ACCOUNT']}\n{plain(shown)[-3000:]}\n")
    log.flush()


def attempt(name, root, listener, server, run, way, limited, log):
    """Runs the program once against a server; gives the sessions that it had."""
    clear()
    env = environment(f"{server}.example.org", listener, *RUNS[run], limited) | {"WAY": way}
    drive(name, root, env, RUNS[run][1], lambda: any(s.logged_in() for s in sessions()), log)
    return sessions()


def version(name, root):
    """Upstream's version, and where the program is from."""
    program = PROGRAMS[name]
    if program.package.startswith("npm:"):
        module = program.package[4:]
        found = json.loads((root / "npm/node_modules" / module / "package.json").read_text())
        return found["version"].lstrip("v"), f"npm, {found['name']} {found['version']}"
    if program.package.startswith("go:"):
        module, found = program.package[3:].rsplit("@", 1)
        return found.lstrip("v"), f"Go module, {module} {found}"
    whole = sh(f"chroot {root} dpkg-query -W -f '${{Version}}' {program.package}")
    upstream = re.sub(r"^\d+:|([+~]dfsg\d*|\+ds\d*|[-~+]deb).*$|-[^-]*$", "", whole)
    if program.version:
        upstream = sh(f"chroot {root} sh -c '{program.version}'").strip()
    return upstream, f"Debian {DEBIAN[root.name]}, {program.package} {whole}"


def library(program, root):
    kinds = {"openssl": ("OpenSSL", ("libssl3t64", "libssl3", "libssl1.1")), "gnutls": ("GnuTLS", ("libgnutls30t64", "libgnutls30")),
             "nss": ("NSS", ("libnss3",)), "java": ("OpenJDK", ("default-jre-headless",)), "node": ("OpenSSL", ("libssl3t64", "libssl3", "libssl1.1"))}
    if program.library not in kinds:
        return program.library
    label, packages = kinds[program.library]
    for package in packages:
        found = subprocess.run(["chroot", str(root), "dpkg-query", "-W", "-f", "${Version}", package], capture_output=True, text=True)
        if found.returncode == 0 and found.stdout:
            return f"{label} {re.sub(r'^[0-9]+:|[-+].*$', '', found.stdout)}"
    return f"{label}, version unknown"


def installed(name, root):
    program = PROGRAMS[name]
    if program.roots and root.name not in program.roots:
        return False
    if program.package.startswith(("npm:", "go:")):
        where = root / "npm/node_modules" / program.package[4:] if program.package.startswith("npm:") else root / "go" / (program.recipe or name)
        return root.name == "bookworm" and where.exists()
    for package in (program.package, *program.needs):
        found = subprocess.run(["chroot", str(root), "dpkg-query", "-W", "-f", "${Status}", package], capture_output=True, text=True)
        if "install ok installed" not in found.stdout:
            return False
    return True


def dialogues(program, args):
    """Yields each listener, server, run and way of logging in that the program is recorded with."""
    for listener, server, run in itertools.product(program.listeners, SERVERS, RUNS):
        if listener not in args.on or server not in args.servers or run > args.runs:
            continue
        if run == 2 and server in ("sasl", "apop") or server == "apop" and not (listener in POP3 and program.apop):
            continue
        for way in (program.ways or {}).get(server, ("",)):
            yield listener, server, run, way


def record(name, root, args, log):
    program = PROGRAMS[name]
    number, source = version(name, root)
    parts, hellos = [], {}
    for listener, server, run, way in dialogues(program, args):
        found = attempt(name, root, listener, server, run, way, run == 2, log)
        if not any(s.logged_in() for s in found):  # not every program can be limited, and some have to be
            found = attempt(name, root, listener, server, run, way, run != 2, log) or found
        said = [s.text(run) for s in found if s.inside]
        parts += dict.fromkeys(said)
        for s in found:
            if s.ja4:
                hellos.setdefault(s.ja4, s.hello)
        say(f"{name} {number} ({root.name}) {listener} {server} {run} {way}: {sum(s.logged_in() for s in found)} logins, "
            f"{len(found)} sessions {' '.join(dict.fromkeys(s.ja4[:3] for s in found))}")
    if not parts:
        say(f"{name} {number} ({root.name}): NOTHING")
        return
    today = datetime.date.today().isoformat()
    head = [f"program: {program.shown or name}", f"version: {number}", f"from: {source}", f"library: {library(program, root)}", f"date: {today}"]
    file = f"{(program.shown or name).lower().replace(' ', '-').replace('::', '-').replace('/', '-')}-{number}.txt"
    pathlib.Path(args.out, file).write_text("\n".join(head) + "\n\n" + "\n".join(parts))
    with open(pathlib.Path(args.out, "hellos.new"), "a") as f:
        for ja4, hello in hellos.items() if program.library != "unknown" else ():
            f.write("\t".join([ja4, today, f"{library(program, root)} (Debian {DEBIAN[root.name]})", f"{program.shown or name} {number}", hello]) + "\n")


def stack(root, kind, how, command, out, log):
    """Records the hello of a TLS library, unless the root does not have it."""
    tools = {"openssl": "openssl", "gnutls": "gnutls-cli", "nss": "tstclnt", "java": "javac", "erlang": "erl"}
    packages = {"wolfssl": ("wolfSSL", "libwolfssl-dev"), "mbedtls": ("Mbed TLS", "libmbedtls-dev"), "bearssl": ("BearSSL", "libbearssl-dev"),
                "botan": ("Botan", "botan"), "mono": ("Mono", "mono-devel"), "bouncycastle": ("Bouncy Castle", "libbctls-java")}
    if kind in tools and subprocess.run(["chroot", str(root), "which", tools[kind]], capture_output=True).returncode:
        return
    if kind in tools:
        label = library(Program("", "java" if kind == "java" else kind, ()), root)
    if kind in packages:
        name, package = packages[kind]
        found = subprocess.run(["chroot", str(root), "dpkg-query", "-W", "-f", "${Version}", package], capture_output=True, text=True)
        if found.returncode or not found.stdout:
            return
        label = f"{name} {re.sub(r'^[0-9]+:|[-+~].*$', '', found.stdout)}"
    if kind == "java":
        label = "OpenJDK " + re.search(r"[\d.]+(_\d+)?", sh(f"chroot {root} java -version 2>&1"))[0]
    if kind in ("rustls", "boringssl"):
        label = {"rustls": "rustls (Deno 2.9.6)", "boringssl": "BoringSSL (Bun 1.4.4)"}[kind]
    if kind == "erlang":
        label = "Erlang/OTP"
    if kind == "go":
        label = "Go " + re.search(r"go(\d\S+)", sh(f"strings {root}/go/maxversion | grep -m1 -E '^go1\.[0-9.]+$'"))[1]
    if kind.startswith("node-"):
        label = "OpenSSL " + sh(f"chroot {root} /npm/node_modules/{kind}/bin/node -e 'console.log(process.versions.openssl)'").strip() + f", Node {kind[5:]}"
    home = root / "home/anna/run"
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir(parents=True)
    os.chown(home.parent, USER, USER)
    os.chown(home, USER, USER)
    clear()
    env = {"HOST": "full.example.org", "HOME": "/home/anna/run", "PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"}
    try:
        done = subprocess.run(["chroot", f"--userspec={USER}:{USER}", str(root), "env", "-i", "-C", env["HOME"], *(f"{k}={v}" for k, v in env.items()),
                               "bash", "-c", command], capture_output=True, text=True, errors="replace", timeout=12 * SLOWER, stdin=subprocess.DEVNULL)
        log.write(f"==== {label} {how}\n{done.stdout[-500:]}{done.stderr[-1000:]}\n")
    except subprocess.TimeoutExpired:
        pass
    subprocess.run(["pkill", "-KILL", "-u", str(USER)], check=False)
    time.sleep(0.2)
    found = dict((s.ja4, s.hello) for s in sessions() if s.ja4)
    say(f"{label} ({root.name}) {how}: {' '.join(found) or 'nothing'}")
    with open(pathlib.Path(out, "hellos.new"), "a") as f:
        for ja4, hello in found.items():
            f.write("\t".join([ja4, datetime.date.today().isoformat(), f"{label} (Debian {DEBIAN[root.name]})".replace(" (Debian 12)", "") if kind[:4] in ("node", "go", "rust", "bori")
                                else f"{label} (Debian {DEBIAN[root.name]})", how, hello]) + "\n")


def main():
    def listed(text):
        return text.split(",")

    parser = argparse.ArgumentParser(prog="test/programs/record/run")
    parser.add_argument("-only", type=listed, default=[], help="NAME,NAME")
    parser.add_argument("-roots", type=listed, default=list(DEBIAN), help="bullseye,bookworm,trixie,forky")
    parser.add_argument("-on", type=listed, default=list(PORTS), help="imaps,imap,pop3s,pop3")
    parser.add_argument("-servers", type=listed, default=list(SERVERS), help="full,bare,sasl,apop")
    parser.add_argument("-runs", type=int, default=len(RUNS), help="1: not those with words that need quotes")
    parser.add_argument("-libraries", action="store_true", help="TLS libraries instead of programs")
    parser.add_argument("-out", default=str(HERE.parent / "transcripts"))
    parser.add_argument("dir")
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))
    roots = [pathlib.Path(args.dir, r) for r in args.roots if pathlib.Path(args.dir, r, "usr").exists()]
    keys = pathlib.Path(args.dir, "keys")
    prepare(keys, roots, SERVERS)
    serve(keys)
    pathlib.Path(args.out).mkdir(exist_ok=True)
    with open(pathlib.Path(args.dir, "shown.log"), "a") as log:
        for root in roots if args.libraries else []:
            for kind, how, command in libraries.stacks(root):
                if args.only and kind not in args.only:
                    continue
                try:
                    stack(root, kind, how, command, args.out, log)
                except Exception as err:  # the next one may do better
                    say(f"{kind} {how} ({root.name}): {err!r}")
        if args.libraries:
            return
        for name in args.only or PROGRAMS:
            for root in roots:
                if installed(name, root):
                    try:
                        record(name, root, args, log)
                    except Exception as err:  # the next one may do better
                        say(f"{name} ({root.name}): {err!r}")


if __name__ == "__main__":
    main()
