package plan

import (
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

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

// graceUntil is when the grace of the client ends; zero where it has not begun.
func (q *Question) graceUntil(r *policy.Rule) (end time.Time) {
	if first, begun := q.FirstRefused[r.Name]; begun && r.Grace > 0 {
		end = first.Add(r.Grace)
	}
	return end
}

// outcomes has several entries if it is open whether a share has the client.
func (q *Question) outcomes() []policy.Outcome {
	now := q.Policy.At(q.Time)
	return now.Outcomes(q.Client, q.Time)
}

// WriteText explains the decision rule by rule for people.
func (q *Question) WriteText(w io.Writer) error {
	steps := q.Policy.Explain(q.Client, q.Time)
	outcomes := q.outcomes()
	var b strings.Builder
	fmt.Fprintf(&b, "%s, floor %v.\n", title(q.Source), q.Policy.Floor())
	b.WriteString(tripped(q.Policy))
	b.WriteString(lines(fmt.Sprintf("At %s: %s.", text.Date(q.Time, time.UTC), q.who())))
	if v := q.Client.Version; !q.below() {
		b.WriteString(lines(fmt.Sprintf("%v reaches the floor: such a client is let in, and the rules are asked only where "+
			"its cipher suites, groups or signatures do not reach it.", v)))
	}
	b.WriteByte('\n')
	rows := each(steps, func(s policy.Step) row { return row{s.Rule.Name, q.stepWords(s)} })
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

// who describes the client.
func (q *Question) who() string {
	c := &q.Client
	from := text.Either(c.Client.IsValid(), c.Client.String(), "any address")
	words := fmt.Sprintf("a client of %v from %s on %s, port %d", c.Version, from, c.Listener, c.Port)
	if c.ServerName != "" {
		words += ", server name " + c.ServerName
	}
	if ja4 := c.JA4.String(); ja4 != "" {
		words += ", ja4 " + ja4
	}
	return words
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
	words := map[policy.Mode]string{
		policy.Enforce: "it is refused with a TLS alert (enforce)",
		policy.Explain: "it is told why, then closed (explain)",
		policy.Observe: "it is let in and counted (observe)",
	}[o.Mode]
	if v := q.Client.Version; v >= o.Floor.MinVersion() && (o.Rule == nil || !o.Rule.OwnFloor) && q.below() {
		words = fmt.Sprintf("%v reaches the floor %v, so it is let in", v, o.Floor)
	}
	if r := o.Rule; r != nil && r.Grace > 0 && o.Mode == policy.Enforce {
		switch until := q.graceUntil(r); {
		case until.IsZero():
			words += fmt.Sprintf("; but if it has logged in before, it is told why for %s from its first refusal on", text.Days(r.Grace))
		case until.After(q.Time):
			words = "it is told why, then closed (explain), until " + text.Date(until, r.Zone) + ", and refused from then on"
		default:
			words += "; its grace ended " + text.Date(until, r.Zone)
		}
	}
	if o.Part < 1 {
		words = policy.Percent(o.Part) + ": " + words
	} else {
		words = "I" + words[1:]
	}
	if o.Rule != nil {
		words += fmt.Sprintf(", by rule %s in line %d", named(o.Rule), o.Rule.Line)
		if o.Rule.OwnFloor {
			words += ", whose floor is " + o.Floor.String()
		}
	}
	switch v := q.Client.Version; {
	case o.Rule != nil && o.Rule.PassThrough && strings.HasSuffix(q.Client.Listener, "s"):
		words += "; it goes to the old server, where there is one (pass_through)"
	case v == policy.NoVersion || v > policy.SSL3 || o.Mode == policy.Enforce:
	case o.Mode == policy.Observe:
		words += fmt.Sprintf("; but Postern itself cannot serve %v: unless another server does, it is refused", v)
	default:
		words += fmt.Sprintf("; but nobody can be told anything in %v: it is refused", v)
	}
	return words + "."
}
