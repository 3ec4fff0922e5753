package ledger

import (
	"net/netip"
	"slices"
	"strings"
	"sync"

	"postern/internal/text"
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
	// store, accountsKnown the accounts of each, as several are told as a
	// number, and maxPrograms what is kept of the names that a client gives
	// itself for one account.
	maxKnown      = 100_000
	accountsKnown = 8
	maxPrograms   = 8
	// maxSoftware and maxAccount bound what a client says of itself, in bytes.
	maxSoftware = 128
	maxAccount  = 254
)

// names are the accounts behind clients.
type names struct {
	mu    sync.RWMutex
	known map[clientKey][]knownAccount
	fresh map[accountKey]*accountSeen // to be written; known too
}

// knownAccount is one that has logged in.
type knownAccount struct {
	account  string
	programs []string // that are not empty
	last     int64
}

func (n *names) init() {
	n.known = make(map[clientKey][]knownAccount)
	n.fresh = make(map[accountKey]*accountSeen)
}

// Identify returns how many accounts have logged in from the address with the
// fingerprint within the last 30 days. Where that is one, it returns its name,
// and the software it came with if that was always the same.
func (r *Recorder) Identify(client netip.Addr, ja4 policy.JA4) (accounts int, account, software string) {
	since := r.now().Unix() - knownFor
	r.names.mu.RLock()
	defer r.names.mu.RUnlock()
	var only *knownAccount
	list := r.names.known[clientKey{client.WithZone(""), ja4}]
	for i := range list {
		if list[i].last >= since {
			only = &list[i]
			accounts++
		}
	}
	if accounts != 1 {
		return accounts, "", ""
	}
	if len(only.programs) == 1 {
		software = only.programs[0]
	}
	return 1, only.account, software
}

// seen notes a login, to be written and to be told. It reports false where there
// is no room.
func (n *names) seen(a accountSeen) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !learn(n.known, &a) {
		a.software = "" // it gives itself new names all the time
	}
	if have := n.fresh[a.accountKey]; have != nil {
		have.last = max(have.last, a.last)
		return true
	}
	if len(n.fresh) >= maxPending {
		return false
	}
	n.fresh[a.accountKey] = &a
	return true
}

// learn makes an account known. It reports false where its software is not,
// because there are too many of them.
func learn(known map[clientKey][]knownAccount, a *accountSeen) bool {
	list := known[a.clientKey]
	i := slices.IndexFunc(list, func(k knownAccount) bool { return k.account == a.account })
	switch {
	case i >= 0:
	case len(list) == 0 && len(known) >= maxKnown:
		return true
	case len(list) < accountsKnown:
		list = append(list, knownAccount{account: a.account})
		known[a.clientKey] = list
		i = len(list) - 1
	default: // the one that was not seen for longest makes room
		i = 0
		for j := range list {
			if list[j].last < list[i].last {
				i = j
			}
		}
		list[i] = knownAccount{account: a.account}
	}
	k := &list[i]
	k.last = max(k.last, a.last)
	if a.software == "" || slices.Contains(k.programs, a.software) {
		return true
	}
	if len(k.programs) >= maxPrograms {
		return false
	}
	k.programs = append(k.programs, a.software)
	return true
}

// replace makes those known that are in the store, beside those on their way.
func (n *names) replace(stored []accountSeen) {
	known := make(map[clientKey][]knownAccount)
	for i := range stored {
		learn(known, &stored[i])
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, a := range n.fresh {
		learn(known, a)
	}
	n.known = known
}

// forget drops all of an account or an address.
func (n *names) forget(account func(string) bool, client netip.Addr) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for k, list := range n.known {
		list = slices.DeleteFunc(list, func(a knownAccount) bool { return k.client == client || account(a.account) })
		if n.known[k] = list; len(list) == 0 {
			delete(n.known, k)
		}
	}
	for k := range n.fresh {
		if k.client == client || account(k.account) {
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
}

// logins counts them.
type logins struct {
	mu     sync.Mutex
	deltas map[clientKey]*loginDelta
}

// add reports false where there is no room.
func (l *logins) add(k clientKey, ok, failed int) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	d := l.deltas[k]
	if d == nil {
		if len(l.deltas) >= maxPending {
			return false
		}
		d = &loginDelta{clientKey: k}
		l.deltas[k] = d
	}
	d.ok += int64(ok)
	d.failed += int64(failed)
	return true
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
		if d == nil {
			continue
		}
		d.ok -= w.ok
		d.failed -= w.failed
		if d.ok == 0 && d.failed == 0 {
			delete(l.deltas, w.clientKey)
		}
	}
}

func (l *logins) forget(client netip.Addr) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for k := range l.deltas {
		if k.client == client {
			delete(l.deltas, k)
		}
	}
}

// Login remembers that a legacy client has logged in, and as whom.
func (r *Recorder) Login(l *proxy.Login) {
	if !l.Legacy {
		return
	}
	if !r.logins.add(r.key(l.Client.Addr(), l.JA4), 1, 0) {
		r.dropped.Add(1)
	}
	r.identify(l.Conn, l.Account, l.Software)
}

// Software remembers what a client has said of itself after its login.
func (r *Recorder) Software(s *proxy.Software) {
	if s.Legacy {
		r.identify(s.Conn, s.Account, s.Software)
	}
}

func (r *Recorder) identify(c *proxy.Conn, account, software string) {
	if r.identity == nil {
		return
	}
	if account = strings.ToLower(text.Clean(account, maxAccount)); account == "" {
		return
	}
	now := r.now().Unix()
	k := accountKey{r.key(c.Client.Addr(), c.JA4), r.identity(account), text.Clean(software, maxSoftware)}
	if !r.names.seen(accountSeen{k, now, now}) {
		r.dropped.Add(1)
	}
}

// Closed remembers that a legacy client has failed to log in.
func (r *Recorder) Closed(c *proxy.Closed) {
	if c.Legacy && c.FailedLogins > 0 && !r.logins.add(r.key(c.Client.Addr(), c.JA4), 0, c.FailedLogins) {
		r.dropped.Add(1)
	}
}
