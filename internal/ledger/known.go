package ledger

import (
	"cmp"
	"slices"
	"strings"

	"postern/internal/programs"
	"postern/internal/text"
	"postern/policy"
)

// Known is what is known of a legacy client.
type Known struct {
	// Accounts is how many have logged in from its address with its fingerprint within
	// 30 days. Account is the only one; Software is its program, if that was always the
	// same, and said with every login over IMAP.
	Accounts          int
	Account, Software string
	// Inferred: none has, but Accounts have from the address. Account is the only one,
	// with the same library or a program that speaks alike.
	Inferred bool
	// SpeaksLike and Library are as in Client. Where its sessions have gone on in one way
	// only from what it has said so far, SpeaksLike is by that.
	SpeaksLike, Library string
}

// identify returns what is known of a client that has spoken in a pattern so far, or not
// at all.
func (q *queue) identify(k clientKey, listener, pattern string, since int64, t *programs.Table) Known {
	q.mu.RLock()
	defer q.mu.RUnlock()
	n := Known{Library: t.Library(k.ja4), SpeaksLike: t.SpeaksLike(pattern)}
	said, speaks := make([]string, 0, maxAccounts), make([]string, 0, maxAccounts) // on the stack
	mixed := false
	for _, a := range q.known.accounts[k] {
		mixed = mixed || a.noID
		if a.last < since {
			continue
		}
		if a.name != "" {
			n.Accounts++
			n.Account = a.name
		}
		for _, p := range a.programs {
			spoken, is := strings.CutPrefix(p.name, asPattern)
			switch {
			case !is:
				said = appendNew(said, p.name)
			case strings.HasPrefix(spoken, cmp.Or(pattern, listener)+" ") && (a.name != "" || !goneOn(q.known.accounts[k], p.name)):
				speaks = appendNew(speaks, t.SpeaksLike(spoken))
			}
		}
	}
	if len(speaks) == 1 {
		n.SpeaksLike = speaks[0]
	}
	if n.Accounts == 1 && len(said) == 1 && !mixed {
		n.Software = said[0]
	}
	if n.Accounts == 0 {
		q.infer(&n, k, pattern, since, t)
	}
	if n.Accounts != 1 {
		n.Account = ""
	}
	return n
}

// goneOn reports that one of some accounts has said more than a pattern another time: see
// Client.addLogins.
func goneOn(accounts []knownAccount, pattern string) bool {
	longer := func(p knownProgram) bool {
		return strings.HasPrefix(p.name, pattern) && strings.HasPrefix(p.name[len(pattern):], " ")
	}
	return slices.ContainsFunc(accounts, func(a knownAccount) bool { return slices.ContainsFunc(a.programs, longer) })
}

// infer finds the accounts of an address where one of them agrees with a client: one
// program may have several fingerprints.
func (q *queue) infer(n *Known, k clientKey, pattern string, since int64, t *programs.Table) {
	accounts, agrees := make([]string, 0, maxAccounts), false
	library := programs.Stable(k.ja4)
	for _, ja4 := range q.known.at[k.client] {
		for _, a := range q.known.accounts[clientKey{k.client, ja4}] {
			if a.name == "" || a.last < since {
				continue
			}
			accounts = appendNew(accounts, a.name)
			agrees = agrees || library == programs.Stable(ja4) && ja4 != (policy.JA4{}) ||
				slices.ContainsFunc(a.programs, func(p knownProgram) bool { return t.Alike(strings.TrimPrefix(p.name, asPattern), pattern) })
		}
	}
	if agrees {
		n.Accounts, n.Account, n.Inferred = len(accounts), accounts[0], true
	}
}

// speaksLike returns what adds to a condition the sightings s that speak in one of some
// patterns at their listener, with its arguments. As in Client.addLogins, one that another
// pattern of the client goes on from says nothing.
func speaksLike(patterns []string) (condition string, args []any) {
	if len(patterns) == 0 {
		return "", nil
	}
	return ` OR s.id IN (SELECT t.id FROM accounts a CROSS JOIN sightings t WHERE a.folded = '' AND t.owner = a.owner
		AND a.software IN (` + strings.Repeat(", $%d", len(patterns))[2:] + `) AND substr(a.software, 2, length(t.listener) + 1) = t.listener || ' '
		AND (a.account <> '' OR NOT EXISTS (SELECT 1 FROM accounts b
			WHERE b.owner = a.owner AND substr(b.software, 1, length(a.software) + 1) = a.software || ' ')))`, text.Each(patterns, func(p string) any { return storable(asPattern + p) })
}
