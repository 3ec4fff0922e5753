package ledger

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"postern/internal/text"
	"postern/proxy"
)

func (g *replica) wantNamed(h *proxy.Handshake, want string) {
	g.t.Helper()
	n, account, software := g.asks(h)
	if got := fmt.Sprintf("%d %s/%s", n, account, software); got != want {
		g.t.Errorf("%v is told as %q, want %q", h.Client.Addr(), got, want)
	}
}

func TestARefusedClientIsNamed(t *testing.T) {
	each(t, func(t *testing.T, g *replica) {
		g.wantNamed(hello("192.0.2.7"), "0 /")
		g.session(hello("192.0.2.7"), "Anna@Example.ORG", "Outlook 14.0")
		g.session(hello("192.0.2.8"), "bert@example.org", "")
		named := func() {
			t.Helper()
			g.wantNamed(hello("192.0.2.7"), "1 anna@example.org/Outlook 14.0")
			g.wantNamed(hello("192.0.2.8"), "1 bert@example.org/")
			g.wantNamed(hello("192.0.2.7", program(9)), "0 /") // another program there
			g.wantNamed(hello("192.0.2.9"), "0 /")
			c := g.clients(Filter{Account: "anna@example.org"})
			if len(c) != 1 || !slices.Equal(c[0].Accounts, []string{"anna@example.org"}) || !slices.Equal(c[0].Software, []string{"Outlook 14.0"}) {
				t.Errorf("%+v", c)
			}
		}
		named()
		g.restart(plainIdentity)
		named()
		g.later(30 * 24 * time.Hour)
		named()
		g.later(time.Second)
		g.wantNamed(hello("192.0.2.7"), "0 /")
		g.restart(plainIdentity)
		g.wantNamed(hello("192.0.2.7"), "0 /")
	})
}

func TestOneOfSeveralAccountsIsNotNamed(t *testing.T) {
	each(t, func(t *testing.T, g *replica) {
		for i := range 12 {
			// As many names of its program as there may be push nobody out.
			g.session(hello("192.0.2.7"), "anna", fmt.Sprintf("Mail %d", i))
		}
		g.wantNamed(hello("192.0.2.7"), "1 anna/")
		g.later(time.Hour)
		g.session(hello("192.0.2.7"), "bert", "Mail")
		for i := range 12 {
			g.session(hello("192.0.2.7"), "bert", fmt.Sprintf("Mail %d", i))
		}
		g.wantNamed(hello("192.0.2.7"), "2 /")
		g.restart(plainIdentity)
		g.wantNamed(hello("192.0.2.7"), "2 /")
		if c := g.only(Filter{}); !slices.Equal(c.Accounts, []string{"anna", "bert"}) || len(c.Software) > 2*maxPrograms {
			t.Errorf("%+v", c)
		}
		// What is left of two after thirty days is one.
		g.later(30*24*time.Hour - time.Minute)
		g.wantNamed(hello("192.0.2.7"), "1 bert/")
		for i := range 20 {
			g.session(hello("192.0.2.7"), fmt.Sprintf("u%d", i), "")
		}
		if n, account, _ := g.asks(hello("192.0.2.7")); n < 2 || account != "" {
			t.Errorf("%d, %q", n, account)
		}
	})
}

func TestSoftwareThatIsSaidAfterTheLogin(t *testing.T) {
	g := newReplica(t, Memory)
	h := hello("192.0.2.7", outcome(proxy.Observed))
	g.meet(h)
	g.Login(&proxy.Login{Conn: h.Conn, Account: "anna"})
	g.Software(&proxy.Software{Conn: h.Conn, Account: "anna", Software: "Thunderbird"})
	g.Closed(&proxy.Closed{Conn: h.Conn})
	g.wantNamed(hello("192.0.2.7"), "1 anna/Thunderbird")
	if c := g.only(Filter{}); !slices.Equal(c.Software, []string{"Thunderbird"}) || !slices.Equal(c.Accounts, []string{"anna"}) {
		t.Errorf("%+v", c)
	}
}

