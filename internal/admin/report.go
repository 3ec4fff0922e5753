package admin

import (
	"cmp"
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"strconv"
	"time"

	"golang.org/x/sync/semaphore"

	"postern/internal/ledger"
	"postern/internal/report"
	"postern/internal/text"
	"postern/policy"
)

const (
	// reportWait is how long a report waits for another one, and reportRetry, in
	// seconds, how long a client is told to wait then.
	reportWait  = 5 * time.Second
	reportRetry = 5
)

// ReportHandler answers with the report that write writes, one at a time: each takes
// memory and a processor beside the mail. Log is told where that fails. Identity is
// LEDGER_IDENTITY.
func ReportHandler(log *slog.Logger, identity string, write func(context.Context, io.Writer, report.Query) (outcome string, err error)) http.Handler {
	one := semaphore.NewWeighted(1)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		q, err := report.ParseQuery(r.URL.Query())
		if err != nil {
			writeError(w, http.StatusBadRequest, err.Error())
			return
		}
		h := w.Header()
		if r.Method == http.MethodHead {
			h.Set("Content-Type", q.Style.Format.ContentType())
			return
		}
		wait, cancel := context.WithTimeout(r.Context(), reportWait)
		defer cancel()
		if one.Acquire(wait, 1) != nil {
			h.Set("Retry-After", strconv.Itoa(reportRetry))
			writeError(w, http.StatusServiceUnavailable, "another report is being made: ask again in some seconds")
			return
		}
		defer one.Release(1)
		header := map[string]string{"Content-Type": q.Style.Format.ContentType(), "Trailer": report.Trailer, report.IdentityHeader: identity}
		stream(w, r, log, header, longestAnswer, func(out io.Writer) error {
			outcome, err := write(r.Context(), out, q)
			if err == nil {
				h.Set(report.Trailer, outcome)
			}
			return err
		})
	})
}

// stream answers with what write writes. An error in the middle of an answer aborts the
// connection, so that nobody takes it for a whole one.
func stream(w http.ResponseWriter, r *http.Request, log *slog.Logger, header map[string]string, longest time.Duration, write func(io.Writer) error) {
	out := &reader{ResponseWriter: w, header: header, longest: longest}
	switch err := write(out); {
	case err == nil:
	case out.err != nil:
		panic(http.ErrAbortHandler) // the reader is gone
	case out.begun:
		logUnread(r.Context(), log, err)
		panic(http.ErrAbortHandler)
	default:
		out.extend()
		answerUnread(w, r, log, err)
	}
}

// longestAnswer bounds how long a slow reader keeps others from a report.
const longestAnswer = 10 * time.Minute

// reader is the client, which has writeTimeout for each piece of an answer that
// takes long, and no longer than longest for all of it, unless that is zero.
type reader struct {
	http.ResponseWriter
	header  map[string]string // set at the first write
	longest time.Duration
	begun   bool
	end     time.Time // of the answer
	err     error     // of the last write
}

func (r *reader) extend() {
	piece := time.Now().Add(writeTimeout)
	if r.end.IsZero() && r.longest > 0 {
		r.end = time.Now().Add(r.longest)
	}
	_ = http.NewResponseController(r.ResponseWriter).SetWriteDeadline(text.Earlier(piece, cmp.Or(r.end, piece)))
}

func (r *reader) Write(p []byte) (n int, err error) {
	if !r.begun {
		for name, value := range r.header {
			r.Header().Set(name, value)
		}
		r.begun = true
	}
	r.extend()
	if n, err = r.ResponseWriter.Write(p); err == nil {
		err = http.NewResponseController(r.ResponseWriter).Flush()
	}
	r.err = err
	return n, err
}

// HellosHandler answers with the hello behind each fingerprint, as JSON. Log is
// told where that fails.
func HellosHandler(log *slog.Logger, read func(context.Context) (map[string]policy.Hello, error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), apiTimeout)
		defer cancel()
		all, err := read(ctx)
		if err != nil {
			answerUnread(w, r, log, err)
			return
		}
		view := make(map[string]ledger.Hello, len(all))
		for ja4, h := range all {
			view[ja4] = ledger.HelloOf(&h)
		}
		writeJSON(w, http.StatusOK, view)
	})
}

// writeError answers with what is wrong, as JSON.
func writeError(w http.ResponseWriter, status int, text string) {
	writeJSON(w, status, map[string]string{"error": text})
}

// unread is what is said of the ledger where it cannot be read: why is for the
// log alone.
const unread = "ledger cannot be read now; the log says why"

// answerUnread answers where the ledger cannot be read. A bad cursor is the client's
// fault.
func answerUnread(w http.ResponseWriter, r *http.Request, log *slog.Logger, err error) {
	switch {
	case errors.Is(err, ledger.ErrCursor):
		writeError(w, http.StatusBadRequest, "cursor: "+err.Error())
	case errors.Is(err, ledger.ErrUpgrading): // which is in the log already
		w.Header().Set("Retry-After", "10")
		writeError(w, http.StatusServiceUnavailable, ledger.ErrUpgrading.Error())
	case errors.As(err, new(policy.NotRemembered)):
		writeError(w, http.StatusBadRequest, "candidate: "+err.Error())
	default:
		logUnread(r.Context(), log, err)
		writeError(w, http.StatusServiceUnavailable, "the "+unread)
	}
}

func logUnread(ctx context.Context, log *slog.Logger, err error) {
	if !errors.Is(ctx.Err(), context.Canceled) && !errors.Is(err, ledger.ErrUpgrading) { // the client may be gone
		log.Error("reading the ledger for the admin port failed", "error", err.Error())
	}
}
