package ledger

import (
	"cmp"
	"encoding/json"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"unique"

	"postern/policy"
)

const (
	// knownFor is how long, in seconds, after its last login an account is named
	// for a client.
	knownFor = int64(30 * secondsADay)
	// maxKnown bounds the clients whose accounts are in memory, maxAccounts the
	// accounts of each (only their number is logged), and maxPrograms the
	// programs of each account, by name and by pattern. maxStrange bounds the
	// patterns of no account: anybody can add to them, and takes no room of the others.
	maxKnown    = 100_000
	maxStrange  = 200_000
	maxAccounts = 8
	maxPrograms = 32
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
	refusals map[refusal]refused
	released map[string]int64 // guards, by rule, as they were last in the store

	// unnamed are the IMAP sessions, by the connection's number, of accounts whose
	// program has not said what it is so far.
	unnamed map[uint64]accountKey

	// known are the accounts in the store and in this queue, and fingerprints those whose
	// hellos have been in this queue.
	known        *knownClients
	fingerprints map[policy.JA4]bool
}

// knownClients are accounts by client, and the fingerprints that an address has there.
type knownClients struct {
	accounts map[clientKey][]knownAccount
	at       map[netip.Addr][]policy.JA4
	strange  int // patterns of no account
}

func newKnownClients() *knownClients {
	return &knownClients{accounts: make(map[clientKey][]knownAccount), at: make(map[netip.Addr][]policy.JA4)}
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
// ID, the names of others may not be its own. Behind asPattern stands how a program
// speaks. No client can send such a name.
const (
	noID      = "\x1f"
	asPattern = "\x1e"
)

// span is when an account has logged in, or a rule has refused a client, in seconds since
// 1970.
type span struct{ first, last int64 }

// refused is when a rule has refused a client, and when its guard was released before that,
// where this was known.
type refused struct {
	span
	released int64
	known    bool
}

// knownAccount is an account that has logged in; without a name, clients of none that is
// known.
type knownAccount struct {
	name     string
	programs []knownProgram
	noID     bool // it has logged in without an ID, too
	last     int64
}

// knownProgram is what an account has used: a name that is not empty, or a pattern behind
// asPattern.
type knownProgram struct {
	name string
	last int64
}

func (q *queue) init() {
	q.logins = make(map[clientKey]loginCount)
	q.accounts = make(map[accountKey]span)
	q.hellos = make(map[policy.JA4]string)
	q.refusals = make(map[refusal]refused)
	q.unnamed = make(map[uint64]accountKey)
	q.known = newKnownClients()
	q.fingerprints = make(map[policy.JA4]bool)
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

// addPattern reports false where there is no room. One that is known is written once a day.
func (q *queue) addPattern(k accountKey, now int64) bool {
	q.mu.RLock()
	known := slices.ContainsFunc(q.known.accounts[k.clientKey], func(a knownAccount) bool {
		return a.name == k.account && slices.ContainsFunc(a.programs, func(p knownProgram) bool {
			return p.name == k.software && p.last/secondsADay == now/secondsADay
		})
	})
	q.mu.RUnlock()
	return known || q.addAccount(k, now)
}

// addAccount reports false where there is no room.
func (q *queue) addAccount(k accountKey, now int64) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if !q.known.learn(k, now) { // it gives itself new names, or speaks in new ways, all the time
		if k.account == "" {
			return true
		}
		k.software = ""
	}
	s, waits := q.accounts[k]
	if without := (accountKey{k.clientKey, k.account, ""}); k.software == noID && !waits {
		s, waits = q.accounts[without] // one row is enough
		delete(q.accounts, without)
	}
	if !waits && len(q.accounts) >= maxPending {
		return false
	}
	q.accounts[k] = span{cmp.Or(s.first, now), max(s.last, now)}
	return true
}

// withoutID reports whether the account has logged in without an ID before.
func (q *queue) withoutID(k accountKey) bool {
	q.mu.RLock()
	defer q.mu.RUnlock()
	return slices.ContainsFunc(q.known.accounts[k.clientKey], func(a knownAccount) bool { return a.name == k.account && a.noID })
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

// learn adds a known account. It reports false if the account, or all that are none, have
// too many programs already.
func (c *knownClients) learn(k accountKey, last int64) bool {
	list := c.accounts[k.clientKey]
	i := slices.IndexFunc(list, func(a knownAccount) bool { return a.name == k.account })
	switch {
	case i >= 0:
	case k.account == "" && c.strange >= maxStrange:
		return false
	case len(list) == 0 && len(c.accounts) >= maxKnown+maxStrange:
		return true
	case len(list) < maxAccounts:
		if len(list) == 0 {
			c.at[k.client] = append(c.at[k.client], k.ja4)
		}
		list = append(list, knownAccount{name: k.account})
		c.accounts[k.clientKey] = list
		i = len(list) - 1
	default: // the one that was not seen for longest makes room
		oldest := slices.MinFunc(list, func(a, b knownAccount) int { return cmp.Compare(a.last, b.last) }).last
		i = slices.IndexFunc(list, func(a knownAccount) bool { return a.last == oldest })
		list[i] = knownAccount{name: k.account}
	}
	a := &list[i]
	a.last = max(a.last, last)
	if a.noID = a.noID || k.software == noID; k.software == noID {
		return true
	}
	i = slices.IndexFunc(a.programs, func(p knownProgram) bool { return p.name == k.software })
	switch {
	case i >= 0:
		a.programs[i].last = max(a.programs[i].last, last)
	case k.software == "":
	case len(a.programs) >= maxPrograms, k.account == "" && c.strange >= maxStrange:
		return false
	default:
		if k.account == "" {
			c.strange++
		}
		a.programs = append(a.programs, knownProgram{unique.Make(k.software).Value(), last}) // one copy for many clients
	}
	return true
}

// addHello keeps the hello of a fingerprint that is new here.
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

// addRefusal reports false where there is no room.
func (q *queue) addRefusal(k refusal, now int64) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	s, waits := q.refusals[k]
	if !waits && len(q.refusals) >= maxPending {
		return false
	}
	s.span = span{cmp.Or(s.first, now), now}
	s.released, s.known = q.released[k.rule]
	q.refusals[k] = s
	return true
}

// know has it known which guards were released when.
func (q *queue) know(states []policy.GuardState) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.released = make(map[string]int64)
	for _, g := range states {
		q.released[g.Rule] = max(0, g.Released.Unix())
	}
}

