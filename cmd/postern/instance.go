package main

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"syscall"
	"time"

	"postern/internal/certs"
	"postern/internal/config"
	"postern/internal/ledger"
	"postern/internal/programs"
	"postern/internal/report"
	"postern/internal/text"
	"postern/policy"
)

// instanceTimeout bounds the wait for an answer of a running proxy, and for the
// next piece of it.
const instanceTimeout = 5 * time.Minute

// instance is the admin port of a running proxy.
type instance struct {
	base      string // of the URL
	addr      string // to dial, whatever the URL says; "" for that of the URL
	where     string // for people
	token     string
	transport *http.Transport
	// unwritten are clients that it cannot tell its ledger of, as the last list of
	// its clients said.
	unwritten int
}

// findInstance returns the proxy at a URL, or that of ADMIN_LISTEN.
func findInstance(cfg *config.Config, from string) (*instance, error) {
	i := localInstance(cfg)
	if cfg.AdminTokenFile != "" {
		token, err := config.ReadSecret("ADMIN_TOKEN_FILE", cfg.AdminTokenFile, "token", nil)
		if err != nil {
			return nil, exitError{err, exitUsage}
		}
		i.token = string(token)
	}
	var own []*x509.Certificate
	if cfg.AdminTLSCertFile != "" {
		var err error
		if own, _, err = certs.ReadCertificates(cfg.AdminTLSCertFile); err != nil {
			return nil, usageErrorf("%sADMIN_TLS_CERT_FILE: %w", config.Prefix, err)
		}
	}
	if from != "" {
		u, err := url.Parse(from)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
			return nil, usageErrorf("-from: not the URL of an admin port: write one such as http://127.0.0.1:9993")
		}
		i.base = strings.TrimSuffix(u.String(), "/")
		i.where = i.base
		i.addr, i.transport.TLSClientConfig = "", &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: rootsAnd(own)}
	} else if own != nil {
		i.transport.TLSClientConfig = pinned(own[0], cfg)
	}
	return i, nil
}

// localInstance is the proxy on this host, whose certificate is yet to be judged.
func localInstance(cfg *config.Config) *instance {
	// Where that is every address, this host is dialled.
	base := text.Either(cfg.AdminTLSCertFile == "", "http://localhost", "https://localhost")
	i := &instance{base: base, addr: cfg.AdminListen, where: cfg.AdminListen}
	i.transport = &http.Transport{DisableKeepAlives: true, DialContext: i.dial}
	return i
}

// rootsAnd returns the system's CAs and some more certificates.
func rootsAnd(own []*x509.Certificate) *x509.CertPool {
	pool, err := x509.SystemCertPool()
	if err != nil {
		pool = x509.NewCertPool()
	}
	for _, c := range own {
		pool.AddCert(c)
	}
	return pool
}

// pinned accepts only the proxy's own certificate. Its name need not match the
// address, but no other program on the port may get the token.
func pinned(own *x509.Certificate, cfg *config.Config) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12, InsecureSkipVerify: true,
		VerifyConnection: func(s tls.ConnectionState) error {
			if bytes.Equal(s.PeerCertificates[0].RawSubjectPublicKeyInfo, own.RawSubjectPublicKeyInfo) {
				return nil
			}
			return fmt.Errorf("it has another key than the certificate in %sADMIN_TLS_CERT_FILE (%s): name the file that Postern reads", config.Prefix, cfg.AdminTLSCertFile)
		},
	}
}

const (
	nobody   = "no instance answers at %s"
	notAdmin = "it is not Postern's admin port: set " + config.Prefix + "ADMIN_LISTEN to that"
)

// notRunning reports whether nothing listens there.
func notRunning(err error) bool { return errors.Is(err, syscall.ECONNREFUSED) }

// ask requests a path.
func (i *instance) ask(ctx context.Context, method, path string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, i.base+path, nil)
	if err != nil {
		return nil, fmt.Errorf("asking %s: %w", i.where, err)
	}
	if i.token != "" {
		req.Header.Set("Authorization", "Bearer "+i.token)
	}
	client := http.Client{Transport: i.transport, CheckRedirect: func(*http.Request, []*http.Request) error {
		return http.ErrUseLastResponse // the token goes nowhere else
	}}
	resp, err := client.Do(req)
	if inURL, ok := errors.AsType[*url.Error](err); ok {
		err = inURL.Err // the URL is ours, and long
	}
	if err != nil {
		return nil, fmt.Errorf("asking %s: %w", i.where, adminError(err))
	}
	return resp, nil
}

