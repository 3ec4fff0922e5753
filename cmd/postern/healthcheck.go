package main

import (
	"context"
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"postern/internal/config"
)

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
		return namedError{err}
	}
	ctx, cancel := context.WithTimeout(ctx, healthTimeout)
	defer cancel()
	ready, report, err := askReadiness(ctx, cfg)
	whole, wrong := config.LoadLedger(sys.environ)
	switch {
	case notRunning(err) && wrong == nil && whole.Bare():
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
	i := localInstance(cfg)
	if cfg.AdminTLSCertFile != "" {
		// The address is on this host and no secret is sent. The file may
		// hold a certificate that Postern has rightly refused to load.
		i.transport.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: true}
	}
	resp, err := i.ask(ctx, "/readyz")
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return false, "", fmt.Errorf("%s does not answer in %v: Postern hangs, or %s", cfg.AdminListen, healthTimeout, notAdmin)
	case err != nil:
		return false, "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, healthBytes))
	if err != nil {
		return false, "", fmt.Errorf("reading the answer of %s: %w", cfg.AdminListen, err)
	}
	switch resp.StatusCode {
	case http.StatusOK:
		return true, string(body), nil
	case http.StatusServiceUnavailable:
		return false, string(body), nil
	}
	return false, "", fmt.Errorf("asking %s: %w", cfg.AdminListen, unexpected(resp))
}

// dialAdmin dials the admin port, whatever the address in the URL. It uses
// loopback if the port is bound to every address.
func dialAdmin(listen string) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, _, _ string) (conn net.Conn, err error) {
		host, port, err := net.SplitHostPort(listen)
		if err != nil {
			return nil, err
		}
		hosts := []string{host}
		if ip, ipErr := netip.ParseAddr(host); host == "" || ipErr == nil && ip.IsUnspecified() {
			hosts = []string{"127.0.0.1", "::1"}
		}
		for _, host := range hosts {
			var dialer net.Dialer
			if conn, err = dialer.DialContext(ctx, "tcp", net.JoinHostPort(host, port)); err == nil {
				return conn, nil
			}
		}
		return nil, err
	}
}
