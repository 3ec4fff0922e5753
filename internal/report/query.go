package report

import (
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"

	"postern/internal/text"
)

// DefaultSince is the window of a report, as people write it.
const DefaultSince = "14d"

// longestWindow bounds a window; no ledger remembers that much.
const longestWindow = 3660 * 24 * time.Hour

// ParseSince reads a window: a duration, or the time at which it begins.
func ParseSince(s string, now time.Time) (time.Duration, error) {
	t, err := text.ParseSince(s, now)
	switch d := now.Sub(t); {
	case err != nil:
		return 0, fmt.Errorf("%.40q is %w", s, err)
	case d > longestWindow:
		return 0, fmt.Errorf("%.40q is longer than 3660d, the most", s)
	case d > time.Second:
		return d.Truncate(time.Second), nil
	default:
		return d, nil
	}
}

// Query is a request as parameters: since, by, candidate, noise=include, max, max_unknown,
// mail=1, format, ready=1, top, width, summary=1 and inventory=1.
type Query struct {
	Options
	Style Style
}

// ParseQuery reads the parameters of a request.
func ParseQuery(values url.Values) (q Query, err error) {
	q.Since, _ = ParseSince(DefaultSince, time.Now())
	q.Style = Style{Format: JSON, Top: DefaultTop}
	numbers := map[string]*int{"max": &q.Max, "max_unknown": &q.MaxUnknown, "top": &q.Style.Top, "width": &q.Style.Width}
	switches := map[string]*bool{"ready": &q.Style.Ready, "summary": &q.Style.Summary, "mail": &q.Mail, "inventory": &q.Style.Inventory}
	for name, given := range values {
		if len(given) != 1 {
			return q, fmt.Errorf("%.40q is given %d times: give it once", name, len(given))
		}
		s := given[0]
		switch name {
		case "since":
			q.Since, err = ParseSince(s, time.Now())
		case "by":
			q.By, err = ParseBy(s)
		case "candidate":
			q.Candidate = s
		case "format":
			q.Style.Format, err = ParseFormat(s)
		case "noise":
			if q.Noise = s == "include"; !q.Noise {
				err = fmt.Errorf("%.40q: write noise=include, or leave it out", s)
			}
		default:
			if n := numbers[name]; n != nil {
				if *n, err = strconv.Atoi(s); err != nil || *n < 0 {
					err = fmt.Errorf("%.40q is no whole number from 0 on", s)
				}
				break
			}
			if b := switches[name]; b != nil {
				if *b, err = strconv.ParseBool(s); err != nil {
					err = fmt.Errorf("%.40q is neither 1 nor 0", s)
				}
				break
			}
			return q, fmt.Errorf("unknown parameter %.40q: use since, by, candidate, noise, max, max_unknown, mail, format, ready, top, width, summary, inventory", name)
		}
		if err != nil {
			return q, fmt.Errorf("%s: %w", name, err)
		}
	}
	q.Style.Mail = q.Mail
	q.Style.Inventory = q.Style.Inventory || q.Style.Format == CycloneDX
	return q, nil
}

// Values is the reverse of ParseQuery. An instance of an older version knows all of
// them but width, which is there unless a report is asked for in JSON.
func (q *Query) Values() url.Values {
	v := url.Values{"since": {q.Since.String()}, "max": {strconv.Itoa(q.Max)}}
	set := func(name, value string, given bool) {
		if given {
			v.Set(name, value)
		}
	}
	set("by", string(q.By), q.By != "")
	set("candidate", q.Candidate, q.Candidate != "")
	set("noise", "include", q.Noise)
	set("max_unknown", strconv.Itoa(q.MaxUnknown), q.MaxUnknown > 0)
	set("mail", "1", q.Mail)
	s := &q.Style
	set("format", string(s.Format), s.Format != JSON)
	set("width", strconv.Itoa(s.Width), s.Format != JSON)
	set("top", strconv.Itoa(s.Top), s.Top != DefaultTop)
	set("ready", "1", s.Ready)
	set("summary", "1", s.Summary)
	set("inventory", "1", s.Inventory)
	return v
}

// ReadAccounts reads an operator's list of accounts, one a line. It skips blank
// lines and those that begin with #.
func ReadAccounts(text string) []string {
	var all []string
	for line := range strings.Lines(strings.TrimPrefix(text, "\ufeff")) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
			all = append(all, line)
		}
	}
	return all
}
