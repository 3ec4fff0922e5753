package ledger

import (
	"slices"
	"strings"

	"postern/internal/programs"
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
	// SpeaksLike and Library are as in Client; the former is empty where there are several.
	SpeaksLike, Library string
}

// identify returns what is known of a client that has spoken in a pattern so far, or not
// at all.
func (q *queue) identify(k clientKey, listener, pattern string, since int64, t *programs.Table) Known {
	q.mu.RLock()
	defer q.mu.RUnlock()
	n := Known{Library: t.Library(k.ja4), SpeaksLike: t.SpeaksLike(pattern)}
	mixed, alike := false, true
	for _, a := range q.known.accounts[k] {
		mixed = mixed || a.noID
		if a.last < since {
			continue
		}
		for _, p := range a.patterns {
			if pattern == "" && ofListener(p, listener) {
				name := t.SpeaksLike(p)
				alike = alike && (n.SpeaksLike == "" || n.SpeaksLike == name)
				n.SpeaksLike = name
			}
		}
		if a.name != "" {
			n.Accounts++
			n.Account, n.Software = a.name, strings.Join(a.programs, "\n")
		}
	}
	if !alike {
		n.SpeaksLike = ""
	}
	if n.Accounts == 0 {
		q.infer(&n, k, pattern, since, t)
	}
	if n.Accounts != 1 {
		n.Account = ""
	}
	if n.Accounts != 1 || mixed || strings.Contains(n.Software, "\n") {
		n.Software = ""
	}
	return n
}

// ofListener reports whether a pattern is of sessions at a listener.
func ofListener(pattern, listener string) bool {
	rest, is := strings.CutPrefix(pattern, listener)
	return is && strings.HasPrefix(rest, " ")
}

// infer finds the accounts of an address where one of them agrees with a client: one
// program may have several fingerprints.
func (q *queue) infer(n *Known, k clientKey, pattern string, since int64, t *programs.Table) {
	var accounts []string
	agrees := false
	library := programs.Stable(k.ja4)
	for _, ja4 := range q.known.at[k.client] {
		for _, a := range q.known.accounts[clientKey{k.client, ja4}] {
			if a.name == "" || a.last < since {
				continue
			}
			accounts = appendNew(accounts, a.name)
			agrees = agrees || library == programs.Stable(ja4) && ja4 != (policy.JA4{}) ||
				slices.ContainsFunc(a.patterns, func(p string) bool { return t.Alike(p, pattern) })
		}
	}
	if agrees {
		n.Accounts, n.Account, n.Inferred = len(accounts), accounts[0], true
	}
}
