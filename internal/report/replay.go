package report

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"postern/internal/ledger"
	"postern/internal/text"
	"postern/policy"
)

// Judgement says what another policy would do to the ledger's clients. Its JSON
// is stable.
type Judgement struct {
	Policy Policy `json:"policy"`
	// At is the time of the decision, Since the beginning of the window.
	At      time.Time `json:"at"`
	Since   time.Time `json:"since"`
	By      By        `json:"by"`
	Clients int       `json:"clients"`
	// Candidate is whose clients are among these; empty for legacy ones alone.
	Candidate string `json:"candidate,omitempty"`
	// Unwritten are further clients, that the ledger cannot be told of.
	Unwritten int `json:"unwritten,omitempty"`
	// Answers are in the order of the constants; a client may have several.
	Answers []Answered `json:"answers"`
	Notes   []string   `json:"notes"`
}

// Answered holds the clients that get one answer.
type Answered struct {
	Answer  Answer  `json:"answer"`
	Clients int     `json:"clients"`
	Groups  []Group `json:"groups"` // as in Report; in JSON alone
	// Rules are the deciding rules by name; empty is the policy's own mode.
	Rules []string `json:"rules"`

	section *section
	last    int64 // the network that was counted last
}

// Answer is the policy's treatment of a client.
type Answer string

// The answers, worst first.
const (
	Refused Answer = "refused"
	Told    Answer = "told"   // why, and closed
	LetIn   Answer = "let_in" // and counted
	Reaches Answer = "reaches_floor"
	Unknown Answer = "unknown" // its hello is not kept
)

var answers = []Answer{Refused, Told, LetIn, Reaches, Unknown}

// words are the headings of the answers.
func (a Answer) words() string {
	return map[Answer]string{
		Refused: "Refused", Told: "Told why, then closed", LetIn: "Let in, and counted",
		Reaches: "Let in, since they reach the floor", Unknown: "Not known",
	}[a]
}

// Trial is the input of Judge.
type Trial struct {
	Policy     *policy.Policy
	PolicyFile string
	// Now is when graces begin of rules that have begun.
	Now, At, Since time.Time
	By             By
	// Source has the clients, and Noise asks about noise too.
	Source Source
	Noise  bool
	// Dir and Progress are as in Facts.
	Dir      string
	Progress func(done float64)
	// Unwritten are clients that the ledger cannot be told of.
	Unwritten int
	Hellos    map[string]policy.Hello
	Notes     []string // more of them

	above *policy.Candidate // as Above returns
}

// Above returns the remembered candidate that knows best whom the policy refuses, of those
// above the running floor: the lowest that refuses them all, or else the highest; nil if
// there is none, or the policy refuses nobody there. Source is to have its clients.
func (t *Trial) Above(running policy.Floor, candidates []policy.Candidate) *policy.Candidate {
	above := slices.DeleteFunc(slices.Clone(candidates), func(c policy.Candidate) bool { return !c.Remember || c.Floor.Compare(running) <= 0 })
	if len(above) == 0 || t.highest().Compare(running) <= 0 {
		return nil
	}
	slices.SortFunc(above, func(a, b policy.Candidate) int { return a.Floor.Compare(b.Floor) })
	i := slices.IndexFunc(above, func(c policy.Candidate) bool { return c.Floor.Compare(t.highest()) >= 0 })
	if i < 0 {
		i = len(above) - 1
	}
	t.above = &above[i]
	return t.above
}

// highest is the highest floor of the policy.
func (t *Trial) highest() policy.Floor {
	return slices.MaxFunc(t.Policy.Floors(), policy.Floor.Compare)
}

// LastDate returns the last date of a policy's rules, or now if that is later.
func LastDate(p *policy.Policy, now time.Time) time.Time {
	dates := p.Dates(now)
	return dates[len(dates)-1]
}

