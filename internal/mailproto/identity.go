package mailproto

import (
	"bytes"
	"cmp"
	"encoding/base64"
	"regexp"
	"slices"
	"strings"
)

var mechanisms = strings.Fields("LOGIN PLAIN USER APOP CRAM-MD5 DIGEST-MD5 SCRAM-SHA-1 SCRAM-SHA-256 NTLM GSSAPI XOAUTH2 OAUTHBEARER EXTERNAL ANONYMOUS")

// Mechanism names the way in which a command logs in: a SASL mechanism, LOGIN, USER (with
// its PASS) or APOP; other where it is none that is known.
func Mechanism(command Keyword, args []byte) string {
	if words := bytes.Fields(args); command.Is("AUTH", "AUTHENTICATE") && len(words) > 0 {
		command = bytes.Trim(words[0], `"`)
	} else if command.Is("PASS") {
		return "USER"
	}
	if i := slices.IndexFunc(mechanisms, func(m string) bool { return command.Is(m) }); i >= 0 {
		return mechanisms[i]
	}
	return "other"
}

// MaxAccount is the longest account that is reported, in bytes: no address is
// longer (RFC 5321, Section 4.5.3.1.3). A longer one is dropped, since a part of
// it would be the name of somebody else.
const MaxAccount = 254

// Identity reads from the commands before a login who logs in. Nothing is taken
// of a password or a token.
type Identity struct {
	// Wanted: something is to be read at all.
	Wanted bool
	// Account is that of the login under way, or empty.
	Account string
	// Software is that of the last ID that named one.
	Software string

	// user is the USER that was accepted last, as whom a PASS logs in (POP3).
	user string
	// argument takes the next argument of the command under way; nil where it
	// does not matter, nor those behind it. literal: it is the next literal.
	argument func(b []byte)
	literal  bool
	// sasl finds the account in the messages to come; nil where none has it.
	sasl *regexp.Regexp
}

// begin forgets the command before.
func (id *Identity) begin() {
	*id = Identity{Wanted: id.Wanted, Software: id.Software, user: id.user}
}

// IMAPCommand reads the line that begins a command (RFC 9051, Section 6.2).
func (id *Identity) IMAPCommand(cmd IMAPCommand) {
	id.begin()
	switch {
	case !id.Wanted:
	case cmd.Name.Is("LOGIN"):
		id.argument = id.takeAccount
	case cmd.Name.Is("AUTHENTICATE"):
		id.argument = id.takeMechanism
	}
	id.Line(cmd.Args)
}

// POP3Command reads a command (RFC 1939, Section 7; RFC 5034, Section 4).
func (id *Identity) POP3Command(cmd POP3Command) {
	id.begin()
	switch {
	case !id.Wanted:
	case cmd.Name.Is("USER"):
		id.user = accountOf(cmd.Args)
	case cmd.Name.Is("PASS"):
		id.Account = id.user
	case cmd.Name.Is("APOP"):
		name, _, _ := bytes.Cut(cmd.Args, []byte(" "))
		id.Account = accountOf(name)
	case cmd.Name.Is("AUTH"):
		id.argument = id.takeMechanism
		id.Line(cmd.Args)
	}
}

// RefuseUser forgets a USER that was refused.
func (id *Identity) RefuseUser() { id.user = "" }

func (id *Identity) takeAccount(b []byte) { id.Account, id.argument = accountOf(b), nil }

func (id *Identity) takeMechanism(b []byte) { id.sasl, id.argument = saslMessageOf(b), id.takeResponse }

func (id *Identity) takeResponse(b []byte) {
	id.argument = nil
	id.Response(b)
}

// Line reads the arguments in a line, up to a literal.
func (id *Identity) Line(line []byte) {
	lit, more := LiteralAtEnd(line)
	tok, rest := nextToken(line[:len(line)-lit.Header], arguments)
	for ; tok.kind > tokenMalformed && id.argument != nil; tok, rest = nextToken(rest, arguments) {
		id.argument(tok.value)
	}
	id.literal = more && id.argument != nil
}

// Literal reads the octets of the literal in whose header the last line ended.
func (id *Identity) Literal(octets []byte) {
	if id.literal {
		id.literal = false
		id.argument(octets)
	}
}

// SetSoftware takes the software from an ID that names one; f may be nil.
func (id *Identity) SetSoftware(f *IDFilter) {
	if id.Wanted && f != nil {
		id.Software = cmp.Or(f.Software(), id.Software)
	}
}

// Response reads a line in base64 that answers a mechanism, until the account
// is known (RFC 4422, Section 3). What was decoded is wiped at once.
func (id *Identity) Response(line []byte) {
	if id.sasl == nil {
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
	groups := id.sasl.FindSubmatch(message[:n])
	if groups == nil {
		return // it has to be in another message
	}
	account := bytes.Join(groups[1:], nil)
	if id.sasl == gs2Message {
		account = bytes.ReplaceAll(bytes.ReplaceAll(account, []byte("=2C"), []byte(",")), []byte("=3D"), []byte("="))
	}
	id.Account, id.sasl = accountOf(account), nil
}

// accountOf returns what a client calls its account, if it can be one.
func accountOf(b []byte) string {
	if len(b) > MaxAccount {
		return ""
	}
	return string(b)
}

// maxMessage is how much of a SASL message is decoded: two accounts and what
// may stand around them, and no more of a password or token than that.
const maxMessage = 768

// saslMessages have the account of a client's message in a group, by mechanism. Where a
// message names two, the account is the one that is to be used, not the one whose
// password it is.
var saslMessages = map[string]*regexp.Regexp{
	// authzid NUL authcid NUL password (RFC 4616, Section 2).
	"PLAIN": regexp.MustCompile(`^(?:([^\x00]+)\x00[^\x00]*|\x00([^\x00]*))\x00`),
	// The first message is the account, even if it is empty, and the second one the
	// password (draft-murchison-sasl-login).
	"LOGIN": regexp.MustCompile(`(?s)^(.*)$`),
	// "user=" account ^A "auth=Bearer " token ^A ^A.
	"XOAUTH2":     regexp.MustCompile(`^user=([^\x01]*)\x01`),
	"OAUTHBEARER": gs2Message,
	// Account, a space, and a digest (RFC 2195, Section 2).
	"CRAM-MD5": regexp.MustCompile(`(?s)^(.*) [0-9A-Fa-f]{32}$`),
}

// gs2Message is a flag of channel binding, "," ["a=" authzid] "," (RFC 5801, Section 4,
// RFC 7628, Section 3.1), and "n=" authcid "," in SCRAM (RFC 5802, Section 7).
// OAUTHBEARER has the account in the former alone. A comma and an equals sign in it
// are written =2C and =3D.
var gs2Message = regexp.MustCompile(`^(?:[ny]|p=[^,]*),(?:a=([^,]*),|,n=([^,]*),)`)

// saslMessageOf is the message of a mechanism: nil where it does not name the account,
// or not in the clear.
func saslMessageOf(mechanism Keyword) *regexp.Regexp {
	if HasPrefixFold(mechanism, "SCRAM-") {
		return gs2Message
	}
	return saslMessages[Mechanism(Keyword("AUTH"), mechanism)]
}
