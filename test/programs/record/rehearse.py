#!/usr/bin/env python3
"""The rehearsal of naming: mail programs limited to old TLS log in through a Postern that
observes, each with an account of its own, from one address and from addresses of their
own; then the report says who they are. test/programs/record/run rehearse starts it."""

import csv
import io
import json
import os
import pathlib
import re
import subprocess
import sys
import time
import urllib.request

import record
from programs import PORTS, PROGRAMS

PASSWORD = "Sesame4711"
GATE = "10.99.0.1"
# A program, and the listener that it uses here: each listener has its share.
CAST = """curl imaps, fetchmail imap, python imaps, python-pop3 pop3s, mutt imap, neomutt pop3s, mbsync imap, getmail imaps,
offlineimap imap, fdm imaps, imapfilter imaps, mpop pop3, s-nail imap, alpine imaps, php imap, perl imap, perl-pop3 pop3s, ruby imap,
ruby-pop3 pop3s, mail imaps, goimap imap, goimap1 imaps, mxk imaps, imapflow imaps, node-imap imap, emailjs imaps, yapople pop3s,
node-pop3 pop3s, aerc imaps, gnus imap, imaptalk imaps, net-imap-simple imaps, net-imap-client imaps, pop3client pop3s, imtest imaps,
perdition imaps, javamail imap, roundcube imaps, horde imaps, pullimap imaps, imaplib2 imaps, tcllib imaps, inbox imaps,
etpan imap, vmime imaps, commons-net imap, imapproxy imap, interimap imaps, cyradm imap,
evolution imaps, claws-mail imap, sylpheed imaps, balsa imap, thunderbird imaps"""
CAST = [tuple(entry.split()) for entry in CAST.replace("\n", " ").split(",")]

DOVECOT = """
protocols = imap pop3
listen = 127.0.0.1
log_path = {state}/dovecot.log
base_dir = {state}/dovecot
ssl = no
disable_plaintext_auth = no
auth_failure_delay = 0
mail_max_userip_connections = 0
first_valid_uid = 8
mail_location = maildir:{state}/mail/%u
passdb {{
  driver = static
  args = password={password}
}}
userdb {{
  driver = static
  args = uid=mail gid=mail home={state}/mail/%u
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


def upstream(root):
    state = "/run/postern-record/upstream"
    (root / state[1:] / "mail").mkdir(parents=True)
    record.sh(f"chroot {root} chown -R mail:mail {state}/mail; chmod 755 {root}{state}")
    (root / state[1:] / "dovecot.conf").write_text(DOVECOT.format(state=state, password=PASSWORD))
    subprocess.Popen(["chroot", str(root), "dovecot", "-F", "-c", f"{state}/dovecot.conf"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return root / state[1:] / "dovecot.log"


def postern(keys):
    """One Postern that observes all that is older than TLS 1.3: some libraries refuse 1.0 by themselves."""
    variables = {f"POSTERN_LISTEN_{name.upper()}": f"{GATE}:{port}" for name, port in PORTS.items()}
    variables.update(
        POSTERN_UPSTREAM_IMAP="imap://127.0.0.1:1143", POSTERN_UPSTREAM_POP3="pop3://127.0.0.1:1110",
        POSTERN_TLS_CERT_FILE=f"{keys}/ec.pem,{keys}/rsa.pem", POSTERN_TLS_KEY_FILE=f"{keys}/ec.key,{keys}/rsa.key",
        POSTERN_POLICY_MODE="observe", POSTERN_POLICY_FLOOR="tls1.3", POSTERN_LEDGER_IDENTITY="plain",
        POSTERN_LEDGER_URL=f"sqlite:{record.STATE}/ledger.db", POSTERN_ADMIN_LISTEN="127.0.0.1:9993")
    subprocess.Popen([os.environ["POSTERN"]], env=variables, stderr=open(record.STATE / "postern.log", "w"))
    for _ in range(600):
        try:
            return urllib.request.urlopen("http://127.0.0.1:9993/readyz").read() and variables
        except OSError:
            time.sleep(0.2)
    sys.exit(f"Postern does not start:\n{(record.STATE / 'postern.log').read_text()}")


def network():
    record.sh(f"""mkdir -p /run/netns; ip link set lo up; hostname {record.HOSTNAME}
    ip link add office address 02:00:00:00:00:01 type bridge; ip addr add {GATE}/16 dev office; ip link set office up""")


def place(number):
    """A network namespace with an address of its own; 0 is the office's."""
    record.sh(f"""ip netns add p{number}; ip link add v{number} type veth peer name e netns p{number}
    ip link set v{number} master office up; ip -n p{number} link set lo up
    ip -n p{number} addr add 10.99.{1 + number // 200}.{1 + number % 200}/16 dev e; ip -n p{number} link set e up""")
    return ["ip", "netns", "exec", f"p{number}"]


