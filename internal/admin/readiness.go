package admin

import (
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	"postern/internal/ledger"
	"postern/internal/text"
	"postern/proxy"
)

// maxProblem is where the words about an upstream are cut, in bytes.
const maxProblem = 300

// Readiness decides whether clients should be sent here. The later loss of an
// upstream, an expired certificate, or a ledger that cannot be written is reported
// but changes nothing: clients then get an answer instead of a refused
// connection. Safe for concurrent use.
type Readiness struct {
	protocols []proxy.Protocol
	// Ledger returns what is not written yet, and NotAfter when the first of the
	// certificates that are served expires. Both are set before the first report.
	Ledger   func() ledger.Backlog
	NotAfter func() time.Time

	mu        sync.Mutex
	draining  bool
	answered  map[proxy.Protocol]bool
	upstreams map[string]error // by URL
}

// NewReadiness waits for an upstream of each of the protocols, given in any
// order.
func NewReadiness(protocols []proxy.Protocol) *Readiness {
	return &Readiness{
		protocols: slices.Sorted(slices.Values(protocols)),
		answered:  map[proxy.Protocol]bool{},
		upstreams: map[string]error{},
	}
}

// UpstreamGreeted: an upstream has greeted, which answers for its protocol once and for all.
func (r *Readiness) UpstreamGreeted(url string) {
	r.set(func() {
		p := protocolOf(url)
		r.answered[p] = true
		if _, known := r.upstreams[url]; !known {
			r.upstreams[url] = errUnanswered[p]
		}
	})
}

// protocolOf is what the scheme of an upstream's URL begins with.
func protocolOf(url string) proxy.Protocol { return proxy.Protocol(text.Cut(url, len("imap"))) }

// errUnanswered is the state of an upstream between its greeting and its first answer.
var errUnanswered = map[proxy.Protocol]error{
	proxy.ProtocolIMAP: errors.New("has greeted, no answer to CAPABILITY yet"),
	proxy.ProtocolPOP3: errors.New("has greeted, no answer to CAPA yet"),
}

// UpstreamState: an upstream serves clients now, or does not, for a reason.
func (r *Readiness) UpstreamState(url string, problem error) {
	r.set(func() { r.upstreams[url] = problem })
}

// Draining: the program is about to stop. That is never taken back.
func (r *Readiness) Draining() { r.set(func() { r.draining = true }) }

func (r *Readiness) set(change func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	change()
}

// A Condition is one that has to hold, or something else that does not work now.
type Condition struct {
	Name, Word string
	Good       bool
}

func (c Condition) String() string { return c.Name + ": " + c.Word }

// Conditions says whether clients should be sent here, and why: each condition,
// each upstream that does not answer now, and a ledger that cannot be written.
func (r *Readiness) Conditions() (ready bool, list []Condition) {
	r.mu.Lock()
	defer r.mu.Unlock()
	// Without listeners and a certificate, Postern does not start.
	ready, list = true, []Condition{{"listeners", "ok", true}, {"certificate", "ok", true}}
	if end := r.NotAfter(); time.Now().After(end) {
		list[1] = Condition{"certificate", "ok, but expired at " + end.UTC().Format(time.RFC3339), false}
	}
	add := func(name string, holds bool, good, bad string) {
		ready = ready && holds
		list = append(list, Condition{name, text.Either(holds, good, bad), holds})
	}
	var down []Condition
	for _, p := range r.protocols {
		serving := false
		for _, url := range slices.Sorted(maps.Keys(r.upstreams)) {
			switch problem := r.upstreams[url]; {
			case protocolOf(url) != p:
			case problem == nil:
				serving = true
			case problem == errUnanswered[p]:
				down = append(down, Condition{"upstream " + url, problem.Error(), false})
			default:
				down = append(down, Condition{"upstream " + url, "does not answer now: " + text.Clean(problem.Error(), maxProblem), false})
			}
		}
		add("upstream "+string(p), r.answered[p], "ok", "not answered yet")
		if last := &list[len(list)-1]; last.Good && !serving {
			last.Word, last.Good = "has greeted, but does not serve now", false
		}
	}
	list = append(list, down...)
	if b := r.Ledger(); b.Stuck {
		list = append(list, Condition{"ledger", b.String(), false})
	}
	add("draining", !r.draining, "no", "yes")
	return ready, list
}

// Lacks are the conditions that do not hold.
func (r *Readiness) Lacks() (list []string) {
	_, all := r.Conditions()
	for _, c := range all {
		if !c.Good {
			list = append(list, c.String())
		}
	}
	return list
}

// Report is Conditions as text, one a line.
func (r *Readiness) Report() (ready bool, lines string) {
	ready, list := r.Conditions()
	for _, c := range list {
		lines += c.String() + "\n"
	}
	return ready, lines
}
