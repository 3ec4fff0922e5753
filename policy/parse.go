package policy

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode"

	"go.yaml.in/yaml/v3"

	"postern/internal/text"
)

// Parse compiles a policy file. The error is of type [Problems] and holds all
// that is wrong at once. It depends on the file alone, never on the clock.
func Parse(data []byte) (*Policy, error) {
	f := file{policy: &Policy{floor: FloorTLS12, mode: Enforce}, names: make(map[string]int)}
	if n := f.document(data); n != nil {
		f.top(n)
	}
	if len(f.problems) > 0 {
		slices.SortStableFunc(f.problems, byPlace)
		return nil, f.problems
	}
	f.policy.source = data
	return compiled(f.policy), nil
}

// file is a policy file that is being read, and what is wrong with it.
type file struct {
	policy   *Policy
	names    map[string]int // by name, the line
	problems Problems
	// at has the rule or candidate that is being read.
	at Problem
	// values is how many nodes were read; nothing is any more when full.
	values int
	full   bool
}

func (f *file) top(n *yaml.Node) {
	seen := f.mapping(n, "the policy", map[string]field{
		"floor":        scalar(f, "floor", &f.policy.floor, ParseFloor),
		"mode":         scalar(f, "mode", &f.policy.mode, ParseMode),
		"guard":        {read: func(n *yaml.Node) { f.policy.guard = f.readGuard(n) }},
		"rules":        {emptyOK: true, read: func(n *yaml.Node) { f.each(n, "rules", &f.at.Rule, f.readRule) }},
		"explain_text": scalar(f, "explain_text", &f.policy.explainText, func(s string) (string, error) { return s, CheckExplainText(s) }),
		"candidates":   {emptyOK: true, read: func(n *yaml.Node) { f.each(n, "candidates", &f.at.Candidate, f.readCandidate) }},
	})
	f.checkGuard(seen["guard"], f.policy.guard, f.policy.mode, nil)
	if n.Kind == yaml.MappingNode && len(n.Content) == 0 {
		f.add(n, "the file is empty: write floor: tls1.2 and mode: enforce into it")
	}
}

// each reads the entries of a list of mappings; name is where problems find which of
// them they are in.
func (f *file) each(n *yaml.Node, what string, name *string, read func(*yaml.Node)) {
	f.list(n, what, ": begin each entry with a dash, as in - name: a", func(item *yaml.Node) {
		*name = nameIn(item)
		read(item)
		*name = ""
	})
}

// nameIn is the name that a rule gives itself, for the problems with the rest
// of it.
func nameIn(n *yaml.Node) string {
	for i := 0; i+1 < len(n.Content) && n.Kind == yaml.MappingNode; i += 2 {
		if value := resolve(n.Content[i+1]); n.Content[i].Value == "name" && nameForm().MatchString(value.Value) {
			return value.Value
		}
	}
	return ""
}

// form is a regular expression that is compiled at its first use: all of them
// take half a millisecond and 200 KB, and only a policy file needs them.
func form(expr string) func() *regexp.Regexp {
	return sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(expr) })
}

var nameForm = form(`^[A-Za-z0-9 ._-]{1,64}$`)

func parseName(s string) (string, error) {
	if !nameForm().MatchString(s) {
		return "", fmt.Errorf("%q is not a name: use 1 to 64 letters, digits, blanks and . _ -", clip(s))
	}
	return s, nil
}

// claim notes a name: it is a label and must be the only one.
func (f *file) claim(n *yaml.Node, name string) {
	switch first, taken := f.names[name]; {
	case name == "":
	case taken:
		f.add(n, "the name is taken by line %d: choose another", first)
	case len(f.names) == maxNames:
		f.add(n, "more than %d rules and candidates, the most", maxNames)
		f.names[name] = n.Line
	case len(f.names) < maxNames:
		f.names[name] = n.Line
	}
}