func (i *instance) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	conn, err := new(net.Dialer).DialContext(ctx, network, cmp.Or(i.addr, addr))
	return patient{conn}, err
}

// patient is a connection whose answer may take long, as long as some of it comes.
type patient struct{ net.Conn }

func (c patient) Read(p []byte) (int, error) {
	c.SetReadDeadline(time.Now().Add(instanceTimeout))
	return c.Conn.Read(p)
}

// do requests a path, and returns an answer with status 200.
func (i *instance) do(ctx context.Context, method, path string, query url.Values) (*http.Response, error) {
	resp, err := i.ask(ctx, method, path+"?"+query.Encode())
	if err == nil && resp.StatusCode != http.StatusOK {
		defer resp.Body.Close()
		return nil, i.refused(resp)
	}
	return resp, err
}

// get requests a path and decodes the JSON answer.
func (i *instance) get(ctx context.Context, path string, query url.Values, into any) error {
	return i.call(ctx, http.MethodGet, path, query, into)
}

// call is get with any method.
func (i *instance) call(ctx context.Context, method, path string, query url.Values, into any) error {
	resp, err := i.do(ctx, method, path, query)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(resp.Body).Decode(into); err != nil {
		return i.brokeOff(err)
	}
	return nil
}

// errBusy is an instance that makes another report, errOlder one of a version that
// does not say how a report came out unless that is in JSON.
var errBusy, errOlder = errors.New("the instance is busy"), errors.New("an older version")

// patience is how long an instance may be busy.
const patience = 10 * time.Minute

// report copies a report to w as the instance writes it, or, where w is nil, reads
// one in JSON. Then the outcome alone is returned. It asks again while another
// report is made.
func (i *instance) report(ctx context.Context, q *report.Query, w io.Writer, mailTo func(identity string) error, p *progress) (*report.Report, error) {
	stop := p.waiting("waiting for the instance")
	defer stop()
	resp, err := i.do(ctx, http.MethodGet, "/api/v1/report", q.Values())
	for begun := time.Now(); errors.Is(err, errBusy) && time.Since(begun) <= patience; {
		select {
		case <-time.After(time.Second):
			resp, err = i.do(ctx, http.MethodGet, "/api/v1/report", q.Values())
		case <-ctx.Done():
			err = ctx.Err()
		}
	}
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	r := new(report.Report)
	if _, ends := resp.Trailer[report.Trailer]; w != nil && !ends {
		return nil, errOlder
	}
	if w == nil {
		err = json.NewDecoder(resp.Body).Decode(r)
	} else if err = mailTo(resp.Header.Get(report.IdentityHeader)); err != nil {
		return nil, err
	} else if _, err = io.Copy(&behind{w, stop}, resp.Body); err == nil {
		err = json.Unmarshal([]byte(resp.Trailer.Get(report.Trailer)), r)
	}
	if err != nil {
		return nil, i.brokeOff(err)
	}
	r.Clean()
	return r, nil
}

// brokeOff is the error of an answer that is not whole.
func (i *instance) brokeOff(err error) error {
	words := text.Either(errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET),
		": it has ended meanwhile, or its log says why: ask again", "")
	return fmt.Errorf("reading the answer of %s: %w%s", i.where, err, words)
}

