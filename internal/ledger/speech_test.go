package ledger

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"postern/internal/programs"
	"postern/policy"
	"postern/proxy"
)

const (
	curl   = "imaps A001 CAPABILITY AUTHENTICATE:PLAIN:ir"
	device = "imaps aaa.01 LOGIN:quoted:quoted"
)

// spoken has a store know curl, and not the device.
func spoken(t *testing.T, g *replica) {
	table, err := programs.New("programs.txt", []byte(curl+"\tcurl\nimap A001 CAPABILITY STARTTLS TLS CAPABILITY LOGIN:atom:atom\tcurl\n"))
	if err != nil {
		t.Fatal(err)
	}
	g.store.SetPrograms(table)
}

// speaks is a session, with a login unless the account is empty.
func (g *replica) speaks(h *proxy.Handshake, account, pattern string) {
	outcome(proxy.Observed)(h)
	g.meet(h)
	if account == "" {
		g.Closed(&proxy.Closed{Conn: h.Conn, Pattern: pattern})
		return
	}
	g.Login(&proxy.Login{Conn: h.Conn, Account: account, Pattern: pattern})
	g.Closed(&proxy.Closed{Conn: h.Conn})
}

// TestWhomAClientSpeaksLikeIsKnown with each of its accounts, and by the table of whoever
// reads.
func TestWhomAClientSpeaksLikeIsKnown(t *testing.T) {
	each(t, func(t *testing.T, g *replica) {
		g.restart(func(account string) string { return account })
		spoken(t, g)
		const nat = "192.0.2.7"
		g.speaks(hello(nat), "anna", curl)
		g.speaks(hello(nat), "bert", device)
		g.speaks(hello(nat), "", "imap aaa.01 STARTTLS") // at another listener
		g.flush()
		c := g.only(Filter{})
		if fmt.Sprint(c.SpeaksLike) != "[curl "+device+"]" || len(c.Software) != 0 {
			t.Errorf("it speaks like %q, and has said %q", c.SpeaksLike, c.Software)
		}
		if want := []Identity{{Account: "anna", SpeaksLike: "curl"}, {Account: "bert", SpeaksLike: device}}; !slices.Equal(c.Logins, want) {
			t.Errorf("logins %q, want %q", c.Logins, want)
		}
		table, _ := programs.New("", []byte(device+"\tscanner\n"))
		g.store.SetPrograms(table)
		if c := g.only(Filter{}); fmt.Sprint(c.SpeaksLike) != "[curl scanner]" {
			t.Errorf("by a newer table it speaks like %q", c.SpeaksLike)
		}
		g.only(Filter{Software: "SCAN"})
		g.only(Filter{Software: "curl"}) // of another account, by the built-in table
		for _, name := range []string{"copier", device} {
			if list := g.clients(Filter{Software: name}); len(list) != 0 {
				t.Errorf("%d speak like %s", len(list), name)
			}
		}
		if _, err := g.store.Forget(t.Context(), "bert"); err != nil {
			t.Fatal(err)
		}
		if c := g.only(Filter{}); fmt.Sprint(c.SpeaksLike) != "[curl]" {
			t.Errorf("once bert is forgotten it speaks like %q", c.SpeaksLike)
		}
	})
}

// TestPatternsAreKeptWithoutIdentity: they name nobody.
func TestPatternsAreKeptWithoutIdentity(t *testing.T) {
	each(t, func(t *testing.T, g *replica) {
		g.restart(nil)
		spoken(t, g)
		g.speaks(hello("192.0.2.7"), "anna", curl)
		g.speaks(hello("192.0.2.7"), "", device)
		g.flush()
		c := g.only(Filter{})
		if fmt.Sprint(c.SpeaksLike) != "[curl "+device+"]" || len(c.Accounts) != 0 {
			t.Errorf("it speaks like %q, accounts %q", c.SpeaksLike, c.Accounts)
		}
		g.restart(nil)
		spoken(t, g)
		g.Recorder.refresh(t.Context())
		if n := g.Identify(hello("192.0.2.7")); n.SpeaksLike != "" || n.Accounts != 0 {
			t.Errorf("of two ways to speak one is told: %+v", n)
		}
	})
}

// TestNobodyIsNamedOnceIdentityIsOff, though the ledger has an account from before.
func TestNobodyIsNamedOnceIdentityIsOff(t *testing.T) {
	g := newReplica(t, Memory)
	g.speaks(hello("192.0.2.7"), "anna", curl)
	g.flush()
	for _, tt := range []struct {
		identity func(string) string
		want     int
	}{{func(account string) string { return account }, 1}, {nil, 0}} {
		g.restart(tt.identity)
		g.Recorder.refresh(t.Context())
		if n := g.Identify(hello("192.0.2.7")); n.Accounts != tt.want {
			t.Errorf("%+v, want %d accounts", n, tt.want)
		}
	}
}

