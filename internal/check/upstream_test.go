package check

import (
	"bufio"
	"crypto/tls"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/pires/go-proxyproto"

	"postern/internal/posterntest"
)

// script answers as reply says, behind TLS of the wanted kind.
func script(t *testing.T, ca *posterntest.CA, name, kind, greeting string, reply func(string) string) *posterntest.Upstream {
	t.Helper()
	pair := ca.Issue(t, []string{name}, posterntest.ECDSA)
	cert, err := tls.LoadX509KeyPair(pair.CertFile, pair.KeyFile)
	if err != nil {
		t.Fatal(err)
	}
	config := &tls.Config{Certificates: []tls.Certificate{cert}}
	return posterntest.StartRawUpstream(t, func(c net.Conn) {
		if kind == "tls" {
			c = tls.Server(c, config)
		}
		if _, err := io.WriteString(c, greeting); err != nil {
			return
		}
		for r := bufio.NewReader(c); ; {
			line, err := r.ReadString('\n')
			if err != nil {
				return
			}
			line = strings.TrimRight(line, "\r\n")
			answer := reply(line)
			if kind == "starttls" && strings.HasSuffix(line, "STARTTLS") {
				answer = strings.Fields(line)[0] + " OK begin\r\n"
			}
			if kind == "starttls" && line == "STLS" {
				answer = "+OK begin\r\n"
			}
			answer, last := strings.CutSuffix(answer, posterntest.Hangup)
			if _, err := io.WriteString(c, answer); err != nil || last {
				return
			}
			if strings.HasSuffix(answer, " begin\r\n") || answer == "+OK begin\r\n" {
				c = tls.Server(c, config)
				r = bufio.NewReader(c)
			}
		}
	})
}

func imapWith(caps string) func(string) string {
	return func(line string) string {
		tag, command, _ := strings.Cut(line, " ")
		if command == "CAPABILITY" {
			return "* CAPABILITY " + caps + "\r\n" + tag + " OK done\r\n"
		}
		return tag + " BAD no\r\n"
	}
}

// behindHeader passes over the lines of a PROXY header.
func behindHeader(reply func(string) string) func(string) string {
	return func(line string) string {
		_, command, found := strings.Cut(line, "postern ")
		if !found {
			return ""
		}
		return reply("postern " + command)
	}
}

// withID answers an ID, and what imapWith answers.
func withID(reply string) func(string) string {
	return func(line string) string {
		if tag, rest, _ := strings.Cut(line, " "); strings.HasPrefix(rest, "ID (") {
			return "* ID NIL\r\n" + tag + " " + reply + "\r\n"
		}
		return imapWith("IMAP4rev1")(line)
	}
}

// noCAPA knows QUIT alone.
func noCAPA(line string) string {
	if line == "QUIT" {
		return "+OK bye\r\n" + posterntest.Hangup
	}
	return "-ERR what?\r\n"
}

// tagged answers everything alike.
func tagged(answer string) func(string) string {
	return func(line string) string { return strings.Fields(line)[0] + " " + answer + "\r\n" }
}

func pop3With(caps string) func(string) string {
	return func(line string) string {
		switch line {
		case "CAPA":
			return caps
		case "QUIT":
			return "+OK bye\r\n"
		}
		return "-ERR no\r\n"
	}
}

const (
	imapOK   = "* OK ready\r\n"
	pop3OK   = "+OK ready\r\n"
	pop3Caps = "+OK\r\nUSER\r\nSASL PLAIN\r\n.\r\n"
	refuses  = "it refuses logins on a plain line: "
)

