package ledger

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"postern/bench/internal/measure"
)

func TestNumbersOfAReport(t *testing.T) {
	f := figures{}
	err := f.readReport(json.NewDecoder(strings.NewReader(`{"now": "2026-06-01T00:00:00Z", "left": [{"clients": 1}, [2]], "policy": {"a": {"b": 1}},
		"readiness": {"ready": false, "remaining": 1841258, "reasons": ["seven of 7"]}, "trend": {"periods": [{"clients": 3}]}, "notes": []}`)))
	want := figures{"report: readiness.ready": "false", "report: readiness.remaining": "1841258", "report: trend.periods[0].clients": "3"}
	if p := f.differ(want, [2]string{"read", "written"}); err != nil || p != nil || len(f) != len(want) {
		t.Errorf("%v: %q, %v", f, p, err)
	}
	if err := f.readReport(json.NewDecoder(strings.NewReader(`{"left": [1, 2`))); err == nil {
		t.Error("half a report was taken")
	}
}

func TestAnswers(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/slow":
			w.Write([]byte("a"))
			w.(http.Flusher).Flush()
			time.Sleep(50 * time.Millisecond)
			w.Write([]byte("bc"))
		case "/later":
			w.Header().Set("Retry-After", "5")
			w.WriteHeader(http.StatusServiceUnavailable)
			w.Write([]byte("busy"))
		case "/broken":
			w.Header().Set("Content-Length", "10")
			w.Write([]byte("half"))
		}
	}))
	defer server.Close()
	k := newAsker(strings.TrimPrefix(server.URL, "http://"))
	if a := k.ask(t.Context(), "/slow"); a.problem() != "" || a.size != 3 || a.took-a.first < 40*time.Millisecond {
		t.Errorf("%+v", a)
	}
	if a := k.ask(t.Context(), "/later"); !strings.HasPrefix(a.problem(), "503, Retry-After 5") {
		t.Errorf("%q", a.problem())
	}
	if a := k.ask(t.Context(), "/broken"); !strings.Contains(a.problem(), "EOF") {
		t.Errorf("%q", a.problem())
	}
}

func TestBenchmarksAreRead(t *testing.T) {
	v := measure.Values{}
	readBenchmarks(strings.NewReader("goos: linux\nBenchmarkRecord-2   \t 5000000\t       209.5 ns/op\t       0 B/op\t       0 allocs/op\n"+
		"BenchmarkFlush/sqlite/known=true-2 \t 3 \t 880471433 ns/op\t         9.927 µs-CPU/row\nPASS\n"), v)
	if v["Record_ns"] != 209.5 || v["Flush/sqlite/known=true_cpu"] != 9.927 {
		t.Errorf("%v", v)
	}
	if allocs, ok := v["Record_allocs"]; !ok || allocs != 0 {
		t.Errorf("%v", v)
	}
}
