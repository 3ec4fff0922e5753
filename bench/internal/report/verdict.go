package report

import (
	"fmt"
	"slices"

	"postern/bench/internal/measure"
)

// Verdict is a target beside what was found.
type Verdict struct {
	Target
	Wanted   string            // the limit in words
	Figures  map[string]string // by subject: the lowest of the rounds
	Lowest   string            // what is judged, of the lowest figures
	Median   string            // the same within each round: median (min–max)
	Measured bool
	Met      bool
	By       string // lowest, median or both, where it is met
}

// Answer is the last cell of the row.
func (v Verdict) Answer() string {
	switch {
	case !v.Measured:
		return "not measured"
	case !v.Met:
		return "**no**"
	case v.By == "both":
		return "yes"
	}
	return "yes, by the " + v.By
}

// Verdicts judges all targets.
func (r *Run) Verdicts() []Verdict {
	var out []Verdict
	for _, t := range Targets {
		out = append(out, r.judge(t))
	}
	return out
}

// judge judges one target: it is met if the lowest figures meet it or the
// median of the rounds does.
func (r *Run) judge(t Target) Verdict {
	v := Verdict{Target: t, Wanted: t.wanted(), Figures: map[string]string{}}
	for _, s := range r.Subjects {
		v.Figures[s.Name] = r.figure(t, s.Name)
	}
	low, rounds, ok := r.judged(t)
	if !ok {
		v.Lowest, v.Median = none, none
		return v
	}
	format := t.Format
	if t.isRatio() {
		format = ratioFormat(t.Limit)
	}
	v.Measured = true
	v.Lowest, v.Median = fmt.Sprintf(format, low), rounds.spread(format)
	mid, _ := rounds.median()
	if t.Worst {
		mid, _ = rounds.highest()
		low = mid
	}
	// What is shown decides: 0.80 meets 0.8.
	byLowest, byMedian := meets(low, t.Limit, format), meets(mid, t.Limit, format)
	v.Met = byLowest || byMedian
	switch {
	case byLowest && byMedian:
		v.By = "both"
	case byLowest:
		v.By = "lowest"
	case byMedian:
		v.By = "median"
	}
	return v
}

// meets compares a figure, as it is shown, with a limit.
func meets(v, limit float64, format string) bool {
	var shown float64
	fmt.Sscan(fmt.Sprintf(format, v), &shown)
	return shown <= limit
}

// isRatio tells whether the limit is one of a ratio.
func (t Target) isRatio() bool { return t.Against != "" || t.Of != "" || t.Flat }

// wanted is the limit in words.
func (t Target) wanted() string {
	switch {
	case t.Against != "" && t.Limit < 0.2:
		return fmt.Sprintf("≤ 1/%.0f", 1/t.Limit)
	case t.Against != "":
		return fmt.Sprintf("≤ %.2f × %s", t.Limit, t.Against)
	case t.Of != "":
		return fmt.Sprintf("≤ %g × %s", t.Limit, t.Than)
	case t.Flat:
		return fmt.Sprintf("≤ %.2f", t.Limit)
	case t.Unit == "":
		return fmt.Sprintf("%.0f", t.Limit)
	}
	return fmt.Sprintf("≤ %g %s", t.Limit, t.Unit)
}

// key is the figure's name in the records.
func (r *Run) key(t Target) string {
	if !t.Idle || len(r.IdleSteps) == 0 {
		return t.Key
	}
	return measure.At(t.Key, r.IdleSteps[len(r.IdleSteps)-1])
}

// figure is the cell of a subject.
func (r *Run) figure(t Target, subject string) string {
	if t.Flat {
		low, ok := r.flatness(subject, t)
		return show(low, ok, "%.2f")
	}
	low, ok := r.series(subject, t.Measure, r.key(t)).lowest()
	if t.Worst {
		low, ok = r.series(subject, t.Measure, r.key(t)).highest()
	}
	out := show(low, ok, t.Format)
	if base, okBase := r.series(subject, t.Measure, t.Of).lowest(); ok && okBase {
		out += " / " + show(base, true, t.Format)
	}
	return out
}