// upstreamTests are upstreams, by name, and what comes of asking them.
var upstreamTests = map[string]struct {
	scheme, kind, greeting string
	reply                  func(string) string
	certName               string
	set                    []string
	waits                  bool // for the time-out
	failure, warning       string
}{
	"imap":                    {scheme: "imap", greeting: imapOK, reply: imapWith("IMAP4rev1 AUTH=PLAIN")},
	"imap - told in greeting": {scheme: "imap", greeting: "* OK [CAPABILITY IMAP4rev1 LOGINDISABLED] ready\r\n", reply: imapWith("IMAP4rev1 LOGINDISABLED"), warning: refuses},
	"imap - refuses logins":   {scheme: "imap", greeting: imapOK, reply: imapWith("IMAP4rev1 STARTTLS LOGINDISABLED"), warning: refuses},
	"imap - refuses - PROXY v2": {scheme: "imap", greeting: imapOK, reply: behindHeader(imapWith("IMAP4rev1 LOGINDISABLED")), set: []string{"UPSTREAM_PROXY_PROTOCOL=v2"},
		warning: refuses + "it does not heed what the PROXY header says"},
	"imap - SCRAM-PLUS":      {scheme: "imap", greeting: imapOK, reply: imapWith("IMAP4rev1 AUTH=SCRAM-SHA-256-PLUS AUTH=SCRAM-SHA-1-plus"), warning: "SCRAM-SHA-1-PLUS, SCRAM-SHA-256-PLUS will not be offered"},
	"imap - BYE":             {scheme: "imap", greeting: "* BYE too \x1b[2Jmany\r\n", reply: imapWith(""), failure: `upstream greets with "* BYE too \x1b[2Jmany\r\n"`},
	"imap - PREAUTH":         {scheme: "imap", greeting: "* PREAUTH hi\r\n", reply: imapWith("IMAP4rev1"), failure: "let it ask for a login"},
	"imap - POP3 there":      {scheme: "imap", greeting: pop3OK, reply: pop3With(pop3Caps), failure: `upstream greets with "+OK ready\r\n", which is POP3: name`},
	"imap - silent":          {scheme: "imap", waits: true, reply: imapWith(""), failure: "if it is a port for TLS, or set POSTERN_UPSTREAM_PROXY_PROTOCOL=v2 if it waits"},
	"imap - no capabilities": {scheme: "imap", greeting: imapOK, reply: tagged("BAD no"), failure: `upstream greets, but answers CAPABILITY with "BAD no"`},
	"imap - v1":              {scheme: "imap", greeting: imapOK, reply: behindHeader(imapWith("IMAP4rev1 LOGINDISABLED")), set: []string{"UPSTREAM_PROXY_PROTOCOL=v1"}, warning: refuses + "POSTERN_UPSTREAM_PROXY_PROTOCOL=v1 cannot say"},
	"imap - Cyrus":           {scheme: "imap", greeting: "* OK mail Cyrus IMAP 3.12 server ready\r\n", reply: imapWith("IMAP4rev1 LOGINDISABLED"), warning: refuses + "use imaps:// or imap+starttls://, or set allowplaintext: yes"},
	"imap - tagged":          {scheme: "imap", greeting: "* CAPABILITY IMAP4rev1\r\n", reply: imapWith("IMAP4rev1"), failure: "upstream greets with"},
	"imap - header as a command": {scheme: "imap", greeting: imapOK, reply: func(line string) string {
		if tag, ok := strings.CutPrefix(line, "PROXY "); ok {
			return "PROXY BAD " + tag + "\r\n"
		}
		return imapWith("IMAP4rev1")(line)
	}, set: []string{"UPSTREAM_PROXY_PROTOCOL=v1"}, failure: "POSTERN_UPSTREAM_PROXY_PROTOCOL"},
	"imap - BYE after all": {scheme: "imap", waits: true, greeting: imapOK, reply: func(string) string { return "* BYE go away\r\n" }, failure: `answers CAPABILITY with "* BYE go away"`},
	"imap - waits": {scheme: "imap", greeting: imapOK, reply: func(line string) string {
		return "* OK Waiting for authentication process..\r\n" + imapWith("IMAP4rev1")(line)
	}},
	"imap - ID refused":    {scheme: "imap", greeting: imapOK, reply: imapWith("IMAP4rev1"), set: []string{"UPSTREAM_CLIENT_ID=id"}, warning: "POSTERN_UPSTREAM_CLIENT_ID=id has no effect"},
	"imap - ID believed":   {scheme: "imap", greeting: imapOK, reply: withID("OK Trusted ID completed."), set: []string{"UPSTREAM_CLIENT_ID=id"}},
	"imap - ID taken":      {scheme: "imap", greeting: imapOK, reply: withID("OK ID completed."), set: []string{"UPSTREAM_CLIENT_ID=id"}, warning: "login_trusted_networks"},
	"imaps":                {scheme: "imaps", kind: "tls", greeting: imapOK, reply: imapWith("IMAP4rev1 AUTH=PLAIN")},
	"imaps - another name": {scheme: "imaps", kind: "tls", certName: "mail.example.org", greeting: imapOK, reply: imapWith("IMAP4rev1"), failure: "set POSTERN_UPSTREAM_SERVER_NAME to a name in its certificate: mail.example.org"},
	"imaps - named":        {scheme: "imaps", kind: "tls", certName: "mail.example.org", greeting: imapOK, reply: imapWith("IMAP4rev1"), set: []string{"UPSTREAM_SERVER_NAME=mail.example.org"}},
	"imaps - no CA":        {scheme: "imaps", kind: "tls", greeting: imapOK, reply: imapWith("IMAP4rev1"), failure: "put the certificate of its CA (CN=postern test CA) into the file of POSTERN_UPSTREAM_CA_FILE"},
	"imaps - plain there":  {scheme: "imaps", greeting: imapOK, reply: imapWith("IMAP4rev1"), failure: "write imap+starttls://, imap:// on loopback, or name its port for TLS"},
	"imap - TLS there":     {scheme: "imap", waits: true, kind: "tls", greeting: imapOK, reply: imapWith("IMAP4rev1"), failure: "it does not greet, but answers TLS: write imaps://127.0.0.1:"},
	"imap+starttls":        {scheme: "imap+starttls", kind: "starttls", greeting: imapOK, reply: imapWith("IMAP4rev1 LOGINDISABLED")},
	"imap+starttls - another name": {scheme: "imap+starttls", kind: "starttls", certName: "mail.example.org", greeting: imapOK, reply: imapWith("IMAP4rev1"),
		failure: "TLS with the upstream: tls: failed to verify certificate"},
	"imap+starttls - missing": {scheme: "imap+starttls", greeting: imapOK, reply: imapWith("IMAP4rev1"), failure: "write imaps:// and its port for TLS"},
	"imap+starttls - PREAUTH": {scheme: "imap+starttls", greeting: "* PREAUTH hi\r\n", reply: imapWith("IMAP4rev1"), failure: "let it ask for a login"},
	"imap+starttls - injected": {scheme: "imap+starttls", kind: "", greeting: imapOK, reply: tagged("OK go\r\n* CAPABILITY injected"),
		failure: "data behind its OK to STARTTLS"},
	"pop3":                  {scheme: "pop3", greeting: pop3OK, reply: pop3With(pop3Caps)},
	"pop3 - refuses logins": {scheme: "pop3", greeting: pop3OK, reply: pop3With("+OK\r\nSTLS\r\nSASL\r\n.\r\n"), warning: refuses},
	"pop3 - CRAM alone":     {scheme: "pop3", greeting: pop3OK, reply: pop3With("+OK\r\nSASL CRAM-MD5\r\n.\r\n"), warning: refuses},
	"pop3 - PLAIN alone":    {scheme: "pop3", greeting: pop3OK, reply: pop3With("+OK\r\nSASL PLAIN\r\n.\r\n")},
	"pop3 - refuses all":    {scheme: "pop3", greeting: pop3OK, reply: func(string) string { return "-ERR [SYS/TEMP] no\r\n" }, failure: `answers CAPA with "-ERR [SYS/TEMP] no`},
	"pop3 - header as a command": {scheme: "pop3", greeting: pop3OK, reply: func(line string) string {
		if strings.HasPrefix(line, "PROXY ") {
			return "-ERR what?\r\n"
		}
		return pop3With(pop3Caps)(line)
	}, set: []string{"UPSTREAM_PROXY_PROTOCOL=v1"}, failure: "POSTERN_UPSTREAM_PROXY_PROTOCOL"},
	"pop3 - header as four commands": {scheme: "pop3", greeting: pop3OK, reply: noCAPA, set: []string{"UPSTREAM_PROXY_PROTOCOL=v2"}, failure: "POSTERN_UPSTREAM_PROXY_PROTOCOL"},
	"pop3 - header and no CAPA": {scheme: "pop3", greeting: pop3OK, reply: func(line string) string {
		if strings.HasPrefix(line, "PROXY ") {
			return ""
		}
		return noCAPA(line)
	}, set: []string{"UPSTREAM_PROXY_PROTOCOL=v1"}},
	"pop3 - SCRAM-PLUS":       {scheme: "pop3", greeting: pop3OK, reply: pop3With("+OK\r\nSASL PLAIN SCRAM-SHA-1-PLUS\r\n.\r\n"), warning: "SCRAM-SHA-1-PLUS will not be offered"},
	"pop3 - without CAPA":     {scheme: "pop3", greeting: pop3OK, reply: pop3With("-ERR what?\r\n")},
	"pop3 - endless CAPA":     {scheme: "pop3", greeting: pop3OK, reply: pop3With("+OK\r\n" + strings.Repeat("X\r\n", 1000)), failure: "answers what was not asked"},
	"pop3 - refuses":          {scheme: "pop3", greeting: "-ERR [SYS/TEMP] later\r\n", reply: pop3With(""), failure: `upstream greets with "-ERR [SYS/TEMP] later\r\n"`},
	"pop3 - silent":           {scheme: "pop3", waits: true, reply: pop3With(""), failure: "no answer in 2s"},
	"pop3s":                   {scheme: "pop3s", kind: "tls", greeting: pop3OK, reply: pop3With(pop3Caps)},
	"pop3s - another name":    {scheme: "pop3s", kind: "tls", certName: "mail.example.org", greeting: pop3OK, reply: pop3With(pop3Caps), failure: "TLS with the upstream: tls: failed to verify certificate"},
	"pop3+starttls":           {scheme: "pop3+starttls", kind: "starttls", greeting: pop3OK, reply: pop3With(pop3Caps)},
	"pop3+starttls - missing": {scheme: "pop3+starttls", greeting: pop3OK, reply: pop3With(pop3Caps), failure: "asking the upstream for TLS: it refuses, or does not know the command"},
	"pop3+starttls - other name": {scheme: "pop3+starttls", kind: "starttls", certName: "mail.example.org", greeting: pop3OK, reply: pop3With(pop3Caps),
		failure: "TLS with the upstream: tls: failed to verify certificate"},
	"pop3+starttls - injected": {scheme: "pop3+starttls", greeting: pop3OK, reply: func(string) string { return "+OK go\r\n+OK injected\r\n" },
		failure: "data behind its OK to STARTTLS"},
}

