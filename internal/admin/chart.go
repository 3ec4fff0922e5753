package admin

import (
	"slices"
	"time"

	"postern/internal/ledger"
	"postern/policy"
)

const (
	day       = 24 * time.Hour
	chartDays = 30
)

// chart shows the distinct clients of each day as a bar with a part for each
// version. The picture is 300 wide and 100 high, a bar 8 wide.
type chart struct {
	Bars []bar
	// Versions are those that occur, oldest first, stacked from the bottom.
	Versions []policy.Version
	// Ticks are the numbers beside it, from the top.
	Ticks []int
	// Busiest is the bar with the most clients.
	Busiest bar
}

type bar struct {
	Day   string
	X     int
	Parts []part
	// Clients are in the order of the chart's Versions, Total is their sum.
	Clients []int
	Total   int
}

type part struct {
	Version policy.Version
	Clients int
	Y, H    float64
}

// chartSince returns the first day of a chart that ends now.
func chartSince(now time.Time) time.Time {
	return now.UTC().Truncate(day).Add(-(chartDays - 1) * day)
}

func newChart(days []ledger.Period, now time.Time) chart {
	since := chartSince(now)
	c := chart{Bars: make([]bar, chartDays)}
	for _, v := range policy.Versions {
		if slices.ContainsFunc(days, func(d ledger.Period) bool { return d.Version == v }) {
			c.Versions = append(c.Versions, v)
		}
	}
	for i := range c.Bars {
		c.Bars[i] = bar{Day: since.Add(time.Duration(i) * day).Format("2 Jan"), X: 10*i + 1, Clients: make([]int, len(c.Versions))}
	}
	for _, d := range days {
		i, v := int(d.First.Sub(since)/day), slices.Index(c.Versions, d.Version)
		if d.First.Before(since) || i >= chartDays || v < 0 {
			continue
		}
		c.Bars[i].Clients[v] += d.Clients
		c.Bars[i].Total += d.Clients
	}
	c.Busiest = slices.MaxFunc(c.Bars, func(a, b bar) int { return a.Total - b.Total })
	top := roundUp(c.Busiest.Total)
	c.Ticks = []int{top, top / 2, 0}
	for i := range c.Bars {
		c.Bars[i].stack(c.Versions, top)
	}
	return c
}

// stack stacks the parts.
func (b *bar) stack(versions []policy.Version, top int) {
	y := 100.0
	for i, n := range b.Clients {
		if n > 0 {
			h := 100 * float64(n) / float64(top)
			y -= h
			b.Parts = append(b.Parts, part{versions[i], n, y, h})
		}
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
