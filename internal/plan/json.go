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
		Policy      string           `json:"policy"`
		Floor       string           `json:"floor"`
		From        time.Time        `json:"from"`
		Until       time.Time        `json:"until"`
		Over        []string         `json:"over"`
		Running     []eventJSON      `json:"running"`
		Meets       []meetingJSON    `json:"meets"`
		Moments     []momentJSON     `json:"moments"`
		Next        *momentJSON      `json:"next"`
		Exemptions  []exemptionJSON  `json:"exemptions"`
		Relaxations []relaxationJSON `json:"milder"`
	}
	eventJSON struct {
		Rule    string       `json:"rule"`
		Event   string       `json:"event"`
		Mode    string       `json:"mode"`
		Share   float64      `json:"share"`
		Until   time.Time    `json:"until,omitzero"`
		Windows *windowsJSON `json:"windows,omitempty"`
		// PassThrough: to the old server, also where Postern could serve.
		PassThrough bool `json:"pass_through,omitempty"`
	}
	windowsJSON struct {
		Count  int       `json:"count"`
		First  time.Time `json:"first,omitzero"`
		Last   time.Time `json:"last,omitzero"`
		Open   bool      `json:"open"`
		Closes time.Time `json:"closes,omitzero"`
	}
	meetingJSON struct {
		Listeners []string    `json:"listeners"`
		Layers    []layerJSON `json:"layers"`
		Rest      string      `json:"rest"`
	}
	layerJSON struct {
		Rule     string  `json:"rule"`
		Mode     string  `json:"mode"`
		Part     float64 `json:"part"`
		Schedule string  `json:"schedule,omitempty"`
	}
	momentJSON struct {
		Time   time.Time     `json:"time"`
		Events []eventJSON   `json:"events"`
		Meets  []meetingJSON `json:"meets"`
	}
	exemptionJSON struct {
		Rule  string    `json:"rule"`
		Owner string    `json:"owner"`
		Until time.Time `json:"until"`
	}
	relaxationJSON struct {
		Time   time.Time          `json:"time"`
		Until  time.Time          `json:"until,omitzero"`
		Rules  []string           `json:"rules"`
		Text   string             `json:"text"`
		Before map[string]float64 `json:"before"`
		After  map[string]float64 `json:"after"`
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

func nameOf(r *policy.Rule) string { return r.Name }

// WriteJSON writes the plan for programs.
func (p *Plan) WriteJSON(w io.Writer) error {
	tl := p.Policy.Timeline(p.From, p.Until, p.Listeners)
	j := planJSON{
		Policy: p.Source, Floor: p.Policy.Floor().String(), From: p.From.UTC(), Until: p.Until.UTC(),
		Over:    each(tl.Over, nameOf),
		Running: each(tl.Running, eventOf),
		Meets:   each(tl.Meets, meetingOf),
		Moments: each(tl.Moments, momentOf),
		Exemptions: each(p.exemptions(), func(r *policy.Rule) exemptionJSON {
			return exemptionJSON{r.Name, r.Owner, p.Policy.Ends(r).UTC()}
		}),
		Relaxations: each(p.relaxations(), func(m policy.Relaxation) relaxationJSON {
			return relaxationJSON{m.Time.UTC(), utc(m.Until), each(m.Rules, nameOf), m.String(), partsOf(m.Before), partsOf(m.After)}
		}),
	}
	if tl.Next != nil {
		next := momentOf(*tl.Next)
		j.Next = &next
	}
	return text.WriteJSON(w, j)
}

func eventOf(e policy.Event) eventJSON {
	j := eventJSON{Rule: e.Rule.Name, Event: e.Kind.String(), Mode: e.Rule.Mode.String(), Share: e.Share, Until: utc(e.Rule.Until), PassThrough: e.Rule.PassThrough}
	if w := e.Windows; w != nil {
		j.Windows = &windowsJSON{w.Count, utc(w.First), utc(w.Last), w.Open, utc(w.Closes)}
	}
	return j
}

func utc(t time.Time) time.Time {
	if t.IsZero() {
		return time.Time{}
	}
	return t.UTC()
}

func meetingOf(m policy.Meeting) meetingJSON {
	return meetingJSON{m.Listeners, each(m.Layers, func(l policy.Outcome) layerJSON {
		j := layerJSON{Rule: l.Rule.Name, Mode: l.Mode.String(), Part: l.Part}
		if l.Rule.Schedule != nil {
			j.Schedule = l.Rule.Schedule.Cron
		}
		return j
	}), m.Rest.String()}
}

func momentOf(m policy.Moment) momentJSON {
	return momentJSON{m.Time.UTC(), each(m.Events, eventOf), each(m.Meets, meetingOf)}
}

func partsOf(p policy.Parts) map[string]float64 {
	all := make(map[string]float64)
	for _, m := range policy.Modes {
		all[m.String()] = p[m]
	}
	return all
}

// WriteJSON explains the decision for programs.
func (q *Question) WriteJSON(w io.Writer) error {
	steps := q.Policy.Explain(q.Client, q.Time)
	c := &q.Client
	j := questionJSON{
		Policy: q.Source, Floor: q.Policy.Floor().String(), Time: q.Time.UTC(), Listener: c.Listener, Port: c.Port,
		Version: c.Version.String(), ServerName: c.ServerName, JA4: c.JA4.String(),
		Rules: each(steps, func(s policy.Step) stepJSON {
			return stepJSON{s.Rule.Name, s.Rule.Mode.String(), s.Answer.String(), s.Key, utc(s.Time), s.Position, s.Share, text.Unglued(q.stepWords(s))}
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
