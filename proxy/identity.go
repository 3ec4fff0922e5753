package proxy

import (
	"bytes"
	"encoding/base64"
	"strings"
)

// Before anybody can be told that his mail program is too old, it has to be
// known who he is. So where Config.Identity says so, what a legacy client says of
// itself is listened to on its way through the relay: its account, which is
// told once the upstream has accepted the login, and its software. Of a
// password or a token nothing is taken: of a base64 message only the beginning
// is decoded, where the account is, and that is wiped at once.

const (
	// maxAccount is the longest account that is told, in bytes: no address is
	// longer (RFC 5321, Section 4.5.3.1.3). What is longer is dropped, since a
	// part of it would be the name of somebody else.
	maxAccount = 254
	// maxSoftware is where the name of a mail program is cut, in bytes.
	maxSoftware = 128
	// maxMessage is how much of a SASL message is looked at: two accounts and
	// what may stand around them.
	maxMessage = 768
)

// identified reports whether the observer is to be told who the client is.
func (s *session) identified() bool { return s.srv.cfg.Identity && s.Legacy }

// introduction is what a client says of itself before its login. Its methods
// do nothing on nil, which stands for a client that nobody is to know.
type introduction struct {
	// account is that of the login under way, software that of the last ID
	// that named one.
	account, software string
	// user is the USER that was accepted last, as whom a PASS logs in (POP3).
	user string

	// wanted is how many arguments of the command under way are still to be
	// read, and literal says that the next octets are one.
	wanted  int
	literal bool
	// sasl finds the account in a message; nil where there is none to come.
	sasl saslReader
	// authenticate: the command is AUTHENTICATE or AUTH, else LOGIN.
	authenticate bool
	// id reads the ID that is under way.
	id *idReader
}

// begin forgets the command before.
func (in *introduction) begin() {
	*in = introduction{software: in.software, user: in.user}
}

// imapCommand reads the line that begins a command.
func (in *introduction) imapCommand(cmd imapCommand) {
	if in == nil {
		return
	}
	in.begin()
	switch {
	case equalFold(cmd.name, "LOGIN"):
		in.wanted = 1
	case equalFold(cmd.name, "AUTHENTICATE"):
		in.wanted, in.authenticate = 2, true
	case equalFold(cmd.name, "ID"):
		in.id = new(idReader)
	}
	in.text(cmd.args)
}

// pop3Command reads a command (RFC 1939, Section 7, RFC 5034, Section 4).
func (in *introduction) pop3Command(name, args []byte) {
	if in == nil {
		return
	}
	in.begin()
	switch {
	case equalFold(name, "USER"):
		in.user = accountOf(args)
	case equalFold(name, "PASS"):
		in.account = in.user
	case equalFold(name, "APOP"):
		name, _, _ := bytes.Cut(args, []byte(" "))
		in.account = accountOf(name)
	case equalFold(name, "AUTH"):
		in.wanted, in.authenticate = 2, true
		in.text(args)
	}
}

// pop3Answer takes back a USER that was refused.
func (in *introduction) pop3Answer(name []byte, a answer) {
	if in != nil && !a.ok && equalFold(name, "USER") {
		in.user = ""
	}
}

// text reads the arguments in a line, up to a literal.
func (in *introduction) text(line []byte) {
	if in == nil {
		return
	}
	if in.id != nil {
		if more := in.id.text(line); !more {
			if s := in.id.software(); s != "" {
				in.software = s
			}
		}
		return
	}
	lit, more := literalAtEnd(line)
	for line = line[:len(line)-lit.header]; in.wanted > 0; {
		arg, rest, ok := nextArgument(line)
		if !ok {
			break
		}
		in.argument(arg)
		line = rest
	}
	in.literal = more && in.wanted > 0
}

// octets reads a literal.
func (in *introduction) octets(b []byte) {
	switch {
	case in == nil:
	case in.id != nil:
		in.id.octets(b)
	case in.literal:
		in.literal = false
		in.argument(b)
	}
}

// argument reads one: the account of LOGIN, or the mechanism of AUTHENTICATE
// and its initial response.
func (in *introduction) argument(b []byte) {
	in.wanted--
	switch {
	case !in.authenticate:
		in.account = accountOf(b)
	case in.wanted == 1:
		in.sasl = saslReaderOf(b)
	default:
		in.response(b)
	}
}

// response reads a line in base64 that answers a mechanism, until the account
// is known.
func (in *introduction) response(line []byte) {
	if in == nil || in.sasl == nil {
		return
	}
	var message [maxMessage]byte
	defer clear(message[:])
	text := bytes.TrimRight(line, "\r\n")
	text = text[:min(len(text), base64.StdEncoding.EncodedLen(maxMessage))]
	n, err := base64.StdEncoding.Decode(message[:], text)
	if err != nil {
		n = 0
	}
	if account, done := in.sasl(message[:n]); done {
		in.account, in.sasl = accountOf(account), nil
	}
}

// accountOf is what a client calls its account, where it can be one.
func accountOf(b []byte) string {
	if len(b) > maxAccount {
		return ""
	}
	return string(b)
}

