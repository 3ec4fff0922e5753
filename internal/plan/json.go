package plan

import (
	"io"
	"time"

	"postern/internal/text"
	"postern/policy"
)

// The JSON forms. Times are RFC 3339 in UTC; shares and parts go from 0 to 1.
type (
	planJSON struct {
		Policy string `json:"policy"`
		Floor  string `json:"floor"`
		*policy.Timeline
		Exemptions  []exemptionJSON     `json:"exemptions"`
		Relaxations []policy.Relaxation `json:"milder"`
	}
	exemptionJSON struct {
		Rule  string    `json:"rule"`
		Owner string    `json:"owner"`
		Until time.Time `json:"until"`
	}
	questionJSON struct {
		Policy     string        `json:"policy"`
		Floor      string        `json:"floor"`
		Time       time.Time     `json:"time"`
		Client     string        `json:"client"`
		Listener   string        `json:"listener"`
		Port       uint16        `json:"port"`
		Version    string        `json:"version"`
		ServerName string        `json:"server_name"`
		JA4        string        `json:"ja4"`
		Rules      []stepJSON    `json:"rules"`
		Meets      []outcomeJSON `json:"meets"`
	}
	stepJSON struct {
		Rule     string    `json:"rule"`
		Mode     string    `json:"mode"`
		Answer   string    `json:"answer"`
		Key      string    `json:"key,omitempty"`
		Time     time.Time `json:"time,omitzero"`
		Position float64   `json:"position,omitempty"`
		Share    float64   `json:"share,omitempty"`
		Text     string    `json:"text"`
	}
	outcomeJSON struct {
		Mode string  `json:"mode"`
		Rule string  `json:"rule"`
		Part float64 `json:"part"`
		// PassThrough: to the old server, also where Postern could serve.
		PassThrough bool `json:"pass_through,omitempty"`
	}
)

// each is never nil, so that an empty list is [] in JSON.
func each[T, U any](list []T, f func(T) U) []U {
	all := make([]U, len(list))
	for i, v := range list {
		all[i] = f(v)
	}
	return all
}

// WriteJSON writes the plan for programs.
func (p *Plan) WriteJSON(w io.Writer) error {
	return text.WriteJSON(w, planJSON{
		Policy: p.Source, Floor: p.Policy.Floor().String(), Timeline: p.Policy.Timeline(p.From, p.Until, p.Listeners),
		Exemptions: each(p.exemptions(), func(r *policy.Rule) exemptionJSON {
			return exemptionJSON{r.Name, r.Owner, p.Policy.Ends(r)}
		}),
		Relaxations: p.relaxations(),
	})
}

// WriteJSON explains the decision for programs.
func (q *Question) WriteJSON(w io.Writer) error {
	steps := q.Policy.Explain(q.Client, q.Time)
	c := &q.Client
	j := questionJSON{
		Policy: q.Source, Floor: q.Policy.Floor().String(), Time: q.Time.UTC(), Listener: c.Listener, Port: c.Port,
		Version: c.Version.String(), ServerName: c.ServerName, JA4: c.JA4.String(),
		Rules: each(steps, func(s policy.Step) stepJSON {
			return stepJSON{s.Rule.Name, s.Rule.Mode.String(), s.Answer.String(), s.Key, s.Time, s.Position, s.Share, text.Unglued(q.stepWords(s))}
		}),
		Meets: each(q.outcomes(), func(o policy.Outcome) outcomeJSON {
			j := outcomeJSON{Mode: o.Mode.String(), Part: o.Part}
			if o.Rule != nil {
				j.Rule, j.PassThrough = o.Rule.Name, o.Rule.PassThrough
			}
			return j
		}),
	}
	if c.Client.IsValid() {
		j.Client = c.Client.String()
	}
	return text.WriteJSON(w, j)
}
