package measure

import (
	"crypto/tls"
	"fmt"
	"slices"
	"time"

	"postern/bench/internal/client"
	"postern/bench/internal/proc"
	"postern/bench/internal/subject"
)

// idleColumns are a column for each number of connections, the last of which
// is compared.
func idleColumns(steps []int) []Column {
	var cols []Column
	add := func(key, title, format string, ratio bool) {
		for i, n := range steps {
			cols = append(cols, Column{Key: At(key, n), Title: fmt.Sprintf("%s @%d", title, n), Format: format,
				Ratio: ratio && i == len(steps)-1})
		}
	}
	add("pss_kb", "PSS KB/session", "%.1f", true)
	add("rss_kb", "RSS KB/session", "%.1f", false)
	add("kernel_kb", "kernel KB/session", "%.1f", false)
	add("hs_cpu_ms", "handshake CPU ms", "%.3f", true)
	add("idle_cpu_pct", "idle CPU %", "%.2f", false)
	return append(cols,
		Column{Key: "hs_growth", Title: "dearest handshake / cheapest", Format: "%.2f"},
		Column{Key: "empty_mb", Title: "PSS MB before", Format: "%.1f"},
		Column{Key: "after_mb", Title: "PSS MB 10 s after all left", Format: "%.1f", Ratio: true})
}

// At is the name of a figure at a number of connections.
func At(key string, connections int) string { return fmt.Sprintf("%s_%d", key, connections) }

// idle holds more and more connections in IDLE, and at each step reads the
// memory and has full handshakes beside them.
var idle = &Measure{
	Name: "idle", Title: "Sessions in IDLE: memory and CPU, and the cost of a full handshake beside them", Group: Fresh, Slow: true, Seconds: 45,
	Run: func(e *Env, in *subject.Instance, v Values, n Notes) error {
		cfg := client.Config(tls.VersionTLS13, false, false)
		t := target(in, cfg)
		if err := warm(t); err != nil {
			return err
		}
		before, kernel := proc.Memory(in.Roots), proc.Kernel()
		v["empty_mb"] = mb(before.PSS)
		var held []*client.Conn
		defer func() { closeAll(held) }()
		var costs []float64
		for i, step := range e.IdleSteps {
			more, err := openIdle(t, step-len(held))
			held = append(held, more...)
			if err != nil {
				return fmt.Errorf("at %d connections: %w", len(held), err)
			}
			last := i == len(e.IdleSteps)-1
			settle := 3 * time.Second
			if last && !e.Quick {
				settle = 10 * time.Second
			}
			t0 := proc.CPU(in.Roots)
			time.Sleep(settle)
			v[At("idle_cpu_pct", step)] = 100 * proc.CPU(in.Roots).Sub(t0).Total.Seconds() / settle.Seconds()
			m := proc.Memory(in.Roots)
			v[At("pss_kb", step)] = float64(m.PSS-before.PSS) / float64(step)
			v[At("rss_kb", step)] = float64(m.RSS-before.RSS) / float64(step)
			v[At("kernel_kb", step)] = float64(proc.Kernel()-kernel) / float64(step)
			if last && e.Snapshot != nil {
				if err := e.Snapshot(in); err != nil {
					return err
				}
			}
			hs := Values{}
			if err := connections(in, e.span(2*time.Second), func() *tls.Config { return cfg }, false, hs, n); err != nil {
				return err
			}
			v[At("hs_cpu_ms", step)] = hs["cpu_ms"]
			costs = append(costs, hs["cpu_ms"])
		}
		v["hs_growth"] = slices.Max(costs) / slices.Min(costs)
		// They are all still alive, and memory comes back when they go.
		for _, c := range held[:min(100, len(held))] {
			if err := c.Done(); err != nil {
				return fmt.Errorf("an idle connection was dead: %w", err)
			}
		}
		closeAll(held)
		time.Sleep(10 * time.Second)
		v["after_mb"] = mb(proc.Memory(in.Roots).PSS)
		return nil
	},
}

// usedSessions is how many sessions move data before they idle.
const usedSessions = 1000

// used has sessions idle that have moved data before.
var used = &Measure{
	Name: "used", Title: "1,000 sessions in IDLE: PSS each when new, after 1 MB to the client, and after 1 MB more from it (16 KB records)",
	Group: Fresh, Slow: true, Seconds: 30,
	Columns: []Column{
		{Key: "new_kb", Title: "KB/session, new", Format: "%.1f"},
		{Key: "down_kb", Title: "after 1 MB down", Format: "%.1f", Ratio: true},
		{Key: "up_kb", Title: "after 1 MB up too", Format: "%.1f", Ratio: true},
	},
	Run: func(e *Env, in *subject.Instance, v Values, n Notes) error {
		t := target(in, client.Config(tls.VersionTLS13, false, false))
		if err := warm(t); err != nil {
			return err
		}
		before := proc.Memory(in.Roots).PSS
		held, err := openIdle(t, usedSessions)
		defer closeAll(held)
		if err != nil {
			return err
		}
		read := func(key string) {
			time.Sleep(10 * time.Second)
			v[key] = float64(proc.Memory(in.Roots).PSS-before) / usedSessions
		}
		read("new_kb")
		const workers = 8
		var scratch [workers][64 << 10]byte
		err = awake(held, workers, func(w int, c *client.Conn) error {
			_, err := c.Fetch(1, scratch[w][:])
			return err
		})
		if err != nil {
			return fmt.Errorf("fetching: %w", err)
		}
		read("down_kb")
		text := make([]byte, 1<<20)
		if err := awake(held, workers, func(_ int, c *client.Conn) error { return c.Append(text) }); err != nil {
			return fmt.Errorf("appending: %w", err)
		}
		read("up_kb")
		return nil
	},
}

// warm has a subject's pools and worker threads be there before its memory is
// read.
func warm(t client.Target) error {
	cs, err := open(t, 64)
	for _, c := range cs {
		c.Logout()
	}
	time.Sleep(time.Second)
	return err
}

// openIdle opens n sessions and has them enter IDLE.
func openIdle(t client.Target, n int) ([]*client.Conn, error) {
	cs, err := open(t, n)
	if err != nil {
		return cs, err
	}
	for _, c := range cs {
		if err := c.Idle(); err != nil {
			return cs, err
		}
		c.SetDeadline(time.Time{})
	}
	return cs, nil
}

// awake takes each connection out of IDLE for something, n at a time.
func awake(cs []*client.Conn, n int, do func(worker int, c *client.Conn) error) error {
	todo := make(chan *client.Conn, len(cs))
	for _, c := range cs {
		todo <- c
	}
	done, _, err := closedLoop(n, 2*time.Minute, int64(len(cs)), func(w int) error {
		c := <-todo
		if err := c.Done(); err != nil {
			return err
		}
		if err := do(w, c); err != nil {
			return err
		}
		if err := c.Idle(); err != nil {
			return err
		}
		return c.SetDeadline(time.Time{})
	})
	if err == nil && done < int64(len(cs)) {
		err = fmt.Errorf("only %d of %d sessions in two minutes", done, len(cs))
	}
	return err
}
