package policy

import (
	"errors"
	"fmt"
	"regexp"
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
		return nil, f.problems.sorted()
	}
	f.policy.doubts, f.policy.source = f.doubts, data
	return compiled(f.policy), nil
}

// file is a policy file that is being read.
type file struct {
	walker
	policy *Policy
	names  map[string]int // by name, the line
}

func (f *file) top(n *yaml.Node) {
	f.mapping(n, "the policy", map[string]field{
		"floor":        scalar(&f.walker, "floor", &f.policy.floor, ParseFloor),
		"mode":         scalar(&f.walker, "mode", &f.policy.mode, ParseMode),
		"rules":        {emptyOK: true, read: func(n *yaml.Node) { f.each(n, "rules", &f.rule, f.readRule) }},
		"explain_text": scalar(&f.walker, "explain_text", &f.policy.explainText, func(s string) (string, error) { return s, CheckExplainText(s) }),
		"candidates":   {emptyOK: true, read: func(n *yaml.Node) { f.each(n, "candidates", &f.candidate, f.readCandidate) }},
	})
	if n.Kind == yaml.MappingNode && len(n.Content) == 0 {
		f.add(n, "the file is empty: write floor: tls1.2 and mode: enforce into it")
	}
}

// each reads the entries of a list of mappings; name is where the walker finds
// which of them it is in.
func (f *file) each(n *yaml.Node, what string, name *string, read func(*yaml.Node)) {
	if n.Kind != yaml.SequenceNode {
		f.add(n, "%s is %s, not a list: begin each entry with a dash, as in - name: a", what, kindName(n))
		return
	}
	for _, item := range n.Content {
		if !f.reads(item) {
			break
		}
		item = resolve(item)
		*name = nameIn(item)
		read(item)
		*name = ""
	}
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
	seen := f.mapping(n, "a candidate", map[string]field{
		"name":  scalar(&f.walker, "name", &c.Name, parseName),
		"floor": scalar(&f.walker, "floor", &c.Floor, ParseFloor),
	})
	f.require(n, seen, "a candidate", "name", "floor")
	f.claim(n, c.Name)
	f.policy.candidates = append(f.policy.candidates, c)
}

// require tells which of the keys are missing.
func (f *file) require(n *yaml.Node, seen map[string]*yaml.Node, what string, keys ...string) {
	for _, k := range keys {
		if n.Kind == yaml.MappingNode && seen[k] == nil {
			f.add(n, "%s has no %s: add %[2]s: and its value", what, k)
		}
	}
}

func (f *file) readRule(n *yaml.Node) {
	r := &Rule{Line: n.Line}
	w := &f.walker
	var from, until, cron string // as written
	var open time.Duration
	ramp := false // the share has two ends
	dated := func(written *string) func(string) (time.Time, error) {
		return func(s string) (time.Time, error) { *written = s; return parseTime(s) }
	}
	seen := f.mapping(n, "a rule", map[string]field{
		"name":         scalar(w, "name", &r.Name, parseName),
		"mode":         scalar(w, "mode", &r.Mode, ParseMode),
		"floor":        scalar(w, "floor", &r.Floor, ParseFloor),
		"owner":        scalar(w, "owner", &r.Owner, parseOwner),
		"pass_through": scalar(w, "pass_through", &r.PassThrough, parseAlways),
		"from":         scalar(w, "from", &r.From, dated(&from)),
		"until":        scalar(w, "until", &r.Until, dated(&until)),
		"timezone":     scalar(w, "timezone", &r.Zone, parseZone),
		"schedule":     scalar(w, "schedule", &cron, parseCron),
		"for":          scalar(w, "for", &open, parseOpen),
		"share":        {read: func(n *yaml.Node) { r.Share, ramp = f.readShare(n), n.Kind == yaml.MappingNode }},
		"match":        {read: func(n *yaml.Node) { r.Match = f.readMatch(n) }},
	})
	f.require(n, seen, "a rule", "name", "mode")
	f.claim(n, r.Name)
	r.OwnFloor = seen["floor"] != nil
	if r.PassThrough && seen["mode"] != nil && r.Mode != Observe {
		f.add(seen["pass_through"], "pass_through needs mode: observe, since only a client that is let in can go to the old server")
	}
	if !r.From.IsZero() && !r.Until.IsZero() && !r.From.Before(r.Until) {
		f.add(seen["until"], "until is not after from: set a later until")
	}
	if r.Zone == nil {
		r.Zone = time.UTC
	}
	f.doubtOffset(seen["from"], "from", from, r.From, r.Zone)
	f.doubtOffset(seen["until"], "until", until, r.Until, r.Zone)
	r.Schedule = f.schedule(seen, cron, r.Zone, open)
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
		f.doubt(n, "%s has the offset %s, but %s has %s then, so that it is %s there: write %[4]s, unless that is meant",
			key, at.Format("-07:00"), zone, local.Format("-07:00"), local.Format(time.DateTime))
	}
}

// parseCron takes what is there: the schedule is read when its time zone is
// known.
func parseCron(s string) (string, error) {
	if s == "" {
		return "", errNotFive
	}
	return s, nil
}

// schedule compiles what stands in three keys.
func (f *file) schedule(seen map[string]*yaml.Node, expression string, zone *time.Location, open time.Duration) *Schedule {
	cron, lasts := seen["schedule"], seen["for"]
	switch {
	case cron == nil && lasts != nil:
		f.add(lasts, "for without schedule: add schedule, or use from and until for dates")
	case cron == nil:
	case lasts == nil:
		f.add(cron, "schedule without for: add how long it lasts, as for: 10m")
	case expression != "":
		s, err := ParseSchedule(expression, zone, open)
		if err != nil {
			f.add(cron, "schedule: %v", err)
		}
		return s
	}
	return nil
}

func (f *file) readShare(n *yaml.Node) *Share {
	s := &Share{}
	if n.Kind == yaml.ScalarNode {
		s.From, _ = scalarOf(&f.walker, n, "share", parsePercent)
		s.To = s.From
		return s
	}
	seen := f.mapping(n, "share", map[string]field{
		"from": scalar(&f.walker, "from", &s.From, parsePercent),
		"to":   scalar(&f.walker, "to", &s.To, parsePercent),
		"by":   scalar(&f.walker, "by", &s.Connection, parseBy),
	})
	f.require(n, seen, "share", "from", "to")
	return s
}

func (f *file) readMatch(n *yaml.Node) Match {
	lists := make([][]string, len(Keys))
	fields := make(map[string]field)
	for i, k := range Keys {
		fields[k.Name] = field{read: func(n *yaml.Node) { lists[i] = f.list(n, k) }}
	}
	f.mapping(n, "match", fields)
	m := Match{}
	for i, values := range lists {
		if values != nil {
			m = append(m, Condition{Keys[i], values})
		}
	}
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
