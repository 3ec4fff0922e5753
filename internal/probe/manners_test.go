package probe

import (
	"bufio"
	"crypto/tls"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"postern/internal/hello"
	"postern/internal/legacyhello"
	"postern/internal/posterntest"
	"postern/internal/text"
	"postern/policy"
)

// TestTheHellosAreWhatTheySay reads each with the parser of the proxy.
func TestTheHellosAreWhatTheySay(t *testing.T) {
	kinds := map[string]string{
		"rsa": "TLS_RSA_WITH_", "dhe": "TLS_DHE_", "3des": "_3DES_", "rc4": "_RC4_", "cbc": "_CBC_",
	}
	for _, of := range offers() {
		b := hello.ClientHello(of.spec)
		if of.version == policy.SSL2 {
			if h, ok := legacyhello.ParseSSLv2(b); !ok || h.Versions[0] != hello.VersionSSL20 || len(h.CipherSuites) > 0 {
				t.Errorf("%s: %+v", of.Offer, h)
			}
			continue
		}
		h, ok := legacyhello.Parse(b)
		if !ok || of.version != policy.NoVersion && h.Version() != of.version {
			t.Errorf("%s: %+v", of.Offer, h)
		}
		names := h.CipherSuiteNames()
		if kind := kinds[of.Offer]; kind != "" && slices.ContainsFunc(names, func(n string) bool { return !strings.Contains(n, kind) }) {
			t.Errorf("%s offers %v", of.Offer, names)
		}
		switch groups, signatures := h.GroupNames(), h.SignatureNames(); of.Offer {
		case hybrid:
			if len(groups) != 3 || slices.ContainsFunc(groups, func(n string) bool { return !strings.Contains(n, "MLKEM") }) {
				t.Errorf("%s: %v", of.Offer, groups)
			}
		case "sha1":
			if len(signatures) != 2 || slices.ContainsFunc(signatures, func(n string) bool { return !strings.HasSuffix(n, "_sha1") }) {
				t.Errorf("%s: %v", of.Offer, signatures)
			}
		case "no-signatures":
			if len(signatures) > 0 {
				t.Errorf("%s: %v", of.Offer, signatures)
			}
		}
	}
}

// TestNamesAreSentButInOneOffer has a server that keeps the names it is asked for.
func TestNamesAreSentButInOneOffer(t *testing.T) {
	var mu sync.Mutex
	var names []string
	config := &tls.Config{Certificates: []tls.Certificate{pair(t, posterntest.NewCA(t), posterntest.ECDSA)}}
	config.GetConfigForClient = func(info *tls.ClientHelloInfo) (*tls.Config, error) {
		mu.Lock()
		defer mu.Unlock()
		names = append(names, info.ServerName)
		return nil, nil
	}
	addr := serve(t, config, "* OK ready\r\n")
	l := ask(t, addr, "mail.example.org", Options{})
	mu.Lock()
	defer mu.Unlock()
	nameless := 0
	for _, n := range names {
		if n == "" {
			nameless++
		}
	}
	if nameless != 2 || len(l.Results) != len(offers()) { // SSL 3.0 has no extensions
		t.Errorf("%d of %q are without a name, of %d offers", nameless, names, len(l.Results))
	}
}

// TestAServerThatDoesNotHeedTheSignalOfAFallbackIsNamed plays one that takes every version
// up to TLS 1.2, whatever else a hello says.
func TestAServerThatDoesNotHeedTheSignalOfAFallbackIsNamed(t *testing.T) {
	addr := posterntest.StartRawUpstream(t, func(c net.Conn) {
		b := make([]byte, 1<<14)
		if n, _ := c.Read(b); n < 11 || b[0] != hello.RecordHandshake {
			return
		}
		answer := "\x02\x00\x00\x26\x03" + string(b[10]) + strings.Repeat("r", 32) + "\x00\xc0\x2f\x00" + "\x0e\x00\x00\x00"
		io.WriteString(c, "\x16\x03\x03\x00"+string(rune(len(answer)))+answer)
		c.Read(b)
	}).Addr()
	want := "does not heed the signal of a fallback to an older version (TLS 1.1)"
	if l := ask(t, addr, "", Options{}); !strings.Contains(l.Summary, want) || l.Floor != "none" {
		t.Errorf("%q, %q, want %q", l.Summary, l.Floor, want)
	}
}