func TestWhatUpstreamsSay(t *testing.T) {
	ca := posterntest.NewCA(t)
	for name, test := range upstreamTests {
		t.Run(name, func(t *testing.T) {
			if test.certName == "" {
				test.certName = "127.0.0.1"
			}
			up := script(t, ca, test.certName, test.kind, test.greeting, test.reply)
			protocol, _, _ := strings.Cut(strings.TrimSuffix(test.scheme, "s"), "+")
			set := []string{"UPSTREAM_IMAP=", "UPSTREAM_POP3=", "UPSTREAM_TIMEOUT=10s"}
			if test.waits {
				set = append(set, "UPSTREAM_TIMEOUT=2s")
			}
			if strings.Contains(test.scheme, "s") && !strings.HasSuffix(name, "no CA") {
				set = append(set, "UPSTREAM_CA_FILE="+ca.File)
			}
			set = append(set, "UPSTREAM_"+strings.ToUpper(protocol)+"="+up.URL(test.scheme))
			r := Run(t.Context(), environ(t, append(set, test.set...)...), false, nobody)
			if len(r.Errors) > 0 {
				t.Errorf("errors: %q", r.Errors)
			}
			for _, part := range []struct {
				what string
				got  []string
				want string
			}{{"failure", r.Unanswered, test.failure}, {"warning", r.Warnings, test.warning}} {
				if part.want == "" && len(part.got) > 0 || len(part.got) > 1 {
					t.Errorf("%s: %q", part.what, part.got)
				}
				if part.want != "" {
					expectLine(t, part.what, part.got, up.URL(test.scheme)+": ", part.want)
				}
			}
			if test.failure == "" {
				expectLine(t, "line", r.Fine, up.URL(test.scheme)+": answers with ")
			}
		})
	}
}

