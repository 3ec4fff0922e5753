package stub

import (
	"fmt"
	"io"
	"strconv"
	"strings"
)

const capability = "IMAP4rev1 SASL-IR LOGIN-REFERRALS ID ENABLE IDLE LITERAL+ AUTH=PLAIN AUTH=LOGIN"

// imap serves one IMAP connection.
func imap(c *conn) {
	if c.send("* OK [CAPABILITY "+capability+"] stub ready.\r\n") != nil || c.skipProxy() != nil {
		return
	}
	for {
		cmd, err := c.imapCommand()
		if err != nil {
			return
		}
		tag, rest, _ := strings.Cut(cmd, " ")
		verb, args, _ := strings.Cut(rest, " ")
		verb = strings.ToUpper(verb)
		if verb == "UID" {
			verb, args, _ = strings.Cut(args, " ")
			verb = strings.ToUpper(verb)
		}
		out, err := c.imapAnswer(tag, verb, args)
		if err != nil || c.send(out) != nil || verb == "LOGOUT" {
			return
		}
	}
}

// imapAnswer does a command and returns the end of what is said to it.
func (c *conn) imapAnswer(tag, verb, args string) (string, error) {
	done := tag + " OK done\r\n"
	switch verb {
	case "NOOP", "CHECK", "ENABLE", "XCLIENT", "LIST", "SELECT", "EXAMINE", "STATUS", "NAMESPACE", "APPEND":
		return done, nil
	case "CAPABILITY":
		return "* CAPABILITY " + capability + "\r\n" + done, nil
	case "ID":
		return "* ID NIL\r\n" + done, nil
	case "LOGIN":
		return tag + " OK [CAPABILITY " + capability + "] Logged in\r\n", nil
	case "AUTHENTICATE":
		return tag + " OK [CAPABILITY " + capability + "] Logged in\r\n", c.sasl(args)
	case "IDLE":
		if err := c.send("+ idling\r\n"); err != nil {
			return "", err
		}
		_, err := c.line()
		return done, err
	case "FETCH": // FETCH <MB> BODY[]
		num, _, _ := strings.Cut(args, " ")
		mb, _ := strconv.Atoi(num)
		size := bodySize(mb)
		if err := c.send(fmt.Sprintf("* %d FETCH (BODY[] {%d}\r\n", mb, size)); err != nil {
			return "", err
		}
		return ")\r\n" + done, c.sendBody(size)
	case "LOGOUT":
		return "* BYE\r\n" + done, nil
	}
	return tag + " BAD unknown\r\n", nil
}

// longest is the largest literal that is taken, and folded the largest that
// becomes part of the command; the others are read and forgotten.
const (
	longest = 64 << 20
	folded  = 4 << 10
)

// imapCommand reads a command with its literals folded in.
func (c *conn) imapCommand() (string, error) {
	var whole string
	for {
		s, err := c.line()
		if err != nil {
			return "", err
		}
		whole += s
		open := strings.LastIndexByte(s, '{')
		if open < 0 || !strings.HasSuffix(s, "}") {
			return whole, nil
		}
		num, plus := strings.CutSuffix(s[open+1:len(s)-1], "+")
		n, err := strconv.Atoi(num)
		if err != nil || n < 0 || n > longest {
			return whole, nil
		}
		if !plus {
			if err := c.send("+ OK\r\n"); err != nil {
				return "", err
			}
		}
		if n > folded {
			if err := c.discard(n); err != nil {
				return "", err
			}
			continue
		}
		literal := make([]byte, n)
		if _, err := io.ReadFull(c.r, literal); err != nil {
			return "", err
		}
		whole += string(literal)
	}
}
