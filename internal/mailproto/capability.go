package mailproto

import (
	"bytes"
	"regexp"
	"slices"
	"strings"
)

// Some capabilities do not hold inside TLS, or cannot work through a proxy that
// ends TLS: STARTTLS and LOGINDISABLED (RFC 9051, Section 7.2.2), XCLIENT, which is
// for proxies, and SASL mechanisms with channel binding (RFC 5802, Section 6). They stand
// in four places, and are removed from each: the code of a greeting, of a tagged reply
// and of other untagged ones, and the CAPABILITY response.

// FilterIMAPCapabilities returns a response without capabilities that do not
// hold inside TLS. All else stays as it is, to the byte.
func FilterIMAPCapabilities(response []byte) []byte {
	start, end := capabilityList(response)
	if start < 0 {
		return response
	}
	return dropTokens(response, start, end, func(token Keyword) bool {
		return token.Is("STARTTLS", "LOGINDISABLED", "XCLIENT") || HasPrefixFold(token, "AUTH=") && bindsChannel(token)
	})
}

// AcceptsNonSyncLiterals reports whether a response lists a capability by which
// a server accepts literals without synchronization (RFC 7888; IMAP4rev2
// implies the short ones).
func AcceptsNonSyncLiterals(response []byte) bool {
	return slices.ContainsFunc(IMAPCapabilities(string(response)), func(c string) bool {
		return Keyword(c).Is("LITERAL+", "LITERAL-", "IMAP4rev2")
	})
}

// IMAPCapabilities returns the capabilities that the last of the responses with such a
// list has, or nil.
func IMAPCapabilities(responses ...string) (list []string) {
	for _, r := range responses {
		if start, end := capabilityList([]byte(r)); start >= 0 {
			list = strings.Fields(r[start:end])
		}
	}
	return list
}

// Logins returns the mechanisms to log in by that are among the capabilities of IMAP, or
// the lines of CAPA in POP3, and whether passwords are refused.
func Logins(capabilities []string, imap bool) (mechanisms []string, refused bool) {
	refused = !imap && capabilities != nil
	for _, c := range capabilities {
		words := strings.Fields(strings.ToUpper(c))
		switch {
		case len(words) == 0:
		case imap:
			if mechanism, ok := strings.CutPrefix(words[0], "AUTH="); ok {
				mechanisms = append(mechanisms, mechanism)
			}
			refused = refused || words[0] == "LOGINDISABLED"
		case words[0] == "USER":
			refused = false
		case words[0] == "SASL":
			mechanisms = append(mechanisms, words[1:]...)
		}
	}
	slices.Sort(mechanisms)
	return mechanisms, refused && (imap || !slices.Contains(mechanisms, "PLAIN") && !slices.Contains(mechanisms, "LOGIN"))
}

// capabilityList finds the list in a CAPABILITY response or response code: the
// bytes between its name and its end, beginning with a space; -1 where there
// is none.
func capabilityList(line []byte) (start, end int) {
	m := capabilities.FindSubmatchIndex(line)
	if m == nil {
		return -1, -1
	}
	return max(m[2], m[4]), max(m[3], m[5])
}

// capabilities has the list in one of two groups; what follows the first line is a
// literal. Without regard to case a K would also be a Kelvin sign.
var capabilities = regexp.MustCompile(
	`(?i)^(?:\* CAPABILITY( [^\n]*?)(?:\r?\n|$)|[^ \n]+ (?:O(?-i:[Kk])|NO|BAD|PREAUTH|BYE) \[CAPABILITY( [^]\n]*)])`)

// bindsChannel reports whether a SASL mechanism binds to the TLS channel: it
// would bind to the client's, of which the server behind knows nothing.
func bindsChannel(mechanism Keyword) bool {
	return mechanism[max(0, len(mechanism)-len("-PLUS")):].Is("-PLUS")
}

// dropTokens returns line without the space-separated tokens of
// line[start:end] that drop chooses, each with the space before it.
func dropTokens(line []byte, start, end int, drop func(Keyword) bool) []byte {
	kept := spacedToken.ReplaceAllFunc(line[start:end], func(spaced []byte) []byte {
		if drop(bytes.TrimLeft(spaced, " ")) {
			return nil
		}
		return spaced
	})
	return slices.Concat(line[:start], kept, line[end:])
}

var spacedToken = regexp.MustCompile(` *[^ ]+`)

// FilterPOP3Capability returns a line of a CAPA or AUTH listing without what
// does not hold inside TLS (RFC 2449, RFC 2595, RFC 5034); nil where nothing of
// it does.
func FilterPOP3Capability(line []byte) []byte {
	body := TrimLineEnd(line)
	switch {
	case Keyword(bytes.TrimRight(body, " ")).Is("STLS", "XCLIENT"):
		return nil
	case HasPrefixFold(body, "SASL "):
		out := dropTokens(line, len("SASL"), len(body), bindsChannel)
		if len(bytes.TrimSpace(out[len("SASL"):])) == 0 && len(out) < len(line) {
			return nil
		}
		return out
	case bytes.IndexByte(body, ' ') < 0 && bindsChannel(body):
		return nil // a mechanism on a line of its own, in answer to AUTH
	}
	return line
}