def report(variables):
    out = subprocess.run([os.environ["POSTERN"], "report", "-by", "account", "-format", "csv"], env=variables, capture_output=True, text=True)
    if out.returncode:
        sys.exit(f"report: {out.stderr}")
    return out.stdout


def judge(rows, expected):
    """Says for each account whether it is named rightly, wrongly, or not at all, and how.
    A name that is inferred may be several, one of which has to be right; a way of
    speaking that nobody is known for is no name. A program that is not in the report was
    not to be limited, and does not count."""
    verdicts = {}
    for account, want in expected.items():
        if not any(account in row["accounts"].split("; ") for row in rows):
            record.say(f"{account} is no old client")
            continue
        found = [name for row in rows if account in row["accounts"].split("; ")
                 for name in (row["software"] or row["speaks_like"]).split("; ") if name]
        named = [name for name in found if name.split(" ")[0] not in PORTS]
        right = [name for name in named if is_one_of(want, name)]
        verdicts[account] = "unnamed" if not named else "right" if right == named else "wrong", found
    return verdicts


def is_one_of(want, name):
    return any(one == want.lower() or re.fullmatch(re.escape(want.lower()) + r"[ /]v?\d.*", one) for one in name.lower().split(", "))


def main():
    root = pathlib.Path(sys.argv[1], "bookworm")
    keys = pathlib.Path(sys.argv[1], "keys")
    network()
    record.STATE.mkdir(parents=True, exist_ok=True)
    record.prepare(keys, [root], {"gate": GATE})
    log = upstream(root)
    variables = postern(keys)
    cast = [(name, listener) for name, listener in CAST if record.installed(name, root)]
    office = place(0)
    expected = {"own": {}, "office": {}}
    with open(pathlib.Path(sys.argv[1], "rehearsal.log"), "w") as shown:
        for number, (name, listener) in enumerate(cast, 1):
            own = place(number)
            for where, prefix in (("office", office), ("own", own)):
                account = f"{where}-{name}"
                env = record.environment("gate.example.org", listener, account, PASSWORD, True)
                record.drive(name, root, env, PASSWORD, lambda: f"user=<{account}>" in log.read_text(), shown, prefix)
                if f"Login: user=<{account}>" in log.read_text():
                    expected[where][account] = PROGRAMS[name].shown or name
                else:
                    record.say(f"{name} did not log in on {listener}")
    time.sleep(3)  # the ledger is written behind
    text = report(variables)
    pathlib.Path(sys.argv[1], "rehearsal.csv").write_text(text)
    pathlib.Path(sys.argv[1], "rehearsal.json").write_text(json.dumps(expected))
    rows = list(csv.DictReader(io.StringIO(text)))
    good = True
    for where, accounts in expected.items():
        verdicts = judge(rows, accounts)
        count = {v: sum(1 for verdict, _ in verdicts.values() if verdict == v) for v in ("right", "wrong", "unnamed")}
        few = sum(1 for verdict, found in verdicts.values() if verdict == "right" and len(", ".join(found).split(", ")) < 3)
        print(f"\nfrom {'one address' if where == 'office' else 'addresses of their own'}: {len(verdicts)} programs, "
              f"{count['right']} named rightly ({few} by one name or two), {count['wrong']} wrongly, {count['unnamed']} not\n")
        for account, (verdict, found) in verdicts.items():
            print(f"  {verdict:8} {accounts[account]:24} {'; '.join(found)}")
        good = good and len(verdicts) >= 30 and count["right"] * 30 >= 24 * len(verdicts) and not count["wrong"]
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