// refused explains an answer with an error status.
func (i *instance) refused(resp *http.Response) error {
	const variable = config.Prefix + "ADMIN_TOKEN_FILE"
	switch resp.StatusCode {
	case http.StatusUnauthorized:
		if i.token == "" {
			return usageErrorf("%s wants its token: name the file in %s", i.where, variable)
		}
		return usageErrorf("%s does not take the token in %s: use the file that Postern reads", i.where, variable)
	case http.StatusNotFound:
		return usageErrorf("%s does not know %s: it is an older version, no Postern, or its API is off (off loopback it needs %s)",
			i.where, resp.Request.URL.Path, variable)
	case http.StatusMisdirectedRequest:
		return usageErrorf("%s does not answer to that name: ask by its IP address, or name the file with its token in %s", i.where, variable)
	case http.StatusTooManyRequests:
		wait := "a minute"
		if n, err := strconv.Atoi(resp.Header.Get("Retry-After")); err == nil {
			wait = fmt.Sprintf("%d seconds", n)
		}
		return exitError{fmt.Errorf("%s has had too many wrong tokens from here: wait %s, and see that %s is right", i.where, wait, variable), exitBroken}
	}
	var answer struct{ Error string }
	if json.NewDecoder(io.LimitReader(resp.Body, 1<<10)).Decode(&answer); answer.Error != "" {
		switch {
		case resp.StatusCode == http.StatusServiceUnavailable && resp.Header.Get("Retry-After") != "" && strings.HasPrefix(answer.Error, "another report"):
			return errBusy
		case resp.StatusCode == http.StatusBadRequest && strings.HasPrefix(answer.Error, "candidate: "):
			return usageErrorf("-%s", answer.Error)
		case resp.StatusCode == http.StatusBadRequest && strings.HasPrefix(answer.Error, "unknown parameter"):
			return errOlder
		case resp.StatusCode == http.StatusConflict:
			return exitError{fmt.Errorf("%s: %s", i.where, answer.Error), exitNo}
		case resp.StatusCode == http.StatusBadRequest && resp.Request.Method == http.MethodPost:
			return usageErrorf("%s: %s", i.where, answer.Error)
		}
		return fmt.Errorf("asking %s: status %s: %.200q", i.where, resp.Status, answer.Error)
	}
	return fmt.Errorf("asking %s: %w", i.where, unexpected(resp))
}

// unexpected is what an answer that Postern does not give means.
func unexpected(resp *http.Response) error {
	if resp.StatusCode == http.StatusBadRequest && resp.TLS == nil {
		return errors.New("status 400, as of a port that speaks TLS: write https://, or name its certificate in " + certVariable)
	}
	return fmt.Errorf("unexpected status %s: %s", resp.Status, notAdmin)
}

const certVariable = config.Prefix + "ADMIN_TLS_CERT_FILE"

// adminError adds to the error of a request what helps.
func adminError(err error) error {
	words := ""
	switch said := err.Error(); {
	case errors.As(err, new(x509.HostnameError)):
		words = "ask by a name or an address that is in its certificate"
	case errors.As(err, new(x509.UnknownAuthorityError)):
		words = "name its certificate in " + certVariable
	case strings.Contains(said, "server gave HTTP response to HTTPS client"):
		words = "it speaks no TLS: write http://, and leave " + certVariable + " out"
	case strings.Contains(said, "readLoopPeekFailLocked"): // of net/http, where an answer is there before the request
		return errors.New("it speaks before it is asked: " + notAdmin)
	case strings.Contains(said, "malformed HTTP"), strings.Contains(said, "first record does not look like"):
		words = notAdmin
	case errors.Is(err, io.EOF), errors.Is(err, syscall.ECONNRESET):
		words = "it has ended meanwhile (ask again), or " + notAdmin
	case strings.Contains(said, "dial "):
		words = "does Postern run, with its admin port there (" + config.Prefix + "ADMIN_LISTEN)?"
	default:
		return err
	}
	return fmt.Errorf("%w: %s", err, words)
}

// pageSize is the number of clients in one request.
const pageSize = 1000

// clients lists the legacy clients that the proxy knows, or those of a candidate, without
// the handshakes of each day.
func (i *instance) clients(ctx context.Context, since time.Time, candidate string, noise bool, p *progress) ([]ledger.Client, error) {
	query := url.Values{"limit": {strconv.Itoa(pageSize)}}
	if noise {
		query.Set("noise", "include")
	}
	if candidate != "" {
		query.Set("candidate", candidate)
	}
	defer p.clear()
	var all []ledger.Client
	for {
		var page struct {
			NextCursor string          `json:"next_cursor"`
			Unwritten  int             `json:"unwritten"`
			Clients    []ledger.Client `json:"clients"`
		}
		if err := i.get(ctx, "/api/v1/legacy-clients", query, &page); err != nil {
			return nil, err
		}
		i.unwritten = page.Unwritten
		for _, c := range page.Clients {
			if c.Last.Before(since) {
				continue
			}
			if c.Logins == nil {
				c.Logins = logins(&c)
			}
			all = append(all, c)
		}
		if page.NextCursor == "" || page.NextCursor == query.Get("cursor") {
			return all, nil
		}
		query.Set("cursor", page.NextCursor)
		p.say("reading clients: %d", len(all))
	}
}