// TestItGivesItsNameAndTakesItsLeave has servers that keep what they are told.
func TestItGivesItsNameAndTakesItsLeave(t *testing.T) {
	config := &tls.Config{Certificates: []tls.Certificate{pair(t, posterntest.NewCA(t), posterntest.ECDSA)}}
	for startTLS, want := range map[string][]string{
		"":     {`postern ID ("name" "postern probe")`, "postern LOGOUT"},
		"imap": {"postern CAPABILITY", `postern ID ("name" "postern probe")`, "postern LOGOUT"},
		"pop3": {"CAPA", "QUIT"},
	} {
		var mu sync.Mutex
		said := make(map[string]bool)
		u := posterntest.StartRawUpstream(t, func(c net.Conn) {
			pop3 := startTLS == "pop3"
			if startTLS == "" {
				c = tls.Server(c, config)
			}
			io.WriteString(c, text.Either(pop3, "+OK ready\r\n", "* OK ready\r\n"))
			for lines := bufio.NewScanner(c); lines.Scan(); {
				line := lines.Text()
				mu.Lock()
				said[line] = true
				mu.Unlock()
				io.WriteString(c, text.Either(pop3, "+OK\r\n", "* CAPABILITY STARTTLS\r\npostern OK\r\n"))
				if line == "CAPA" {
					io.WriteString(c, "STLS\r\n.\r\n")
				}
				if line == "postern STARTTLS" || line == "STLS" {
					c = tls.Server(c, config)
					lines = bufio.NewScanner(c)
				}
			}
		})
		l := ask(t, u.Addr(), "", Options{StartTLS: startTLS})
		mu.Lock()
		for _, command := range want {
			if !said[command] {
				t.Errorf("%q: never said %s but %v: %s", startTLS, command, said, l.Summary)
			}
		}
		mu.Unlock()
	}
}

func TestLoginBeforeTLSIsSeen(t *testing.T) {
	for startTLS, replies := range map[string]map[string]bool{
		"imap": {
			"* CAPABILITY STARTTLS LOGINDISABLED\r\npostern OK\r\n": false, "* CAPABILITY STARTTLS\r\npostern OK\r\n": true,
			"* CAPABILITY STARTTLS LOGINDISABLED AUTH=PLAIN\r\npostern OK\r\n": true,
		},
		"pop3": {"+OK\r\nSTLS\r\n.\r\n": false, "+OK\r\nSTLS\r\nUSER\r\n.\r\n": true, "+OK\r\nSTLS\r\nSASL PLAIN\r\n.\r\n": true},
	} {
		for reply, want := range replies {
			u := posterntest.StartRawUpstream(t, func(c net.Conn) {
				io.WriteString(c, text.Either(startTLS == "imap", "* OK ready\r\n", "+OK ready\r\n")+reply)
				for lines := bufio.NewScanner(c); lines.Scan() && !strings.HasSuffix(lines.Text(), text.Either(startTLS == "imap", "STARTTLS", "STLS")); {
				}
			})
			l := ask(t, u.Addr(), "", Options{StartTLS: startTLS})
			if l.Login == nil || *l.Login != want {
				t.Errorf("%q: login %v, want %v: %s", reply, l.Login, want, l.Summary)
			}
		}
	}
}

// TestEveryAddressOfANameStandsApart goes by this host's own name for itself.
func TestEveryAddressOfANameStandsApart(t *testing.T) {
	addresses, err := net.DefaultResolver.LookupNetIP(t.Context(), "ip", "localhost")
	if err != nil {
		t.Fatal(err)
	}
	all, err := Listeners(t.Context(), []string{"localhost"}, Options{Timeout: 5 * time.Second})
	if err != nil || len(all) != len(mailPorts)*len(addresses) {
		t.Fatalf("%d listeners at %v, %v", len(all), addresses, err)
	}
	for i, l := range all {
		if l.Address != addresses[i/len(mailPorts)].Unmap().String() || l.Port != mailPorts[i%len(mailPorts)].number || l.sni != "localhost" {
			t.Errorf("%+v", l)
		}
	}
}

func TestALookupEndsWithTheTimeOut(t *testing.T) {
	all, err := Listeners(t.Context(), []string{"name.invalid"}, Options{Timeout: time.Nanosecond})
	if err != nil || len(all) != 1 || !strings.HasPrefix(all[0].Error, "no answer in ") {
		t.Errorf("%+v, %v", all, err)
	}
}

func TestWhatIsBelowTheFloorIsRed(t *testing.T) {
	old := Result{offer: offers()[3], Taken: true, Answer: "TLS 1.0"}
	l := &Listener{name: "here", Results: []Result{old}}
	for color, want := range map[bool]string{true: "\x1b[31mtaken: TLS 1.0\x1b[0m", false: "  taken: TLS 1.0\n"} {
		var out strings.Builder
		if err := Write(&out, color, []*Listener{l}, policy.FloorTLS12); err != nil || !strings.Contains(out.String(), want) {
			t.Errorf("%v, %q, want %q", err, out.String(), want)
		}
	}
}

func TestAConnectionHasAQuarterOfTheTimeAndTenSecondsAtMost(t *testing.T) {
	for timeout, want := range map[time.Duration]time.Duration{20 * time.Second: 5 * time.Second, 5 * time.Minute: 10 * time.Second} {
		if got := (Options{Timeout: timeout}).connection(); got != want {
			t.Errorf("of %v: %v, want %v", timeout, got, want)
		}
	}
}
