package handshake

import (
	"cmp"
	"fmt"
	"slices"
	"testing"
	"time"

	"postern/policy"
)

// suiteNames are the IANA names of the suites that the tests offer; of whole families, the
// rest has its names in the register that policy embeds.
var suiteNames = map[uint16]string{
	0x000a: "TLS_RSA_WITH_3DES_EDE_CBC_SHA",
	0x0005: "TLS_RSA_WITH_RC4_128_SHA",
	0x0016: "TLS_DHE_RSA_WITH_3DES_EDE_CBC_SHA",
	0x002f: "TLS_RSA_WITH_AES_128_CBC_SHA",
	0x0033: "TLS_DHE_RSA_WITH_AES_128_CBC_SHA",
	0x0035: "TLS_RSA_WITH_AES_256_CBC_SHA",
	0x003c: "TLS_RSA_WITH_AES_128_CBC_SHA256",
	0x0041: "TLS_RSA_WITH_CAMELLIA_128_CBC_SHA",
	0x009c: "TLS_RSA_WITH_AES_128_GCM_SHA256",
	0x009e: "TLS_DHE_RSA_WITH_AES_128_GCM_SHA256",
	0x00ff: "TLS_EMPTY_RENEGOTIATION_INFO_SCSV",
	0x5600: "TLS_FALLBACK_SCSV",
	0xc008: "TLS_ECDHE_ECDSA_WITH_3DES_EDE_CBC_SHA",
	0xc009: "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA",
	0xc012: "TLS_ECDHE_RSA_WITH_3DES_EDE_CBC_SHA",
	0xc013: "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA",
	0xc02b: "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
	0xc02f: "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
	0xcca8: "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
	0x1301: "TLS_AES_128_GCM_SHA256",
	0x1303: "TLS_CHACHA20_POLY1305_SHA256",
	0xfefe: "0xfefe",
}

var logKeys = []string{
	"time", "level", "listener", "client", "client_port", "outcome", "reason", "version", "offered_versions",
	"cipher_suites", "server_name", "alpn", "ja4", "mode", "rule", "starttls", "conn_id",
}

// linesOf are the log lines about legacy handshakes of one client.
func (r *rig) linesOf(client string) []map[string]any {
	return slices.DeleteFunc(r.LogLines("legacy handshake"), func(line map[string]any) bool {
		return line["client"] != client
	})
}

func (r *rig) expectLog(t *testing.T, listener, client string, w want) {
	t.Helper()
	n := 0
	if w.reason != "" {
		n = 1
		r.legacy++
	}
	lines := r.linesOf(client)
	for deadline := time.Now().Add(30 * time.Second); len(lines) < n && time.Now().Before(deadline); {
		time.Sleep(10 * time.Millisecond)
		lines = r.linesOf(client)
	}
	if len(lines) != n {
		t.Errorf("log lines %v, want %d", lines, n)
	}
	if len(lines) != 1 || n != 1 {
		return
	}
	line := lines[0]
	for _, key := range logKeys {
		if _, ok := line[key]; !ok {
			t.Errorf("the log line lacks %s", key)
		}
	}
	for key, value := range map[string]any{
		"level": "INFO", "listener": listener, "outcome": w.outcome, "reason": w.reason, "version": w.version,
		"mode": r.mode, "starttls": listener == "imap" || listener == "pop3",
	} {
		if line[key] != value {
			t.Errorf("logged %s %v, want %v", key, line[key], value)
		}
	}
	offered := words(line["offered_versions"])
	if !slices.Contains(offered, w.version) {
		t.Errorf("logged versions %v lack %s", offered, w.version)
	}
	if w.log != nil {
		expectOffer(t, line, offered, w.log)
	}
}

func expectOffer(t *testing.T, line map[string]any, offered []string, l *logged) {
	t.Helper()
	if l.offered != nil && !slices.Equal(offered, l.offered) {
		t.Errorf("logged versions %v, want %v", offered, l.offered)
	}
	if l.suites != nil {
		var names []string
		for _, s := range l.suites {
			names = append(names, cmp.Or(suiteNames[s], policy.CipherSuiteName(s)))
		}
		if got := words(line["cipher_suites"]); !slices.Equal(got, names) {
			t.Errorf("logged suites %v, want %v", got, names)
		}
	}
	if l.ja4 != "" && line["ja4"] != l.ja4 {
		t.Errorf("logged JA4 %v, want %v", line["ja4"], l.ja4)
	}
	if line["server_name"] != l.name {
		t.Errorf("logged server name %v, want %q", line["server_name"], l.name)
	}
}

func words(field any) []string {
	list, _ := field.([]any)
	var out []string
	for _, v := range list {
		out = append(out, fmt.Sprint(v))
	}
	return out
}
