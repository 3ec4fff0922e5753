package ledger

import (
	"net/netip"
	"strings"
	"sync"
	"unicode"

	"postern/policy"
	"postern/proxy"
)

// clientKey is what accounts are known by: an address and its way of doing TLS.
type clientKey struct {
	client netip.Addr
	ja4    policy.JA4
}

// accountSeen is a login that the upstream has accepted.
type accountSeen struct {
	accountKey
	first, last int64 // seconds since 1970
}

type accountKey struct {
	clientKey
	account, software string // software may be empty
}

const (
	// knownFor is how long an account is told of a client that comes again.
	knownFor = int64(30 * secondsADay)
	// maxKnown bounds the clients whose accounts are known without asking the
	// store, and accountsKnown the accounts of each: several are told as a
	// number.
	maxKnown      = 100_000
	accountsKnown = 8
	// maxSoftware and maxAccount bound what a client says of itself, in bytes.
	maxSoftware = 128
	maxAccount  = 254
)

// names are the accounts behind clients.
type names struct {
	mu    sync.RWMutex
	known map[clientKey][]accountSeen // by last, the newest first
	fresh map[accountKey]*accountSeen
}

func (n *names) init() {
	n.known = make(map[clientKey][]accountSeen)
	n.fresh = make(map[accountKey]*accountSeen)
}

// enrich adds to a handshake what is known of its client.
func (n *names) enrich(h *proxy.Handshake, client netip.Addr) {
	n.mu.RLock()
	defer n.mu.RUnlock()
	if len(n.known) == 0 {
		return
	}
	list := n.known[clientKey{client, h.JA4}]
	oldest := h.Accepted.Unix() - knownFor
	for _, a := range list {
		if a.last < oldest {
			continue
		}
		switch {
		case h.AccountsKnown == 0:
			h.Account, h.Software, h.AccountsKnown = a.account, a.software, 1
		case a.account == h.Account && a.software != h.Software:
			h.Software = "" // it has several
		case a.account != h.Account:
			h.AccountsKnown++
		}
	}
	if h.AccountsKnown > 1 {
		h.Account, h.Software = "", ""
	}
}

// seen notes a login, to be written and to be told.
func (n *names) seen(a accountSeen) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.learn(a)
	if have := n.fresh[a.accountKey]; have != nil {
		have.last = max(have.last, a.last)
	} else if len(n.fresh) < maxPending {
		n.fresh[a.accountKey] = &a
	}
}

// learn makes an account known; mu is held.
func (n *names) learn(a accountSeen) {
	list, there := n.known[a.clientKey]
	if !there && len(n.known) >= maxKnown {
		return
	}
	for i := range list {
		if list[i].accountKey == a.accountKey {
			list[i].last = max(list[i].last, a.last)
			return
		}
	}
	if len(list) == accountsKnown {
		oldest := 0
		for i := range list {
			if list[i].last < list[oldest].last {
				oldest = i
			}
		}
		list[oldest] = a
		return
	}
	n.known[a.clientKey] = append(list, a)
}

// load makes accounts known that are in the store.
func (n *names) load(list []accountSeen) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, a := range list {
		n.learn(a)
	}
}

// forget makes nothing known of an account or an address.
func (n *names) forget(account string, client netip.Addr) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for k, list := range n.known {
		kept := list[:0]
		for _, a := range list {
			if a.account != account && a.client != client {
				kept = append(kept, a)
			}
		}
		if n.known[k] = kept; len(kept) == 0 {
			delete(n.known, k)
		}
	}
	for k := range n.fresh {
		if k.account == account || k.client == client {
			delete(n.fresh, k)
		}
	}
}

func (n *names) waiting() []accountSeen {
	n.mu.RLock()
	defer n.mu.RUnlock()
	list := make([]accountSeen, 0, len(n.fresh))
	for _, a := range n.fresh {
		list = append(list, *a)
	}
	return list
}

func (n *names) settle(written []accountSeen) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, w := range written {
		if a := n.fresh[w.accountKey]; a != nil && a.last == w.last {
			delete(n.fresh, w.accountKey)
		}
	}
}

// loginDelta is how logins of a client have ended, since the last time.
type loginDelta struct {
	clientKey
	ok, failed int64
	last       int64
}

// logins counts them.
type logins struct {
	mu     sync.Mutex
	deltas map[clientKey]*loginDelta
}

func (l *logins) add(k clientKey, ok, failed int, now int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	d := l.deltas[k]
	if d == nil {
		if len(l.deltas) >= maxPending {
			return
		}
		d = &loginDelta{clientKey: k}
		l.deltas[k] = d
	}
	d.ok += int64(ok)
	d.failed += int64(failed)
	d.last = now
}

func (l *logins) gather() []loginDelta {
	l.mu.Lock()
	defer l.mu.Unlock()
	list := make([]loginDelta, 0, len(l.deltas))
	for _, d := range l.deltas {
		list = append(list, *d)
	}
	return list
}

func (l *logins) settle(written []loginDelta) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, w := range written {
		d := l.deltas[w.clientKey]
		d.ok -= w.ok
		d.failed -= w.failed
		if d.ok == 0 && d.failed == 0 {
			delete(l.deltas, w.clientKey)
		}
	}
}

// Login remembers that a legacy client has logged in, and as whom.
func (r *Recorder) Login(l *proxy.Login) {
	if !l.Legacy {
		return
	}
	now := r.now().Unix()
	k := clientKey{l.Client.Addr().WithZone(""), l.JA4}
	r.logins.add(k, 1, 0, now)
	r.identify(k, l.Account, l.Software, now)
}

// Software remembers what a client has said of itself after its login.
func (r *Recorder) Software(s *proxy.Software) {
	if s.Legacy {
		r.identify(clientKey{s.Client.Addr().WithZone(""), s.JA4}, s.Account, s.Software, r.now().Unix())
	}
}

func (r *Recorder) identify(k clientKey, account, software string, now int64) {
	if r.identity == nil || account == "" {
		return
	}
	a := accountKey{k, r.identity(clean(account, maxAccount)), clean(software, maxSoftware)}
	r.names.seen(accountSeen{a, now, now})
}

// Closed remembers that a legacy client has failed to log in.
func (r *Recorder) Closed(c *proxy.Closed) {
	if c.Legacy && c.FailedLogins > 0 {
		r.logins.add(clientKey{c.Client.Addr().WithZone(""), c.JA4}, 0, c.FailedLogins, r.now().Unix())
	}
}

// clean is a stranger's text on one line, without what a terminal or a
// spreadsheet would obey, n bytes at most.
func clean(s string, n int) string {
	s = strings.ToValidUTF8(s, "?")
	s = strings.Map(func(r rune) rune {
		// Controls, and what turns the direction of writing or is not seen.
		if unicode.IsControl(r) || unicode.In(r, unicode.Cf, unicode.Zl, unicode.Zp) {
			return ' '
		}
		return r
	}, s)
	s = strings.Join(strings.Fields(s), " ")
	for len(s) > n {
		s = s[:n]
		s = strings.ToValidUTF8(s, "")
	}
	return s
}
