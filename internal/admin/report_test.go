package admin

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"postern/internal/ledger"
	"postern/internal/report"
	"postern/policy"
)

func outcome(r *report.Report, err error) (string, error) {
	if err != nil {
		return "", err
	}
	return r.Outcome(), nil
}

func TestTheReportOverHTTP(t *testing.T) {
	var asked report.Options
	var log bytes.Buffer
	const fortnight = 14 * day
	facts := report.Facts{Now: noon, Policy: policyOf(t, someRules), Identity: "plain", Source: report.SourceOf(nil)}
	h := ReportHandler(slog.New(slog.NewTextHandler(&log, nil)), "plain", func(ctx context.Context, w io.Writer, q report.Query) (string, error) {
		if asked = q.Options; q.Max == 99 {
			return "", errors.New("disk full")
		}
		return outcome(facts.Write(ctx, w, q.Options, q.Style))
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
		{"?by=color", 400, "", `by: "color" is none of account, domain, network, program, software`, report.Options{}},
		{"?format=pdf", 400, "", "format: ", report.Options{}},
		{"?noise=yes", 400, "", `noise: "yes": write noise=include`, report.Options{}},
		{"?max=-1", 400, "", "max: ", report.Options{}},
		{"?max=x", 400, "", "max: ", report.Options{}},
		{"?ready=maybe", 400, "", "ready: ", report.Options{}},
		{"?by=domain&by=account", 400, "", `"by" is given 2 times`, report.Options{}},
		{"?color=red", 400, "", `unknown parameter "color": use since, by, candidate, noise, max, max_unknown, mail, format, ready, top, width, summary`, report.Options{}},
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

// hanging is a source whose clients come when they are let go.
func hanging(begun chan<- struct{}, rest <-chan error) report.Source {
	return func(ctx context.Context, _ ledger.Scope, each func([]ledger.Client) error) error {
		if err := each([]ledger.Client{{Addr: netip.MustParseAddr("192.0.2.7"), Listener: "imaps", Version: policy.TLS10, Last: noon}}); err != nil {
			return err
		}
		begun <- struct{}{}
		select {
		case err := <-rest:
			return err
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func TestAReportIsSentAsItIsMadeAndOneAtATime(t *testing.T) {
	// The ledger of an earlier test may still make a worker, which stays.
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent(), goleak.IgnoreTopFunction("postern/internal/ledger.work"))
	begun, rest := make(chan struct{}, 1), make(chan error)
	facts := report.Facts{Now: noon, Policy: policyOf(t, someRules), Identity: "plain", Source: hanging(begun, rest)}
	ended := make(chan error, 1)
	var log bytes.Buffer
	s := httptest.NewServer(ReportHandler(slog.New(slog.NewTextHandler(&log, nil)), "plain", func(ctx context.Context, w io.Writer, q report.Query) (string, error) {
		r, err := facts.Write(ctx, w, q.Options, q.Style)
		ended <- err
		return outcome(r, err)
	}))
	defer s.Close()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	ask := func(ctx context.Context, format string) *http.Response {
		t.Helper()
		req, err := http.NewRequestWithContext(ctx, "GET", s.URL+"?format="+format, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		return resp
	}
	for format, head := range map[string]string{"json": "{\n  \"now\": ", "csv": "account,status,"} {
		// Its beginning is there while the ledger is still being read.
		resp := ask(t.Context(), format)
		first := make([]byte, len(head))
		if _, err := io.ReadFull(resp.Body, first); err != nil || string(first) != head {
			t.Errorf("%s begins with %q, %v", format, first, err)
		}
		<-begun
		busy := ask(t.Context(), "text")
		said, _ := io.ReadAll(busy.Body)
		if busy.Body.Close(); busy.StatusCode != 503 || busy.Header.Get("Retry-After") == "" || !strings.Contains(string(said), "another report is being made") {
			t.Errorf("beside another: %s, %s", busy.Status, said)
		}
		rest <- nil
		if _, err := io.Copy(io.Discard, resp.Body); err != nil || !strings.Contains(resp.Trailer.Get(report.Trailer), `"ready":true`) {
			t.Errorf("%s: %v, trailer %v", format, err, resp.Trailer)
		}
		resp.Body.Close()
		<-ended

		// One that breaks off is not taken for a whole one.
		resp = ask(t.Context(), format)
		<-begun
		rest <- errors.New("disk full")
		if _, err := io.Copy(io.Discard, resp.Body); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%s that breaks off: %v", format, err)
		}
		resp.Body.Close()
		<-ended
	}
	// A reader that goes away ends it.
	ctx, cancel := context.WithCancel(t.Context())
	resp := ask(ctx, "json")
	<-begun
	cancel()
	resp.Body.Close()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("its reader is gone, and it ends with %v", err)
	}
	s.Close()
	if n := strings.Count(log.String(), "disk full"); n != 2 || strings.Count(log.String(), "\n") != 2 {
		t.Errorf("log: %s", log.String())
	}
}

func TestAReaderThatStallsEndsAReport(t *testing.T) {
	w := &stalled{ResponseRecorder: httptest.NewRecorder()}
	facts := report.Facts{Now: noon, Policy: policyOf(t, someRules), Source: report.SourceOf(nil)}
	h := ReportHandler(slog.New(slog.DiscardHandler), "off", func(ctx context.Context, out io.Writer, q report.Query) (string, error) {
		return outcome(facts.Write(ctx, out, q.Options, q.Style))
	})
	defer func() {
		if recover() != http.ErrAbortHandler || w.deadlines == 0 {
			t.Errorf("it goes on, with %d deadlines", w.deadlines)
		}
	}()
	h.ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
}

// stalled takes nothing until the deadline.
type stalled struct {
	*httptest.ResponseRecorder
	deadlines int
}

func (s *stalled) SetWriteDeadline(time.Time) error {
	s.deadlines++
	return nil
}

func (s *stalled) Write([]byte) (int, error) { return 0, os.ErrDeadlineExceeded }

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