func (f *file) readCandidate(n *yaml.Node) {
	var c Candidate
	f.mapping(n, "a candidate", map[string]field{
		"name":     scalar(f, "name", &c.Name, parseName),
		"floor":    scalar(f, "floor", &c.Floor, ParseFloor),
		"remember": scalar(f, "remember", &c.Remember, func(s string) (bool, error) { return oneOf("value", "", []bool{true, false}, s) }),
	}, "name", "floor")
	f.claim(n, c.Name)
	f.policy.candidates = append(f.policy.candidates, c)
}

func (f *file) readRule(n *yaml.Node) {
	r := &Rule{Line: n.Line}
	var from, until string // as written
	var open time.Duration
	ramp := false // the share has two ends
	dated := func(written *string) func(string) (time.Time, error) {
		return func(s string) (time.Time, error) { *written = s; return parseTime(s) }
	}
	seen := f.mapping(n, "a rule", map[string]field{
		"name":         scalar(f, "name", &r.Name, parseName),
		"mode":         scalar(f, "mode", &r.Mode, ParseMode),
		"floor":        scalar(f, "floor", &r.Floor, ParseFloor),
		"owner":        scalar(f, "owner", &r.Owner, parseOwner),
		"pass_through": scalar(f, "pass_through", &r.PassThrough, parseAlways),
		"guard":        {read: func(n *yaml.Node) { r.Guard = f.readGuard(n) }},
		"grace":        scalar(f, "grace", &r.Grace, parseOpen),
		"from":         scalar(f, "from", &r.From, dated(&from)),
		"until":        scalar(f, "until", &r.Until, dated(&until)),
		"timezone":     scalar(f, "timezone", &r.Zone, parseZone),
		"schedule":     scalar(f, "schedule", &r.Schedule, func(s string) (*Schedule, error) { return ParseSchedule(s, nil, 0) }),
		"for":          scalar(f, "for", &open, parseOpen),
		"share":        {read: func(n *yaml.Node) { r.Share, ramp = f.readShare(n), n.Kind == yaml.MappingNode }},
		"match":        {read: func(n *yaml.Node) { r.Match = f.readMatch(n) }},
	}, "name", "mode")
	f.claim(n, r.Name)
	r.OwnFloor = seen["floor"] != nil
	if r.PassThrough && seen["mode"] != nil && r.Mode != Observe {
		f.add(seen["pass_through"], "pass_through needs mode: observe, since only a client that is let in can go to the old server")
	}
	if r.Grace > 0 && seen["mode"] != nil && r.Mode != Enforce {
		f.add(seen["grace"], "grace needs mode: enforce, since only a client that would be refused is told why for so long")
	}
	f.checkGuard(seen["guard"], r.Guard, r.Mode, r.Share)
	if !r.From.IsZero() && !r.Until.IsZero() && !r.From.Before(r.Until) {
		f.add(seen["until"], "until is not after from: set a later until")
	}
	if r.Zone == nil {
		r.Zone = time.UTC
	}
	f.doubtOffset(seen["from"], "from", from, r.From, r.Zone)
	f.doubtOffset(seen["until"], "until", until, r.Until, r.Zone)
	switch cron, lasts := seen["schedule"], seen["for"]; {
	case cron == nil && lasts != nil:
		f.add(lasts, "for without schedule: add schedule, or use from and until for dates")
	case cron != nil && lasts == nil:
		f.add(cron, "schedule without for: add how long it lasts, as for: 10m")
	case r.Schedule != nil:
		r.Schedule.Zone, r.Schedule.For = r.Zone, open
	}
	if ramp && (seen["from"] == nil || seen["until"] == nil) {
		f.add(seen["share"], "a share from and to needs the dates between which it changes: add from and until to the rule")
	}
	f.policy.rules = append(f.policy.rules, r)
}

func parseAlways(s string) (bool, error) {
	if s != "always" {
		return false, fmt.Errorf("%q is not always, the only value; without the key a client is passed through where Postern cannot serve it", clip(s))
	}
	return true, nil
}

