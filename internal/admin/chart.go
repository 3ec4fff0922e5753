package admin

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"postern/internal/report"
	"postern/internal/text"
	"postern/policy"
)

const (
	day = 24 * time.Hour
	// ChartDays are those up to today; chartAhead bounds those to come.
	ChartDays  = 30
	chartAhead = 90 * day
)

// chart shows the distinct clients a day as a line, and behind it what the policy
// does on its own, then and later. A day is 10 wide; the line is 100 high.
type chart struct {
	Days []chartDay
	// Width is that of all days, with those to come.
	Width int
	// Line goes through the days before today, Today on to what there is of today;
	// Area is what lies under both.
	Line, Today, Area string
	// Ticks are the numbers beside it, from the top.
	Ticks   []int
	Busiest chartDay
	// Bands are rules for everybody with dates, Marks the days on which a window
	// of a schedule opens.
	Bands, Marks []band
	// Flags are dates of rules; Height is that of the place for them, in pixels.
	Flags  []*dateFlag
	Height int
	Now    float64
	// TodayAt is where that word stands below, in percent; End is the last day, or empty
	// where today stands at the end.
	TodayAt float64
	End     string
	// Legend are the modes that occur.
	Legend []policy.Mode
}

type chartDay struct {
	Day        string
	Clients, X int
}

// band is a rule and the outline of its time.
type band struct {
	Rule *policy.Rule
	Path string
}

// dateFlag marks a day, or a few that are too near each other to be told apart.
type dateFlag struct {
	Number int
	At     float64 // on the scale of the line
	X      float64 // in percent
	Y      int     // in pixels
	Events []changeRow
}

// newChart draws a trend by days.
func newChart(days []report.Period, s PolicyState) *chart {
	first, _ := time.Parse(time.DateOnly, days[0].First)
	end := chartEnd(first, s)
	c := &chart{Width: int(end.Sub(first) / day * 10)}
	for i, d := range days {
		c.Days = append(c.Days, chartDay{first.AddDate(0, 0, i).Format("2 Jan"), d.Clients, 10 * i})
	}
	c.Busiest = slices.MaxFunc(c.Days, func(a, b chartDay) int { return a.Clients - b.Clients })
	top := roundUp(c.Busiest.Clients)
	c.Ticks = []int{top, top / 2, 0}
	points := text.Each(c.Days, func(p chartDay) string { return fmt.Sprintf("%d %.4g", p.X+5, 100-100*float64(p.Clients)/float64(top)) })
	last := len(points) - 1
	c.Line, c.Today = "M"+strings.Join(points[:last], "L"), "M"+strings.Join(points[last-1:], "L")
	c.Area = fmt.Sprintf("M5 100L%sL%d 100Z", strings.Join(points, "L"), c.Days[last].X+5)
	at := func(t time.Time) float64 { return 10 * float64(t.Sub(first)) / float64(day) }
	for _, r := range slices.Backward(s.Policy.Rules()) { // the first of them decides
		c.draw(r, first, end, at)
	}
	c.flags(s.Policy.Timeline(first, end, nil).Moments, at)
	for _, b := range slices.Concat(c.Bands, c.Marks) {
		if !slices.Contains(c.Legend, b.Rule.Mode) {
			c.Legend = append(c.Legend, b.Rule.Mode)
		}
	}
	c.Now = at(s.Now)
	if c.TodayAt = 100 * c.Now / float64(c.Width); c.TodayAt <= 75 {
		c.End = end.Add(-day).Format("2 Jan")
	}
	return c
}

// chartEnd is the end of today, or some days behind the policy's last date.
func chartEnd(first time.Time, s PolicyState) time.Time {
	last := s.Now
	for _, t := range s.Policy.Dates(s.Now)[1:] {
		if t.Sub(s.Now) < chartAhead {
			last = t.Add(day)
		}
	}
	return text.Later(last.UTC().Truncate(day).Add(day), first.Add(ChartDays*day))
}

// draw draws a rule for everybody that has dates, or a schedule.
func (c *chart) draw(r *policy.Rule, first, end time.Time, at func(time.Time) float64) {
	from, until := text.Later(first, r.From), r.UpTo(end)
	special := slices.ContainsFunc(r.Match, func(m policy.Condition) bool { return m.Key.Name != "listener" })
	if special || !from.Before(until) || r.Schedule == nil && r.From.IsZero() && r.Until.IsZero() {
		return
	}
	if r.Schedule == nil {
		height := func(t time.Time) float64 { return 100 - 100*r.ShareAt(t) }
		c.Bands = append(c.Bands, band{r, fmt.Sprintf("M%.5g 100V%.4gL%.5g %.4gV100Z", at(from), height(from), at(until), height(until.Add(-1)))})
		return
	}
	var marks strings.Builder
	for t := first; t.Before(end); t = t.Add(day) {
		if tomorrow := t.Add(day); r.Opens(t, tomorrow) {
			fmt.Fprintf(&marks, "M%.5g 0h6v5h-6z", at(t)+2)
		}
	}
	if marks.Len() > 0 {
		c.Marks = append(c.Marks, band{r, marks.String()})
	}
}

const (
	// Flags that are nearer to each other than flagGap percent stand below each
	// other, in flagRows rows of flagHeight pixels.
	flagGap    = 6.5
	flagRows   = 3
	flagHeight = 22
)

// flags sets a flag for each day on which a rule begins or ends.
func (c *chart) flags(moments []policy.Moment, at func(time.Time) float64) {
	var rows [flagRows]*dateFlag // the last one in each
	for _, m := range moments {
		e := changeRow{Time: m.Time, Zone: m.Events[0].Rule.Zone}
		if e.Begun, e.Ended = turning(m); e.Begun == nil && e.Ended == nil {
			continue
		}
		x := 100 * at(m.Time) / float64(c.Width)
		row := slices.IndexFunc(rows[:], func(f *dateFlag) bool { return f == nil || x-f.X >= flagGap })
		if n := len(c.Flags); n > 0 && (row < 0 || x-c.Flags[n-1].X < 100/float64(c.Width)*10/2) {
			c.Flags[n-1].Events = append(c.Flags[n-1].Events, e)
			continue
		}
		f := &dateFlag{Number: len(c.Flags) + 1, At: at(m.Time), X: x, Y: row*flagHeight + flagHeight/2, Events: []changeRow{e}}
		rows[row] = f
		c.Flags, c.Height = append(c.Flags, f), max(c.Height, (row+1)*flagHeight)
	}
}

// roundUp returns the next round number: 2, 4, 10, 20, 40.
func roundUp(n int) int {
	for scale := 1; ; scale *= 10 {
		for _, step := range []int{2, 4, 6, 10} {
			if n <= step*scale {
				return step * scale
			}
		}
	}
}
