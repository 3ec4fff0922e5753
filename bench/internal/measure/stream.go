package measure

import (
	"crypto/tls"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"postern/bench/internal/client"
	"postern/bench/internal/subject"
)

// bulkColumns are those of both measures of downloads.
var bulkColumns = []Column{
	{Key: "cpu_s_gb", Title: "CPU s/GB", Format: "%.3f", Ratio: true},
	{Key: "mb_s", Title: "MB/s", Format: "%.0f", Higher: true},
	{Key: "kernel_pct", Title: "kernel %", Format: "%.0f"},
}

// bulk downloads by IMAP.
var bulk = &Measure{
	Name: "bulk", Title: "IMAP FETCH of 8 MB literals over 4 connections, TLS 1.3", Direct: true, Columns: bulkColumns, Seconds: 2,
	Run: func(e *Env, in *subject.Instance, v Values, n Notes) error {
		return fetches(e, in, target(in, client.Config(tls.VersionTLS13, false, false)), v, n)
	},
}

// bulkPOP3 downloads by POP3.
var bulkPOP3 = &Measure{
	Name: "bulkpop3", Title: "POP3 RETR of 8 MB messages over 4 connections, TLS 1.3", Direct: true, Columns: bulkColumns, Seconds: 2,
	Run: func(e *Env, in *subject.Instance, v Values, n Notes) error {
		return fetches(e, in, targetPOP3(in, client.Config(tls.VersionTLS13, false, false)), v, n)
	},
}

// fetches is the closed loop of both downloads.
func fetches(e *Env, in *subject.Instance, t client.Target, v Values, n Notes) error {
	const workers, mb = 4, 8
	messages := int64(64) // 512 MB
	if e.Quick {
		messages = 24
	}
	cs, err := open(t, workers)
	defer closeAll(cs)
	if err != nil {
		return err
	}
	if !in.Direct {
		n["suite"] = tls.CipherSuiteName(cs[0].State.CipherSuite)
	}
	var octets atomic.Int64
	bufs := make([][]byte, workers)
	for i := range bufs {
		bufs[i] = make([]byte, 64<<10)
	}
	one := func(w int) error {
		got, err := cs[w].Fetch(mb, bufs[w])
		octets.Add(got)
		return err
	}
	for w := range workers {
		if err := one(w); err != nil {
			return err
		}
	}
	octets.Store(0)
	var first error
	cpu, wall := cost(in, v, func() { _, _, first = closedLoop(workers, 20*time.Second, messages, one) })
	if first != nil {
		return first
	}
	v["mb_s"] = float64(octets.Load()) / 1e6 / wall.Seconds()
	if !in.Direct {
		v["cpu_s_gb"] = cpu.Seconds() / (float64(octets.Load()) / 1e9)
	}
	return nil
}

// rtt has short commands go to and fro.
var rtt = &Measure{
	Name: "rtt", Title: "NOOP round trips: 64 connections in a closed loop, then 1 connection alone", Direct: true, Seconds: 4,
	Columns: []Column{
		{Key: "cpu_us", Title: "CPU µs/trip", Format: "%.1f", Ratio: true},
		{Key: "per_s", Title: "trips/s", Format: "%.0f", Higher: true},
		{Key: "kernel_pct", Title: "kernel %", Format: "%.0f"},
		{Key: "p50_us", Title: "p50 µs", Format: "%.0f", OverDirect: true},
		{Key: "p99_us", Title: "p99 µs", Format: "%.0f", OverDirect: true},
		{Key: "cpu1_us", Title: "CPU µs/trip, 1 conn", Format: "%.1f"},
		{Key: "one_p50_us", Title: "1 conn p50 µs", Format: "%.0f", OverDirect: true},
		{Key: "one_p99_us", Title: "1 conn p99 µs", Format: "%.0f", OverDirect: true},
	},
	Run: func(e *Env, in *subject.Instance, v Values, n Notes) error {
		cs, err := open(target(in, client.Config(tls.VersionTLS13, false, false)), 64)
		defer closeAll(cs)
		if err != nil {
			return err
		}
		cpu, wall, lat, err := pingPong(in, v, cs, e.span(2*time.Second))
		if err != nil {
			return err
		}
		trips := float64(len(lat))
		v["per_s"] = trips / wall.Seconds()
		v["p50_us"], v["p99_us"] = micros(lat, 0.50), micros(lat, 0.99)
		cpu1, _, lat1, err := pingPong(in, v, cs[:1], e.span(time.Second))
		if err != nil {
			return err
		}
		v["one_p50_us"], v["one_p99_us"] = micros(lat1, 0.50), micros(lat1, 0.99)
		if !in.Direct {
			v["cpu_us"] = float64(cpu.Nanoseconds()) / 1e3 / trips
			v["cpu1_us"] = float64(cpu1.Nanoseconds()) / 1e3 / float64(len(lat1))
		}
		return nil
	},
}

// pingPong has each connection send NOOP after NOOP, and returns the cost and
// the sorted latencies.
func pingPong(in *subject.Instance, v Values, cs []*client.Conn, span time.Duration) (cpu, wall time.Duration, lat []time.Duration, err error) {
	per := make([][]time.Duration, len(cs))
	one := func(w int) error {
		t0 := time.Now()
		err := cs[w].Do("NOOP")
		per[w] = append(per[w], time.Since(t0))
		return err
	}
	cpu, wall = cost(in, v, func() { _, _, err = closedLoop(len(cs), span, 1e6, one) })
	for _, l := range per {
		lat = append(lat, l...)
	}
	slices.Sort(lat)
	return
}

// micros is the q-quantile of sorted latencies.
func micros(lat []time.Duration, q float64) float64 {
	if len(lat) == 0 {
		return 0
	}
	return float64(lat[min(len(lat)-1, int(q*float64(len(lat))))].Nanoseconds()) / 1e3
}

// open opens n logged-in connections, up to 32 at a time.
func open(t client.Target, n int) ([]*client.Conn, error) {
	var mu sync.Mutex
	var cs []*client.Conn
	_, _, err := closedLoop(32, 60*time.Second, int64(n), func(w int) error {
		c, err := client.Dial(t, src(w))
		if err != nil {
			return err
		}
		if err = c.Greeting(); err == nil {
			err = c.Login()
		}
		if err != nil {
			c.Close()
			return err
		}
		mu.Lock()
		defer mu.Unlock()
		cs = append(cs, c)
		return nil
	})
	if err == nil && len(cs) < n {
		err = fmt.Errorf("only %d of %d connections opened in a minute", len(cs), n)
	}
	return cs, err
}

// closeAll closes them all, without a LOGOUT.
func closeAll(cs []*client.Conn) {
	for _, c := range cs {
		c.Close()
	}
}