// TestWhoSaysItsNameSpeaksForItself.
func TestWhoSaysItsNameSpeaksForItself(t *testing.T) {
	g := newReplica(t, Memory)
	h := hello("192.0.2.7")
	outcome(proxy.Observed)(h)
	g.meet(h)
	g.Login(&proxy.Login{Conn: h.Conn, Account: "anna", Software: "Outlook 14.0", Pattern: curl})
	g.Closed(&proxy.Closed{Conn: h.Conn})
	g.flush()
	c := g.only(Filter{})
	if want := []Identity{{Account: "anna", Software: "Outlook 14.0"}}; !slices.Equal(c.Logins, want) || len(c.SpeaksLike) != 1 {
		t.Errorf("logins %q, speaks like %q", c.Logins, c.SpeaksLike)
	}
}

// TestAPatternIsNoFurtherClientThatWaits to be written.
func TestAPatternIsNoFurtherClientThatWaits(t *testing.T) {
	g := newReplica(t, Memory)
	g.speaks(hello("192.0.2.7"), "anna", curl)
	g.speaks(hello("192.0.2.7"), "anna", device)
	if n := g.Backlog().Clients; n != 1 {
		t.Errorf("%d clients wait, want 1", n)
	}
}

// TestOneThatIsRefusedIsNamedByWhatItSaidBefore: at a refusal after STARTTLS there is less
// to go by, which fits more programs.
func TestOneThatIsRefusedIsNamedByWhatItSaidBefore(t *testing.T) {
	const refused, accepted = "imap A001 CAPABILITY STARTTLS", "imap A001 CAPABILITY STARTTLS TLS CAPABILITY LOGIN:atom:atom"
	for _, account := range []string{"anna", ""} {
		g := newReplica(t, Memory)
		table, _ := programs.New("", []byte(accepted+"\tcurl\n"+refused+" TLS LOGIN:quoted:quoted\tscanner\n"))
		g.store.SetPrograms(table)
		imap := func(o proxy.Outcome) *proxy.Handshake {
			h := hello("192.0.2.7", outcome(o), listener(proxy.IMAP, 143))
			h.Pattern = refused
			return h
		}
		refuse := func(want string) {
			t.Helper()
			h := imap(proxy.Rejected)
			g.meet(h)
			if n := g.Identify(h); n.SpeaksLike != want {
				t.Errorf("in the log it speaks like %q, want %q", n.SpeaksLike, want)
			}
			g.Closed(&proxy.Closed{Conn: h.Conn, Pattern: refused})
			g.flush()
		}
		refuse("curl, scanner")
		g.speaks(imap(proxy.Observed), account, accepted)
		refuse("curl")
		if c := g.only(Filter{Noise: true}); fmt.Sprint(c.SpeaksLike) != "[curl]" {
			t.Errorf("it speaks like %q", c.SpeaksLike)
		}
		for _, l := range g.only(Filter{Noise: true}).Logins {
			if want := (Identity{Account: account, SpeaksLike: "curl"}); l != want {
				t.Errorf("a login %q, want %q", l, want)
			}
		}
		g.speaks(imap(proxy.Observed), account, refused+" TLS LOGIN:quoted:quoted")
		refuse("curl, scanner") // of two programs it may be either
	}
}

// TestOneThatBreaksOffIsNamedByWhatItSaidAnotherTime: the beginning of what it says fits
// many programs, refused or not.
func TestOneThatBreaksOffIsNamedByWhatItSaidAnotherTime(t *testing.T) {
	each(t, breaksOff)
}

func breaksOff(t *testing.T, g *replica) {
	const all = "pop3 CAPA STLS TLS CAPA AUTH:PLAIN:ir"
	pop3 := func(o proxy.Outcome) *proxy.Handshake {
		return hello("192.0.2.7", outcome(o), listener(proxy.POP3, 110))
	}
	g.speaks(pop3(proxy.Observed), "anna", all)
	g.speaks(pop3(proxy.Observed), "", "pop3 CAPA STLS TLS CAPA")
	h := pop3(proxy.Rejected)
	h.Pattern = "pop3 CAPA STLS"
	g.meet(h)
	if n := g.Identify(h); n.SpeaksLike != programs.Builtin.SpeaksLike(all) {
		t.Errorf("in the log it speaks like %q", n.SpeaksLike)
	}
	g.Closed(&proxy.Closed{Conn: h.Conn, Pattern: "pop3 CAPA STLS"})
	g.flush()
	c := g.only(Filter{})
	if want := programs.Builtin.SpeaksLike(all); len(c.SpeaksLike) != 1 || c.SpeaksLike[0] != want || len(c.Logins) != 1 || c.Logins[0].SpeaksLike != want {
		t.Errorf("it speaks like %q, logins %q, want %q", c.SpeaksLike, c.Logins, want)
	}
	g.only(Filter{Software: "imtest"})
	for _, f := range []Filter{{Software: "fetchmail"}, {Software: "imtest", Listener: proxy.IMAPS}} {
		if list := g.clients(f); len(list) != 0 {
			t.Errorf("%+v finds %q", f, list[0].SpeaksLike)
		}
	}
}