func TestThePROXYHeaderComesFirst(t *testing.T) {
	for version, begin := range map[string]string{"off": "", "v1": "PROXY TCP4 192.0.2.1 127.0.0.1 ", "v2": "\r\n\r\n\x00\r\nQUIT\n\x21\x11"} {
		up := posterntest.StartRawUpstream(t, func(c net.Conn) {
			in := bufio.NewReader(c)
			if begin != "" {
				if _, err := proxyproto.Read(in); err != nil {
					return
				}
			}
			io.WriteString(c, "+OK ready\r\n")
			for line, err := in.ReadString('\n'); err == nil; line, err = in.ReadString('\n') {
				io.WriteString(c, posterntest.POP3Reply(strings.TrimSpace(line)))
			}
		})
		env := environ(t, "UPSTREAM_IMAP=", "UPSTREAM_POP3="+up.URL("pop3"), "UPSTREAM_PROXY_PROTOCOL="+version)
		if r := Run(t.Context(), env, false, nobody); len(r.Unanswered) > 0 {
			t.Errorf("%s: %q", version, r.Unanswered)
		}
		up.Close()
		if got := string(up.Received(0)); !strings.HasPrefix(got, begin) || !strings.Contains(got, "CAPA\r\n") {
			t.Errorf("%s: sent %q", version, got)
		}
	}
}

func TestOfflineDialsNothing(t *testing.T) {
	up := posterntest.StartUpstream(t, posterntest.IMAPGreeting, posterntest.IMAPReply)
	Run(t.Context(), environ(t, "UPSTREAM_IMAP="+up.URL("imap")), true, nobody)
	time.Sleep(50 * time.Millisecond)
	if n := up.Connections(); n != 0 {
		t.Errorf("%d connections", n)
	}
}
