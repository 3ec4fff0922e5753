package ledger

import (
	"maps"
	"slices"
	"sync"

	"postern/policy"
)

// hellos keeps one hello for each fingerprint, to judge it again later.
type hellos struct {
	mu    sync.Mutex
	known map[policy.JA4]bool
	fresh map[policy.JA4]policy.Hello // to be written; known too
}

// maxHellos is how many are kept.
const maxHellos = 10_000

func (h *hellos) init() {
	h.known = make(map[policy.JA4]bool)
	h.fresh = make(map[policy.JA4]policy.Hello)
}

func (h *hellos) note(ja4 policy.JA4, hello *policy.Hello) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.known[ja4] || len(h.known) >= maxHellos {
		return
	}
	h.known[ja4] = true
	// What is judged, and no more: a name or an unknown extension may be long.
	h.fresh[ja4] = policy.Hello{
		SSL2Format: hello.SSL2Format, Versions: slices.Clone(hello.Versions), CipherSuites: slices.Clone(hello.CipherSuites),
		SSL2Ciphers: slices.Clone(hello.SSL2Ciphers), Groups: slices.Clone(hello.Groups), Points: slices.Clone(hello.Points),
		SignatureSchemes: slices.Clone(hello.SignatureSchemes),
	}
}

// replace makes those known that are in the store, beside those on their way.
func (h *hellos) replace(stored map[policy.JA4]bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.known = stored
	for ja4 := range h.fresh {
		h.known[ja4] = true
	}
}

func (h *hellos) waiting() map[policy.JA4]policy.Hello {
	h.mu.Lock()
	defer h.mu.Unlock()
	return maps.Clone(h.fresh)
}

func (h *hellos) settle(written map[policy.JA4]policy.Hello) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for k := range written {
		delete(h.fresh, k)
	}
}
