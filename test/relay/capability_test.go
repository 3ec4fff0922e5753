package relay

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// rewritten are IMAP responses as the upstream says them and as a client inside
// TLS must see them; no second one: the same.
var rewritten = []struct{ name, says, sees string }{
	{"all that does not hold inside TLS",
		"* CAPABILITY IMAP4rev1 STARTTLS LOGINDISABLED AUTH=PLAIN AUTH=SCRAM-SHA-256-PLUS ID\r\n",
		"* CAPABILITY IMAP4rev1 AUTH=PLAIN ID\r\n"},
	{"lower and mixed case",
		"* capability imap4rev1 startTLS LoginDisabled auth=scram-sha-1-plus Auth=plain\r\n",
		"* capability imap4rev1 Auth=plain\r\n"},
	{"first", "* CAPABILITY STARTTLS IMAP4rev1\r\n", "* CAPABILITY IMAP4rev1\r\n"},
	{"twice", "* CAPABILITY STARTTLS STARTTLS IMAP4rev1 STARTTLS\r\n", "* CAPABILITY IMAP4rev1\r\n"},
	{"words that hold others",
		"* CAPABILITY IMAP4rev1 XSTARTTLS STARTTLSX STARTTLS=1 XLOGINDISABLED LOGINDISABLED2 AUTH=PLUS-FOO AUTH=X-PLUSSY SASL-IR X-PLUS\r\n", ""},
	{"nothing to filter", "* CAPABILITY IMAP4rev1  AUTH=PLAIN \r\n", ""},
	{"the code of an untagged OK",
		"* OK [CAPABILITY IMAP4rev1 STARTTLS LOGINDISABLED] STARTTLS is for others\r\n",
		"* OK [CAPABILITY IMAP4rev1] STARTTLS is for others\r\n"},
	{"the code of an untagged NO",
		"* no [capability IMAP4rev1 AUTH=SCRAM-SHA-1-PLUS] [STARTTLS]\r\n",
		"* no [capability IMAP4rev1] [STARTTLS]\r\n"},
	{"text alone", "* OK CAPABILITY STARTTLS LOGINDISABLED [STARTTLS]\r\n", ""},
	{"text behind another code", "* OK [ALERT] [CAPABILITY IMAP4rev1 STARTTLS]\r\n", ""},
	{"another response", "* XCAPABILITY STARTTLS LOGINDISABLED\r\n", ""},
	{"an ID that names it", "* ID (\"name\" \"STARTTLS\" \"x\" \"* CAPABILITY IMAP4rev1 STARTTLS\")\r\n", ""},
	{"an ID with a literal", "* ID (\"name\" {8}\r\nSTARTTLS \"x\" {13}\r\nLOGINDISABLED)\r\n", ""},
	{"lines inside a literal",
		"* ID (\"name\" {66}\r\n* CAPABILITY IMAP4rev1 STARTTLS\r\n* OK [CAPABILITY STARTTLS] done\r\n \"v\" NIL)\r\n", ""},
	{"what looks like a literal's end", "* OK see {3} STARTTLS\r\n", ""},
}

func TestIMAPCapabilitiesInsideTLS(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	for _, listener := range []string{"imaps", "imap"} {
		d := r.open(t, listener)
		for _, c := range rewritten {
			t.Run(listener+" "+c.name, func(t *testing.T) {
				sees := c.sees
				if sees == "" {
					sees = c.says
				}
				// Split anywhere.
				d.pass(t, "a CAPABILITY\r\n")
				for i := range len(c.says) {
					d.upstream.Send(t, c.says[:i])
					time.Sleep(time.Millisecond)
					d.upstream.Send(t, c.says[i:])
				}
				d.client.Expect(t, strings.Repeat(sees, len(c.says)))
				for i := range len(c.says) {
					d.upstream.Send(t, c.says[i:i+1])
				}
				d.client.Expect(t, sees)
				// Several in one segment, with the tagged line and its code.
				d.upstream.Send(t, strings.Repeat(c.says, 3)+"a OK [CAPABILITY STARTTLS IMAP4rev1 LOGINDISABLED] STARTTLS\r\n")
				d.client.Expect(t, strings.Repeat(sees, 3)+"a OK [CAPABILITY IMAP4rev1] STARTTLS\r\n")
			})
		}
	}
}

func TestCapabilitiesDuringALoginAreTrueAndUntouchedAfterIt(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	const list = "IMAP4rev1 STARTTLS LOGINDISABLED AUTH=SCRAM-SHA-1-PLUS IDLE"
	body := "* CAPABILITY " + list + "\r\na OK [CAPABILITY " + list + "] done\r\nSTARTTLS\r\n"
	late := fmt.Sprintf("* CAPABILITY %s\r\n* 1 FETCH (BODY[] {%d}\r\n%s)\r\nb OK [CAPABILITY %s] done\r\n", list, len(body), body, list)
	for _, listener := range []string{"imaps", "imap"} {
		for _, refused := range []bool{false, true} {
			d := r.open(t, listener)
			if refused {
				d.pass(t, "f LOGIN anna wrong\r\n")
				d.upstream.Send(t, "* CAPABILITY "+list+"\r\nf NO [CAPABILITY "+list+"] wrong\r\n")
				d.client.Expect(t, "* CAPABILITY IMAP4rev1 IDLE\r\nf NO [CAPABILITY IMAP4rev1 IDLE] wrong\r\n")
			}
			d.pass(t, "a LOGIN anna s3cr3t-word\r\n")
			// The end of the login and message data in one segment.
			d.upstream.Send(t, "* CAPABILITY "+list+"\r\na OK [CAPABILITY "+list+"] logged in\r\n"+late)
			d.client.Expect(t, "* CAPABILITY IMAP4rev1 IDLE\r\na OK [CAPABILITY IMAP4rev1 IDLE] logged in\r\n"+late)
			d.pass(t, "b FETCH 1 BODY[]\r\n")
			d.back(t, late)
			d.pass(t, "c STARTTLS\r\nd ID (\"x-originating-ip\" \"192.0.2.1\")\r\n") // the upstream's to answer now
			d.back(t, "c BAD no\r\nd OK\r\n")
		}
	}
}

