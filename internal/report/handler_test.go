package report

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestTheReportOverHTTP(t *testing.T) {
	var asked Options
	var log bytes.Buffer
	h := Handler(slog.New(slog.NewTextHandler(&log, nil)), func(_ context.Context, o Options) (*Report, error) {
		if asked = o; o.Max == 99 {
			return nil, errors.New("disk full")
		}
		return Build(sampleFacts(t), o), nil
	})
	for _, tt := range []struct {
		query       string
		status      int
		contentType string
		begins      string
		want        Options
	}{
		{"", 200, "application/json", "{\n  \"now\": \"2026-11-25T10:05:30Z\"", Options{Since: fortnight}},
		{"?since=36h&by=domain&noise=include&max=7", 200, "application/json", "{", Options{Since: 36 * time.Hour, By: ByDomain, Noise: true, Max: 7}},
		{"?format=text", 200, "text/plain; charset=utf-8", "NO-GO: 5 ", Options{Since: fortnight}},
		{"?format=text&ready=1", 200, "text/plain; charset=utf-8", "NO-GO: 5 ", Options{Since: fortnight}},
		{"?format=markdown", 200, "text/markdown; charset=utf-8", "## NO-GO: 5 ", Options{Since: fortnight}},
		{"?format=csv", 200, "text/csv; charset=utf-8; header=present", "account,status,", Options{Since: fortnight}},
		{"?since=14", 400, "", `since: "14" is not a duration`, Options{}},
		{"?since=4000d", 400, "", "since: ", Options{}},
		{"?by=color", 400, "", `by: "color" is none of account, domain, network, software`, Options{}},
		{"?format=pdf", 400, "", "format: ", Options{}},
		{"?noise=yes", 400, "", `noise: "yes" is not include`, Options{}},
		{"?max=-1", 400, "", "max: ", Options{}},
		{"?max=x", 400, "", "max: ", Options{}},
		{"?ready=maybe", 400, "", "ready: ", Options{}},
		{"?by=domain&by=account", 400, "", `"by" is given 2 times`, Options{}},
		{"?color=red", 400, "", `unknown parameter "color": use since, by, noise, max, format, ready`, Options{}},
		{"?max=99", 503, "", "the ledger cannot be read now; the log says why", Options{Since: fortnight, Max: 99}},
	} {
		asked = Options{}
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

func TestOptionsGoThroughAQuery(t *testing.T) {
	for _, o := range []Options{{Since: time.Second}, {Since: fortnight, By: BySoftware, Noise: true, Max: 12}} {
		q, err := ParseQuery(o.Values())
		if err != nil || !reflect.DeepEqual(q, Query{Options: o, Format: JSON}) {
			t.Errorf("%+v became %+v, %v", o, q, err)
		}
	}
}