// loadAccounts replaces the known accounts by those in the store, latest first,
// and those that wait.
func (q *queue) loadAccounts(stored []account) {
	known := newKnownClients()
	for _, a := range stored {
		known.learn(a.accountKey, a.last)
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	for k, s := range q.accounts {
		known.learn(k, s.last)
	}
	q.known = known
}

// forgetHellos has each hello written again, as what is in the store may be gone.
func (q *queue) forgetHellos() {
	q.mu.Lock()
	defer q.mu.Unlock()
	clear(q.fingerprints)
}

// waiting returns how many clients have logins that are not written.
func (q *queue) waiting() int {
	q.mu.RLock()
	defer q.mu.RUnlock()
	accounts := 0
	for k := range q.accounts {
		if !strings.HasPrefix(k.software, asPattern) { // which is a second row of its client
			accounts++
		}
	}
	return max(len(q.logins), accounts)
}

func (q *queue) gather(b *batch) {
	q.mu.RLock()
	defer q.mu.RUnlock()
	b.logins, b.accounts, b.hellos = maps.Clone(q.logins), maps.Clone(q.accounts), maps.Clone(q.hellos)
	b.refusals = maps.Clone(q.refusals)
}

// acknowledge removes what was written.
func (q *queue) acknowledge(b *batch) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for ja4 := range b.hellos {
		delete(q.hellos, ja4)
	}
	maps.DeleteFunc(q.refusals, func(k refusal, s refused) bool { return b.refusals[k] == s })
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
	for k, list := range q.known.accounts {
		list = slices.DeleteFunc(list, func(a knownAccount) bool { return k.client == client || account(a.name) })
		if q.known.accounts[k] = list; len(list) == 0 {
			delete(q.known.accounts, k)
			q.known.at[k.client] = slices.DeleteFunc(q.known.at[k.client], func(j policy.JA4) bool { return j == k.ja4 })
		}
	}
	maps.DeleteFunc(q.accounts, func(k accountKey, _ span) bool { return k.client == client || account(k.account) })
	maps.DeleteFunc(q.unnamed, func(_ uint64, k accountKey) bool { return k.client == client || account(k.account) })
	maps.DeleteFunc(q.logins, func(k clientKey, _ loginCount) bool { return k.client == client })
	maps.DeleteFunc(q.refusals, func(k refusal, _ refused) bool { return client.IsValid() && k.network == networkNumber(client) })
}
