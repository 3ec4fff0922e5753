package measure

import (
	"crypto/tls"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"postern/bench/internal/client"
	"postern/bench/internal/proc"
	"postern/bench/internal/subject"
)

// target is the subject's IMAP port; cfg does not matter for direct.
func target(in *subject.Instance, cfg *tls.Config) client.Target {
	t := client.Target{Addr: fmt.Sprintf("127.0.0.1:%d", in.IMAPS), TLS: cfg}
	if in.Direct {
		t.TLS = nil
	}
	return t
}

func targetPOP3(in *subject.Instance, cfg *tls.Config) client.Target {
	t := target(in, cfg)
	t.Addr, t.POP3 = fmt.Sprintf("127.0.0.1:%d", in.POP3S), true
	return t
}

// src spreads clients over eight addresses, to have ephemeral ports enough.
func src(i int) net.IP { return client.Source(i % 8) }

// cost runs f and returns the CPU time the subject spent on it. Of that, the
// kernel's share goes into the values, for those who ask why.
func cost(in *subject.Instance, v Values, f func()) (cpu, wall time.Duration) {
	before := proc.CPU(in.Roots)
	t0 := time.Now()
	f()
	wall = time.Since(t0)
	time.Sleep(100 * time.Millisecond) // let it finish closing
	used := proc.CPU(in.Roots).Sub(before)
	if _, set := v["kernel_pct"]; used.User+used.Sys > 0 && !set {
		v["kernel_pct"] = 100 * float64(used.Sys) / float64(used.User+used.Sys)
	}
	return used.Total, wall
}

// closedLoop has n workers repeat one for span, at most max times in all.
func closedLoop(n int, span time.Duration, max int64, one func(worker int) error) (done, failed int64, first error) {
	var started, ok, bad atomic.Int64
	var once sync.Once
	var wg sync.WaitGroup
	end := time.Now().Add(span)
	for w := range n {
		wg.Go(func() {
			for time.Now().Before(end) && started.Add(1) <= max && bad.Load() < 1000 {
				if err := one(w); err != nil {
					bad.Add(1)
					once.Do(func() { first = err })
					continue
				}
				ok.Add(1)
			}
		})
	}
	wg.Wait()
	return ok.Load(), bad.Load(), first
}

// connections is the closed loop of all the handshake measures: connect, shake
// hands, read the greeting, perhaps log in, log out. Every worker has a TLS
// configuration of its own, and so a ticket of its own.
func connections(in *subject.Instance, span time.Duration, cfg func() *tls.Config, login bool, v Values, n Notes) error {
	workers := 8
	targets := make([]client.Target, workers)
	for w := range targets {
		targets[w] = target(in, cfg())
	}
	var resumed atomic.Int64
	var suite sync.Map
	one := func(w int) error {
		c, err := client.Dial(targets[w], src(w))
		if err != nil {
			return err
		}
		if err = c.Greeting(); err == nil && login {
			err = c.Login()
		}
		if err != nil {
			c.Close()
			return err
		}
		if c.State.DidResume {
			resumed.Add(1)
		}
		suite.Store(tls.CipherSuiteName(c.State.CipherSuite)+" "+c.State.CurveID.String(), true)
		return c.Logout()
	}
	t0 := time.Now()
	for w := range workers { // warm up, and get tickets
		if err := one(w); err != nil {
			return err
		}
	}
	// A subject that stalls (Nagle against delayed ACKs) would do too little
	// work in the span for its CPU time to be read off; give it more clients.
	if each := time.Since(t0) / time.Duration(workers); each > 20*time.Millisecond {
		n["stalls"] = fmt.Sprintf("%v a connection, so 64 clients", each.Round(time.Millisecond))
		for len(targets) < 64 {
			targets = append(targets, target(in, targets[len(targets)%workers].TLS))
		}
		workers = 64
	}
	resumed.Store(0)
	var done, failed int64
	var first error
	cpu, wall := cost(in, v, func() { done, failed, first = closedLoop(workers, span, 50000, one) })
	if done == 0 {
		return fmt.Errorf("no connection came through: %w", first)
	}
	if !in.Direct {
		v["cpu_ms"] = millis(cpu) / float64(done)
		v["resumed_pct"] = 100 * float64(resumed.Load()) / float64(done)
		n["suite"] = ""
		suite.Range(func(k, _ any) bool { n["suite"] += k.(string) + " "; return true })
	}
	v["per_s"] = float64(done) / wall.Seconds()
	v["failed"] = float64(failed)
	if first != nil {
		n["error"] = first.Error()
	}
	return nil
}
