package proxy

import (
	"bytes"
)

// Capabilities that are untrue inside TLS, or cannot work behind a gate that
// ends it: STARTTLS and LOGINDISABLED (RFC 9051, Section 7.2.2), and SASL
// mechanisms with channel binding (RFC 5802, Section 6). They stand in four
// places, and are taken out of each: the code of a greeting, of a tagged reply
// and of other untagged ones, and the CAPABILITY response.

// trueIMAP returns an IMAP response line without capabilities that are untrue
// inside TLS. All else stays as it is, to the byte; a line that has none is
// returned itself.
func trueIMAP(line []byte) []byte {
	start, end := capabilityList(line)
	if start < 0 {
		return line
	}
	return dropTokens(line, start, end, untrueIMAP)
}

// capabilityList finds the list in a CAPABILITY response or response code: the
// bytes between its name and its end, beginning with a space; -1 where there
// is none. Keywords are case-insensitive (RFC 9051, Section 6.1.1).
func capabilityList(line []byte) (start, end int) {
	const keyword = "CAPABILITY"
	if i := bytes.IndexByte(line, '\n'); i >= 0 {
		line = line[:i+1] // what follows is a literal, and is nobody's to touch
	}
	sp := bytes.IndexByte(line, ' ')
	if sp <= 0 {
		return -1, -1
	}
	rest := line[sp+1:]
	if sp == 1 && line[0] == '*' && hasPrefixFold(rest, keyword+" ") {
		return sp + 1 + len(keyword), len(line) - len(lineEnd(line))
	}
	word, code, ok := bytes.Cut(rest, []byte(" ["))
	if !ok || !isStatus(word) || !hasPrefixFold(code, keyword+" ") {
		return -1, -1
	}
	start = sp + 1 + len(word) + len(" [") + len(keyword)
	closing := bytes.IndexByte(line[start:], ']')
	if closing < 0 {
		return -1, -1
	}
	return start, start + closing
}

// statusText reports whether a response is a status with a text for people,
// in which nothing is a literal (RFC 9051, Section 7.1).
func statusText(line []byte) bool {
	_, rest, _ := bytes.Cut(line, []byte(" "))
	word, _, _ := bytes.Cut(rest, []byte(" "))
	return isStatus(bytes.TrimRight(word, "\r\n"))
}

func isStatus(word []byte) bool {
	for _, s := range []string{"OK", "NO", "BAD", "PREAUTH", "BYE"} {
		if equalFold(word, s) {
			return true
		}
	}
	return false
}

func untrueIMAP(token []byte) bool {
	return equalFold(token, "STARTTLS") || equalFold(token, "LOGINDISABLED") ||
		hasPrefixFold(token, "AUTH=") && channelBinding(token)
}

// channelBinding reports whether a SASL mechanism binds to the TLS channel: it
// would bind to the client's, of which the upstream knows nothing.
func channelBinding(mechanism []byte) bool {
	const suffix = "-PLUS"
	n := len(mechanism) - len(suffix)
	return n >= 0 && equalFold(mechanism[n:], suffix)
}

// dropTokens returns line without the space-separated tokens of
// line[start:end] that drop chooses, each with the space before it.
func dropTokens(line []byte, start, end int, drop func([]byte) bool) []byte {
	var out []byte // nil until something is dropped
	for i := start; i < end; {
		next := i
		for next < end && line[next] == ' ' {
			next++
		}
		token := next
		for next < end && line[next] != ' ' {
			next++
		}
		if dropped := drop(line[token:next]); dropped && out == nil {
			out = append(make([]byte, 0, len(line)), line[:i]...)
		} else if !dropped && out != nil {
			out = append(out, line[i:next]...)
		}
		i = next
	}
	if out == nil {
		return line
	}
	return append(out, line[end:]...)
}

// trueCAPA returns a line of a POP3 CAPA or AUTH listing without what is
// untrue inside TLS (RFC 2449, RFC 2595, RFC 5034); nil where nothing of it is
// true.
func trueCAPA(line []byte) []byte {
	end := len(line) - len(lineEnd(line))
	body := line[:end]
	switch {
	case equalFold(bytes.TrimRight(body, " "), "STLS"):
		return nil
	case hasPrefixFold(body, "SASL "):
		out := dropTokens(line, len("SASL"), end, channelBinding)
		if len(bytes.TrimSpace(out[len("SASL"):])) == 0 && len(out) < len(line) {
			return nil
		}
		return out
	case bytes.IndexByte(body, ' ') < 0 && channelBinding(body):
		return nil // a mechanism on a line of its own, in answer to AUTH
	}
	return line
}

// lineEnd is the CRLF, or LF, at the end of line.
func lineEnd(line []byte) []byte {
	switch {
	case bytes.HasSuffix(line, crlf):
		return line[len(line)-2:]
	case bytes.HasSuffix(line, crlf[1:]):
		return line[len(line)-1:]
	}
	return nil
}

// equalFold compares ASCII letters without regard to case, and nothing else:
// the keywords of mail protocols are not Unicode.
func equalFold(b []byte, s string) bool {
	return len(b) == len(s) && hasPrefixFold(b, s)
}

func hasPrefixFold(b []byte, prefix string) bool {
	if len(b) < len(prefix) {
		return false
	}
	for i := range len(prefix) {
		if lower(b[i]) != lower(prefix[i]) {
			return false
		}
	}
	return true
}

func lower(c byte) byte {
	if c >= 'A' && c <= 'Z' {
		c += 'a' - 'A'
	}
	return c
}