// TestAClientThatSpeaksInManyWaysFillsNoLedger.
func TestAClientThatSpeaksInManyWaysFillsNoLedger(t *testing.T) {
	g := newReplica(t, Memory)
	for i := range 500 {
		g.speaks(hello("192.0.2.7"), "", "imaps"+strings.Repeat(" NOOP", i%30+1)+strings.Repeat(" ID", i/30)+" LOGOUT")
		g.later(time.Minute)
	}
	g.flush()
	if c := g.only(Filter{Noise: true}); len(c.SpeaksLike) != maxPrograms {
		t.Errorf("%d ways are kept, want %d", len(c.SpeaksLike), maxPrograms)
	}
}

// TestStrangersTakeNoRoomOfThoseWhoLogIn: their patterns are bounded, in memory and in the
// ledger, and an account is known all the same.
func TestStrangersTakeNoRoomOfThoseWhoLogIn(t *testing.T) {
	var q queue
	q.init()
	at := func(i int) clientKey {
		return clientKey{client: netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})}
	}
	for i := range maxStrange {
		q.known.learn(accountKey{at(i), "", asPattern + device}, 1)
	}
	if q.addPattern(accountKey{at(maxStrange), "", asPattern + device}, 1); len(q.accounts) != 0 {
		t.Errorf("a stranger's pattern is one too many, and to be written")
	}
	if q.addPattern(accountKey{at(0), "", asPattern + curl}, 1); len(q.accounts) != 0 {
		t.Errorf("one more of a stranger that is known is to be written")
	}
	q.addPattern(accountKey{at(maxStrange), "anna", asPattern + device}, 1)
	if n := q.identify(at(maxStrange), "imaps", "", 0, programs.Builtin); n.Account != "anna" || n.SpeaksLike != device {
		t.Errorf("who logs in is %+v", n)
	}
}

// TestAnAccountIsInferred at a listener where its program has another fingerprint.
func TestAnAccountIsInferred(t *testing.T) {
	as := func(ja4 string, h *proxy.Handshake) *proxy.Handshake {
		h.JA4 = policy.JA4([]byte(ja4))
		return h
	}
	const (
		withALPN = "t10d0409ip_aaaaaaaaaaaa_bbbbbbbbbbbb"
		without  = "t10d040800_aaaaaaaaaaaa_bbbbbbbbbbbb"
		noSNI    = "t10i040700_aaaaaaaaaaaa_bbbbbbbbbbbb"
		other    = "t10i040700_cccccccccccc_bbbbbbbbbbbb"
	)
	for _, tt := range []struct {
		name       string
		known      []string // accounts, each with its fingerprint and pattern
		asks, says string
		want       Known
	}{
		{"without ALPN", []string{"anna", withALPN, device}, without, "", Known{Accounts: 1, Account: "anna", Inferred: true}},
		{"without ALPN and SNI", []string{"anna", withALPN, device}, noSNI, "", Known{Accounts: 1, Account: "anna", Inferred: true}},
		{"with the same fingerprint", []string{"anna", without, device}, without, "", Known{Accounts: 1, Account: "anna"}},
		{"another library", []string{"anna", withALPN, device}, other, "", Known{}},
		{"another library, the same program", []string{"anna", withALPN, curl}, other, "imap A001 CAPABILITY STARTTLS", Known{Accounts: 1, Account: "anna", Inferred: true, SpeaksLike: "curl"}},
		{"another library, another program", []string{"anna", withALPN, curl}, other, "imap aaa.01 STARTTLS", Known{SpeaksLike: "imap aaa.01 STARTTLS"}},
		{"another library, the same pattern so far", []string{"anna", withALPN, "imap aaa.07 STARTTLS TLS LOGIN:atom:atom"}, other, "imap aaa.07 STARTTLS", Known{Accounts: 1, Account: "anna", Inferred: true, SpeaksLike: "imap aaa.07 STARTTLS"}},
		{"another account", []string{"anna", withALPN, device, "bert", other, device}, noSNI, "", Known{Accounts: 2, Inferred: true}},
		{"nobody who has logged in", []string{"", withALPN, device}, noSNI, "", Known{}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			g := newReplica(t, Memory)
			spoken(t, g)
			for k := tt.known; len(k) > 0; k = k[3:] {
				g.speaks(as(k[1], hello("192.0.2.7")), k[0], k[2])
			}
			h := as(tt.asks, hello("192.0.2.7", outcome(proxy.Rejected), listener(proxy.IMAP, 143)))
			h.Pattern = tt.says
			g.meet(h)
			if got := g.Identify(h); got != tt.want {
				t.Errorf("%+v, want %+v", got, tt.want)
			}
			h = as(tt.asks, hello("192.0.2.8", outcome(proxy.Rejected)))
			if got := g.Identify(h); got.Accounts != 0 {
				t.Errorf("at another address %+v", got)
			}
		})
	}
}