// doubtOffset notes a date whose offset is not that of the rule's time zone, as
// one of winter in summer. Z is meant, always.
func (f *file) doubtOffset(n *yaml.Node, key, written string, t time.Time, zone *time.Location) {
	at, err := time.Parse("-07:00", written[max(0, len(written)-len("-07:00")):])
	if err != nil || t.IsZero() || zone == time.UTC {
		return
	}
	_, offset := at.Zone()
	local := t.In(zone)
	if _, want := local.Zone(); want != offset {
		f.doubt(n, fmt.Sprintf("%s has the offset %s, but %s has %s then, so that it is %s there: write %[4]s, unless that is meant",
			key, at.Format("-07:00"), zone, local.Format("-07:00"), local.Format(time.DateTime)))
	}
}

func (f *file) readShare(n *yaml.Node) *Share {
	s := &Share{}
	if n.Kind == yaml.ScalarNode {
		s.From, _ = scalarOf(f, n, "share", parsePercent)
		s.To = s.From
		return s
	}
	f.mapping(n, "share", map[string]field{
		"from": scalar(f, "from", &s.From, parsePercent),
		"to":   scalar(f, "to", &s.To, parsePercent),
		"by":   scalar(f, "by", &s.Connection, parseBy),
	}, "from", "to")
	return s
}

// readMatch reads the conditions. A list that is there but empty is not nil.
func (f *file) readMatch(n *yaml.Node) Match {
	m := Match{}
	fields := make(map[string]field)
	for _, k := range Keys {
		fields[k.Name] = field{read: func(n *yaml.Node) {
			values := []string{}
			f.list(n, k.Name, " such as ["+k.example+"]", func(item *yaml.Node) {
				if v, ok := scalarOf(f, item, k.Name, k.parse); ok {
					values = append(values, v)
					if k.doubt != nil {
						f.doubt(item, k.doubt(item.Value))
					}
				}
			})
			m = append(m, Condition{k, values})
		}}
	}
	f.mapping(n, "match", fields)
	slices.SortFunc(m, func(a, b Condition) int { return slices.Index(Keys, a.Key) - slices.Index(Keys, b.Key) })
	return m
}

// maxOwner bounds an owner's name or address, in bytes.
const maxOwner = 254

func parseOwner(s string) (string, error) {
	if s == "" || len(s) > maxOwner || strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) || r == unicode.ReplacementChar }) {
		return "", fmt.Errorf("%q is not a name or an address on one line: write one such as anna@example.org", clip(s))
	}
	return s, nil
}

func parseTime(s string) (time.Time, error) {
	t, err := text.ParseZonedTime(s)
	if err != nil {
		return t, fmt.Errorf("%q %w", clip(s), err)
	}
	return t, nil
}

func parseZone(s string) (*time.Location, error) {
	// Local would be another one on every replica.
	zone, err := time.LoadLocation(s)
	if err != nil || s == "" || s == "Local" {
		return nil, fmt.Errorf("no such time zone %q: use a name such as Europe/Berlin or UTC", clip(s))
	}
	return zone, nil
}

// maxOpen is how long one window of a schedule may be.
const maxOpen = 366 * 24 * time.Hour

func parseOpen(s string) (time.Duration, error) {
	d, err := text.ParseDuration(s)
	switch {
	case err != nil:
		return 0, fmt.Errorf("%q is %w", clip(s), err)
	case d > maxOpen:
		return 0, errors.New("longer than a year: use from and until")
	}
	return d, nil
}

var percentForm = form(`^-?\d{1,9}(\.\d{1,9})?%$`)

func parsePercent(s string) (float64, error) {
	if !percentForm().MatchString(s) {
		return 0, fmt.Errorf("%q is not a percentage: write one such as 5%%", clip(s))
	}
	p, err := strconv.ParseFloat(strings.TrimSuffix(s, "%"), 64)
	if err != nil || p < 0 || p > 100 {
		return 0, fmt.Errorf("%s is outside 0%% to 100%%", s)
	}
	return p / 100, nil
}

func parseBy(s string) (connection bool, err error) {
	if s != "client" && s != "connection" {
		return false, fmt.Errorf("%q is not one of client, connection", clip(s))
	}
	return s == "connection", nil
}
