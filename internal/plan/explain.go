package plan

import (
	_ "embed"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"postern/internal/text"
	"postern/policy"
)

// Question asks for the explanation of one decision.
type Question struct {
	// Source is the file that the policy comes from; empty is the environment.
	Source string
	Policy *policy.Policy
	Time   time.Time
	Client policy.Client
	// FirstRefused is when rules with a grace refused the client first, where it had
	// logged in, by their names.
	FirstRefused map[string]time.Time
}

// graceUntil is when the grace of the client ends; zero where it has not begun, without
// a rule, and where that does not refuse.
func (q *Question) graceUntil(r *policy.Rule) (end time.Time) {
	if r == nil || r.Grace == 0 || r.Mode != policy.Enforce {
		return end
	}
	if first, begun := q.FirstRefused[r.Name]; begun {
		end = first.Add(r.Grace)
	}
	return end
}

// outcomes has several entries if it is open whether a share has the client.
func (q *Question) outcomes() []policy.Outcome {
	now := q.Policy.At(q.Time)
	all := now.Outcomes(q.Client, q.Time)
	for i := range all {
		if o := &all[i]; q.graceUntil(o.Rule).After(q.Time) {
			o.Mode = policy.Explain
		}
	}
	return all
}

// WriteText explains the decision rule by rule for people.
func (q *Question) WriteText(w io.Writer) error {
	steps := q.Policy.Explain(q.Client, q.Time)
	outcomes := q.outcomes()
	var b strings.Builder
	fmt.Fprintf(&b, "%s, floor %v.\n", title(q.Source), q.Policy.Floor())
	b.WriteString(guards(q.Policy, q.Time))
	b.WriteString(lines(fmt.Sprintf("At %s: %s.", text.Date(q.Time, time.UTC), sentence("client", q.Client))))
	if v := q.Client.Version; !q.below() {
		b.WriteString(lines(fmt.Sprintf("%v reaches the floor: such a client is let in, and the rules are asked only where "+
			"its cipher suites, groups or signatures do not reach it.", v)))
	}
	b.WriteByte('\n')
	rows := text.Each(steps, func(s policy.Step) row { return row{s.Rule.Name, q.stepWords(s)} })
	last := row{"(no rule)", "not asked"}
	if outcomes[len(outcomes)-1].Rule == nil {
		last.words = "mode of the policy: " + q.Policy.Mode().String()
	}
	b.WriteString(columns(append(rows, last)))
	b.WriteByte('\n')
	for _, o := range outcomes {
		b.WriteString(lines(q.outcomeWords(o)))
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// below reports whether the version is below the floor of an outcome.
func (q *Question) below() bool {
	return slices.ContainsFunc(q.outcomes(), func(o policy.Outcome) bool { return q.Client.Version < o.Floor.MinVersion() })
}

// stepWords describes a rule's answer.
func (q *Question) stepWords(s policy.Step) string {
	if s.Answer == policy.NoMatch {
		return "passed over: " + q.mismatchWords(s)
	}
	return sentence("step", s)
}

// stands says where the client is beside a share.
func stands(s policy.Step) string {
	position, share := apart(s.Position, s.Share)
	return fmt.Sprintf("this client stands at %s, the share now is %s", position, share)
}

// apart writes two parts with enough digits to tell them apart.
func apart(a, b float64) (string, string) {
	x, y := policy.Percent(a), policy.Percent(b)
	for digits := 3; x == y && a != b && digits < 15; digits++ {
		x, y = strconv.FormatFloat(a*100, 'f', digits, 64)+" %", strconv.FormatFloat(b*100, 'f', digits, 64)+" %"
	}
	return x, y
}

// mismatchWords names the key that does not match, and why.
func (q *Question) mismatchWords(s policy.Step) string {
	c := s.Rule.Match[slices.IndexFunc(s.Rule.Match, func(c policy.Condition) bool { return c.Key.Name == s.Key })]
	words := "it is for " + c.String()
	if has := c.Key.Of(q.Client); has != "" {
		return words + ", not " + has
	}
	return words + "; give one with -" + strings.ReplaceAll(s.Key, "_", "-")
}

// outcomeWords describes what the client meets.
func (q *Question) outcomeWords(o policy.Outcome) string {
	r, v, until := o.Rule, q.Client.Version, q.graceUntil(o.Rule)
	return sentence("outcome", struct {
		policy.Outcome
		Version                            policy.Version
		GraceUntil                         time.Time
		Reaches, Graced, OldServer, TooOld bool
	}{
		o, v, until,
		v >= o.Floor.MinVersion() && (r == nil || !r.OwnFloor) && q.below(), until.After(q.Time),
		r != nil && r.PassThrough && strings.HasSuffix(q.Client.Listener, "s"), v != policy.NoVersion && v <= policy.SSL3,
	})
}

// row is a label, and words that may go on in the lines below.
type row struct{ label, words string }

// rowsOf gives the first line, which there must be, the label.
func rowsOf(label string, lines []string) []row {
	rows := text.Each(lines, func(l string) row { return row{words: l} })
	rows[0].label = label
	return rows
}

// widestLabel is the width up to which a label shares a line with its words.
const widestLabel = 36

// columns writes rows with their words below each other.
func columns(rows []row) string {
	left := 0
	for _, r := range rows {
		if n := utf8.RuneCountInString(r.label); n <= widestLabel {
			left = max(left, n+2)
		}
	}
	var b strings.Builder
	for _, r := range rows {
		label := text.Unglued(r.label)
		if utf8.RuneCountInString(label) > left-2 {
			b.WriteString(label + "\n")
			label = ""
		}
		b.WriteString(wrap(text.Glued(fmt.Sprintf("%-*s", left, label))+r.words, left))
	}
	return b.String()
}

// wrap breaks words into lines; those after the first begin behind the columns on the
// left, and are indented.
func wrap(words string, left int) string {
	words = strings.ReplaceAll(words, " %", text.Glued(" %"))
	return strings.Join(text.Wrap(words, strings.Repeat(" ", left)+"   ", text.Width), "\n") + "\n"
}

// lines wraps a sentence.
func lines(words string) string { return wrap(words, 0) }

// named quotes a rule's name.
func named(r *policy.Rule) string { return quoted(r.Name) }

func quoted(s string) string { return text.Glued(strconv.Quote(s)) }

//go:embed plan.tmpl
var sentences string

// sentence has the words of a template.
var sentence = text.Templates(sentences, map[string]any{
	"date": text.Date, "days": text.Days, "duration": text.Duration, "percent": policy.Percent,
	"named": named, "number": text.Number, "quoted": quoted, "match": matchWords, "sharers": sharers, "stands": stands,
})

// eventWords describes an event of a rule.
func eventWords(e policy.Event) string { return sentence("event", e) }

// sharers are what the share of a rule is of.
func sharers(r *policy.Rule) string {
	return text.Either(r.Share != nil && r.Share.Connection, "connections", "clients")
}

// meetingWords describes what clients meet.
func meetingWords(m policy.Meeting) string {
	words := m.Parts(nil).String()
	for _, l := range m.Layers {
		if l.Rule.Schedule == nil {
			continue
		}
		if open := m.Parts(l.Rule).String(); open != m.Parts(nil).String() {
			words += fmt.Sprintf("; in the windows of %s: %s", named(l.Rule), open)
		}
	}
	return words
}

// relaxationWords describes how a policy relaxes.
func relaxationWords(m policy.Relaxation) string {
	if m.Until.IsZero() {
		return m.Text
	}
	return m.Text + ", bit by bit until " + text.Date(m.Until, m.Rules[0].Zone)
}

// matchWords lists the conditions of a rule; empty if there are none.
func matchWords(m policy.Match) string {
	return strings.Join(text.Each(m, policy.Condition.String), ", ")
}
