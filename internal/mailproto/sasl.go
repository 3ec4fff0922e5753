package mailproto

import (
	"bytes"
	"encoding/base64"
)

// maxMessage is how much of a SASL message is decoded: two accounts and what
// may stand around them, and no more of a password or token than that.
const maxMessage = 768

// saslReader finds the account in a client's message; done is false where it has
// to be in another one. Where a message names two, the account is the one that
// is to be used, not the one whose password it is.
type saslReader func(message []byte) (account []byte, done bool)

// saslReaderOf returns the reader of a mechanism: nil where its messages do not
// name the account, or not in the clear.
func saslReaderOf(mechanism Keyword) saslReader {
	switch {
	case mechanism.Is("PLAIN"):
		return plainAccount
	case mechanism.Is("LOGIN"):
		return loginAccount
	case mechanism.Is("XOAUTH2"):
		return xoauth2Account
	case mechanism.Is("OAUTHBEARER"), HasPrefixFold(mechanism, "SCRAM-"):
		return gs2Account
	case mechanism.Is("CRAM-MD5"):
		return cramAccount
	}
	return nil
}

// decoded reads a line in base64. What was decoded is wiped at once.
func (read saslReader) decoded(line []byte) (account string, done bool) {
	var message [maxMessage]byte
	defer clear(message[:])
	text := bytes.TrimRight(line, "\r\n")
	text = text[:min(len(text), base64.StdEncoding.EncodedLen(maxMessage))]
	n, err := base64.StdEncoding.Decode(message[:], text)
	if err != nil {
		n = 0
	}
	b, done := read(message[:n])
	return accountOf(b), done
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

// loginAccount: the first message is the account, even if it is empty, and the
// second one the password (draft-murchison-sasl-login).
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

// saslName decodes a comma and an equals sign (RFC 5801, Section 4).
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
