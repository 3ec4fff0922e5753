package mail

import (
	"slices"
	"testing"
)

// Over POP3 the wire itself is compared too: a relay that stuffed a dot twice
// and a client that forgave it would both go unseen otherwise.
func TestMailboxArrivesIdenticalToDirectAccess(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "enforce", wholeMailbox()...)
	want := hashAll(wholeMailbox())

	direct := w.direct(t, "imap")
	w.login(t, direct)
	sameMessages(t, "direct IMAP", hashAll(fetchAll(t, direct)), want)
	directPOP := w.direct(t, "pop3")
	w.login(t, directPOP)
	uids := list(t, directPOP, "UIDL")
	wires, texts := retrieveAll(t, directPOP)
	sameMessages(t, "direct POP3", texts, want)

	for _, listener := range []string{"imaps", "imap"} {
		c := w.open(t, listener)
		w.login(t, c)
		sameMessages(t, listener, hashAll(fetchAll(t, c)), want)
		c.Must(t, "LOGOUT")
	}
	for _, listener := range []string{"pop3s", "pop3"} {
		c := w.open(t, listener)
		w.login(t, c)
		if got := list(t, c, "UIDL"); !slices.Equal(got, uids) {
			t.Errorf("%s: UIDL differs from Dovecot's own", listener)
		}
		gotWires, gotTexts := retrieveAll(t, c)
		sameMessages(t, listener+" on the wire", gotWires, wires)
		sameMessages(t, listener, gotTexts, want)
		c.Must(t, "QUIT")
	}
	w.CheckIdentities(t, 4)
}
