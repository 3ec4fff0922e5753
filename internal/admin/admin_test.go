package admin

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"postern/internal/ledger"
	"postern/proxy"
)

var errRefused = errors.New("connection refused")

var tomorrow = time.Now().Add(24 * time.Hour)

// metrics stands for the real handler.
var metrics = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "postern_up 1\n") })

var silent = slog.New(slog.DiscardHandler)

func noToken() *Token { return nil }

func newServer(r *Readiness) *Server {
	return New(Options{Log: silent, Token: noToken, Metrics: metrics, Readiness: r})
}

func ask(t *testing.T, s *Server, method, path string) *httptest.ResponseRecorder {
	t.Helper()
	w := httptest.NewRecorder()
	s.http.Handler.ServeHTTP(w, httptest.NewRequest(method, path, nil))
	if got := w.Header().Get("Cache-Control"); got != "no-store" {
		t.Errorf("%s %s: Cache-Control %q, want no-store", method, path, got)
	}
	return w
}

func TestPathsAndMethods(t *testing.T) {
	s := newServer(readinessOf(proxy.ProtocolIMAP))
	for _, test := range []struct {
		method, path string
		status       int
		body         string
	}{
		{"GET", "/healthz", 200, "ok\n"},
		{"HEAD", "/healthz", 200, "ok\n"}, // net/http leaves the body out
		{"GET", "/metrics", 200, "postern_up 1\n"},
		{"GET", "/readyz", 503, "listeners: ok\ncertificate: ok\nupstream imap: not answered yet\ndraining: no\n"},
		{"HEAD", "/readyz", 503, ""},
		{"POST", "/healthz", 405, ""},
		{"DELETE", "/metrics", 405, ""},
		{"OPTIONS", "/readyz", 405, ""},
		{"GET", "/", 404, ""},
		{"GET", "/healthz/", 404, ""},
		{"GET", "/debug/pprof/", 404, ""},
		{"POST", "/nothing", 404, ""},
	} {
		w := ask(t, s, test.method, test.path)
		if w.Code != test.status {
			t.Errorf("%s %s: status %d, want %d", test.method, test.path, w.Code, test.status)
		}
		if got := w.Body.String(); test.body != "" && got != test.body {
			t.Errorf("%s %s: body %q, want %q", test.method, test.path, got, test.body)
		}
		if got := w.Header().Get("Allow"); test.status == 405 && got != "GET, HEAD" {
			t.Errorf("%s %s: Allow %q", test.method, test.path, got)
		}
	}
}

// readinessOf is that of a Postern that has started.
func readinessOf(protocols ...proxy.Protocol) *Readiness {
	r := NewReadiness(protocols)
	r.Ledger = func() (none ledger.Backlog) { return none }
	r.NotAfter = func() time.Time { return tomorrow }
	return r
}

func TestReadyOnlyWhenEverythingIs(t *testing.T) {
	r := readinessOf(proxy.ProtocolPOP3, proxy.ProtocolIMAP)
	s := newServer(r)
	expect := func(status int, lines ...string) {
		t.Helper()
		w := ask(t, s, "GET", "/readyz")
		if got, want := w.Body.String(), strings.Join(lines, "\n")+"\n"; w.Code != status || got != want {
			t.Errorf("status %d:\n%swant %d:\n%s", w.Code, got, status, want)
		}
	}
	expect(503, "listeners: ok", "certificate: ok",
		"upstream imap: not answered yet", "upstream pop3: not answered yet", "draining: no")
	r.UpstreamGreeted("pop3://127.0.0.1:10110")
	expect(503, "listeners: ok", "certificate: ok",
		"upstream imap: not answered yet", "upstream pop3: has greeted, but does not serve now",
		"upstream pop3://127.0.0.1:10110: has greeted, no answer to CAPA yet", "draining: no")
	r.UpstreamState("pop3://127.0.0.1:10110", nil)
	r.UpstreamState("imap://127.0.0.1:10143", errRefused)
	expect(503, "listeners: ok", "certificate: ok",
		"upstream imap: not answered yet", "upstream pop3: ok",
		"upstream imap://127.0.0.1:10143: does not answer now: connection refused", "draining: no")
	r.UpstreamGreeted("imap://127.0.0.1:10143")
	r.UpstreamState("imap://127.0.0.1:10143", nil)
	expect(200, "listeners: ok", "certificate: ok", "upstream imap: ok", "upstream pop3: ok", "draining: no")

	// Lost later, and expired: told, but no reason to send clients away.
	r.UpstreamState("pop3://127.0.0.1:10110", errRefused)
	r.NotAfter = func() time.Time { return time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC) }
	expect(200, "listeners: ok", "certificate: ok, but expired at 2026-01-02T03:04:05Z",
		"upstream imap: ok", "upstream pop3: has greeted, but does not serve now",
		"upstream pop3://127.0.0.1:10110: does not answer now: connection refused", "draining: no")
	r.Draining()
	expect(503, "listeners: ok", "certificate: ok, but expired at 2026-01-02T03:04:05Z",
		"upstream imap: ok", "upstream pop3: has greeted, but does not serve now",
		"upstream pop3://127.0.0.1:10110: does not answer now: connection refused", "draining: yes")
}