// judged returns what is held against the limit: by the lowest figures, and by
// round.
func (r *Run) judged(t Target) (low float64, rounds series, ok bool) {
	if t.Flat {
		low, ok = r.flatness(Ours, t)
		rounds = r.roundsFlatness(t)
		return low, rounds, ok && len(rounds) > 0
	}
	mine := r.series(Ours, t.Measure, r.key(t))
	base := r.series(t.Against, t.Measure, r.key(t))
	switch {
	case t.Of != "":
		base = r.series(Ours, t.Measure, t.Of)
	case t.Against == "":
		low, ok = mine.lowest()
		return low, mine, ok
	}
	a, okA := mine.lowest()
	b, okB := base.lowest()
	rounds = mine.over(base)
	if !okA || !okB || b == 0 || len(rounds) == 0 {
		return 0, nil, false
	}
	return a / b, rounds, true
}

// flatness is the highest by the lowest of the lowest figures at each number of
// idle sessions.
func (r *Run) flatness(subject string, t Target) (float64, bool) {
	var all []float64
	for _, n := range r.IdleSteps {
		v, ok := r.series(subject, t.Measure, measure.At(t.Key, n)).lowest()
		if !ok || v == 0 {
			return 0, false
		}
		all = append(all, v)
	}
	if len(all) == 0 {
		return 0, false
	}
	return slices.Max(all) / slices.Min(all), true
}

// roundsFlatness is Postern's flatness within each round.
func (r *Run) roundsFlatness(t Target) series {
	byRound := map[int][]float64{}
	for _, n := range r.IdleSteps {
		for round, v := range r.series(Ours, t.Measure, measure.At(t.Key, n)) {
			byRound[round] = append(byRound[round], v)
		}
	}
	out := series{}
	for round, all := range byRound {
		if len(all) == len(r.IdleSteps) && slices.Min(all) > 0 {
			out[round] = slices.Max(all) / slices.Min(all)
		}
	}
	return out
}

// Failures lists the measures that Postern did not get through, by round; its
// figures above lack them.
func (r *Run) Failures() []Record {
	var out []Record
	for _, rec := range r.Records {
		if rec.Subject == Ours && rec.Error != "" {
			out = append(out, rec)
		}
	}
	return out
}

// Loss is a figure in which a peer is better than Postern.
type Loss struct {
	Measure, Figure string
	Ours            string
	Better          []string // peers with their figures, the best first
}

// noise is by how much a peer must be better to count: less is noise.
const noise = 1.15

// Losses lists every compared figure in which a peer is better than Postern by
// more than noise.
func (r *Run) Losses() []Loss {
	var out []Loss
	for _, m := range measure.All() {
		for _, c := range m.ColumnsAt(r.IdleSteps) {
			if !c.Ratio {
				continue
			}
			mine, ok := r.series(Ours, m.Name, c.Key).lowest()
			if !ok {
				continue
			}
			l := Loss{Measure: m.Name, Figure: c.Title, Ours: fmt.Sprintf(c.Format, mine)}
			if l.Better = r.better(m.Name, c, mine); l.Better != nil {
				out = append(out, l)
			}
		}
	}
	return out
}

// better lists the peers that are better than mine by more than noise.
func (r *Run) better(meas string, c measure.Column, mine float64) []string {
	type peer struct {
		name string
		v    float64
	}
	var peers []peer
	for _, s := range r.Subjects {
		v, ok := r.series(s.Name, meas, c.Key).lowest()
		if s.Peer && ok && v > 0 && mine/v > noise {
			peers = append(peers, peer{s.Name, v})
		}
	}
	slices.SortStableFunc(peers, func(a, b peer) int {
		if a.v < b.v {
			return -1
		}
		return 1
	})
	var out []string
	for _, p := range peers {
		out = append(out, fmt.Sprintf("%s "+c.Format+" (%.2f times)", p.name, p.v, mine/p.v))
	}
	return out
}
