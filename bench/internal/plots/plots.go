// Package plots draws what a run found.
package plots

import (
	"fmt"
	"os"
	"path/filepath"

	"postern/bench/internal/measure"
	"postern/bench/internal/report"
)

// ratios are the figures of the first chart.
var ratios = []struct{ measure, key, heading string }{
	{"session", "cpu_ms", "full TLS 1.3 handshake and LOGIN"},
	{"full13", "cpu_ms", "full TLS 1.3 handshake, ECDSA"},
	{"pq13", "cpu_ms", "the same, ML-KEM offered"},
	{"resume13", "cpu_ms", "resumed TLS 1.3 handshake"},
	{"full12rsa", "cpu_ms", "full TLS 1.2 handshake, RSA-2048"},
	{"legacylog", "cpu_us", "TLS 1.0 rejected, logged"},
	{"bulk", "cpu_s_gb", "download by IMAP"},
	{"bulkpop3", "cpu_s_gb", "download by POP3"},
	{"rtt", "cpu_us", "round trip, 64 connections"},
	{"storm", "cpu_ms", "2,000 connections at once"},
}

// Write draws all plots into dir and says which files there are.
func Write(run *report.Run, dir string) ([]report.Plot, error) {
	var out []report.Plot
	for _, c := range []struct {
		report.Plot
		chart chart
	}{
		{report.Plot{File: "performance-cpu.svg", Shows: "CPU time of each measure as a ratio to haproxy's"}, cpu(run)},
		{report.Plot{File: "performance-memory.svg", Shows: "memory of an idle session"}, memory(run)},
		{report.Plot{File: "performance-left.svg", Shows: "memory before the sessions came and after they left"}, left(run)},
	} {
		if len(c.chart.groups) == 0 {
			continue
		}
		b, err := c.chart.svg()
		if err != nil {
			return nil, err
		}
		if err := os.WriteFile(filepath.Join(dir, c.File), b, 0o644); err != nil {
			return nil, err
		}
		out = append(out, c.Plot)
	}
	return out, nil
}

// base is the subject that is 1 in charts of ratios.
const base = "haproxy"

// cpu compares CPU times with haproxy's.
func cpu(run *report.Run) chart {
	c := chart{title: "CPU time, haproxy = 1", axis: "times haproxy's, lowest of the rounds; less is better", format: "%.2f", log: true}
	for _, f := range ratios {
		v, ok := run.Lowest(base, f.measure, f.key)
		if !ok || v <= 0 {
			continue
		}
		c.add(run, f.heading, f.measure, f.key, 1/v)
	}
	return c
}

// memory shows what an idle session takes.
func memory(run *report.Run) chart {
	c := chart{title: "Memory of a session in IDLE", axis: "KB, PSS, lowest of the rounds; less is better", format: "%.1f"}
	if n := len(run.IdleSteps); n > 0 {
		c.add(run, "new, at "+thousands(run.IdleSteps[n-1])+" sessions", "idle", measure.At("pss_kb", run.IdleSteps[n-1]), 1)
	}
	c.add(run, "at 1,000 sessions, after 1 MB to the client", "used", "down_kb", 1)
	c.add(run, "and after 1 MB from the client too", "used", "up_kb", 1)
	return c
}

// thousands is a number with a comma, if it has more than three digits.
func thousands(n int) string {
	if n < 1000 {
		return fmt.Sprint(n)
	}
	return fmt.Sprintf("%d,%03d", n/1000, n%1000)
}

// left shows what is kept when nobody is there.
func left(run *report.Run) chart {
	c := chart{title: "Memory without sessions", axis: "MB, PSS, lowest of the rounds; less is better", format: "%.0f"}
	c.add(run, "before they came", "idle", "empty_mb", 1)
	c.add(run, "10 s after all left", "idle", "after_mb", 1)
	return c
}

// add adds a group with the figures of all subjects that have one, multiplied.
func (c *chart) add(run *report.Run, heading, meas, key string, factor float64) {
	g := group{heading: heading}
	for _, s := range run.Subjects {
		v, ok := run.Lowest(s.Name, meas, key)
		if !ok || s.Direct || c.log && (v <= 0 || s.Name == base) {
			continue
		}
		b := bar{name: s.Name, value: v * factor, ours: s.Name == report.Ours}
		if b.ours { // first, where the eye is
			g.bars = append([]bar{b}, g.bars...)
			continue
		}
		g.bars = append(g.bars, b)
	}
	if len(g.bars) > 0 {
		c.groups = append(c.groups, g)
	}
}