// Judge asks the policy about every client, and writes what it says. CSV has a
// line for each group of each answer.
func Judge(ctx context.Context, w io.Writer, t Trial, f Format) error {
	if err := t.chooseBy(ctx); err != nil {
		return err
	}
	j := &Judgement{
		Policy: Policy{oneLine(t.PolicyFile), t.Policy.Floor().String(), t.Policy.Mode().String()},
		At:     t.At.UTC(), Since: t.Since.UTC(), By: t.By, Unwritten: t.Unwritten, Notes: []string{},
	}
	l := newLists(t.Dir, sortBudget, t.At, &Style{Format: f, Top: DefaultTop})
	defer l.close()
	for _, a := range answers {
		s := l.section(section{by: t.By, status: string(a), answer: true})
		j.Answers = append(j.Answers, Answered{Answer: a, Groups: []Group{}, Rules: []string{}, section: s})
	}
	running, last := t.Policy.At(t.At), int64(0)
	scope := ledger.Scope{Since: t.Since, Logins: true, Progress: t.Progress}
	err := l.scan(ctx, t.Source, scope, func(clients []ledger.Client) error {
		known := slices.ContainsFunc(clients, func(c ledger.Client) bool { return c.Login == ledger.LoginOK })
		for i := range clients {
			c := &clients[i]
			if c.Noise && !t.Noise {
				continue
			}
			answer, rule := t.ask(&running, c, known)
			a := &j.Answers[slices.Index(answers, answer)]
			l.count(&j.Clients, &last)
			l.count(&a.Clients, &a.last)
			if at, found := slices.BinarySearch(a.Rules, rule); !found && answer != Reaches && answer != Unknown {
				a.Rules = slices.Insert(a.Rules, at, rule)
			}
			l.row++
			v := visitOf(l.net, l.row, c, c.Counts) // all that is remembered
			l.put(a.section, &v, c.Logins)
		}
		return nil
	})
	if err != nil {
		return err
	}
	j.note(t)
	j.Notes = append(j.Notes, t.Notes...)
	if err := j.write(w, l); err != nil {
		return fmt.Errorf("writing: %w", err)
	}
	return nil
}

// chooseBy groups by account where any is known, unless something else is asked
// for.
func (t *Trial) chooseBy(ctx context.Context) error {
	if t.By != "" {
		return nil
	}
	t.By = ByNetwork
	known := errors.New("an account is known")
	err := t.Source(ctx, ledger.Scope{Since: t.Since, Logins: true}, func(clients []ledger.Client) error {
		for i := range clients {
			named := func(l ledger.Identity) bool { return l.Account != "" }
			if slices.ContainsFunc(clients[i].Logins, named) && (t.Noise || !clients[i].Noise) {
				t.By = ByAccount
				return known
			}
		}
		return nil
	})
	if errors.Is(err, known) {
		return nil
	}
	return err
}

// KeysAssumed are the certificate keys that most instances have. The ledger
// does not keep them.
const KeysAssumed = policy.ECDSAP256 | policy.RSA

// keysUsual are those of nearly all instances. A client that was refused with reason cipher
// reaches the floor if it does with each of them.
var keysUsual = []policy.KeyTypes{policy.ECDSAP256, policy.ECDSAP384, policy.RSA}

// ask returns what a client meets, whose network may be known to have logged in; with
// shares, the worst of it. It matches rules by the ledger's fingerprint, as the kept hello
// is not complete enough to compute one.
func (t *Trial) ask(running *policy.Snapshot, c *ledger.Client, known bool) (worst Answer, rule string) {
	for _, o := range running.Outcomes(c.ForPolicy(), t.At) {
		if r := o.Rule; known && o.Mode == policy.Enforce && r != nil && r.Grace > 0 && t.At.Before(text.Later(t.Now, r.From).Add(r.Grace)) {
			o.Mode = policy.Explain
		}
		a := t.answer(c, o)
		if worst != "" && slices.Index(answers, a) >= slices.Index(answers, worst) {
			continue
		}
		if worst, rule = a, ""; o.Rule != nil && a != Reaches && a != Unknown {
			rule = o.Rule.Name
		}
	}
	return worst, rule
}

