package check

import (
	"bufio"
	"crypto/tls"
	"io"
	"net"
	"strings"
	"testing"
	"time"

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
			if _, err := io.WriteString(c, answer); err != nil {
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
		if line = strings.TrimPrefix(line, "\x20\x00\x00\x00"); !strings.Contains(line, "CAPABILITY") {
			return ""
		}
		return reply(line)
	}
}

func pop3With(caps string) func(string) string {
	return func(line string) string {
		if line == "CAPA" {
			return caps
		}
		return "-ERR no\r\n"
	}
}

const (
	imapOK   = "* OK ready\r\n"
	pop3OK   = "+OK ready\r\n"
	pop3Caps = "+OK\r\nUSER\r\nSASL PLAIN\r\n.\r\n"
	refuses  = "it refuses logins on a plain line"
)

// upstreamTests are upstreams, by name, and what comes of asking them.
var upstreamTests = map[string]struct {
	scheme, kind, greeting string
	reply                  func(string) string
	certName               string
	set                    []string
	failure, warning       string
}{
	"imap":                      {scheme: "imap", greeting: imapOK, reply: imapWith("IMAP4rev1 AUTH=PLAIN")},
	"imap - told in greeting":   {scheme: "imap", greeting: "* OK [CAPABILITY IMAP4rev1 LOGINDISABLED] ready\r\n", reply: imapWith(""), warning: refuses},
	"imap - refuses logins":     {scheme: "imap", greeting: imapOK, reply: imapWith("IMAP4rev1 STARTTLS LOGINDISABLED"), warning: refuses},
	"imap - refuses - PROXY v2": {scheme: "imap", greeting: imapOK, reply: behindHeader(imapWith("IMAP4rev1 LOGINDISABLED")), set: []string{"UPSTREAM_PROXY_PROTOCOL=v2"}},
	"imap - SCRAM-PLUS":         {scheme: "imap", greeting: imapOK, reply: imapWith("IMAP4rev1 AUTH=SCRAM-SHA-256-PLUS AUTH=SCRAM-SHA-1-plus"), warning: "SCRAM-SHA-1-PLUS, SCRAM-SHA-256-PLUS will not be offered"},
	"imap - BYE":                {scheme: "imap", greeting: "* BYE too \x1b[2Jmany\r\n", reply: imapWith(""), failure: `it greets with "* BYE too \x1b[2Jmany"`},
	"imap - PREAUTH":            {scheme: "imap", greeting: "* PREAUTH hi\r\n", reply: imapWith("IMAP4rev1"), failure: "it greets with PREAUTH"},
	"imap - POP3 there":         {scheme: "imap", greeting: pop3OK, reply: pop3With(pop3Caps), failure: `not an IMAP greeting: "+OK ready"`},
	"imap - silent":             {scheme: "imap", reply: imapWith(""), failure: "no answer in 500ms"},
	"imap - no capabilities":    {scheme: "imap", greeting: imapOK, reply: func(line string) string { return line[:min(2, len(line))] + " BAD no\r\n" }, failure: "does not tell its capabilities"},
	"imaps":                     {scheme: "imaps", kind: "tls", greeting: imapOK, reply: imapWith("IMAP4rev1 AUTH=PLAIN")},
	"imaps - another name":      {scheme: "imaps", kind: "tls", certName: "mail.example.org", greeting: imapOK, reply: imapWith("IMAP4rev1"), failure: "beginning TLS: tls: failed to verify certificate"},
	"imaps - named":             {scheme: "imaps", kind: "tls", certName: "mail.example.org", greeting: imapOK, reply: imapWith("IMAP4rev1"), set: []string{"UPSTREAM_SERVER_NAME=mail.example.org"}},
	"imaps - no CA":             {scheme: "imaps", kind: "tls", greeting: imapOK, reply: imapWith("IMAP4rev1"), failure: "certificate signed by unknown authority"},
	"imaps - plain there":       {scheme: "imaps", greeting: imapOK, reply: imapWith("IMAP4rev1"), failure: "beginning TLS: tls: first record does not look like a TLS handshake"},
	"imap+starttls":             {scheme: "imap+starttls", kind: "starttls", greeting: imapOK, reply: imapWith("IMAP4rev1 LOGINDISABLED")},
	"imap+starttls - another name": {scheme: "imap+starttls", kind: "starttls", certName: "mail.example.org", greeting: imapOK, reply: imapWith("IMAP4rev1"),
		failure: "beginning TLS with STARTTLS: tls: failed to verify certificate"},
	"imap+starttls - missing": {scheme: "imap+starttls", greeting: imapOK, reply: imapWith("IMAP4rev1"), failure: "beginning TLS with STARTTLS: imap: BAD no"},
	"imap+starttls - PREAUTH": {scheme: "imap+starttls", greeting: "* PREAUTH hi\r\n", reply: imapWith("IMAP4rev1"), failure: "it greets with PREAUTH"},
	"imap+starttls - injected": {scheme: "imap+starttls", kind: "", greeting: imapOK, reply: func(line string) string {
		return line[:min(2, len(line))] + " OK go\r\n* CAPABILITY injected\r\n"
	}, failure: "beginning TLS with STARTTLS: "},
	"pop3":                    {scheme: "pop3", greeting: pop3OK, reply: pop3With(pop3Caps)},
	"pop3 - refuses logins":   {scheme: "pop3", greeting: pop3OK, reply: pop3With("+OK\r\nSTLS\r\nSASL\r\n.\r\n"), warning: refuses},
	"pop3 - SCRAM-PLUS":       {scheme: "pop3", greeting: pop3OK, reply: pop3With("+OK\r\nSASL PLAIN SCRAM-SHA-1-PLUS\r\n.\r\n"), warning: "SCRAM-SHA-1-PLUS will not be offered"},
	"pop3 - without CAPA":     {scheme: "pop3", greeting: pop3OK, reply: pop3With("-ERR what?\r\n")},
	"pop3 - endless CAPA":     {scheme: "pop3", greeting: pop3OK, reply: pop3With("+OK\r\n" + strings.Repeat("X\r\n", 1000)), failure: "there is no end of them"},
	"pop3 - refuses":          {scheme: "pop3", greeting: "-ERR [SYS/TEMP] later\r\n", reply: pop3With(""), failure: `it greets with "-ERR [SYS/TEMP] later"`},
	"pop3 - silent":           {scheme: "pop3", reply: pop3With(""), failure: "no answer in 500ms"},
	"pop3s":                   {scheme: "pop3s", kind: "tls", greeting: pop3OK, reply: pop3With(pop3Caps)},
	"pop3s - another name":    {scheme: "pop3s", kind: "tls", certName: "mail.example.org", greeting: pop3OK, reply: pop3With(pop3Caps), failure: "beginning TLS: tls: failed to verify certificate"},
	"pop3+starttls":           {scheme: "pop3+starttls", kind: "starttls", greeting: pop3OK, reply: pop3With(pop3Caps)},
	"pop3+starttls - missing": {scheme: "pop3+starttls", greeting: pop3OK, reply: pop3With(pop3Caps), failure: `beginning TLS with STLS: it answers "-ERR no"`},
	"pop3+starttls - other name": {scheme: "pop3+starttls", kind: "starttls", certName: "mail.example.org", greeting: pop3OK, reply: pop3With(pop3Caps),
		failure: "beginning TLS with STLS: tls: failed to verify certificate"},
	"pop3+starttls - injected": {scheme: "pop3+starttls", greeting: pop3OK, reply: func(string) string { return "+OK go\r\n+OK injected\r\n" },
		failure: "beginning TLS with STLS: bytes come before TLS"},
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
			set := []string{"UPSTREAM_IMAP=", "UPSTREAM_POP3=", "UPSTREAM_TIMEOUT=500ms"}
			if strings.Contains(test.scheme, "s") {
				if !strings.HasSuffix(name, "no CA") {
					set = append(set, "UPSTREAM_CA_FILE="+ca.File)
				}
				if !strings.Contains(name, "silent") {
					set = append(set, "UPSTREAM_TIMEOUT=10s")
				}
			}
			set = append(set, "UPSTREAM_"+strings.ToUpper(protocol)+"="+up.URL(test.scheme))
			r := Run(t.Context(), environ(t, append(set, test.set...)...), false)
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
	for version, header := range map[string]string{
		"off": "", "v1": "PROXY UNKNOWN\r\n", "v2": "\r\n\r\n\x00\r\nQUIT\n\x20\x00\x00\x00",
	} {
		up := posterntest.StartRawUpstream(t, func(c net.Conn) {
			if _, err := io.ReadFull(c, make([]byte, len(header))); err != nil {
				return
			}
			io.WriteString(c, "+OK ready\r\n")
			io.Copy(io.Discard, c)
		})
		ctx := t.Context()
		env := environ(t, "UPSTREAM_IMAP=", "UPSTREAM_POP3="+up.URL("pop3"), "UPSTREAM_PROXY_PROTOCOL="+version, "UPSTREAM_TIMEOUT=300ms")
		Run(ctx, env, false)
		if got := string(up.Received(0)); got != header+"CAPA\r\n" {
			t.Errorf("%s: sent %q", version, got)
		}
	}
}

func TestOfflineDialsNothing(t *testing.T) {
	up := posterntest.StartUpstream(t, posterntest.IMAPGreeting, posterntest.IMAPReply)
	Run(t.Context(), environ(t, "UPSTREAM_IMAP="+up.URL("imap")), true)
	time.Sleep(50 * time.Millisecond)
	if n := up.Connections(); n != 0 {
		t.Errorf("%d connections", n)
	}
}
