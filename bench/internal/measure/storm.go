package measure

import (
	"crypto/tls"
	"errors"
	"slices"
	"sync"
	"time"

	"postern/bench/internal/client"
	"postern/bench/internal/subject"
)

// storm opens all connections at once.
var storm = &Measure{
	Name: "storm", Title: "2,000 connections opened at once: time until greeted", Direct: true, Seconds: 3,
	Columns: []Column{
		{Key: "cpu_ms", Title: "CPU ms/conn", Format: "%.3f", Ratio: true},
		{Key: "p50_ms", Title: "p50 ms", Format: "%.0f"},
		{Key: "p99_ms", Title: "p99 ms", Format: "%.0f"},
		{Key: "max_ms", Title: "max ms", Format: "%.0f"},
		{Key: "failed", Title: "failed", Format: "%.0f"},
	},
	Run: func(e *Env, in *subject.Instance, v Values, n Notes) error {
		const conns = 2000
		t := target(in, client.Config(tls.VersionTLS13, false, false))
		var mu sync.Mutex
		var lat []time.Duration
		var cs []*client.Conn
		var wg sync.WaitGroup
		start := make(chan struct{})
		var t0 time.Time
		for i := range conns {
			wg.Go(func() {
				<-start
				c, err := client.Dial(t, src(i))
				if err == nil {
					err = c.Greeting()
				}
				took := time.Since(t0)
				mu.Lock()
				defer mu.Unlock()
				if c != nil {
					cs = append(cs, c)
				}
				if err != nil {
					n["error"] = err.Error()
					return
				}
				lat = append(lat, took)
			})
		}
		cpu, _ := cost(in, v, func() {
			t0 = time.Now()
			close(start)
			wg.Wait()
		})
		closeAll(cs)
		if len(lat) == 0 {
			return errors.New("nobody was greeted: " + n["error"])
		}
		slices.Sort(lat)
		v["p50_ms"], v["p99_ms"], v["max_ms"] = micros(lat, .5)/1e3, micros(lat, .99)/1e3, micros(lat, 1)/1e3
		v["failed"] = float64(conns - len(lat))
		if !in.Direct {
			v["cpu_ms"] = millis(cpu) / conns
		}
		time.Sleep(500 * time.Millisecond) // let it clear away
		return nil
	},
}
