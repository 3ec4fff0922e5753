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

	direct := w.directIMAP(t)
	direct.login(t, w)
	sameMessages(t, "direct IMAP", hashAll(direct.fetchAll(t)), want)
	directPOP := w.directPOP3(t)
	directPOP.login(t, w)
	uids := directPOP.list(t, "UIDL")
	wires, texts := directPOP.fetchAll(t)
	sameMessages(t, "direct POP3", texts, want)

	for _, listener := range []string{"imaps", "imap"} {
		c := w.imap(t, listener)
		c.login(t, w)
		sameMessages(t, listener, hashAll(c.fetchAll(t)), want)
		c.ok(t, "LOGOUT")
	}
	for _, listener := range []string{"pop3s", "pop3"} {
		c := w.pop3(t, listener)
		c.login(t, w)
		if got := c.list(t, "UIDL"); !slices.Equal(got, uids) {
			t.Errorf("%s: UIDL differs from Dovecot's own", listener)
		}
		gotWires, gotTexts := c.fetchAll(t)
		sameMessages(t, listener+" on the wire", gotWires, wires)
		sameMessages(t, listener, gotTexts, want)
		c.ok(t, "QUIT")
	}
	w.CheckIdentities(t, 4)
}
