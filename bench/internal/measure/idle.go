package measure

import (
	"crypto/tls"
	"fmt"
	"slices"
	"time"

	"postern/bench/internal/client"
	"postern/bench/internal/proc"
	"postern/bench/internal/profiles"
	"postern/bench/internal/subject"
)

// idleColumns are a column for each number of connections, at least one, the
// last of which is compared.
func idleColumns(steps []int) []Column {
	var cols []Column
	last := steps[len(steps)-1:]
	add := func(steps []int, key, title, format string, ratio bool) {
		for _, n := range steps {
			cols = append(cols, Column{Key: At(key, n), Title: fmt.Sprintf("%s @%d", title, n), Format: format,
				Ratio: ratio && n == last[0]})
		}
	}
	add(steps, "pss_kb", "PSS KB/session", "%.1f", true)
	add(steps, "anon_kb", "of it anonymous", "%.1f", true)
	add(steps, "live_kb", "live after a collection, KB/session", "%.2f", true)
	add(last, "rss_kb", "RSS KB/session", "%.1f", false)
	add(last, "kernel_kb", "kernel KB/session", "%.1f", false)
	add(steps, "hs_cpu_ms", "handshake CPU ms", "%.3f", true)
	add(last, "settle_ms", "CPU ms in the first 10 s of idling", "%.0f", false)
	add(steps, "idle_cpu_pct", "idle CPU % after that", "%.2f", false)
	return append(cols,
		Column{Key: "hs_growth", Title: "dearest handshake / cheapest", Format: "%.2f"},
		Column{Key: "empty_mb", Title: "PSS MB when empty, 10 s after the start", Format: "%.1f"},
		Column{Key: "empty_live_mb", Title: "live when empty, after a collection, MB", Format: "%.2f", Ratio: true},
		Column{Key: "after_mb", Title: "PSS MB 10 s after all left", Format: "%.1f", Ratio: true},
		Column{Key: "after_anon_mb", Title: "of it anonymous", Format: "%.1f", Ratio: true})
}

// At is the name of a figure at a number of connections.
func At(key string, connections int) string { return fmt.Sprintf("%s_%d", key, connections) }

// idle holds more and more connections in IDLE, and at each step reads the
// memory and has full handshakes beside them.
var idle = &Measure{
	Name: "idle", Title: "Sessions in IDLE: memory and CPU, and the cost of a full handshake beside them", Group: Fresh, Slow: true, Seconds: 45,
	Run: func(e *Env, in *subject.Instance, v Values, n Notes) error {
		h := holder{Env: e, in: in, t: target(in, client.Config(tls.VersionTLS13, false, false))}
		defer func() { closeAll(h.held) }()
		time.Sleep(e.span(10 * time.Second)) // what only the start needed may have gone before, and come back
		v["empty_mb"] = mb(proc.Memory(in.Roots).PSS)
		if err := warm(h.t); err != nil {
			return err
		}
		h.memory, h.kernel = proc.Memory(in.Roots), proc.Kernel()
		var err error
		if h.live, err = live(in); err != nil {
			return err
		}
		if h.live > 0 {
			v["empty_live_mb"] = h.live / (1 << 20)
		}
		var costs []float64
		for i, step := range e.IdleSteps {
			if err := h.step(step, i == len(e.IdleSteps)-1, v, n); err != nil {
				return err
			}
			costs = append(costs, v[At("hs_cpu_ms", step)])
		}
		v["hs_growth"] = slices.Max(costs) / slices.Min(costs)
		// They are all still alive, and memory comes back when they go.
		for _, c := range h.held[:min(100, len(h.held))] {
			if err := c.Done(); err != nil {
				return fmt.Errorf("an idle connection was dead: %w", err)
			}
		}
		closeAll(h.held)
		time.Sleep(10 * time.Second)
		m := proc.Memory(in.Roots)
		v["after_mb"], v["after_anon_mb"] = mb(m.PSS), mb(m.Anon)
		return nil
	},
}

// holder holds idle connections.
type holder struct {
	*Env
	in     *subject.Instance
	t      client.Target
	memory proc.Mem // before they came
	kernel int64
	live   float64 // bytes
	held   []*client.Conn
}

// step holds n connections and measures beside them.
func (h *holder) step(n int, last bool, v Values, notes Notes) error {
	more, err := openIdle(h.t, n-len(h.held))
	h.held = append(h.held, more...)
	if err != nil {
		return fmt.Errorf("at %d connections: %w", len(h.held), err)
	}
	settle := 3 * time.Second
	if last && !h.Quick {
		settle = 10 * time.Second
	}
	t0 := proc.CPU(h.in.Roots)
	time.Sleep(settle)
	v[At("settle_ms", n)] = 1000 * proc.CPU(h.in.Roots).Sub(t0).Total.Seconds()
	m := proc.Memory(h.in.Roots)
	v[At("pss_kb", n)] = float64(m.PSS-h.memory.PSS) / float64(n)
	v[At("anon_kb", n)] = float64(m.Anon-h.memory.Anon) / float64(n)
	v[At("rss_kb", n)] = float64(m.RSS-h.memory.RSS) / float64(n)
	v[At("kernel_kb", n)] = float64(proc.Kernel()-h.kernel) / float64(n)
	if last && h.Snapshot != nil {
		if err := h.Snapshot(h.in); err != nil {
			return err
		}
	}
	t0 = proc.CPU(h.in.Roots)
	quiet := h.span(4 * time.Second)
	time.Sleep(quiet)
	v[At("idle_cpu_pct", n)] = 100 * proc.CPU(h.in.Roots).Sub(t0).Total.Seconds() / quiet.Seconds()
	now, err := live(h.in)
	if err != nil {
		return err
	}
	if now > 0 {
		v[At("live_kb", n)] = (now - h.live) / 1024 / float64(n)
	}
	hs := Values{}
	cfg := func() *tls.Config { return h.t.TLS }
	if err := connections(h.in, h.span(2*time.Second), cfg, false, hs, notes); err != nil {
		return err
	}
	v[At("hs_cpu_ms", n)] = hs["cpu_ms"]
	return nil
}

// live is the memory in bytes that an instance of Postern holds on to; 0 where it
// serves no profiles.
func live(in *subject.Instance) (float64, error) {
	if !in.Profile || !in.Ours {
		return 0, nil
	}
	return profiles.Live(fmt.Sprintf("127.0.0.1:%d", in.Admin))
}

// usedSessions is how many sessions move data before they idle.
const usedSessions = 1000

// used has sessions idle that have moved data before.
var used = &Measure{
	Name: "used", Title: "1,000 sessions in IDLE: PSS each when new, after 1 MB to the client, and after 1 MB more from it (16 KB records)",
	Group: Fresh, Slow: true, Seconds: 40,
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
