package ledger

import (
	"encoding/json"
	"maps"
	"net/netip"
	"slices"
	"sync"

	"postern/policy"
)

const (
	// knownFor is how long, in seconds, after its last login an account is named
	// for a client.
	knownFor = int64(30 * secondsADay)
	// maxKnown bounds the clients whose accounts are in memory, maxAccounts the
	// accounts of each (only their number is logged), and maxPrograms the
	// programs of each account.
	maxKnown    = 100_000
	maxAccounts = 8
	maxPrograms = 8
	// maxHellos is how many hellos are kept.
	maxHellos = 10_000
)

// queue holds logins, accounts and hellos that wait to be written, and the
// known accounts of clients.
type queue struct {
	mu       sync.RWMutex
	logins   map[clientKey]loginCount
	accounts map[accountKey]span
	hellos   map[policy.JA4]string // one for each fingerprint, as it is stored, to judge it again later

	// unnamed are the IMAP sessions, by the connection's number, of accounts whose
	// program has not said what it is so far.
	unnamed map[uint64]accountKey

	// known and fingerprints are the accounts and hellos in the store and in
	// this queue.
	known        map[clientKey][]knownAccount
	fingerprints map[policy.JA4]bool
}

// clientKey identifies a client for accounts: its address and fingerprint.
type clientKey struct {
	client netip.Addr
	ja4    policy.JA4
}

// loginCount counts the logins since the last write.
type loginCount struct{ ok, failed int64 }

type accountKey struct {
	clientKey
	account, software string // software may be empty, or noID
}

// noID stands for the program of a session over IMAP that has ended without an
// ID. Programs share fingerprints: once one of a client has logged in without an
// ID, the names of others may not be its own. No client can send this name.
const noID = "\x1f"

// span is when an account has logged in, in seconds since 1970.
type span struct{ first, last int64 }

// knownAccount is an account that has logged in.
type knownAccount struct {
	name     string
	programs []string // that are not empty
	noID     bool     // it has logged in without an ID, too
	last     int64
}

func (q *queue) init() {
	q.logins = make(map[clientKey]loginCount)
	q.accounts = make(map[accountKey]span)
	q.hellos = make(map[policy.JA4]string)
	q.unnamed = make(map[uint64]accountKey)
	q.known = make(map[clientKey][]knownAccount)
	q.fingerprints = make(map[policy.JA4]bool)
}

// only returns how many accounts of a client have logged in since a time, and
// the account if there is only one.
func (q *queue) only(k clientKey, since int64) (accounts int, account, software string) {
	q.mu.RLock()
	defer q.mu.RUnlock()
	mixed := false
	for i := range q.known[k] {
		a := &q.known[k][i]
		mixed = mixed || a.noID
		if a.last < since {
			continue
		}
		accounts++
		account, software = a.name, ""
		if len(a.programs) == 1 {
			software = a.programs[0]
		}
	}
	if accounts != 1 {
		return accounts, "", ""
	}
	if mixed {
		software = ""
	}
	return 1, account, software
}

// addLogins reports false where there is no room.
func (q *queue) addLogins(k clientKey, ok, failed int) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	c, waits := q.logins[k]
	if !waits && len(q.logins) >= maxPending {
		return false
	}
	q.logins[k] = loginCount{c.ok + int64(ok), c.failed + int64(failed)}
	return true
}

// addAccount reports false where there is no room.
func (q *queue) addAccount(k accountKey, now int64) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if !learn(q.known, k, now) {
		k.software = "" // it gives itself new names all the time
	}
	s, waits := q.accounts[k]
	if without := (accountKey{k.clientKey, k.account, ""}); k.software == noID && !waits {
		s, waits = q.accounts[without] // one row is enough
		delete(q.accounts, without)
	}
	if !waits {
		if len(q.accounts) >= maxPending {
			return false
		}
		s.first = now
	}
	q.accounts[k] = span{s.first, max(s.last, now)}
	return true
}

// withoutID reports whether the account has logged in without an ID before.
func (q *queue) withoutID(k accountKey) bool {
	q.mu.RLock()
	defer q.mu.RUnlock()
	return slices.ContainsFunc(q.known[k.clientKey], func(a knownAccount) bool { return a.name == k.account && a.noID })
}

// begun notes that an IMAP session has not said what its program is.
func (q *queue) begun(conn uint64, k accountKey) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.unnamed) < maxKnown {
		q.unnamed[conn] = k
	}
}

