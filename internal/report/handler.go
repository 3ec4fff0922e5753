package report

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"postern/internal/ledger"
	"postern/internal/text"
	"postern/policy"
)

// DefaultSince is the window of a report, as people write it.
const DefaultSince = "14d"

// longestWindow is more than any ledger remembers.
const longestWindow = 3660 * 24 * time.Hour

// ParseSince reads a window.
func ParseSince(s string) (time.Duration, error) {
	d, err := text.ParseDuration(s)
	switch {
	case err != nil:
		return 0, fmt.Errorf("%.40q is %w", s, err)
	case d > longestWindow:
		return 0, fmt.Errorf("%.40q is longer than 3660d", s)
	}
	return d, nil
}

// Query is a request as parameters: since, by, noise=include, max, format and
// ready=1.
type Query struct {
	Options
	Format Format
	// Ready leaves all but the readiness out of a text.
	Ready bool
}

// ParseQuery reads the parameters of a request.
func ParseQuery(values url.Values) (q Query, err error) {
	q.Since, _ = ParseSince(DefaultSince)
	q.Format = JSON
	for name, given := range values {
		if len(given) != 1 {
			return q, fmt.Errorf("%.40q is given %d times", name, len(given))
		}
		s := given[0]
		switch name {
		case "since":
			q.Since, err = ParseSince(s)
		case "by":
			q.By, err = ParseBy(s)
		case "format":
			q.Format, err = ParseFormat(s)
		case "noise":
			if q.Noise = s == "include"; !q.Noise {
				err = fmt.Errorf("%.40q is not include", s)
			}
		case "max":
			q.Max, err = strconv.Atoi(s)
			if err != nil || q.Max < 0 {
				err = fmt.Errorf("%.40q is no number from 0 on", s)
			}
		case "ready":
			q.Ready, err = strconv.ParseBool(s)
			if err != nil {
				err = fmt.Errorf("%.40q is neither 1 nor 0", s)
			}
		default:
			return q, fmt.Errorf("unknown parameter %.40q: use since, by, noise, max, format, ready", name)
		}
		if err != nil {
			return q, fmt.Errorf("%s: %w", name, err)
		}
	}
	return q, nil
}

// Values is what ParseQuery reads, for a report in JSON.
func (o Options) Values() url.Values {
	v := url.Values{"since": {o.Since.String()}, "max": {strconv.Itoa(o.Max)}}
	if o.By != "" {
		v.Set("by", string(o.By))
	}
	if o.Noise {
		v.Set("noise", "include")
	}
	return v
}

// Handler answers with the report that make makes. Log is told where that
// fails.
func Handler(log *slog.Logger, make func(context.Context, Options) (*Report, error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		q, err := ParseQuery(r.URL.Query())
		if err != nil {
			writeError(w, http.StatusBadRequest, err.Error())
			return
		}
		answer, err := make(r.Context(), q.Options)
		if err != nil {
			failed(w, r, log, err)
			return
		}
		answerWith(w, q.Format.ContentType(), func(b *bytes.Buffer) error { return answer.Write(b, q.Format, q.Ready) })
	})
}

// failed answers for a ledger that cannot be read: why is for the log alone.
func failed(w http.ResponseWriter, r *http.Request, log *slog.Logger, err error) {
	if !errors.Is(r.Context().Err(), context.Canceled) { // the client may be gone
		log.Error("reading the ledger for a report failed", "error", err.Error())
	}
	writeError(w, http.StatusServiceUnavailable, "the ledger cannot be read now; the log says why")
}

func writeError(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", JSON.ContentType())
	w.WriteHeader(status)
	_ = writeJSON(w, map[string]string{"error": text}) // the client may be gone
}

// answerWith sends what was written whole.
func answerWith(w http.ResponseWriter, contentType string, write func(*bytes.Buffer) error) {
	var b bytes.Buffer
	if err := write(&b); err != nil {
		writeError(w, http.StatusInternalServerError, err.Error())
		return
	}
	w.Header().Set("Content-Type", contentType)
	_, _ = w.Write(b.Bytes()) // the client may be gone
}

// HellosHandler answers with the hello behind each fingerprint. Log is told
// where that fails.
func HellosHandler(log *slog.Logger, read func(context.Context) (map[string]policy.Hello, error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		all, err := read(r.Context())
		if err != nil {
			failed(w, r, log, err)
			return
		}
		answerHellos(w, all)
	})
}

func answerHellos(w http.ResponseWriter, all map[string]policy.Hello) {
	view := make(map[string]ledger.Hello, len(all))
	for ja4, h := range all {
		view[ja4] = ledger.HelloOf(&h)
	}
	answerWith(w, JSON.ContentType(), func(b *bytes.Buffer) error { return writeJSON(b, view) })
}

// ReadAccounts reads an operator's list of accounts, one a line; blank lines
// and those that begin with # are passed over.
func ReadAccounts(text string) []string {
	var all []string
	for line := range strings.Lines(strings.TrimPrefix(text, "\ufeff")) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
			all = append(all, line)
		}
	}
	return all
}
