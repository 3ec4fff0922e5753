#!/usr/bin/env python3
"""Runs mail programs (recipes.sh) and TLS stacks (stacks.py) against Postern in front
of Dovecot, and prints tables. test/programs/run starts it, in a chroot of its own."""

import argparse
import base64
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.request

import stacks

WORK = pathlib.Path("/measured")
RESULTS = WORK / "results"
STATE = pathlib.Path("/run/programs")
RECIPES = pathlib.Path("/programs/recipes.sh").read_text()
ACCOUNT, PASSWORD = "anna", "open-sesame-4711"
PORTS = {"imaps": 993, "imap": 143, "pop3s": 995, "pop3": 110}
MODES = ("observe", "enforce", "explain")
FLOORS = {"1.0": "tls1.2", "1.1": "tls1.2", "1.2": "tls1.3"}
TEXT = "TLS %s is no longer accepted here; update your mail program to one that supports TLS %s or later."
ALL, TLS_ONLY, IMAP, POP3 = tuple(PORTS), ("imaps", "pop3s"), ("imaps", "imap"), ("pop3s", "pop3")

# Name: package or npm module, what limits it to which version, listeners, and for those
# that draw on a screen the keys to press when a pattern first shows.
# OpenSSL: OPENSSL_CONF. GnuTLS: its system-wide file, since mutt, mpop and Emacs refuse
# TLS 1.0 by themselves, and so need a floor of 1.3. aerc: its own list of versions, patched.
PROGRAMS = {
    "aerc": ("aerc", "1.2", IMAP, {}),
    "alpine": ("alpine", "1.0", ALL, {"Welcome|GREETING": "e", "PASSWORD": PASSWORD + "\r", "Preserve password": "n"}),
    "claws-mail": ("claws-mail", "1.2", POP3, None),
    "curl": ("curl", "1.0", ALL, None),
    "fdm": ("fdm", "1.1", ALL, None),
    "fetchmail": ("fetchmail", "1.0", ALL, None),
    "getmail": ("getmail6", "1.0", TLS_ONLY, None),
    "gnus": ("emacs-nox", "1.2", ALL, {r"\(yes or no\)": "yes\r", r"\(y or n\)": "y"}),
    "goimap": ("go-imap", "1.2", IMAP, None),
    "imapfilter": ("imapfilter", "1.0", IMAP, None),
    "imapflow": ("npm", "1.0", IMAP, None),
    "javamail": ("libmail-java", "1.0", ALL, None),
    "mail": ("mailutils", "1.2", ALL, None),
    "mbsync": ("isync", "1.0", IMAP, None),
    "movemail": ("mailutils", "1.2", ALL, None),
    "mpop": ("mpop", "1.2", POP3, None),
    "mutt": ("mutt", "1.2", ALL, {}),
    "neomutt": ("neomutt", "1.2", ALL, {}),
    "node-imap": ("npm", "1.0", IMAP, None),
    "node-pop3": ("npm", "1.0", ("pop3s",), None),
    "offlineimap": ("offlineimap3", "1.0", IMAP, None),
    "perl": ("libmail-imapclient-perl", "1.0", ALL, None),
    "php": ("php8.2-imap", "1.0", ALL, None),
    "python": ("python3", "1.0", ALL, None),
    "ruby": ("ruby", "1.0", ("imaps", "imap", "pop3s"), None),
    "s-nail": ("s-nail", "1.0", ALL, None),
    "thunderbird": ("thunderbird", "1.0", ALL, None),
}
WINDOWS = ("claws-mail", "thunderbird")


def say(*words):
    print(time.strftime("%T"), *words, file=sys.stderr, flush=True)


def sh(command, **options):
    return subprocess.run(command, shell=True, check=True, capture_output=True, text=True, **options).stdout


# ---- the servers

DOVECOT = f"""
protocols = imap pop3
listen = 127.0.0.1
log_path = {STATE}/dovecot.log
base_dir = {STATE}/dovecot
ssl = no
disable_plaintext_auth = no
auth_failure_delay = 0
mail_max_userip_connections = 0
first_valid_uid = 8
mail_location = maildir:{STATE}/mail/%u
passdb {{
  driver = static
  args = password={PASSWORD}
}}
userdb {{
  driver = static
  args = uid=mail gid=mail home={STATE}/mail/%u
}}
service imap-login {{
  inet_listener imap {{
    port = 1143
  }}
}}
service pop3-login {{
  inet_listener pop3 {{
    port = 1110
  }}
}}
"""