// named ends what begun has begun.
func (q *queue) named(conn uint64) (k accountKey, unnamed bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	k, unnamed = q.unnamed[conn]
	delete(q.unnamed, conn)
	return k, unnamed
}

// learn adds a known account. It reports false if the account has too many
// programs already.
func learn(known map[clientKey][]knownAccount, k accountKey, last int64) bool {
	list := known[k.clientKey]
	i := slices.IndexFunc(list, func(a knownAccount) bool { return a.name == k.account })
	switch {
	case i >= 0:
	case len(list) == 0 && len(known) >= maxKnown:
		return true
	case len(list) < maxAccounts:
		list = append(list, knownAccount{name: k.account})
		known[k.clientKey] = list
		i = len(list) - 1
	default: // the one that was not seen for longest makes room
		i = 0
		for j := range list {
			if list[j].last < list[i].last {
				i = j
			}
		}
		list[i] = knownAccount{name: k.account}
	}
	a := &list[i]
	a.last = max(a.last, last)
	if a.noID = a.noID || k.software == noID; k.software == noID {
		return true
	}
	if k.software == "" || slices.Contains(a.programs, k.software) {
		return true
	}
	if len(a.programs) >= maxPrograms {
		return false
	}
	a.programs = append(a.programs, k.software)
	return true
}

// addHello keeps the hello of a fingerprint that is new.
func (q *queue) addHello(ja4 policy.JA4, h *policy.Hello) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.fingerprints[ja4] || len(q.fingerprints) >= maxHellos {
		return
	}
	q.fingerprints[ja4] = true
	judged := HelloOf(h)                        // a name or an unknown extension may be long
	text, _ := json.Marshal(judged.ForPolicy()) // numbers have a JSON
	q.hellos[ja4] = string(text)
}

// loadAccounts replaces the known accounts by those in the store, latest first,
// and those that wait.
func (q *queue) loadAccounts(stored []account) {
	known := make(map[clientKey][]knownAccount)
	for _, a := range stored {
		learn(known, a.accountKey, a.last)
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	for k, s := range q.accounts {
		learn(known, k, s.last)
	}
	q.known = known
}

// loadFingerprints does the same for fingerprints.
func (q *queue) loadFingerprints(stored []policy.JA4) {
	q.mu.Lock()
	defer q.mu.Unlock()
	clear(q.fingerprints)
	for _, ja4 := range stored {
		q.fingerprints[ja4] = true
	}
	for ja4 := range q.hellos {
		q.fingerprints[ja4] = true
	}
}

// waiting returns how many clients have logins that are not written.
func (q *queue) waiting() int {
	q.mu.RLock()
	defer q.mu.RUnlock()
	return max(len(q.logins), len(q.accounts))
}

func (q *queue) gather(b *batch) {
	q.mu.RLock()
	defer q.mu.RUnlock()
	b.logins, b.accounts, b.hellos = maps.Clone(q.logins), maps.Clone(q.accounts), maps.Clone(q.hellos)
}

// acknowledge removes what was written.
func (q *queue) acknowledge(b *batch) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for ja4 := range b.hellos {
		delete(q.hellos, ja4)
	}
	for k, w := range b.accounts {
		if q.accounts[k].last == w.last {
			delete(q.accounts, k)
		}
	}
	for k, w := range b.logins {
		c, waits := q.logins[k]
		if c = (loginCount{c.ok - w.ok, c.failed - w.failed}); c == (loginCount{}) {
			delete(q.logins, k)
		} else if waits {
			q.logins[k] = c
		}
	}
}

// erase removes an account, or everything about an address.
func (q *queue) erase(account func(string) bool, client netip.Addr) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for k, list := range q.known {
		list = slices.DeleteFunc(list, func(a knownAccount) bool { return k.client == client || account(a.name) })
		if q.known[k] = list; len(list) == 0 {
			delete(q.known, k)
		}
	}
	maps.DeleteFunc(q.accounts, func(k accountKey, _ span) bool { return k.client == client || account(k.account) })
	maps.DeleteFunc(q.unnamed, func(_ uint64, k accountKey) bool { return k.client == client || account(k.account) })
	maps.DeleteFunc(q.logins, func(k clientKey, _ loginCount) bool { return k.client == client })
}
