package admin

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net/http"

	"postern/internal/ledger"
	"postern/internal/report"
	"postern/policy"
)

// ReportHandler answers with the report that build makes. Log is told where that
// fails.
func ReportHandler(log *slog.Logger, build func(context.Context, report.Options) (*report.Report, error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		q, err := report.ParseQuery(r.URL.Query())
		if err != nil {
			writeError(w, http.StatusBadRequest, err.Error())
			return
		}
		answer, err := build(r.Context(), q.Options)
		if err != nil {
			answerUnread(w, r, log, err)
			return
		}
		var b bytes.Buffer
		if err := answer.Write(&b, q.Style); err != nil {
			writeError(w, http.StatusInternalServerError, err.Error())
			return
		}
		w.Header().Set("Content-Type", q.Style.Format.ContentType())
		_, _ = w.Write(b.Bytes()) // the client may be gone
	})
}

// HellosHandler answers with the hello behind each fingerprint, as JSON. Log is
// told where that fails.
func HellosHandler(log *slog.Logger, read func(context.Context) (map[string]policy.Hello, error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		all, err := read(r.Context())
		if err != nil {
			answerUnread(w, r, log, err)
			return
		}
		view := make(map[string]ledger.Hello, len(all))
		for ja4, h := range all {
			view[ja4] = ledger.HelloOf(&h)
		}
		writeJSON(w, view)
	})
}

// writeError answers with what is wrong, as JSON.
func writeError(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	writeJSON(w, map[string]string{"error": text})
}

// unread is what is said of the ledger where it cannot be read: why is for the
// log alone.
const unread = "ledger cannot be read now; the log says why"

func answerUnread(w http.ResponseWriter, r *http.Request, log *slog.Logger, err error) {
	logUnread(r.Context(), log, err)
	writeError(w, http.StatusServiceUnavailable, "the "+unread)
}

func logUnread(ctx context.Context, log *slog.Logger, err error) {
	if !errors.Is(ctx.Err(), context.Canceled) { // the client may be gone
		log.Error("reading the ledger for the admin port failed", "error", err.Error())
	}
}
