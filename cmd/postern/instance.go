package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"syscall"
	"time"

	"postern/internal/certs"
	"postern/internal/config"
	"postern/internal/ledger"
	"postern/policy"
)

const (
	// instanceTimeout bounds one request to a running proxy, and instanceBytes
	// its answer. The largest ledger needs less.
	instanceTimeout = time.Minute
	instanceBytes   = 256 << 20
)

// instance is the admin port of a running proxy.
type instance struct {
	base   string // of the URL
	where  string // for people
	token  string
	client http.Client
	// unwritten are clients that it cannot tell its ledger of, as the last list of
	// its clients said.
	unwritten int
}

// findInstance returns the proxy at a URL, or that of ADMIN_LISTEN.
func findInstance(cfg *config.Config, from string) (*instance, error) {
	i := &instance{base: "http://localhost", where: cfg.AdminListen}
	transport := &http.Transport{DisableKeepAlives: true}
	i.client = http.Client{Transport: transport, Timeout: instanceTimeout, CheckRedirect: func(*http.Request, []*http.Request) error {
		return http.ErrUseLastResponse // the token goes nowhere else
	}}
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
		transport.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: rootsAnd(own)}
		return i, nil
	}
	transport.DialContext = dialAdmin(cfg.AdminListen)
	if own != nil {
		i.base = "https://localhost"
		transport.TLSClientConfig = pinned(own[0], cfg)
	}
	return i, nil
}

// rootsAnd returns the system's CAs and some more certificates.
func rootsAnd(own []*x509.Certificate) *x509.CertPool {
	if own == nil {
		return nil
	}
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

// get requests a path and decodes the JSON answer.
func (i *instance) get(ctx context.Context, path string, query url.Values, into any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, i.base+path+"?"+query.Encode(), nil)
	if err != nil {
		return fmt.Errorf("asking %s: %w", i.where, err)
	}
	if i.token != "" {
		req.Header.Set("Authorization", "Bearer "+i.token)
	}
	resp, err := i.client.Do(req)
	if err != nil {
		var inURL *url.Error
		if errors.As(err, &inURL) {
			err = inURL.Err // the URL is ours, and long
		}
		return fmt.Errorf("asking %s: %w", i.where, adminError(err))
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return i.refused(resp)
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, instanceBytes)).Decode(into); err != nil {
		return fmt.Errorf("reading the answer of %s: %w", i.where, err)
	}
	return nil
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
	case strings.Contains(said, "malformed HTTP"), strings.Contains(said, "first record does not look like"), errors.Is(err, io.EOF):
		words = notAdmin
	case strings.Contains(said, "dial "):
		words = "does Postern run, with its admin port there (" + config.Prefix + "ADMIN_LISTEN)?"
	default:
		return err
	}
	return fmt.Errorf("%w: %s", err, words)
}

// pageSize is the number of clients in one request.
const pageSize = 1000

// ClientsSince lists the clients that the proxy knows, without the handshakes
// of each day.
func (i *instance) ClientsSince(ctx context.Context, f ledger.Filter) ([]ledger.Client, error) {
	query := url.Values{"limit": {strconv.Itoa(pageSize)}}
	if f.Noise {
		query.Set("noise", "include")
	}
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
			if c.Last.Before(f.Since) {
				continue
			}
			c.Logins = logins(c.Accounts, c.Software)
			all = append(all, c)
		}
		if page.NextCursor == "" || page.NextCursor == query.Get("cursor") {
			return all, nil
		}
		query.Set("cursor", page.NextCursor)
	}
}

// logins returns the logins of a client. The API does not say which of several
// accounts uses which program.
func logins(accounts, software []string) (list []ledger.Identity) {
	for _, a := range accounts {
		list = append(list, ledger.Identity{Account: a})
	}
	for _, s := range software {
		l := ledger.Identity{Software: s}
		if len(accounts) == 1 {
			l.Account = accounts[0]
		}
		list = append(list, l)
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
	store, err := ledger.OpenReadOnly(ctx, cfg.LedgerURL)
	if err != nil {
		return nil, fmt.Errorf(nobody+"; %sLEDGER_URL: %w", cfg.AdminListen, config.Prefix, err)
	}
	return store, nil
}
