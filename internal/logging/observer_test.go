package logging

import (
	"bytes"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"time"

	"postern/internal/ledger"
	"postern/policy"
	"postern/proxy"
)

// registry knows the same of every client.
type registry ledger.Known

func (r registry) Identify(*proxy.Handshake) ledger.Known { return ledger.Known(r) }

// A hello that offers enough and cannot be read is told of at info, by the same bounds as
// legacy ones; any other failure is nobody's matter.
func TestAMalformedHelloIsLogged(t *testing.T) {
	var b bytes.Buffer
	o := Observer{
		Log: New(&b, slog.LevelInfo, "json"), Identify: registry{}.Identify,
		Suppression: NewSuppression(time.Now, func(netip.Addr, uint64) {}),
	}
	h := proxy.Handshake{
		Conn:    &proxy.Conn{ID: 7, Client: netip.MustParseAddrPort("192.0.2.7:4711")},
		Hello:   &policy.Hello{Versions: []uint16{0x0304, 0x0303}, ServerName: "mail.example.org"},
		Verdict: policy.Verdict{Version: policy.TLS13}, Outcome: proxy.Failed, Failure: proxy.FailTimeout,
	}
	o.Handshake(&h)
	if b.Len() > 0 {
		t.Errorf("a client that was silent: %s", b.String())
	}
	h.Failure = proxy.FailMalformed
	for range linesPerClient + 5 {
		o.Handshake(&h)
	}
	for _, want := range []string{`"msg":"handshake failed"`, `"failure":"malformed","version":"tls1.3"`, `"offered_versions":["tls1.3","tls1.2"]`, `"server_name":"mail.example.org"`} {
		if n := strings.Count(b.String(), want); n != linesPerClient {
			t.Errorf("%d times %s, want %d", n, want, linesPerClient)
		}
	}
}

func TestALegacyHandshakeNamesTheOnlyAccount(t *testing.T) {
	for _, tt := range []struct {
		clients registry
		want    string
	}{
		{registry{}, ""},
		{registry{Accounts: 1, Account: "anna@example.org"}, `,"account":"anna@example.org"`},
		{registry{Accounts: 1, Account: "anna@example.org", Software: "Outlook 14.0", SpeaksLike: "JavaMail", Library: "Java 8"},
			`,"account":"anna@example.org","software":"Outlook 14.0","speaks_like":"JavaMail","library":"Java 8"`},
		{registry{Accounts: 1, Account: "anna@example.org", Inferred: true}, `,"account":"anna@example.org","account_inferred":true`},
		{registry{Accounts: 3}, `,"accounts_known":3`},
		{registry{Accounts: 3, Inferred: true}, `,"accounts_known":3`},
	} {
		var b bytes.Buffer
		o := Observer{
			Log: New(&b, slog.LevelInfo, "json"), Identify: tt.clients.Identify,
			Suppression: NewSuppression(time.Now, func(netip.Addr, uint64) {}),
		}
		o.Handshake(&proxy.Handshake{
			Conn:  &proxy.Conn{ID: 7, Listener: proxy.IMAPS, Client: netip.MustParseAddrPort("192.0.2.7:4711")},
			Hello: &policy.Hello{}, Verdict: policy.Verdict{Version: policy.TLS10, Reason: policy.ReasonVersion}, Outcome: proxy.Rejected,
		})
		if want := fmt.Sprintf(`"conn_id":7%s}`+"\n", tt.want); !strings.HasSuffix(b.String(), want) {
			t.Errorf("got %s, want ...%s", b.String(), want)
		}
	}
}

func TestARefusedLoginNamesTheAccountAsItIsKept(t *testing.T) {
	for name, tt := range map[string]struct {
		keep func(string) string
		want string
	}{
		"not at all": {nil, ""}, "hashed": {func(a string) string { return "h:" + a[len(a)-1:] }, `,"account":"h:a"`},
	} {
		var b bytes.Buffer
		o := Observer{Log: New(&b, slog.LevelInfo, "json"), Logins: NewSuppression(time.Now, func(netip.Addr, uint64) {}), Account: tt.keep}
		o.LoginFailed(&proxy.LoginFailed{
			Conn: &proxy.Conn{Listener: proxy.IMAPS, Client: netip.MustParseAddrPort("192.0.2.7:4711")}, Mechanism: "PLAIN", Code: "AUTH", Account: "Anna",
		})
		want := `"msg":"login failed","listener":"imaps","client":"192.0.2.7","client_port":4711,"mechanism":"PLAIN","code":"AUTH"` + tt.want + "}\n"
		if !strings.HasSuffix(b.String(), want) {
			t.Errorf("%s: got %s, want ...%s", name, b.String(), want)
		}
	}
}