def servers():
    """Certificates, trusted by every program, Dovecot with one message, and names."""
    shutil.rmtree(STATE, ignore_errors=True)
    inbox = STATE / "mail" / ACCOUNT / "new"
    inbox.mkdir(parents=True)
    for box in ("cur", "tmp"):
        (inbox.parent / box).mkdir()
    (inbox / "1.example").write_text("From: postmaster@example.org\nTo: anna@example.org\nSubject: Hello\n\nHello.\n")
    sh(f"chown -R mail:mail {STATE}/mail; chmod 755 {STATE}; ip link set lo up; hostname programs")
    names = "\n".join(f"127.0.0.{11 + i} {mode}{j}.example.org" for i, (mode, j) in enumerate(addresses()))
    pathlib.Path("/etc/hosts").write_text(f"127.0.0.1 localhost programs.example.org programs stack.example.org\n{names}\n")
    sh(f"""cd {STATE}
    openssl req -x509 -newkey rsa:2048 -nodes -days 30 -subj '/CN=programs test CA' -keyout ca.key -out ca.pem
    printf 'subjectAltName=DNS:*.example.org\\n' >san
    for kind in rsa:2048 ec; do
      openssl req -newkey $kind $([ $kind = ec ] && echo -pkeyopt ec_paramgen_curve:P-256) -nodes \
        -subj '/CN=mail.example.org' -keyout ${{kind%:*}}.key -out csr
      openssl x509 -req -in csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 30 -extfile san -out ${{kind%:*}}.pem
    done
    cp ca.pem /usr/local/share/ca-certificates/programs.crt
    update-ca-certificates --fresh""")
    (STATE / "dovecot.conf").write_text(DOVECOT)
    subprocess.Popen(["dovecot", "-F", "-c", f"{STATE}/dovecot.conf"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    for name, newest in (("1.0", "TLSv1"), ("1.1", "TLSv1.1"), ("1.2", "TLSv1.2")):
        (STATE / f"openssl-{name}").write_text(
            "openssl_conf = a\n[a]\nssl_conf = b\n[b]\nsystem_default = c\n[c]\nMinProtocol = TLSv1\n"
            f"MaxProtocol = {newest}\nCipherString = DEFAULT:@SECLEVEL=0\n")
    (STATE / "gnutls").write_text("[overrides]\ndisabled-version = tls1.3\n")
    RESULTS.chmod(0o1777)  # for pictures of windows
    policies = pathlib.Path("/etc/thunderbird/policies")
    policies.mkdir(parents=True, exist_ok=True)
    (policies / "policies.json").write_text('{"policies": {"Certificates": {"Install": ["/run/programs/ca.pem"]}}}')
    sh("getent passwd anna || useradd anna; install -d -o anna -g anna /home/anna")


def addresses():
    return [(mode, j) for mode in MODES for j in range(2)]


class Gate:
    """One Postern: a mode and a floor on an address of its own."""

    running = {}

    def __init__(self, mode, floor):
        j = ("tls1.2", "tls1.3").index(floor)
        self.host = f"{mode}{j}.example.org"
        self.address = f"127.0.0.{11 + addresses().index((mode, j))}"
        self.log, self.trace = STATE / f"{self.host}.log", STATE / f"{self.host}.trace"
        variables = {f"POSTERN_LISTEN_{name.upper()}": f"{self.address}:{port}" for name, port in PORTS.items()}
        variables.update(
            POSTERN_UPSTREAM_IMAP="imap://127.0.0.1:1143", POSTERN_UPSTREAM_POP3="pop3://127.0.0.1:1110",
            POSTERN_TLS_CERT_FILE=f"{STATE}/ec.pem,{STATE}/rsa.pem", POSTERN_TLS_KEY_FILE=f"{STATE}/ec.key,{STATE}/rsa.key",
            POSTERN_POLICY_MODE=mode, POSTERN_POLICY_FLOOR=floor,
            POSTERN_ADMIN_LISTEN=f"{self.address}:9993", TLS_TRACE=str(self.trace))
        self.process = subprocess.Popen(["/measured/build/postern"], env=variables, stderr=open(self.log, "w"))
        for _ in range(100):
            try:
                urllib.request.urlopen(f"http://{self.address}:9993/readyz").read()
                return
            except OSError:
                time.sleep(0.1)
        sys.exit(f"Postern does not start:\n{self.log.read_text()}")

    @classmethod
    def of(cls, mode, floor):
        if (mode, floor) not in cls.running:
            cls.running[mode, floor] = cls(mode, floor)
        return cls.running[mode, floor]

    def counts(self):
        """The connections by listener, and the logins that were refused for want of TLS."""
        text = urllib.request.urlopen(f"http://{self.address}:9993/metrics").read().decode()
        found = re.findall(r'^(postern_connections|postern_cleartext_logins)_total\{listener="(\w+)"\} (\d+)', text, re.M)
        return {(metric[8:], listener): int(n) for metric, listener, n in found}

    def handshakes(self):
        lines = [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]
        return [line for line in lines if line["msg"] == "legacy handshake"]


# ---- one run of one program

def environment(home, limit):
    variables = {"HOME": str(home), "PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "TERM": "screen", "USER": ACCOUNT,
                 "ACCOUNT": ACCOUNT, "PASSWORD": PASSWORD}
    variables["OPENSSL_CONF"] = f"{STATE}/openssl-{limit}"
    if limit == "1.2":
        variables["GNUTLS_SYSTEM_PRIORITY_FILE"] = f"{STATE}/gnutls"
    return variables


def piped(command, env, home):
    """Runs what prints and ends; gives its output and exit code."""
    process = subprocess.Popen(command, env=env, cwd=home, user="anna", group="anna", extra_groups=[], text=True,
                               errors="replace", start_new_session=True, stdin=subprocess.DEVNULL,
                               stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        out, _ = process.communicate(timeout=90)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        out, _ = process.communicate()
        return [out], "hangs"
    return [out], process.returncode


def drawn(command, env, home, answers):
    """Runs what draws on a terminal, for up to 25 s; gives every screen it showed."""
    def tmux(*words):
        return subprocess.run(["tmux", "-L", "programs", *words], env=env, cwd=home, user="anna", group="anna",
                              extra_groups=[], capture_output=True, text=True, errors="replace").stdout

    (STATE / "tmux").write_text("set -g remain-on-exit on\n")
    tmux("-f", f"{STATE}/tmux", "new-session", "-d", "-x", "132", "-y", "40", *command)
    screens, answers, still, code = [], dict(answers), 0, "stays"
    for _ in range(80):
        time.sleep(0.3)
        screen = tmux("capture-pane", "-p").rstrip()
        if dead := re.search(r"Pane is dead \(status (\d+).*", screen):
            screens, code = screens + [screen.replace(dead[0], "")], int(dead[1])
            break
        for pattern in [p for p in answers if re.search(p, screen)]:
            tmux("send-keys", "-l", answers.pop(pattern))
        still = still + 1 if screens and screen == screens[-1] else 0
        if still == 0:
            screens.append(screen)
        if still > 20:
            break
    tmux("kill-server")
    return screens, code


def logins():
    return (STATE / "dovecot.log").read_text().count(f"Login: user=<{ACCOUNT}>")


def run(name, listener, mode):
    _, limit, _, answers = PROGRAMS[name]
    gate = Gate.of(mode, FLOORS[limit])
    home = pathlib.Path("/home/anna/run")
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir()
    shutil.chown(home, "anna", "anna")
    env = environment(home, limit)
    env.update(PROTO=listener[:4], SECURITY="tls" if listener.endswith("s") else "starttls",
               HOST=gate.host, PORT=str(PORTS[listener]), MODE=mode, SHOTS=str(RESULTS))
    before, login, trace, seen = gate.counts(), logins(), offset(gate.trace), len(gate.handshakes())
    start = time.time()
    command = ["bash", "-c", RECIPES, "recipes.sh", name]
    if answers is None:
        shown, code = piped(command, env, home)
        if name in WINDOWS:
            code = "stays"
    else:
        shown, code = drawn(command, env, home, answers)
    time.sleep(0.5)
    subprocess.run(["pkill", "-KILL", "-u", "anna"], check=False)
    after = gate.counts()
    dialogue = gate.trace.read_bytes()[trace:].decode(errors="replace") if gate.trace.exists() else ""
    return {
        "program": name, "listener": listener, "mode": mode, "shown": shown, "exit": code,
        "seconds": round(time.time() - start, 1), "login": logins() > login, "dialogue": dialogue.splitlines(),
        "connections": {k[1]: after[k] - before[k] for k in after if k[0] == "connections" and after[k] > before[k]},
        "cleartext": sum(after[k] - before[k] for k in after if k[0] == "cleartext_logins"),
        "password": has_password(dialogue), "handshakes": gate.handshakes()[seen:],
    }


def offset(path):
    return path.stat().st_size if path.exists() else 0


def has_password(dialogue):
    said = "\n".join(line for line in dialogue.splitlines() if " C: " in line)
    forms = [PASSWORD, base64.b64encode(PASSWORD.encode()).decode()]
    forms += [base64.b64encode(f"{a}\0{ACCOUNT}\0{PASSWORD}".encode()).decode() for a in ("", ACCOUNT)]
    return any(form in said for form in forms)


# ---- what a person reads

def squeeze(text):
    return re.sub(r"[\s|│\\]+", "", text).lower()


def seen(record):
    """How much of the explanation a person reads: all, a part that makes sense, or nothing."""
    limit = PROGRAMS[record["program"]][1]
    text = TEXT % (limit, FLOORS[limit][3:])
    shown, text = squeeze("\n".join(record["shown"])), squeeze(text)
    if text in shown:
        return "whole"
    return "cut" if text[:30] in shown else "no"


# What programs say beside the reason.
NUMBERS = re.compile(
    r"([0-9A-F]{8,}:)?error:[0-9A-F]{8}:|^(a: |A |Alert: )+|\((Runtime|_ssl\.c:\d+)\)|:\.\./[^ :]+:\d+:?(SSL alert number \d+)?|SSL routines:\w*:"
    r"|SSL3?_[A-Z_]+:|SSL_connect(: 1:| returned.* state=error:) |^/usr\S+in `[^']+': |\(errflg=\d\) in Unknown.*|^error: |^(Caused by|Notice): "
    r"|Exception in thread \"main\" |\[?SSL: TLSV1_ALERT_PROTOCOL_VERSION\] |\(pop :server [^)]*\) |^Warning: Opening \S+ server on mail...failed: ; "
    r"|Server nnimap.mail previously determined to be down; not retrying; ")

# Words of a message, and lines that are none.
WORDS = re.compile(r"tls|ssl|alert|error|fail|cannot|can't|could not|unable|version|closed|denied|refused|unexpected|EOF|BYE|reset|abort|invalid|no mail|unavail", re.I)
DULL = re.compile(r"^\s*(at |File |Traceback|from |\^|\[Thread|.*node:internal)|Press|Loading|^\s*throw |^\s*raise |self\.|Copyright|requires libtool|^\S+@\S+:|using TLS|^getmail version|notls|informational message|^Alert$|tlsFailed|authenticationFailed|eventName|^Opening connection|^C\]:|^\d+ \w+ [A-Z]|^retu|imaplib2 v|Licensed|super\(|imapobj|Node\.js v|^Connecting to")


def words(record):
    """The line that tells a person most about what happened."""
    lines = []
    for screen in reversed(record["shown"]):
        for line in reversed(screen.replace("\\\n", "").splitlines()):
            line = re.sub(r"\s+", " ", line).strip(" -|[]")
            if WORDS.search(line) and not DULL.search(line):
                lines.append(NUMBERS.sub("", line).strip(" ,"))
    text = next(filter(re.compile("tls|ssl|alert", re.I).search, lines), lines[0] if lines else "nothing")
    text = re.sub(r"(observe|enforce|explain)[\dl]\.example\.org", "HOST", text)
    text = re.sub(r"(imap|pop)3?s?://[^/ ']*[^/ ':]/?|HOST(:\d+| \([\d.:]+\))", "HOST", text)
    text = text.replace("|", "\\|").replace("<", "&lt;").replace("`", "'")
    return text if len(text) <= 110 else text[:107] + "..."


def version(name):
    package = PROGRAMS[name][0]
    if package == "npm":
        module = "imap" if name == "node-imap" else name
        return json.loads((WORK / f"npm/node_modules/{module}/package.json").read_text())["version"]
    if package == "go-imap":
        return "2.0.0-beta.8"
    if name == "offlineimap":  # its package has no version
        return "8.0.0"
    found = sh(f"dpkg-query -W -f '${{Version}}' {package}")
    return re.sub(r"^\d+:|[-+~].*$", "", found)


def table(records):
    by = {(r["program"], r["listener"], r["mode"]): r for r in records}
    print("| program | up to | when refused: a person reads (exit code) | explained on `imaps` | `imap` | `pop3s` | `pop3` |")
    print("|---|---|---|---|---|---|---|")
    totals = {listener: [0, 0] for listener in PORTS}
    for name in PROGRAMS:
        refused = [by[name, on, "enforce"] for on in PORTS if (name, on, "enforce") in by]
        cells = []
        for on in PORTS:
            record = by.get((name, on, "explain"))
            if record is None:
                cells.append("–")
                continue
            how = seen(record)
            totals[on][0] += how != "no"
            totals[on][1] += 1
            cells.append({"whole": "whole", "cut": "in part"}.get(how) or f"no: {words(record)}")
            if record["password"]:
                cells[-1] += " (password sent)"
        if refused or set(cells) != {"–"}:
            read = dict.fromkeys(f"{words(r)} ({r['exit']})" for r in refused)
            print(f"| {name} {version(name)} | {PROGRAMS[name][1]} | {'<br>'.join(read) or '–'} | {' | '.join(cells)} |")
    print("| shown | | |", " | ".join(f"{a} of {b}" for a, b in totals.values()), "|")
    print()
    several = [r for r in records if sum(r["connections"].values()) != 1 and r["mode"] != "observe"]
    for r in several:
        print(f"- {r['program']} on {r['listener']}, {r['mode']}: connections {r['connections']}")
    for r in records:
        if r["mode"] == "observe" and not r["login"]:
            print(f"- {r['program']} on {r['listener']} does not log in in observe: {words(r)}")
        if r["mode"] != "observe" and r["cleartext"]:
            print(f"- {r['program']} on {r['listener']}, {r['mode']}: a login without TLS")


def results(name):
    """What is known of a program, from this run and those before."""
    file = RESULTS / f"{name}.json"
    return json.loads(file.read_text()) if file.exists() else []


def programs(args):
    chosen = [n for n in PROGRAMS if not args.only or n in args.only]
    if not args.g and not args.only:
        chosen = [n for n in chosen if n not in WINDOWS]
    for name in chosen if args.what != "tables" else []:
        records = []
        for listener in PROGRAMS[name][2]:
            for mode in MODES:
                if listener in args.on and mode in args.modes:
                    record = run(name, listener, mode)
                    records.append(record)
                    say(f"{name} {listener} {mode}: exit {record['exit']}, {record['seconds']} s, login {record['login']}, "
                        f"text {seen(record)}, password {record['password']}, {record['connections']}: {words(record)}")
        keep = [r for r in results(name) if (r["listener"], r["mode"]) not in [(n["listener"], n["mode"]) for n in records]]
        (RESULTS / f"{name}.json").write_text(json.dumps(keep + records, indent=1))
    table([r for name in chosen for r in results(name)])


def old_stacks(args):
    home = pathlib.Path("/run/programs/stacks")
    home.mkdir()
    rows = []
    for row in stacks.measure(Gate, args.only, say, home):
        rows.append(row)
        (RESULTS / "stacks.json").write_text(json.dumps(rows, indent=1))


def stacks_table():
    print("\n| stack | set to | hello | JA4 | in `observe` | in `enforce` | it says then |")
    print("|---|---|---|---|---|---|---|")
    for row in json.loads((RESULTS / "stacks.json").read_text()):
        watched, refused = row["observe"], row["enforce"]
        log = (watched["log"] or refused["log"] or [{}])[0]
        outcome = log.get("outcome", "accepted" if watched["met"].startswith("TLS") else "")
        said = words({"shown": [refused["said"]]}) if "alert" in refused["met"] else "–"
        if watched["offered"] == "nothing":
            said, outcome = words({"shown": [watched["said"]]}), ""
        print(f"| {row['stack']} | `{row['how'].replace('NORMAL:-VERS-ALL:', '')}` | {watched['offered']} | {log.get('ja4', '–')} | {outcome} {watched['met']} "
              f"| {refused['met']} | {said} |")


def main():
    def listed(text):
        return text.split(",")

    parser = argparse.ArgumentParser(prog="test/programs/run")
    parser.add_argument("-g", action="store_true", help="graphical programs, too")
    parser.add_argument("-only", type=listed, default=[], help="NAME,NAME")
    parser.add_argument("-on", type=listed, default=list(PORTS), help="imaps,imap,pop3s,pop3")
    parser.add_argument("-modes", type=listed, default=list(MODES), help="observe,enforce,explain")
    parser.add_argument("what", choices=["programs", "stacks", "all", "tables"])
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))
    if args.what != "tables":
        servers()
    if args.what != "stacks":
        programs(args)
    if args.what in ("stacks", "all"):
        old_stacks(args)
    if args.what in ("stacks", "all", "tables"):
        stacks_table()


if __name__ == "__main__":
    main()
