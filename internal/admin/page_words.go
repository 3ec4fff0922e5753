package admin

import (
	"strconv"
	"strings"

	"postern/internal/ledger"
	"postern/policy"
)

// window is a headline number.
type window struct {
	Words   string
	Clients int
}

// countTable is how many clients there are of each kind, by window.
type countTable struct {
	Windows []string
	Rows    []countRow
}

type countRow struct {
	Name    string
	Clients []int
}

var windowWords = map[string]string{"1h": "in the last hour", "24h": "in 24 hours", "7d": "in 7 days", "30d": "in 30 days"}

// viewCounts is the headline: how many clients are left.
func (p *Page) viewCounts(v *pageView) {
	counts, at := p.Counts()
	v.Counted = !at.IsZero()
	all := clientsOf(counts, ledger.Any, ledger.Any)
	for i, w := range ledger.Windows {
		v.Windows = append(v.Windows, window{windowWords[w.Label], all[i]})
		v.ByVersion.Windows = append(v.ByVersion.Windows, w.Label)
	}
	v.ByListener.Windows = v.ByVersion.Windows
	for _, version := range policy.Versions {
		if n := clientsOf(counts, ledger.Any, version.String()); n != [4]int{} {
			v.ByVersion.Rows = append(v.ByVersion.Rows, countRow{version.String(), n[:]})
		}
	}
	for _, listener := range policy.ListenerNames {
		if n := clientsOf(counts, listener, ledger.Any); n != [4]int{} {
			v.ByListener.Rows = append(v.ByListener.Rows, countRow{listener, n[:]})
		}
	}
}

func clientsOf(counts []ledger.Distinct, listener, version string) [4]int {
	for _, d := range counts {
		if d.Listener == listener && d.Version == version {
			return d.ByWindow
		}
	}
	return [4]int{}
}

// tlsName is a version as people write it.
func tlsName(label string) string {
	switch {
	case strings.HasPrefix(label, "tls"):
		return "TLS " + label[len("tls"):]
	case strings.HasPrefix(label, "ssl"):
		return "SSL " + label[len("ssl"):]
	}
	return label
}

// number writes a number with a comma before each three digits.
func number(n int) string {
	s := strconv.Itoa(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}
