package admin

import (
	"slices"
	"strings"
	"time"

	"postern/internal/ledger"
	"postern/policy"
)

const (
	day       = 24 * time.Hour
	chartDays = 30
	// A bar has barStep of the picture's width for itself, and is barWidth wide;
	// the picture is chartHeight high.
	barStep     = 10
	barWidth    = 8
	chartHeight = 100
)

// chart is distinct clients a day, by version, as bars of which each version has
// a part.
type chart struct {
	Width, Height int
	Bars          []bar
	// Versions are those that occur, the oldest first, as they are stacked from
	// the bottom.
	Versions []string
	// Ticks are the numbers beside it, from the top.
	Ticks []int
	// First, Middle and Last are the days below it.
	First, Middle, Last string
	Busiest             int
	BusiestDay          string
}

type bar struct {
	Day   string
	X     int
	Width int
	Parts []part
	// Clients are in the order of the chart's Versions, Total is their sum.
	Clients []int
	Total   int
}

type part struct {
	Version string
	Clients int
	Y, H    float64
}

// chartSince is the first day of a chart that ends now.
func chartSince(now time.Time) time.Time {
	return now.UTC().Truncate(day).Add(-(chartDays - 1) * day)
}

func newChart(days []ledger.Period, now time.Time) chart {
	since := chartSince(now)
	c := chart{Width: chartDays * barStep, Height: chartHeight, Versions: versionsOf(days)}
	for i := range chartDays {
		b := bar{Day: shortDay(since.Add(time.Duration(i) * day)), X: i*barStep + (barStep-barWidth)/2, Width: barWidth}
		b.Clients = make([]int, len(c.Versions))
		c.Bars = append(c.Bars, b)
	}
	for _, d := range days {
		i, v := int(d.First.Sub(since)/day), slices.Index(c.Versions, d.Version.String())
		if d.First.Before(since) || i >= chartDays || v < 0 {
			continue
		}
		c.Bars[i].Clients[v] += d.Clients
		c.Bars[i].Total += d.Clients
	}
	for i := range c.Bars {
		if b := &c.Bars[i]; b.Total > c.Busiest {
			c.Busiest, c.BusiestDay = b.Total, b.Day
		}
	}
	top := roundUp(c.Busiest)
	c.Ticks = []int{top, top / 2, 0}
	for i := range c.Bars {
		c.Bars[i].stack(c.Versions, top)
	}
	c.First, c.Middle, c.Last = c.Bars[0].Day, c.Bars[chartDays/2].Day, "today"
	return c
}

// stack puts the parts on each other.
func (b *bar) stack(versions []string, top int) {
	y := float64(chartHeight)
	for i, n := range b.Clients {
		if n > 0 {
			h := chartHeight * float64(n) / float64(top)
			y -= h
			b.Parts = append(b.Parts, part{versions[i], n, y, h})
		}
	}
}

// versionsOf lists the versions that occur, the oldest first.
func versionsOf(days []ledger.Period) []string {
	var list []string
	for _, v := range policy.Versions {
		if slices.ContainsFunc(days, func(d ledger.Period) bool { return d.Version == v }) {
			list = append(list, v.String())
		}
	}
	return list
}

// roundUp is the next even number that people like to read: 2, 4, 10, 20, 40.
func roundUp(n int) int {
	for scale := 1; ; scale *= 10 {
		for _, step := range []int{2, 4, 6, 10} {
			if n <= step*scale {
				return step * scale
			}
		}
	}
}

func shortDay(t time.Time) string { return t.Format("2 Jan") }

// class is the style class of a version.
func class(version string) string { return "v-" + strings.ReplaceAll(version, ".", "") }
