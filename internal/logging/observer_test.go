package logging

import (
	"bytes"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"time"

	"postern/policy"
	"postern/proxy"
)

// registry knows the same of every client.
type registry struct {
	accounts          int
	account, software string
}

func (r registry) Identify(netip.Addr, policy.JA4) (int, string, string) {
	return r.accounts, r.account, r.software
}

func TestALegacyHandshakeNamesTheOnlyAccount(t *testing.T) {
	for _, tt := range []struct {
		clients registry
		want    string
	}{
		{registry{}, ""},
		{registry{1, "anna@example.org", ""}, `,"account":"anna@example.org"`},
		{registry{1, "anna@example.org", "Outlook 14.0"}, `,"account":"anna@example.org","software":"Outlook 14.0"`},
		{registry{3, "", ""}, `,"accounts_known":3`},
	} {
		var b bytes.Buffer
		o := Observer{
			Log: New(&b, slog.LevelInfo, "json"), Clients: tt.clients,
			Suppression: NewSuppression(time.Now, func(netip.Addr, uint64) {}),
		}
		o.Handshake(&proxy.Handshake{
			Conn:  &proxy.Conn{ID: 7, Client: netip.MustParseAddrPort("192.0.2.7:4711")},
			Hello: &policy.Hello{}, Verdict: policy.Verdict{Version: policy.TLS10, Reason: policy.ReasonVersion}, Outcome: proxy.Rejected,
		})
		if want := fmt.Sprintf(`"conn_id":7%s}`+"\n", tt.want); !strings.HasSuffix(b.String(), want) {
			t.Errorf("got %s, want ...%s", b.String(), want)
		}
	}
}