func TestReadinessOfOneProtocolDoesNotWaitForTheOther(t *testing.T) {
	r := readinessOf(proxy.ProtocolPOP3)
	r.UpstreamGreeted("pop3://127.0.0.1:10110")
	if ready, text := r.Report(); !ready || strings.Contains(text, "imap") {
		t.Errorf("ready %v:\n%s", ready, text)
	}
}

func TestReadinessIsSafeForConcurrentUse(t *testing.T) {
	r := readinessOf(proxy.ProtocolIMAP)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for range 100 {
				r.UpstreamState(fmt.Sprint("imap://", i), errRefused)
				r.UpstreamGreeted(fmt.Sprint("imap://", i))
				r.Report()
				r.UpstreamState(fmt.Sprint("imap://", i), nil)
			}
		})
	}
	wg.Wait()
	if ready, text := r.Report(); !ready || strings.Contains(text, "does not") {
		t.Errorf("ready %v:\n%s", ready, text)
	}
}

// serve runs a server on loopback; done gives what Serve returns.
func serve(t *testing.T, s *Server) (addr string, done <-chan error) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	result := make(chan error, 1)
	go func() { result <- s.Serve(l) }()
	t.Cleanup(func() { _ = s.http.Close() })
	return l.Addr().String(), result
}

func TestCloseLetsARunningRequestEnd(t *testing.T) {
	begun, finish := make(chan struct{}), make(chan struct{})
	s := New(Options{Log: silent, Token: noToken, Readiness: readinessOf(), Metrics: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		close(begun)
		<-finish
		fmt.Fprint(w, "all of it")
	})})
	addr, done := serve(t, s)
	body := make(chan string, 1)
	go func() {
		resp, err := http.Get("http://" + addr + "/metrics")
		if err != nil {
			body <- err.Error()
			return
		}
		defer resp.Body.Close()
		b, _ := io.ReadAll(resp.Body)
		body <- string(b)
	}()
	<-begun
	closed := make(chan error, 1)
	go func() { closed <- s.Close(t.Context()) }()
	if err := <-done; err != nil {
		t.Errorf("Serve: %v, want nil after Close", err)
	}
	close(finish)
	if got := <-body; got != "all of it" {
		t.Errorf("the running request got %q", got)
	}
	if err := <-closed; err != nil {
		t.Errorf("Close: %v", err)
	}
	if _, err := net.Dial("tcp", addr); err == nil {
		t.Error("the port is still open")
	}
}

func TestCloseCutsOffWhatOutlastsItsContext(t *testing.T) {
	begun, gone := make(chan struct{}), make(chan struct{})
	s := New(Options{Log: silent, Token: noToken, Readiness: readinessOf(), Metrics: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		close(begun)
		<-r.Context().Done()
		close(gone)
	})})
	addr, _ := serve(t, s)
	failed := make(chan error, 1)
	go func() {
		resp, err := http.Get("http://" + addr + "/metrics")
		if err == nil {
			_ = resp.Body.Close()
		}
		failed <- err
	}()
	<-begun
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := s.Close(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Close: %v, want the context's error", err)
	}
	if err := <-failed; err == nil {
		t.Error("the request was answered")
	}
	<-gone
}

func TestServeFailsOnAClosedListener(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if err := newServer(readinessOf()).Serve(l); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Serve: %v, want %v", err, net.ErrClosed)
	}
}

func TestEveryTimeoutIsSet(t *testing.T) {
	h := newServer(readinessOf()).http
	for name, d := range map[string]time.Duration{
		"read header": h.ReadHeaderTimeout, "read": h.ReadTimeout, "write": h.WriteTimeout, "idle": h.IdleTimeout,
	} {
		if d <= 0 {
			t.Errorf("no %s timeout", name)
		}
	}
}

func TestAHugeHeaderIsRefused(t *testing.T) {
	addr, _ := serve(t, newServer(readinessOf()))
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(30 * time.Second))
	// In the background: the server may answer before it has read everything.
	go fmt.Fprintf(conn, "GET /healthz HTTP/1.1\r\nHost: x\r\nX: %s\r\n\r\n", strings.Repeat("x", 64<<10))
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("status %d, want 431", resp.StatusCode)
	}
}