// saslReader finds the account in a client's message; done is false where the
// message is another one. Where both are given, the account is that which is to be
// used, not that whose password is known.
type saslReader func(message []byte) (account []byte, done bool)

// saslReaderOf is the reader of a mechanism, and nil for one whose messages do
// not say who it is, or not so that it can be read.
func saslReaderOf(mechanism []byte) saslReader {
	switch {
	case equalFold(mechanism, "PLAIN"):
		return plainAccount
	case equalFold(mechanism, "LOGIN"):
		return loginAccount
	case equalFold(mechanism, "XOAUTH2"):
		return xoauth2Account
	case equalFold(mechanism, "OAUTHBEARER"), hasPrefixFold(mechanism, "SCRAM-"):
		return gs2Account
	case equalFold(mechanism, "CRAM-MD5"):
		return cramAccount
	}
	return nil
}

// plainAccount: authzid NUL authcid NUL password (RFC 4616, Section 2).
func plainAccount(m []byte) ([]byte, bool) {
	authzid, m, _ := bytes.Cut(m, []byte{0})
	authcid, _, ok := bytes.Cut(m, []byte{0})
	if len(authzid) > 0 {
		return authzid, ok
	}
	return authcid, ok
}

// loginAccount: the first message is the account, be it empty, and the second
// one the password (draft-murchison-sasl-login).
func loginAccount(m []byte) ([]byte, bool) { return m, true }

// xoauth2Account: "user=" account ^A "auth=Bearer " token ^A ^A.
func xoauth2Account(m []byte) ([]byte, bool) {
	m, is := bytes.CutPrefix(m, []byte("user="))
	account, _, ok := bytes.Cut(m, []byte{1})
	return account, is && ok
}

// gs2Account: a flag of channel binding, "," ["a=" authzid] "," (RFC 5801,
// Section 4, RFC 7628, Section 3.1), and "n=" authcid "," in SCRAM (RFC 5802,
// Section 7). OAUTHBEARER has the account in the former alone.
func gs2Account(m []byte) ([]byte, bool) {
	flag, m, _ := bytes.Cut(m, []byte(","))
	authzid, m, ok := bytes.Cut(m, []byte(","))
	if !ok || string(flag) != "n" && string(flag) != "y" && !bytes.HasPrefix(flag, []byte("p=")) {
		return nil, false
	}
	if len(authzid) > 0 {
		authzid, ok = bytes.CutPrefix(authzid, []byte("a="))
		return saslName(authzid), ok
	}
	m, is := bytes.CutPrefix(m, []byte("n="))
	authcid, _, ok := bytes.Cut(m, []byte(","))
	return saslName(authcid), is && ok
}

// saslName undoes what RFC 5801, Section 4 has for a comma and an equals sign.
func saslName(b []byte) []byte {
	return bytes.ReplaceAll(bytes.ReplaceAll(b, []byte("=2C"), []byte(",")), []byte("=3D"), []byte("="))
}

// cramAccount: account, a space, and a digest of 32 digits (RFC 2195, Section 2).
func cramAccount(m []byte) ([]byte, bool) {
	const digest = 32
	n := len(m) - digest - 1
	if n < 0 || m[n] != ' ' {
		return nil, false
	}
	return m[:n], true
}

// idReader finds the name of a mail program, and its version, in the arguments
// of an ID (RFC 2971, Section 3.1). They come in lines and literals.
type idReader struct {
	begun, ended, broken bool
	value                bool // a value is next
	field                *string
	name, version        string
}

// text reads a line; more is whether it ends in a literal.
func (r *idReader) text(line []byte) (more bool) {
	lit, more := literalAtEnd(line)
	for line = line[:len(line)-lit.header]; !r.broken; {
		_, tok, rest, err := idToken(line)
		if err != nil {
			r.broken = true
		}
		if tok.raw == nil {
			break
		}
		switch c := tok.raw[0]; {
		case !r.begun:
			r.begun, r.broken = true, c != '('
		case r.ended, c == '(', c == ')' && r.value:
			r.broken = true
		case c == ')':
			r.ended = true
		case c != '"' && equalFold(tok.raw, "NIL"):
			r.add(nil)
		default:
			r.add([]byte(tok.value))
		}
		line = rest
	}
	return more
}

// octets reads a literal.
func (r *idReader) octets(b []byte) {
	if r.begun && !r.ended {
		r.add(b)
	} else {
		r.broken = true
	}
}

// add takes the name of a field or its value.
func (r *idReader) add(s []byte) {
	switch {
	case r.value && r.field != nil:
		*r.field = cutText(s, maxSoftware)
	case r.value:
	case equalFold(s, "name"):
		r.field = &r.name
	case equalFold(s, "version"):
		r.field = &r.version
	default:
		r.field = nil
	}
	r.value = !r.value
}

// software is name and version, and nothing where there is no name, or no
// whole ID.
func (r *idReader) software() string {
	if r.broken || !r.ended || r.name == "" {
		return ""
	}
	if r.version == "" {
		return r.name
	}
	return cutText([]byte(r.name+" "+r.version), maxSoftware)
}

// cutText cuts between characters.
func cutText(b []byte, n int) string {
	if len(b) <= n {
		return string(b)
	}
	return strings.ToValidUTF8(string(b[:n]), "")
}
