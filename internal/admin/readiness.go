package admin

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"postern/proxy"
)

// Readiness is what decides whether clients should be sent here. An upstream
// that is lost later, or a certificate that expires, is told but does not turn
// it: clients then get words instead of a refused connection. Safe for
// concurrent use.
type Readiness struct {
	protocols []proxy.Protocol

	mu        sync.Mutex
	listening bool
	draining  bool
	loaded    bool
	notAfter  time.Time
	answered  map[proxy.Protocol]bool
	down      map[string]bool
}

// NewReadiness waits for an upstream of each of the protocols, given in any
// order.
func NewReadiness(protocols []proxy.Protocol) *Readiness {
	return &Readiness{
		protocols: slices.Sorted(slices.Values(protocols)),
		answered:  map[proxy.Protocol]bool{},
		down:      map[string]bool{},
	}
}

// Listening: all listeners are bound.
func (r *Readiness) Listening() { r.set(func() { r.listening = true }) }

// Certificate: certificates are loaded, and the first of them to expire does
// so at notAfter.
func (r *Readiness) Certificate(notAfter time.Time) {
	r.set(func() { r.loaded, r.notAfter = true, notAfter })
}

// UpstreamAnswered: an upstream of the protocol has answered. That is never
// taken back.
func (r *Readiness) UpstreamAnswered(p proxy.Protocol) { r.set(func() { r.answered[p] = true }) }

// UpstreamState: the upstream of that name, as configured, answers now, or
// does not.
func (r *Readiness) UpstreamState(name string, up bool) {
	r.set(func() {
		if up {
			delete(r.down, name)
		} else {
			r.down[name] = true
		}
	})
}

// Draining: the program is about to stop. That is never taken back.
func (r *Readiness) Draining() { r.set(func() { r.draining = true }) }

func (r *Readiness) set(change func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	change()
}

// Report says whether the gate is ready, and why: a line for each condition,
// and one for each upstream that does not answer now.
func (r *Readiness) Report() (ready bool, text string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	ready = true
	var b strings.Builder
	condition := func(name string, holds bool, good, bad string) {
		ready = ready && holds
		word := good
		if !holds {
			word = bad
		}
		fmt.Fprintf(&b, "%s: %s\n", name, word)
	}
	condition("listeners", r.listening, "ok", "not bound yet")
	condition("certificate", r.loaded, r.certificate(), "not loaded")
	for _, p := range r.protocols {
		condition("upstream "+string(p), r.answered[p], "ok", "not answered yet")
	}
	for _, name := range slices.Sorted(maps.Keys(r.down)) {
		fmt.Fprintf(&b, "upstream %s: does not answer now\n", name)
	}
	condition("draining", !r.draining, "no", "yes")
	return ready, b.String()
}

func (r *Readiness) certificate() string {
	if time.Now().After(r.notAfter) {
		return "ok, but expired at " + r.notAfter.UTC().Format(time.RFC3339)
	}
	return "ok"
}
