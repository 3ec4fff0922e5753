package mail

import (
	"slices"
	"strings"
	"testing"
)

// Both scripts fail a login first, and print a hash for every message.
const imaplibScript = `
import hashlib, imaplib, ssl, sys
listener, port, ca, user, password = sys.argv[1:]
tls = ssl.create_default_context(cafile=ca)
if listener == "imaps":
    box = imaplib.IMAP4_SSL("localhost", int(port), ssl_context=tls, timeout=30)
else:
    box = imaplib.IMAP4("localhost", int(port), timeout=30)
    box.starttls(tls)
assert not {"STARTTLS", "LOGINDISABLED"} & set(box.capabilities), box.capabilities
try:
    box.login(user, "wrong")
    sys.exit("a wrong password was let in")
except imaplib.IMAP4.error as refusal:
    assert "AUTHENTICATIONFAILED" in str(refusal), refusal
box.authenticate("PLAIN", lambda challenge: b"\0%s\0%s" % (user.encode(), password.encode()))
box.select("INBOX", readonly=True)
for part in box.fetch("1:*", "(BODY.PEEK[])")[1]:
    if isinstance(part, tuple):
        print(hashlib.sha256(part[1]).hexdigest())
box.logout()
`

// poplib gives up on lines over 2 KB unless told.
const poplibScript = `
import hashlib, poplib, ssl, sys
poplib._MAXLINE = 1 << 20
listener, port, ca, user, password = sys.argv[1:]
tls = ssl.create_default_context(cafile=ca)
if listener == "pop3s":
    box = poplib.POP3_SSL("localhost", int(port), context=tls, timeout=30)
else:
    box = poplib.POP3("localhost", int(port), timeout=30)
    box.stls(tls)
assert "STLS" not in box.capa(), box.capa()
box.user(user)
try:
    box.pass_("wrong")
    sys.exit("a wrong password was let in")
except poplib.error_proto as refusal:
    assert "[AUTH]" in str(refusal), refusal
box.user(user)
box.pass_(password)
for number in range(len(box.list()[1])):
    lines = box.retr(number + 1)[1]
    print(hashlib.sha256(b"".join(line + b"\r\n" for line in lines)).hexdigest())
box.quit()
`

func TestPythonReadsAMailbox(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "enforce", smallMailbox()...)
	scripts := map[string]string{"imaps": imaplibScript, "imap": imaplibScript, "pop3s": poplibScript, "pop3": poplibScript}
	eachListener(t, func(t *testing.T, listener string) {
		out := program{name: "python3", args: []string{"-c", scripts[listener], listener, w.port(t, listener),
			w.CA.File, w.user.Name, w.user.Password}}.succeed(t)
		sameMessages(t, listener, slices.Collect(strings.FieldsSeq(out)), hashAll(smallMailbox()))
	})
	w.CheckIdentities(t, 4)
}