func TestTheGreetingIsTrueInsideTLS(t *testing.T) {
	t.Parallel()
	for says, sees := range map[string]string{
		"* OK [CAPABILITY IMAP4rev1 STARTTLS LOGINDISABLED AUTH=SCRAM-SHA-1-PLUS] STARTTLS here\r\n": "* OK [CAPABILITY IMAP4rev1] STARTTLS here\r\n",
		"* ok [capability starttls imap4rev1]\r\n":                                                   "* ok [capability imap4rev1]\r\n",
		"* OK STARTTLS is spoken here\r\n":                                                           "* OK STARTTLS is spoken here\r\n",
	} {
		r := newRigGreeting(t, nil, says, pop3Greeting)
		c := newEnd("client", r.secure(t, "imaps", r.DialForTLS(t, "imaps")))
		r.taken(t, "imaps")
		c.Expect(t, sees)
		c.ExpectSilence(t, quietTime)
	}
}

// listings are lines of POP3's lists, with what a client inside TLS must see.
var listings = []struct{ name, command, says, sees string }{
	{"CAPA", "CAPA\r\n",
		"+OK\r\nSTLS\r\nUSER\r\nSASL PLAIN SCRAM-SHA-1-PLUS LOGIN\r\nIMPLEMENTATION STLS SASL X-PLUS\r\n.\r\n",
		"+OK\r\nUSER\r\nSASL PLAIN LOGIN\r\nIMPLEMENTATION STLS SASL X-PLUS\r\n.\r\n"},
	{"CAPA in lower case", "capa\r\n",
		"+ok list\r\nsasl scram-sha-256-plus plain\r\nstls\r\n.\r\n",
		"+ok list\r\nsasl plain\r\n.\r\n"},
	{"CAPA with similar words", "CAPA\r\n", "+OK\r\nXSTLS\r\nSTLSX\r\nSTLS X\r\nSASL PLUS-FOO X-PLUSSY\r\n.\r\n", ""},
	{"CAPA refused", "CAPA\r\n", "-ERR STLS\r\n", ""},
	{"AUTH", "AUTH\r\n", "+OK\r\nPLAIN\r\nSCRAM-SHA-1-PLUS\r\nSCRAM-SHA-1\r\n.\r\n", "+OK\r\nPLAIN\r\nSCRAM-SHA-1\r\n.\r\n"},
	{"AUTH in lower case", "auth\r\n", "+OK\r\nscram-sha-1-plus\r\n.\r\n", "+OK\r\n.\r\n"},
	{"LANG", "LANG\r\n", "+OK list\r\nen English\r\nde Deutsch\r\n.\r\n", ""},
	{"LANG with a language", "LANG en\r\n", "+OK en STLS\r\n", ""},
	{"stuffed dots", "CAPA\r\n", "+OK\r\n..\r\n..STLS\r\nUSER\r\n.\r\n", ""},
	{"text of other replies", "NOOP\r\n", "+OK STLS SASL X-PLUS\r\n", ""},
}

func TestPOP3CapabilitiesInsideTLS(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	for _, listener := range []string{"pop3s", "pop3"} {
		d := r.open(t, listener)
		for _, c := range listings {
			t.Run(listener+" "+c.name, func(t *testing.T) {
				sees := c.sees
				if sees == "" {
					sees = c.says
				}
				for i := 1; i < len(c.says); i++ {
					d.pass(t, c.command)
					d.upstream.Send(t, c.says[:i])
					time.Sleep(time.Millisecond)
					d.upstream.Send(t, c.says[i:])
					d.client.Expect(t, sees)
				}
				d.goesOn(t, listener)
			})
		}
		d.login(t, listener)
		for _, c := range listings {
			d.pass(t, c.command)
			d.back(t, c.says)
		}
	}
}

func TestSTARTTLSAndXCLIENTInsideTLSAreNotForwarded(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	for _, listener := range []string{"imaps", "imap", "pop3s", "pop3"} {
		d := r.open(t, listener)
		for _, c := range [][2]string{
			{"a STARTTLS\r\n", "a BAD "}, {"b starttls\r\n", "b BAD "}, {"c StartTLS now\r\n", "c BAD "},
			{"d XCLIENT ADDR=192.0.2.1\r\n", "d BAD "}, {"e xclient\r\n", "e BAD "},
			{"STLS\r\n", "-ERR "}, {"stls\r\n", "-ERR "}, {"Stls now\r\n", "-ERR "},
			{"XCLIENT ADDR=192.0.2.1\r\n", "-ERR "}, {"xclient\r\n", "-ERR "},
		} {
			if isIMAP(listener) != strings.Contains(c[1], "BAD") {
				continue
			}
			d.client.Send(t, c[0])
			d.client.ExpectLine(t, c[1])
			d.goesOn(t, listener) // and so the upstream has seen nothing of it
		}
		d.login(t, listener)
	}
}
