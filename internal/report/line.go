package report

import (
	"encoding/json"
	"strconv"
	"time"
)

// line is a JSON object on one line, as encoding/json would write it; that takes
// too long for a million groups. It begins with a brace.
type line []byte

func (l *line) key(name string) {
	if (*l)[len(*l)-1] != '{' {
		*l = append(*l, ", "...)
	}
	*l = append(append(append(*l, '"'), name...), `": `...)
}

func (l *line) number(name string, n int64) {
	l.key(name)
	*l = strconv.AppendInt(*l, n, 10)
}

func (l *line) time(name string, t time.Time) {
	l.key(name)
	*l = append(t.AppendFormat(append(*l, '"'), time.RFC3339), '"')
}

func (l *line) text(name, s string) {
	l.key(name)
	l.quote(s)
}

func (l *line) quote(s string) {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || c == '"' || c == '\\' || c == '<' || c == '>' || c == '&' {
			quoted, _ := json.Marshal(s) // every text has a JSON
			*l = append(*l, quoted...)
			return
		}
	}
	*l = append(append(append(*l, '"'), s...), '"')
}

func (l *line) texts(name string, list []string) {
	l.key(name)
	*l = append(*l, '[')
	for i, s := range list {
		if i > 0 {
			*l = append(*l, ", "...)
		}
		l.quote(s)
	}
	*l = append(*l, ']')
}

// appendGroup appends a group without its members.
func appendGroup(b []byte, g *Group) []byte {
	l := line(append(b, '{'))
	l.text("name", g.Name)
	l.number("clients", int64(g.Clients))
	if g.Remaining > 0 {
		l.number("remaining", int64(g.Remaining))
	}
	l.texts("addresses", g.Addresses)
	l.texts("accounts", g.Accounts)
	l.texts("software", g.Software)
	l.texts("versions", g.Versions)
	l.texts("listeners", g.Listeners)
	l.texts("endpoints", g.Endpoints)
	l.key("distinct")
	l = append(l, '{')
	l.number("addresses", int64(g.Distinct.Addresses))
	l.number("accounts", int64(g.Distinct.Accounts))
	l.number("software", int64(g.Distinct.Software))
	l.number("endpoints", int64(g.Distinct.Endpoints))
	l = append(l, '}')
	if g.Elsewhere {
		l.key("elsewhere")
		l = append(l, "true"...)
	}
	l.text("login", string(g.Login))
	l.time("first_seen", g.FirstSeen)
	l.time("last_seen", g.LastSeen)
	l.key("handshakes")
	l = append(l, '{')
	l.number("observed", g.Handshakes.Observed)
	l.number("explained", g.Handshakes.Explained)
	l.number("rejected", g.Handshakes.Rejected)
	l.number("failed", g.Handshakes.Failed)
	return append(l, "}}"...)
}

func appendLetter(b []byte, r *Letter) []byte {
	l := line(append(b, '{'))
	l.text("account", r.Account)
	l.number("days_left", int64(r.DaysLeft))
	if r.Until == nil {
		l.key("until")
		l = append(l, "null"...)
	} else {
		l.time("until", *r.Until)
	}
	l.text("rule", r.Rule)
	l.text("owner", r.Owner)
	l.texts("software", r.Software)
	l.number("software_in_all", int64(r.SoftwareInAll))
	l.texts("versions", r.Versions)
	l.number("clients", int64(r.Clients))
	l.time("last_seen", r.LastSeen)
	return append(l, '}')
}
