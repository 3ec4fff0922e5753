package admin

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"
	"time"

	"postern/internal/ledger"
	"postern/internal/report"
	"postern/policy"
)

func TestTheReportOverHTTP(t *testing.T) {
	var asked report.Options
	var log bytes.Buffer
	const fortnight = 14 * day
	facts := report.Facts{Now: noon, Policy: policyOf(t, someRules), Identity: "plain"}
	h := ReportHandler(slog.New(slog.NewTextHandler(&log, nil)), func(_ context.Context, o report.Options) (*report.Report, error) {
		if asked = o; o.Max == 99 {
			return nil, errors.New("disk full")
		}
		return report.Build(facts, o), nil
	})
	for _, tt := range []struct {
		query       string
		status      int
		contentType string
		begins      string
		want        report.Options
	}{
		{"", 200, "application/json", "{\n  \"now\": \"2026-06-16T12:00:00Z\"", report.Options{Since: fortnight}},
		{"?since=36h&by=domain&noise=include&max=7", 200, "application/json", "{", report.Options{Since: 36 * time.Hour, By: report.ByDomain, Noise: true, Max: 7}},
		{"?format=text", 200, "text/plain; charset=utf-8", "GO: nobody", report.Options{Since: fortnight}},
		{"?format=text&ready=1", 200, "text/plain; charset=utf-8", "GO: nobody", report.Options{Since: fortnight}},
		{"?format=markdown", 200, "text/markdown; charset=utf-8", "## GO: nobody", report.Options{Since: fortnight}},
		{"?format=csv", 200, "text/csv; charset=utf-8; header=present", "account,status,", report.Options{Since: fortnight}},
		{"?since=14", 400, "", `since: "14" is neither a date nor a duration`, report.Options{}},
		{"?since=4000d", 400, "", "since: ", report.Options{}},
		{"?by=color", 400, "", `by: "color" is none of account, domain, network, software`, report.Options{}},
		{"?format=pdf", 400, "", "format: ", report.Options{}},
		{"?noise=yes", 400, "", `noise: "yes": write noise=include`, report.Options{}},
		{"?max=-1", 400, "", "max: ", report.Options{}},
		{"?max=x", 400, "", "max: ", report.Options{}},
		{"?ready=maybe", 400, "", "ready: ", report.Options{}},
		{"?by=domain&by=account", 400, "", `"by" is given 2 times`, report.Options{}},
		{"?color=red", 400, "", `unknown parameter "color": use since, by, noise, max, max_unknown, mail, format, ready, top, summary`, report.Options{}},
		{"?max=99", 503, "", "the ledger cannot be read now; the log says why", report.Options{Since: fortnight, Max: 99}},
	} {
		asked = report.Options{}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest("GET", "/api/v1/report"+tt.query, nil))
		body := w.Body.String()
		if tt.status != 200 {
			var answer struct{ Error string }
			if err := json.Unmarshal(w.Body.Bytes(), &answer); err != nil {
				t.Errorf("%s: %v", tt.query, err)
			}
			body = answer.Error
		}
		if w.Code != tt.status || !strings.HasPrefix(body, tt.begins) || asked != tt.want ||
			tt.contentType != "" && w.Header().Get("Content-Type") != tt.contentType {
			t.Errorf("%s: status %d, %s, asked %+v\n%.200s", tt.query, w.Code, w.Header().Get("Content-Type"), asked, w.Body.String())
		}
	}
	if !strings.Contains(log.String(), "disk full") || strings.Count(log.String(), "\n") != 1 {
		t.Errorf("log: %s", log.String())
	}
}

func TestHellosGoThroughJSONWhole(t *testing.T) {
	want := map[string]policy.Hello{
		"tls": {Versions: []uint16{0x301, 0x300}, CipherSuites: []uint16{0xc013, 0x2f}, Groups: []tls.CurveID{tls.CurveP256}, Points: []uint8{0},
			SignatureSchemes: []tls.SignatureScheme{tls.PKCS1WithSHA256}},
		"ssl2": {SSL2Format: true, Versions: []uint16{2}, CipherSuites: []uint16{5}, SSL2Ciphers: []uint32{0x010080}},
	}
	ask := func(read func(context.Context) (map[string]policy.Hello, error)) *httptest.ResponseRecorder {
		w := httptest.NewRecorder()
		HellosHandler(slog.New(slog.DiscardHandler), read).ServeHTTP(w, httptest.NewRequest("GET", "/api/v1/hellos", nil))
		return w
	}
	b := newTestLedger(t)
	b.Store.Close()
	if w := ask(b.Hellos); w.Code != 503 {
		t.Errorf("a ledger that cannot be read: status %d", w.Code)
	}
	w := ask(func(context.Context) (map[string]policy.Hello, error) { return want, nil })
	var views map[string]ledger.Hello
	if err := json.Unmarshal(w.Body.Bytes(), &views); err != nil {
		t.Fatal(err)
	}
	for ja4, h := range want {
		v := views[ja4]
		if got := v.ForPolicy(); !reflect.DeepEqual(got, h) {
			t.Errorf("%s: got %+v, want %+v", ja4, got, h)
		}
	}
	if !strings.Contains(w.Body.String(), `"signature_schemes": [`) {
		t.Error(w.Body.String())
	}
}
