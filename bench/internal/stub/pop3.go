package stub

import (
	"fmt"
	"strconv"
	"strings"
)

// pop3 serves one POP3 connection.
func pop3(c *conn) {
	if c.send("+OK stub ready.\r\n") != nil || c.skipProxy() != nil {
		return
	}
	for {
		s, err := c.line()
		if err != nil {
			return
		}
		verb, args, _ := strings.Cut(s, " ")
		out := "+OK\r\n"
		switch strings.ToUpper(verb) {
		case "USER", "PASS", "NOOP", "XCLIENT", "RSET", "DELE":
		case "STAT":
			out = "+OK 1 1\r\n"
		case "CAPA":
			out = "+OK\r\nUSER\r\nTOP\r\nUIDL\r\nPIPELINING\r\nSASL PLAIN LOGIN\r\n.\r\n"
		case "LIST", "UIDL":
			out = "+OK\r\n1 1\r\n.\r\n"
		case "AUTH":
			if c.sasl(args) != nil {
				return
			}
		case "RETR": // RETR <MB>
			mb, _ := strconv.Atoi(strings.TrimSpace(args))
			size := bodySize(mb)
			if c.send(fmt.Sprintf("+OK %d octets\r\n", size)) != nil || c.sendBody(size) != nil {
				return
			}
			out = ".\r\n"
		case "QUIT":
			c.send("+OK bye\r\n")
			return
		default:
			out = "-ERR unknown\r\n"
		}
		if c.send(out) != nil {
			return
		}
	}
}