// TestAProgramDoesNotGetTheNameOfAnother: programs of one library share a
// fingerprint.
func TestAProgramDoesNotGetTheNameOfAnother(t *testing.T) {
	each(t, func(t *testing.T, g *replica) {
		pop := listener(proxy.POP3S, 995)
		g.session(hello("192.0.2.7"), "anna", "OfflineIMAP 8.0.0")
		g.session(hello("192.0.2.7", pop), "anna", "")
		g.wantNamed(hello("192.0.2.7"), "1 anna/OfflineIMAP 8.0.0")
		software := func(want string) {
			t.Helper()
			for _, c := range g.clients(Filter{}) {
				if got := fmt.Sprintf("%s%v%v", c.Listener, c.Accounts, c.Software); got != "pop3s[anna][]" && got != want {
					t.Errorf("%s, want %s", got, want)
				}
			}
			by := len(g.clients(Filter{Software: "offline"}))
			if by == 1 != strings.Contains(want, "Offline") {
				t.Errorf("%d are found by the program", by)
			}
		}
		software("imaps[anna][OfflineIMAP 8.0.0]")
		g.session(hello("192.0.2.7"), "anna", "") // s-nail
		for range 2 {
			g.wantNamed(hello("192.0.2.7"), "1 anna/")
			software("imaps[anna][]")
			g.restart(plainIdentity)
			g.session(hello("192.0.2.7"), "anna", "OfflineIMAP 8.0.0")
		}
	})
}

func TestWithoutIdentityNobodyIsNamed(t *testing.T) {
	each(t, func(t *testing.T, g *replica) {
		g.session(hello("192.0.2.7"), "anna", "Outlook")
		g.restart(nil)
		g.wantNamed(hello("192.0.2.7"), "0 /") // nor from before
		h := hello("192.0.2.8")
		g.session(h, "bert", "Outlook")
		g.Software(&proxy.Software{Conn: h.Conn, Account: "bert", Software: "Outlook"})
		g.wantNamed(hello("192.0.2.8"), "0 /")
		for _, c := range g.clients(Filter{}) {
			if c.Addr.String() == "192.0.2.8" && (len(c.Accounts)+len(c.Software) > 0 || c.Login != LoginOK) {
				t.Errorf("%+v", c)
			}
		}
	})
}

func TestAHashIsKeptInPlaceOfTheAccount(t *testing.T) {
	each(t, func(t *testing.T, g *replica) {
		var hashed []string
		g.restart(func(account string) string {
			hashed = append(hashed, account)
			return "h:AbC@example.org"
		})
		g.session(hello("192.0.2.7"), "Anna@Example.org", "")
		if !slices.Equal(hashed, []string{"anna@example.org"}) {
			t.Errorf("to be hashed: %q", hashed)
		}
		g.wantNamed(hello("192.0.2.7"), "1 h:AbC@example.org/")
		g.only(Filter{Account: "h:AbC@example.org"})
		if n, err := g.store.Forget(t.Context(), "h:AbC@example.org"); n != 1 || err != nil {
			t.Errorf("%d, %v", n, err)
		}
	})
}

func TestAnotherReplicaLearnsNamesWithinAMinute(t *testing.T) {
	for _, kind := range []string{"sqlite", "postgres"} {
		t.Run(kind, func(t *testing.T) {
			g := newReplica(t, newURL(t, kind))
			other := g.another()
			g.session(hello("192.0.2.7"), "anna", "")
			g.session(hello("192.0.2.8"), "bert", "")
			g.flush()
			other.session(hello("192.0.2.9"), "carl", "") // not written yet
			other.later(loadEvery)
			other.refresh(t.Context())
			other.wantNamed(hello("192.0.2.7"), "1 anna/")
			other.wantNamed(hello("192.0.2.8"), "1 bert/")
			other.wantNamed(hello("192.0.2.9"), "1 carl/")
			if _, err := g.store.Forget(t.Context(), "Anna"); err != nil {
				t.Fatal(err)
			}
			other.later(loadEvery)
			other.refresh(t.Context())
			other.wantNamed(hello("192.0.2.7"), "0 /")
			other.wantNamed(hello("192.0.2.8"), "1 bert/")
		})
	}
}

func TestAForgottenAccountIsGoneEverywhere(t *testing.T) {
	each(t, func(t *testing.T, g *replica) {
		g.session(hello("192.0.2.7"), "anna", "")
		g.session(hello("192.0.2.8"), "bert", "")
		g.flush()
		g.session(hello("192.0.2.9"), "anna", "") // not written yet
		if n, err := g.store.Forget(t.Context(), "ANNA"); n != 1 || err != nil {
			t.Errorf("%d rows, %v", n, err)
		}
		for range 2 {
			g.wantNamed(hello("192.0.2.7"), "0 /")
			g.wantNamed(hello("192.0.2.8"), "1 bert/")
			g.wantNamed(hello("192.0.2.9"), "0 /")
			if list := g.clients(Filter{Account: "anna"}); len(list) != 0 {
				t.Errorf("%+v", list)
			}
			if list := g.clients(Filter{}); len(list) != 3 { // they are clients still
				t.Errorf("%+v", list)
			}
			g.restart(plainIdentity)
		}
	})
}

