// Package admin serves the admin port: metrics, liveness and readiness to
// everybody, page and API to those with access.
package admin

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	_ "net/http/pprof" // at http.DefaultServeMux
	"time"

	"postern/internal/config"
	"postern/internal/text"
)

// These are generous for a scraper, and bound how long a stranger can hold a
// connection to an admin port that is not on loopback.
const (
	readHeaderTimeout = 5 * time.Second
	readTimeout       = 10 * time.Second
	writeTimeout      = 30 * time.Second
	idleTimeout       = 2 * time.Minute
	maxHeaderBytes    = 16 << 10
)

// Options configure the server.
type Options struct {
	// Metrics serves /metrics.
	Metrics http.Handler
	// Readiness serves /readyz.
	Readiness *Readiness
	// Certificate is called for each handshake, as it may change; nil serves
	// without TLS.
	Certificate func() *tls.Certificate
	// Pprof serves /debug/pprof/ to loopback peers.
	Pprof bool
	// API answers GET and HEAD below /api/v1/, with the whole path, to those with
	// access.
	API http.Handler
	// Guard answers POST for /api/v1/guards, to the same but no other site's pages.
	Guard http.Handler
	// Page answers GET and HEAD for / and /client to the same.
	Page http.Handler
	// Listen is the configured host:port, not the bound address. Unless it is
	// on loopback, page and API need the token.
	Listen string
	// Token is called for each request, as the token may change; nil is none.
	Token func() *Token
	// Now is the clock by which wrong tokens are counted.
	Now func() time.Time
	// Log gets the HTTP server's own errors, at level debug: they are about
	// clients that misbehave. It also names addresses that try tokens.
	Log *slog.Logger
}

// Server is the admin server.
type Server struct {
	http  *http.Server
	serve func(net.Listener) error
}

// New makes a server. Serve starts it.
func New(o Options) *Server {
	mux := http.NewServeMux()
	// The mux answers HEAD as GET and other methods with 405 (RFC 9110,
	// Section 15.5.6), and 404 for the rest.
	mux.Handle("GET /metrics", o.Metrics)
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		writeText(w, http.StatusOK, "ok\n")
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		ready, report := o.Readiness.Report()
		writeText(w, text.Either(ready, http.StatusOK, http.StatusServiceUnavailable), report)
	})
	guard := &access{Options: o, loopback: config.OnLoopback(o.Listen)}
	if o.Token() != nil || guard.loopback { // else no request can pass
		for path, h := range map[string]http.Handler{"/api/v1/": o.API, "/{$}": o.Page, "/client": o.Page} {
			protected := http.NewServeMux()
			protected.Handle("GET "+path, h)
			mux.Handle(path, guard.protect(protected))
		}
		mux.Handle("POST /api/v1/guards", guard.protect(http.NewCrossOriginProtection().Handler(o.Guard)))
	}
	if o.Pprof {
		mux.Handle("/debug/pprof/", onlyLocal(http.DefaultServeMux)) // as net/http/pprof registers there
	}
	s := &Server{http: &http.Server{
		Handler: harmless(mux), MaxHeaderBytes: maxHeaderBytes, ErrorLog: slog.NewLogLogger(o.Log.Handler(), slog.LevelDebug),
		ReadHeaderTimeout: readHeaderTimeout, ReadTimeout: readTimeout, WriteTimeout: writeTimeout, IdleTimeout: idleTimeout,
	}}
	s.serve = s.http.Serve
	if o.Certificate != nil {
		s.serve = func(l net.Listener) error { return s.http.ServeTLS(l, "", "") }
		s.http.TLSConfig = &tls.Config{
			MinVersion:     tls.VersionTLS12,
			GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return o.Certificate(), nil },
		}
	}
	return s
}

// Serve answers on the listener until Close, and then returns nil. It may be
// called for several listeners.
func (s *Server) Serve(l net.Listener) error {
	if err := s.serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// Close closes the listeners and waits for running requests until the context
// ends. Then it cuts off the rest and returns the context's error.
func (s *Server) Close(ctx context.Context) error {
	err := s.http.Shutdown(ctx)
	if err != nil {
		_ = s.http.Close() // what was wrong is in err
	}
	return err
}

// harmless keeps answers out of caches, and browsers from guessing a type.
func harmless(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "no-store")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		next.ServeHTTP(w, r)
	})
}

func writeText(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(status)
	_, _ = io.WriteString(w, text) // the client may be gone
}