// logins returns the logins of a client of an instance whose version does not say which of
// several accounts uses which program.
func logins(c *ledger.Client) []ledger.Identity {
	account := ""
	if len(c.Accounts) == 1 {
		account = c.Accounts[0]
	}
	list := text.Each(c.Software, func(s string) ledger.Identity { return ledger.Identity{Account: account, Software: s} })
	if account == "" || len(list) == 0 {
		list = append(list, text.Each(c.Accounts, func(a string) ledger.Identity { return ledger.Identity{Account: a} })...)
	}
	return list
}

// Hellos returns the hellos that the proxy has kept.
func (i *instance) Hellos(ctx context.Context) (map[string]policy.Hello, error) {
	var views map[string]ledger.Hello
	if err := i.get(ctx, "/api/v1/hellos", nil, &views); err != nil {
		return nil, err
	}
	all := make(map[string]policy.Hello, len(views))
	for ja4, v := range views {
		all[ja4] = v.ForPolicy()
	}
	return all, nil
}

// openForReading opens the store of a proxy that does not run.
func openForReading(ctx context.Context, cfg *config.Config) (*ledger.Store, error) {
	switch {
	case cfg.Bare():
		return nil, fmt.Errorf(nobody+", and %s; -from asks another instance", cfg.AdminListen, noVariable)
	case cfg.LedgerURL == ledger.Memory:
		return nil, fmt.Errorf(nobody+", and %[2]sLEDGER_URL is memory:, which only a running instance has: start it, "+
			"set %[2]sADMIN_LISTEN to its admin port, or name that with -from", cfg.AdminListen, config.Prefix)
	}
	table, err := programs.Load(cfg.ProgramsFile)
	if err != nil {
		return nil, exitError{err, exitUsage}
	}
	store, err := ledger.OpenReadOnly(ctx, cfg.LedgerURL)
	if err != nil {
		return nil, fmt.Errorf(nobody+"; %sLEDGER_URL: %w", cfg.AdminListen, config.Prefix, err)
	}
	store.SetPrograms(table)
	return store, nil
}

const (
	healthTimeout = 3 * time.Second
	healthBytes   = 64 << 10 // of an answer
)

// healthcheck asks the running proxy whether it is ready.
func healthcheck(ctx context.Context, sys system) error {
	fs := flag.NewFlagSet("healthcheck", flag.ContinueOnError)
	var src source
	src.envFlag(fs)
	if err := sys.configure(fs, &src); err != nil {
		return err
	}
	cfg, err := config.LoadAdmin(sys.environ)
	if err != nil {
		return err
	}
	ready, report, err := askReadiness(ctx, cfg)
	switch {
	case notRunning(err) && !sys.has("LEDGER_", "POLICY_", "LISTEN_"):
		return exitError{fmt.Errorf(nobody+", and %s", cfg.AdminListen, noVariable), exitNo}
	case notRunning(err):
		return exitError{fmt.Errorf(nobody+": start Postern, or name its admin port: set %sADMIN_LISTEN, or name its file of variables (-env FILE)",
			cfg.AdminListen, config.Prefix), exitNo}
	case err != nil:
		return exitError{err, exitNo}
	}
	if ready {
		return nil
	}
	for line := range strings.Lines(report) {
		line = strings.TrimSpace(line)
		if line != "" && !strings.HasSuffix(line, ": ok") && line != "draining: no" {
			sys.errorf("postern healthcheck: not ready: %s", line)
		}
	}
	return exitError{code: exitNo}
}

// askReadiness asks /readyz on the admin port.
func askReadiness(ctx context.Context, cfg *config.Config) (ready bool, report string, err error) {
	ctx, cancel := context.WithTimeout(ctx, healthTimeout)
	defer cancel()
	i := localInstance(cfg)
	if cfg.AdminTLSCertFile != "" {
		// The address is on this host and no secret is sent. The file may
		// hold a certificate that Postern has rightly refused to load.
		i.transport.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: true}
	}
	resp, err := i.ask(ctx, http.MethodGet, "/readyz")
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return false, "", fmt.Errorf("%s does not answer in %v: Postern hangs, or %s", cfg.AdminListen, healthTimeout, notAdmin)
	case err != nil:
		return false, "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, healthBytes))
	if err != nil {
		return false, "", i.brokeOff(err)
	}
	if ready = resp.StatusCode == http.StatusOK; ready || resp.StatusCode == http.StatusServiceUnavailable {
		return ready, string(body), nil
	}
	return false, "", fmt.Errorf("asking %s: %w", cfg.AdminListen, unexpected(resp))
}