func TestAForgottenAddressIsGoneEverywhere(t *testing.T) {
	each(t, func(t *testing.T, g *replica) {
		for _, client := range []string{"192.0.2.7", "2001:db8::7", "192.0.2.8"} {
			g.session(hello(client), "anna", "")
			g.flush()
			g.session(hello(client), "anna", "") // not written yet
		}
		for _, client := range []string{"::ffff:192.0.2.7", "2001:DB8:0::7"} {
			if n, err := g.store.Forget(t.Context(), client); n != 3 || err != nil {
				t.Errorf("%s: %d rows, %v", client, n, err)
			}
		}
		if c := g.only(Filter{Noise: true}); c.Addr.String() != "192.0.2.8" || c.Counts.Observed != 2 {
			t.Errorf("%+v", c)
		}
		g.wantNamed(hello("192.0.2.8"), "1 anna/")
		g.wantNamed(hello("192.0.2.7"), "0 /")
		days := g.days(noon)
		if len(days) != 1 || days[0].Clients != 1 || days[0].Counts.Observed != 2 {
			t.Errorf("%+v", days)
		}
		g.flush()
		if n := g.pending.Load(); n != 0 {
			t.Errorf("%d are pending after all is written", n)
		}
		// One that comes again is a new client, known to nobody.
		for _, c := range g.clients(Filter{}) {
			if c.Addr.String() == "192.0.2.7" && (c.Counts != Counts{Rejected: 1} || len(c.Accounts) > 0 || c.Login != LoginUnknown) {
				t.Errorf("%+v", c)
			}
		}
	})
}

// forged is text that does harm where it is taken for more than text.
var forged = []string{
	"<script>alert(1)</script>", "a\r\nb: c", "\x1b[2J\x1b]0;gone\x07", "abc\u202edef\u2066x", "=cmd|' /C calc'!A0", "@SUM(1)", "'; DROP TABLE sightings; --",
	strings.Repeat("a", 64<<10), strings.Repeat("ä\u0301", 32<<10), strings.Repeat(" ", 64<<10) + "x", "\xff\xfe\x80", "nul\x00nul", "\x00", "\u2028\u2029\ufeff\u200b",
	"a\tb", "%s%n$1?", `\`, `"`, "ＡＤＭＩＮ", "",
}

func TestForgedTextDoesNoHarm(t *testing.T) {
	each(t, func(t *testing.T, g *replica) {
		for i, text := range forged {
			h := hello(fmt.Sprintf("192.0.2.%d", i), serverName(text), func(h *proxy.Handshake) { h.Hello.ALPN = []string{text} })
			g.session(h, text, text)
			g.Software(&proxy.Software{Conn: h.Conn, Account: text, Software: text})
			g.flush() // each alone, so that none can hide behind another's error
			if list := g.clients(Filter{Account: text, Software: text, Listener: proxy.Listener(text), Noise: true}); text != "" && len(list) != 0 {
				t.Errorf("%.40q as a listener: %+v", text, list)
			}
			if _, err := g.store.Forget(t.Context(), text+"@nobody"); err != nil {
				t.Errorf("forgetting %.40q: %v", text, err)
			}
		}
		list := g.clients(Filter{})
		if len(list) != len(forged) {
			t.Errorf("%d clients, want %d", len(list), len(forged))
		}
		harmless := func(what, s string, n int) {
			t.Helper()
			if len(s) > n || text.Clean(s, n) != s {
				t.Errorf("%s: %.60q", what, s)
			}
		}
		for _, c := range list {
			if hostName(c.Endpoint.Name) != c.Endpoint.Name {
				t.Errorf("name: %.60q", c.Endpoint.Name)
			}
			harmless("ja4", c.JA4, 36)
			for _, a := range c.Accounts {
				harmless("account", a, maxAccount)
			}
			for _, s := range c.Software {
				harmless("software", s, maxSoftware)
			}
		}
	})
}
