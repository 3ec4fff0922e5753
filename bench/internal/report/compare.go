package report

import (
	"fmt"
	"strings"

	"postern/bench/internal/measure"
)

// Compare says how Postern's compared figures stand to those of another subject:
// the lowest of each, their ratio, and the ratio within each round.
func (r *Run) Compare(other string) string {
	var out strings.Builder
	fmt.Fprintf(&out, "| %s, by rounds in turn | %s | %s | ratio of the lowest | by round: median (min–max) |\n|---|---|---|---|---|\n", r.Started, Ours, other)
	for _, m := range measure.All() {
		for _, c := range m.ColumnsAt(r.IdleSteps) {
			mine, base := r.series(Ours, m.Name, c.Key), r.series(other, m.Name, c.Key)
			low, ok := mine.lowest()
			baseLow, okBase := base.lowest()
			if !c.Ratio || !ok || !okBase || baseLow == 0 {
				continue
			}
			fmt.Fprintf(&out, "| %s, %s | "+c.Format+" | "+c.Format+" | %.3f | %s |\n",
				m.Name, c.Title, low, baseLow, low/baseLow, mine.over(base).spread("%.3f"))
		}
	}
	return out.String()
}
