package report

import (
	"encoding/json"
	"strconv"
	"time"
)

// line is a JSON object on one line, as encoding/json would write it; that takes
// too long for a million groups. It begins with a brace.
type line []byte

func (l line) key(name string) line {
	if l[len(l)-1] != '{' {
		l = append(l, ", "...)
	}
	return append(append(append(l, '"'), name...), `": `...)
}

func (l line) number(name string, n int64) line { return strconv.AppendInt(l.key(name), n, 10) }

func (l line) time(name string, t time.Time) line {
	return append(t.AppendFormat(append(l.key(name), '"'), time.RFC3339), '"')
}

func (l line) text(name, s string) line { return l.key(name).quote(s) }

func (l line) quote(s string) line {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || c == '"' || c == '\\' || c == '<' || c == '>' || c == '&' {
			quoted, _ := json.Marshal(s) // every text has a JSON
			return append(l, quoted...)
		}
	}
	return append(append(append(l, '"'), s...), '"')
}

func (l line) texts(name string, list []string) line {
	l = append(l.key(name), '[')
	for i, s := range list {
		if i > 0 {
			l = append(l, ", "...)
		}
		l = l.quote(s)
	}
	return append(l, ']')
}

// appendGroup appends a group without its members.
func appendGroup(b []byte, g *Group) []byte {
	l := line(append(b, '{')).text("name", g.Name).number("clients", int64(g.Clients))
	if g.Remaining > 0 {
		l = l.number("remaining", int64(g.Remaining))
	}
	l = l.texts("addresses", g.Addresses).texts("accounts", g.Accounts).texts("software", g.Software)
	l = l.texts("versions", g.Versions).texts("listeners", g.Listeners).texts("endpoints", g.Endpoints)
	d := &g.Distinct
	l = append(l.key("distinct"), '{').number("addresses", int64(d.Addresses)).number("accounts", int64(d.Accounts))
	l = append(l.number("software", int64(d.Software)).number("endpoints", int64(d.Endpoints)), '}')
	if g.Elsewhere {
		l = append(l.key("elsewhere"), "true"...)
	}
	l = l.text("login", string(g.Login)).time("first_seen", g.FirstSeen).time("last_seen", g.LastSeen)
	h := &g.Handshakes
	l = append(l.key("handshakes"), '{').number("observed", h.Observed).number("explained", h.Explained)
	return append(l.number("rejected", h.Rejected).number("failed", h.Failed), "}}"...)
}

func appendLetter(b []byte, r *Letter) []byte {
	l := line(append(b, '{')).text("account", r.Account).number("days_left", int64(r.DaysLeft))
	if r.Until == nil {
		l = append(l.key("until"), "null"...)
	} else {
		l = l.time("until", *r.Until)
	}
	l = l.text("rule", r.Rule).text("owner", r.Owner).texts("software", r.Software).number("software_in_all", int64(r.SoftwareInAll))
	return append(l.texts("versions", r.Versions).number("clients", int64(r.Clients)).time("last_seen", r.LastSeen), '}')
}
