package admin

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"math/big"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

func TestProfilesAreForLoopbackAndOwnNames(t *testing.T) {
	s := New(Options{Log: silent, Token: noToken, Metrics: metrics, Readiness: readinessOf(), Pprof: true})
	for _, test := range []struct {
		peer, host string
		status     int
	}{
		{"127.0.0.1:4711", "localhost:9993", 200},
		{"127.9.9.9:4711", "127.0.0.1", 200},
		{"[::1]:4711", "[::1]:9993", 200},
		{"[::ffff:127.0.0.1]:4711", "LOCALHOST", 200},
		{"192.0.2.7:4711", "localhost:9993", 403},
		{"[2001:db8::1]:4711", "localhost:9993", 403},
		{"127.0.0.1:4711", "evil.example.org:9993", 421},
		{"", "localhost", 403},
	} {
		for _, path := range []string{"/debug/pprof/", "/debug/pprof/cmdline", "/debug/pprof/heap"} {
			r := httptest.NewRequest("GET", path, nil)
			r.RemoteAddr, r.Host = test.peer, test.host
			r.Header.Set("X-Forwarded-For", "127.0.0.1")
			r.Header.Set("Forwarded", "for=127.0.0.1")
			w := httptest.NewRecorder()
			s.http.Handler.ServeHTTP(w, r)
			if w.Code != test.status {
				t.Errorf("%s from %q to %q: status %d, want %d", path, test.peer, test.host, w.Code, test.status)
			}
			if test.status != 200 && strings.Contains(w.Body.String(), "heap") {
				t.Errorf("%s from %q: shown", path, test.peer)
			}
		}
	}
}

func selfSigned(t *testing.T) *tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"localhost"}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}

func TestTheAdminPortSpeaksTLSWithTheCertificateOfNow(t *testing.T) {
	first, second := selfSigned(t), selfSigned(t)
	var now atomic.Pointer[tls.Certificate]
	now.Store(first)
	addr, _ := serve(t, New(Options{Log: silent, Token: noToken, Metrics: metrics, Readiness: readinessOf(), Certificate: now.Load}))
	ask := func(trust *tls.Certificate) error {
		pool := x509.NewCertPool()
		pool.AddCert(trust.Leaf)
		client := http.Client{Transport: &http.Transport{
			TLSClientConfig: &tls.Config{RootCAs: pool, ServerName: "localhost"}, DisableKeepAlives: true}}
		resp, err := client.Get("https://" + addr + "/healthz")
		if err == nil {
			resp.Body.Close()
		}
		return err
	}
	if err := ask(first); err != nil {
		t.Errorf("with the first certificate: %v", err)
	}
	now.Store(second)
	if err := ask(second); err != nil {
		t.Errorf("with the second certificate: %v", err)
	}
	if err := ask(first); err == nil {
		t.Error("the first certificate is shown still")
	}
	old := &tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS11, MinVersion: tls.VersionTLS10}
	if c, err := tls.Dial("tcp", addr, old); err == nil {
		c.Close()
		t.Error("TLS 1.1 is accepted")
	}
	resp, err := http.Get("http://" + addr + "/healthz")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusBadRequest {
		t.Errorf("without TLS: status %d", resp.StatusCode)
	}
}
