// Package report turns the figures of a run into tables, verdicts and plots.
package report

import (
	"fmt"
	"maps"
	"slices"

	"postern/bench/internal/limits"
	"postern/bench/internal/measure"
)

// Record is one measure of one subject in one round.
type Record struct {
	Round   int
	Subject string
	Measure string
	Values  measure.Values `json:",omitempty"`
	Notes   measure.Notes  `json:",omitempty"`
	Error   string         `json:",omitempty"`
}

// columns are those of a measure that there are figures for.
func (r *Run) columns(m *measure.Measure) []measure.Column {
	return slices.DeleteFunc(slices.Clone(m.ColumnsAt(r.IdleSteps)), func(c measure.Column) bool {
		return !slices.ContainsFunc(r.Records, func(rec Record) bool {
			_, ok := rec.Values[c.Key]
			return ok && rec.Measure == m.Name
		})
	})
}

// Subject is what the report says of a subject.
type Subject struct {
	Name    string
	Version string `json:",omitempty"`
	Note    string
	Size    string `json:",omitempty"`
	Peer    bool   // counts as a peer of Postern's
	Direct  bool   // no proxy at all
}

// Fact is something about the machine.
type Fact struct{ Name, Value string }

// Run is everything that a run found; it is what the JSON file holds.
type Run struct {
	Started   string
	Took      string
	Rounds    int
	IdleSteps []int
	Machine   []Fact
	Limits    []limits.Figure `json:",omitempty"`
	Subjects  []Subject
	Records   []Record `json:",omitempty"`
}

// Ours is the name of the subject that is judged.
const Ours = "postern"

// series is one figure by round.
type series map[int]float64

// series collects a figure of a subject.
func (r *Run) series(subject, meas, key string) series {
	s := series{}
	for _, rec := range r.Records {
		if rec.Subject != subject || rec.Measure != meas {
			continue
		}
		if v, ok := rec.Values[key]; ok {
			s[rec.Round] = v
		}
	}
	return s
}

// lowest is the smallest; ok is false where there is none.
func (s series) lowest() (v float64, ok bool) {
	if len(s) == 0 {
		return 0, false
	}
	return slices.Min(slices.Collect(maps.Values(s))), true
}

// highest is the largest.
func (s series) highest() (v float64, ok bool) {
	if len(s) == 0 {
		return 0, false
	}
	return slices.Max(slices.Collect(maps.Values(s))), true
}

// best is the lowest, or the highest of figures of which more is better.
func (s series) best(higher bool) (v float64, ok bool) {
	if higher {
		return s.highest()
	}
	return s.lowest()
}

// median is the middle one, or between the middle two.
func (s series) median() (v float64, ok bool) {
	all := slices.Sorted(maps.Values(s))
	n := len(all)
	if n == 0 {
		return 0, false
	}
	return (all[(n-1)/2] + all[n/2]) / 2, true
}

// over divides by a base, each within its round; rounds that lack one of the
// two are left out.
func (s series) over(base series) series {
	q := series{}
	for round, v := range s {
		if b, ok := base[round]; ok && b != 0 {
			q[round] = v / b
		}
	}
	return q
}

// minus subtracts in the same way.
func (s series) minus(base series) series {
	d := series{}
	for round, v := range s {
		if b, ok := base[round]; ok {
			d[round] = v - b
		}
	}
	return d
}

// spread is "median (lowest–highest)".
func (s series) spread(format string) string {
	m, ok := s.median()
	if !ok {
		return none
	}
	low, _ := s.lowest()
	high, _ := s.highest()
	out := fmt.Sprintf(format, m)
	if len(s) > 1 {
		out += " (" + fmt.Sprintf(format, low) + "–" + fmt.Sprintf(format, high) + ")"
	}
	return out
}

// none stands in a cell for which there is no figure.
const none = "–"

// show formats a figure that may not be there.
func show(v float64, ok bool, format string) string {
	if !ok {
		return none
	}
	return fmt.Sprintf(format, v)
}

// Lowest is the lowest of the rounds of a figure; ok is false where there is
// none.
func (r *Run) Lowest(subject, meas, key string) (v float64, ok bool) {
	return r.series(subject, meas, key).lowest()
}