func (t *Trial) answer(c *ledger.Client, o policy.Outcome) Answer {
	hello, ok := t.Hellos[c.JA4]
	if !ok {
		if c.Version != policy.NoVersion && c.Version < o.Floor.MinVersion() && o.Mode == policy.Enforce {
			return Refused
		}
		return Unknown
	}
	hello.ServerName = c.Endpoint.Name
	hello.Unreadable = c.Reason == policy.ReasonMalformed
	place := c.ForPolicy().ConnInfo
	place.Keys = KeysAssumed
	v := lenient[o.Floor].Decide(&hello, place, t.At, 0)
	// A client that is passed through needs an old server, as before.
	passed := v.PassThrough && c.Counts.Observed > 0
	switch {
	case !v.Legacy():
		return Reaches
	case o.Mode == policy.Observe && (v.Serve == policy.Observe || passed):
		return LetIn
	case o.Mode == policy.Explain && v.Serve == policy.Observe:
		return Told
	}
	return Refused
}

// Meeting is what a client meets.
type Meeting string

// The meetings that are no mode.
const (
	Accepted       Meeting = "accepted" // its hello reaches the floor
	PassedThrough  Meeting = "passed_through"
	CannotBeServed Meeting = "cannot_be_served" // and so is refused
)

// lenient lets in every hello below the floor that crypto/tls can serve.
var lenient = func() map[policy.Floor]policy.Snapshot {
	m := make(map[policy.Floor]policy.Snapshot)
	for _, f := range policy.Floors {
		m[f] = policy.New(f, policy.Observe).At(time.Time{})
	}
	return m
}()

// Meets returns what a client meets by an outcome of the policy: the name of the
// mode, unless it is passed through or cannot be served. Where its hello is not known, its
// version decides. An old server is where its listener has one.
func Meets(c *ledger.Client, o policy.Outcome, hellos map[string]policy.Hello, oldServer bool) Meeting {
	served := c.Version >= policy.TLS10 &&
		!slices.Contains([]policy.Reason{policy.ReasonSSL2Hello, policy.ReasonFallback, policy.ReasonMalformed}, c.Reason)
	hello, known := hellos[c.JA4]
	if known && served {
		with := func(keys policy.KeyTypes) policy.Verdict {
			return lenient[o.Floor].Decide(&hello, policy.ConnInfo{Keys: keys}, time.Time{}, 0)
		}
		v := with(KeysAssumed)
		if !v.Legacy() && (c.Remembered || c.Reason == policy.ReasonVersion || !slices.ContainsFunc(keysUsual, func(k policy.KeyTypes) bool { return with(k).Legacy() })) {
			return Accepted
		}
		served = !v.PassThrough
	}
	if c.Remembered && !known && c.Version >= o.Floor.MinVersion() {
		return Accepted
	}
	always := o.Rule != nil && o.Rule.PassThrough
	switch {
	case o.Mode == policy.Observe && oldServer && (always || !served) && c.Reason != policy.ReasonFallback:
		return PassedThrough
	case o.Mode == policy.Enforce || served:
		return Meeting(o.Mode.String())
	}
	return CannotBeServed
}

// note adds notes on what the ledger cannot know.
func (j *Judgement) note(t Trial) {
	covered := false
	if t.above != nil {
		j.Candidate = t.above.Name
		covered = t.above.Floor.Compare(t.highest()) >= 0
	}
	j.Notes = sentences("replay notes", struct {
		*Judgement
		NotKnown int
		Rules    []*policy.Rule
		Above    *policy.Candidate
		Covered  bool // by its clients
	}{j, j.Answers[len(answers)-1].Clients, t.Policy.Rules(), t.above, covered})
}

func (j *Judgement) write(w io.Writer, l *lists) error {
	out := output{bufio.NewWriter(w), &pass{lists: l}}
	switch l.style.Format {
	case JSON:
		out.object(indented(j), text.Each(j.Answers, func(a Answered) list { return list{"groups", a.section} }))
	case CSV:
		out.record(slices.Concat([]string{string(j.By), "answer"}, groupHeader[:1], groupHeader[2:], inferredHeader))
		for _, a := range j.Answers {
			out.groups(a.section)
		}
	default:
		d := out.document()
		d.paragraph(sentence("replayed", j), "")
		for _, a := range j.Answers {
			if a.Clients > 0 {
				fmt.Fprintf(d, "\n%s: %s\n", a.Answer.words(), text.Number(a.Clients, "client"))
				d.groups(a.section)
			}
		}
		d.WriteByte('\n')
		for _, n := range j.Notes {
			d.paragraph(n, "")
		}
	}
	return cmp.Or(l.scratch.err, out.Flush())
}
